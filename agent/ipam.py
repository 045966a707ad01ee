# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Giving addresses to attachments and taking them back.

The steady state costs two writes for an assignment, the attachment's handle and the block that bursts share, and no
read: pools, selectors and annotations come from the watch caches, blocks are in memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from .._core.assignment import Choice, Subject, choose
from .._core.names import cidr_name
from .._core.pool import Pool
from .._kube.errors import NotFound
from .blocks import BlockKeeper, BlockUnusableError
from .claims import Claims
from .cluster import Affinity, Cluster
from .errors import EXHAUSTED, TRY_AGAIN_LATER, CniError
from .handles import Handles

# Each try takes blocks that had room a moment ago; losing this often means that something else is wrong.
MOST_TRIES = 10

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Address:
    """An address that an attachment holds. `pool` is None when its pool has been removed since."""

    address: str
    block: str
    pool: Pool | None


class Ipam:
    """The addresses of one node."""

    def __init__(self, cluster: Cluster, node: str):
        self._cluster = cluster
        self._node = node
        self._handles = Handles(cluster.client, cluster.calico)
        self._claims = Claims(cluster, node)
        self._claiming = asyncio.Lock()
        self._keepers: dict[str, BlockKeeper] = {}
        self._held: dict[str, tuple[Address, ...]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._waiting: Counter[str] = Counter()
        self._background: set[asyncio.Task] = set()

    async def start(self) -> None:
        """Take over the blocks that this node has claimed, with what they hold. The watch caches must be complete."""
        for affinity in self._cluster.claims_of(self._node):
            block = await self._claims.complete(affinity.cidr, affinity.confirmed)
            if block is not None:
                self._adopt(block)
        self._cluster.on_reserved = self._reserve_again
        self._cluster.on_claim_removed = self._claim_removed
        log.info("%s blocks with %s attachments", len(self._keepers), len(self._held))

    async def stop(self) -> None:
        """Finish what goes on behind answered requests."""
        await asyncio.gather(*self._background, return_exceptions=True)

    def holding(self, handle: str) -> tuple[Address, ...]:
        """What `handle` holds, the IPv4 address first; () when it holds nothing."""
        return self._held.get(handle, ())

    async def assign(
        self, handle: str, subject: Subject, families: Sequence[int], attributes: dict
    ) -> tuple[Address, ...]:
        """One address of each of `families` for the attachment; all of them or none.

        The same attachment asked twice gets the same answer. AssignmentError when no pool serves the pod, CniError
        when those that do have no address left, the client's errors when nothing could be written.
        """
        async with self._turn(handle):
            held = self._held.get(handle)
            if held is not None:
                log.info("handle %s asks again", handle)
                return held
            choices = [choose(family, subject, self._cluster.pools) for family in families]
            secondary = {**attributes, "node": self._node, "timestamp": _timestamp()}
            for _try in range(MOST_TRIES):
                taken = await self._take(handle, subject, choices, secondary)
                if taken is not None:
                    self._held[handle] = taken
                    return taken
            raise CniError(
                TRY_AGAIN_LATER, f"{subject}: other nodes took every block with room first, {MOST_TRIES} times"
            )

    async def release(self, handle: str) -> tuple[str, ...]:
        """Free whatever the attachment holds, and return the addresses; () when it holds nothing, which is no error."""
        async with self._turn(handle):
            held = self._held.get(handle)
            cidrs = [a.block for a in held] if held else await self._handles.blocks(handle)
            freed = []
            for cidr in cidrs:
                keeper = await self._keeper_of(cidr)
                if keeper is not None:
                    freed += [keeper.address(ordinal) for ordinal in await keeper.release(handle)]
            self._held.pop(handle, None)
            if cidrs:
                # The addresses are free: nobody needs to wait until the reverse index says so, too.
                self._in_background(self._handles.subtract(handle, cidrs))
            return tuple(freed)

    async def _take(self, handle: str, subject: Subject, choices: Sequence[Choice], secondary: dict):
        """One try at an address of each choice: the Addresses, or None when a block turned out to be unusable."""
        keepers: list[BlockKeeper] = []
        try:
            for choice in choices:
                keepers.append(await self._promise(subject, choice))
            await self._handles.add(handle, [keeper.cidr for keeper in keepers])
        except BaseException:
            for keeper in keepers:
                keeper.promised -= 1
            raise
        results = await asyncio.gather(*(k.assign(handle, secondary) for k in keepers), return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        if not errors:
            return tuple(self._address(k, ordinals[0]) for k, ordinals in zip(keepers, results, strict=True))
        await self._undo(handle, keepers)
        for error in errors:
            if not isinstance(error, BlockUnusableError):
                raise error
        return None

    async def _undo(self, handle: str, keepers: Sequence[BlockKeeper]) -> None:
        """Take back an assignment that failed. What remains is undone by the DEL that the runtime sends."""
        try:
            await asyncio.gather(*(keeper.release(handle) for keeper in keepers))
            await self._handles.subtract(handle, [keeper.cidr for keeper in keepers])
        except Exception as error:
            log.warning("handle %s: an assignment that failed could not be undone: %s", handle, error)

    async def _promise(self, subject: Subject, choice: Choice) -> BlockKeeper:
        """A block of one of the pools, with an address promised to the caller. CniError when there is none."""
        keeper = self._with_room(choice)
        if keeper is None:
            async with self._claiming:
                # Whoever held the lock before may have claimed a block with room for us all.
                keeper = self._with_room(choice) or await self._claim(subject, choice)
        keeper.promised += 1
        return keeper

    def _with_room(self, choice: Choice) -> BlockKeeper | None:
        for pool in choice.pools:
            for cidr, keeper in self._keepers.items():
                if keeper.room > 0 and pool.contains(cidr):
                    return keeper
        return None

    async def _claim(self, subject: Subject, choice: Choice) -> BlockKeeper:
        config = self._cluster.config
        pools = ", ".join(f"{pool.name} ({pool.cidr})" for pool in choice.pools)
        owned = sum(any(pool.contains(cidr) for pool in choice.pools) for cidr in self._keepers)
        asked = f"{subject}: no free address in pools {pools}, asked for by {choice.source}: node {self._node}"
        if not config.auto_allocate_blocks:
            raise CniError(EXHAUSTED, f"{asked} has {owned} full blocks of them, and autoAllocateBlocks is off")
        if owned >= config.blocks_per_node:
            raise CniError(
                EXHAUSTED, f"{asked} has {owned} full blocks of them, the limit (maxBlocksPerHost) being {owned}"
            )
        for pool in choice.pools:
            block = await self._claims.claim(pool)
            if block is not None:
                keeper = self._adopt(block)
                if keeper.room > 0:
                    return keeper
        raise CniError(EXHAUSTED, f"{asked} has {owned} full blocks of them, and every other block is claimed")

    def _reserve_again(self) -> None:
        for keeper in self._keepers.values():
            keeper.update_reserved()

    def _claim_removed(self, affinity: Affinity) -> None:
        """What the block of a removed claim holds stays held, but it gives no new addresses."""
        if affinity.node == self._node and self._keepers.pop(affinity.cidr, None):
            log.warning("the claim on block %s was removed", affinity.cidr)

    def _adopt(self, stored: dict) -> BlockKeeper:
        keeper = self._new_keeper(stored)
        self._keepers[keeper.cidr] = keeper
        for ordinal, attribute in keeper.holders:
            handle = attribute.get("handle_id")
            if handle is not None:
                both = (*self._held.get(handle, ()), self._address(keeper, ordinal))
                self._held[handle] = tuple(sorted(both, key=lambda held: ":" in held.address))
        return keeper

    async def _keeper_of(self, cidr: str) -> BlockKeeper | None:
        """The block's keeper; one for this once when the block is not this node's; None when it does not exist."""
        keeper = self._keepers.get(cidr)
        if keeper is not None:
            return keeper
        try:
            return self._new_keeper(
                await self._cluster.client.get(self._cluster.calico.path("IPAMBlock", cidr_name(cidr)))
            )
        except NotFound:
            return None

    def _new_keeper(self, stored: dict) -> BlockKeeper:
        cluster = self._cluster
        return BlockKeeper(cluster.client, cluster.calico, self._node, stored, cluster.reserved_ordinals)

    def _address(self, keeper: BlockKeeper, ordinal: int) -> Address:
        return Address(keeper.address(ordinal), keeper.cidr, self._cluster.pool_of(keeper.cidr))

    @asynccontextmanager
    async def _turn(self, handle: str):
        """One request per attachment at a time: its DEL, or the same ADD again, may come while an ADD is under way."""
        lock = self._locks.setdefault(handle, asyncio.Lock())
        self._waiting[handle] += 1
        try:
            async with lock:
                yield
        finally:
            self._waiting[handle] -= 1
            if not self._waiting[handle]:
                del self._waiting[handle], self._locks[handle]

    def _in_background(self, work) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task) -> None:
        self._background.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.warning("a handle is left behind: %s", task.exception())


def _timestamp() -> str:
    """Now, in the form in which Calico writes it: Go's default text of a UTC time."""
    now = datetime.now(UTC)
    fraction = f".{now.microsecond:06}".rstrip("0").rstrip(".")
    return f"{now:%Y-%m-%d %H:%M:%S}{fraction} +0000 UTC"
