# SPDX-License-Identifier: Apache-2.0
"""What is answered and not yet stored does not grow without bound, and an API server that is away slows nobody down."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from contextlib import asynccontextmanager

import pytest
from podnet_ipam._kube.calico import V1
from podnet_ipam.agent import mirror
from podnet_ipam.agent.errors import CniError
from podnet_ipam.agent.local import LocalDatastore
from support.simulated_nodes import SimulatedNode, Tasks

POOL = '[[pools]]\nname = "main"\ncidr = "10.0.0.0/24"\nblock_size = 24\n'
MOST, CLIENTS, PODS_OF_EACH = 10, 4, 15


@asynccontextmanager
async def one_node(folder):
    """A node that has no block yet, so that the first address has to be stored before it is answered."""
    (folder / "pools.toml").write_text(POOL)
    datastore = LocalDatastore(folder / "datastore.sqlite", folder / "pools.toml")
    tasks = Tasks()
    asyncio.get_running_loop().set_task_factory(tasks.factory)
    node = SimulatedNode("node-1", datastore, folder, tasks)
    await node.start(random.Random(0))
    try:
        yield node
    finally:
        node.kill()
        await node.bury()
        await datastore.close()


@asynccontextmanager
async def answering_first(folder):
    """A node that answers before anything is stored, as the API server has seen its block in use."""
    async with one_node(folder) as node:
        await node.add("first")
        await all_stored(node)
        yield node


async def all_stored(node):
    async with asyncio.timeout(10):
        while node.ipam.unsettled:
            await asyncio.sleep(0.01)


async def flood(node):
    """The most handles that were missing at any time, of attachments that were answered."""
    behind, answered = [], itertools.count(2)

    async def client(name):
        for number in range(PODS_OF_EACH):
            await node.add(f"{name}-{number}")
            stored, _version = await node.datastore.list(V1.path("IPAMHandle"))
            behind.append(next(answered) - len(stored))

    await asyncio.gather(*(client(f"client-{number}") for number in range(CLIENTS)))
    return max(behind)


@pytest.fixture(autouse=True)
def limits(monkeypatch):
    monkeypatch.setattr(mirror, "MOST_BEHIND", MOST)
    monkeypatch.setattr(mirror, "PACE_SECONDS", 10.0)


async def test_a_flood_waits_for_an_api_server_that_is_slower(tmp_path, hurried):
    async with answering_first(tmp_path) as node:
        assert MOST <= await flood(node) <= MOST + CLIENTS


async def test_a_flood_does_not_wait_for_an_api_server_that_is_away(tmp_path, hurried):
    async with answering_first(tmp_path) as node:
        node.client.faults.extend(["refused"] * 1000)
        node.client.seconds_away = 1.0
        started = time.monotonic()
        assert await flood(node) == CLIENTS * PODS_OF_EACH
        assert time.monotonic() - started < mirror.PACE_SECONDS
        node.client.seconds_away = 0.0
        node.heal()


async def test_a_request_that_waited_long_enough_is_answered(tmp_path, hurried, monkeypatch):
    async with answering_first(tmp_path) as node:
        node.client.faults.extend(["refused"] * 1000)
        monkeypatch.setattr(mirror, "PACE_SECONDS", 0.01)
        assert await flood(node) == CLIENTS * PODS_OF_EACH
        node.heal()


async def test_what_has_to_be_stored_first_is_not_tried_while_the_api_server_is_away(tmp_path, hurried):
    async with one_node(tmp_path) as node:
        node.client.seconds_away = 20.0
        with pytest.raises(CniError, match="has not answered for 20 s"):
            await node.add("refused")
        assert not node.ipam.unsettled
        node.client.seconds_away = 0.0
        assert await node.add("next")
        [keeper] = node.ipam.blocks
        assert keeper.promised == 0


async def test_what_cannot_be_stored_for_whatever_reason_is_tried_for_so_many_attachments_only(
    tmp_path, hurried, monkeypatch
):
    async with one_node(tmp_path) as node:
        await node.ipam.blocks.take("10.0.0.1")
        monkeypatch.setattr(mirror, "WRITE_SECONDS", 0.02)
        monkeypatch.setattr(mirror, "PACE_SECONDS", 0.01)
        node.client.faults.extend(["refused"] * 10_000)
        for number in range(3 * MOST):
            with pytest.raises(CniError):
                await node.add(f"c{number}")
        assert len(node.ipam.unsettled) == MOST
        node.heal()
        await all_stored(node)
        assert (await node.datastore.list(V1.path("IPAMHandle")))[0] == []
