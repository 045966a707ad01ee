# SPDX-License-Identifier: Apache-2.0
"""Several nodes and another program give and take addresses of one small pool, while nodes die and writes fail.

What must hold all the time, and once everything is quiet: support/simulated_cluster.py.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from podnet_ipam.agent import mirror
from support.simulated_cluster import DELETED, DISABLED, SimulatedCluster
from support.simulated_nodes import CUT_OFF, FAULTS

NODES = ("node-1", "node-2", "node-3")
# Four blocks of four addresses: everything runs out again and again.
POOLS = '[[pools]]\nname = "main"\ncidr = "10.0.0.0/28"\nblock_size = 30\n'
PAIRS = st.sets(st.integers(0, 7).map(lambda half: (f"10.0.0.{2 * half}", f"10.0.0.{2 * half + 1}")), max_size=4)
CONTAINERS = st.integers(0, 11).map("c{}".format)


class Allocation(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="podnet-"))
        self.loop = asyncio.new_event_loop()
        self.cluster = self.run(SimulatedCluster(self.folder, NODES, POOLS).__aenter__())
        self.nodes = self.cluster.nodes
        self.taken = 0

    def teardown(self):
        try:
            self.run(self.cluster.settle())
        finally:
            self.run(self.cluster.__aexit__())
            self.loop.close()
            shutil.rmtree(self.folder)

    def run(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    @rule(seed=st.integers(0, 2**32))
    def chance_changes(self, seed):
        self.cluster.chance.seed(seed)

    @rule(
        jobs=st.lists(
            st.tuples(st.sampled_from(["add", "delete"]), st.sampled_from(NODES), CONTAINERS), min_size=1, max_size=8
        )
    )
    def containers_start_and_end_at_once(self, jobs):
        self.run(self.work(jobs))

    async def work(self, jobs):
        await self.cluster.start_all()
        # A container is on one node, and a runtime asks for one thing at a time of it.
        chosen = {}
        for verb, node, container in jobs:
            node = self.cluster.held[container][0] if container in self.cluster.held else node
            if not any(other == container and where != node for where, other in self.cluster.open):
                chosen.setdefault(container, (verb, node))
        await asyncio.gather(
            *(getattr(self.cluster, verb)(node, container) for container, (verb, node) in chosen.items())
        )

    @rule(name=st.sampled_from(NODES), faults=st.lists(st.sampled_from((*FAULTS, None)), max_size=4))
    def the_next_writes_of_a_node_to_the_datastore_fail(self, name, faults):
        if self.nodes[name].is_up:
            self.nodes[name].client.faults.extend(faults)

    @rule(name=st.sampled_from(NODES), faults=st.lists(st.sampled_from((*FAULTS, None)), max_size=4))
    def the_next_writes_of_a_node_to_its_store_fail(self, name, faults):
        if self.nodes[name].is_up:
            self.nodes[name].store.faults.extend(faults)

    @rule(name=st.sampled_from(NODES), writes=st.integers(0, 4))
    def a_node_is_cut_off_from_the_datastore_after_some_writes(self, name, writes):
        if self.nodes[name].is_up:
            self.nodes[name].client.faults.extend([*[None] * writes, CUT_OFF])

    @rule(name=st.sampled_from(NODES))
    def a_node_dies(self, name):
        if self.nodes[name].is_up:
            self.nodes[name].kill()

    @rule(name=st.sampled_from(NODES))
    def a_node_gives_empty_blocks_back(self, name):
        if self.nodes[name].is_up:
            self.run(self.cluster.give_back(name))

    @rule(name=st.sampled_from(NODES))
    def a_runtime_says_what_it_still_has(self, name):
        if self.nodes[name].is_up:
            self.run(self.cluster.collect(name))

    @rule(change=st.sampled_from((DISABLED, DELETED, None)))
    def the_pool_is_edited(self, change):
        self.run(self.cluster.edit_pool(change))

    @rule(pairs=PAIRS)
    def the_reservations_are_edited(self, pairs):
        self.run(self.cluster.reserve({address for pair in pairs for address in pair}))

    @precondition(lambda self: not self.cluster.strict)
    @rule()
    def another_program_takes_an_address(self):
        self.taken += 1
        self.no_container_has(self.run(self.cluster.calico.take(f"calico.{self.taken}")))

    @rule(node=st.sampled_from(NODES), container=CONTAINERS)
    def another_program_takes_an_empty_block_as_soon_as_a_container_starts(self, node, container):
        self.taken += 1
        self.run(self.work([("add", node, container)]))
        self.no_container_has(self.run(self.cluster.calico.reclaim(f"calico.{self.taken}")))

    def no_container_has(self, address):
        for container, (_node, addresses) in self.cluster.held.items():
            assert address not in addresses, f"{container} has {address}, and the datastore does not know"

    @rule(number=st.integers(0, 11))
    def another_program_frees_an_address(self, number):
        # No precondition: what it got may be another thing in another run of the same example.
        held = sorted(self.cluster.calico.held)
        if held:
            self.run(self.cluster.calico.free(held[number % len(held)]))

    @rule()
    def the_affinity_becomes_strict_or_not(self):
        self.run(self.cluster.toggle_strictness())

    @rule()
    def everything_comes_to_rest(self):
        self.run(self.cluster.settle())


def test_nothing_is_given_twice_and_nothing_is_lost(hurried, monkeypatch):
    monkeypatch.setattr(mirror, "WRITE_SECONDS", 0.1)
    run_state_machine_as_test(
        Allocation,
        settings=settings(
            max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
