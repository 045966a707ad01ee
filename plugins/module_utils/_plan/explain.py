# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Questions about pods, existing or not: which pools each would draw from, and why not from the others."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass, field

from .._core import assignment, explanation, room
from .._core.names import host_affinity, is_deleted
from .._core.pool import pool_of
from . import config, engine
from .address_index import Ranges, bounds, number
from .allocations import live
from .operation import Problem
from .ranges import network_of


@dataclass(frozen=True)
class Observed:
    """`namespaces`, `nodes` and `pods` (by namespace and name) are those that exist of the ones asked about.

    `pools` are Pools by name, `blocks` and `affinities` lists of objects, `reserved` the addresses of reservations.
    `config` is the configuration of address management, None where there is none. `now` is in seconds since 1970.
    """

    namespaces: dict
    nodes: dict
    pods: dict = field(default_factory=dict)
    pools: dict = field(default_factory=dict)
    blocks: tuple = ()
    affinities: tuple = ()
    reserved: Ranges = field(default_factory=lambda: Ranges([]))
    config: dict | None = None
    now: float = 0.0


def problems(questions, observed):
    """What of the questions, the option `explain`, does not exist."""
    for question in questions:
        namespace, node = question["namespace"], question["node"]
        subject = f"pod of namespace {namespace} on node {node}"
        if namespace not in observed.namespaces:
            yield Problem(subject, "namespace", namespace, f"namespace {namespace!r} does not exist")
        if node not in observed.nodes:
            yield Problem(subject, "node", node, f"node {node!r} does not exist")


def explain(question, observed):
    """The answer to one question without problems."""
    subject = _subject(question, observed)
    default = [assignment.FAMILIES[name] for name in question["families"]]
    asked = {"namespace": subject.namespace, "node": subject.node, "pod": question.get("pod")}
    view = _view(subject, observed)
    return {**asked, **explanation.explain(subject, default, observed.pools.values(), view)}


def _view(subject, observed):
    """What the agent of the pod's node sees, as far as it is stored in the cluster."""
    node, settings = subject.node, config.view(observed.config)
    since, reserved = observed.now - room.RECLAIM_SECONDS, observed.reserved
    claims = [(str(network), *_claim(each)) for each, network in live(observed.affinities)]
    mine = {cidr for cidr, owner, confirmed in claims if owner == node and confirmed}
    readable = [each for each in observed.blocks if network_of(each)]
    blocks = [room.Seen.of(each, node, since, _free(each, reserved)) for each in readable]
    return room.View(
        node=node,
        own={each.cidr: each.free for each in blocks if each.cidr in mine and _is_of(node, each)},
        blocks=tuple(blocks),
        confirmed=frozenset(cidr for cidr, owner, confirmed in claims if owner != node and confirmed),
        pending=frozenset(cidr for cidr, owner, confirmed in claims if owner != node and not confirmed),
        reserved=lambda cidr: reserved.count(*bounds(ipaddress.ip_network(cidr))),
        why_not_borrow=_why_not_borrow(observed.nodes[node], settings),
        auto_allocate_blocks=settings["auto_allocate_blocks"],
        blocks_per_node=settings["max_blocks_per_host"] or room.DEFAULT_BLOCKS_PER_NODE,
        holders=_holders(explanation.addresses_asked_for(subject), observed),
    )


def _claim(affinity):
    """(node, whether it is confirmed) of a claim. Calico takes one without a state for a confirmed one."""
    return affinity["spec"].get("node"), affinity["spec"].get("state") in (None, "", "confirmed")


def _is_of(node, block):
    return block.affinity == host_affinity(node) and not block.is_deleted


def _free(block, reserved):
    """How many addresses of an IPAMBlock may be given out unasked."""
    spec = block["spec"]
    network = ipaddress.ip_network(spec["cidr"])
    if not reserved.count(*bounds(network)):
        return len(spec["unallocated"])
    first = number(network.network_address)
    return sum(first + ordinal not in reserved for ordinal in spec["unallocated"])


def _holders(addresses, observed):
    found = {}
    for address in addresses:
        pool = pool_of(address, observed.pools.values())
        home = pool and pool.block_of(address)
        for block in observed.blocks:
            if block["spec"]["cidr"] == home and not is_deleted(block):
                found[address] = room.holder(block["spec"], address)
    return found


def _why_not_borrow(node, settings):
    if settings["strict_affinity"]:
        return room.STRICT
    return room.ROUTES if engine.record_of(node).get("routes") else None


def _subject(question, observed):
    namespace = observed.namespaces[question["namespace"]]["metadata"]
    pod = observed.pods.get((question["namespace"], question.get("pod")))
    annotations, labels = question.get("annotations"), question.get("labels")
    if annotations is None:
        annotations = (pod["metadata"].get("annotations") if pod else None) or {}
    return assignment.Subject(
        namespace=question["namespace"],
        name=question.get("pod") or "(new)",
        node=question["node"],
        pod_annotations={key: _annotation(value) for key, value in annotations.items()},
        namespace_annotations=namespace.get("annotations") or {},
        namespace_labels=(namespace.get("labels") or {}) if labels is None else _texts(labels),
        node_labels=observed.nodes[question["node"]]["metadata"].get("labels") or {},
    )


def _texts(values):
    return {key: str(value) for key, value in values.items()}


def _annotation(value):
    """An annotation may be given as its text, or as the list that the text is to be the JSON of."""
    return value if isinstance(value, str) else json.dumps(value)
