# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Blocks that stand empty go back, so that other nodes may have them."""

from __future__ import annotations

import asyncio
import logging
import time

from .._kube.errors import ApiError, Unreachable
from .blocks import BlockKeeper
from .cluster import Cluster
from .node_blocks import NodeBlocks

SHORTEST_LOOK_SECONDS = 0.2
LONGEST_LOOK_SECONDS = 60.0
# As long as Calico's garbage collector leaves an empty block to its node.
KEEP_BLOCKS_SECONDS = 900.0

log = logging.getLogger(__name__)


class IdleBlocks:
    """Releases the claims on blocks that stand empty: at once where their pool does not serve this node any more.

    Of a pool that does, one is kept, and each other one for `patience` seconds.
    """

    def __init__(self, cluster: Cluster, blocks: NodeBlocks, patience: float):
        self._cluster = cluster
        self._blocks = blocks
        self._patience = patience
        # Since when each block has stood empty, in seconds of the monotonic clock.
        self._since: dict[str, float] = {}

    async def run(self) -> None:
        """Look for them from time to time until cancelled."""
        while True:
            await asyncio.sleep(look_seconds(self._patience))
            try:
                await self.give_back()
            except (ApiError, Unreachable) as error:
                log.warning("empty blocks are given back later: %s", error)

    async def give_back(self) -> None:
        """Release what has been empty for long enough by now."""
        idle = [keeper for keeper in self._blocks if keeper.claimed and keeper.is_idle]
        now = time.monotonic()
        self._since = {keeper.cidr: self._since.get(keeper.cidr, now) for keeper in idle}
        for keeper in idle:
            kept_long_enough = now - self._since[keeper.cidr] >= self._patience
            if self._blocks.is_out_of_use(keeper.cidr) or (kept_long_enough and self._has_alternative(keeper)):
                await self._blocks.give_back(keeper)

    def _has_alternative(self, keeper: BlockKeeper) -> bool:
        pool = self._cluster.pool_of(keeper.cidr)
        return any(other is not keeper and other.room > 0 and pool.contains(other.cidr) for other in self._blocks)


def look_seconds(patience: float) -> float:
    """The time between two looks at the node's blocks, so that one that is empty goes soon after `patience` seconds."""
    return min(max(patience / 2, SHORTEST_LOOK_SECONDS), LONGEST_LOOK_SECONDS)
