# SPDX-License-Identifier: Apache-2.0
"""A cluster of simulated nodes, and what must hold in it whatever fails and whoever dies.

At any time no address is held twice. Once all nodes are up again and quiet, the datastore holds exactly what was
answered and not given back: nothing is lost, nothing leaks. What a node could not record before it died is left to its
search for vanished containers, which is idle otherwise: it would hide what leaks.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Sequence
from pathlib import Path

from podnet_ipam._core.assignment import AssignmentError
from podnet_ipam._core.block import spec_problem
from podnet_ipam._core.names import host_affinity, is_deleted
from podnet_ipam._kube.calico import CONFIG_NAME, V1
from podnet_ipam._kube.errors import ApiError, Unreachable
from podnet_ipam.agent.errors import CniError
from podnet_ipam.agent.local import LocalDatastore
from support.simulated_nodes import Calico, Death, SimulatedNode, Tasks, address_of

SETTLE_SECONDS = 30
DISABLED, DELETED = "disabled", "deleted"


class SimulatedCluster:
    """Nodes with one datastore that declares `pools` (text of a pools file), with strict affinity at first.

    `held` is what was answered: container to (node, addresses). `open` is what nobody knows the end of: (node,
    container) to the verb. Its nodes can be started for as long as the `async with` block lasts.
    """

    def __init__(self, folder: Path, nodes: Sequence[str], pools: str):
        (folder / "pools.toml").write_text(pools)
        tasks = Tasks()
        self._task_factory = tasks.factory
        self.chance = random.Random(0)
        self.datastore = LocalDatastore(folder / "datastore.sqlite", folder / "pools.toml")
        self.nodes = {name: SimulatedNode(name, self.datastore, folder, tasks) for name in nodes}
        self.calico = Calico(self.datastore)
        self.held: dict[str, tuple[str, set[str]]] = {}
        self.open: dict[tuple[str, str], str] = {}
        self._pool: dict | None = None
        # Addresses that are reserved, and those that ever were.
        self.reserved: set[str] = set()
        self._ever_reserved: set[str] = set()
        # What the pools file declares.
        self.strict = True

    async def __aenter__(self) -> SimulatedCluster:
        loop = self._loop = asyncio.get_running_loop()
        loop.set_task_factory(self._task_factory)
        # A death that nobody waits for is no news.
        loop.set_exception_handler(lambda loop, context: None)
        return self

    async def __aexit__(self, *_error: object) -> None:
        for node in self.nodes.values():
            if node.is_up:
                node.kill()
            await node.bury()
        await self.datastore.close()

    async def add(self, name: str, container: str) -> None:
        is_new = (name, container) not in self.open and container not in self.held
        reserved = self.nodes[name].reserved(self.reserved) if is_new else set()
        self.open[name, container] = "ADD"
        given = await self._ask(name, self.nodes[name].add(container))
        if given is None:
            return
        del self.open[name, container]
        assert not given & reserved, f"{container} has got {given}, of which are reserved {reserved}"
        if container in self.held:
            assert given == self.held[container][1], "the same container got another address"
        for other, (_node, addresses) in self.held.items():
            assert other == container or not given & addresses, f"{container} and {other} have {given & addresses}"
        assert not given & {address for _block, address in self.calico.held.values()}
        self.held[container] = (name, given)

    async def delete(self, name: str, container: str) -> None:
        self.held.pop(container, None)
        self.open[name, container] = "DEL"
        if await self._ask(name, self.nodes[name].delete(container)) is not None:
            del self.open[name, container]

    async def give_back(self, name: str) -> None:
        """Have a node release its claims on empty blocks."""
        await self._ask(name, self.nodes[name].give_back())

    async def collect(self, name: str) -> None:
        """Have a node's runtime say what it still has."""
        valid = [container for container, (node, _addresses) in self.held.items() if node == name]
        await self._ask(name, self.nodes[name].collect(valid))

    async def edit_pool(self, change: str | None) -> None:
        """Somebody disables or deletes the only pool; None: or makes it what it was."""
        path = V1.path("IPPool")
        present = next(iter((await self.datastore.list(path))[0]), None)
        self._pool = self._pool or present
        name, spec = self._pool["metadata"]["name"], {**self._pool["spec"], "disabled": change == DISABLED}
        if change == DELETED:
            if present is not None:
                await self.remove("IPPool", name)
        elif present is None:
            await self.datastore.create(path, V1.new("IPPool", name, spec))
        else:
            await self.datastore.replace(V1.path("IPPool", name), V1.changed(present, spec))

    async def select_nodes(self, selector: str) -> None:
        """Somebody edits the node selector of the only pool."""
        [pool] = (await self.datastore.list(V1.path("IPPool")))[0]
        spec = {**pool["spec"], "nodeSelector": selector}
        await self.datastore.replace(V1.path("IPPool", pool["metadata"]["name"]), V1.changed(pool, spec))
        await asyncio.sleep(0.02)

    async def reserve(self, addresses: Collection[str]) -> None:
        """Somebody reserves these addresses, and no others any more."""
        self.reserved = set(addresses)
        self._ever_reserved |= self.reserved
        path, name = V1.path("IPReservation"), "kept"
        present = next(iter((await self.datastore.list(path))[0]), None)
        new = V1.new("IPReservation", name, {"reservedCIDRs": sorted(addresses)})
        if present is None:
            await self.datastore.create(path, new)
        elif addresses:
            await self.datastore.replace(V1.path("IPReservation", name), V1.changed(present, new["spec"]))
        else:
            await self.remove("IPReservation", name)
        # Those that are not cut off come to know.
        await asyncio.sleep(0.002)

    async def remove(self, kind: str, name: str) -> None:
        """Delete an object, as an operator may do by mistake."""
        path = V1.path(kind, name)
        await self.datastore.delete(path, (await self.datastore.get(path))["metadata"]["uid"])

    async def set_affinity(self, block: str, node: str) -> None:
        """Write another node into a block, and leave the claims as they are."""
        path = V1.path("IPAMBlock", block)
        stored = await self.datastore.get(path)
        spec = {**stored["spec"], "affinity": host_affinity(node)}
        await self.datastore.replace(path, V1.changed(stored, spec))

    async def _ask(self, name, request):
        """The answer, or None when there is none: an error, or the node's death."""
        task = self._loop.create_task(request)
        while not task.done() and self.nodes[name].is_up:
            await asyncio.wait({task}, timeout=0.01)
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

    async def toggle_strictness(self) -> None:
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

    async def start_all(self) -> None:
        """Start the nodes that are not up, as often as they die of it."""
        for node in self.nodes.values():
            while not node.is_up:
                await node.bury()
                await self._start(node)

    async def _start(self, node: SimulatedNode) -> None:
        task = self._loop.create_task(node.start(self.chance))
        await asyncio.wait({task})
        error = task.exception()
        if error is not None and not isinstance(error, Death):
            raise error

    async def ask_again(self) -> None:
        """End all faults, and repeat open requests until they succeed, as runtimes do."""
        await self._heal()
        deadline = self._loop.time() + SETTLE_SECONDS
        while self.open:
            assert self._loop.time() < deadline, f"without faults there is no success: {self.open}"
            for (name, container), verb in list(self.open.items()):
                await (self.add if verb == "ADD" else self.delete)(name, container)

    async def _heal(self) -> None:
        for node in self.nodes.values():
            if node.is_up:
                node.heal()
        await self.start_all()

    async def settle(self) -> None:
        """End all faults and all open requests, and wait until the datastore holds what was answered, and no more."""
        await self._heal()
        for name, container in list(self.open):
            await self.delete(name, container)
            assert (name, container) not in self.open, "a DEL without faults fails"
        expected = {address: f"net.{container}" for container, held in self.held.items() for address in held[1]}
        expected |= {address: handle for handle, (_block, address) in self.calico.held.items()}
        deadline = self._loop.time() + SETTLE_SECONDS
        while (state := await self._state()) != (expected, set(expected.values())):
            assert self._loop.time() < deadline, f"expected {expected}, but the datastore has {state}"
            for node in self.nodes.values():
                # Who ended on a full disk, on a node that died before it could write again, is looked for.
                if node.unrecorded:
                    await node.look_for_vanished()
            await asyncio.sleep(0.01)
        for node in self.nodes.values():
            node.unrecorded.clear()
            while node.reserved(self._ever_reserved) != self.reserved:
                assert self._loop.time() < deadline, (
                    f"{node.name} knows {node.reserved(self._ever_reserved)} to be reserved"
                )
                await asyncio.sleep(0.01)

    async def _state(self):
        """({address: handle} of what is allocated, the handles that there are). Every block must be sound."""
        allocated = {}
        claims = {(obj["spec"]["node"], obj["spec"]["cidr"]) for obj in await self._stored("BlockAffinity")}
        for block in await self._stored("IPAMBlock"):
            spec = block["spec"]
            assert spec_problem(spec) is None, spec
            owner = (spec.get("affinity") or "").removeprefix("host:")
            assert not owner or (owner, spec["cidr"]) in claims, f"block {spec['cidr']} has no claim of {owner}"
            for ordinal, index in enumerate(spec["allocations"]):
                if index is not None:
                    address = str(address_of(spec["cidr"], ordinal))
                    allocated[address] = spec["attributes"][index]["handle_id"]
        return allocated, {obj["spec"]["handleID"] for obj in await self._stored("IPAMHandle")}

    async def _stored(self, kind):
        return [obj for obj in (await self.datastore.list(V1.path(kind)))[0] if not is_deleted(obj)]
