# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Blocks, their nodes' claims on them, and the addresses in them that nobody uses."""

from __future__ import annotations

import calendar
import time

from .._core.block import spec_problem
from .._core.names import affinity_name, cidr_name, is_deleted
from . import in_use
from .address_index import address_of
from .allocations import LOAD_BALANCER
from .finding import Finding
from .ranges import network_of

_LOST = "affinity_without_node"
_TUNNEL = "TunnelAddress"  # the end of what Calico notes as the type of a tunnel's address
_INVALID = "the block is invalid"
_PRESENT = "the pod exists on the same node; its address is freed when it goes"
_MACHINE = "it is a virtual machine's, which may have no pod for a while; Calico frees it with the machine"
_NODE_UNKNOWN = "the pod exists, and nothing says on which node it got the address"
_RELEASED = "%Y-%m-%dT%H:%M:%SZ"


def findings(world):
    """Findings about what blocks say, other than about handles."""
    broken = invalid(world)
    for name, (block, problem) in broken.items():
        cidr = block["spec"].get("cidr")
        looks = (("IPAMBlock", None, name),)
        yield Finding("block_invalid", f"block {cidr}: {problem}", {"block": cidr}, problem=True, looks=looks)
    for value, allocated in world.allocated.items():
        yield from _allocated_twice(value, allocated)
        if value not in world.users:
            for allocation in allocated:
                yield from _leaked(world, value, allocation, broken)
    yield from _affinities(world, broken)
    yield from _blocks_without_affinity(world, broken)


def invalid(world):
    """The blocks that break an invariant, by name: {name: (IPAMBlock, which one)}."""
    found = {}
    for block in world.observed.blocks:
        problem = None if is_deleted(block) else _problem(block, world.observed.now)
        if problem:
            found[block["metadata"]["name"]] = block, problem
    return found


def _problem(block, now):
    """Which invariant of Calico's format a block breaks (those that Calico 3.33 checks), None when none."""
    spec, network = block["spec"], network_of(block)
    allocations, attributes = spec.get("allocations"), spec.get("attributes")
    if network is None:
        return "it is not the CIDR of a block"
    if not isinstance(allocations, list) or not isinstance(attributes, list) or spec.get("unallocated") is None:
        return "allocations, attributes or unallocated is missing"
    if len(allocations) != network.num_addresses:
        return f"it has {len(allocations)} allocations for {network.num_addresses} addresses"
    problem = spec_problem(spec)
    if problem:
        return problem
    unused = set(range(len(attributes))).difference(allocations)
    if unused:
        return f"no allocation refers to its attribute {min(unused)}"
    if any(_seconds(each.get("releasedAt")) > now for each in attributes):
        return "an address was released in the future"
    return None


def _seconds(text):
    try:
        return calendar.timegm(time.strptime(text, _RELEASED))
    except (ValueError, TypeError):
        return 0


def _allocated_twice(value, allocated):
    blocks = sorted({each.block["spec"]["cidr"] for each in allocated})
    if len(allocated) > 1:
        address = address_of(value)
        message = f"{address} is allocated in the blocks {' and '.join(blocks)}"
        yield Finding("duplicate", message, {"address": address, "blocks": blocks})


def _leaked(world, value, allocation, broken):
    """An address that nobody uses, unless it is on its way or kept on purpose."""
    if allocation.is_cooling or allocation.is_reserved_for_windows or world.is_recent(allocation):
        return
    pod = world.pods.get(allocation.pod)
    if pod and in_use.may_have(pod, value):
        return
    address, owner = address_of(value), allocation.owner
    objects = {
        "address": address,
        "block": allocation.block["spec"]["cidr"],
        "node": allocation.node,
        "namespace": owner.get("namespace"),
        "pod": owner.get("pod"),
        "handle": allocation.handle,
    }
    who, looks, hindrance = _holder(world, allocation, pod)
    if allocation.block["metadata"]["name"] in broken:
        hindrance = _INVALID
    elif hindrance is None and _handle_in_use(world, allocation):
        hindrance = f"handle {allocation.handle} has another address that is in use"
    looks = (*looks, ("IPAMBlock", None, allocation.block["metadata"]["name"]), *_handle_look(world, allocation))
    message = f"{address} is allocated {who}"
    yield Finding("leaked", message, objects, True, subject=allocation, looks=looks, hindrance=hindrance)


def _holder(world, allocation, pod):
    """(for whom a leaked address is allocated, what to look at again, why it must not be released or None)."""
    owner, node = allocation.owner, allocation.node
    look = (("Node", None, node),) if node else ()
    if allocation.pod:
        return _holding_pod(allocation, pod)
    if (owner.get("type") or "").endswith(_TUNNEL) and owner.get("node"):
        if node in world.nodes:
            who = f"as {owner['type']} of node {node}, which does not have it"
            return who, look, "the node exists; its own agent frees the address"
        return f"as {owner['type']} of node {node}, which does not exist", look, None
    if allocation.block["spec"].get("affinity") == LOAD_BALANCER:
        who = f"for service {owner.get('namespace')}/{owner.get('service')}, which does not have it"
        return who, (), "addresses of services are freed by Calico's controller"
    who = f"by handle {allocation.handle}, which says not for what" if allocation.handle else "without saying for what"
    return who, look, "nothing says what it is for"


def _holding_pod(allocation, pod):
    """The answer of `_holder` for an address of a pod, None when that does not exist."""
    (namespace, name), node = allocation.pod, allocation.node
    who, look = f"for pod {namespace}/{name}", (("Pod", namespace, name),)
    hindrance = _MACHINE if allocation.is_of_virtual_machine else None
    if pod is None:
        return f"{who}, which does not exist", look, hindrance
    if not allocation.owner.get("node"):
        return f"{who}, which does not have it", look, hindrance or _NODE_UNKNOWN
    if pod["spec"].get("nodeName") == node:
        return f"{who}, which does not have it", look, hindrance or _PRESENT
    return f"{who} on node {node}, which runs on node {pod['spec'].get('nodeName')}", look, hindrance


def _handle_in_use(world, allocation):
    """Whether its holder is still there: Calico, too, frees all addresses of a handle or none."""
    return bool(allocation.handle) and allocation.handle in world.handles_in_use


def _handle_look(world, allocation):
    handle = world.handles.get(allocation.handle)
    return (("IPAMHandle", None, handle["metadata"]["name"]),) if handle else ()


def _affinities(world, broken):
    occupied = {pod["spec"].get("nodeName") for pod in world.pods.values() if not in_use.is_finished(pod)}
    for network, affinities in world.affinities.items():
        block = world.blocks.get(network)
        for affinity in affinities:
            spec, name = affinity["spec"], affinity["metadata"]["name"]
            check, fault = _fault_of_claim(world, spec, block)
            if check is None or world.is_young(affinity):
                continue
            node, hindrance = spec.get("node"), None
            looks = (("BlockAffinity", None, name), ("IPAMBlock", None, cidr_name(str(network))))
            if check == _LOST:
                looks = (*looks, ("Node", None, node))
                invalid_block = _INVALID if block["metadata"]["name"] in broken else None
                hindrance = "there are pods on the node" if node in occupied else invalid_block
            message = f"{_claimant(spec)} claims block {network} ({spec.get('state') or 'confirmed'}), {fault}"
            objects = {"affinity": name, "block": str(network), "node": node, "state": spec.get("state")}
            yield Finding(check, message, objects, subject=affinity, looks=looks, hindrance=hindrance)


def _fault_of_claim(world, spec, block):
    """(check, text) of what is wrong with a claim on a block, which is None when it does not exist; else (None, "")."""
    if block is None:
        return "affinity_without_block", "which does not exist"
    if block["spec"].get("affinity") != _claimant(spec):
        return "affinity_mismatch", f"which belongs to {block['spec'].get('affinity') or 'nobody'}"
    kind, _colon, node = _claimant(spec).partition(":")
    if kind == "host" and node not in world.nodes:
        return _LOST, f"and there is no node {node}"
    return None, ""


def _claimant(spec):
    return f"{spec.get('type') or 'host'}:{spec.get('node')}"


def _blocks_without_affinity(world, broken):
    names = {each["metadata"]["name"]: each for each in world.observed.affinities if not is_deleted(each)}
    for network, block in world.blocks.items():
        kind, _colon, node = (block["spec"].get("affinity") or "").partition(":")
        claims = [each["spec"] for each in world.affinities.get(network, ())]
        if not kind or any((each.get("type") or "host", each.get("node")) == (kind, node) for each in claims):
            continue
        name = affinity_name(node, str(network))
        objects = {"block": str(network), "node": node}
        looks = (("IPAMBlock", None, cidr_name(str(network))), ("BlockAffinity", None, name), ("Node", None, node))
        there = kind != "host" or node in world.nodes
        message = f"block {network} belongs to {kind}:{node}, but there is no BlockAffinity {name}"
        hindrance = f"BlockAffinity {name} exists and says something else" if name in names else None
        if not there:
            message += f" and no node {node}"
            hindrance = hindrance or (_INVALID if block["metadata"]["name"] in broken else None)
        yield Finding("block_without_affinity", message, objects, subject=block, looks=looks, hindrance=hindrance)
