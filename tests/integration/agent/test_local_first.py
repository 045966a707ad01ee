# SPDX-License-Identifier: Apache-2.0
"""Under strict affinity an address is answered from the node's own store; the API server follows, whatever happens."""

from __future__ import annotations

import asyncio
import random
import signal

import pytest
from podnet_ipam._kube.calico import V1
from support.plane import allocated, create_pool, settled


@pytest.fixture
async def node(client, start_node):
    await create_pool(client, "main", "10.244.0.0/20")
    spec = {"strictAffinity": True, "autoAllocateBlocks": True}
    await client.create(V1.path("IPAMConfig"), V1.new("IPAMConfig", "default", spec))
    return await start_node("node-1")


@pytest.fixture
def api_away(plane):
    """Take the API server away, and bring it back at the end of the test at the latest."""
    plane.stop_apiserver()
    back = []

    def return_() -> None:
        if not back:
            back.append(True)
            plane.start_apiserver()

    yield return_
    return_()


async def test_the_first_address_of_a_block_is_stored_before_it_is_answered(node, client):
    reply = await node.add("c1")
    assert await allocated(client) == {reply.address: "podnet.c1"}


async def test_addresses_are_stored_soon_after_they_are_answered(node, client):
    replies = [await node.add(f"c{number}") for number in range(20)]
    await settled(client, [reply.address for reply in replies])


async def test_pods_start_and_end_while_the_api_server_is_away(node, client, request):
    first = await node.add("first")
    gone = await node.add("gone")
    await settled(client, [first.address, gone.address])
    bring_back = request.getfixturevalue("api_away")
    during = await asyncio.gather(*(node.add(f"c{number}") for number in range(10)))
    assert [reply.status for reply in during] == [0] * 10
    assert (await node.delete("gone")).status == 0
    assert (await node.delete("c0")).status == 0
    assert (await node.add("c1")) == during[1]
    bring_back()
    await settled(client, [first.address, *(reply.address for reply in during[1:])])


async def test_what_was_answered_survives_the_agents_death_while_the_api_server_is_away(node, client, request):
    first = await node.add("first")
    await settled(client, [first.address])
    bring_back = request.getfixturevalue("api_away")
    during = await asyncio.gather(*(node.add(f"c{number}") for number in range(10)))
    assert (await node.delete("c0")).status == 0
    node.stop(signal.SIGKILL)
    bring_back()
    await node.start()
    assert (await node.add("c1")) == during[1]
    assert (await node.add("new")).address not in {reply.address for reply in during[1:]} | {first.address}
    new = (await node.add("new")).address
    await settled(client, [first.address, new, *(reply.address for reply in during[1:])])


async def test_a_damaged_store_is_moved_aside_and_what_the_api_server_knows_is_kept(node, client):
    first = await node.add("c1")
    node.stop()
    node.store.write_bytes(b"this is no database" * 100)
    await node.start()
    assert "is damaged" in node.log.read_text()
    assert (await node.add("c1")) == first
    assert node.store.with_name("store.sqlite.damaged").exists()


async def test_a_store_that_cannot_be_written_costs_time_but_no_address(node, client):
    first = await node.add("c1")
    await settled(client, [first.address])
    lock = await asyncio.create_subprocess_exec(
        "python3",
        "-c",
        "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('BEGIN EXCLUSIVE'); print('locked', flush=True); time.sleep(60)",
        str(node.store),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        await lock.stdout.readline()
        second = await node.add("c2")
        assert second.status == 0
        assert (await allocated(client))[second.address] == "podnet.c2", "stored before it was answered"
        assert (await node.delete("c1")).status == 0
        await settled(client, [second.address])
    finally:
        lock.kill()
        await lock.wait()


@pytest.mark.parametrize("seed", range(3))
async def test_after_any_mixture_of_starts_ends_and_deaths_exactly_what_runs_is_allocated(node, client, seed):
    rolls = random.Random(seed)
    running = {}
    for round_ in range(3):
        ending = rolls.sample(sorted(running), len(running) // 2)
        starting = [f"r{round_}-{number}" for number in range(rolls.randrange(5, 25))]
        again = rolls.sample(ending, len(ending) // 2)
        replies = await asyncio.gather(
            *(node.delete(container) for container in ending), *(node.add(container) for container in starting)
        )
        assert {reply.status for reply in replies} == {0}
        for container in ending:
            del running[container]
        running |= {name: reply.address for name, reply in zip(starting, replies[len(ending) :], strict=True)}
        running |= {container: (await node.add(container)).address for container in again}
        if rolls.random() < 0.7:
            node.stop(rolls.choice((signal.SIGKILL, signal.SIGTERM)))
            await node.start()
    assert len(set(running.values())) == len(running)
    await settled(client, running.values())
