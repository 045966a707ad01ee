# SPDX-License-Identifier: Apache-2.0
"""A node fails or dies at each write of a request, one after the other: at the datastore's and at its own store's.

Afterwards what must hold holds (support/simulated_cluster.py), whether the runtime asks again or gives the container
up.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from podnet_ipam.agent import mirror
from support.simulated_cluster import SimulatedCluster
from support.simulated_nodes import CUT_OFF, DEATH_AFTER, DEATH_BEFORE, FAULTS, REFUSED

NODES = ("node-1", "node-2")
ONE_BLOCK = '[[pools]]\nname = "main"\ncidr = "10.0.0.0/30"\nblock_size = 30\n'
TWO_BLOCKS = '[[pools]]\nname = "main"\ncidr = "10.0.0.0/29"\nblock_size = 30\n'
MORE_THAN_ARE_WRITTEN = 100

Step = Callable[[SimulatedCluster], Awaitable[None]]


class Scenario(NamedTuple):
    """What happens in peace, one after the other, and then at once while node-1 fails."""

    pools: str
    strict: bool
    before: tuple[Step, ...]
    then: tuple[Step, ...]


def add(container: str, node: str = "node-1") -> Step:
    return lambda cluster: cluster.add(node, container)


def delete(container: str, node: str = "node-1") -> Step:
    return lambda cluster: cluster.delete(node, container)


def give_back(cluster: SimulatedCluster) -> Awaitable[None]:
    return cluster.give_back("node-1")


FULL_BLOCK = tuple(add(f"c{number}") for number in range(4))
SCENARIOS = {
    "the first address, and the claim of its block": Scenario(ONE_BLOCK, True, (), (add("c"),)),
    "an address of a block in use, local first": Scenario(ONE_BLOCK, True, (add("a"),), (add("c"),)),
    "an address that is written through": Scenario(ONE_BLOCK, False, (add("a"),), (add("c"),)),
    "the claim of a second block": Scenario(TWO_BLOCKS, True, FULL_BLOCK, (add("c"),)),
    "a borrowed address": Scenario(ONE_BLOCK, False, (add("a", "node-2"),), (add("c"),)),
    "the end of a borrowed address": Scenario(ONE_BLOCK, False, (add("a", "node-2"), add("c")), (delete("c"),)),
    "an empty block of another node": Scenario(
        ONE_BLOCK, True, (add("a", "node-2"), delete("a", "node-2")), (add("c"),)
    ),
    "the end of a container": Scenario(ONE_BLOCK, True, (add("a"), add("c")), (delete("c"),)),
    "the end of the last container": Scenario(ONE_BLOCK, True, (add("c"),), (delete("c"),)),
    "the end of a container without strict affinity": Scenario(ONE_BLOCK, False, (add("a"), add("c")), (delete("c"),)),
    "an empty block that is given back": Scenario(
        TWO_BLOCKS, True, (*FULL_BLOCK, add("e"), delete("c0"), delete("e")), (give_back,)
    ),
    "starts and ends at once": Scenario(ONE_BLOCK, True, (add("a"), add("b")), (add("c"), delete("a"), add("d"))),
    "an address that is given again at once": Scenario(ONE_BLOCK, True, FULL_BLOCK, (delete("c0"), add("c"))),
}


@pytest.mark.parametrize("place", ("client", "store"))
@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS.keys())
def test_no_write_can_fail_in_a_way_that_loses_or_doubles_an_address(hurried, scenario, place):
    for fault in FAULTS:
        writes = at_each_write(scenario, place, [fault], ask_again=True)
        assert writes or place == "store", "nothing was tested"
    for fault in (DEATH_BEFORE, DEATH_AFTER):
        at_each_write(scenario, place, [fault], ask_again=False)


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS.keys())
def test_a_node_that_is_cut_off_after_any_write_doubles_no_address(hurried, monkeypatch, scenario):
    monkeypatch.setattr(mirror, "WRITE_SECONDS", 0.2)
    assert at_each_write(scenario, "client", [CUT_OFF], ask_again=False), "nothing was tested"


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS.keys())
def test_a_disk_that_is_full_from_some_write_on_loses_and_doubles_nothing(hurried, scenario):
    # What ends meanwhile is recorded nowhere, so that another run has to find out: see agent/collector.py.
    at_each_write(scenario, "store", [REFUSED] * MORE_THAN_ARE_WRITTEN, ask_again=False, restart=False)


def at_each_write(scenario: Scenario, place: str, faults: Sequence[str], ask_again: bool, restart: bool = True) -> int:
    """Have the faults begin at the first write, then at the second, and so on. Return how many there are."""
    for number in itertools.count():
        if not asyncio.run(survive(scenario, place, [*[None] * number, *faults], ask_again, restart)):
            return number


async def survive(scenario: Scenario, place: str, faults: Sequence[str | None], ask_again: bool, restart: bool) -> bool:
    """Carry out the scenario with these faults at the writes of node-1, and in the end perhaps start it once more.

    Return whether any fault struck.
    """
    with tempfile.TemporaryDirectory(prefix="podnet-") as folder:
        async with SimulatedCluster(Path(folder), NODES, scenario.pools) as cluster:
            if not scenario.strict:
                await cluster.toggle_strictness()
            await cluster.start_all()
            for step in scenario.before:
                await step(cluster)
            await cluster.settle()
            node = cluster.nodes["node-1"]
            left = getattr(node, place).faults = deque(faults)
            await asyncio.gather(*(step(cluster) for step in scenario.then))
            while node.is_up and node.ipam.unsettled and not node.client.cut_off:
                await asyncio.sleep(0.001)
            has_struck = len(left) < len(faults) - faults.count(None)
            if node.client.cut_off:
                # The others see what got through, this node does not.
                await cluster.add("node-2", "other")
                await cluster.add("node-1", "late")
            if ask_again:
                await cluster.ask_again()
            await cluster.settle()
            if restart:
                # Whatever its store says, the next run must not bring back what is over.
                node.kill()
                await cluster.settle()
            return has_struck
