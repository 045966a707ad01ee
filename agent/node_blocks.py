# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""The blocks of this node: which one serves a pod, and claiming another one when none has room."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from .._core.assignment import Choice, Subject
from .._core.names import cidr_name
from .._core.pool import Pool
from .._kube.errors import NotFound
from .blocks import BlockKeeper
from .claims import Claims
from .cluster import Affinity, Cluster
from .errors import ALREADY_ASSIGNED, EXHAUSTED, INVALID_CONFIGURATION, TRY_AGAIN_LATER, CniError

log = logging.getLogger(__name__)


class NodeBlocks:
    """Keepers of the blocks that the node has claimed. `on_adopted` is called with each new one of them.

    A freed address rests for `cooldown` seconds.
    """

    def __init__(self, cluster: Cluster, node: str, cooldown: float, on_adopted: Callable[[BlockKeeper], None]):
        self._cluster = cluster
        self._node = node
        self._cooldown = cooldown
        self._on_adopted = on_adopted
        self._claims = Claims(cluster, node)
        self._claiming = asyncio.Lock()
        self._keepers: dict[str, BlockKeeper] = {}

    async def start(self, resting: Iterable[tuple[str, int, float]]) -> None:
        """Take over what the node has claimed. `resting`: (block, ordinal, seconds that are left)."""
        for affinity in self._cluster.claims_of(self._node):
            block = await self._claims.complete(affinity.cidr, affinity.confirmed)
            if block is not None:
                self._adopt(block)
        self._cluster.on_reserved = self._reserve_again
        self._cluster.on_claim_removed = self._claim_removed
        for block, ordinal, seconds in sorted(resting, key=lambda each: each[2]):
            if block in self._keepers:
                # A clock that jumped back must not keep an address for longer than it would have rested at all.
                self._keepers[block].rest([ordinal], min(seconds, self._cooldown))

    def __len__(self) -> int:
        return len(self._keepers)

    @property
    def have_room(self) -> bool:
        return any(keeper.room > 0 for keeper in self._keepers.values())

    def get(self, cidr: str) -> BlockKeeper | None:
        """The keeper of a block of this node."""
        return self._keepers.get(cidr)

    async def promise_all(
        self, subject: Subject, choices: Sequence[Choice | str]
    ) -> list[tuple[BlockKeeper, int | None]]:
        """For each choice, a block with an address promised to the caller; its ordinal where an address is asked for.

        CniError when one of them cannot be had; then nothing is promised.
        """
        promises: list[tuple[BlockKeeper, int | None]] = []
        try:
            for choice in choices:
                if isinstance(choice, str):
                    promises.append(await self._promise_address(subject, choice))
                else:
                    promises.append((await self._promise(subject, choice), None))
        except BaseException:
            for keeper, _ordinal in promises:
                keeper.promised -= 1
            raise
        return promises

    async def _promise(self, subject: Subject, choice: Choice) -> BlockKeeper:
        """A block of one of the pools, with an address promised to the caller. CniError when there is none."""
        keeper = self._with_room(choice)
        if keeper is None:
            async with self._claiming:
                # Whoever held the lock before may have claimed a block with room for us all.
                keeper = self._with_room(choice) or await self._claim_or_wait(subject, choice)
        keeper.promised += 1
        return keeper

    def _with_room(self, choice: Choice) -> BlockKeeper | None:
        for pool in choice.pools:
            for cidr, keeper in self._keepers.items():
                if keeper.room > 0 and pool.contains(cidr):
                    return keeper
        return None

    async def _promise_address(self, subject: Subject, address: str) -> tuple[BlockKeeper, int]:
        """The block and the ordinal of an address that a pod asks for. CniError when it cannot have it.

        Neither selectors nor reservations are looked at, as with Calico: who asks for an address means it.
        """
        pool = self._cluster.pool_of(address)
        asked = f"{subject} asks for address {address}"
        if pool is None:
            raise CniError(INVALID_CONFIGURATION, f"{asked}, which lies in no pool")
        if pool.why_not_usable():
            raise CniError(INVALID_CONFIGURATION, f"{asked} of pool {pool.name}, but {pool.why_not_usable()}")
        block = pool.block_of(address)
        async with self._claiming:
            keeper = self._keepers.get(block) or await self._claim_for(asked, pool, block)
        ordinal = keeper.ordinal(address)
        holder = keeper.holder(ordinal)
        if holder is not None:
            raise CniError(ALREADY_ASSIGNED, f"{asked}, which {holder} holds already")
        keeper.promised += 1
        return keeper, ordinal

    async def _claim_for(self, asked: str, pool: Pool, block: str) -> BlockKeeper:
        stored = await self._claims.claim_block(pool, block)
        if stored is None:
            raise CniError(EXHAUSTED, f"{asked}, but its block {block} belongs to another node than {self._node}")
        return self._adopt(stored)

    async def _claim_or_wait(self, subject: Subject, choice: Choice) -> BlockKeeper:
        try:
            return await self._claim(subject, choice)
        except CniError:
            self._refuse_resting(subject, choice)
            raise

    async def _claim(self, subject: Subject, choice: Choice) -> BlockKeeper:
        config = self._cluster.config
        pools = ", ".join(f"{pool.name} ({pool.cidr})" for pool in choice.pools)
        owned = sum(any(pool.contains(cidr) for pool in choice.pools) for cidr in self._keepers)
        asked = f"{subject}: no free address in pools {pools}, asked for by {choice.source}: node {self._node}"
        if not config.auto_allocate_blocks:
            raise CniError(EXHAUSTED, f"{asked} has {owned} full blocks of them, and autoAllocateBlocks is off")
        if owned >= config.blocks_per_node:
            raise CniError(
                EXHAUSTED,
                f"{asked} has {owned} full blocks of them, the limit (maxBlocksPerHost) being {config.blocks_per_node}",
            )
        for pool in choice.pools:
            block = await self._claims.claim(pool)
            if block is not None:
                keeper = self._adopt(block)
                if keeper.room > 0:
                    return keeper
        raise CniError(EXHAUSTED, f"{asked} has {owned} full blocks of them, and every other block is claimed")

    def _refuse_resting(self, subject: Subject, choice: Choice) -> None:
        """Addresses that only rest come back by themselves: the runtime is told to try again, and when."""
        seconds = [
            keeper.rest_seconds
            for cidr, keeper in self._keepers.items()
            if keeper.rest_seconds is not None and any(pool.contains(cidr) for pool in choice.pools)
        ]
        if seconds:
            pools = ", ".join(pool.name for pool in choice.pools)
            message = f"{subject}: every free address of pools {pools} on node {self._node} was freed a moment ago"
            raise CniError(TRY_AGAIN_LATER, f"{message}; the next one has rested in {min(seconds):.0f} s")

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
        self._on_adopted(keeper)
        return keeper

    async def keepers_of(self, cidrs: Sequence[str]) -> list[BlockKeeper]:
        """The blocks' keepers; those of other nodes' blocks only for this once. Blocks that are gone have none."""
        keepers = []
        for cidr in cidrs:
            keeper = self._keepers.get(cidr)
            if keeper is None:
                try:
                    path = self._cluster.calico.path("IPAMBlock", cidr_name(cidr))
                    keeper = self._new_keeper(await self._cluster.client.get(path))
                except NotFound:
                    continue
            keepers.append(keeper)
        return keepers

    def _new_keeper(self, stored: dict) -> BlockKeeper:
        cluster = self._cluster
        return BlockKeeper(
            cluster.client, cluster.calico, self._node, stored, cluster.reserved_ordinals, self._cooldown
        )
