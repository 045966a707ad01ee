# SPDX-License-Identifier: Apache-2.0
"""Requests without end: nothing gets lost on the way, and the agent does not grow.

A quarter of a minute of them, or as many as SOAK_REQUESTS says (`make soak`).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support.conversation import ask
from support.plane import settled

POOLS = '[[pools]]\nname = "main"\ncidr = "10.88.0.0/20"\n'
CLIENTS = 4
CONTAINERS_OF_EACH = 40
WARM_UP_REQUESTS, WARM_UP_SECONDS = 20_000, 5.0
SECONDS = 10.0
# Caches and arenas take about 10 MB to fill, which a slow machine does not get done while it warms up. A leak of 1 KiB
# a request would be 100 MB in 100,000.
MOST_GROWTH_BYTES = 16 << 20


class Bound:
    """Ends work after so many requests, or, without a number, after so many seconds."""

    def __init__(self, requests: int | None, seconds: float):
        self._left = requests
        self._deadline = time.monotonic() + seconds
        self.count = 0

    def is_reached(self) -> bool:
        return time.monotonic() > self._deadline if self._left is None else self.count >= self._left


class Clients:
    """Runtimes' clients, who know what they hold."""

    def __init__(self, socket: Path):
        self._socket = socket
        self._lock = threading.Lock()
        # By address, so that one that is given twice is noticed.
        self.holders: dict[str, str] = {}
        self._held: dict[str, dict] = {}
        # No container's id comes twice.
        self._numbers = itertools.count()

    async def work(self, bound: Bound) -> None:
        with ThreadPoolExecutor(CLIENTS) as threads:
            loop = asyncio.get_running_loop()
            await asyncio.gather(*(loop.run_in_executor(threads, self._talk, name, bound) for name in range(CLIENTS)))

    def _talk(self, name: int, bound: Bound) -> None:
        rolls = random.Random(name)
        running = []
        while not bound.is_reached():
            bound.count += 1
            what = rolls.choice((self._add, self._add, self._delete, self._delete, self._add_again, self._check))
            if what == self._add or not running:
                running.append(f"c{next(self._numbers)}")
                self._add(running[-1])
            elif what == self._delete or len(running) > CONTAINERS_OF_EACH:
                self._delete(running.pop(rolls.randrange(len(running))))
            else:
                what(rolls.choice(running))

    def _add(self, container: str) -> None:
        reply = self._ask("ADD", container)
        with self._lock:
            other = self.holders.setdefault(reply.address, container)
        assert other == container, f"{container} and {other} have {reply.address}"
        self._held[container] = reply.body

    def _add_again(self, container: str) -> None:
        assert self._ask("ADD", container).body == self._held[container]

    def _check(self, container: str) -> None:
        self._ask("CHECK", container, prevResult=self._held[container])

    def _delete(self, container: str) -> None:
        address = self._held.pop(container)["ips"][0]["address"].partition("/")[0]
        with self._lock:
            del self.holders[address]
        self._ask("DEL", container)

    def _ask(self, command, container, **config):
        reply = ask(self._socket, command, container, config)
        assert reply.status == 0, f"{command} {container}: {reply.body}"
        return reply


async def test_the_agent_neither_loses_addresses_nor_grows(start_machine):
    requests = int(os.environ["SOAK_REQUESTS"]) if "SOAK_REQUESTS" in os.environ else None
    machine = await start_machine(POOLS)
    clients = Clients(machine.socket)
    await clients.work(Bound(requests and WARM_UP_REQUESTS, WARM_UP_SECONDS))
    before, started, bound = machine.resident_bytes, time.monotonic(), Bound(requests, SECONDS)
    await clients.work(bound)
    seconds = time.monotonic() - started
    await settled(machine, clients.holders)
    after = machine.resident_bytes
    memory = f"resident {before / 1e6:.1f} MB before, {after / 1e6:.1f} MB after"
    print(f"{bound.count} requests in {seconds:.0f} s, {memory}")
    assert after - before < MOST_GROWTH_BYTES
