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
from podnet_ipam.agent.local import LocalDatastore
from support.simulated_nodes import SimulatedNode, Tasks

POOL = '[[pools]]\nname = "main"\ncidr = "10.0.0.0/24"\nblock_size = 24\n'
MOST, CLIENTS, PODS_OF_EACH = 10, 4, 15


@asynccontextmanager
async def answering_first(folder):
    """A node that answers before anything is stored, as the API server has seen its block in use."""
    (folder / "pools.toml").write_text(POOL)
    datastore = LocalDatastore(folder / "datastore.sqlite", folder / "pools.toml")
    tasks = Tasks()
    asyncio.get_running_loop().set_task_factory(tasks.factory)
    node = SimulatedNode("node-1", datastore, folder, tasks)
    await node.start(random.Random(0))
    await node.add("first")
    async with asyncio.timeout(10):
        while node.ipam.unsettled:
            await asyncio.sleep(0.01)
    try:
        yield node
    finally:
        node.kill()
        await node.bury()
        await datastore.close()


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


def test_a_flood_waits_for_an_api_server_that_is_slower(tmp_path, hurried):
    async def story():
        async with answering_first(tmp_path) as node:
            assert MOST <= await flood(node) <= MOST + CLIENTS

    asyncio.run(story())


def test_a_flood_does_not_wait_for_an_api_server_that_is_away(tmp_path, hurried):
    async def story():
        async with answering_first(tmp_path) as node:
            node.client.faults.extend(["refused"] * 1000)
            node.client.seconds_away = 1.0
            started = time.monotonic()
            assert await flood(node) == CLIENTS * PODS_OF_EACH
            assert time.monotonic() - started < mirror.PACE_SECONDS
            node.client.seconds_away = 0.0
            node.heal()

    asyncio.run(story())


def test_a_request_that_waited_long_enough_is_answered(tmp_path, hurried, monkeypatch):
    async def story():
        async with answering_first(tmp_path) as node:
            node.client.faults.extend(["refused"] * 1000)
            monkeypatch.setattr(mirror, "PACE_SECONDS", 0.01)
            assert await flood(node) == CLIENTS * PODS_OF_EACH
            node.heal()

    asyncio.run(story())
