# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Questions about sets of CIDRs."""

from __future__ import annotations

import traceback

try:
    from netaddr import AddrFormatError, IPNetwork, IPSet

    NETADDR_IMPORT_ERROR = None
except ImportError:
    NETADDR_IMPORT_ERROR = traceback.format_exc()


def parse(cidrs):
    """(IPSet of those that are CIDRs, list of those that are none)."""
    networks, malformed = [], []
    for cidr in cidrs:
        try:
            networks.append(IPNetwork(cidr))
        except (AddrFormatError, ValueError, TypeError):
            malformed.append(cidr)
    return IPSet(networks), malformed


def has_family(ranges, version):
    """Whether an IPSet holds any address of IP version 4 or 6."""
    return any(network.version == version for network in ranges.iter_cidrs())


def lies_in(network, ranges):
    """Whether an `ipaddress` network lies wholly in an IPSet, be it across several of its ranges."""
    return IPNetwork(str(network)) in ranges


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
