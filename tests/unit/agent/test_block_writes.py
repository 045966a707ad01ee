# SPDX-License-Identifier: Apache-2.0
"""What reaches the datastore, and in which order, while the agent answers faster than it writes."""

from __future__ import annotations

import asyncio
import random

from podnet_ipam._kube.calico import CONFIG_NAME, V1
from podnet_ipam.agent import lull
from podnet_ipam.agent.local import LocalDatastore
from support.simulated_nodes import SimulatedNode, Tasks, address_of

ONE_BLOCK = '[[pools]]\nname = "main"\ncidr = "10.0.0.0/30"\nblock_size = 30\n'


async def one_block_written_through(folder):
    """A node whose assignments wait for the API server, and whose only block is full."""
    (folder / "pools.toml").write_text(ONE_BLOCK)
    datastore = LocalDatastore(folder / "datastore.sqlite", folder / "pools.toml")
    spec = {"strictAffinity": False, "autoAllocateBlocks": True}
    path = V1.path("IPAMConfig", CONFIG_NAME)
    await datastore.replace(path, V1.changed(await datastore.get(path), spec))
    tasks = Tasks()
    asyncio.get_running_loop().set_task_factory(tasks.factory)
    node = SimulatedNode("node-1", datastore, folder, tasks)
    await node.start(random.Random(0))
    for number in range(4):
        await node.add(f"c{number}")
    return node


async def end(node):
    node.kill()
    await node.bury()
    await node.datastore.close()


async def test_a_container_that_comes_back_does_not_wait_until_its_release_has_company(tmp_path, monkeypatch):
    monkeypatch.setattr(lull, "LONGEST_SECONDS", 60.0)
    node = await one_block_written_through(tmp_path)
    await node.delete("c3")

    async def others():
        while True:
            await node.delete("nobody")
            await asyncio.sleep(0.01)

    requests = asyncio.create_task(others())
    async with asyncio.timeout(10):
        await node.add("c3")
    requests.cancel()
    await end(node)


async def test_whoever_waits_for_an_address_does_not_wait_until_its_release_has_company(tmp_path, monkeypatch):
    monkeypatch.setattr(lull, "QUIET_SECONDS", 60.0)
    monkeypatch.setattr(lull, "LONGEST_SECONDS", 60.0)
    node = await one_block_written_through(tmp_path)
    await node.delete("c3")
    async with asyncio.timeout(10):
        await node.add("next")
    await end(node)


async def test_an_address_that_is_given_again_at_once_is_stored_for_who_has_it_now(tmp_path):
    # Written through, so that the assignment is ready to be written while the release still waits for company.
    node = await one_block_written_through(tmp_path)
    (freed,) = await node.add("c3")
    await node.delete("c3")
    assert await node.add("next") == {freed}
    async with asyncio.timeout(10):
        while node.ipam.unsettled:
            await asyncio.sleep(0.01)
    (block,) = (await node.datastore.list(V1.path("IPAMBlock")))[0]
    handles = [block["spec"]["attributes"][index]["handle_id"] for index in block["spec"]["allocations"]]
    assert handles == ["net.c0", "net.c1", "net.c2", "net.next"]
    assert str(address_of(block["spec"]["cidr"], 3)) == freed
    await end(node)
