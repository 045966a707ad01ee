# SPDX-License-Identifier: Apache-2.0
"""Is there an order of requests, one after the other, that explains what concurrent clients saw?

Each request takes effect at one moment between its call and its answer (Herlihy and Wing: linearizability). The search
is Wing and Gong's, with Lowe's memory of what has been tried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """A request and its answer, with the moments of both. `address` is what an ADD got; None where it was refused."""

    called: float
    answered: float
    verb: str
    container: str
    address: str | None = None


def after(held: Mapping[str, str], event: Event, addresses: frozenset[str]) -> Mapping[str, str] | None:
    """What containers hold after a request that met `held` of these addresses; None when its answer were a lie."""
    if event.verb == "DEL":
        return {container: address for container, address in held.items() if container != event.container}
    if event.container in held:
        return held if event.address == held[event.container] else None
    free = addresses - set(held.values())
    if event.address is None:
        return None if free else held
    return {**held, event.container: event.address} if event.address in free else None


def is_linearizable(history: Sequence[Event], addresses: frozenset[str]) -> bool:
    """Whether ADDs and DELs of one node that has these addresses, and none held at first, could have been so."""
    events = sorted(history, key=lambda event: event.answered)
    tried: set[tuple[int, frozenset]] = set()
    # What is left, as bits, and what is held then.
    paths: list[tuple[int, Mapping[str, str]]] = [((1 << len(events)) - 1, {})]
    while paths:
        left, held = paths.pop()
        if not left:
            return True
        if (left, frozenset(held.items())) in tried:
            continue
        tried.add((left, frozenset(held.items())))
        # In reverse, so that the one that was answered first is tried first.
        for index in reversed(_possible_next(events, left)):
            then = after(held, events[index], addresses)
            if then is not None:
                paths.append((left & ~(1 << index), then))
    return False


def _possible_next(events: Sequence[Event], left: int) -> list[int]:
    """Those that were called before any other that is left was answered."""
    indices = [index for index in range(len(events)) if left >> index & 1]
    first_answer = events[indices[0]].answered
    return [index for index in indices if events[index].called <= first_answer]
