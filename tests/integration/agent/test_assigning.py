# SPDX-License-Identifier: Apache-2.0
"""Addresses given and taken back through the installed executable, with a real API server behind the agent."""

from __future__ import annotations

import asyncio
import ipaddress
import signal

import pytest
from podnet_ipam._core.names import cidr_name, handle_name
from podnet_ipam._kube.calico import V1
from support.plane import allocated, create_pool, settled, stored

V4 = "cni.projectcalico.org/ipv4pools"
FAMILIES = "cni.projectcalico.org/ipFamilies"


async def test_a_pod_gets_an_address_that_ptp_can_use(client, start_node):
    await create_pool(client, "main", "10.244.0.0/20")
    node = await start_node("node-1")
    reply = await node.add("c1")
    assert reply.status == 0, reply.body
    assert reply.body["cniVersion"] == "1.1.0"
    address = ipaddress.ip_interface(reply.body["ips"][0]["address"])
    assert address.network == ipaddress.ip_network("10.244.0.0/20")
    assert reply.body["ips"][0]["gateway"] == "10.244.0.0" != str(address.ip)
    assert reply.body["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.244.0.0"}]


async def test_what_is_stored_is_what_calico_stores(client, start_node):
    await create_pool(client, "main", "10.244.0.0/20")
    node = await start_node("node-1")
    reply = await node.add("ABC", pod="web-0", network="k8s-pod-network")

    [affinity] = (await stored(client, "BlockAffinity")).values()
    cidr = affinity["spec"]["cidr"]
    assert affinity["spec"] == {
        "state": "confirmed",
        "node": "node-1",
        "type": "host",
        "cidr": cidr,
        "deleted": "false",
    }
    assert affinity["metadata"]["name"] == f"node-1-{cidr_name(cidr)}"
    assert affinity["metadata"]["labels"]["projectcalico.org/ip-version"] == "4"
    assert "projectcalico.org/metadata" in affinity["metadata"]["annotations"]

    handle = (await stored(client, "IPAMHandle"))[handle_name("k8s-pod-network.ABC")]
    assert handle["spec"] == {"handleID": "k8s-pod-network.ABC", "block": {cidr: 1}, "deleted": False}

    block = (await stored(client, "IPAMBlock"))[cidr_name(cidr)]["spec"]
    [attribute] = block["attributes"]
    ordinal = block["allocations"].index(0)
    assert attribute["handle_id"] == "k8s-pod-network.ABC"
    assert {**attribute["secondary"], "timestamp": ""} == {
        "interface": "eth0",
        "namespace": "default",
        "node": "node-1",
        "pod": "web-0",
        "timestamp": "",
    }
    assert attribute["secondary"]["timestamp"].endswith(" +0000 UTC")
    assert block["affinity"] == "host:node-1" and block["affinityClaimTime"]
    assert block["sequenceNumber"] == block["sequenceNumberForAllocation"][str(ordinal)] + 1
    assert ordinal not in block["unallocated"] and len(block["unallocated"]) == 63
    assert str(ipaddress.ip_network(cidr).network_address + ordinal) == reply.address


async def test_a_deleted_pod_leaves_nothing_behind(client, start_node):
    await create_pool(client, "main", "10.244.0.0/20")
    node = await start_node("node-1")
    address = (await node.add("c1")).address
    await settled(client, [address])
    assert (await node.delete("c1")).status == 0
    await settled(client, [])
    assert (await node.delete("c1")).status == 0, "deleting again is no error"
    assert (await node.delete("never-seen")).status == 0


async def test_the_same_attachment_asked_twice_gets_the_same_answer(client, start_node):
    await create_pool(client, "main", "10.244.0.0/20")
    node = await start_node("node-1")
    first, second = await asyncio.gather(node.add("c1"), node.add("c1"))
    assert first == second
    await settled(client, [first.address])


async def test_a_burst_of_pods_gets_distinct_addresses_and_shares_writes(client, start_node):
    await create_pool(client, "main", "10.244.0.0/20")
    node = await start_node("node-1")
    first = await node.add("first")
    before = {name: obj["spec"]["sequenceNumber"] for name, obj in (await stored(client, "IPAMBlock")).items()}
    replies = await asyncio.gather(*(node.add(f"c{number}") for number in range(50)))
    assert [reply.status for reply in replies] == [0] * 50
    assert len({reply.address for reply in replies}) == 50
    await settled(client, [first.address, *(reply.address for reply in replies)])
    after = {name: obj["spec"]["sequenceNumber"] for name, obj in (await stored(client, "IPAMBlock")).items()}
    writes = sum(after[name] - before[name] for name in before)
    assert writes <= 16, f"{writes} writes of the block for 50 pods"


async def test_a_second_block_is_claimed_when_the_first_is_full(client, start_node):
    await create_pool(client, "small", "10.244.0.0/24", blockSize=30)
    node = await start_node("node-1")
    replies = await asyncio.gather(*(node.add(f"c{number}") for number in range(10)))
    assert len({reply.address for reply in replies}) == 10
    assert len(await stored(client, "IPAMBlock")) == len(await stored(client, "BlockAffinity")) >= 3


async def test_a_full_pool_is_named_with_what_asked_for_it(client, start_node):
    await create_pool(client, "tiny", "10.244.0.0/30", blockSize=30)
    node = await start_node("node-1")
    replies = [await node.add(f"c{number}") for number in range(3)]
    assert [reply.status for reply in replies] == [0, 0, 1], (
        "4 addresses, the first the gateway, the last for broadcasts"
    )
    assert replies[2].body["code"] == 100
    assert (
        "pod default/c2: no free address in pools tiny (10.244.0.0/30), asked for by selectors"
        in replies[2].body["msg"]
    )
    await node.delete("c1")
    assert (await node.add("c3")).address == replies[1].address
    assert (await node.delete("c0")).status == 0


async def test_the_limit_of_blocks_per_node_is_kept(client, start_node):
    await create_pool(client, "main", "10.244.0.0/24", blockSize=32)
    await client.create(
        V1.path("IPAMConfig"),
        V1.new("IPAMConfig", "default", {"strictAffinity": True, "autoAllocateBlocks": True, "maxBlocksPerHost": 2}),
    )
    node = await start_node("node-1")
    replies = [await node.add(f"c{number}") for number in range(3)]
    assert [reply.status for reply in replies] == [0, 0, 1]
    assert "the limit (maxBlocksPerHost) being 2" in replies[2].body["msg"]


async def test_a_dual_stack_pod_has_one_handle_for_both_addresses(client, start_node):
    await create_pool(client, "v4", "10.244.0.0/20")
    await create_pool(client, "v6", "fd00:10:244::/64")
    node = await start_node("node-1")
    reply = await node.add("c1", annotations={FAMILIES: '["IPv4","IPv6"]'})
    v4, v6 = reply.body["ips"]
    assert "/20" in v4["address"] and v6["address"].endswith("/64") and v6["gateway"] == "fd00:10:244::"
    assert reply.body["routes"] == [
        {"dst": "0.0.0.0/0", "gw": "10.244.0.0"},
        {"dst": "::/0", "gw": "fd00:10:244::"},
    ]
    [handle] = (await stored(client, "IPAMHandle")).values()
    assert sorted(handle["spec"]["block"].values()) == [1, 1]
    await node.delete("c1")
    await settled(client, [])


async def test_a_dual_stack_pod_gets_both_families_or_nothing(client, start_node):
    await create_pool(client, "v4", "10.244.0.0/20")
    await create_pool(client, "v6", "fd00:10:244::/127", blockSize=127)
    node = await start_node("node-1")
    both = {FAMILIES: '["IPv4","IPv6"]'}
    first = await node.add("c1", annotations=both)
    held = [entry["address"].partition("/")[0] for entry in first.body["ips"]]
    await settled(client, held)
    assert (await node.add("c2", annotations=both)).status == 1
    await settled(client, held)


async def test_nodes_never_share_a_block(client, start_node):
    await create_pool(client, "main", "10.244.0.0/26", blockSize=28)
    nodes = await asyncio.gather(*(start_node(f"node-{number}") for number in range(4)))
    replies = await asyncio.gather(*(node.add(f"{node.name}-{n}") for node in nodes for n in range(8)))
    assert [reply.status for reply in replies] == [0] * 32
    assert len({reply.address for reply in replies}) == 32
    owners = {block["spec"]["affinity"] for block in (await stored(client, "IPAMBlock")).values()}
    assert len(owners) == 4
    affinities = await stored(client, "BlockAffinity")
    assert {obj["spec"]["state"] for obj in affinities.values()} == {"confirmed"} and len(affinities) == 4


@pytest.mark.parametrize("how", (signal.SIGTERM, signal.SIGKILL))
async def test_a_restarted_agent_knows_what_it_gave_out(client, start_node, how):
    await create_pool(client, "main", "10.244.0.0/20")
    node = await start_node("node-1")
    before = [await node.add(f"c{number}") for number in range(5)]
    node.stop(how)
    await node.start()
    assert (await node.add("c0")) == before[0]
    new = await node.add("new")
    assert new.address not in {reply.address for reply in before}
    await asyncio.gather(*(node.delete(f"c{number}") for number in range(5)))
    await settled(client, [new.address])


async def test_an_agent_that_was_killed_between_claim_and_confirmation_finishes_it(client, start_node):
    await create_pool(client, "main", "10.244.0.0/26", blockSize=26)
    claim = V1.new_affinity("node-1", "10.244.0.0/26", "pending")
    await client.create(V1.path("BlockAffinity"), claim)
    node = await start_node("node-1")
    assert (await node.add("c1")).status == 0
    [affinity] = (await stored(client, "BlockAffinity")).values()
    assert affinity["spec"]["state"] == "confirmed"


async def test_a_node_that_died_before_it_had_its_block_keeps_nobody_off_it(client, start_node):
    await create_pool(client, "main", "10.244.0.0/26", blockSize=26)
    await client.create(V1.path("BlockAffinity"), V1.new_affinity("dead", "10.244.0.0/26", "pending"))
    node = await start_node("node-1")
    assert (await node.add("c1")).status == 0


async def test_a_block_changed_by_someone_else_is_read_again(client, start_node):
    await create_pool(client, "main", "10.244.0.0/26")
    node = await start_node("node-1")
    first = await node.add("c1")
    path = V1.path("IPAMBlock", "10-244-0-0-26")
    block = await client.get(path)
    spec = block["spec"]
    borrowed = spec["unallocated"].pop(0)
    spec["attributes"].append({"handle_id": "other.x", "secondary": {"node": "node-2"}})
    spec["allocations"][borrowed] = len(spec["attributes"]) - 1
    spec["sequenceNumber"] += 1
    await client.replace(path, block)
    second = await node.add("c2")
    held = await allocated(client)
    assert held == {first.address: "podnet.c1", second.address: "podnet.c2", f"10.244.0.{borrowed}": "other.x"}


async def test_an_address_that_cannot_be_used_on_the_link_is_not_kept(client, start_node):
    await create_pool(client, "main", "10.244.0.0/20")
    node = await start_node("node-1")
    other = await node.add("other")
    reply = await node.add("refused", ipam={"gateway": "192.0.2.1"})
    assert (reply.status, reply.body["code"]) == (1, 7) and "reason" not in reply.body
    await settled(client, [other.address])
    assert (await node.add("other", ipam={"gateway": "192.0.2.1"})).body["code"] == 7
    await settled(client, [other.address])
    assert await node.add("other") == other, "it runs"


async def test_a_reservation_made_while_the_agent_runs_is_kept(client, start_node):
    await create_pool(client, "main", "10.244.0.0/28", blockSize=28)
    node = await start_node("node-1")
    await node.add("c1")
    await client.create(
        V1.path("IPReservation"),
        V1.new("IPReservation", "keep-out", {"reservedCIDRs": ["10.244.0.4/30", "10.244.0.2/32"]}),
    )
    await asyncio.sleep(0.3)
    given = {(await node.add(f"d{number}")).address for number in range(4)}
    assert given == {"10.244.0.3", "10.244.0.8", "10.244.0.9", "10.244.0.10"}
