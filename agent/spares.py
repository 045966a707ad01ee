# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Spare blocks: claimed ahead and pinned, so that pods beyond the first block can start while the API server is away.

Without it, addresses come only from blocks that it has seen in use (ipam.py), as empty ones are given away: by Calico
from 3.32 on to a node that finds no other, by its controllers after a while. So one address of each spare block, its
pin, is assigned to the node itself. It is freed once pods have addresses of the block, or when the block is spare no
more.

A pin looks like the address of a tunnel: Calico's garbage collection (3.29 to 3.33) leaves such a one alone for as long
as its node exists, and frees it with the node. What is neither a pod's nor a tunnel's it never frees, so that it could
not clean up after the node. `calicoctl ipam check` knows of no tunnels but those that nodes name: it calls pins leaked.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence

from .._core.names import spare_handle
from .._core.pool import Pool
from .._kube.errors import ApiError, Unreachable
from .blocks import BlockKeeper
from .changes import BlockUnusableError
from .cluster import Cluster
from .errors import CniError
from .handles import Handles
from .idle_blocks import look_seconds
from .node_blocks import NodeBlocks
from .promises import Promise

# Calico's types of tunnels, by family.
TUNNEL_TYPES = {4: "vxlanTunnelAddress", 6: "vxlanV6TunnelAddress"}
# Pods come in bursts; one look serves them all.
SETTLE_SECONDS = 0.1
# With one address for the pin, a smaller block would have hardly any left.
SMALLEST_BLOCK = 4

log = logging.getLogger(__name__)


class Spares:
    """Keeps `count` spare blocks of each pool in which the node's blocks serve pods."""

    def __init__(self, cluster: Cluster, node: str, blocks: NodeBlocks, count: int):
        self._cluster = cluster
        self._node = node
        self._blocks = blocks
        self._count = count
        self._handle = spare_handle(node)
        self._handles = Handles(cluster.client, cluster.calico)
        # The blocks that the pins' handle names; None until it has been read.
        self._named: set[str] | None = None

    async def run(self, patience: float) -> None:
        """Keep them until cancelled; `patience` as in IdleBlocks, which gives back what is spare no more."""
        while True:
            self._blocks.spares_concerned.clear()
            try:
                await self._look()
            except (ApiError, Unreachable, CniError) as error:
                log.warning("spare blocks are looked after later: %s", error)
            try:
                async with asyncio.timeout(look_seconds(patience)):
                    await self._blocks.spares_concerned.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(SETTLE_SECONDS)

    async def _look(self) -> None:
        # To wait here for an API server that is away would keep pods from claiming blocks once it is back.
        if self._cluster.locked or self._cluster.client.seconds_away:
            return
        await self._remember()
        by_pool = self._blocks_in_use()
        spare = {pool: self._choose(keepers) for pool, keepers in by_pool.items()}
        await self._unpin_others([keeper for keepers in spare.values() for keeper in keepers])
        for pool, keepers in spare.items():
            for keeper in keepers:
                await self._pin(keeper)
            for _missing in range(self._count - len(keepers)):
                claimed = await self._blocks.claim_ahead(pool)
                if claimed is None:
                    break
                await self._pin(claimed)

    async def _remember(self) -> None:
        """Learn which blocks earlier runs have pinned, of which the claim may have been removed since."""
        if self._named is None:
            named = set(await self._handles.blocks(self._handle))
            await self._blocks.keepers_of(list(named))
            self._named = named

    def _blocks_in_use(self) -> dict[Pool, list[BlockKeeper]]:
        """The node's blocks of each pool that serves it and has given pods addresses of one of them."""
        by_pool = defaultdict(list)
        for keeper in self._blocks:
            if keeper.claimed and not self._blocks.is_out_of_use(keeper.cidr):
                by_pool[self._cluster.pool_of(keeper.cidr)].append(keeper)
        return {
            pool: keepers
            for pool, keepers in by_pool.items()
            if pool.block_addresses >= SMALLEST_BLOCK and not all(keeper.is_vacant for keeper in keepers)
        }

    def _choose(self, keepers: Sequence[BlockKeeper]) -> list[BlockKeeper]:
        """The spare ones of a pool's blocks. Those that are so already stay it, so that pins rarely move."""
        vacant = [keeper for keeper in keepers if keeper.is_vacant]
        return sorted(vacant, key=lambda keeper: not keeper.is_pinned)[: self._count]

    async def _unpin_others(self, spare: Sequence[BlockKeeper]) -> None:
        """Free all other pins, and have the handle name no block that has none."""
        for keeper in self._blocks:
            if keeper.is_pinned and keeper not in spare:
                await keeper.release(self._handle).done
                log.info("block %s is no spare one any more", keeper.cidr)
        pinned = {keeper.cidr for keeper in self._blocks if keeper.is_pinned}
        unpinned = self._named - pinned
        if unpinned:
            await self._handles.remove(self._handle, unpinned)
            self._named -= unpinned
            self._blocks.forget(unpinned)

    async def _pin(self, keeper: BlockKeeper) -> None:
        """Pin a block that is not pinned yet, unless somebody else has got it or its addresses meanwhile."""
        if keeper.is_pinned or keeper.room < 2:
            return
        promise = Promise.of(keeper)
        try:
            await self._handles.ensure(self._handle, [keeper.cidr])
        except BaseException:
            promise.withdraw()
            raise
        self._named.add(keeper.cidr)
        kind = TUNNEL_TYPES[6 if ":" in keeper.cidr else 4]
        attributes = {"node": self._node, "type": kind, "note": "keeps a spare block"}
        try:
            await keeper.assign(self._handle, attributes).done
        except BlockUnusableError as error:
            log.info("no spare block: %s", error)
        else:
            log.info("block %s is a spare one", keeper.cidr)
