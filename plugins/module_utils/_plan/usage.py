# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""How full pools are: addresses counted from blocks and reservations, without listing any range."""

from __future__ import annotations

from collections import defaultdict

from . import pool_view, ranges
from .address_index import Ranges, bounds
from .allocations import allocations, host_of, live
from .listing import pool_index
from .ranges import pool_network

_COUNTS = ("size", "blocks", "used", "free", "borrowed", "reserved")


def usage(pools, blocks, reservations=()):
    """Each pool's view with counts, by name. `pools`, `blocks` and `reservations` are stored objects.

    Of pools that contain each other, the smaller one counts what lies in it. `reserved` counts addresses that are
    reserved and not allocated, so that free - reserved is what a pool can still give unasked.
    """
    networks = {pool["metadata"]["name"]: pool_network(pool) for pool in pools}
    index = pool_index(pools)
    reserved = reserved_ranges(reservations)
    counts = defaultdict(_PoolCount)
    for block, network in live(blocks):
        counts[index.find_network(network)].add_block(block)
    for allocation in allocations(blocks):
        counts[index.find(allocation.value)].add(allocation, allocation.value in reserved)
    found = []
    for pool in sorted(pools, key=lambda each: each["metadata"]["name"]):
        name = pool["metadata"]["name"]
        if networks[name]:
            found.append({**pool_view.stored(pool), **counts[name].describe(networks[name], reserved)})
    return found


def totals(pools):
    """The counts of `usage` summed up by family, {"IPv4": ..., "IPv6": ...}."""
    found = {family: {"pools": 0, **dict.fromkeys(_COUNTS, 0)} for family in ("IPv4", "IPv6")}
    for pool in pools:
        sums = found["IPv6" if ":" in pool["cidr"] else "IPv4"]
        sums["pools"] += 1
        for count in _COUNTS:
            sums[count] += pool[count]
    return found


def reserved_ranges(reservations):
    """The addresses that IPReservation objects keep back, as Ranges. What is malformed is skipped, as in Calico."""
    entries = [entry for each in reservations for entry in each["spec"].get("reservedCIDRs") or ()]
    networks = [ranges.network(entry.strip(), strict=False) for entry in entries]
    return Ranges([network for network in networks if network])


class _PoolCount:
    """What one pool holds so far."""

    def __init__(self):
        self.blocks = self.used = self.borrowed = self.reserved_and_used = 0
        self.nodes = defaultdict(lambda: {"blocks": 0, "used": 0, "borrowed": 0})

    def add_block(self, block):
        self.blocks += 1
        if host_of(block):
            self.nodes[host_of(block)]["blocks"] += 1

    def add(self, allocation, is_reserved):
        node, borrowed = allocation.node, allocation.is_borrowed
        self.used += 1
        self.borrowed += borrowed
        self.reserved_and_used += is_reserved
        if node:
            self.nodes[node]["used"] += 1
            self.nodes[node]["borrowed"] += borrowed

    def describe(self, network, reserved):
        size = network.num_addresses
        return {
            "size": size,
            "blocks": self.blocks,
            "used": self.used,
            "free": size - self.used,
            "borrowed": self.borrowed,
            "reserved": reserved.count(*bounds(network)) - self.reserved_and_used,
            "nodes": [{"name": name, **counts} for name, counts in sorted(self.nodes.items())],
        }
