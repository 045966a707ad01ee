# SPDX-License-Identifier: Apache-2.0
"""What podnet-ipam-ctl tells an operator on a node."""

from __future__ import annotations

import asyncio
import sqlite3
import stat

import pytest
from podnet_ipam._kube.calico import V1
from support.plane import allocated, create_pool, settled, stored

PODS = "/api/v1/namespaces/default/pods"
POOLS = "cni.projectcalico.org/ipv4pools"


@pytest.fixture
async def node(client, start_node):
    await create_pool(client, "main", "10.244.0.0/24", blockSize=28)
    await create_pool(client, "manual", "10.245.0.0/24", assignmentMode="Manual")
    spec = {"strictAffinity": True, "autoAllocateBlocks": True}
    await client.create(V1.path("IPAMConfig"), V1.new("IPAMConfig", "default", spec))
    return await start_node("node-1", cooldown=60)


@pytest.fixture
async def start_pod(client, node):
    """Make a pod's object, give the pod an address like the runtime, and note it in its status like the kubelet."""

    async def start_pod(name: str, annotations: dict[str, str] | None = None) -> str:
        pod = await client.create(PODS, pod_object(name, annotations or {}))
        reply = await node.add(name, annotations=annotations)
        pod["status"] = {"phase": "Running", "podIP": reply.address, "podIPs": [{"ip": reply.address}]}
        await client.replace(f"{PODS}/{name}/status", pod)
        return reply.address

    yield start_pod
    for pod in (await client.list(PODS))[0]:
        await remove_pod(client, pod["metadata"]["name"])


def pod_object(name, annotations):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "nodeName": "node-1",
            "containers": [{"name": "c", "image": "none"}],
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
        },
    }


async def remove_pod(client, name):
    pod = await client.get(f"{PODS}/{name}")
    await client.delete(f"{PODS}/{name}", pod["metadata"]["uid"])


async def checked(node):
    """{what: disagreement}"""
    reply = await node.ctl("check", "--output", "json")
    assert reply.status == (1 if reply.json else 0)
    return {each["subject"]: each["problem"] for each in reply.json}


async def test_status_tells_whether_pods_get_addresses_and_what_is_left(node, client):
    reply = await node.add("c1")
    await settled(client, [reply.address])
    status = (await node.ctl("status", "--output", "json")).json
    assert status["node"] == "node-1" and status["ready"] is True and status["reason"] is None
    assert status["api_server_away_seconds"] == 0
    assert status["store"] == {"path": str(node.store), "held": 1, "released": 0}
    assert status["tombstones"] == 0 and status["unsettled"] == 0 and status["attachments"] == 1
    [block] = status["blocks"]
    assert status["addresses_left"] == {"IPv4": block["free"], "IPv6": 0}
    assert block["mode"] == "local-first" and block["pool"] == "main"
    text = (await node.ctl("status")).stdout
    assert "node         node-1\n" in text and "ready        yes\n" in text and "API server   answers\n" in text


async def test_status_says_of_each_block_why_its_addresses_are_written_through(node, client):
    await node.add("c1")
    await node.delete("c1")
    await settled(client, [])
    [block] = (await node.ctl("status", "--output", "json")).json["blocks"]
    assert block["mode"] == "written-through" and "has not seen it in use" in block["why"]
    config = (await stored(client, V1.config_kind))["default"]
    config["spec"]["strictAffinity"] = False
    await client.replace(V1.path(V1.config_kind, "default"), config)
    async with asyncio.timeout(10):
        while "strictAffinity is off" not in (await node.ctl("status")).stdout:
            await asyncio.sleep(0.05)


async def test_status_counts_the_tombstones(node, client, plane):
    plane.stop_apiserver()
    try:
        assert (await node.delete("unheard-of")).status == 0
        assert "tombstones   1\n" in (await node.ctl("status")).stdout
    finally:
        plane.start_apiserver()


async def test_pools_lists_every_pool_with_what_the_node_has_of_it(node, client):
    await create_pool(client, "off", "10.246.0.0/24", disabled=True)
    await node.add("c1")
    async with asyncio.timeout(10):
        while "off" not in (await node.ctl("pools")).stdout:
            await asyncio.sleep(0.05)
    pools = {pool["name"]: pool for pool in (await node.ctl("pools", "--output", "json")).json}
    assert pools.keys() == {"main", "manual", "off"}
    assert pools["main"]["blocks"] == 1 and pools["main"]["used"] == 1
    assert pools["manual"]["blocks"] == pools["manual"]["free"] == 0 and pools["manual"]["not_usable"] is None
    assert pools["off"]["not_usable"] == "it is disabled"
    header, *rows = (await node.ctl("pools")).stdout.splitlines()
    assert header.split()[:4] == ["NAME", "FAMILY", "CIDR", "BLOCKS"] and len(rows) == 3


async def test_blocks_draws_each_address(node, client):
    replies = {container: await node.add(container, pod=container) for container in ("c1", "c2", "c3")}
    await node.delete("c2")
    [block] = (await node.ctl("blocks", "--output", "json")).json
    base = int(block["cidr"].partition("/")[0].rpartition(".")[2])
    ordinals = {container: int(reply.address.rpartition(".")[2]) - base for container, reply in replies.items()}
    drawn = {container: block["states"][ordinal] for container, ordinal in ordinals.items()}
    assert drawn == {"c1": "#", "c2": "c", "c3": "#"}
    assert len(block["states"]) == 16
    assert (block["states"][0] == "r") == (base == 0), "the pool's gateway"
    text = (await node.ctl("blocks")).stdout
    assert block["states"] in text and "2 used" in text and "1 cooling" in text


async def test_explain_names_the_pools_of_a_pod_and_why_not_the_others(node, start_pod):
    address = await start_pod("web-0", {POOLS: '["manual"]'})
    answer = (await node.ctl("explain", "default/web-0", "--output", "json")).json
    assert answer["holds"] == [address] and answer["families"] == ["IPv4"]
    assert answer["ipv4"]["pools"] == ["manual"]
    assert answer["ipv4"]["source"] == f"annotation {POOLS} of pod default/web-0"
    text = (await node.ctl("explain", "default/web-0")).stdout
    assert f"ipv4     manual, by annotation {POOLS} of pod default/web-0\n" in text
    assert f"not main: annotation {POOLS} of pod default/web-0 does not name it\n" in text


async def test_explain_names_the_pool_that_gives_the_address_and_why_the_others_do_not(node, client, start_pod):
    """Addresses that rest are known to the node alone."""
    await create_pool(client, "small", "10.246.0.0/30", blockSize=30)
    await start_pod("web-0", {POOLS: '["manual"]'})
    text = (await node.ctl("explain", "default/web-0")).stdout
    assert "gets its address from manual\n" in text
    for number in range(2):  # the other two are the pool's gateway and its broadcast address
        await start_pod(f"small-{number}", {POOLS: '["small"]'})
    for number in range(2):
        await node.delete(f"small-{number}")
    await client.create(PODS, pod_object("next", {POOLS: '["small","main","manual"]'}))
    choice = (await node.ctl("explain", "default/next", "--output", "json")).json["ipv4"]
    assert choice["pool"] == "manual" and [room["way"] for room in choice["room"]] == [None, "new_block", "own_block"]
    assert "node node-1 would claim its block 10.244.0." in choice["room"][1]["reason"]
    text = (await node.ctl("explain", "default/next")).stdout
    assert "not small: node node-1 has no block of it with a free address; each of its blocks is claimed" in text
    await client.create(PODS, pod_object("last", {POOLS: '["small"]'}))
    text = (await node.ctl("explain", "default/last")).stdout
    assert "no address: pod default/last: none of its pools has an address left for node node-1: small:" in text
    assert (await node.add("last", annotations={POOLS: '["small"]'})).status == 1


async def test_explain_goes_by_the_plugins_configuration_of_the_last_add(node, client, start_pod):
    await start_pod("web-0")
    assert (await node.ctl("explain", "default/web-0", "--output", "json")).json["ipv4"]["pools"] == ["main"]
    await node.add("other", ipam={"ipv4_pools": ["manual"]})
    choice = (await node.ctl("explain", "default/web-0", "--output", "json")).json["ipv4"]
    assert choice["pools"] == ["manual"] and choice["source"] == "the plugin's configuration"


async def test_explain_of_a_pod_that_does_not_exist_says_so(node):
    reply = await node.ctl("explain", "default/nobody")
    assert reply.status == 2 and 'pods "nobody" not found' in reply.stderr and not reply.stdout
    reply = await node.ctl("explain", "nobody")
    assert reply.status == 2 and "is not NAMESPACE/POD" in reply.stderr


async def test_all_is_well_while_pods_come_and_go(node, start_pod, client):
    await asyncio.gather(*(start_pod(f"web-{number}") for number in range(20)))
    assert await checked(node) == {}
    reply = await node.ctl("check")
    assert reply.status == 0 and "agree" in reply.stdout
    for number in range(5):
        await node.delete(f"web-{number}")
        await remove_pod(client, f"web-{number}")
        assert await checked(node) == {}


async def test_an_address_that_was_freed_behind_the_agents_back_is_found(node, start_pod, client):
    address = await start_pod("web-0")
    await settled(client, [address])
    [block] = (await stored(client, "IPAMBlock")).values()
    spec = block["spec"]
    ordinal = next(ordinal for ordinal, index in enumerate(spec["allocations"]) if index is not None)
    spec["allocations"][ordinal], spec["attributes"] = None, []
    spec["unallocated"].append(ordinal)
    await client.replace(V1.path("IPAMBlock", block["metadata"]["name"]), block)
    problem = "held by podnet.web-0 for the agent, free for the API server"
    assert await checked(node) == {f"address {address}": problem}
    reply = await node.ctl("check")
    assert reply.status == 1
    assert [line.split(maxsplit=2)[:2] for line in reply.stdout.splitlines()][1] == ["address", address]


async def test_a_handle_without_an_object_is_found(node, start_pod, client):
    address = await start_pod("web-0")
    await settled(client, [address])
    [handle] = (await stored(client, "IPAMHandle")).values()
    await client.delete(V1.path("IPAMHandle", handle["metadata"]["name"]), handle["metadata"]["uid"])
    assert await checked(node) == {"handle podnet.web-0": f"holds {address}, but does not exist at the API server"}


async def test_a_pod_that_is_gone_and_a_pod_whose_address_nobody_holds_are_found(node, start_pod, client):
    address = await start_pod("web-0")
    await settled(client, [address])
    await remove_pod(client, "web-0")
    gone = {"pod default/web-0": f"does not run here, but handle podnet.web-0 holds {address}"}
    assert await checked(node) == gone
    other = await start_pod("web-1")
    await node.delete("web-1")
    assert await checked(node) == {**gone, "pod default/web-1": f"runs with {other}, which nobody holds"}


async def test_a_row_of_the_store_that_the_agent_does_not_know_is_found(node, start_pod, client):
    address = await start_pod("web-0")
    await settled(client, [address])
    with sqlite3.connect(node.store) as store:
        store.execute("UPDATE attachments SET handle = 'podnet.stranger'")
    store.close()
    problem = "held by podnet.stranger for the store, held by podnet.web-0 for the agent"
    assert await checked(node) == {f"address {address}": problem}


async def test_a_claim_and_a_block_that_do_not_match_are_found(node, start_pod, client):
    address = await start_pod("web-0")
    await settled(client, [address])
    await client.create(V1.path("BlockAffinity"), V1.new_affinity("node-1", "10.244.0.240/28", "confirmed"))
    [block] = (await stored(client, "IPAMBlock")).values()
    block["spec"]["affinity"] = "host:node-2"
    await client.replace(V1.path("IPAMBlock", block["metadata"]["name"]), block)
    expected = {
        f"block {block['spec']['cidr']}": "of host:node-1 for the agent, of host:node-2 for the API server",
        "block 10.244.0.240/28": "claimed for this node, but the agent does not know it",
    }
    async with asyncio.timeout(10):
        while await checked(node) != expected:
            await asyncio.sleep(0.05)


async def test_what_is_on_its_way_to_the_api_server_is_no_disagreement(node, start_pod, client):
    await start_pod("web-0")
    stop = asyncio.Event()

    async def come_and_go():
        number = 0
        while not stop.is_set():
            number += 1
            await client.create(PODS, pod_object(f"busy-{number}", {}))
            await node.add(f"busy-{number}")
            await node.delete(f"busy-{number}")
            await remove_pod(client, f"busy-{number}")

    busy = asyncio.create_task(come_and_go())
    try:
        for _round in range(15):
            assert await checked(node) == {}
    finally:
        stop.set()
        await busy


async def test_check_without_an_api_server_says_so_instead_of_guessing(node, plane):
    await node.add("c1")
    plane.stop_apiserver()
    try:
        reply = await node.ctl("check")
        assert reply.status == 2 and "no answer from the API server" in reply.stderr
    finally:
        plane.start_apiserver()


async def test_an_agent_that_is_not_running_is_named_with_its_unit_and_its_socket(node):
    node.stop()
    reply = await node.ctl("status")
    assert reply.status == 2 and not reply.stdout
    assert str(node.control) in reply.stderr and "systemctl status podnet-ipam.service" in reply.stderr


async def test_an_agent_that_has_learnt_nothing_yet_still_tells_its_status(node, plane):
    node.stop()
    plane.stop_apiserver()
    try:
        node.launch()
        async with asyncio.timeout(20):
            while (reply := await node.ctl("status")).status != 0:
                await asyncio.sleep(0.05)
        assert "ready        no: the agent has not learnt the cluster's state yet" in reply.stdout
        reply = await node.ctl("blocks")
        assert reply.status == 2 and "has not learnt the cluster's state" in reply.stderr
    finally:
        plane.start_apiserver()


async def test_the_socket_is_open_to_root_alone(node):
    assert stat.S_IMODE(node.control.stat().st_mode) == 0o600


async def test_what_is_allocated_is_what_blocks_draws(node, client):
    replies = [await node.add(f"c{number}") for number in range(20)]
    await settled(client, [reply.address for reply in replies])
    drawn = sum(block["states"].count("#") for block in (await node.ctl("blocks", "--output", "json")).json)
    assert drawn == len(await allocated(client)) == 20
