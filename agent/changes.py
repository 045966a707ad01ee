# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Changes of a block on their way to the API server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from .._core.block import Block
from .resting import FOR_NOBODY, Keep


class BlockUnusableError(Exception):
    """The block has no free address for an assignment, or is not this node's any more: try another one."""


class Change:
    """An assignment or a release on its way to the API server.

    `done` is set when it is stored, with the ordinals that it concerns. It is not stored before `after` is done: for an
    assignment, the writing of its handle. `wanted` is the ordinal that it has to be, if it has to be a certain one.
    A `borrowed` address may be one of a block of another node. Once `answered`, the runtime knows the address and it
    can no longer be exchanged for another. `keep` says whom a release keeps the address for, and `rest` whether it
    rests for the cooldown.
    """

    def __init__(
        self,
        handle: str,
        secondary: dict[str, str] | None,
        after: asyncio.Future | None = None,
        wanted: int | None = None,
        borrowed: bool = False,
        keep: Keep = FOR_NOBODY,
        rest: bool = True,
    ):
        self.handle = handle
        self.secondary = secondary
        self.after = after
        self.wanted = wanted
        self.borrowed = borrowed
        self.keep = keep
        self.rest = rest
        self.ordinals: list[int] = [] if wanted is None else [wanted]
        self.answered = False
        self.done: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        # Not every change is waited for; whoever does still gets the exception.
        self.done.add_done_callback(lambda future: future.cancelled() or future.exception())

    @property
    def is_assignment(self) -> bool:
        return self.secondary is not None

    @property
    def is_certain(self) -> bool:
        """Whether it is about these very ordinals, for which others of the same handle do not stand."""
        return self.answered or self.wanted is not None

    @property
    def ready(self) -> bool:
        return self.after is None or self.after.done()

    @property
    def failed(self) -> bool:
        """Whether it will not be stored; where nothing has to be waited for, it may be stored already."""
        return self.done.done() and self.done.exception() is not None

    def settle(self, error: Exception | None = None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(self.ordinals)
        else:
            self.done.set_exception(error)


def ready_and_waiting(queue: Sequence[Change]) -> tuple[list[Change], list[Change]]:
    """What of a block's queue may be stored now, and what has to wait.

    Every change that is ready may, unless an earlier change of the same handle or ordinal has to wait: a release never
    overtakes the assignment that it takes back, nor an assignment the release that made room for it.
    """
    batch: list[Change] = []
    waiting: list[Change] = []
    blocked: set[str | int] = set()
    # A release waits for others to be written with: an assignment that is written anyway is company enough.
    company = any(change.is_assignment and change.ready for change in queue)
    for change in queue:
        concerned = {change.handle, *change.ordinals}
        ready = change.ready or (company and not change.is_assignment)
        if ready and blocked.isdisjoint(concerned):
            batch.append(change)
        else:
            blocked |= concerned
            waiting.append(change)
    return batch, waiting


def with_changes(spec: dict, changes: Iterable[Change]) -> Block:
    """The block of a stored `spec` with these changes and no others."""
    block = Block(spec)
    for change in changes:
        if not change.is_assignment:
            block.release(change.handle)
        elif not (
            change.ordinals[0] in block.ordinals_of(change.handle)
            or block.assign_ordinal(change.ordinals[0], change.handle, change.secondary)
        ):
            raise RuntimeError(f"ordinal {change.ordinals[0]} of {block.cidr} is not free for {change.handle}")
    return block
