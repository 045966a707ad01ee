# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Stale pods: running pods with addresses that their present assignment would not give them."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from . import assignments

_FINISHED = ("Succeeded", "Failed")


@dataclass(frozen=True)
class Allowed:
    """The addresses that a pod may have.

    `networks` maps a family (4, 6) to what it may be drawn from, {name: `ipaddress` network}; a family that is not in
    it is not restricted. `families` are those of which the pod has to have an address, and has no other; None when
    nothing says so.
    """

    networks: dict
    families: frozenset | None = None


def allowed(pools, pod, namespace=None):
    """The Allowed of a pod with the annotations `pod` in a namespace with the annotations `namespace`.

    `pools` are Pools by name. For each key the pod's value wins, as in Calico. What is malformed, names no pool that
    exists or leaves the choice to selectors restricts nothing.
    """
    own = assignments.view(pod, assignments.WORKLOAD_OPTIONS)
    fixed = own["ip_addrs"]
    if isinstance(fixed, str):
        return Allowed({})
    if fixed:
        addresses = [ipaddress.ip_network(address) for address in fixed]
        return Allowed(
            {each.version: {str(each[0]): each} for each in addresses}, frozenset(each.version for each in addresses)
        )
    inherited = assignments.view(namespace or {}, assignments.NAMESPACE_OPTIONS)
    winning = {option: inherited[option] if own[option] is None else own[option] for option in inherited}
    networks = {}
    for option, family in assignments.POOL_OPTIONS.items():
        found = _networks(winning[option], pools) if isinstance(winning[option], list) else {}
        if found:
            networks[family] = found
    names = winning["families"]
    families = frozenset(assignments.FAMILIES[name] for name in names) if isinstance(names, list) else None
    return Allowed(networks, families)


def outside(addresses, permitted):
    """(those of `addresses` that are not allowed, the reasons as texts). `permitted`: an Allowed.

    A pod without any address is not judged: it is starting.
    """
    wrong, reasons = [], []
    for address in addresses:
        reason = _why_not(address, permitted)
        if reason:
            wrong.append(str(address))
            reasons.append(reason)
    if addresses:
        missing = (permitted.families or frozenset()) - {address.version for address in addresses}
        reasons += [f"it has no IPv{family} address" for family in sorted(missing)]
    return wrong, reasons


def addresses_of(pod):
    """The `ipaddress` addresses of a pod that runs and has its own; [] of one that has finished, is being deleted, or
    is in the node's network.
    """
    status = pod.get("status") or {}
    over = status.get("phase") in _FINISHED or pod["metadata"].get("deletionTimestamp")
    if over or (pod.get("spec") or {}).get("hostNetwork"):
        return []
    return [ipaddress.ip_address(each["ip"]) for each in status.get("podIPs") or () if each.get("ip")]


def stale_pods(pods, permitted):
    """(pod, addresses, reasons) of the stale ones among the pods of one assignment, by name."""
    found = []
    for pod in sorted(pods, key=lambda each: each["metadata"]["name"]):
        wrong, reasons = outside(addresses_of(pod), permitted)
        if reasons:
            found.append((pod, wrong, reasons))
    return found


def _networks(entries, pools):
    found = (assignments.look_up(entry, pools) for entry in entries)
    return {pool.name: pool.network for pool in found if pool}


def _why_not(address, permitted):
    family = address.version
    if permitted.families is not None and family not in permitted.families:
        wanted = " and ".join(f"IPv{each}" for each in sorted(permitted.families))
        return f"{address} is IPv{family}, and only {wanted} is wanted"
    networks = permitted.networks.get(family)
    if networks is None or any(address in network for network in networks.values()):
        return None
    return f"{address} is not from {' or '.join(networks)}"
