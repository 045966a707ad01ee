# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""From findings to the writes that set them right, while the cluster runs.

Each object is written once, in the version that was judged. Addresses are released in the block first and in the handle
afterwards, as Calico does: what a crash leaves behind in between is a count too high, which harms nobody and is found
by the next audit.
"""

from __future__ import annotations

from collections import defaultdict

from .._core import names
from .._core.block import Block
from .._core.names import is_deleted
from . import repair_handles
from .address_index import address_of
from .allocations import allocations
from .operation import Operation
from .ranges import network_of
from .world import canonical


def add_to(outcome, world, findings):
    """Add the operations that take the findings away, and what they change, to a Plan."""
    by_check = defaultdict(list)
    for finding in findings:
        by_check[finding.check].append(finding.subject)
    released = by_check["leaked"]
    disowned, reclaimed = _unclaimed(world, by_check["block_without_affinity"])
    lost = by_check["affinity_without_node"]
    disowned += [world.blocks[network_of(affinity)] for affinity in lost]
    outcome.operations += _blocks(outcome, released, disowned)
    outcome.operations += repair_handles.operations(outcome, world, released, by_check)
    unfounded = by_check["affinity_without_block"] + by_check["affinity_mismatch"] + lost
    outcome.operations += _affinities(outcome, world, unfounded, reclaimed)


def _unclaimed(world, blocks):
    """(blocks whose node is gone, blocks that a node is to claim again)."""
    gone, there = [], []
    for block in blocks:
        kind, _colon, node = block["spec"]["affinity"].partition(":")
        (gone if kind == "host" and node not in world.nodes else there).append(block)
    return gone, there


def _blocks(outcome, released, disowned):
    """Blocks without the released addresses, and without nodes that are gone. One that nobody needs any more goes."""
    objects = {each["metadata"]["name"]: each for each in disowned}
    without_node, ordinals = set(objects), defaultdict(list)
    for allocation in released:
        name = allocation.block["metadata"]["name"]
        objects[name] = allocation.block
        ordinals[name].append(allocation.ordinal)
    replaced, deleted = [], []
    for name, stored in sorted(objects.items()):
        block = Block(stored["spec"])
        block.release_ordinals(sorted(ordinals[name]))
        block.sequence_number += 1
        spec = block.spec()
        if name in without_node:
            spec = {key: value for key, value in spec.items() if key not in ("affinity", "affinityClaimTime")}
        text = f"block {block.cidr}"
        outcome.before[text] = _block_view(stored)
        if block.allocated == 0 and not spec.get("affinity"):
            outcome.after[text] = None
            deleted.append(Operation("delete", "IPAMBlock", name, observed=stored))
        else:
            outcome.after[text] = _block_view({**stored, "spec": spec})
            replaced.append(Operation("replace", "IPAMBlock", name, body={"spec": spec}, observed=stored))
    return [*replaced, *deleted]


def _block_view(block):
    held = {address_of(each.value): "/".join(each.pod) if each.pod else each.handle for each in allocations([block])}
    return {"block": canonical(block["spec"]["cidr"]), "affinity": block["spec"].get("affinity"), "allocated": held}


def _affinities(outcome, world, unfounded, reclaimed):
    """Claims without their block go; blocks that belong to a node get its claim back."""
    deletions, creations = {}, []
    for affinity in unfounded:
        deletions[affinity["metadata"]["name"]] = affinity
        _add_views(outcome, affinity["metadata"]["name"], affinity["spec"], None)
    remains = {each["metadata"]["name"]: each for each in world.observed.affinities if is_deleted(each)}
    for block in reclaimed:
        kind, _colon, node = block["spec"]["affinity"].partition(":")
        cidr = canonical(block["spec"]["cidr"])
        name = names.affinity_name(node, cidr)
        if name in remains:
            deletions[name] = remains[name]
        spec = {"state": "confirmed", "node": node, "type": kind, "cidr": cidr}
        labels = {**names.affinity_labels(node, cidr), names.LABEL_AFFINITY_TYPE: kind}
        creations.append(Operation("create", "BlockAffinity", name, body={"spec": spec, "labels": labels}))
        _add_views(outcome, name, None, spec)
    removals = [Operation("delete", "BlockAffinity", name, observed=each) for name, each in sorted(deletions.items())]
    return [*removals, *sorted(creations, key=lambda operation: operation.name)]


def _add_views(outcome, name, before, after):
    for views, spec in ((outcome.before, before), (outcome.after, after)):
        views[f"affinity {name}"] = spec and {
            "affinity": name,
            "block": canonical(spec.get("cidr")),
            "node": spec.get("node"),
            "state": spec.get("state") or "confirmed",
        }
