# SPDX-License-Identifier: Apache-2.0
"""An API server that is slow, busy, broken, or loses its answers, between it and the agent a proxy that makes it so."""

from __future__ import annotations

import asyncio
import resource
import signal

import pytest
from podnet_ipam._kube.calico import V1
from support.faulty_proxy import Fault, FaultyProxy
from support.plane import allocated, create_pool, settled

WRITES = (("POST", "/blockaffinities"), ("POST", "/ipamblocks"), ("POST", "/ipamhandles"), ("PUT", ""), ("DELETE", ""))
TROUBLE = {
    "slow": {"seconds": 0.3},
    "reset": {"reset": True},
    "lost": {"reset": True, "carried_out": True},
    "conflict": {"status": 409},
    "busy": {"status": 429, "retry_after": 1},
    "broken": {"status": 500},
    "late": {"status": 504, "carried_out": True},
}


def faults(**trouble):
    return [Fault(method, path, **trouble) for method, path in WRITES]


@pytest.fixture
def proxy(plane):
    with FaultyProxy(plane) as proxy:
        yield proxy


async def configure(client, strict):
    spec = {"strictAffinity": strict, "autoAllocateBlocks": True}
    await client.create(V1.path("IPAMConfig"), V1.new("IPAMConfig", "default", spec))


@pytest.mark.parametrize("strict", (True, False), ids=("local first", "written through"))
async def test_whatever_befalls_writes_no_address_is_lost_doubled_or_leaked(proxy, client, start_node, strict):
    # Blocks of four addresses: claiming, borrowing and releasing blocks are part of it.
    await create_pool(client, "main", "10.244.0.0/26", blockSize=30)
    await configure(client, strict)
    node = await start_node("node-1", proxy.url)
    running = {}
    for name, trouble in TROUBLE.items():
        proxy.faults[:] = faults(times=3, **trouble)
        ending = sorted(running)[::2]
        starting = [f"{name}-{number}" for number in range(8)]
        replies = await asyncio.gather(*map(node.delete, ending), *map(node.add, starting))
        proxy.faults.clear()
        for container in ending:
            del running[container]
        for container, reply in zip(starting, replies[len(ending) :], strict=True):
            if reply.status == 0:
                running[container] = reply.address
            else:
                assert reply.body["code"] == 11 and reply.body["msg"], reply.body
                assert (await node.delete(container)).status == 0
        assert {reply.status for reply in replies[: len(ending)]} <= {0}, "a DEL succeeds, now or later"
        assert len(set(running.values())) == len(running)
        await settled(client, running.values())


async def test_a_claim_that_fails_is_refused_with_the_reason_and_the_next_one_succeeds(proxy, client, start_node):
    await create_pool(client, "main", "10.244.0.0/30", blockSize=30)
    node = await start_node("node-1", proxy.url)
    for number, (method, path) in enumerate(WRITES[:2]):
        proxy.faults[:] = [Fault(method, path, status=500)]
        reply = await node.add(f"c{number}")
        assert (reply.status, reply.body["code"]) == (1, 11)
        assert "500 Spoiled: spoiled by the test" in reply.body["msg"] and path in reply.body["msg"]
    reply = await node.add("next")
    assert reply.status == 0, reply.body
    await settled(client, [reply.address])


async def test_a_watch_that_breaks_in_the_middle_of_an_event_misses_nothing(proxy, client, start_node):
    await create_pool(client, "main", "10.244.0.0/24")
    node = await start_node("node-1", proxy.url)
    for number in range(3):
        proxy.faults[:] = [Fault("GET", "/ippools", reset=True, times=2)]
        proxy.cut_watches()
        await create_pool(client, f"later-{number}", f"10.245.{number}.0/24")
        async with asyncio.timeout(60):
            while (reply := await node.add(f"c{number}", ipam={"ipv4_pools": [f"later-{number}"]})).status:
                assert "does not exist" in reply.body["msg"]
        assert reply.address.startswith(f"10.245.{number}.")
    assert sum("watch=true" in path and "/ippools" in path for _method, path in proxy.requests) > 3


async def test_a_full_disk_costs_time_but_no_address(client, start_node):
    await create_pool(client, "main", "10.244.0.0/24")
    await configure(client, strict=True)
    node = await start_node("node-1", grace=1.0)
    there = str(node.folder)
    first = await node.add("first", netns=there)
    await settled(client, [first.address])
    node.limit(resource.RLIMIT_FSIZE, 0)
    second = await node.add("second", netns=there)
    assert (await allocated(client))[second.address] == "podnet.second", "stored before it was answered"
    assert (await node.delete("first", netns=there)).status == 0
    await settled(client, [second.address])
    node.stop(signal.SIGKILL)
    await node.start()
    assert (await node.add("second", netns=there)) == second


@pytest.mark.parametrize(("routes", "code"), ((False, 50), (True, 51)))
async def test_status_tells_whether_running_pods_suffer_from_an_absent_api_server(proxy, start_node, routes, code):
    node = await start_node("node-1", proxy.url, routes=routes)
    reply = await node.call("STATUS", "")
    assert (reply.body["code"], reply.body["msg"]) == (50, "there is no enabled IP pool for workloads")
    proxy.faults[:] = [Fault(verb, "", status=500, times=1000) for verb in ("GET", "POST")]
    proxy.cut_watches()
    async with asyncio.timeout(20):
        while (reply := await node.call("STATUS", "")).body["code"] != code:
            await asyncio.sleep(0.05)
    assert ("not routed to" in reply.body.get("details", "")) == routes


@pytest.mark.parametrize(("routes", "code"), ((False, 50), (True, 51)))
async def test_status_of_an_agent_that_knows_nothing_yet_comes_soon(proxy, start_node, routes, code):
    node = await start_node("node-1", proxy.url, routes=routes)
    proxy.faults[:] = [Fault(verb, "", status=500, times=1000) for verb in ("GET", "POST")]
    node.stop()
    node.launch()
    async with asyncio.timeout(10):  # an ADD would wait for a minute
        reply = await node.call("STATUS", "")
    assert (reply.status, reply.body["code"]) == (1, code)
    assert "the agent has not learnt" in reply.body["msg"]


async def test_without_store_and_api_server_no_pod_can_start_and_status_says_so(proxy, client, start_node):
    await create_pool(client, "main", "10.244.0.0/24")
    await configure(client, strict=True)
    node = await start_node("node-1", proxy.url)
    first = await node.add("first")
    await settled(client, [first.address])
    node.limit(resource.RLIMIT_FSIZE, 0)
    await node.add("second")
    proxy.faults[:] = [Fault(verb, "", status=500, times=1000) for verb in ("GET", "POST", "PUT")]
    proxy.cut_watches()
    async with asyncio.timeout(20):
        while not (reply := await node.call("STATUS", "")).status:
            await asyncio.sleep(0.05)
    assert reply.body["code"] == 50, reply.body
    assert "store cannot be written" in reply.body["msg"]


async def test_status_says_that_nothing_can_be_answered_first_where_affinity_is_not_strict(proxy, client, start_node):
    await create_pool(client, "main", "10.244.0.0/24")
    node = await start_node("node-1", proxy.url)
    first = await node.add("first")
    await settled(client, [first.address])
    proxy.faults[:] = [Fault(verb, "", status=500, times=1000) for verb in ("GET", "POST", "PUT")]
    proxy.cut_watches()
    async with asyncio.timeout(20):
        while not (reply := await node.call("STATUS", "")).status:
            await asyncio.sleep(0.05)
    assert reply.body["code"] == 50
    assert "has to be stored there before it is answered: strictAffinity is off" in reply.body["msg"]


@pytest.mark.slow  # it takes as long as the agent has patience
@pytest.mark.parametrize("trouble", TROUBLE.values(), ids=TROUBLE.keys())
async def test_what_cannot_be_written_for_long_is_refused_with_the_reason(proxy, client, start_node, trouble):
    await create_pool(client, "main", "10.244.0.0/24")
    node = await start_node("node-1", proxy.url)
    first = await node.add("first")
    proxy.faults[:] = [Fault("PUT", "", times=1000, **{**trouble, "seconds": 0.1})]
    reply = await node.add("second")
    proxy.faults.clear()
    held = [first.address]
    if reply.status == 0:
        held.append(reply.address)
    else:
        assert reply.body["code"] == 11 and "not stored at the API server within 15 s" in reply.body["msg"]
    await settled(client, held)


@pytest.mark.parametrize("body", (b"<html>maintenance</html>\n", b'{"items": ["\xff"], "metadata": {}}\n'))
async def test_answers_that_are_no_json_end_no_agent(proxy, client, start_node, body):
    await create_pool(client, "main", "10.244.0.0/24")
    await configure(client, strict=False)
    node = await start_node("node-1", proxy.url)
    page = {"status": 200, "body": body}
    proxy.faults[:] = [Fault("GET", "/ippools", times=3, **page), Fault("POST", "/ipamblocks", **page)]
    proxy.cut_watches()
    reply = await node.add("refused")
    assert (reply.status, reply.body["code"]) == (1, 11), reply.body
    await create_pool(client, "later", "10.245.0.0/24")
    async with asyncio.timeout(60):
        while (await node.add("c1", ipam={"ipv4_pools": ["later"]})).status:
            await asyncio.sleep(0.1)
    assert not any(fault.times for fault in proxy.faults), "nothing was tested"
    assert node.is_running


async def test_a_broken_block_keeps_no_pod_from_starting_and_its_own_end_once_it_is_mended(client, start_node):
    await create_pool(client, "main", "10.244.0.0/24", blockSize=28)
    node = await start_node("node-1")
    first = await node.add("first")
    await settled(client, [first.address])
    node.stop()
    [sound] = (await client.list(V1.path("IPAMBlock")))[0]
    path, number = V1.path("IPAMBlock", sound["metadata"]["name"]), sound["spec"]["sequenceNumber"]
    broken = await client.replace(path, V1.changed(sound, {**sound["spec"], "unallocated": []}))
    await node.start()
    assert f"block {sound['metadata']['name']} is broken, and is left out" in node.log.read_text()
    second = await node.add("second")
    assert second.status == 0, second.body
    assert (await node.delete("first")).status == 0, "it is carried out later"
    assert await client.get(path) == broken
    await client.replace(path, V1.changed(broken, {**sound["spec"], "sequenceNumber": number + 1}))
    await settled(client, [second.address])
