# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Blocks in memory, kept at the API server by compare-and-swap.

A change is applied to the block in memory at once, which decides its address, and stands in a queue until it is
stored. One task per block writes: everything in the queue that may be stored goes into the next write together, so
that a burst of 64 pods costs a handful of writes, not 64. What is written is the block as last stored with these
changes and no others, because a block must never show an address whose handle does not exist yet.

When a write fails, what is stored is not known: someone else may have changed the block, or the write took place and
only its answer was lost. The block is then read again and the queue applied anew. An assignment whose handle already
holds an address there is the one whose answer was lost. The task never gives up: callers decide how long they wait.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

from .._core.block import Block, spec_problem
from .._core.names import cidr_name, host_affinity, is_deleted, network, spare_handle
from .._core.room import owner_of
from .._kube.calico import CalicoApi
from .._kube.errors import ApiError, Conflict, NotFound, Unreachable
from .api import Client
from .backoff import Backoff
from .changes import BlockUnusableError, Change, ready_and_waiting, with_changes
from .handles import delete_softly
from .metrics import BLOCK_CONFLICTS
from .resting import FOR_NOBODY, Keep, Resting

WAITS_TO_BE_MENDED = "and is left out until somebody mends it"

log = logging.getLogger(__name__)


def why_broken(spec: dict) -> str | None:
    """What forbids working with a stored block, as a text; None when nothing does."""
    try:
        network(spec["cidr"])
    except ValueError as error:
        return f"spec.cidr: {error}"
    return spec_problem(spec)


class BlockKeeper:
    """One block, and the only writer of it on this node.

    `reserved` gives the ordinals of a block's CIDR that must not be assigned unasked. A freed address rests for
    `cooldown` seconds. `claimed` says whether this node's claim on the block stands; without it, the block is another
    node's or nobody's, and what this node holds of it is borrowed.

    ValueError for a block that is broken. One that becomes so gives out nothing until somebody has mended it.

    Where a claimed block has been deleted, `renew` returns it as it was made anew, by this node or another one; None
    where it cannot be had, NotFound where not at this moment. `on_renewed` is called with the keeper then.
    """

    def __init__(
        self,
        client: Client,
        calico: CalicoApi,
        node: str,
        stored: dict,
        reserved: Callable[[str], Iterable[int]],
        cooldown: float,
        renew: Callable[[str], Awaitable[dict | None]],
        on_renewed: Callable[[BlockKeeper], None],
    ):
        self._client = client
        self._calico = calico
        self._node = node
        self._affinity = host_affinity(node)
        self._pin = spare_handle(node)
        self._reserved = reserved
        self._path = calico.path("IPAMBlock", cidr_name(stored["spec"]["cidr"]))
        self._queue: list[Change] = []
        self._writer: asyncio.Task | None = None
        self._stale = False
        self._cooldown = cooldown
        self._renew = renew
        self._on_renewed = on_renewed
        self._resting = Resting()
        self.promised = 0
        self.claimed = False
        self._stored = stored
        self._may_be_empty = False
        # Whether what is stored now cannot be worked with; the block in memory is what it was before.
        self.is_broken = False
        self._load(stored)

    @property
    def cidr(self) -> str:
        return self._block.cidr

    @property
    def affinity(self) -> str | None:
        """Whose block it is: see Block.affinity."""
        return self._block.affinity

    @property
    def states(self) -> str:
        """What each address is: see Block.states."""
        self._wake()
        return self._block.states()

    @property
    def unsettled(self) -> set[str]:
        """The handles of the changes that are not stored yet."""
        return {change.handle for change in self._queue}

    @property
    def room(self) -> int:
        """Addresses of this node's own block that can still be promised."""
        return self.lendable if self.is_this_nodes else 0

    @property
    def is_this_nodes(self) -> bool:
        """Whether the block is this node's, by its claim and by what the block itself says."""
        return self.claimed and not self.is_broken and self._block.affinity == self._affinity

    @property
    def lendable(self) -> int:
        """Addresses that can still be promised, whosever block it is. Promise by incrementing `promised`."""
        self._wake()
        return 0 if self.is_broken else self._block.assignable - self.promised

    @property
    def is_idle(self) -> bool:
        """Whether nothing is held, promised, resting or under way, as far as is known here."""
        self._wake()
        return not (self.is_broken or self._block.allocated or self.promised or self._resting or self._queue)

    @property
    def is_pinned(self) -> bool:
        """Whether an address is the node's own, so that the block is not given away as an empty one: see spares.py."""
        return bool(self._block.ordinals_of(self._pin))

    @property
    def is_vacant(self) -> bool:
        """Whether none of its addresses is allocated but the pin."""
        return self._block.allocated == len(self._block.ordinals_of(self._pin))

    @property
    def concerns_node(self) -> bool:
        """Whether this node holds or is about to hold or to free an address of the block."""
        return bool(self.promised or self._queue or self.is_broken) or any(
            self.is_own(attribute) for _ordinal, attribute in self.holders
        )

    @property
    def stored(self) -> dict:
        """The IPAMBlock as it was last read or written."""
        return self._stored

    @property
    def rest_seconds(self) -> float | None:
        """How long the address that is the next to have rested still rests; None when none rests."""
        self._wake()
        return self._resting.seconds

    def rest(self, ordinals: list[int], seconds: float, pod: str = "") -> None:
        """Give out none of these for some time, but to who asks for it, or to the pod that it is kept for."""
        self._resting.add(ordinals, seconds, pod)
        self._block.rest(ordinals)

    def _wake(self) -> None:
        self._block.wake(self._resting.take_rested())

    def kept_for(self, pod: str) -> int | None:
        """The ordinal of this node's own block that is kept for a pod and may be given to it, if there is one."""
        self._wake()
        kept = self._resting.kept_for(pod) if self.is_this_nodes else []
        reserved = set(self._reserved(self.cidr)) if kept else set()
        return next((ordinal for ordinal in kept if ordinal not in reserved and self.holder(ordinal) is None), None)

    def kept(self, ordinal: int) -> str:
        """The pod that a free address is kept for, as a text; empty when it is for nobody."""
        self._wake()
        return self._resting.pod(ordinal)

    @property
    def stored_in_use(self) -> bool:
        """Whether the API server sees the block in use. Calico 3.32 may give away one that is seen empty.

        While a write that empties it is under way, and as long as nobody knows what became of it, it may be empty.
        """
        return not self._may_be_empty and any(index is not None for index in self._stored["spec"]["allocations"])

    @property
    def holders(self) -> list[tuple[int, dict]]:
        """(ordinal, attribute) of every allocated address, other nodes' included."""
        return self._block.holders()

    @property
    def attachments(self) -> list[tuple[int, str, dict]]:
        """(ordinal, handle, owner attributes) of every address that this node holds for someone."""
        return [
            (ordinal, attribute["handle_id"], attribute.get("secondary") or {})
            for ordinal, attribute in self._block.holders()
            if self.is_attachment(attribute)
        ]

    def is_attachment(self, attribute: dict) -> bool:
        """Whether an attribute is that of an attachment of this node; the pin is none."""
        return attribute.get("handle_id") not in (None, "", self._pin) and self.is_own(attribute)

    def is_own(self, attribute: dict) -> bool:
        """Whether an attribute is of this node; without a node, whoever has the block is meant."""
        return (attribute.get("secondary") or {}).get("node", self._node if self.claimed else None) == self._node

    def holds(self, handle: str) -> list[int]:
        """The ordinals that `handle` holds."""
        return self._block.ordinals_of(handle)

    def holder(self, ordinal: int) -> str | None:
        """Who holds an ordinal: its pod, else its handle, as a text; None when it is free."""
        attribute = self._block.holder(ordinal)
        return None if attribute is None else owner_of(attribute)

    def address(self, ordinal: int) -> str:
        """The text of an address of the block."""
        return str(self._base + ordinal)

    def ordinal(self, address: str) -> int:
        """The ordinal of an address (text) of the block."""
        return int(ipaddress.ip_address(address)) - int(self._base)

    def update_reserved(self) -> None:
        """Reservations or pools changed."""
        self._block.reserve(self._reserved(self.cidr))

    def assign(
        self,
        handle: str,
        secondary: dict[str, str],
        after: asyncio.Future | None = None,
        wanted: int | None = None,
        borrowed: bool = False,
    ) -> Change:
        """Allocate an address that was promised, which ends the promise.

        The change's `done` raises BlockUnusableError when the address got lost to someone else.
        """
        self.promised -= 1
        return self._enqueue(Change(handle, secondary, after, wanted, borrowed))

    def refresh(self, stored: dict) -> None:
        """Take over the block as somebody has just read it. With changes under way, the next write finds out itself."""
        known, read = (each["spec"].get("sequenceNumber", 0) for each in (self._stored, stored))
        if self._queue or read <= known:
            return
        try:
            self._load(stored)
        except ValueError:
            # It is read again until it is mended.
            self._stale = True
            self._wake_writer()

    def restore(self, ordinal: int, handle: str, secondary: dict[str, str], after: asyncio.Future) -> Change:
        """Allocate the very address that an earlier run gave out, and could not store."""
        change = Change(handle, secondary, after)
        change.ordinals = [ordinal]
        change.answered = True
        return self._enqueue(change)

    def release(
        self, handle: str, after: asyncio.Future | None = None, keep: Keep = FOR_NOBODY, rest: bool = True
    ) -> Change:
        """Free all that `handle` holds here; `done` gives the ordinals, [] when it held none.

        Without `rest`, for addresses that nobody was told of, they can be given out again at once, unless kept.
        """
        return self._enqueue(Change(handle, None, after, keep=keep, rest=rest))

    def _enqueue(self, change: Change) -> Change:
        if self._perform(change):
            self._queue.append(change)
            self._wake_writer()
        return change

    def _wake_writer(self) -> None:
        if self._writer is None or self._writer.done():
            self._writer = asyncio.get_running_loop().create_task(self._write_all())

    def _perform(self, change: Change) -> bool:
        """Carry out a change in memory. Return whether it has to be stored."""
        if not change.is_assignment:
            freed = self._block.release(change.handle)
            rest = max(self._cooldown if change.rest else 0, change.keep.seconds)
            if freed and rest:
                self.rest(freed, rest, change.keep.pod)
            change.ordinals = freed or change.ordinals
            if change.ordinals or self._stale:
                return True
            change.settle()
            return False
        held = self._block.ordinals_of(change.handle)
        if change.is_certain:
            held = [ordinal for ordinal in held if ordinal in change.ordinals]
        if held:
            change.ordinals = held
        elif change.ordinals and self._block.assign_ordinal(change.ordinals[0], change.handle, change.secondary):
            self._resting.remove(change.ordinals[0])
            self._block.wake(change.ordinals)
        elif change.answered:
            log.critical(
                "address %s is held by %s here but by someone else at the API server",
                self.address(change.ordinals[0]),
                change.handle,
            )
            change.settle(BlockUnusableError(f"block {self.cidr}: address taken by someone else"))
            return False
        else:
            ordinal = -1 if change.wanted is not None else self._block.assign(change.handle, change.secondary)
            if ordinal < 0:
                change.settle(BlockUnusableError(f"block {self.cidr} is full"))
                return False
            change.ordinals = [ordinal]
        return True

    async def _write_all(self) -> None:
        """Write until the queue is empty, and the block is none that waits to be mended."""
        backoff = Backoff()
        while self._queue or self.is_broken:
            retry_after = None
            try:
                if self._stale:
                    await self._reload()
                else:
                    with BLOCK_CONFLICTS.count_exceptions(Conflict):
                        await self._write()
                backoff.reset()
                continue
            except (Conflict, NotFound):
                self._stale = True
                continue
            except (ApiError, Unreachable) as error:
                retry_after = error.retry_after
                log.warning("block %s: %s changes wait: %s", self.cidr, len(self._queue), error)
            except Exception:  # a bug or a broken block: the queue must not be lost with the task
                log.exception("block %s: %s changes wait", self.cidr, len(self._queue))
            self._stale = True
            await backoff.pause(retry_after)

    async def _write(self) -> None:
        batch, block = await self._next_batch()
        block.sequence_number += 1
        if block.allocated == 0 and block.affinity is None:
            await delete_softly(self._client, self._calico, self._path, self._stored)
            self._stale = True
        else:
            self._may_be_empty = self._may_be_empty or block.allocated == 0
            self._stored = await self._client.replace(self._path, self._calico.changed(self._stored, block.spec()))
            self._may_be_empty = False
            self.known_at = time.monotonic()
        self._queue = [change for change in self._queue if change not in batch]
        for change in batch:
            change.settle()

    async def _next_batch(self) -> tuple[list[Change], Block]:
        """What of the queue may be stored now, at least one change, and the block with it.

        A batch that would leave the block empty, and so free to be given away, waits for the assignments that are
        answered already.
        """
        while True:
            batch, waiting = ready_and_waiting(self._queue)
            if batch:
                block = with_changes(self._stored["spec"], batch)
                if block.allocated or not any(change.answered for change in waiting):
                    return batch, block
            unready = [change.after for change in waiting if not change.ready]
            await asyncio.wait(unready, return_when=asyncio.FIRST_COMPLETED)

    async def _reload(self) -> None:
        """Read the block again and apply the queue to what it is now."""
        stored = await self._read()
        renewed = stored is None and self.claimed
        if renewed:
            stored = await self._renew(self.cidr)
        if stored is not None:
            self._load(stored)
        queue, self._queue = self._queue, []
        if stored is None:
            self._lose(queue)
            return
        self._stale = False
        for change in queue:
            # What is answered already is kept in whosever block it is now: a running pod's address never changes.
            anywhere = change.borrowed or change.answered
            if change.is_assignment and not anywhere and self._block.affinity != self._affinity:
                change.settle(BlockUnusableError(f"block {self.cidr} belongs to {self._block.affinity}"))
            elif self._perform(change):
                self._queue.append(change)
        if renewed:
            self._on_renewed(self)

    async def _read(self) -> dict | None:
        """The block as it is stored, None when it is gone. One that is marked as deleted goes, as with Calico."""
        try:
            stored = await self._client.get(self._path)
        except NotFound:
            return None
        if not is_deleted(stored):
            return stored
        await delete_softly(self._client, self._calico, self._path, stored)
        return None

    def _lose(self, queue: Sequence[Change]) -> None:
        """The block is gone for good, whatever was claimed of it and whoever has addresses of it."""
        used = ", ".join(self.address(ordinal) for ordinal, _handle, _owner in self.attachments)
        if used:
            log.critical("block %s does not exist any more, but %s are in use here", self.cidr, used)
        self.claimed = self.is_broken = False
        for change in queue:
            gone = BlockUnusableError(f"block {self.cidr} does not exist any more")
            change.settle(gone if change.is_assignment else None)

    def _load(self, stored: dict) -> None:
        """Take over what is stored. ValueError where it is broken; then what was there before stays."""
        spec = stored["spec"]
        problem = why_broken(spec)
        self.is_broken = problem is not None
        if self.is_broken:
            raise ValueError(f"block {self._path.rpartition('/')[2]} is broken, {WAITS_TO_BE_MENDED}: {problem}")
        # As long as nothing else is written, a write that nobody answered may still come.
        if stored["metadata"]["resourceVersion"] != self._stored["metadata"]["resourceVersion"]:
            self._may_be_empty = False
        self._stored = stored
        # When the block was last known to be what is stored, in seconds of the monotonic clock.
        self.known_at = time.monotonic()
        self._block = Block(spec, self._reserved(spec["cidr"]))
        self._block.rest(list(self._resting))
        self._base = ipaddress.ip_network(spec["cidr"]).network_address
