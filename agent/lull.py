# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""What is answered already can wait: a burst of pods is answered first, and then shares its writes."""

from __future__ import annotations

import asyncio

QUIET_SECONDS = 0.1
# However long a burst lasts, the API server hears of an address after this time.
LONGEST_SECONDS = 2.0


class Lull:
    """Tells when no request has come for QUIET_SECONDS."""

    def __init__(self) -> None:
        self._last = 0.0
        self._next: asyncio.Task | None = None
        self._is_cut = False

    def request(self) -> None:
        """A request came."""
        self._last = asyncio.get_running_loop().time()

    def cut(self) -> None:
        """Have the next lull come at once, within QUIET_SECONDS: somebody waits for what waits for it."""
        self._is_cut = True

    def coming(self) -> asyncio.Task:
        """The next lull: a task that is done once it has come, for all who wait. Nobody may cancel it."""
        if self._next is None or self._next.done():
            self._is_cut = False
            self._next = asyncio.get_running_loop().create_task(self._until_quiet())
        return self._next

    async def _until_quiet(self) -> None:
        loop = asyncio.get_running_loop()
        latest = loop.time() + LONGEST_SECONDS
        while not self._is_cut and (pause := min(self._last + QUIET_SECONDS, latest) - loop.time()) > 0:
            await asyncio.sleep(pause)
