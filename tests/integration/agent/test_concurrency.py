# SPDX-License-Identifier: Apache-2.0
"""Many clients of one agent at once, over few containers and fewer addresses.

Requests go to the agent's socket without the executable, which would take most of the time.
"""

from __future__ import annotations

import asyncio
import random
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from podnet_ipam._kube.calico import V1
from support.conversation import ask
from support.linearizability import Event, is_linearizable
from support.plane import create_pool

CLIENTS = 8
REQUESTS_OF_EACH = 25
EXHAUSTED = 100


async def start(client, start_node, strict, cidr, block_size):
    await create_pool(client, "main", cidr, blockSize=block_size)
    spec = {"strictAffinity": strict, "autoAllocateBlocks": True}
    await client.create(V1.path("IPAMConfig"), V1.new("IPAMConfig", "default", spec))
    return await start_node("node-1")


@pytest.mark.parametrize("strict", (True, False), ids=("local first", "written through"))
async def test_what_concurrent_clients_see_could_have_happened_one_after_the_other(client, start_node, strict):
    # Pods see the pool as their subnet, so that its first and its last address are nobody's.
    addresses = frozenset(f"10.244.0.{number}" for number in range(1, 7))
    node = await start(client, start_node, strict, "10.244.0.0/29", 29)
    containers = [f"c{number}" for number in range(9)]

    def talk(seed: int) -> list[Event]:
        rolls = random.Random(seed)
        events = []
        for _request in range(REQUESTS_OF_EACH):
            verb, container = rolls.choice(("ADD", "ADD", "DEL")), rolls.choice(containers)
            called = time.monotonic()
            reply = ask(node.socket, verb, container, {})
            answered = time.monotonic()
            assert reply.status == 0 or (verb == "ADD" and reply.body["code"] == EXHAUSTED), reply.body
            address = reply.address if verb == "ADD" and reply.status == 0 else None
            events.append(Event(called, answered, verb, container, address))
        return events

    with ThreadPoolExecutor(CLIENTS) as clients:
        histories = await asyncio.gather(
            *(asyncio.get_running_loop().run_in_executor(clients, talk, seed) for seed in range(CLIENTS))
        )
    history = sorted((event for events in histories for event in events), key=lambda event: event.called)
    assert is_linearizable(history, addresses), history
    assert any(event.verb == "ADD" and event.address is None for event in history), "the addresses never ran out"
    assert any(first.answered > second.called for first, second in pairwise(history)), "they took turns"
