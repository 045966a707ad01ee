# SPDX-License-Identifier: Apache-2.0
"""Addresses whose DEL never came, or came while nobody could carry it out."""

from __future__ import annotations

import asyncio
import signal

import pytest
from podnet_ipam._kube.calico import V1
from support.conversation import ask
from support.faulty_proxy import Fault, FaultyProxy
from support.plane import allocated, create_pool, settled

VALID = "cni.dev/valid-attachments"
GRACE = 0.2


@pytest.fixture
async def node(client, start_node):
    await create_pool(client, "main", "10.244.0.0/20")
    spec = {"strictAffinity": True, "autoAllocateBlocks": True}
    await client.create(V1.path("IPAMConfig"), V1.new("IPAMConfig", "default", spec))
    return await start_node("node-1", grace=GRACE)


async def add(node, container, **options):
    """An attachment that looks alive: the agent frees one without a network namespace without being asked."""
    return await node.add(container, netns=str(node.folder), **options)


async def test_a_delete_without_an_agent_succeeds_and_is_carried_out_when_there_is_one_again(node, client):
    kept, gone = await add(node, "kept"), await add(node, "gone")
    await settled(client, [kept.address, gone.address])
    node.stop(signal.SIGKILL)
    assert (await node.delete("gone")).status == 0
    assert len(list(node.spool.iterdir())) == 1
    await node.start()
    await settled(client, [kept.address])
    assert list(node.spool.iterdir()) == []


async def test_an_unreadable_tombstone_is_dropped_and_the_others_are_carried_out(node, client):
    kept, gone = await add(node, "kept"), await add(node, "gone")
    await settled(client, [kept.address, gone.address])
    node.stop()
    (node.spool / "0-garbage").write_bytes(b"P1CNI_COMMAND")
    (node.spool / ".half-written").write_bytes(b"P1")
    await node.delete("gone")
    await node.start()
    await settled(client, [kept.address])


async def test_a_container_that_comes_back_with_the_agent_does_not_lose_its_address_to_its_earlier_delete(
    client, plane, start_node
):
    await create_pool(client, "main", "10.244.0.0/20")
    with FaultyProxy(plane) as proxy:
        node = await start_node("node-1", proxy.url)
        await add(node, "again")
        node.stop(signal.SIGKILL)
        for container in ("never-seen", "again"):
            assert (await node.delete(container)).status == 0
        proxy.faults.append(Fault("GET", "/ipamhandles/podnet.never-seen", seconds=1))
        node.launch()
        await node.logged("ready: node")
        reply = await add(node, "again")
        assert reply.status == 0
        await node.worked_off()
        await asyncio.sleep(0.5)
        await settled(client, [reply.address])


async def test_an_unknown_attachment_is_deleted_while_the_api_server_is_away(node, client, plane):
    before = await add(node, "c1")
    await settled(client, [before.address])
    plane.stop_apiserver()
    try:
        assert (await node.delete("never-seen")).status == 0
        assert len(list(node.spool.iterdir())) == 1
    finally:
        plane.start_apiserver()
    await node.worked_off()


async def test_gc_frees_what_is_not_in_the_list_of_its_own_network(node, client):
    kept, gone = await add(node, "kept"), await add(node, "gone")
    other = await add(node, "elsewhere", network="other")
    await asyncio.sleep(GRACE)
    reply = await node.call("GC", "", **{VALID: [{"containerID": "kept", "ifname": "eth0"}]})
    assert reply.status == 0
    await settled(client, [kept.address, other.address])
    assert gone.address not in await allocated(client)


async def test_gc_frees_what_only_another_interface_of_the_container_is_valid_for(node, client):
    kept, _lost = [await add(node, container) for container in ("kept", "lost")]
    await asyncio.sleep(GRACE)
    valid = [{"containerID": "kept", "ifname": "eth0"}, {"containerID": "lost", "ifname": "net1"}]
    assert (await node.call("GC", "", **{VALID: valid})).status == 0
    await settled(client, [kept.address])


@pytest.mark.parametrize("nothing", ([], None))
async def test_gc_with_an_empty_list_or_null_frees_everything_that_is_old_enough(client, start_node, nothing):
    await create_pool(client, "main", "10.244.0.0/20")
    node = await start_node("node-1", grace=2)
    await add(node, "old")
    await asyncio.sleep(2)
    young = await add(node, "young")
    assert (await node.call("GC", "", **{VALID: nothing})).status == 0
    await settled(client, [young.address])


async def test_gc_without_the_list_is_refused(node):
    reply = await node.call("GC", "")
    assert (reply.status, reply.body["code"]) == (1, 7)
    assert VALID in reply.body["msg"]


@pytest.mark.parametrize(("command", "version", "since"), (("GC", "1.0.0", "1.1.0"), ("CHECK", "0.3.1", "0.4.0")))
async def test_a_verb_is_refused_in_a_version_that_does_not_have_it(node, command, version, since):
    reply = await node.call(command, "c1", version=version)
    assert reply.body["code"] == 1 and since in reply.body["msg"]


async def test_status_succeeds_while_a_pod_could_start_and_says_why_none_could(node, client):
    assert (await node.call("STATUS", "")).status == 0
    await client.delete(V1.path("IPPool", "main"), (await client.get(V1.path("IPPool", "main")))["metadata"]["uid"])
    await asyncio.sleep(0.5)
    reply = await node.call("STATUS", "")
    assert (reply.status, reply.body["code"]) == (1, 50)
    assert "no enabled IP pool" in reply.body["msg"]


async def test_a_pod_that_vanished_without_a_delete_gives_its_address_back(node, client, tmp_path):
    netns = tmp_path / "netns"
    netns.touch()
    living = await node.add("living", netns=str(netns))
    await node.add("vanished", netns="/run/netns/is-not-there")
    await settled(client, [living.address])


async def test_a_pod_that_the_api_server_knows_keeps_its_address_without_its_network_namespace(node, client):
    reply = await node.add("known", pod="known", netns="/run/netns/is-not-there")
    pod = {"metadata": {"name": "known"}, "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "i"}]}}
    await client.create("/api/v1/namespaces/default/pods", pod)
    await asyncio.sleep(1.5)
    assert reply.address in await allocated(client)


async def test_a_container_that_starts_again_while_it_is_looked_for_keeps_its_address(
    client, plane, start_node, tmp_path
):
    await create_pool(client, "main", "10.244.0.0/20")
    netns = tmp_path / "netns"
    replies = []

    def start_again():
        netns.touch()
        annotated = {"runtimeConfig": {"io.kubernetes.cri.pod-annotations": {}}}
        arguments = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=again"
        replies.append(ask(node.socket, "ADD", "again", annotated, CNI_NETNS=str(netns), CNI_ARGS=arguments))

    with FaultyProxy(plane) as proxy:
        node = await start_node("node-1", proxy.url, grace=GRACE)
        proxy.faults.append(Fault("GET", "/pods/again", meanwhile=start_again))
        first = await node.add("again", netns=str(netns))
        async with asyncio.timeout(15):
            while not replies:
                await asyncio.sleep(0.05)
        assert replies[0].address == first.address
        await asyncio.sleep(1.5)
        assert first.address in await allocated(client)


async def test_the_network_namespace_is_remembered_over_a_restart(node, client, tmp_path):
    netns = tmp_path / "netns"
    netns.touch()
    reply = await node.add("c1", netns=str(netns))
    await settled(client, [reply.address])
    node.stop(signal.SIGKILL)
    await node.start()
    await asyncio.sleep(1.5)
    assert reply.address in await allocated(client)
    netns.unlink()
    await settled(client, [])
