# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""What is answered already can wait: a burst of pods is answered first, and then shares its writes."""

from __future__ import annotations

import asyncio

QUIET_SECONDS = 0.1
# However long a burst lasts, the API server hears of an address after this time.
LONGEST_SECONDS = 2.0


class Lull:
    """Waits until no request has come for QUIET_SECONDS. One timer serves all who wait."""

    def __init__(self) -> None:
        self._last = 0.0
        self._watch: asyncio.Task | None = None

    def request(self) -> None:
        """A request came."""
        self._last = asyncio.get_running_loop().time()

    async def wait(self) -> None:
        """Return in the next lull, or when the one before it that someone waits for has come."""
        if self._watch is None or self._watch.done():
            self._watch = asyncio.get_running_loop().create_task(self._until_quiet())
        # A waiter that is cancelled must not take the timer away from the others.
        await asyncio.shield(self._watch)

    async def _until_quiet(self) -> None:
        loop = asyncio.get_running_loop()
        latest = loop.time() + LONGEST_SECONDS
        while (pause := min(self._last + QUIET_SECONDS, latest) - loop.time()) > 0:
            await asyncio.sleep(pause)
