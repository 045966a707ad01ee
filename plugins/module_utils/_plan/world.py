# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""A cluster as an audit sees it: what was read, and the ways in which its parts refer to each other."""

from __future__ import annotations

import calendar
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, replace

from .._core.names import is_deleted
from . import assignments, in_use, ranges
from .address_index import AddressIndex
from .allocations import LOAD_BALANCER, allocations, live

_TIMESTAMP = "%Y-%m-%d %H:%M:%S"  # of an allocation, in UTC; fractions and zone follow
_CREATED = "%Y-%m-%dT%H:%M:%SZ"  # of an object


@dataclass(frozen=True)
class Observed:
    """Objects as read, lists of them. `pools` maps names to IPPool objects, `now` is in seconds since 1970.

    `pod_cidrs` are the cluster's, `service_cidrs` as well, but as `network_checks.Cidrs`; None when they are not known.
    """

    pools: dict
    now: float
    namespaces: tuple = ()
    nodes: tuple = ()
    pods: tuple = ()
    services: tuple = ()
    blocks: tuple = ()
    affinities: tuple = ()
    handles: tuple = ()
    pod_cidrs: tuple | None = None
    service_cidrs: tuple | None = None

    def seen_again(self, latest):
        """With what `latest` has instead: {(kind, namespace, name): the object, or None when it is gone}.

        The same Observed when nothing has changed.
        """
        changed = {}
        for attribute, kind in COLLECTIONS.items():
            known = {key_of(kind, each): each for each in getattr(self, attribute)}
            new = {key: obj for key, obj in latest.items() if key[0] == kind and _differ(obj, known.get(key))}
            if new:
                merged = {**known, **new}
                changed[attribute] = tuple(obj for obj in merged.values() if obj is not None)
        return replace(self, **changed) if changed else self


# The collections of which single objects are looked at again.
COLLECTIONS = {
    "nodes": "Node",
    "pods": "Pod",
    "blocks": "IPAMBlock",
    "affinities": "BlockAffinity",
    "handles": "IPAMHandle",
}


def _differ(one, other):
    """Whether two readings of an object, None where it did not exist, are not of one version."""
    versions = [each and each["metadata"].get("resourceVersion") for each in (one, other)]
    return versions[0] != versions[1]


def key_of(kind, obj):
    return kind, obj["metadata"].get("namespace"), obj["metadata"]["name"]


@dataclass(frozen=True)
class World:
    """`grace` (seconds): what is younger may be on its way, and is not judged.

    `pods` maps (namespace, name), `namespaces` and `nodes` names, to objects. `blocks` maps networks to IPAMBlocks,
    `affinities` to lists of BlockAffinities. `allocated` maps numbers of addresses to lists of Allocations, `users` to
    lists of in_use.User; `pod_addresses` maps (namespace, name) to such numbers. `holdings` maps handles to {CIDR of a
    block: how many addresses}, `handles` to IPAMHandles. `handles_in_use` are those with an address that somebody uses.
    """

    observed: Observed
    grace: float
    pools: dict
    pool_index: AddressIndex
    namespaces: dict
    nodes: dict
    pods: dict
    blocks: dict
    affinities: dict
    allocated: dict
    users: dict
    pod_addresses: dict
    holdings: dict
    handles: dict
    handles_in_use: frozenset

    def pool_at(self, value):
        """The Pool in which the address with this number lies, or None."""
        return self.pool_index.find(value)

    def is_young(self, obj):
        """Whether an object was created less than `grace` seconds ago."""
        return self._is_recent(obj["metadata"].get("creationTimestamp"), _CREATED)

    def is_recent(self, allocation):
        """Whether an address was allocated less than `grace` seconds ago; no when nothing says when."""
        return self._is_recent((allocation.owner.get("timestamp") or "")[:19], _TIMESTAMP)

    def _is_recent(self, text, form):
        try:
            return self.observed.now - calendar.timegm(time.strptime(text, form)) < self.grace
        except (ValueError, TypeError):
            return False


def world(observed, grace):
    """The World of what was read."""
    pools = assignments.readable(observed.pools)
    allocated, holdings = defaultdict(list), defaultdict(Counter)
    for each in allocations(observed.blocks):
        allocated[each.value].append(each)
        if each.handle and not each.is_reserved_for_windows:
            holdings[each.handle][_cidr(each)] += 1

    def serves_load_balancers(value):
        return any(each.block["spec"].get("affinity") == LOAD_BALANCER for each in allocated.get(value, ()))

    pods = {(pod["metadata"]["namespace"], pod["metadata"]["name"]): pod for pod in observed.pods}
    pod_addresses = {key: in_use.pod_addresses(pod) for key, pod in pods.items()}
    spares = [each for held in allocated.values() for each in held if each.is_spare]
    users = in_use.users(pods, pod_addresses, observed.nodes, observed.services, spares, serves_load_balancers)
    affinities = defaultdict(list)
    for affinity, network in live(observed.affinities):
        affinities[network].append(affinity)
    return World(
        observed=observed,
        grace=grace,
        pools=pools,
        pool_index=AddressIndex([(pool.network, pool) for pool in pools.values()]),
        namespaces=_by_name(observed.namespaces),
        nodes=_by_name(observed.nodes),
        pods=pods,
        blocks={network: block for block, network in live(observed.blocks)},
        affinities=affinities,
        allocated=allocated,
        users=users,
        pod_addresses=pod_addresses,
        holdings=holdings,
        handles={each["spec"].get("handleID"): each for each in observed.handles if not is_deleted(each)},
        handles_in_use=frozenset(each.handle for value in users for each in allocated.get(value, ())),
    )


def _by_name(objects):
    return {each["metadata"]["name"]: each for each in objects}


def _cidr(allocation):
    """The CIDR of an allocation's block in the spelling that handles use."""
    return allocation.block["spec"]["cidr"]


def canonical(cidr):
    """One spelling for equal CIDRs; what is none stays as it is."""
    network = ranges.network(cidr)
    return str(network) if network else cidr
