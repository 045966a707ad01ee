# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Writing to the API server behind answers: whatever it takes, attachment by attachment, and at a pace that it stands.

What nobody waits for waits for the next lull, and then for one of few turns, so that a request that has to be written
through finds the connections free. Where ever more is answered than stored, requests are slowed down.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import nullcontext

from .._kube.errors import ApiError, Unreachable
from .api import Client
from .backoff import Backoff
from .errors import TRY_AGAIN_LATER, CniError
from .lull import Lull

# Writes at once for what is answered already.
WRITES_BEHIND = 8
# With so many attachments answered and not yet stored, requests wait up to PACE_SECONDS for the oldest of them: several
# times as many as a node has pods.
MOST_BEHIND, PACE_SECONDS = 2000, 1.0
# A kubelet gives up on a pod after two minutes; an answer that says why comes well before that.
WRITE_SECONDS = 15.0

log = logging.getLogger(__name__)


class Mirror:
    """What is under way to the API server, by handle; one thing after the other for each. `turn`: one of the turns."""

    def __init__(self, client: Client):
        self._client = client
        self._tasks: dict[str, asyncio.Task] = {}
        self._lull = Lull()
        self._trouble = "it is slow"
        self.turn = asyncio.Semaphore(WRITES_BEHIND)

    def __contains__(self, handle: str) -> bool:
        return handle in self._tasks

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    async def admit(self) -> None:
        """A request came. Wait where an API server that answers gets ever more of them than it stores."""
        self._lull.request()
        latest = time.monotonic() + PACE_SECONDS
        while len(self._tasks) >= MOST_BEHIND and not self._client.seconds_away:
            if (left := latest - time.monotonic()) <= 0:
                return
            self._lull.cut()
            await asyncio.wait({next(iter(self._tasks.values()))}, timeout=left)

    def why_not_in_time(self) -> str | None:
        """Why nothing new would be stored in time, so that it need not be tried; None where it may be.

        What is tried leaves something to be cleared up behind it, and runtimes come again and again.
        """
        if (away := self._client.seconds_away) > WRITE_SECONDS:
            return f"{self._client.name} has not answered for {away:.0f} s"
        if len(self._tasks) >= MOST_BEHIND:
            return f"{len(self._tasks)} attachments wait for {self._client.name}: {self._trouble}"
        return None

    def lull(self) -> asyncio.Task:
        """The next lull, as in `Lull.coming`."""
        return self._lull.coming()

    def hurry(self, handle: str) -> None:
        """Somebody waits for what is under way of `handle`, which may itself wait for a lull."""
        if handle in self:
            self._lull.cut()

    def write(self, handle: str, write: Callable[[], Awaitable[None]], gather: bool = False) -> asyncio.Task:
        """Carry out `write` after what the handle has under way, until it succeeds.

        With `gather` it waits for the next lull, and for its turn.
        """
        before = self._tasks.get(handle)
        lull = self.lull() if gather else None

        async def persist() -> None:
            if before is not None:
                await asyncio.wait({before})
            backoff = Backoff()
            while True:
                retry_after = None
                try:
                    async with self.turn if lull else nullcontext():
                        # Only those whose turn it is wait for the lull: when it comes, few tasks wake up at once.
                        if lull:
                            await asyncio.wait({lull})
                        return await write()
                except (ApiError, Unreachable, CniError) as error:
                    retry_after = getattr(error, "retry_after", None)
                    self._trouble = str(error)
                    log.warning("handle %s waits for %s: %s", handle, self._client.name, error)
                except Exception:  # a bug: what is recorded here must not be lost with the task
                    log.exception("handle %s is not stored", handle)
                await backoff.pause(retry_after)

        task = self._tasks[handle] = asyncio.get_running_loop().create_task(persist())
        task.add_done_callback(lambda done: self._tasks.get(handle) is done and self._tasks.pop(handle))
        return task

    async def in_time(self, work: Sequence[asyncio.Future], what: str) -> None:
        """Wait until all of `work` is stored, and raise what went wrong. What takes too long goes on by itself."""
        _done, pending = await asyncio.wait(work, timeout=WRITE_SECONDS)
        if pending:
            message = f"{what}: not stored at {self._client.name} within {WRITE_SECONDS:.0f} s: {self._trouble}"
            raise CniError(TRY_AGAIN_LATER, message, "see: journalctl -u podnet-ipam")
        for future in work:
            future.result()

    async def stop(self, seconds: float) -> None:
        """Let what is under way come to its end; what does not is finished by the next run."""
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=seconds)
        for task in self._tasks.values():
            task.cancel()
