# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Giving addresses to attachments and taking them back.

An assignment is answered when it can neither be lost nor given twice:

- *written through*: the handle and the block are stored at the API server;
- *local first*: the address is recorded in the node's own store, and the API server follows. Only where nobody else can
  take the address meanwhile: strict affinity, the block is this node's, and the API server has seen it in use.

A release is always local first: until the API server knows, the address merely stays taken for the others. Pools,
selectors and annotations come from the watch caches and blocks are in memory, so nothing is read on the way.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from itertools import groupby

from .._core.assignment import Choice, Subject, choose
from .attachments import (
    ALREADY_HELD,
    LOCAL_FIRST,
    NOTHING_HELD,
    WRITTEN_THROUGH,
    Address,
    Attachment,
    Outcome,
    by_family,
    timestamp,
)
from .blocks import BlockKeeper
from .changes import BlockUnusableError, Change
from .cluster import Cluster
from .errors import ALREADY_ASSIGNED, INVALID_CONFIGURATION, TRY_AGAIN_LATER, CniError
from .handles import Handles
from .mirror import Mirror
from .newcomers import Newcomers
from .node_blocks import NodeBlocks
from .promises import Promise, Promises
from .recording import Recording
from .resting import FOR_NOBODY, Keep
from .running import Records
from .store import RELEASED, Row, Store

# Each try takes blocks that had room a moment ago; losing this often means that something else is wrong.
MOST_TRIES = 10
LOCKED = (
    "Calico is currently not ready to process requests: ClusterInformation default has datastoreReady false,"
    " which `calicoctl datastore migrate unlock` sets true"
)

log = logging.getLogger(__name__)


class Ipam:
    """The addresses of one node."""

    def __init__(self, cluster: Cluster, node: str, store: Store, cooldown: float, routes: bool):
        self._cluster = cluster
        self._node = node
        self._store = store
        self.recording = Recording(store, cooldown)
        self._handles = Handles(cluster.client, cluster.calico)
        self._routes = routes
        self.blocks = NodeBlocks(cluster, node, cooldown, routes, self._note_holders, self._restore_held)
        self._promises = Promises(cluster, node, self.blocks)
        self._held: dict[str, Attachment] = {}
        # The blocks that were broken when something recorded of them was to be applied.
        self._unread: set[str] = set()
        self._locks: dict[str, asyncio.Lock] = {}
        self._waiting: Counter[str] = Counter()
        self._mirror = Mirror(cluster.client)

    async def start(self, records: Records) -> None:
        """Take over the blocks that this node has claimed, and finish what an earlier run did not get to store.

        What runs by the runtime's own `records` and is known to nobody else is held from here on, too (newcomers.py).
        Where the network's name is not known, it counts at the first start only. The watch caches must be complete.
        """
        self._newcomers = Newcomers(self._cluster, self._node, self.blocks, records, self.holding, self._hold_found)
        await self.blocks.start(self._store.resting())
        is_new = self._store.is_new
        if is_new:
            await self.blocks.find_borrowed()
        for handle, rows in groupby(list(self._store.rows()), key=lambda row: row.handle):
            await self._recover(handle, list(rows))
        taken = await self._newcomers.take_over_all() if records.network or is_new else []
        if is_new:
            await self._end_first_start(taken)
        log.info("%s blocks with %s attachments", len(self.blocks), len(self._held))

    async def _end_first_start(self, taken: Sequence[asyncio.Future]) -> None:
        """Let the next run look no more for what this one has found: the blocks of this node and the store have it."""
        # Of two addresses of an attachment in a block, the store has one.
        await asyncio.gather(*taken, return_exceptions=True)
        claimed = {keeper.cidr for keeper in self.blocks if keeper.claimed}
        for handle, attachment in list(self._held.items()):
            if not claimed.issuperset(address.block for address in attachment.addresses):
                self.recording.hold(handle, attachment)
        self.recording.end_first_start()

    def why_unable(self) -> str | None:
        """Why no pod can get an address now, as far as that is known without asking anyone; None when some can."""
        if self._cluster.locked:
            return LOCKED
        pools = [pool for pool in self._cluster.pools if pool.why_not_usable() is None]
        if not pools:
            return "there is no enabled IP pool for workloads"
        away, alone = self._cluster.client.seconds_away, self._why_not_alone()
        if away and alone:
            return f"{self._cluster.client.name} has not answered for {away:.0f} s, and {alone}"
        return None

    def _why_not_alone(self) -> str | None:
        """Why no pod gets an address while the API server is away; None when some do."""
        if self.recording.behind:
            return "the node's store cannot be written"
        whys = {keeper.cidr: self.why_written_through(keeper) for keeper in self.blocks if keeper.room > 0}
        if not whys:
            return f"no block of node {self._node} has room"
        if None in whys.values():
            return None
        cidr, why = next(iter(whys.items()))
        return f"an address of block {cidr} has to be stored there before it is answered: {why}"

    def why_limited(self) -> str | None:
        """Why pods that run may not reach others, as far as it is this agent's to say; None when they do.

        Addresses are theirs whatever happens here. Only where the agent keeps the routes, some may be missing.
        """
        if self._routes and self._cluster.client.seconds_away:
            return "blocks that other nodes have claimed since are not routed to"
        return None

    async def stop(self, seconds: float) -> None:
        """Let what goes on behind answered requests come to its end; what does not is finished by the next run."""
        await self._mirror.stop(seconds)

    def holding(self, handle: str, interface: str = "") -> tuple[Address, ...]:
        """What `handle` holds, the IPv4 address first; () when it holds nothing, or nothing for that interface."""
        attachment = self._held.get(handle)
        return attachment.addresses if attachment and attachment.serves(interface) else ()

    @property
    def unsettled(self) -> set[str]:
        """The handles of which something still has to reach the API server."""
        return set(self._mirror).union(*(keeper.unsettled for keeper in self.blocks))

    @property
    def attachments(self) -> Mapping[str, Attachment]:
        """All that this node's blocks hold, by handle."""
        return self._held

    async def assign(
        self,
        handle: str,
        subject: Subject,
        wanted: Sequence[int] | Sequence[str],
        attributes: dict[str, str],
        netns: str = "",
        keep: Keep = FOR_NOBODY,
    ) -> Outcome:
        """One address for each of `wanted`, which are address families or very addresses; all of them or none.

        `keep`: whose kept addresses it gets, and whom its own are kept for when they are freed. The same attachment
        asked twice gets the same answer, and what it holds already when it asks for an address of the other family.
        AssignmentError when no pool serves the pod, CniError when those that do have no address left or when nothing
        could be written in time.
        """
        self._refuse_while_locked()
        await self._mirror.admit()
        async with self._turn(handle):
            missing = self._missing(handle, wanted, attributes.get("interface", ""))
            if not missing:
                self._move(handle, netns)
                return Outcome(self.holding(handle), ALREADY_HELD)
            await self._newcomers.notice()
            pools = self._cluster.pools
            choices = [each if isinstance(each, str) else choose(each, subject, pools) for each in missing]
            owner = {**attributes, "node": self._node, "timestamp": timestamp()}
            new = Attachment((), owner, netns, time.monotonic(), keep)
            for _try in range(MOST_TRIES):
                mode = await self._assign_once(handle, subject, choices, new)
                if mode is not None:
                    return Outcome(self.holding(handle), mode)
            raise CniError(TRY_AGAIN_LATER, f"{subject}: others took every block with room first, {MOST_TRIES} times")

    def _missing(self, handle: str, wanted: Sequence, interface: str) -> Sequence:
        """What of `wanted` the attachment does not hold. CniError when it cannot have it beside what it holds."""
        attachment = self._held.get(handle)
        if attachment is None:
            return wanted
        held = [address.address for address in attachment.addresses]
        if not attachment.serves(interface):
            other = f"handle {handle} holds {', '.join(held)} for interface {attachment.owner['interface']}"
            message = f"{other}; {interface} needs a network of another name, as handles name no interfaces"
            raise CniError(INVALID_CONFIGURATION, message)
        missing = [each for each in wanted if isinstance(each, str) and each not in held]
        for address in missing:
            if any((":" in address) == (":" in other) for other in held):
                raise CniError(ALREADY_ASSIGNED, f"handle {handle} asks for {address}, but holds {', '.join(held)}")
        return missing

    async def release(self, handle: str, interface: str = "", only: Attachment | None = None) -> Outcome:
        """Free whatever the attachment holds, but nothing of another interface. That it holds nothing is no error.

        With `only`, nothing either if somebody has asked for the attachment since it was found to be this one.
        """
        self._refuse_while_locked()
        await self._mirror.admit()
        async with self._turn(handle):
            if only is not None and self._held.get(handle) is not only:
                return Outcome((), NOTHING_HELD)
            held = self.holding(handle)
            if held and not self.holding(handle, interface):
                return Outcome((), NOTHING_HELD)
            cidrs = [address.block for address in held] if held else await self._handles.blocks(handle)
            if not cidrs:
                return Outcome((), NOTHING_HELD)
            keepers = await self.blocks.keepers_of(cidrs)
            recorded = bool(held) and self.recording.release(handle, self._held[handle])
            gathered = self._mirror.lull() if recorded else None
            keep = self._held.pop(handle).keep if held else FOR_NOBODY
            changes = [keeper.release(handle, gathered, keep) for keeper in keepers]
            mirrored = self._mirror.write(handle, lambda: self._mirror_release(handle, cidrs, changes))
            if not recorded:
                await self._mirror.in_time([mirrored], f"handle {handle}")
            return Outcome(held, LOCAL_FIRST if recorded else WRITTEN_THROUGH)

    def _refuse_while_locked(self) -> None:
        """As Calico's main plugin does; others do not know of the lock."""
        if self._cluster.locked:
            raise CniError(TRY_AGAIN_LATER, LOCKED)

    async def _assign_once(
        self, handle: str, subject: Subject, choices: Sequence[Choice | str], new: Attachment
    ) -> str | None:
        """One try at an address of each choice: how it was made safe. None when a block turned out to be unusable."""
        promises = await self._promises.of_all(subject, choices, new.keep.pod)
        keepers = [promise.keeper for promise in promises]
        local_first = self._may_answer_first(handle, promises)
        if not local_first and (reason := self._mirror.why_not_in_time()):
            for promise in promises:
                promise.withdraw()
            raise CniError(TRY_AGAIN_LATER, f"{subject}: an address has to be stored before it is answered: {reason}")
        cidrs = [keeper.cidr for keeper in keepers]
        self._mirror.hurry(handle)
        stored = self._mirror.write(handle, lambda: self._handles.ensure(handle, cidrs), gather=local_first)
        changes = [
            promise.keeper.assign(handle, new.owner, stored, promise.ordinal, promise.borrowed) for promise in promises
        ]
        if any(change.failed for change in changes):  # an address that two asked for at once went to the other
            self._take_back(handle, keepers, new.keep)
            return None
        recorded = self._hold(handle, keepers, changes, new)
        if local_first and recorded:
            for change in changes:
                change.answered = True
            return LOCAL_FIRST
        try:
            await self._mirror.in_time([change.done for change in changes], str(subject))
        except BaseException as error:
            self._take_back(handle, keepers, new.keep)
            if isinstance(error, BlockUnusableError):
                return None
            raise
        for change in changes:
            change.answered = True
        # A block that was read again may have given another address.
        if not self._hold(handle, keepers, changes, new) and self.recording.contradicts(handle, self._held[handle]):
            self._take_back(handle, keepers, new.keep)
            message = f"{subject}: the node's store cannot be written, and what it says of {handle} is over"
            raise CniError(TRY_AGAIN_LATER, message, "see: journalctl -u podnet-ipam")
        return WRITTEN_THROUGH

    def _may_answer_first(self, handle: str, promises: Sequence[Promise]) -> bool:
        """Whether nobody else can take an address of these blocks before the API server knows of it.

        Not for a handle that has something under way: its own release may be what empties the block.
        """
        safe = not any(promise.borrowed or self.why_written_through(promise.keeper) for promise in promises)
        return safe and handle not in self._mirror

    def why_written_through(self, keeper: BlockKeeper) -> str | None:
        """Why an address of this block has to be stored at the API server before it is answered; None when not."""
        if not self._cluster.config.strict_affinity:
            return "strictAffinity is off: other nodes may take addresses of it"
        if not keeper.is_this_nodes:
            return "it is not this node's: its owner may take addresses of it"
        if keeper.known_at < self._cluster.strict_since:
            return "strictAffinity is on since a moment ago: others may have taken addresses before"
        if not keeper.stored_in_use:
            return "the API server has not seen it in use: Calico may give an empty block to another node"
        return None

    def _hold(self, handle: str, keepers: Sequence[BlockKeeper], changes: Sequence[Change], new: Attachment) -> bool:
        """Note what the attachment holds now. Return whether the store has it."""
        pairs = list(zip(keepers, (change.ordinals[0] for change in changes), strict=True))
        addresses = (self._address(keeper, ordinal) for keeper, ordinal in pairs)
        self._held[handle] = replace(
            new, addresses=by_family((*self._beside(handle, keepers), *addresses)), noted=time.monotonic()
        )
        return self.recording.hold(handle, self._held[handle])

    def _move(self, handle: str, netns: str) -> None:
        """A container that is started again after a reboot keeps its id, but not its network namespace."""
        attachment = self._held[handle]
        self._held[handle] = replace(attachment, netns=netns or attachment.netns, noted=time.monotonic())
        if netns and netns != attachment.netns:
            self.recording.hold(handle, self._held[handle])

    def _beside(self, handle: str, keepers: Sequence[BlockKeeper]) -> list[Address]:
        """What the attachment holds in other blocks than these."""
        cidrs = [keeper.cidr for keeper in keepers]
        return [address for address in self.holding(handle) if address.block not in cidrs]

    def _take_back(self, handle: str, keepers: Sequence[BlockKeeper], keep: Keep) -> None:
        """Undo an assignment that is not answered, wherever it has got to. The next try gets what was kept for it."""
        changes = [keeper.release(handle, keep=keep, rest=False) for keeper in keepers]
        cidrs = [keeper.cidr for keeper in keepers]
        kept = self._beside(handle, keepers)
        attachment = self._held.pop(handle, None)
        self.recording.release(handle, None, rest=False)
        self._mirror.write(handle, lambda: self._mirror_release(handle, cidrs, changes))
        if kept:
            self._held[handle] = replace(attachment, addresses=tuple(kept))
            self.recording.hold(handle, self._held[handle])

    async def _mirror_release(self, handle: str, cidrs: Sequence[str], changes: Sequence[Change]) -> None:
        for change in changes:
            await change.done
        async with self._mirror.turn:
            await self._handles.remove(handle, cidrs)
        self.recording.forget(handle, held_anew=handle in self._held)
        self.blocks.forget(cidrs)

    async def _recover(self, handle: str, rows: Sequence[Row]) -> None:
        """Apply what an earlier run recorded of an attachment to what the API server has."""
        cidrs = [row.block for row in rows]
        try:
            keepers = {keeper.cidr: keeper for keeper in await self.blocks.keepers_of(cidrs)}
        except CniError as error:
            log.critical("handle %s: %s", handle, error.message)
            self._unread.update(cidrs)
            if any(row.state == RELEASED for row in rows):
                self._mirror.write(handle, lambda: self._release_mended(handle, cidrs))
            else:
                self._hold_recorded(handle, rows, [self._recorded(row) for row in rows])
            return
        if any(row.state == RELEASED for row in rows) or not self._restore(handle, rows, keepers):
            changes = [keeper.release(handle) for keeper in keepers.values()]
            self._held.pop(handle, None)
            self._mirror.write(handle, lambda: self._mirror_release(handle, cidrs, changes))

    async def _release_mended(self, handle: str, cidrs: Sequence[str]) -> None:
        """Finish a release of an earlier run. CniError as long as a block is broken."""
        changes = [keeper.release(handle) for keeper in await self.blocks.keepers_of(cidrs)]
        await self._mirror_release(handle, cidrs, changes)

    def _restore(self, handle: str, rows: Sequence[Row], keepers: Mapping[str, BlockKeeper]) -> bool:
        """Have the blocks hold what the rows say. False when none of the addresses is to be had any more.

        What the API server never saw can only be restored in a block of this node: elsewhere nothing is answered
        before it is stored, so that a borrowed address which is not stored was not given to anyone.
        """
        cidrs = [row.block for row in rows]
        for row in rows:
            keeper = keepers.get(row.block)
            if keeper and keeper.claimed and not keeper.holds(handle) and keeper.holder(row.ordinal) is None:
                stored = self._mirror.write(handle, lambda: self._handles.ensure(handle, cidrs))
                keeper.restore(row.ordinal, handle, row.secondary, stored)
            if not keeper or not keeper.holds(handle):
                log.critical("handle %s does not hold ordinal %s of block %s any more", handle, row.ordinal, row.block)
        held = [(keeper, ordinal) for keeper in keepers.values() for ordinal in keeper.holds(handle)]
        if held:
            addresses = [self._address(keeper, ordinal) for keeper, ordinal in held]
            # The store may not know of an address that it has once refused to record.
            known = {address.address: address for address in (*self.holding(handle), *addresses)}
            self._hold_recorded(handle, rows, known.values())
        return bool(held)

    def _hold_recorded(self, handle: str, rows: Sequence[Row], addresses: Iterable[Address]) -> None:
        first = rows[0]
        held = by_family(addresses)
        self._held[handle] = Attachment(held, first.secondary, first.netns, time.monotonic(), first.keep)

    def _recorded(self, row: Row) -> Address:
        """The address of a row whose block cannot be read."""
        address = ipaddress.ip_network(row.block)[row.ordinal]
        return Address(str(address), row.block, row.ordinal, self._cluster.pool_of(row.block))

    def _hold_found(
        self, handle: str, found: Sequence[tuple[BlockKeeper, int]], new: Attachment
    ) -> list[asyncio.Future]:
        """Hold addresses, as (block, ordinal), that somebody runs with already, beside what the handle holds.

        Return what is done when they are stored.
        """
        attachment = self._held.get(handle, new)
        addresses = by_family((*attachment.addresses, *(self._address(*each) for each in found)))
        attachment = self._held[handle] = replace(attachment, addresses=addresses, noted=time.monotonic())
        cidrs = [block for block, _ordinal in attachment.places]
        stored = self._mirror.write(handle, lambda: self._handles.ensure(handle, cidrs))
        changes = [keeper.restore(ordinal, handle, new.owner, stored) for keeper, ordinal in found]
        self.recording.hold(handle, attachment)
        return [change.done for change in changes]

    def _note_holders(self, keeper: BlockKeeper) -> None:
        for ordinal, handle, owner in keeper.attachments:
            attachment = self._held.get(handle) or Attachment((), owner, "", time.monotonic())
            # By its place: its pool may have been edited since.
            if (keeper.cidr, ordinal) not in attachment.places:
                addresses = by_family((*attachment.addresses, self._address(keeper, ordinal)))
                self._held[handle] = replace(attachment, addresses=addresses)
        # What ran on while the block could not be read, and may not have been stored before.
        if keeper.cidr in self._unread:
            self._unread.remove(keeper.cidr)
            self._restore_held(keeper)
        self._newcomers.hold_in(keeper)

    def _restore_held(self, keeper: BlockKeeper) -> None:
        """A block was deleted and made anew: what runs keeps its addresses. What is under way is in its queue."""
        unsettled = keeper.unsettled
        for handle, attachment in list(self._held.items()):
            ordinals = [ordinal for block, ordinal in attachment.places if block == keeper.cidr]
            if ordinals and handle not in unsettled and not keeper.holds(handle):
                cidrs = [keeper.cidr] * len(ordinals)
                stored = self._mirror.write(handle, partial(self._handles.ensure, handle, cidrs))
                for ordinal in ordinals:
                    keeper.restore(ordinal, handle, attachment.owner, stored)

    def _address(self, keeper: BlockKeeper, ordinal: int) -> Address:
        return Address(keeper.address(ordinal), keeper.cidr, ordinal, self._cluster.pool_of(keeper.cidr))

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
