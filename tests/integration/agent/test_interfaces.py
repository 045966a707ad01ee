# SPDX-License-Identifier: Apache-2.0
"""A container's interfaces: a handle names none, so in one network a container has one attachment."""

from __future__ import annotations

import pytest
from support.plane import create_pool, settled


@pytest.fixture
async def node(client, start_node):
    await create_pool(client, "main", "10.244.0.0/20")
    return await start_node("node-1")


async def test_a_second_interface_in_a_network_is_refused_and_its_end_leaves_the_first_one(node, client):
    first = await node.add("c1")
    second = await node.add("c1", interface="net1")
    assert second.body["code"] == 7
    assert f"handle podnet.c1 holds {first.address} for interface eth0; net1 needs a network of" in second.body["msg"]
    assert (await node.delete("c1", interface="net1")).status == 0
    assert await node.add("c1") == first
    await node.delete("c1")
    await settled(client, [])


@pytest.mark.parametrize("restart", (False, True), ids=("running", "restarted"))
async def test_a_second_interface_in_another_network_has_its_own_address(node, client, restart):
    first = await node.add("c1")
    second = await node.add("c1", interface="net1", network="other")
    assert second.address != first.address
    await settled(client, [first.address, second.address])
    if restart:
        node.stop()
        node.store.unlink()
        await node.start()
    await node.delete("c1", interface="eth0", network="other")
    await node.delete("c1", interface="eth0")
    await settled(client, [second.address])


async def test_check_does_not_take_one_interface_for_another(node):
    added = await node.add("c1")
    reply = await node.call("CHECK", "c1", interface="net1", prevResult=added.body)
    assert reply.body["code"] == 101
