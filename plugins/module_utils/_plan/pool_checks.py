# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""What forbids a declaration of pools, found before anything is written and reported all together."""

from __future__ import annotations

from collections import Counter

from .._core import names
from .._core.pool import spec_problems
from . import holders, ownership, pool_view, ranges
from .operation import Problem

_LONGEST_NAME = 253
_LOAD_BALANCER = ["LoadBalancer"]

NOT_SERVED = Problem(
    "the cluster",
    "pools",
    None,
    "it serves IPPool neither in crd.projectcalico.org/v1 nor in projectcalico.org/v3: install Calico first, or the"
    " node plugin of this collection with role podnet.ipam.cni_ipam",
)


def declaration_problems(views):
    """(problems of the views each by itself and as names, (view, network) pairs of those whose CIDR is sound)."""
    problems, sound = [], []
    for view in views:
        own = list(_own_problems(view))
        problems += own
        if not any(problem.option == "cidr" for problem in own):
            sound.append((view, names.network(view["cidr"])))
    problems += repeated_names("pool", [view["name"] for view in views])
    return problems, sound


def name_problems(subject, name):
    """Whether an object can have this name."""
    if len(name) > _LONGEST_NAME or not names.OBJECT_NAME.fullmatch(name):
        message = f"{name!r} is no object name: lower-case letters, digits, '-' and '.' are allowed"
        yield Problem(subject, "name", name, message)


def repeated_names(kind, names):
    """One problem for each name that is declared more than once."""
    counts = Counter(names)
    for name in sorted(name for name, count in counts.items() if count > 1):
        message = f"{name!r} is declared {counts[name]} times; each name may stand once"
        yield Problem(f"{kind} {name}", "name", name, message)


def _own_problems(view):
    subject = f"pool {view['name']}"
    yield from name_problems(subject, view["name"])
    yield from ownership.label_problems(subject, view["labels"])
    for field, message in spec_problems(pool_view.full_spec(view)):
        option = pool_view.OPTION_OF_FIELD[field]
        if option == "cidr" and view["cidr"] is None:
            message = "it is missing; a range such as 10.244.0.0/16 is needed"
        yield Problem(subject, option, view[option], message)


def change_problems(views, pools):
    """What the declaration would change of existing pools, but cannot be changed."""
    for view in views:
        existing = pools.get(view["name"])
        if existing is None:
            continue
        subject, before = f"pool {view['name']}", pool_view.stored(existing)
        yield from leaving_problems(subject, existing)
        for option in pool_view.IMMUTABLE if ranges.network(view["cidr"]) else ():
            if view[option] != before[option]:
                message = (
                    f"it is {before[option]} in the cluster and declared as {view[option]}, but cannot be changed;"
                    " the role podnet.ipam.pool_migration moves the pods to another pool, which takes its place"
                )
                yield Problem(subject, option, view[option], message)
        if before["allowed_uses"] == _LOAD_BALANCER != view["allowed_uses"]:
            message = "a pool for LoadBalancer cannot be used otherwise; declare another pool, and remove this one"
            yield Problem(subject, "allowed_uses", view["allowed_uses"], message)


def leaving_problems(subject, existing):
    """What is being deleted cannot be declared."""
    if ownership.is_leaving(existing):
        message = "it is being deleted in the cluster; run again when it is gone, or declare another name"
        yield Problem(subject, "name", existing["metadata"]["name"], message)


def overlaps(sound, pools, gone):
    """(problems, warnings) about overlapping pools. What overlaps in the cluster already can only be told."""
    declared = {view["name"]: network for view, network in sound}
    kept = [(name, pool) for name, pool in pools.items() if name not in declared and name not in gone]
    others = [(name, ranges.pool_network(pool)) for name, pool in kept if ranges.pool_network(pool)]
    networks, problems, warnings = {**dict(others), **declared}, [], []
    for outer, inner in ranges.overlaps([(view["name"], network) for view, network in sound] + others):
        if inner not in declared:
            outer, inner = inner, outer
        if inner not in declared or outer == inner:
            continue
        text = f"{networks[inner]} overlaps pool {outer} ({networks[outer]})"
        if outer in declared:
            problems.append(Problem(f"pool {inner}", "cidr", str(networks[inner]), f"{text}, declared too"))
        elif ownership.is_leaving(pools[outer]):
            warnings.append(f"pool {inner}: {text}, which is being deleted; Calico waits with {inner} for that")
        elif inner in pools:
            warnings.append(f"pool {inner}: {text}, and both exist in the cluster: remove one of them")
        else:
            message = f"{text}, which exists in the cluster"
            problems.append(Problem(f"pool {inner}", "cidr", str(networks[inner]), message, {"overlaps": outer}))
    return problems, warnings


def block_problems(new, blocks, released):
    """Blocks of another size in a new pool's range: Calico would not see them and give their addresses out twice.

    `released`: names of the blocks that are deleted before the pool is created.
    """
    present = [
        (block["spec"]["cidr"], ranges.network_of(block))
        for block in blocks
        if block["metadata"]["name"] not in released and not names.is_deleted(block) and ranges.network_of(block)
    ]
    networks, conflicts = dict(present), {}
    for view, cidr in ranges.meetings(new, present):
        if networks[cidr].prefixlen != view["block_size"]:
            conflicts.setdefault(view["name"], (view, []))[1].append(cidr)
    for view, found in conflicts.values():
        there = holders.some(sorted(found))
        message = f"{view['block_size']} differs from blocks that exist in {view['cidr']}: {there}"
        yield Problem(f"pool {view['name']}", "block_size", view["block_size"], message, {"blocks": sorted(found)})
