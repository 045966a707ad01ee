# SPDX-License-Identifier: Apache-2.0
"""Blocks that are claimed ahead, so that more pods than one block holds can start while the API server is away."""

from __future__ import annotations

import asyncio
import ipaddress
from datetime import UTC, datetime, timedelta

import pytest
from podnet_ipam._core.names import ADDRESSES_ANNOTATION, cidr_name, spare_handle
from podnet_ipam._kube.calico import V1
from podnet_ipam._kube.errors import Conflict
from support.plane import allocated, create_pool, stored

PIN = spare_handle("node-1")


@pytest.fixture
async def strict(client):
    spec = {"strictAffinity": True, "autoAllocateBlocks": True}
    await client.create(V1.path("IPAMConfig"), V1.new("IPAMConfig", "default", spec))


@pytest.fixture
async def pool(strict, client):
    """Eight blocks of four addresses, of which gateway and broadcast address are the first and the last."""
    await create_pool(client, "main", "10.244.0.0/27", blockSize=30)


def block_of(address):
    return str(ipaddress.ip_network(f"{address}/30", strict=False))


async def eventually(look, expected):
    """Wait until what `look` finds is as expected."""
    found = None
    try:
        async with asyncio.timeout(30):
            while (found := await look()) != expected:
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"expected {expected}, found {found}") from None


async def pinned(client):
    """How many blocks are pinned, once the pins' handle names just these."""
    async with asyncio.timeout(30):
        while True:
            pins = await spare_blocks(client)
            handles = [obj for obj in (await stored(client, "IPAMHandle")).values() if obj["spec"]["handleID"] == PIN]
            if sorted(pins) == sorted(cidr for obj in handles for cidr in obj["spec"]["block"]):
                return len(pins)
            await asyncio.sleep(0.05)


async def spare_blocks(client):
    return [block_of(address) for address, handle in (await allocated(client)).items() if handle == PIN]


async def fill_until(node, is_right):
    """Add pods until one has an address that is right, and return that."""
    for number in range(32):
        [address] = await fill(node, 1, f"until-{number}-")
        if is_right(address):
            return address
    raise AssertionError("none is right")


async def change(client, kind, name, **spec):
    path = V1.path(kind, name)
    while True:
        found = await client.get(path)
        try:
            return await client.replace(path, {**found, "spec": {**found["spec"], **spec}})
        except Conflict:
            continue


async def fill(node, count, prefix="c"):
    replies = [await node.add(f"{prefix}{number}") for number in range(count)]
    assert [reply.status for reply in replies] == [0] * count, [reply.body for reply in replies]
    return [reply.address for reply in replies]


async def test_pods_beyond_the_first_block_start_while_the_api_server_is_away(plane, pool, client, start_node):
    node = await start_node("node-1", spare_blocks=1)
    [first] = await fill(node, 1)
    # The API server knows of a pin a moment before the agent knows that it does.
    await node.logged("is a spare one")
    assert await pinned(client) == 1
    plane.stop_apiserver()
    try:
        during = await fill(node, 4, "away")
    finally:
        plane.start_apiserver()
    assert len({block_of(address) for address in (first, *during)}) == 2
    held = {address: f"podnet.away{number}" for number, address in enumerate(during)} | {first: "podnet.c0"}

    async def of_pods():
        return {address: handle for address, handle in (await allocated(client)).items() if handle != PIN}

    await eventually(of_pods, held)


async def test_a_spare_block_that_serves_pods_is_replaced_and_its_pin_becomes_a_pods_address(pool, client, start_node):
    node = await start_node("node-1", spare_blocks=1)
    await fill(node, 1)
    await eventually(lambda: pinned(client), 1)
    [spare] = await spare_blocks(client)
    in_spare = [await fill_until(node, lambda address: block_of(address) == spare)]

    async def replaced():
        return len(await spare_blocks(client)) == 1 and spare not in await spare_blocks(client)

    await eventually(replaced, True)
    while block_of(address := (await fill(node, 1, f"spare-{len(in_spare)}-"))[0]) == spare:
        in_spare.append(address)
    addresses = {str(address) for address in ipaddress.ip_network(spare)}
    assert set(in_spare) == addresses - {"10.244.0.0", "10.244.0.31"}


async def test_blocks_in_use_are_filled_before_spare_ones_also_after_a_restart(pool, client, start_node):
    node = await start_node("node-1", spare_blocks=2)
    [first] = await fill(node, 1)
    await eventually(lambda: pinned(client), 2)
    node.stop()
    await node.start()
    [second] = await fill(node, 1, "again")
    assert block_of(second) == block_of(first)
    assert await pinned(client) == 2


async def test_a_spare_block_is_left_to_its_node_by_who_finds_no_other(strict, client, start_node):
    await create_pool(client, "small", "10.244.0.0/29", blockSize=30)
    first, second = await start_node("node-1", spare_blocks=1), await start_node("node-2")
    await fill(first, 1)
    await eventually(lambda: pinned(client), 1)
    long_ago = (datetime.now(UTC) - timedelta(minutes=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    for block in (await stored(client, "IPAMBlock")).values():
        await change(client, "IPAMBlock", cidr_name(block["spec"]["cidr"]), affinityClaimTime=long_ago)
    refused = await second.add("late")
    assert refused.body["code"] == 100 and "every other block is in use" in refused.body["msg"]
    more = await fill(first, 3, "more")
    assert len({block_of(address) for address in more}) == 2, "it serves the pods of its node"
    assert {obj["spec"]["node"] for obj in (await stored(client, "BlockAffinity")).values()} == {"node-1"}


async def test_when_the_pods_are_gone_so_are_pins_and_spare_blocks(pool, client, start_node):
    node = await start_node("node-1", spare_blocks=2, keep_blocks=1)
    await fill(node, 1)
    await eventually(lambda: pinned(client), 2)
    await node.delete("c0")

    async def left():
        kinds = ("IPAMBlock", "BlockAffinity", "IPAMHandle")
        return {kind: len(await stored(client, kind)) for kind in kinds}, await allocated(client)

    await eventually(left, ({"IPAMBlock": 1, "BlockAffinity": 1, "IPAMHandle": 0}, {}))


async def test_blocks_of_a_pool_that_is_disabled_are_spare_no_more(pool, client, start_node):
    node = await start_node("node-1", spare_blocks=1, keep_blocks=1)
    [address] = await fill(node, 1)
    await eventually(lambda: pinned(client), 1)
    await change(client, "IPPool", "main", disabled=True)
    await eventually(lambda: pinned(client), 0)

    async def blocks():
        return [block["spec"]["cidr"] for block in (await stored(client, "IPAMBlock")).values()]

    await eventually(blocks, [block_of(address)])


@pytest.mark.parametrize("claim", ("kept", "removed"))
async def test_a_node_that_is_to_have_no_spare_blocks_any_more_frees_the_pins(pool, client, start_node, claim):
    node = await start_node("node-1", spare_blocks=1)
    [address] = await fill(node, 1)
    await eventually(lambda: pinned(client), 1)
    node.stop()
    if claim == "removed":
        for name, obj in (await stored(client, "BlockAffinity")).items():
            if obj["spec"]["cidr"] != block_of(address):
                await client.delete(V1.path("BlockAffinity", name), obj["metadata"]["uid"])
                await change(client, "IPAMBlock", cidr_name(obj["spec"]["cidr"]), affinity=None)
    node.config.write_text(node.config.read_text().replace("spare_blocks = 1", "spare_blocks = 0"))
    await node.start()
    await eventually(lambda: pinned(client), 0)
    assert (await allocated(client)) == {address: "podnet.c0"}


async def test_no_more_blocks_are_claimed_ahead_than_a_node_may_have(pool, client, start_node):
    await change(client, "IPAMConfig", "default", maxBlocksPerHost=2)
    node = await start_node("node-1", spare_blocks=2)
    await fill(node, 1)
    await eventually(lambda: pinned(client), 1)
    await asyncio.sleep(0.5)
    assert len(await stored(client, "BlockAffinity")) == 2


async def test_no_block_is_claimed_ahead_where_blocks_are_not_to_be_claimed_unasked(pool, client, start_node):
    await change(client, "IPAMConfig", "default", autoAllocateBlocks=False)
    node = await start_node("node-1", spare_blocks=1)
    assert (await node.add("c0", annotations={ADDRESSES_ANNOTATION: '["10.244.0.5"]'})).status == 0
    await asyncio.sleep(0.5)
    assert [obj["spec"]["cidr"] for obj in (await stored(client, "BlockAffinity")).values()] == [block_of("10.244.0.5")]


async def test_pins_are_seen_as_what_they_are(pool, client, start_node):
    node = await start_node("node-1", spare_blocks=1)
    await fill(node, 1)
    await eventually(lambda: pinned(client), 1)
    assert (await node.ctl("check")).status == 1, "the test's pod does not exist"
    assert PIN not in (await node.ctl("check")).stdout
    assert [block["spare"] for block in (await node.ctl("blocks", "--output", "json")).json] == [False, True]
    status = (await node.ctl("status", "--output", "json")).json
    assert status["attachments"] == 1
    collected = await node.call("GC", "", **{"cni.dev/valid-attachments": []})
    assert collected.status == 0
    assert await pinned(client) == 1
