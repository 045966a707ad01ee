# SPDX-License-Identifier: Apache-2.0
"""A freed address rests before it is given out again."""

from __future__ import annotations

import asyncio
import signal

import pytest
from podnet_ipam._kube.calico import V1
from support.plane import allocated, create_pool, settled


@pytest.fixture
async def tiny(client):
    """A pool of one block with two addresses beside the gateway and the broadcast address."""
    await create_pool(client, "tiny", "10.244.0.0/30", blockSize=30)
    spec = {"strictAffinity": True, "autoAllocateBlocks": True}
    await client.create(V1.path("IPAMConfig"), V1.new("IPAMConfig", "default", spec))


async def fill(node):
    return [await node.add(f"c{number}") for number in range(2)]


async def test_when_only_resting_addresses_are_left_the_runtime_is_told_when_to_try_again(tiny, start_node):
    node = await start_node("node-1", cooldown=60)
    await fill(node)
    assert (await node.delete("c1")).status == 0
    reply = await node.add("next")
    assert (reply.status, reply.body["code"]) == (1, 11)
    assert "was freed a moment ago or is kept for the pod that had it; the next one has rested in" in reply.body["msg"]


async def test_a_block_that_has_to_be_claimed_again_still_tells_when_the_next_address_is_free(tiny, client, start_node):
    node = await start_node("node-1", cooldown=60)
    replies = await fill(node)
    await node.delete("c1")
    await settled(client, [replies[0].address])
    [claim], _version = await client.list(V1.path("BlockAffinity"))
    await client.delete(V1.path("BlockAffinity", claim["metadata"]["name"]), claim["metadata"]["uid"])
    await node.logged("was removed")
    reply = await node.add("next")
    assert (reply.status, reply.body["code"]) == (1, 11), reply.body


async def test_a_full_pool_in_which_nothing_rests_is_exhausted(tiny, start_node):
    node = await start_node("node-1", cooldown=60)
    await fill(node)
    assert (await node.add("next")).body["code"] == 100


async def test_a_rested_address_is_given_out_again(tiny, start_node):
    node = await start_node("node-1", cooldown=1)
    replies = await fill(node)
    await node.delete("c1")
    assert (await node.add("too-early")).status == 1
    await asyncio.sleep(1.1)
    assert (await node.add("next")).address == replies[1].address


@pytest.mark.parametrize("how", (signal.SIGTERM, signal.SIGKILL))
async def test_an_address_rests_over_a_restart(tiny, client, start_node, how):
    node = await start_node("node-1", cooldown=60)
    replies = await fill(node)
    await node.delete("c1")
    await settled(client, [replies[0].address])
    node.stop(how)
    await node.start()
    assert (await node.add("next")).body["code"] == 11
    assert replies[1].address not in await allocated(client)
