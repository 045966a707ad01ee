# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Blocks in memory, written through to the API server by compare-and-swap.

Changes are applied to the block in memory at once and written by one task per block, so all changes that arrive while a
write is under way share the next one: a burst of 64 pods costs a handful of writes, not 64. A change is done when the
write that holds it has succeeded; only then is an address given out.

When a write fails, what is stored is not known: someone else may have changed the block, or the write took place and
only its answer was lost. The block is then read again and every change that is not done is applied anew. An
assignment whose handle already holds an address there is the one whose answer was lost, and is done.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
from collections.abc import Callable, Iterable

from .._core.block import Block
from .._core.names import cidr_name, host_affinity
from .._kube.calico import CalicoApi, is_deleted
from .._kube.errors import ApiError, Conflict, NotFound, Unreachable
from .api import Client
from .handles import MOST_TRIES, delete_softly

# A pod's start is given up by the kubelet after two minutes; an answer that says why comes before that.
RETRY_SECONDS = 30.0
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 2.0

log = logging.getLogger(__name__)


class BlockUnusableError(Exception):
    """The block has no free address for an assignment, or is not this node's any more: try another one."""


class Change:
    """An assignment (with `secondary` attributes) or a release (without) on its way to the API server."""

    def __init__(self, handle: str, secondary: dict[str, str] | None):
        self.handle = handle
        self.secondary = secondary
        self.ordinals: list[int] = []
        self.done: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()

    def settle(self, error: Exception | None = None) -> None:
        if self.done.done():  # the caller gave up waiting
            return
        if error is None:
            self.done.set_result(self.ordinals)
        else:
            self.done.set_exception(error)


class BlockKeeper:
    """One block, and the only writer of it on this node.

    `reserved` gives the ordinals of a block's CIDR that must not be assigned unasked.
    """

    def __init__(
        self, client: Client, calico: CalicoApi, node: str, stored: dict, reserved: Callable[[str], Iterable[int]]
    ):
        self._client = client
        self._calico = calico
        self._affinity = host_affinity(node)
        self._reserved = reserved
        self._path = calico.path("IPAMBlock", cidr_name(stored["spec"]["cidr"]))
        self._changes: list[Change] = []
        self._writer: asyncio.Task | None = None
        self._stale = False
        self.promised = 0
        self._load(stored)

    @property
    def cidr(self) -> str:
        return self._block.cidr

    @property
    def room(self) -> int:
        """Addresses that can still be promised. Promise by incrementing `promised`; `assign` takes that back."""
        return self._block.assignable - self.promised if self._block.affinity == self._affinity else 0

    @property
    def holders(self) -> list[tuple[int, dict]]:
        """(ordinal, attribute) of every allocated address."""
        return self._block.holders()

    def address(self, ordinal: int) -> str:
        """The text of an address of the block."""
        return str(self._base + ordinal)

    def update_reserved(self) -> None:
        """Reservations or pools changed."""
        self._block.reserve(self._reserved(self.cidr))

    def assign(self, handle: str, secondary: dict[str, str]) -> asyncio.Future[list[int]]:
        """Allocate an address that was promised. Done with its ordinal in a list, or BlockUnusableError."""
        self.promised -= 1
        return self._apply(Change(handle, secondary))

    def release(self, handle: str) -> asyncio.Future[list[int]]:
        """Free all that `handle` holds here. Done with the ordinals, [] when it held none."""
        return self._apply(Change(handle, None))

    def _apply(self, change: Change) -> asyncio.Future[list[int]]:
        if self._perform(change):
            self._changes.append(change)
            if self._writer is None:
                self._writer = asyncio.get_running_loop().create_task(self._write_all())
        return change.done

    def _perform(self, change: Change) -> bool:
        """Carry out a change in memory. Return whether there is something to be written for it."""
        if change.secondary is None:
            change.ordinals = self._block.release(change.handle) or change.ordinals
            if not change.ordinals and not self._stale:
                change.settle()
                return False
            return True
        held = self._block.ordinals_of(change.handle)
        ordinal = held[0] if held else self._block.assign(change.handle, change.secondary)
        if ordinal < 0:
            change.settle(BlockUnusableError(f"block {self.cidr} is full"))
            return False
        change.ordinals = [ordinal]
        return True

    async def _write_all(self) -> None:
        """Write until nothing is left to write. Whatever goes wrong, every change gets an answer."""
        clock = asyncio.get_running_loop().time
        give_up = clock() + RETRY_SECONDS
        pause = _FIRST_PAUSE_SECONDS
        tries = 0
        while self._changes:
            tries += 1
            try:
                if self._stale:
                    await self._reload()
                await self._write()
                tries, pause, give_up = 0, _FIRST_PAUSE_SECONDS, clock() + RETRY_SECONDS
                continue
            except (Conflict, NotFound) as error:
                self._stale = True
                if tries >= MOST_TRIES:
                    self._fail(error)
                continue
            except (ApiError, Unreachable) as error:
                self._stale = True
                if clock() > give_up or not _may_pass(error):
                    self._fail(error)
                    continue
            except Exception as error:  # a bug or a broken block: nobody may wait for ever
                log.exception("block %s cannot be written", self.cidr)
                self._stale = True
                self._fail(error)
                continue
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
        self._writer = None

    async def _write(self) -> None:
        written = len(self._changes)
        if not written:
            return
        self._block.sequence_number += 1
        if self._block.allocated == 0 and self._block.affinity is None:
            await delete_softly(self._client, self._calico, self._path, self._stored)
            self._stale = True
        else:
            self._stored = await self._client.replace(
                self._path, self._calico.changed(self._stored, self._block.spec())
            )
        done, self._changes = self._changes[:written], self._changes[written:]
        for change in done:
            change.settle()

    async def _reload(self) -> None:
        """Read the block again and apply what is not stored yet."""
        try:
            stored = await self._client.get(self._path)
        except NotFound:
            stored = None
        if stored is None or is_deleted(stored):
            self._forget()
            return
        self._load(stored)
        self._stale = False
        changes, self._changes = self._changes, []
        for change in changes:
            if change.secondary is not None and self._block.affinity != self._affinity:
                change.settle(BlockUnusableError(f"block {self.cidr} belongs to {self._block.affinity}"))
            elif self._perform(change):
                self._changes.append(change)

    def _forget(self) -> None:
        """The block does not exist any more: what should be free is free, and nothing can be assigned."""
        changes, self._changes = self._changes, []
        for change in changes:
            gone = BlockUnusableError(f"block {self.cidr} does not exist any more")
            change.settle(None if change.secondary is None else gone)

    def _fail(self, error: Exception) -> None:
        changes, self._changes = self._changes, []
        for change in changes:
            change.settle(error)

    def _load(self, stored: dict) -> None:
        spec = stored["spec"]
        self._stored = stored
        self._block = Block(spec, self._reserved(spec["cidr"]))
        self._base = ipaddress.ip_network(spec["cidr"]).network_address


def _may_pass(error: Exception) -> bool:
    """Whether trying again may help: no answer, too many requests, or the server's own trouble."""
    return not isinstance(error, ApiError) or error.status == 429 or error.status >= 500
