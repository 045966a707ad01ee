# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Claiming blocks for this node.

Source: Calico's claim protocol. An affinity is written as pending, then the block is created, then the affinity is
confirmed. Several nodes may hold a pending affinity for one block; creating the block decides who gets it, and the
others delete theirs. Whoever reads affinities ignores those that are not confirmed.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

from .._core.block import Block
from .._core.names import affinity_name, cidr_name, host_affinity, is_deleted
from .._core.pool import Pool
from .._kube.errors import AlreadyExists, Conflict, NotFound
from .cluster import Cluster
from .handles import MOST_TRIES, delete_softly

log = logging.getLogger(__name__)


class Claims:
    """Claims and completes claims of one node. One claim at a time: the caller holds a lock."""

    def __init__(self, cluster: Cluster, node: str):
        self._client = cluster.client
        self._calico = cluster.calico
        self._cluster = cluster
        self._node = node

    async def claim(self, pool: Pool) -> dict | None:
        """Claim a free block of the pool and return the stored IPAMBlock, or None when every block is taken."""
        # The cache of claims may lag behind; the order then simply goes on to the next block.
        for index in pool.block_order(self._node, self._cluster.claimed_cidrs()):
            cidr = pool.block_cidr(index)
            block = await self.claim_block(pool, cidr)
            if block is not None:
                log.info("claimed block %s of pool %s", cidr, pool.name)
                return block
        return None

    async def complete(self, cidr: str, confirmed: bool) -> dict | None:
        """The block behind a claim of this node, or None when the claim came to nothing.

        A claim that is not confirmed yet is confirmed when the block is ours, and deleted when it is not.
        """
        try:
            block = await self._client.get(self._calico.path("IPAMBlock", cidr_name(cidr)))
        except NotFound:
            block = None
        if block is not None and not is_deleted(block) and block["spec"].get("affinity") == host_affinity(self._node):
            if not confirmed:
                await self._set_state(cidr, "confirmed", unless=("confirmed",))
            return block
        if not confirmed:
            await self._give_up(cidr)
        return None

    async def claim_block(self, pool: Pool, cidr: str) -> dict | None:
        """Claim this very block and return the stored IPAMBlock, or None when another node has it."""
        if not await self._announce(cidr):
            return None
        spec = Block.empty(
            cidr,
            pool.block_addresses,
            host_affinity(self._node),
            time.time_ns(),
            datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        ).spec()
        try:
            block = await self._client.create(
                self._calico.path("IPAMBlock"), self._calico.new("IPAMBlock", cidr_name(cidr), spec)
            )
        except AlreadyExists:
            return await self.complete(cidr, confirmed=False)
        await self._set_state(cidr, "confirmed", unless=("confirmed",))
        return block

    async def _announce(self, cidr: str) -> bool:
        """Write the pending affinity. False when an older claim of this node on the block is being deleted."""
        affinity = self._calico.new_affinity(self._node, cidr, "pending")
        try:
            await self._client.create(self._calico.path("BlockAffinity"), affinity)
            return True
        except AlreadyExists:
            return await self._set_state(cidr, "pending", unless=("confirmed", "", "pending"))

    async def _set_state(self, cidr: str, state: str, unless: tuple[str, ...]) -> bool:
        """Bring the affinity into `state` unless it is in one of `unless`. False when it was deleted meanwhile."""
        path = self._affinity_path(cidr)
        for _try in range(MOST_TRIES):
            try:
                found = await self._client.get(path)
                if is_deleted(found):
                    return False
                if found["spec"]["state"] not in unless:
                    await self._client.replace(path, self._calico.changed(found, {**found["spec"], "state": state}))
                return True
            except Conflict:
                continue
            except NotFound:
                return False
        raise RuntimeError(f"affinity {path}: changed by others {MOST_TRIES} times in a row")

    async def _give_up(self, cidr: str) -> None:
        """Delete the affinity of a claim that another node won."""
        path = self._affinity_path(cidr)
        try:
            found = await self._client.get(path)
            await delete_softly(self._client, self._calico, path, found, self._calico.affinity_deleted(True))
        except (NotFound, Conflict):
            return

    def _affinity_path(self, cidr: str) -> str:
        return self._calico.path("BlockAffinity", affinity_name(self._node, cidr))
