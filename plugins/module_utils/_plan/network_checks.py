# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Pools against the cluster's network: its pod CIDRs, its services, its nodes.

A pool's CIDR cannot change, so only a new pool can break these rules. Whether there are blocks for all nodes depends on
more than that. A fact that cannot be known is a warning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .._core import selector
from .._core.pool import AUTOMATIC, WORKLOAD, Pool
from . import holders, pool_view, ranges
from .operation import Problem

_LEAVE_OUT = "([] to leave the check out)"


class Cidrs(NamedTuple):
    """CIDRs as texts, and who says so. `partial`: there may be more of them."""

    cidrs: tuple
    source: str
    partial: bool = False


@dataclass(frozen=True)
class Network:
    """What is known about a cluster's network; None is unknown. `nodes` are Node objects."""

    nodes: tuple | None = None
    pod_cidrs: Cidrs | None = None
    service_cidrs: Cidrs | None = None
    strict_affinity: bool | None = None


def known(facts, wanted, needs):
    """The Network of what can be read (`_kube.network`) of what is needed; what the user says need not be."""
    if not needs.nodes:
        return Network()
    asked = [name for name in ("pod_cidrs", "service_cidrs") if needs.cidrs and getattr(wanted, name) is None]
    read = {name: getattr(facts, name) for name in asked}
    cidrs = {name: Cidrs(*value) for name, value in read.items() if value}
    return Network(nodes=facts.nodes, strict_affinity=facts.strict_affinity, **cidrs)


def given(option, cidrs):
    """The Cidrs of an option, None when it was left out."""
    return None if cidrs is None else Cidrs(tuple(cidrs), f"option {option}")


def option_problems(option, cidrs):
    """Entries of option `pod_cidrs` or `service_cidrs` that are no CIDR."""
    for cidr in ranges.parse(cidrs or ())[1]:
        yield Problem(f"option {option}", option, cidr, f"{cidr!r} is not a CIDR such as 10.96.0.0/12")


def serves_nodes(view):
    """Whether nodes draw from a pool unasked, so that each of them should find a block in it."""
    return view["assignment_mode"] == AUTOMATIC and not view["disabled"] and WORKLOAD in view["allowed_uses"]


def widens(before, after):
    """Whether nodes may draw from a pool that did not before."""
    turned = not serves_nodes(before) or before["node_selector"] != after["node_selector"]
    return serves_nodes(after) and turned


def findings(new, network, widened=()):
    """(problems, warnings) about pairs of a pool's view and its `ipaddress` network.

    `widened` are existing pools from which more nodes may draw than before.
    """
    problems, warnings = [], []
    if new:
        problems, warnings = _outside_of_pods(new, network.pod_cidrs)
        for check in (meeting_services, holding_nodes):
            more, remarks = check(new, network)
            problems += more
            warnings += remarks
    if widened and network.nodes is None:
        warnings.append("whether there is a block for each node was not checked: the nodes cannot be read")
    return problems, warnings + _capacity([view for view, _network in (*new, *widened)], network)


def _outside_of_pods(new, known):
    if known is None:
        return [], [f"whether the pools lie in the pod CIDRs was not checked: {_unknown('pod_cidrs')}"]
    covered = ranges.parse(known.cidrs)[0]
    problems, warnings = [], []
    for view, network in new if known.cidrs else ():
        subject, cidrs = f"pool {view['name']}", holders.some(known.cidrs)
        if view["allowed_uses"] == ["LoadBalancer"] or ranges.lies_in(network, covered):
            continue
        if not ranges.has_family(covered, network.version):
            warnings.append(f"{subject}: the pod CIDRs ({cidrs}) have none of IPv{network.version}")
        elif known.partial:
            warnings.append(
                f"{subject}: {network} does not lie in the pod CIDRs that are known ({cidrs}, from {known.source}),"
                " which may be only a part of the cluster's; option pod_cidrs says what they are"
            )
        else:
            message = f"{network} does not lie in the cluster's pod CIDRs ({cidrs}), which are from {known.source}"
            problems.append(Problem(subject, "cidr", view["cidr"], message))
    return problems, warnings


def meeting_services(new, network):
    """(problems, warnings) about pools that overlap the CIDRs of services."""
    known = network.service_cidrs
    if known is None:
        return [], [f"whether the pools overlap those of services was not checked: {_unknown('service_cidrs')}"]
    services = [(cidr, ranges.network(cidr, strict=False)) for cidr in known.cidrs]
    found = ranges.meetings(new, [(cidr, service) for cidr, service in services if service])
    return [
        Problem(f"pool {view['name']}", "cidr", view["cidr"], _SERVICE.format(view["cidr"], cidr, known.source))
        for view, cidr in found
    ], []


_SERVICE = "{} overlaps the cluster's service CIDR {}, which is from {}: an address would mean a pod and a service"


def holding_nodes(new, network):
    """(problems, warnings) about pools that contain addresses of nodes."""
    if network.nodes is None:
        return [], ["whether the pools contain addresses of nodes was not checked: the nodes cannot be read"]
    addresses = {}
    for node in network.nodes:
        for each in (node.get("status") or {}).get("addresses") or ():
            address = ranges.network(each.get("address"))
            if each.get("type") in ("InternalIP", "ExternalIP") and address:
                addresses.setdefault(str(address.network_address), (address, node["metadata"]["name"]))
    places = [((text, name), address) for text, (address, name) in addresses.items()]
    inside = {}
    for view, (text, name) in ranges.meetings(new, places):
        inside.setdefault(view["name"], (view, []))[1].append(f"{text} (node {name})")
    return [
        Problem(f"pool {name}", "cidr", view["cidr"], f"{view['cidr']} contains node addresses: {holders.some(found)}")
        for name, (view, found) in inside.items()
    ], []


def _capacity(views, network):
    """Warnings about pools that cannot give each of their nodes a block."""
    labels = [node["metadata"].get("labels") or {} for node in network.nodes or ()]
    warnings = []
    for view in filter(serves_nodes, views):
        pool = Pool.from_object({"metadata": {"name": view["name"]}, "spec": pool_view.spec(view)})
        try:
            matches = selector.parse(view["node_selector"])
        except selector.SelectorError:
            continue  # it has a problem of its own
        count = sum(map(matches, labels))
        if pool.block_count < count:
            warnings.append(
                f"pool {view['name']}: {count} nodes match its node_selector, but {view['cidr']} has only"
                f" {pool.block_count} blocks of /{view['block_size']}: {_WITHOUT_BLOCK[network.strict_affinity]}"
            )
    return warnings


_WITHOUT_BLOCK = {
    True: "a node without one gets no addresses from it, as strictAffinity is on",
    False: "a node without one can only borrow addresses of others, and not even that where agents keep the routes",
    None: "a node without one gets addresses from it only where nodes may borrow from each other",
}


def _unknown(option):
    return f"the cluster does not say what they are; give them as option {option} {_LEAVE_OUT}"
