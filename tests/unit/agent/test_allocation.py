# SPDX-License-Identifier: Apache-2.0
"""Several nodes and another program give and take addresses of one small pool, while nodes die and writes fail.

At any time no address is held twice. Once all nodes are up again and quiet, the datastore holds exactly what was
answered and not given back: nothing is lost, nothing leaks.
"""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from podnet_ipam._core.assignment import AssignmentError
from podnet_ipam._core.block import spec_problem
from podnet_ipam._core.names import is_deleted
from podnet_ipam._kube.calico import CONFIG_NAME, V1
from podnet_ipam._kube.errors import ApiError, Unreachable
from podnet_ipam.agent import backoff, claims, lull
from podnet_ipam.agent.errors import CniError
from podnet_ipam.agent.local import LocalDatastore
from support.simulated_nodes import FAULTS, Calico, Death, SimulatedNode, Tasks, address_of

NODES = ("node-1", "node-2", "node-3")
# Four blocks of four addresses: everything runs out again and again.
POOLS = '[[pools]]\nname = "main"\ncidr = "10.0.0.0/28"\nblock_size = 30\n'
SETTLE_SECONDS = 30
CONTAINERS = st.integers(0, 11).map("c{}".format)


class Allocation(RuleBasedStateMachine):
    """`held` is what was answered: container to (node, addresses). `open`: (node, container) whose end is not known."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="podnet-"))
        (self.folder / "pools.toml").write_text(POOLS)
        self.chance = random.Random(0)
        self.tasks = Tasks()
        self.loop = asyncio.new_event_loop()
        self.loop.set_task_factory(self.tasks.factory)
        # A death that nobody waits for is no news.
        self.loop.set_exception_handler(lambda loop, context: None)
        self.datastore = LocalDatastore(self.folder / "datastore.sqlite", self.folder / "pools.toml")
        self.nodes = {name: SimulatedNode(name, self.datastore, self.folder, self.tasks) for name in NODES}
        self.calico = Calico(self.datastore)
        self.held: dict[str, tuple[str, set[str]]] = {}
        self.open: set[tuple[str, str]] = set()
        self.taken = 0
        # What the pools file declares.
        self.strict = True

    def teardown(self):
        try:
            self.run(self.settle())
        finally:
            for node in self.nodes.values():
                if node.is_up:
                    node.kill()
                self.run(node.bury())
            self.loop.run_until_complete(self.datastore.close())
            self.loop.close()
            shutil.rmtree(self.folder)

    def run(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    @rule(seed=st.integers(0, 2**32))
    def chance_changes(self, seed):
        self.chance.seed(seed)

    @rule(
        jobs=st.lists(
            st.tuples(st.sampled_from(["add", "delete"]), st.sampled_from(NODES), CONTAINERS), min_size=1, max_size=8
        )
    )
    def containers_start_and_end_at_once(self, jobs):
        self.run(self.work(jobs))

    async def work(self, jobs):
        await self.start_all()
        # A container is on one node, and a runtime asks for one thing at a time of it.
        chosen = {}
        for verb, node, container in jobs:
            node = self.held[container][0] if container in self.held else node
            if not any(other == container and where != node for where, other in self.open):
                chosen.setdefault(container, (verb, node))
        await asyncio.gather(*(getattr(self, verb)(node, container) for container, (verb, node) in chosen.items()))

    async def add(self, name, container):
        self.open.add((name, container))
        given = await self.ask(name, self.nodes[name].add(container))
        if given is None:
            return
        self.open.discard((name, container))
        if container in self.held:
            assert given == self.held[container][1], "the same container got another address"
        for other, (_node, addresses) in self.held.items():
            assert other == container or not given & addresses, f"{container} and {other} have {given & addresses}"
        assert not given & {address for _block, address in self.calico.held.values()}
        self.held[container] = (name, given)

    async def delete(self, name, container):
        self.held.pop(container, None)
        self.open.add((name, container))
        if await self.ask(name, self.nodes[name].delete(container)) is not None:
            self.open.discard((name, container))

    async def ask(self, name, request):
        """The answer, or None when there is none: an error, or the node's death."""
        task = self.loop.create_task(request)
        while not task.done() and self.nodes[name].is_up:
            await asyncio.wait({task}, timeout=0.05)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
            return None
        error = task.exception()
        if error is None:
            return task.result()
        if isinstance(error, (AssignmentError, CniError, ApiError, Unreachable, Death)):
            return None
        raise error

    @rule(name=st.sampled_from(NODES), faults=st.lists(st.sampled_from((*FAULTS, None)), max_size=4))
    def the_next_writes_of_a_node_fail(self, name, faults):
        if self.nodes[name].is_up:
            self.nodes[name].client.faults.extend(faults)

    @rule(name=st.sampled_from(NODES))
    def a_node_dies(self, name):
        if self.nodes[name].is_up:
            self.nodes[name].kill()

    @rule(name=st.sampled_from(NODES))
    def a_node_gives_empty_blocks_back(self, name):
        if self.nodes[name].is_up:
            self.run(self.ask(name, self.nodes[name].give_back()))

    @precondition(lambda self: not self.strict)
    @rule()
    def another_program_takes_an_address(self):
        self.taken += 1
        address = self.run(self.calico.take(f"calico.{self.taken}"))
        for container, (_node, addresses) in self.held.items():
            assert address not in addresses, f"{container} has {address}, and the datastore does not know"

    @precondition(lambda self: self.calico.held)
    @rule(data=st.data())
    def another_program_frees_an_address(self, data):
        self.run(self.calico.free(data.draw(st.sampled_from(sorted(self.calico.held)))))

    @rule()
    def the_affinity_becomes_strict_or_not(self):
        self.run(self.toggle())

    async def toggle(self):
        # What was answered under the one rule is stored before the other one holds.
        await self.settle()
        self.strict = not self.strict
        spec = {"strictAffinity": self.strict, "autoAllocateBlocks": True}
        path = V1.path("IPAMConfig", CONFIG_NAME)
        present = {obj["metadata"]["name"]: obj for obj in (await self.datastore.list(V1.path("IPAMConfig")))[0]}
        if CONFIG_NAME in present:
            await self.datastore.replace(path, {**present[CONFIG_NAME], "spec": spec})
        else:
            await self.datastore.create(V1.path("IPAMConfig"), V1.new("IPAMConfig", CONFIG_NAME, spec))
        await asyncio.sleep(0.02)

    @rule()
    def everything_comes_to_rest(self):
        self.run(self.settle())

    async def start_all(self):
        for node in self.nodes.values():
            while not node.is_up:
                await node.bury()
                await self.ask_start(node)

    async def ask_start(self, node):
        task = self.loop.create_task(node.start(self.chance))
        await asyncio.wait({task})
        error = task.exception()
        if error is not None and not isinstance(error, Death):
            raise error

    async def settle(self):
        for node in self.nodes.values():
            if node.is_up:
                node.client.faults.clear()
        await self.start_all()
        for name, container in list(self.open):
            await self.delete(name, container)
            assert (name, container) not in self.open, "a DEL without faults fails"
        expected = {address: f"net.{container}" for container, held in self.held.items() for address in held[1]}
        expected |= {address: handle for handle, (_block, address) in self.calico.held.items()}
        deadline = self.loop.time() + SETTLE_SECONDS
        while (state := await self.state()) != (expected, set(expected.values())):
            assert self.loop.time() < deadline, f"expected {expected}, but the datastore has {state}"
            await asyncio.sleep(0.01)

    async def state(self):
        """({address: handle} of what is allocated, the handles that there are). Every block must be sound."""
        allocated = {}
        claims = {(obj["spec"]["node"], obj["spec"]["cidr"]) for obj in await self.stored("BlockAffinity")}
        for block in await self.stored("IPAMBlock"):
            spec = block["spec"]
            assert spec_problem(spec) is None, spec
            owner = (spec.get("affinity") or "").removeprefix("host:")
            assert not owner or (owner, spec["cidr"]) in claims, f"block {spec['cidr']} has no claim of {owner}"
            for ordinal, index in enumerate(spec["allocations"]):
                if index is not None:
                    address = str(address_of(spec["cidr"], ordinal))
                    allocated[address] = spec["attributes"][index]["handle_id"]
        return allocated, {obj["spec"]["handleID"] for obj in await self.stored("IPAMHandle")}

    async def stored(self, kind):
        return [obj for obj in (await self.datastore.list(V1.path(kind)))[0] if not is_deleted(obj)]


@pytest.fixture
def hurried(monkeypatch):
    """Pauses that matter on a real node only."""
    monkeypatch.setattr(lull, "QUIET_SECONDS", 0.002)
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 0.001)
    monkeypatch.setattr(backoff, "LONGEST_SECONDS", 0.01)
    monkeypatch.setattr(claims, "RECLAIM_SECONDS", 0.0)
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_nothing_is_given_twice_and_nothing_is_lost(hurried):
    run_state_machine_as_test(
        Allocation,
        settings=settings(
            max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
