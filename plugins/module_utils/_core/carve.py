# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Carve a range into named parts, each of which takes the first aligned gap that is left.

A part's place depends only on what exists and on the parts before it, so one that is appended moves no other. A range
is (first address, size) in integers. Sizes are powers of two and a range starts at a multiple of its size; free space
is therefore a set of largest such ranges, and the lowest gap for a size is the start of the lowest of them that is at
least that large. Nothing is enumerated: IPv6 costs what IPv4 costs.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import dataclass
from heapq import heappop, heappush


class CarveError(ValueError):
    """What was asked for cannot be had. The text names every part that is wrong, and what would be right."""


@dataclass(frozen=True)
class Part:
    """A part to carve out: `prefix` is its prefix length, `addresses` how many it has at least; one of them is set."""

    name: str
    prefix: int | None = None
    addresses: int | None = None

    def prefix_length(self, network):
        """The part's prefix length in a network's family."""
        if self.prefix is not None:
            return self.prefix
        return network.max_prefixlen - (self.addresses - 1).bit_length()

    def problem(self, network):
        """Why no part of a network has this size; None when one can."""
        if (self.prefix is None) == (self.addresses is None):
            given = "neither is" if self.prefix is None else "both are"
            return f"one of prefix and addresses says its size, but {given} given"
        if self.prefix is not None:
            if not network.prefixlen <= self.prefix <= network.max_prefixlen:
                allowed = f"{network.prefixlen} to {network.max_prefixlen}"
                return f"prefix {self.prefix} is no size of a part of {network}: {allowed} are"
        elif not 1 <= self.addresses <= network.num_addresses:
            allowed = f"1 to {network.num_addresses}"
            return f"addresses {self.addresses} is no size of a part of {network}: {allowed} are"
        return None


class FreeSpace:
    """What is left of the range (first, size) without the ranges of `taken`, which may overlap and lie outside."""

    def __init__(self, first, size, taken=()):
        self._starts = {}  # by size: a heap of the starts of free ranges
        end, cursor = first + size, first
        for start, length in sorted(taken):
            self._add(cursor, min(start, end))
            cursor = max(cursor, start + length)
        self._add(cursor, end)

    def take(self, size):
        """Take the first aligned gap of this size, a power of two, and return its start; None when there is none."""
        candidates = [(starts[0], length) for length, starts in self._starts.items() if starts and length >= size]
        if not candidates:
            return None
        start, length = min(candidates)
        heappop(self._starts[length])
        self._add(start + size, start + length)
        return start

    def largest(self):
        """The size of the largest gap, 0 when nothing is left."""
        return max((length for length, starts in self._starts.items() if starts), default=0)

    def _add(self, first, end):
        """Add what lies between two addresses as ranges that are as large as their alignment and the end allow."""
        while first < end:
            size = 1 << ((end - first).bit_length() - 1)
            if first:
                size = min(size, first & -first)
            heappush(self._starts.setdefault(size, []), first)
            first += size


def carve(cidr, parts, existing=None):
    """CIDRs for `parts`, in their order; CarveError, which names all problems, when they cannot be had.

    `existing` maps names to CIDRs. A part of such a name has its place already and keeps it. The place of any other
    name counts as taken, as far as it lies in `cidr`.
    """
    space = _network(cidr, "the range to carve")
    taken = {name: _network(text, f"existing {name}") for name, text in (existing or {}).items()}
    problems = [
        *_repeated_names(parts),
        *_size_problems(space, parts, taken),
        *_overlapping(parts, taken),
    ]
    if problems:
        raise CarveError("; ".join(problems))
    return _place(space, parts, taken)


def overlaps(named):
    """Pairs of names whose `ipaddress` networks overlap, out of (name, network) pairs: the wider one first.

    Two CIDRs overlap only when one contains the other, so in order of their first address the open ones form a stack.
    """
    ordered = sorted(named, key=lambda each: (each[1].version, int(each[1][0]), each[1].prefixlen))
    enclosing = []
    for name, network in ordered:
        while enclosing and not enclosing[-1][1].overlaps(network):
            enclosing.pop()
        for outer, _network in enclosing:
            yield outer, name
        enclosing.append((name, network))


def _place(space, parts, taken):
    free = FreeSpace(*_extent(space), [_extent(each) for each in taken.values() if each.version == space.version])
    placed, problems = [], []
    for part in parts:
        if part.name in taken:
            placed.append(str(taken[part.name]))
            continue
        prefix = part.prefix_length(space)
        first = free.take(1 << (space.max_prefixlen - prefix))
        if first is None:
            problems.append(f"{part.name}: no room for a /{prefix} in {space}, {_left(space, free)}")
        else:
            placed.append(str(type(space)((first, prefix))))
    if problems:
        hint = "; what exists and is to go has to be left out of existing" if taken else ""
        raise CarveError("; ".join(problems) + hint)
    return placed


def _left(space, free):
    size = free.largest()
    return (
        f"the largest gap is a /{space.max_prefixlen - size.bit_length() + 1}" if size else "of which nothing is left"
    )


def _size_problems(space, parts, taken):
    for part in parts:
        problem = part.problem(space)
        if problem is None and part.name in taken:
            problem = _displaced(space, part, taken[part.name])
        if problem:
            yield f"{part.name}: {problem}"


def _displaced(space, part, place):
    """Why a part that exists cannot stay where it is; None when it can."""
    if place.version != space.version or not place.subnet_of(space):
        return f"it exists as {place}, which does not lie in {space}"
    prefix = part.prefix_length(space)
    if place.prefixlen == prefix:
        return None
    asked = f"prefix {prefix}" if part.prefix is not None else f"addresses {part.addresses}, a /{prefix},"
    return f"it exists as {place}, but {asked} is asked for; a pool cannot change its size: carve one of a new name"


def _repeated_names(parts):
    counts = Counter(part.name for part in parts)
    for name in sorted(name for name, count in counts.items() if count > 1):
        yield f"{name}: it stands {counts[name]} times in the list; each name may stand once"


def _overlapping(parts, taken):
    """Existing parts that lie over another existing range: neither could be kept without the other moving."""
    wanted = {part.name for part in parts}
    for outer, inner in overlaps(taken.items()):
        if outer in wanted or inner in wanted:
            yield f"existing {inner} ({taken[inner]}) overlaps existing {outer} ({taken[outer]})"


def _extent(network):
    return int(network.network_address), network.num_addresses


def _network(cidr, what):
    try:
        return ipaddress.ip_network(cidr)
    except (ValueError, TypeError):
        raise CarveError(f"{what}: {cidr!r} is not a CIDR without host bits, such as 10.244.0.0/16") from None
