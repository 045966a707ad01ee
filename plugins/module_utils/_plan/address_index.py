# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Finding the network that an address lies in, among thousands, without trying them all.

Addresses of both families are *numbers* here: IPv6 ones lie above all of IPv4, so that one order serves both.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_right

_IPV6 = 1 << 128


def number(address):
    """The number of an `ipaddress` address."""
    return int(address) + (_IPV6 if address.version == 6 else 0)


def family_of(value):
    """4 or 6."""
    return 6 if value >= _IPV6 else 4


def address_of(value):
    """The canonical text of the address with this number."""
    return str(ipaddress.IPv6Address(value - _IPV6) if value >= _IPV6 else ipaddress.IPv4Address(value))


def bounds(network):
    """(first, last) number of a network."""
    first = number(network.network_address)
    return first, first + network.num_addresses - 1


class AddressIndex:
    """What belongs to each of a set of networks. Networks may contain each other: the smallest one counts."""

    def __init__(self, networks):
        """`networks`: pairs of an `ipaddress` network and what belongs to it."""
        entries = ((*bounds(network), value) for network, value in networks)
        ordered = sorted(entries, key=lambda each: (each[0], -each[1]))
        self._starts = [first for first, _last, _value in ordered]
        self._entries = []
        open_entries = []
        for position, (_first, last, value) in enumerate(ordered):
            # Two networks are disjoint or one contains the other, so the open ones form a stack.
            while open_entries and ordered[open_entries[-1]][1] < last:
                open_entries.pop()
            self._entries.append((last, value, open_entries[-1] if open_entries else -1))
            open_entries.append(position)

    def find(self, value, last=None):
        """What belongs to the smallest network with the number `value`, and with `last` if given; None without one."""
        position = bisect_right(self._starts, value) - 1
        last = value if last is None else last
        while position >= 0:
            end, found, enclosing = self._entries[position]
            if last <= end:
                return found
            position = enclosing
        return None

    def find_network(self, network):
        """What belongs to the smallest network that contains all of `network`."""
        return self.find(*bounds(network))


class Ranges:
    """A set of addresses, as a union of networks."""

    def __init__(self, networks):
        self._starts, self._ends = [], []
        for first, last in sorted(bounds(network) for network in networks):
            if self._ends and first <= self._ends[-1] + 1:
                self._ends[-1] = max(self._ends[-1], last)
            else:
                self._starts.append(first)
                self._ends.append(last)

    def __contains__(self, value):
        position = bisect_right(self._starts, value) - 1
        return position >= 0 and value <= self._ends[position]

    def count(self, first, last):
        """How many addresses of the set lie from number `first` to `last`."""
        position = max(bisect_right(self._starts, first) - 1, 0)
        total = 0
        while position < len(self._starts) and self._starts[position] <= last:
            total += max(min(self._ends[position], last) - max(self._starts[position], first) + 1, 0)
            position += 1
        return total
