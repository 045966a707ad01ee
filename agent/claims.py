# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Claiming blocks for this node, and releasing claims.

Source: Calico's claim protocol. An affinity is written as pending, then the block is created, then the affinity is
confirmed. Several nodes may hold a pending affinity for one block; creating the block decides who gets it, and the
others delete theirs. Whoever reads affinities ignores those that are not confirmed.

An empty block is released the other way round: its affinity becomes `pendingDeletion`, the block is deleted, and then
the affinity. Deleting the block as it was read decides, so a block that got an address meanwhile stays. As with Calico
from 3.32 on, a node that finds every block claimed may release another node's claim on an empty one and take it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from .._core.block import Block
from .._core.names import affinity_name, cidr_name, host_affinity, is_deleted, network
from .._core.pool import Pool
from .._core.room import RECLAIM_SECONDS, Seen, is_abandoned, may_lend
from .._kube.errors import AlreadyExists, Conflict, NotFound
from .blocks import WAITS_TO_BE_MENDED, why_broken
from .cluster import Cluster
from .handles import MOST_TRIES, delete_softly

log = logging.getLogger(__name__)


class Found(NamedTuple):
    """What is remembered of a block that was listed: a cluster has thousands, and each is large.

    What it may be good for is read again before it is used. `lends` and `is_abandoned` as in room.py.
    """

    cidr: str
    lends: bool
    is_abandoned: bool
    is_deleted: bool


class Claims:
    """Claims, completes and releases claims. One at a time: the caller holds a lock."""

    def __init__(self, cluster: Cluster, node: str):
        self._listing: list[Found] = []
        self._listed = 0.0
        # The blocks that were broken when they were last read, by name, and in which version.
        self.broken: dict[str, str] = {}
        self._client = cluster.client
        self._calico = cluster.calico
        self._cluster = cluster
        self._node = node

    async def claim(self, pool: Pool, asked: float, own: Iterable[str]) -> dict | None:
        """Claim a free block of the pool and return the stored IPAMBlock, or None when every block is taken.

        Other nodes' blocks are known as of `asked` (monotonic clock, seconds) or later; `own` are this node's. A claim
        of this node on another one is what is left of a try that an error cut short, and is taken up again.
        """
        claims = self._cluster.claims_of_others(self._node)
        confirmed, pending = ({each.cidr for each in claims if each.confirmed == state} for state in (True, False))
        known = set(own)
        # Where other nodes are about to claim a block, this one comes last; but they may have died on the way.
        for avoided in (confirmed | pending, confirmed):
            taken = avoided | known
            for index in pool.block_order(self._node, taken):
                cidr = pool.block_cidr(index)
                block = await self.claim_block(pool, cidr)
                if block is not None:
                    log.info("claimed block %s of pool %s", cidr, pool.name)
                    return block
                # The cache of claims lags behind, or the block is one that nobody has claimed.
                found = await self._blocks_of(pool, asked)
                known.update(each.cidr for each in found if not each.is_deleted)
                taken |= known
        return None

    async def reclaim(self, pool: Pool, asked: float) -> dict | None:
        """Take over an empty block of another node and return the stored IPAMBlock, or None when there is none.

        One that somebody began to delete is deleted first.
        """
        for cidr in [found.cidr for found in await self._blocks_of(pool, asked) if found.is_abandoned]:
            block = await self.read(cidr)
            if block is None or not self.is_sound(block):
                continue
            if self._is_abandoned(block) and await self.release(block):
                owner = block["spec"]["affinity"]
                log.info("the claim of %s on the empty block %s is released", owner, cidr)
                claimed = await self.claim_block(pool, cidr)
                if claimed is not None:
                    return claimed
        return None

    async def lenders(self, pool: Pool, asked: float) -> list[str]:
        """The CIDRs of a pool's blocks that may have addresses to lend, whosever they are; `asked` as in `claim`."""
        return [found.cidr for found in await self._blocks_of(pool, asked) if found.lends]

    async def lender(self, cidr: str) -> dict | None:
        """The IPAMBlock of one of them, None when it has nothing to lend any more."""
        block = await self.read(cidr)
        return block if block is not None and self.is_sound(block) and _lends(block) else None

    async def seen(self, free: Callable[[dict], int]) -> tuple[Seen, ...]:
        """All blocks that there are; `free` tells how many addresses of an IPAMBlock may be given out unasked."""
        since = time.time() - RECLAIM_SECONDS

        def keep(block: dict) -> Seen:
            return Seen.of(block, self._node, since, free(block))

        blocks, _version = await self._client.list(self._calico.path("IPAMBlock"), keep=keep)
        return tuple(blocks)

    async def blocks_held(self) -> list[dict]:
        """The IPAMBlocks, whosever they are, in which this node holds addresses by their attributes."""

        def keep(block: dict) -> dict | None:
            owners = [attribute.get("secondary") or {} for attribute in block["spec"]["attributes"]]
            return block if any(owner.get("node") == self._node for owner in owners) else None

        blocks, _version = await self._client.list(self._calico.path("IPAMBlock"), keep=keep)
        return [block for block in blocks if block is not None]

    async def _blocks_of(self, pool: Pool, asked: float) -> list[Found]:
        """All blocks of a pool, also those that are marked as deleted, but still there.

        In a full cluster, one look at all blocks serves all the pods that were waiting for one.
        """
        if self._listed < asked:
            now = time.monotonic()
            found, _version = await self._client.list(self._calico.path("IPAMBlock"), keep=self._found)
            self._listed, self._listing = now, [each for each in found if each is not None]
        return [found for found in self._listing if pool.contains(found.cidr)]

    def _found(self, block: dict) -> Found | None:
        """None for a block that does not even say which one it is."""
        cidr = block["spec"]["cidr"]
        if not self.is_sound(block):
            return Found(cidr, lends=False, is_abandoned=False, is_deleted=False) if _is_network(cidr) else None
        return Found(cidr, _lends(block), self._is_abandoned(block), is_deleted(block))

    def is_sound(self, block: dict) -> bool:
        """Whether an IPAMBlock can be worked with. One that is broken is reported, once in each version."""
        problem, metadata = why_broken(block["spec"]), block["metadata"]
        name, version = metadata["name"], metadata["resourceVersion"]
        if problem is None:
            self.broken.pop(name, None)
        elif self.broken.get(name) != version:
            self.broken[name] = version
            log.critical("block %s is broken, %s: %s", name, WAITS_TO_BE_MENDED, problem)
        return problem is None

    async def read(self, cidr: str) -> dict | None:
        """The IPAMBlock of a CIDR, None when there is none."""
        try:
            return await self._client.get(self._calico.path("IPAMBlock", cidr_name(cidr)))
        except NotFound:
            return None

    async def release(self, block: dict) -> bool:
        """Release the claim on an empty block, whosever it is, and delete the block.

        False when the block changed since it was read; then its claim stands.
        """
        cidr, owner = block["spec"]["cidr"], block["spec"]["affinity"].removeprefix("host:")
        path = self._affinity_path(cidr, owner)
        try:
            affinity = await self._write_state(path, await self._client.get(path), "pendingDeletion")
        except NotFound:
            affinity = None
        except Conflict:
            return False
        try:
            await delete_softly(self._client, self._calico, self._calico.path("IPAMBlock", cidr_name(cidr)), block)
        except Conflict:
            if affinity is not None:
                await self._tidy(self._write_state(path, affinity, "confirmed"))
            return False
        if affinity is not None:
            await self._tidy(self._delete_affinity(path, affinity))
        return True

    async def complete(self, cidr: str, confirmed: bool) -> dict | None:
        """The block behind a claim of this node, or None when the claim came to nothing.

        A claim that is not confirmed yet is confirmed when the block is ours, and deleted when it is not. As with
        Calico, whoever reads a block that is marked as deleted deletes it. A broken block of ours is left as it is, and
        so is the claim on it.
        """
        block = await self.read(cidr)
        sound = block is not None and self.is_sound(block)
        if block is not None and is_deleted(block):
            path = self._calico.path("IPAMBlock", cidr_name(cidr))
            await self._tidy(delete_softly(self._client, self._calico, path, block))
        elif block is not None and block["spec"].get("affinity") == host_affinity(self._node):
            if not sound:
                return None
            return block if confirmed else await self._confirm(block)
        if not confirmed:
            await self._give_up(cidr)
        return None

    async def _confirm(self, block: dict) -> dict | None:
        """Confirm the claim on a block that is this node's. None when someone who releases it was faster.

        Writing the block, changed in nothing but its sequence number, makes the deletion by such a one fail.
        """
        cidr, spec = block["spec"]["cidr"], block["spec"]
        await self._set_state(cidr, "pending", unless=("confirmed", "", "pending"))
        proof = {**spec, "sequenceNumber": spec.get("sequenceNumber", 0) + 1}
        path = self._calico.path("IPAMBlock", cidr_name(cidr))
        try:
            block = await self._client.replace(path, self._calico.changed(block, proof))
        except (Conflict, NotFound):
            return await self.complete(cidr, confirmed=False)
        await self._set_state(cidr, "confirmed", unless=("confirmed",))
        return block

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
        path = self._affinity_path(cidr, self._node)
        for _try in range(MOST_TRIES):
            try:
                found = await self._client.get(path)
                if is_deleted(found):
                    return False
                if found["spec"]["state"] not in unless:
                    await self._write_state(path, found, state)
                return True
            except Conflict:
                continue
            except NotFound:
                return False
        raise Conflict("PUT", path, 409, "Conflict", f"changed by others {MOST_TRIES} times in a row")

    async def _write_state(self, path: str, affinity: dict, state: str) -> dict:
        return await self._client.replace(path, self._calico.changed(affinity, {**affinity["spec"], "state": state}))

    async def _give_up(self, cidr: str) -> None:
        """Delete this node's affinity of a claim that came to nothing."""
        path = self._affinity_path(cidr, self._node)
        try:
            affinity = await self._client.get(path)
        except NotFound:
            return
        await self._tidy(self._delete_affinity(path, affinity))

    async def _delete_affinity(self, path: str, affinity: dict) -> None:
        await delete_softly(self._client, self._calico, path, affinity, self._calico.affinity_deleted(True))

    @staticmethod
    async def _tidy(write: Awaitable[object]) -> None:
        """Carry out what matters only while nobody else has taken the object in hand."""
        try:
            await write
        except (NotFound, Conflict):
            return

    def _is_abandoned(self, block: dict) -> bool:
        return is_abandoned(block["spec"], self._node, time.time() - RECLAIM_SECONDS)

    def _affinity_path(self, cidr: str, node: str) -> str:
        return self._calico.path("BlockAffinity", affinity_name(node, cidr))


def _lends(block: dict) -> bool:
    return not is_deleted(block) and may_lend(block["spec"])


def _is_network(text: str) -> bool:
    try:
        network(text)
    except ValueError:
        return False
    return True
