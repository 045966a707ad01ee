# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Recording in the node's own store, which may refuse it for a while: a full disk, a lock.

Nothing is answered as recorded then, and the API server is waited for. But the store goes on saying what was before:
that somebody holds an address who has given it back, or the other way round. So what it refused is recorded as soon as
it lets something be recorded again. Should the agent end before, the next run holds the address for who has ended,
until that one is found to have vanished (collector.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from functools import partial

from .attachments import Attachment
from .metrics import STORE_COMMITS, STORE_ERRORS
from .sqlite import IntegrityError, StoreError
from .store import HELD, Store

log = logging.getLogger(__name__)


class Recording:
    """Writes to the store what attachments hold. Each method returns whether it is recorded now."""

    def __init__(self, store: Store, cooldown: float):
        self._store = store
        self._cooldown = cooldown
        # What was refused, by handle. The last of a handle's writes counts: it leaves no row as those before left it.
        self._refused: dict[str, Callable[[], None]] = {}

    @property
    def behind(self) -> Collection[str]:
        """The handles of which the store does not say what is."""
        return self._refused.keys()

    def hold(self, handle: str, attachment: Attachment) -> bool:
        """It holds what it holds, and nothing else."""
        what = attachment.places, attachment.owner, attachment.netns, attachment.keep
        return self._record(handle, partial(self._store.hold, handle, *what))

    def release(self, handle: str, attachment: Attachment | None, rest: bool = True) -> bool:
        """What it held is free. Its addresses rest for the cooldown, unless nobody was told of them."""
        places = attachment.places if attachment else []
        return self._record(handle, partial(self._store.release, handle, places, self._cooldown if rest else 0))

    def forget(self, handle: str, held_anew: bool) -> bool:
        """What it has released is free at the API server, too."""
        if held_anew and handle in self._refused:
            # What it holds now will be recorded in place of all that stands there.
            return False
        return self._record(handle, partial(self._store.forget, handle, held_anew))

    def end_first_start(self) -> None:
        """What others know of this node is held now. Where not all of it is recorded, the next run looks again."""
        if not self._refused:
            self._write(self._store.end_first_start)

    def contradicts(self, handle: str, attachment: Attachment) -> bool:
        """Whether the next run would believe something else of it than that it holds what it holds.

        With no row at all it would find out by the blocks. What cannot be read may say anything.
        """
        try:
            rows = self._store.rows_of(handle)
        except StoreError as error:
            log.error("the store cannot be read: %s", error)
            return True
        return any(state != HELD or (block, ordinal) not in attachment.places for block, ordinal, state in rows)

    def catch_up(self) -> None:
        """Record what was refused, until something is refused again that has nothing wrong with it."""
        for handle, write in list(self._refused.items()):
            error = self._write(write)
            if error is None:
                del self._refused[handle]
            elif not isinstance(error, IntegrityError):
                return

    def _record(self, handle: str, write: Callable[[], None]) -> bool:
        # What comes now replaces what was refused before.
        self._refused.pop(handle, None)
        if self._refused:
            self.catch_up()
        recorded = self._write(write) is None
        if not recorded:
            self._refused[handle] = write
        return recorded

    def _write(self, write: Callable[[], None]) -> StoreError | None:
        """What kept it from being recorded."""
        try:
            write()
        except StoreError as error:
            STORE_ERRORS.inc()
            log.error("the store cannot be written: %s", error)
            return error
        STORE_COMMITS.inc()
        return None
