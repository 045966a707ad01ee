# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""The blocks that this node draws from: getting them, following what others do to them, and giving them back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from .._core.assignment import LONGEST_STICKY_SECONDS
from .._core.names import cidr_name, is_deleted
from .._core.pool import Pool
from .._core.room import ROUTES, STRICT, View, holder
from .._kube.errors import ApiError, Unreachable
from .backoff import Backoff
from .blocks import WAITS_TO_BE_MENDED, BlockKeeper
from .claims import Claims
from .cluster import Affinity, Cluster
from .errors import TRY_AGAIN_LATER, CniError
from .resting import Keep

log = logging.getLogger(__name__)


# How long a claim of this node may stand unconfirmed before it is settled: whoever releases it needs a moment.
CLAIM_SETTLE_SECONDS = 5.0


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
        # Who claims or releases a block holds it.
        self.claiming = asyncio.Lock()
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
        # What befell the claims while their blocks were read.
        present = {claim.cidr: claim for claim in self._cluster.claims_of(self._node)}
        for claim in claims:
            self._claim_changed(claim, present.get(claim.cidr))
        for block, ordinal, keep in resting:
            if block in self._keepers:
                # A clock that jumped back must not keep an address for longer than it would have rested at all.
                longest = LONGEST_STICKY_SECONDS if keep.pod else self._cooldown
                self._keepers[block].rest([ordinal], min(keep.seconds, longest), keep.pod)

    async def find_borrowed(self) -> None:
        """Adopt every block in which this node holds addresses: for a node that has no record of its own."""
        for block in await self._claims.blocks_held():
            if block["spec"]["cidr"] in self._keepers or is_deleted(block):
                continue
            keeper = self._known(block)
            if keeper is not None:
                self._on_adopted(keeper)

    def __len__(self) -> int:
        return sum(keeper.claimed for keeper in self._keepers.values())

    def __iter__(self) -> Iterator[BlockKeeper]:
        return iter(list(self._keepers.values()))

    def keeper(self, cidr: str) -> BlockKeeper | None:
        """The keeper of a block, if the block is known here."""
        return self._keepers.get(cidr)

    async def view(self, asked: Sequence[str]) -> View:
        """What decides from which pool a pod gets an address now; `asked`: the very addresses that it asks for.

        Reads all blocks, as an ADD does that finds no room in the node's own.
        """
        reserved, holders = self._cluster.reserved_ordinals, {}
        homes = {address: pool.block_of(address) for address in asked if (pool := self._cluster.pool_of(address))}

        def free(block: dict) -> int:
            cidr = block["spec"]["cidr"]
            keeper = self._keepers.get(cidr)
            if not self._claims.is_sound(block):
                return 0
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
            why_not_borrow=self.why_not_borrow,
            auto_allocate_blocks=config.auto_allocate_blocks,
            blocks_per_node=config.blocks_per_node,
            holders=holders,
        )

    async def claim_block(self, pool: Pool, cidr: str) -> BlockKeeper | None:
        """Claim this very block, None when another node has it. Here as below, the caller holds `claiming`."""
        return self._adopted(await self._claims.claim_block(pool, cidr))

    async def claim(self, pool: Pool, asked: float) -> BlockKeeper | None:
        """Claim a free block of the pool; `asked` and None as in Claims.claim."""
        own = [keeper.cidr for keeper in self if keeper.claimed]
        return self._adopted(await self._claims.claim(pool, asked, own))

    async def reclaim(self, pool: Pool, asked: float) -> BlockKeeper | None:
        """Take over an empty block of another node, None when there is none."""
        return self._adopted(await self._claims.reclaim(pool, asked))

    async def lender(self, pool: Pool, asked: float) -> BlockKeeper | None:
        """A block, whosever it is, of which an address may be borrowed; None when there is none."""
        for cidr in await self._claims.lenders(pool, asked):
            stored = await self._claims.lender(cidr)
            keeper = self._known(stored) if stored else None
            if keeper is not None and keeper.lendable > 0:
                return keeper
            self.forget([cidr])
        return None

    async def take(self, address: str) -> BlockKeeper | None:
        """The keeper of an address's block, which is claimed if it is free; None when the address lies in no pool."""
        pool = self._cluster.pool_of(address)
        if pool is None:
            return None
        block = pool.block_of(address)
        claimed = None
        if block not in self._keepers:
            async with self.claiming:
                claimed = None if block in self._keepers else await self.claim_block(pool, block)
        return claimed or next(iter(await self.keepers_of([block])), None)

    async def claim_ahead(self, pool: Pool) -> BlockKeeper | None:
        """Claim one more free block of a pool. None when there is none, or when the configuration forbids it.

        Pods may ask for several pools at once, and maxBlocksPerHost counts the blocks of all of them: here, those of
        all pools of the family.
        """
        async with self.claiming:
            of_family = sum(keeper.claimed and (":" in keeper.cidr) == (pool.family == 6) for keeper in self)
            config = self._cluster.config
            if not config.auto_allocate_blocks or of_family >= config.blocks_per_node:
                return None
            return await self.claim(pool, time.monotonic())

    @property
    def why_not_borrow(self) -> str | None:
        """Why this node may not have addresses of others' blocks; None when it may."""
        if self._cluster.config.strict_affinity:
            return STRICT
        if self._routes:
            return ROUTES
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
        backoff = Backoff()
        while True:
            try:
                await self._settle_now(cidr)
            except (ApiError, Unreachable) as error:
                log.warning("the claim on block %s stays unconfirmed for now: %s", cidr, error)
                await backoff.pause(error.retry_after)
            else:
                return self.forget([cidr])

    async def _settle_now(self, cidr: str) -> None:
        async with self.claiming:
            keeper = self._keepers.get(cidr)
            claims = {affinity.cidr: affinity.confirmed for affinity in self._cluster.claims_of(self._node)}
            if keeper is not None and claims.get(cidr) is False:
                keeper.claimed = await self._claims.complete(cidr, confirmed=False) is not None

    async def give_back(self, keeper: BlockKeeper) -> None:
        """Release the claim on a block if it is idle, and stays so."""
        async with self.claiming:
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

    def _adopted(self, stored: dict | None) -> BlockKeeper | None:
        return None if stored is None else self._adopt(stored)

    def _adopt(self, stored: dict) -> BlockKeeper | None:
        """Take over a block that this node has claimed. None where it is broken."""
        keeper = self._known(stored)
        if keeper is not None:
            keeper.claimed = True
            self._on_adopted(keeper)
        return keeper

    def _known(self, stored: dict) -> BlockKeeper | None:
        """The keeper of a block that was just read. None where it is broken: it is left out."""
        cidr = stored["spec"]["cidr"]
        keeper = self._keepers.get(cidr)
        if keeper is not None:
            keeper.refresh(stored)
        elif self._claims.is_sound(stored):
            keeper = self._keepers[cidr] = self._new_keeper(stored)
        return None if keeper is None or keeper.is_broken else keeper

    async def keepers_of(self, cidrs: Sequence[str]) -> list[BlockKeeper]:
        """The blocks' keepers. Blocks that are gone have none. CniError, to try again, where one is broken."""
        keepers = []
        for cidr in cidrs:
            keeper = self._keepers.get(cidr)
            if keeper is None:
                stored = await self._claims.read(cidr)
                if stored is None:
                    continue
                keeper = self._known(stored)
            if keeper is None:
                raise _broken(cidr)
            keepers.append(keeper)
        return keepers

    def refuse_broken(self, cidr: str) -> None:
        """CniError, to try again, where a block that could not be claimed just now is broken."""
        if cidr_name(cidr) in self._claims.broken:
            raise _broken(cidr)

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
        async with self.claiming:
            path = self._cluster.calico.path("IPAMBlock", cidr_name(cidr))
            return await self._claims.claim_block(pool, cidr) or await self._cluster.client.get(path)


def _broken(cidr: str) -> CniError:
    return CniError(TRY_AGAIN_LATER, f"block {cidr} is broken, {WAITS_TO_BE_MENDED}")
