# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Calico's objects in the user's words: reservations, the configuration, blocks, and single addresses."""

from __future__ import annotations

from collections import Counter

from . import config as settings
from .address_index import AddressIndex, address_of, number
from .allocations import WINDOWS_RESERVED, allocations, host_of, live
from .ranges import pool_network


def config(obj):
    """The options of module `ipam_config` as the configuration has them. `stored`: whether there is one at all."""
    return {**settings.view(obj), "stored": obj is not None}


def reservations(objects):
    """The reservations by name, as module `ip_reservations` takes them."""
    return [
        {
            "name": each["metadata"]["name"],
            "reserved_cidrs": list(each["spec"].get("reservedCIDRs") or ()),
            "labels": dict(each["metadata"].get("labels") or {}),
        }
        for each in sorted(objects, key=lambda each: each["metadata"]["name"])
    ]


def blocks(pools, objects, affinities):
    """The blocks in order of their addresses. `pools` are IPPools."""
    index = pool_index(pools)
    states = {(each["spec"].get("node"), network): _state(each) for each, network in live(affinities)}
    borrowed = Counter(each.block["metadata"]["name"] for each in allocations(objects) if each.is_borrowed)
    found = []
    for block, network in sorted(live(objects), key=lambda each: number(each[1].network_address)):
        affinity = block["spec"].get("affinity")
        used = sum(each is not None for each in block["spec"]["allocations"])
        found.append(
            {
                "cidr": str(network),
                "pool": index.find_network(network),
                "affinity": affinity,
                "node": host_of(block),
                "state": states.get((affinity.partition(":")[2], network)) if affinity else None,
                "size": network.num_addresses,
                "used": used,
                "free": network.num_addresses - used,
                "borrowed": borrowed[block["metadata"]["name"]],
                "claim_time": block["spec"].get("affinityClaimTime"),
            }
        )
    return found


def addresses(pools, objects):
    """Every allocated address, in order."""
    index = pool_index(pools)
    return [
        {
            "address": address_of(each.value),
            "pool": index.find(each.value),
            "block": each.block["spec"]["cidr"],
            "node": each.node,
            "namespace": each.owner.get("namespace"),
            "pod": each.owner.get("pod"),
            "handle": each.handle,
            "type": _type(each),
            "borrowed": each.is_borrowed,
        }
        for each in sorted(allocations(objects), key=lambda each: each.value)
    ]


def pool_index(pools):
    """An AddressIndex with the names of IPPools."""
    networks = ((pool_network(pool), pool["metadata"]["name"]) for pool in pools)
    return AddressIndex([(network, name) for network, name in networks if network])


def _state(affinity):
    """Calico takes an affinity without a state, as old versions wrote it, for a confirmed one."""
    return affinity["spec"].get("state") or "confirmed"


def _type(allocation):
    """What the address is for. Calico marks tunnels and load balancers; a pod's address is not marked.

    By what is stored, the address that keeps a spare block is a tunnel's.
    """
    if allocation.is_cooling:
        return "cooling"
    if allocation.handle == WINDOWS_RESERVED:
        return "windowsReserved"
    if allocation.is_spare:
        return "spareBlock"
    return allocation.owner.get("type") or ("workload" if allocation.pod else None)
