# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Pools named as address ranges: by the runtime, with the capability `ipRanges`, or by `ipam.ranges`, host-local's key.

Source: CNI conventions ("IP Ranges") and host-local. It is a list of sets; a pod gets one address out of each set, out
of any of its ranges:

    subnet      a CIDR; here, that of a pool
    rangeStart  the first and the last address that are given out; here, nothing may be left out but the first and the
    rangeEnd    last address of the subnet, as pools are given out as a whole
    gateway     the gateway of the subnet, otherwise that of the main plugin's kind of network (result.py)

A pod has one address of each family, so that there is one set for each at most.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from .._core.names import network
from .errors import INVALID_CONFIGURATION, CniError


@dataclass(frozen=True)
class Ranges:
    """The CIDRs of each family (4, 6) that there is a set of, and the gateways."""

    pools: dict[int, list[str]] = field(default_factory=dict)
    gateways: tuple = ()


def asked_ranges(config: dict) -> Ranges:
    """What the runtime asks for in a network configuration. CniError names what cannot be used."""
    return _read((config.get("runtimeConfig") or {}).get("ipRanges"), "capability ipRanges")


def configured_ranges(plugin: dict) -> Ranges:
    """What the `ipam` object of a network configuration says. CniError names what cannot be used."""
    ranges = _read(plugin.get("ranges"), "ipam.ranges")
    for family in ranges.pools:
        if plugin.get(f"ipv{family}_pools"):
            message = f"ipam.ranges and ipam.ipv{family}_pools both name pools for IPv{family}: leave one of them out"
            raise CniError(INVALID_CONFIGURATION, message)
    return ranges


def _read(sets: object, where: str) -> Ranges:
    pools: dict[int, list[str]] = {}
    gateways = []
    try:
        for each in sets or ():
            subnets = [_subnet(entry) for entry in each]
            families = {subnet.version for subnet in subnets}
            if len(families) != 1:
                raise ValueError("the ranges of a set must be of one family, and there must be one at least")
            family = families.pop()
            if family in pools:
                raise ValueError(f"there are two sets of IPv{family}, of which a pod gets one address")
            pools[family] = [str(subnet) for subnet in subnets]
            gateways += [ipaddress.ip_address(entry["gateway"]) for entry in each if entry.get("gateway")]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        problem = str(error) if isinstance(error, ValueError) else "a list of lists of objects with subnet is expected"
        raise CniError(INVALID_CONFIGURATION, f"{where} is {sets!r}: {problem}") from None
    return Ranges(pools, tuple(gateways))


def _subnet(entry: dict):
    subnet = network(entry["subnet"])
    first, last = subnet.network_address, subnet.broadcast_address
    start = ipaddress.ip_address(entry.get("rangeStart") or str(first))
    end = ipaddress.ip_address(entry.get("rangeEnd") or str(last))
    if start not in subnet or end not in subnet:
        raise ValueError(f"rangeStart and rangeEnd of {subnet} must lie in it")
    if int(start) > int(first) + 1 or int(end) < int(last) - 1:
        hint = "keep single addresses back by an IPReservation, or make a pool of the range"
        raise ValueError(f"{start} to {end} is a part of {subnet} only, and pools are given out as a whole: {hint}")
    return subnet
