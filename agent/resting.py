# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Freed addresses that rest: nobody gets them unasked for a time, or only the pod for which they are kept."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Keep:
    """Whom an address is kept for when it is freed (a text, empty: nobody), and for how many seconds."""

    pod: str = ""
    seconds: float = 0.0


FOR_NOBODY = Keep()


class Resting:
    """The resting ordinals of one block. Iterating gives those that have not been taken out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        # By ordinal: when it ends, and whom it is kept for. The heap may hold former ends as well.
        self._entries: dict[int, tuple[float, str]] = {}
        self._ends: list[tuple[float, int]] = []

    def __iter__(self) -> Iterator[int]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, ordinals: Iterable[int], seconds: float, pod: str = "") -> None:
        """Let ordinals rest from now on. One that rests already does so until the later of both ends."""
        for ordinal in ordinals:
            until, former = self._entries.get(ordinal, (0.0, ""))
            until = max(until, self._clock() + seconds)
            self._entries[ordinal] = (until, pod or former)
            heapq.heappush(self._ends, (until, ordinal))

    def remove(self, ordinal: int) -> None:
        """An ordinal is in use again."""
        self._entries.pop(ordinal, None)

    def take_rested(self) -> list[int]:
        """Take out the ordinals whose time is over."""
        rested = []
        while self._ends and self._ends[0][0] <= self._clock():
            end, ordinal = heapq.heappop(self._ends)
            if self._is_valid(end, ordinal):
                del self._entries[ordinal]
                rested.append(ordinal)
        return rested

    @property
    def seconds(self) -> float | None:
        """How long the next one still rests; None when none rests."""
        while self._ends and not self._is_valid(*self._ends[0]):
            heapq.heappop(self._ends)
        return self._ends[0][0] - self._clock() if self._ends else None

    def kept_for(self, pod: str) -> list[int]:
        """The ordinals that rest for a pod."""
        return [ordinal for ordinal, (_until, owner) in self._entries.items() if owner == pod]

    def pod(self, ordinal: int) -> str:
        """The pod that an ordinal rests for; empty when it rests for nobody or does not rest."""
        return self._entries.get(ordinal, (0.0, ""))[1]

    def _is_valid(self, end: float, ordinal: int) -> bool:
        return self._entries.get(ordinal, (None, ""))[0] == end
