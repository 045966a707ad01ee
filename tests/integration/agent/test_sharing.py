# SPDX-License-Identifier: Apache-2.0
"""Nodes with this plugin and nodes with Calico's own share one datastore: nothing is given twice, nothing is lost."""

from __future__ import annotations

import asyncio
import ipaddress
from datetime import UTC, datetime, timedelta

import pytest
from podnet_ipam._core.names import cidr_name
from podnet_ipam._kube.calico import V1
from support.plane import allocated, create_pool, settled, stored

SMALL = "10.244.0.0/29"  # two blocks of four


@pytest.fixture
async def small_pool(client):
    await create_pool(client, "small", SMALL, blockSize=30)


@pytest.fixture
async def strict(client):
    spec = {"strictAffinity": True, "autoAllocateBlocks": True}
    await client.create(V1.path("IPAMConfig"), V1.new("IPAMConfig", "default", spec))


def block_of(address):
    return str(ipaddress.ip_network(f"{address}/30", strict=False))


async def claims(client):
    """{block: node} of every confirmed claim."""
    found = (await stored(client, "BlockAffinity")).values()
    return {obj["spec"]["cidr"]: obj["spec"]["node"] for obj in found if obj["spec"]["state"] == "confirmed"}


async def make_old(client, cidr):
    """Have a block look as if it had been claimed two minutes ago."""
    path = V1.path("IPAMBlock", cidr_name(cidr))
    block = await client.get(path)
    then = (datetime.now(UTC) - timedelta(minutes=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    await client.replace(path, {**block, "spec": {**block["spec"], "affinityClaimTime": then}})


async def eventually(condition, seconds=10):
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.05)


async def fill(node, count, prefix):
    replies = [await node.add(f"{prefix}{number}") for number in range(count)]
    assert [reply.status for reply in replies] == [0] * count, [reply.body for reply in replies]
    return [reply.address for reply in replies]


async def test_a_full_node_borrows_from_another_and_gives_back(small_pool, client, start_node):
    first, second = await start_node("node-1"), await start_node("node-2")
    lender = await second.add("lender")
    # The gateway and the broadcast address, the first and the last of the pool, are in different blocks.
    held = await fill(first, 5, "c")
    borrowed = [address for address in held if block_of(address) == block_of(lender.address)]
    assert borrowed and len(set(held)) == 5
    assert set((await claims(client)).values()) == {"node-1", "node-2"}
    assert (await first.add("more")).body["code"] == 100
    for number in range(5):
        assert (await first.delete(f"c{number}")).status == 0
    await settled(client, [lender.address])


async def test_a_pool_that_is_stored_with_host_bits_serves_nodes_of_both_kinds(client, start_node, calico_node):
    await create_pool(client, "loose", "10.244.0.7/24")
    ours, theirs = await start_node("node-1"), await calico_node("node-2")
    found = [await ours.add("c1"), await theirs.add("c2")]
    assert all(ipaddress.ip_address(each.address) in ipaddress.ip_network("10.244.0.0/24") for each in found)
    assert len(await claims(client)) == 2


async def test_under_strict_affinity_nothing_is_borrowed(small_pool, strict, client, start_node):
    first, second = await start_node("node-1"), await start_node("node-2")
    await second.add("lender")
    replies = [await first.add(f"c{number}") for number in range(5)]
    refused = [reply.body["msg"] for reply in replies if reply.status]
    assert refused and all("strictAffinity forbids to borrow" in message for message in refused)
    assert len({block_of(reply.address) for reply in replies if not reply.status}) == 1


async def test_a_borrowed_address_survives_the_loss_of_the_store(small_pool, client, start_node):
    first, second = await start_node("node-1"), await start_node("node-2")
    lender = await second.add("lender")
    held = await fill(first, 5, "c")
    first.stop()
    first.store.unlink()
    await first.start()
    again = await fill(first, 5, "c")
    assert again == held
    for number in range(5):
        assert (await first.delete(f"c{number}")).status == 0
    await settled(client, [lender.address])


async def test_borrowing_side_by_side_gives_nothing_twice(small_pool, client, start_node):
    nodes = [await start_node(f"node-{number}") for number in range(1, 4)]
    replies = await asyncio.gather(
        *(node.add(f"{node.name}-{number}") for number in range(3) for node in nodes),
    )
    given = [reply.address for reply in replies if reply.status == 0]
    assert len(given) == len(set(given)) == 6, "eight addresses less gateway and broadcast address"
    await settled(client, given)


async def test_an_agent_leaves_alone_what_others_borrowed_from_it(small_pool, client, start_node):
    first, second = await start_node("node-1", grace=0.2), await start_node("node-2", grace=0.2)
    lender = await second.add("lender", netns="/proc/self")
    held = [await first.add(f"c{number}", netns="/proc/self") for number in range(5)]
    second.stop()
    await second.start()
    await asyncio.sleep(1)
    assert (await allocated(client)).keys() == {lender.address, *(reply.address for reply in held)}


async def test_an_empty_block_of_another_node_is_taken_over_once_it_is_old(small_pool, strict, client, start_node):
    first, second = await start_node("node-1"), await start_node("node-2")
    left = await second.add("short-lived")
    await second.delete("short-lived")
    await settled(client, [])
    assert (await first.add("own")).status == 0
    while (reply := await first.add(f"more-{datetime.now().timestamp()}")).status == 0:
        pass
    assert reply.body["code"] == 100, "a block that was claimed just now stays its node's"
    await make_old(client, block_of(left.address))
    assert block_of((await first.add("taken-over")).address) == block_of(left.address)
    assert set((await claims(client)).values()) == {"node-1"}
    refused = await second.add("too-late")
    assert refused.body["code"] == 100


async def test_an_empty_block_beyond_the_first_is_given_back(small_pool, client, start_node):
    node = await start_node("node-1", keep_blocks=0.5)
    await fill(node, 6, "c")
    assert len(await claims(client)) == 2
    for number in range(6):
        await node.delete(f"c{number}")

    async def one_left():
        return len(await claims(client)) == 1 and len(await stored(client, "IPAMBlock")) == 1

    await eventually(one_left)
    await asyncio.sleep(1)
    assert await one_left(), "the last block of a pool in use is kept"
    assert (await node.add("again")).status == 0


async def test_a_block_of_a_pool_that_serves_the_node_no_more_goes_when_it_is_empty(small_pool, client, start_node):
    node = await start_node("node-1", keep_blocks=0.5)
    await node.add("c1")
    pool = await client.get(V1.path("IPPool", "small"))
    await client.replace(V1.path("IPPool", "small"), {**pool, "spec": {**pool["spec"], "disabled": True}})
    await asyncio.sleep(1)
    assert len(await claims(client)) == 1, "an address is in use"
    await node.delete("c1")

    async def nothing_left():
        return not await stored(client, "BlockAffinity") and not await stored(client, "IPAMBlock")

    await eventually(nothing_left)


async def test_a_claim_whose_release_was_not_finished_is_confirmed_again(small_pool, client, start_node):
    node = await start_node("node-1")
    reply = await node.add("c1")
    [(name, affinity)] = (await stored(client, "BlockAffinity")).items()
    path = V1.path("BlockAffinity", name)
    await client.replace(path, {**affinity, "spec": {**affinity["spec"], "state": "pendingDeletion"}})

    async def confirmed():
        return block_of(reply.address) in await claims(client)

    await eventually(confirmed)
    assert block_of((await node.add("c2")).address) == block_of(reply.address)


async def test_calico_and_this_plugin_borrow_from_each_other(small_pool, client, start_node, calico_node):
    ours, theirs = await start_node("node-1"), await calico_node("calico-1")
    first = await ours.add("ours")
    second = await theirs.add("theirs")
    assert second.status == 0, second.body
    assert block_of(first.address) != block_of(second.address)
    replies = await asyncio.gather(*(ours.add(f"o{number}") for number in range(3)))
    replies += [await theirs.add(f"t{number}") for number in range(3)]
    given = [reply.address for reply in (first, second, *replies) if reply.status == 0]
    assert len(given) == len(set(given)) >= 7
    held = await allocated(client)
    assert held.keys() == set(given)
    for number in range(3):
        assert (await ours.delete(f"o{number}")).status == 0
        assert (await theirs.delete(f"t{number}")).status == 0
    await settled(client, [first.address, second.address])


async def test_calico_and_this_plugin_side_by_side_give_nothing_twice(client, start_node, calico_node):
    await create_pool(client, "main", "10.244.0.0/27", blockSize=29)
    ours, theirs = await start_node("node-1"), await calico_node("calico-1")
    jobs = [ours.add(f"o{number}") for number in range(12)] + [theirs.add(f"t{number}") for number in range(12)]
    replies = await asyncio.gather(*jobs)
    given = [reply.address for reply in replies if reply.status == 0]
    assert len(given) == len(set(given)) == 24, [reply.body for reply in replies if reply.status]
    assert (await allocated(client)).keys() == set(given)
    ends = [ours.delete(f"o{number}") for number in range(12)] + [theirs.delete(f"t{number}") for number in range(12)]
    assert {reply.status for reply in await asyncio.gather(*ends)} == {0}
    await settled(client, [])


async def test_a_node_changes_from_calico_to_this_plugin_and_back_with_its_pods_running(
    small_pool, client, start_node, calico_node
):
    theirs = await calico_node("node-1")
    other = await calico_node("calico-2")
    lender = await other.add("lender")
    before = [await theirs.add(f"c{number}") for number in range(5)]
    addresses = {reply.address for reply in before if reply.status == 0}
    assert len(addresses) == 5 and len({block_of(address) for address in addresses}) == 2, "one at least is borrowed"
    ours = await start_node("node-1")
    assert (await ours.add("new")).address not in addresses | {lender.address}
    assert (await ours.delete("c0")).status == 0
    assert {(await ours.add(f"c{number}")).address for number in range(1, 5)} == addresses - {before[0].address}
    for number in range(1, 3):
        assert (await ours.delete(f"c{number}")).status == 0
    kept = addresses - {reply.address for reply in before[:3]}
    new = await ours.add("new")
    await settled(client, {lender.address, new.address} | kept)
    ours.stop()
    for name in ("c3", "c4", "new"):
        assert (await theirs.delete(name)).status == 0
    await settled(client, [lender.address])
