# SPDX-License-Identifier: Apache-2.0
"""A pod that is created again under its name gets its former address, if it asked for that."""

from __future__ import annotations

import asyncio
import json
import signal

import pytest
from podnet_ipam._kube.calico import V1
from support.plane import allocated, create_pool, settled

STICKY = "ipam.podnet.io/sticky"
POOLS = "cni.projectcalico.org/ipv4pools"
ADDRESSES = "cni.projectcalico.org/ipAddrs"
BOTH = {"assign_ipv4": "true", "assign_ipv6": "true"}


@pytest.fixture
async def pools(client):
    """Two pools of one block each, the first with 6 addresses beside gateway and broadcast, and one of IPv6."""
    await create_pool(client, "main", "10.244.0.0/29", blockSize=29)
    await create_pool(client, "other", "10.244.1.0/29", blockSize=29, assignmentMode="Manual")
    await create_pool(client, "six", "fd00:10:244::/64")
    spec = {"strictAffinity": True, "autoAllocateBlocks": True}
    await client.create(V1.path("IPAMConfig"), V1.new("IPAMConfig", "default", spec))


@pytest.fixture
async def node(pools, start_node):
    return await start_node("node-1")


def sticky(pod, time="10m", **annotations):
    return {"pod": pod, "annotations": {STICKY: time, **annotations}}


def addresses(reply):
    return [ip["address"] for ip in reply.body["ips"]]


async def test_a_pod_of_the_same_name_gets_the_addresses_back(node):
    before = await node.add("c1", **sticky("db-0"), ipam=BOTH)
    await node.delete("c1", pod="db-0")
    await node.add("c2", pod="web-0", ipam=BOTH)
    assert addresses(await node.add("c3", **sticky("db-0"), ipam=BOTH)) == addresses(before)


async def test_nobody_else_gets_a_kept_address(node):
    kept = await node.add("c1", **sticky("db-0"))
    await node.delete("c1")
    replies = [await node.add(f"c{number}", pod=f"web-{number}") for number in range(2, 7)]
    assert [reply.status for reply in replies] == [0] * 5
    assert kept.address not in {reply.address for reply in replies}
    refused = await node.add("c8", pod="web-8")
    assert refused.body["code"] == 11 and "is kept for the pod that had it" in refused.body["msg"]
    asked = await node.add("c9", pod="web-9", annotations={ADDRESSES: json.dumps([kept.address])})
    assert asked.body["code"] == 102
    assert "which is kept for pod default/db-0 of network podnet" in asked.body["msg"]
    assert (await node.add("c10", **sticky("db-0"))).address == kept.address


async def test_a_pod_may_ask_for_the_very_address_that_is_kept_for_it(node):
    kept = await node.add("c1", **sticky("db-0"))
    await node.delete("c1")
    asked = await node.add("c2", **sticky("db-0", **{ADDRESSES: json.dumps([kept.address])}))
    assert asked.address == kept.address


@pytest.mark.parametrize("other", ({"namespace": "kube-system"}, {"network": "second"}))
async def test_a_pod_of_another_namespace_or_network_is_another_one(node, other):
    kept = await node.add("c1", **sticky("db-0"))
    await node.delete("c1")
    assert (await node.add("c2", **sticky("db-0"), **other)).address != kept.address


async def test_without_the_annotation_a_pod_of_the_same_name_gets_any_address(node):
    kept = await node.add("c1", **sticky("db-0"))
    await node.delete("c1")
    assert (await node.add("c2", pod="db-0")).address != kept.address


async def test_of_two_pods_of_one_name_at_once_one_gets_the_address(node, client):
    kept = await node.add("c1", **sticky("db-0"))
    await node.delete("c1")
    replies = await asyncio.gather(*(node.add(f"c{number}", **sticky("db-0")) for number in range(2, 6)))
    given = [reply.address for reply in replies]
    assert given.count(kept.address) == 1 and len(set(given)) == 4
    await settled(client, given)


async def test_a_pod_that_has_been_assigned_elsewhere_since_gets_an_address_there(node):
    kept = await node.add("c1", **sticky("db-0"))
    await node.delete("c1")
    moved = await node.add("c2", **sticky("db-0", **{POOLS: '["other"]'}))
    assert moved.address != kept.address and moved.address.startswith("10.244.1.")


async def test_an_address_of_a_pool_that_has_been_disabled_since_is_not_given_back(node, client):
    kept = await node.add("c1", **sticky("db-0"))
    await node.delete("c1")
    await create_pool(client, "next", "10.244.2.0/29", blockSize=29)
    pool = await client.get(V1.path("IPPool", "main"))
    await client.replace(V1.path("IPPool", "main"), {**pool, "spec": {**pool["spec"], "disabled": True}})
    async with asyncio.timeout(30):
        while not any(each["not_usable"] for each in (await node.ctl("pools", "--output", "json")).json):
            await asyncio.sleep(0.05)
    moved = await node.add("c2", **sticky("db-0"))
    assert moved.address != kept.address and moved.address.startswith("10.244.2.")
    asked = await node.add("c3", **sticky("db-0", **{ADDRESSES: json.dumps([kept.address])}))
    assert asked.body["code"] == 7 and "of pool main, but it is disabled" in asked.body["msg"]


async def test_an_address_that_has_been_reserved_since_is_not_given_back(node, client):
    kept = await node.add("c1", **sticky("db-0"))
    await node.delete("c1")
    reserved = V1.new("IPReservation", "taken", {"reservedCIDRs": [kept.address]})
    await client.create(V1.path("IPReservation"), reserved)
    await asyncio.sleep(0.5)
    assert (await node.add("c2", **sticky("db-0"))).address != kept.address


async def test_after_its_time_the_address_is_anyones(node, client):
    await node.add("c1", **sticky("db-0", "1s"))
    await node.delete("c1")
    await settled(client, [])
    await asyncio.sleep(1.1)
    replies = [await node.add(f"c{number}", pod=f"web-{number}") for number in range(6)]
    assert [reply.status for reply in replies] == [0] * 6


async def test_each_time_that_the_pod_ends_the_time_begins_anew(node):
    kept = await node.add("c1", **sticky("db-0", "2s"))
    for number in range(2, 5):
        await node.delete(f"c{number - 1}")
        await asyncio.sleep(0.8)
        assert (await node.add(f"c{number}", **sticky("db-0", "2s"))).address == kept.address
    await node.delete("c4")
    replies = [await node.add(f"w{number}", pod=f"web-{number}") for number in range(5)]
    assert kept.address not in {reply.address for reply in replies}


@pytest.mark.parametrize("how", (signal.SIGTERM, signal.SIGKILL))
async def test_an_address_is_kept_over_a_restart(node, client, how):
    kept = await node.add("c1", **sticky("db-0"))
    await settled(client, [kept.address])
    await node.delete("c1")
    node.stop(how)
    await node.start()
    assert kept.address != (await node.add("c2", pod="web-0")).address
    assert (await node.add("c3", **sticky("db-0"))).address == kept.address


async def test_a_pod_that_ends_after_a_restart_has_its_address_kept(node):
    kept = await node.add("c1", **sticky("db-0"))
    node.stop(signal.SIGKILL)
    await node.start()
    await node.delete("c1")
    assert (await node.add("c2", **sticky("db-0"))).address == kept.address


async def test_an_address_in_use_again_rests_no_longer_after_a_restart(node, client):
    kept = await node.add("c1", **sticky("db-0"))
    await node.delete("c1")
    await node.add("c2", **sticky("db-0"))
    node.stop(signal.SIGKILL)
    await node.start()
    other = await node.add("c3", **sticky("db-0"))
    assert other.address != kept.address
    assert (await allocated(client))[kept.address] == "podnet.c2"


async def test_on_another_node_the_pod_gets_another_address(node, start_node, client):
    uid = (await client.get(V1.path("IPPool", "main")))["metadata"]["uid"]
    await client.delete(V1.path("IPPool", "main"), uid)
    await create_pool(client, "wide", "10.245.0.0/20")
    await asyncio.sleep(0.5)
    kept = await node.add("c1", **sticky("db-0"))
    await node.delete("c1")
    second = await start_node("node-2")
    assert (await second.add("c2", **sticky("db-0"))).address != kept.address


@pytest.mark.parametrize("value", ("10", "soon", "0s", "-5m", "25h", "1m1h", "1.5h", "24h1s"))
async def test_a_bad_time_is_refused_with_pod_annotation_and_value(node, value):
    reply = await node.add("c1", **sticky("db-0", value))
    assert (reply.status, reply.body["code"]) == (1, 7)
    assert f"pod default/db-0: annotation {STICKY} is '{value}'; a time of at most 24h" in reply.body["msg"]


@pytest.mark.parametrize("value", ("24h", "1h30m", "90s", "1h5s"))
async def test_times_are_written_as_go_writes_them(node, value):
    assert (await node.add("c1", **sticky("db-0", value))).status == 0
