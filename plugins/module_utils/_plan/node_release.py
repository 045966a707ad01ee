# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""What nodes hold is released as if they were gone: their addresses, their handles, their claims and empty blocks.

What other nodes have borrowed of their blocks stays where it is, in a block without a node.
"""

from __future__ import annotations

from dataclasses import replace

from . import holders, repair
from .allocations import allocations, host_of, live
from .finding import Finding
from .operation import Plan, Problem
from .world import world


def plan(observed, nodes):
    """The Plan for the nodes with these names. Pods that still have addresses there forbid it."""
    left = replace(observed, nodes=tuple(each for each in observed.nodes if each["metadata"]["name"] not in nodes))
    seen = world(left, grace=0)
    problems = list(_problems(seen, nodes))
    if problems:
        return Plan(problems=problems)
    outcome = Plan()
    repair.add_to(outcome, seen, list(_held(observed, nodes)))
    return outcome


def _held(observed, nodes):
    """What nodes hold, as an audit would name it when the nodes were gone."""
    for each in allocations(observed.blocks):
        if each.node in nodes and not each.is_reserved_for_windows:
            yield Finding("leaked", "", subject=each)
    for block, _network in live(observed.blocks):
        if host_of(block) in nodes:
            yield Finding("block_without_affinity", "", subject=block)
    for affinity in observed.affinities:
        if affinity["spec"].get("node") in nodes:
            yield Finding("affinity_mismatch", "", subject=affinity)


def _problems(seen, nodes):
    for node in nodes:
        pods = [
            "/".join(key)
            for key, addresses in sorted(seen.pod_addresses.items())
            if seen.pods[key]["spec"].get("nodeName") == node and any(value in seen.allocated for value in addresses)
        ]
        if pods:
            message = f"pods still have addresses there: {holders.some(pods)}; drain the node first"
            yield Problem(f"node {node}", "nodes", node, message)
