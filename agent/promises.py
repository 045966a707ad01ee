# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Which block a pod's address comes from. Between that choice and the assignment nobody else counts on the address.

The order is Calico's: a block of this node with room, else a free block of one of the pools, else an empty one of
another node (since Calico 3.32), else, unless affinity is strict, an address borrowed from any block.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from .._core.assignment import Choice, Subject
from .._core.pool import Pool
from .blocks import BlockKeeper
from .cluster import Cluster
from .errors import ALREADY_ASSIGNED, EXHAUSTED, INVALID_CONFIGURATION, CniError
from .node_blocks import NodeBlocks
from .refusals import refuse_all_in_use, refuse_claim, refuse_resting

# Calico's words, its line break included.
_NO_POOL = "The provided IP address is not in a configured pool\n"


@dataclass(frozen=True)
class Promise:
    """An address of a block that is kept for the caller: the one at `ordinal`, or any. Taken back by `withdraw`."""

    keeper: BlockKeeper
    ordinal: int | None = None
    borrowed: bool = False

    @classmethod
    def of(cls, keeper: BlockKeeper, ordinal: int | None = None, borrowed: bool = False) -> Promise:
        keeper.promised += 1
        return cls(keeper, ordinal, borrowed)

    def withdraw(self) -> None:
        self.keeper.promised -= 1


class Promises:
    """Promises addresses out of `blocks`, the node's, of which it gets more where they have none left."""

    def __init__(self, cluster: Cluster, node: str, blocks: NodeBlocks):
        self._cluster = cluster
        self._node = node
        self._blocks = blocks

    async def of_all(self, subject: Subject, choices: Sequence[Choice | str], kept_for: str) -> list[Promise]:
        """For each choice, a promise of an address. CniError when one cannot be had; then nothing is promised.

        `kept_for`: whose kept addresses are for the caller, as in `Keep.pod`; empty for nobody's.
        """
        promises: list[Promise] = []
        try:
            for choice in choices:
                if isinstance(choice, str):
                    promises.append(await self._promise_address(subject, choice, kept_for))
                else:
                    promises.append(self._promise_kept(choice, kept_for) or await self._promise(subject, choice))
                if promises[-1].keeper.is_vacant:
                    self._blocks.spares_concerned.set()
        except BaseException:
            for promise in promises:
                promise.withdraw()
            raise
        return promises

    async def _promise(self, subject: Subject, choice: Choice) -> Promise:
        """An address of a block of one of the pools. CniError when there is none."""
        keeper = self._with_room(choice)
        if keeper is not None:
            return Promise.of(keeper)
        asked = time.monotonic()
        async with self._blocks.claiming:
            # Whoever held the lock before may have claimed a block with room for us all.
            keeper = self._with_room(choice)
            return Promise.of(keeper) if keeper else await self._find_more(subject, choice, asked)

    def _promise_kept(self, choice: Choice, pod: str) -> Promise | None:
        """The address that is kept for the pod, if it still is one of the pod's pools."""
        for keeper in self._blocks if pod else ():
            ordinal = keeper.kept_for(pod) if _serves(choice, keeper) else None
            if ordinal is not None:
                return Promise.of(keeper, ordinal)
        return None

    def _with_room(self, choice: Choice) -> BlockKeeper | None:
        """A block of this node, a spare one only where no other of the pool has room."""
        for pool in choice.pools:
            spare = None
            for keeper in self._blocks:
                if keeper.room > 0 and pool.contains(keeper.cidr):
                    if not keeper.is_pinned:
                        return keeper
                    spare = spare or keeper
            if spare is not None:
                return spare
        return None

    async def _promise_address(self, subject: Subject, address: str, kept_for: str) -> Promise:
        """The very address that a pod asks for. CniError when it cannot have it.

        Neither selectors nor reservations are looked at, as with Calico: who asks for an address means it.
        """
        pool = self._cluster.pool_of(address)
        asked = f"{subject} asks for address {address}"
        if pool is None:
            raise CniError(INVALID_CONFIGURATION, f"{asked}, which lies in no pool", calico=_NO_POOL)
        if pool.why_not_usable():
            message = f"{asked} of pool {pool.name}, but {pool.why_not_usable()}"
            raise CniError(INVALID_CONFIGURATION, message, calico=_NO_POOL)
        block = pool.block_of(address)
        keeper = self._blocks.keeper(block)
        if keeper is None or not keeper.is_this_nodes:
            async with self._blocks.claiming:
                keeper = self._blocks.keeper(block)
                if keeper is None or not keeper.is_this_nodes:
                    keeper = await self._claim_for(asked, pool, block)
        ordinal = keeper.ordinal(address)
        holder = keeper.holder(ordinal)
        if holder is not None:
            message = f"{asked}, which {holder} holds already"
            raise CniError(ALREADY_ASSIGNED, message, calico=f"resource already exists: {address}")
        if keeper.kept(ordinal) not in ("", kept_for):
            raise CniError(ALREADY_ASSIGNED, f"{asked}, which is kept for {keeper.kept(ordinal)}")
        return Promise.of(keeper, ordinal, borrowed=not keeper.is_this_nodes)

    async def _claim_for(self, asked: str, pool: Pool, block: str) -> BlockKeeper:
        """Claim a block for the sake of one address; another node's is borrowed from, unless affinity is strict."""
        keeper = await self._blocks.claim_block(pool, block)
        if keeper is not None:
            return keeper
        self._blocks.refuse_broken(block)
        reason = self._blocks.why_not_borrow
        keepers = [] if reason else await self._blocks.keepers_of([block])
        if not keepers:
            reason = reason or "it was released just now: try again"
            message = f"{asked}, but its block {block} belongs to another node than {self._node}, and {reason}"
            raise CniError(EXHAUSTED, message, calico="Block host affinity does not match")
        return keepers[0]

    async def _find_more(self, subject: Subject, choice: Choice, asked: float) -> Promise:
        """A promise out of a block that this node has to get first, or of another node's block."""
        pools = ", ".join(f"{pool.name} ({pool.cidr})" for pool in choice.pools)
        full = len(self._own(choice))
        refused = (
            f"{subject}: no free address in pools {pools}, asked for by {choice.source}: "
            f"node {self._node} has {full} full blocks of them"
        )
        try:
            refuse_claim(refused, self._cluster.config, full)
            promise = await self._claim(choice, asked) or await self._borrow(choice, asked)
            if promise is None:
                refuse_all_in_use(refused, choice, self._cluster.config, self._blocks.why_not_borrow)
        except CniError:
            # Also those of a block that has just been claimed.
            refuse_resting(subject, choice, self._node, self._own(choice))
            raise
        return promise

    def _own(self, choice: Choice) -> list[BlockKeeper]:
        """This node's blocks of the choice's pools."""
        return [keeper for keeper in self._blocks if keeper.claimed and _serves(choice, keeper)]

    async def _claim(self, choice: Choice, asked: float) -> Promise | None:
        """Claim a block that nobody has, else an empty one of another node."""
        for get in (self._blocks.claim, self._blocks.reclaim):
            for pool in choice.pools:
                keeper = await get(pool, asked)
                if keeper is not None and keeper.room > 0:
                    return Promise.of(keeper)
        return None

    async def _borrow(self, choice: Choice, asked: float) -> Promise | None:
        """An address of a block that is not this node's. Whoever routes, as Calico does, routes it by itself."""
        if self._blocks.why_not_borrow:
            return None
        for pool in choice.pools:
            keeper = await self._blocks.lender(pool, asked)
            if keeper is not None:
                return Promise.of(keeper, borrowed=True)
        return None


def _serves(choice: Choice, keeper: BlockKeeper) -> bool:
    return any(pool.contains(keeper.cidr) for pool in choice.pools)
