# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Handles that say again what the blocks say, after what a repair releases."""

from __future__ import annotations

from collections import Counter, defaultdict

from .._core.names import handle_name, is_deleted
from .operation import Operation
from .world import canonical


def operations(outcome, world, released, by_check):
    """The operations, whose views are added to a Plan. `by_check`: the subjects of the findings that are repaired."""
    replaced, deleted, created = [], [], []
    for identity, (existing, wanted) in sorted(_wanted(world, released, by_check).items()):
        stored = None if existing is None or is_deleted(existing) else existing["spec"].get("block") or {}
        if stored and stored == wanted:
            continue
        name = handle_name(identity)
        if existing is not None and (stored is None or not wanted):
            deleted.append(Operation("delete", "IPAMHandle", existing["metadata"]["name"], observed=existing))
        if wanted and stored is None:
            spec = {"handleID": identity, "block": wanted, "deleted": False}
            created.append(Operation("create", "IPAMHandle", name, body={"spec": spec}))
        elif wanted:
            spec = {**existing["spec"], "block": wanted}
            replaced.append(Operation("replace", "IPAMHandle", name, body={"spec": spec}, observed=existing))
        if stored is None and existing is not None and not wanted:
            stored = existing["spec"].get("block") or {}
        for views, blocks in ((outcome.before, stored), (outcome.after, wanted or None)):
            views[f"handle {identity}"] = None if blocks is None else {"handle": identity, "blocks": blocks}
    return [*replaced, *deleted, *created]


def _wanted(world, released, by_check):
    """{handle: (its IPAMHandle or None, what it has to count, {CIDR: number})}; one that counts nothing has to go."""
    left, touched = _after(world, released)
    found = {}
    for identity, cidrs in touched.items():
        if identity in world.handles:
            handle = world.handles[identity]
            found[identity] = handle, _corrected(handle["spec"].get("block") or {}, left[identity], cidrs)
    for handle in by_check["handle_count"]:
        found[handle["spec"]["handleID"]] = handle, left[handle["spec"]["handleID"]]
    for handle in by_check["leaked_handle"]:
        found[handle["spec"].get("handleID") or handle["metadata"]["name"]] = handle, {}
    remains = {each["metadata"]["name"]: each for each in world.observed.handles if is_deleted(each)}
    for identity in by_check["missing_handle"]:
        found[identity] = remains.get(handle_name(identity)), left[identity]
    return found


def _after(world, released):
    """(what each handle holds after the release, {handle: {CIDR: number}}; the CIDRs from which it loses something)."""
    lost = defaultdict(Counter)
    for allocation in released:
        if allocation.handle:
            lost[allocation.handle][canonical(allocation.block["spec"]["cidr"])] += 1
    left = {}
    for identity, held in world.holdings.items():
        counts = Counter({canonical(cidr): count for cidr, count in held.items()})
        left[identity] = dict(counts - lost.get(identity, Counter()))
    return left, {identity: set(cidrs) for identity, cidrs in lost.items()}


def _corrected(stored, left, touched):
    """What a handle counts, corrected only for the blocks from which it loses something."""
    counts = {cidr: left.get(canonical(cidr), 0) if canonical(cidr) in touched else n for cidr, n in stored.items()}
    return {cidr: count for cidr, count in counts.items() if count}
