# SPDX-License-Identifier: Apache-2.0
"""Several nodes' allocation in one process, on the agent's own datastore, with deaths and failing writes at will.

Everything that gives and takes addresses is the agent's own; only the executable, the socket and the API server are
left out, so that a machine of hypothesis can go through thousands of steps.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import random
import sqlite3
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection
from contextlib import closing, suppress
from contextvars import ContextVar
from pathlib import Path

from podnet_ipam._core.assignment import Subject
from podnet_ipam._core.block import Block
from podnet_ipam._core.names import affinity_name, cidr_name, host_affinity
from podnet_ipam._kube.calico import V1
from podnet_ipam._kube.errors import AlreadyExists, Conflict, NotFound, Unreachable
from podnet_ipam.agent.attachments import Outcome
from podnet_ipam.agent.cluster import Cluster
from podnet_ipam.agent.collector import Collector
from podnet_ipam.agent.idle_blocks import IdleBlocks
from podnet_ipam.agent.ipam import Ipam
from podnet_ipam.agent.local import LocalDatastore
from podnet_ipam.agent.running import Records
from podnet_ipam.agent.store import Store

REFUSED, LOST, DEATH_BEFORE, DEATH_AFTER = "refused", "lost", "death before", "death after"
FAULTS = (REFUSED, LOST, DEATH_BEFORE, DEATH_AFTER)
CUT_OFF = "cut off"
IMPOSSIBLE = "impossible"

_running_on: ContextVar[str] = ContextVar("node", default="")


class Death(BaseException):
    """The process that runs into this does nothing any more."""


class NodeClient:
    """A node's way to the datastore. `faults` strike its next writes, one each; None lets a write through.

    `on_death` ends the node. A write that is struck by CUT_OFF is the last thing that gets through until `heal`, and
    its answer does not: then `cut_off` is set.
    """

    knows_pods = False
    seconds_away = 0.0
    name = "the datastore"

    def __init__(self, datastore: LocalDatastore, chance: random.Random, on_death):
        self._datastore = datastore
        self._chance = chance
        self._on_death = on_death
        self.faults: deque[str | None] = deque()
        self.dead = False
        self.cut_off = False

    def heal(self) -> None:
        """Let all that comes succeed."""
        self.faults.clear()
        self.cut_off = False

    async def get(self, path):
        await self._travel()
        return await self._datastore.get(path)

    async def list(self, path, query=None, keep=lambda obj: obj):
        await self._travel()
        return await self._datastore.list(path, query, keep)

    async def watch(self, path, version, query=None):
        async for event in self._datastore.watch(path, version, query):
            await self._travel()
            yield event

    async def create(self, path, obj):
        return await self._write(self._datastore.create, path, obj)

    async def replace(self, path, obj):
        return await self._write(self._datastore.replace, path, obj)

    async def delete(self, path, uid):
        return await self._write(self._datastore.delete, path, uid)

    async def _write(self, write, path, what):
        await self._travel()
        fault = self.faults.popleft() if self.faults else None
        if fault == REFUSED:
            raise Unreachable("the request did not get there")
        if fault == DEATH_BEFORE:
            self._die()
        result = await write(path, what)
        if fault == DEATH_AFTER:
            self._die()
        self.cut_off = self.cut_off or fault == CUT_OFF
        await self._travel()
        if fault == LOST:
            raise Unreachable("the answer did not come back")
        return result

    async def _travel(self) -> None:
        """Let the others do something meanwhile, or not."""
        for _turn in range(self._chance.randint(0, 3)):
            await asyncio.sleep(0)
        if self.dead:
            raise Death
        if self.cut_off:
            raise Unreachable("nothing gets through")

    def _die(self):
        self._on_death()
        raise Death


class NodeStore(Store):
    """A node's own record, with `faults` as a NodeClient has them: refused is what a full disk does.

    What is struck by IMPOSSIBLE cannot stand beside what is recorded.
    """

    def __init__(self, path: Path, on_death: Callable[[], None]):
        super().__init__(path)
        self._on_death = on_death
        self.faults: deque[str | None] = deque()

    def hold(self, *values):
        self._write(super().hold, *values)

    def release(self, *values):
        self._write(super().release, *values)

    def forget(self, *values):
        self._write(super().forget, *values)

    def _write(self, write, *values):
        fault = self.faults.popleft() if self.faults else None
        if fault == REFUSED:
            raise sqlite3.OperationalError("database or disk is full")
        if fault == IMPOSSIBLE:
            raise sqlite3.IntegrityError("UNIQUE constraint failed")
        if fault == DEATH_BEFORE:
            self._die()
        write(*values)
        if fault == DEATH_AFTER:
            self._die()
        if fault == LOST:
            raise sqlite3.OperationalError("disk I/O error")

    def _die(self):
        self._on_death()
        raise Death


class SimulatedNode:
    """A node. Its store survives its deaths."""

    def __init__(self, name: str, datastore: LocalDatastore, folder: Path, tasks: Tasks):
        self.name = name
        self.datastore = datastore
        self._path = folder / f"{name}.sqlite"
        self._results = folder / f"{name}.results"
        self._tasks = tasks
        self.store: NodeStore | None = None
        self.client: NodeClient | None = None
        self.cluster: Cluster | None = None
        self.ipam: Ipam | None = None
        self.idle_blocks: IdleBlocks | None = None
        self.collector: Collector | None = None
        # For how many seconds a freed address rests, the network of its pods, empty where it is not known, and what
        # strikes the first writes of a run. They count from the next start on.
        self.cooldown = 0.0
        self.network = "net"
        self.faults_at_start: deque[str | None] = deque()
        # What a run has not got to record before its end, so that the next one brings it back.
        self.unrecorded: set[str] = set()

    @property
    def is_up(self) -> bool:
        return self.client is not None and not self.client.dead

    async def start(self, chance: random.Random) -> None:
        _running_on.set(self.name)
        self.store = NodeStore(self._path, self.kill)
        self.client = NodeClient(self.datastore, chance, self.kill)
        self.client.faults, self.faults_at_start = self.faults_at_start, deque()
        cluster = self.cluster = Cluster(self.client, V1)
        for reflector in (*cluster.reflectors, cluster.namespaces):
            asyncio.get_running_loop().create_task(reflector.run())
        for reflector in cluster.reflectors:
            await reflector.synced.wait()
        self.ipam = Ipam(cluster, self.name, self.store, self.cooldown, False)
        self.idle_blocks = IdleBlocks(cluster, self.ipam.blocks, 0)
        self.collector = Collector(self.ipam, self.client, self.name, 0)
        await self.ipam.start(Records(self._results, self.network))

    def reserved(self, addresses: Collection[str]) -> set[str]:
        """Which of some addresses it knows to be reserved."""
        return {address for address in addresses if self.is_up and self.cluster.reserved_ordinals(f"{address}/32")}

    def kill(self) -> None:
        self.client.dead = True
        self.store.close()
        if self.ipam is not None:
            self.unrecorded |= self.ipam.recording.behind

    def heal(self) -> None:
        """Let all that comes succeed."""
        self.client.heal()
        self.store.faults.clear()

    def copy_of_store(self) -> bytes:
        """What is recorded now, as a file."""
        with closing(sqlite3.connect(self._path)) as connection:
            return connection.serialize()

    def lose_power(self, disk: bytes) -> None:
        """All containers end, and the store is what the disk had, which is a copy of it."""
        self.kill()
        for suffix in ("-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        self._path.write_bytes(disk)
        for netns in self._path.parent.glob(f"{self.name}-*.netns"):
            netns.unlink()

    async def bury(self) -> None:
        """End what is left of a dead process."""
        while left := self._tasks.of(self.name):
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=1)

    async def add(self, container: str) -> set[str]:
        return {held.address for held in (await self.assign(container)).addresses}

    async def assign(self, container: str, *addresses: str, netns: str = "") -> Outcome:
        """As `add`, with how the answer was made safe. `addresses`: the very ones that are asked for, if any.

        `netns`: its network namespace, if not the one that is there until its end.
        """
        _running_on.set(self.name)
        subject = Subject(namespace="default", name=container, node=self.name)
        attributes = {"namespace": "default", "pod": container}
        own = self._netns(container)
        own.touch()
        return await self.ipam.assign(f"net.{container}", subject, addresses or [4], attributes, netns or str(own))

    async def delete(self, container: str) -> bool:
        _running_on.set(self.name)
        self._netns(container).unlink(missing_ok=True)
        await self.ipam.release(f"net.{container}")
        return True

    def record(self, container: str, *addresses: str, network: str = "net", interface: str = "eth0") -> None:
        """What the runtime's library writes down after an ADD, whoever has answered it."""
        self._results.mkdir(exist_ok=True)
        own = self._netns(container)
        own.touch()
        cached = {
            "kind": "cniCacheV1",
            "containerId": container,
            "ifName": interface,
            "networkName": network,
            "netns": str(own),
            "cniArgs": [["K8S_POD_NAMESPACE", "default"], ["K8S_POD_NAME", container]],
            "result": {"ips": [{"address": f"{address}/24"} for address in addresses]},
        }
        (self._results / f"{network}-{container}-{interface}").write_text(json.dumps(cached))

    def _netns(self, container: str) -> Path:
        return self._path.with_name(f"{self.name}-{container}.netns")

    async def look_for_vanished(self) -> None:
        """Free what containers hold whose network namespace is gone."""
        _running_on.set(self.name)
        looking = asyncio.get_running_loop().create_task(self.collector.run())
        await asyncio.wait({looking}, timeout=0.01)
        looking.cancel()
        await asyncio.wait({looking})

    async def give_back(self) -> None:
        """Release the claims on empty blocks."""
        _running_on.set(self.name)
        await self.idle_blocks.give_back()

    async def collect(self, containers: Collection[str]) -> None:
        """Free what others than these containers hold, as a runtime asks for by the verb GC."""
        _running_on.set(self.name)
        await self.collector.collect("net", [(container, "") for container in containers])


class Tasks:
    """Which tasks belong to which node: a task belongs to the node of whoever made it."""

    def __init__(self):
        self._tasks: defaultdict[str, set[asyncio.Task]] = defaultdict(set)

    def factory(self, loop, coroutine, **options):
        task = asyncio.Task(coroutine, loop=loop, **options)
        mine = self._tasks[_running_on.get()]
        mine.add(task)
        task.add_done_callback(mine.discard)
        return task

    def of(self, node: str) -> set[asyncio.Task]:
        return {task for task in self._tasks[node] if not task.done()} - {asyncio.current_task()}


class Calico:
    """Another program on the same datastore that takes and frees addresses as Calico's plugin does."""

    NODE = "calico-node"

    def __init__(self, datastore: LocalDatastore):
        self._datastore = datastore
        self.held: dict[str, tuple[str, str]] = {}

    async def take(self, handle: str, only: str = "") -> str | None:
        """The address that it got in the first block with room, whosever it is, or in the block `only`."""
        for stored in (await self._datastore.list(V1.path("IPAMBlock")))[0]:
            block = Block(stored["spec"])
            if only not in ("", block.cidr):
                continue
            ordinal = block.assign(handle, {"node": self.NODE, "namespace": "default", "pod": handle})
            if stored["spec"].get("deleted") or ordinal < 0:
                continue
            spec = {"handleID": handle, "block": {block.cidr: 1}, "deleted": False}
            await self._datastore.create(V1.path("IPAMHandle"), V1.new("IPAMHandle", handle, spec))
            if not await self._store(stored, block):
                continue
            self.held[handle] = (block.cidr, str(address_of(block.cidr, ordinal)))
            return self.held[handle][1]
        return None

    async def reclaim(self, handle: str) -> str | None:
        """The address that it got in an empty block of a node, whose claim it has released as Calico 3.32 does."""
        for stored in (await self._datastore.list(V1.path("IPAMBlock")))[0]:
            spec = stored["spec"]
            owner = (spec.get("affinity") or "").removeprefix("host:")
            if spec.get("deleted") or owner in ("", self.NODE) or any(each is not None for each in spec["allocations"]):
                continue
            if await self._release_claim(stored, owner) and await self._claim(spec["cidr"]):
                return await self.take(handle, spec["cidr"])
        return None

    async def _release_claim(self, stored: dict, owner: str) -> bool:
        cidr = stored["spec"]["cidr"]
        path, claim = V1.path("IPAMBlock", cidr_name(cidr)), V1.path("BlockAffinity", affinity_name(owner, cidr))
        try:
            affinity = await self._set_state(claim, "pendingDeletion")
        except (Conflict, NotFound):
            return False
        await asyncio.sleep(0)
        try:
            stored = await self._datastore.replace(path, V1.changed(stored, {**stored["spec"], "deleted": True}))
        except (Conflict, NotFound):
            with suppress(Conflict, NotFound):
                await self._datastore.replace(claim, V1.changed(affinity, {**affinity["spec"], "state": "confirmed"}))
            return False
        await asyncio.sleep(0)
        with suppress(NotFound):
            await self._datastore.delete(path, stored["metadata"]["uid"])
            await self._datastore.delete(claim, affinity["metadata"]["uid"])
        return True

    async def _claim(self, cidr: str) -> bool:
        await asyncio.sleep(0)
        claim = await self._datastore.create(V1.path("BlockAffinity"), V1.new_affinity(self.NODE, cidr, "pending"))
        await asyncio.sleep(0)
        size = ipaddress.ip_network(cidr).num_addresses
        spec = Block.empty(cidr, size, host_affinity(self.NODE), time.time_ns(), "2026-01-01T00:00:00Z").spec()
        path = V1.path("BlockAffinity", affinity_name(self.NODE, cidr))
        try:
            await self._datastore.create(V1.path("IPAMBlock"), V1.new("IPAMBlock", cidr_name(cidr), spec))
        except AlreadyExists:
            await self._datastore.delete(path, claim["metadata"]["uid"])
            return False
        await self._set_state(path, "confirmed")
        return True

    async def _set_state(self, path: str, state: str) -> dict:
        stored = await self._datastore.get(path)
        return await self._datastore.replace(path, V1.changed(stored, {**stored["spec"], "state": state}))

    async def free(self, handle: str) -> None:
        cidr, _address = self.held[handle]
        while True:
            stored = await self._datastore.get(V1.path("IPAMBlock", cidr_name(cidr)))
            block = Block(stored["spec"])
            block.release(handle)
            if await self._store(stored, block):
                break
        del self.held[handle]
        obj = await self._datastore.get(V1.path("IPAMHandle", handle))
        await self._datastore.delete(V1.path("IPAMHandle", handle), obj["metadata"]["uid"])

    async def _store(self, stored: dict, block: Block) -> bool:
        block.sequence_number += 1
        try:
            await self._datastore.replace(V1.path("IPAMBlock", cidr_name(block.cidr)), V1.changed(stored, block.spec()))
        except Conflict:
            return False
        return True


def address_of(cidr: str, ordinal: int):
    """An address of a block."""
    return ipaddress.ip_network(cidr).network_address + ordinal
