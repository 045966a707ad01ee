# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Questions about sets of CIDRs."""

from __future__ import annotations

import traceback

from .._core import names
from .._core.carve import overlaps

try:
    from netaddr import AddrFormatError, IPNetwork, IPSet

    NETADDR_IMPORT_ERROR = None
except ImportError:
    NETADDR_IMPORT_ERROR = traceback.format_exc()


def network_of(obj):
    """The `ipaddress` network of a block or an affinity, or None."""
    return network(obj["spec"].get("cidr"))


def pool_network(pool):
    """The `ipaddress` network of a stored pool, or None. As in Calico, host bits that nobody refused mean nothing."""
    return network(pool["spec"].get("cidr"), strict=False)


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


def merged(cidrs):
    """The fewest CIDRs that hold the same addresses, sorted, IPv4 first. The CIDRs have no host bits."""
    return [str(network) for network in IPSet(cidrs).iter_cidrs()]


def remaining(cidrs, used):
    """The fewest CIDRs that hold what is in `cidrs` and not in `used`, sorted."""
    return [str(network) for network in (IPSet(cidrs) - IPSet(used)).iter_cidrs()]


def meet(one, other):
    """Whether two lists of CIDRs have an address in common."""
    return not IPSet(one).isdisjoint(IPSet(other))


def lie_within(inner, outer):
    """Whether every address of the CIDRs `inner` is in one of `outer`, be it across several of them."""
    return IPSet(inner).issubset(IPSet(outer))


def network(cidr, strict=True):
    """The `ipaddress` network of a text, or None when it is none. `strict`: host bits are not allowed."""
    try:
        return names.network(cidr, strict)
    except (ValueError, TypeError):
        return None


def meetings(ones, others):
    """(one, other) for each pair whose networks overlap. Both are iterables of (value, `ipaddress` network) pairs."""
    tagged = [((True, value), network) for value, network in ones]
    tagged += [((False, value), network) for value, network in others]
    for (first, value), (second, other) in overlaps(tagged):
        if first != second:
            yield (value, other) if first else (other, value)
