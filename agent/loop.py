# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""An event loop that says for how long it was busy.

Between two looks for events the loop runs everything that is ready, and whoever connects meanwhile waits. A task that
sleeps and compares clocks would see a stretch of 5 ms only where it wakes more often than that, idle or not. The loop's
selector sees each stretch from end to end, and costs nothing while there is nothing to do.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from bisect import bisect_left

# Upper bounds in seconds. The loop is not to be busy for longer than 5 ms.
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class Busy:
    """How long each stretch was: how many were within each of BOUNDS and how many longer, their sum and the longest."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0
        self.longest = 0.0

    def note(self, seconds: float) -> None:
        # On every turn of the loop: a histogram of prometheus_client, which takes locks, costs several times as much.
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds
        if seconds > self.longest:
            self.longest = seconds


class _MeasuringSelector(selectors.DefaultSelector):
    """Notes the time between the return of `select` and its next call."""

    def __init__(self) -> None:
        super().__init__()
        self.busy = Busy()
        self._since = time.perf_counter()

    def select(self, timeout: float | None = None):
        self.busy.note(time.perf_counter() - self._since)
        events = super().select(timeout)
        self._since = time.perf_counter()
        return events


class MeasuredLoop(asyncio.SelectorEventLoop):
    """The standard loop, and in `busy` how long its stretches were."""

    def __init__(self) -> None:
        selector = _MeasuringSelector()
        self.busy = selector.busy
        super().__init__(selector)
