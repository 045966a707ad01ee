# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""The blocks that this node draws from: which one serves a pod, and what to do when none has room.

The order is Calico's: a block of this node with room, else a free block of one of the pools, else an empty one of
another node (since Calico 3.32), else, unless affinity is strict, an address borrowed from any block.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from .._core.assignment import LONGEST_STICKY_SECONDS, Choice, Subject
from .._core.names import cidr_name, is_deleted
from .._core.pool import Pool
from .._core.room import ROUTES, STRICT, View, holder
from .._kube.errors import ApiError, NotFound, Unreachable
from .blocks import BlockKeeper
from .claims import Claims
from .cluster import Affinity, Cluster
from .errors import ALREADY_ASSIGNED, EXHAUSTED, INVALID_CONFIGURATION, CniError
from .promises import Promise
from .refusals import refuse_all_in_use, refuse_claim, refuse_resting
from .resting import Keep

log = logging.getLogger(__name__)


# How long a claim of this node may stand unconfirmed before it is settled: whoever releases it needs a moment.
CLAIM_SETTLE_SECONDS = 5.0
# Calico's words, its line break included.
_NO_POOL = "The provided IP address is not in a configured pool\n"


class NodeBlocks:
    """Keepers of the blocks that the node has claimed, and of others in which it holds addresses.

    `on_adopted` is called with each new keeper, `on_renewed` with that of a block that was deleted and is there again.
    A freed address rests for `cooldown` seconds. `routes` says whether the agent routes blocks by itself.
    """

    def __init__(
        self,
        cluster: Cluster,
        node: str,
        cooldown: float,
        routes: bool,
        on_adopted: Callable[[BlockKeeper], None],
        on_renewed: Callable[[BlockKeeper], None],
    ):
        self._cluster = cluster
        self._routes = routes
        self._node = node
        self._cooldown = cooldown
        self._on_adopted = on_adopted
        self._on_renewed = on_renewed
        self._claims = Claims(cluster, node)
        self._claiming = asyncio.Lock()
        # Set whenever something happened after which there may be too few or too many spare blocks.
        self.spares_concerned = asyncio.Event()
        self._keepers: dict[str, BlockKeeper] = {}
        self._settling: set[asyncio.Task] = set()

    async def start(self, resting: Iterable[tuple[str, int, Keep]]) -> None:
        """Take over what the node has claimed. `resting`: (block, ordinal, for whom and for how long)."""
        claims = self._cluster.claims_of(self._node)
        blocks = await asyncio.gather(*(self._claims.complete(claim.cidr, claim.confirmed) for claim in claims))
        for block in blocks:
            if block is not None:
                self._adopt(block)
        self._cluster.on_reserved = self._reserve_again
        self._cluster.on_claim_changed = self._claim_changed
        for block, ordinal, keep in resting:
            if block in self._keepers:
                # A clock that jumped back must not keep an address for longer than it would have rested at all.
                longest = LONGEST_STICKY_SECONDS if keep.pod else self._cooldown
                self._keepers[block].rest([ordinal], min(keep.seconds, longest), keep.pod)

    async def find_borrowed(self) -> None:
        """Adopt every block in which this node holds addresses: for a node that has no record of its own."""
        for block in await self._claims.blocks_held():
            if block["spec"]["cidr"] not in self._keepers and not is_deleted(block):
                self._on_adopted(self._known(block))

    def __len__(self) -> int:
        return sum(keeper.claimed for keeper in self._keepers.values())

    def __iter__(self) -> Iterator[BlockKeeper]:
        return iter(list(self._keepers.values()))

    async def view(self, asked: Sequence[str]) -> View:
        """What decides from which pool a pod gets an address now; `asked`: the very addresses that it asks for.

        Reads all blocks, as an ADD does that finds no room in the node's own.
        """
        reserved, holders = self._cluster.reserved_ordinals, {}
        homes = {address: pool.block_of(address) for address in asked if (pool := self._cluster.pool_of(address))}

        def free(block: dict) -> int:
            cidr = block["spec"]["cidr"]
            keeper = self._keepers.get(cidr)
            if keeper is not None and not keeper.claimed:
                keeper.refresh(block)
            for address in (address for address, home in homes.items() if home == cidr):
                holders[address] = keeper.holder(keeper.ordinal(address)) if keeper else holder(block["spec"], address)
            return keeper.lendable if keeper else len(set(block["spec"]["unallocated"]) - reserved(cidr))

        blocks = await self._claims.seen(free)
        claims, config = self._cluster.claims_of_others(self._node), self._cluster.config
        return View(
            node=self._node,
            own={cidr: keeper.room for cidr, keeper in self._keepers.items() if keeper.claimed},
            blocks=blocks,
            confirmed=frozenset(each.cidr for each in claims if each.confirmed),
            pending=frozenset(each.cidr for each in claims if not each.confirmed),
            reserved=lambda cidr: len(reserved(cidr)),
            why_not_borrow=self._why_not_borrow,
            auto_allocate_blocks=config.auto_allocate_blocks,
            blocks_per_node=config.blocks_per_node,
            holders=holders,
        )

    @property
    def have_room(self) -> bool:
        return any(keeper.room > 0 for keeper in self._keepers.values())

    async def promise_all(self, subject: Subject, choices: Sequence[Choice | str], kept_for: str) -> list[Promise]:
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
                    self.spares_concerned.set()
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
        async with self._claiming:
            # Whoever held the lock before may have claimed a block with room for us all.
            keeper = self._with_room(choice)
            return Promise.of(keeper) if keeper else await self._find_more(subject, choice, asked)

    def _promise_kept(self, choice: Choice, pod: str) -> Promise | None:
        """The address that is kept for the pod, if it still is one of the pod's pools."""
        for cidr, keeper in self._keepers.items() if pod else ():
            ordinal = keeper.kept_for(pod) if _serves(choice, cidr) else None
            if ordinal is not None:
                return Promise.of(keeper, ordinal)
        return None

    def _with_room(self, choice: Choice) -> BlockKeeper | None:
        """A block of this node, a spare one only where no other of the pool has room."""
        for pool in choice.pools:
            spare = None
            for cidr, keeper in self._keepers.items():
                if keeper.room > 0 and pool.contains(cidr):
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
        keeper = self._keepers.get(block)
        if keeper is None or not keeper.is_this_nodes:
            async with self._claiming:
                keeper = self._keepers.get(block)
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
        stored = await self._claims.claim_block(pool, block)
        if stored is not None:
            return self._adopt(stored)
        reason = self._why_not_borrow
        keepers = [] if reason else await self.keepers_of([block])
        if not keepers:
            reason = reason or "it was released just now: try again"
            message = f"{asked}, but its block {block} belongs to another node than {self._node}, and {reason}"
            raise CniError(EXHAUSTED, message, calico="Block host affinity does not match")
        return keepers[0]

    async def take(self, address: str) -> BlockKeeper | None:
        """The keeper of an address's block, which is claimed if it is free; None when the address lies in no pool."""
        pool = self._cluster.pool_of(address)
        if pool is None:
            return None
        block = pool.block_of(address)
        async with self._claiming:
            if block not in self._keepers:
                stored = await self._claims.claim_block(pool, block)
                if stored is not None:
                    return self._adopt(stored)
        return next(iter(await self.keepers_of([block])), None)

    async def claim_ahead(self, pool: Pool) -> BlockKeeper | None:
        """Claim one more free block of a pool. None when there is none, or when the configuration forbids it.

        Pods may ask for several pools at once, and maxBlocksPerHost counts the blocks of all of them: here, those of
        all pools of the family.
        """
        async with self._claiming:
            own = [cidr for cidr, keeper in self._keepers.items() if keeper.claimed]
            of_family = sum((":" in cidr) == (pool.family == 6) for cidr in own)
            config = self._cluster.config
            if not config.auto_allocate_blocks or of_family >= config.blocks_per_node:
                return None
            block = await self._claims.claim(pool, time.monotonic(), own)
            return self._adopt(block) if block is not None else None

    async def _find_more(self, subject: Subject, choice: Choice, asked: float) -> Promise:
        """A promise out of a block that this node has to get first, or of another node's block."""
        pools = ", ".join(f"{pool.name} ({pool.cidr})" for pool in choice.pools)
        owned = sum(keeper.claimed and _serves(choice, cidr) for cidr, keeper in self._keepers.items())
        refused = (
            f"{subject}: no free address in pools {pools}, asked for by {choice.source}: "
            f"node {self._node} has {owned} full blocks of them"
        )
        try:
            refuse_claim(refused, self._cluster.config, owned)
            promise = await self._claim(choice, asked) or await self._borrow(choice, asked)
            if promise is None:
                refuse_all_in_use(refused, choice, self._cluster.config, self._why_not_borrow)
        except CniError:
            own = (keeper for cidr, keeper in self._keepers.items() if keeper.claimed and _serves(choice, cidr))
            refuse_resting(subject, choice, self._node, own)
            raise
        return promise

    @property
    def _why_not_borrow(self) -> str | None:
        if self._cluster.config.strict_affinity:
            return STRICT
        if self._routes:
            return ROUTES
        return None

    async def _claim(self, choice: Choice, asked: float) -> Promise | None:
        """Claim a block that nobody has, else an empty one of another node."""
        own = [cidr for cidr, keeper in self._keepers.items() if keeper.claimed]
        for get in (partial(self._claims.claim, own=own), self._claims.reclaim):
            for pool in choice.pools:
                block = await get(pool, asked)
                if block is None:
                    continue
                keeper = self._adopt(block)
                if keeper.room > 0:
                    return Promise.of(keeper)
        return None

    async def _borrow(self, choice: Choice, asked: float) -> Promise | None:
        """An address of a block that is not this node's. Whoever routes, as Calico does, routes it by itself."""
        if self._why_not_borrow:
            return None
        for pool in choice.pools:
            for block in await self._claims.lenders(pool, asked):
                keeper = self._known(block)
                if keeper.lendable > 0:
                    return Promise.of(keeper, borrowed=True)
                self.forget([keeper.cidr])
        return None

    def _reserve_again(self) -> None:
        self.spares_concerned.set()
        for keeper in self._keepers.values():
            keeper.update_reserved()

    def _claim_changed(self, old: Affinity | None, new: Affinity | None) -> None:
        """What the block of a removed claim holds stays held, but it gives no new addresses."""
        cidr, node = (new or old).cidr, (new or old).node
        keeper = self._keepers.get(cidr) if node == self._node else None
        before, after = (each is not None and each.confirmed for each in (old, new))
        if keeper is None or before == after:
            return
        keeper.claimed = after
        self.spares_concerned.set()
        if not after:
            log.warning("the claim on block %s was removed", cidr)
        if new is None:
            self.forget([cidr])
        elif not after:
            task = asyncio.get_running_loop().create_task(self._settle(cidr))
            self._settling.add(task)
            task.add_done_callback(self._settling.discard)

    async def _settle(self, cidr: str) -> None:
        """A claim that someone began to release, and did not finish to, is confirmed again."""
        await asyncio.sleep(CLAIM_SETTLE_SECONDS)
        async with self._claiming:
            keeper = self._keepers.get(cidr)
            claims = {affinity.cidr: affinity.confirmed for affinity in self._cluster.claims_of(self._node)}
            if keeper is not None and claims.get(cidr) is False:
                try:
                    keeper.claimed = await self._claims.complete(cidr, confirmed=False) is not None
                except (ApiError, Unreachable) as error:
                    log.warning("the claim on block %s stays unconfirmed: %s", cidr, error)

    async def give_back(self, keeper: BlockKeeper) -> None:
        """Release the claim on a block if it is idle, and stays so."""
        async with self._claiming:
            if not keeper.is_idle:
                return
            # Nothing is promised from here on. Others may still borrow, and then the claim stands.
            keeper.claimed = False
            try:
                released = await self._claims.release(keeper.stored)
            except BaseException:
                keeper.claimed = True
                raise
            if released:
                self.forget([keeper.cidr])
                log.info("the claim on the empty block %s is released", keeper.cidr)
            else:
                keeper.claimed = True
                path = self._cluster.calico.path("IPAMBlock", cidr_name(keeper.cidr))
                keeper.refresh(await self._cluster.client.get(path))

    def is_out_of_use(self, cidr: str) -> bool:
        """Whether the block's pool gives this node nothing unasked. Calico looks at the node selector alone."""
        pool = self._cluster.pool_of(cidr)
        return (
            pool is None or pool.why_not_usable() is not None or not pool.selects_node(self._cluster.labels(self._node))
        )

    def _adopt(self, stored: dict) -> BlockKeeper:
        """Take over a block that this node has claimed."""
        keeper = self._known(stored)
        keeper.claimed = True
        self._on_adopted(keeper)
        return keeper

    def _known(self, stored: dict) -> BlockKeeper:
        """The keeper of a block that was just read."""
        cidr = stored["spec"]["cidr"]
        keeper = self._keepers.get(cidr)
        if keeper is None:
            keeper = self._keepers[cidr] = self._new_keeper(stored)
        else:
            keeper.refresh(stored)
        return keeper

    async def keepers_of(self, cidrs: Sequence[str]) -> list[BlockKeeper]:
        """The blocks' keepers. Blocks that are gone have none."""
        keepers = []
        for cidr in cidrs:
            keeper = self._keepers.get(cidr)
            if keeper is None:
                try:
                    path = self._cluster.calico.path("IPAMBlock", cidr_name(cidr))
                    stored = await self._cluster.client.get(path)
                except NotFound:
                    continue
                keeper = self._known(stored)
            keepers.append(keeper)
        return keepers

    def forget(self, cidrs: Iterable[str]) -> None:
        """Drop the keepers of those blocks that are not this node's and of which it holds nothing any more."""
        for cidr in cidrs:
            keeper = self._keepers.get(cidr)
            if keeper is not None and not keeper.claimed and not keeper.concerns_node:
                del self._keepers[cidr]

    def _new_keeper(self, stored: dict) -> BlockKeeper:
        cluster = self._cluster
        return BlockKeeper(
            cluster.client,
            cluster.calico,
            self._node,
            stored,
            cluster.reserved_ordinals,
            self._cooldown,
            self._renew,
            self._on_renewed,
        )

    async def _renew(self, cidr: str) -> dict | None:
        """Claim a block once more that somebody has deleted, and return it, or the one that another node has made.

        None without a pool that has such a block. NotFound when others are about to do something with the claim.
        """
        pool = self._cluster.pool_of(cidr)
        if pool is None or pool.block_of(cidr.partition("/")[0]) != cidr:
            return None
        log.error("block %s, which this node has claimed, was deleted: it is made anew", cidr)
        async with self._claiming:
            path = self._cluster.calico.path("IPAMBlock", cidr_name(cidr))
            return await self._claims.claim_block(pool, cidr) or await self._cluster.client.get(path)


def _serves(choice: Choice, cidr: str) -> bool:
    return any(pool.contains(cidr) for pool in choice.pools)
