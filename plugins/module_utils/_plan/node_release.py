# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""What nodes hold is released as if they were gone: their addresses, their handles, their claims and empty blocks.

What other nodes have borrowed of their blocks stays where it is, in a block without a node.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import chain

from .._core.block import spec_problem
from . import holders, in_use, repair
from .allocations import allocations, host_of, live
from .finding import Finding
from .operation import Plan, Problem
from .world import world


def plan(observed, nodes):
    """The Plan for the nodes with these names. Pods that still have addresses there forbid it."""
    left = replace(observed, nodes=tuple(each for each in observed.nodes if each["metadata"]["name"] not in nodes))
    seen = world(left, grace=0)
    held = list(_held(seen, observed, nodes))
    problems = [*_problems(seen, nodes), *_invalid(held)]
    if problems:
        return Plan(problems=problems)
    outcome = Plan()
    repair.add_to(outcome, seen, held)
    return outcome


def _held(seen, observed, nodes):
    """What nodes hold, as an audit would name it when the nodes were gone."""
    for each in allocations(observed.blocks):
        # A virtual machine keeps its address on its way from node to node, and pods elsewhere what they use.
        is_kept = each.is_reserved_for_windows or each.is_of_virtual_machine or each.value in seen.users
        if each.node in nodes and not is_kept:
            yield Finding("leaked", "", subject=each)
    for block, _network in live(observed.blocks):
        if host_of(block) in nodes:
            yield Finding("block_without_affinity", "", subject=block)
    for affinity in observed.affinities:
        if affinity["spec"].get("node") in nodes:
            yield Finding("affinity_mismatch", "", subject=affinity)


def _problems(seen, nodes):
    users = _users(seen)
    for node in nodes:
        if users[node]:
            pods = sorted("/".join(key) for key in users[node])
            message = f"pods still have addresses there: {holders.some(pods)}; drain the node first"
            yield Problem(f"node {node}", "nodes", node, message)


def _invalid(held):
    """What of it lies in blocks that cannot be written, because nobody can tell what they say."""
    blocks = [each.subject.block for each in held if each.check == "leaked"]
    blocks += [each.subject for each in held if each.check == "block_without_affinity"]
    for name, block in {each["metadata"]["name"]: each for each in blocks}.items():
        problem = spec_problem(block["spec"])
        if problem:
            message = f"it is invalid: {problem}; correct it, or delete it if nothing of it is in use"
            yield Problem(f"block {block['spec']['cidr']}", "nodes", name, message)


def _users(seen):
    """{node: the (namespace, name) of its pods that have addresses, or have got some and are about to say so}."""
    found = defaultdict(set)
    for key, addresses in seen.pod_addresses.items():
        if any(value in seen.allocated for value in addresses):
            found[seen.pods[key]["spec"]["nodeName"]].add(key)
    for each in chain.from_iterable(seen.allocated.values()):
        pod = seen.pods.get(each.pod)
        if pod and in_use.may_have(pod, each.value):
            found[pod["spec"].get("nodeName")].add(each.pod)
    return found
