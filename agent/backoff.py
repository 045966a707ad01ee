# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Pauses between tries: growing, bounded, and scattered so that a cluster's nodes do not come back in step."""

from __future__ import annotations

import asyncio
import random

FIRST_SECONDS = 0.05
LONGEST_SECONDS = 10.0


class Backoff:
    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._next = FIRST_SECONDS

    async def pause(self, retry_after: float | None) -> None:
        """Wait after a failed try, at least for the seconds that the API server's answer named, if it did."""
        least = min(retry_after or 0.0, LONGEST_SECONDS)
        await asyncio.sleep(max(self._next * random.uniform(0.5, 1), least))
        self._next = min(self._next * 2, LONGEST_SECONDS)
