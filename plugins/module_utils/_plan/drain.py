# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Emptying a pool: what names it is pointed to another pool, it is disabled, and its pods are replaced, batch by batch.

The order matters. As long as an assignment names the pool, a pod that dies by accident has to be able to come back: the
pool is disabled only when nothing names it any more. Pods that draw from it unasked would come back to it before, so
they are replaced after that.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from . import assignments, drain_units, ownership, pool_checks, pool_removal, rollout
from .address_index import bounds
from .operation import Operation, Plan, Problem
from .usage import usage


@dataclass(frozen=True)
class Desired:
    """`pool` and `to` are names. `batch` is how many workloads are begun at a time, 0 for all of them."""

    pool: str
    to: str
    batch: int = 0
    evict_bare_pods: bool = False
    adopt: bool = False
    policy: rollout.Policy = field(default_factory=rollout.Policy)
    declared_pools: tuple = ()


@dataclass(frozen=True)
class Observed:
    """A whole cluster. `pools`, `namespaces` and `nodes` map names, `workloads` (kind, namespace, name), to objects.

    `served`: whether the cluster serves IPPools at all.
    `pods`, `blocks` (IPAMBlocks) and `reservations` (IPReservations) are all that there are, `budgets` are
    budgets.Budgets.
    """

    pools: dict
    namespaces: dict = field(default_factory=dict)
    nodes: dict = field(default_factory=dict)
    workloads: dict = field(default_factory=dict)
    pods: tuple = ()
    blocks: tuple = ()
    reservations: tuple = ()
    budgets: tuple = ()
    installation: dict | None = None
    served: bool = True


@dataclass
class DrainPlan(Plan):
    """`begun` maps the keys of what this plan begins, or finds on the way, to the uid of the pod that it evicts; None
    where a controller replaces the pods. `awaited` is what of it is to be waited for.
    """

    begun: dict = field(default_factory=dict)
    awaited: dict = field(default_factory=dict)


class Leaving:
    """The pool that is to be emptied, and the name of the one in its place. `pool` is None when it does not exist."""

    def __init__(self, wanted, pools):
        self.name, self.to, self.pool = wanted.pool, wanted.to, pools.get(wanted.pool)
        self._bounds = bounds(self.pool.network) if self.pool else (0, -1)

    def addresses(self, values):
        """Those of the numbers of addresses that lie in the pool."""
        first, last = self._bounds
        return [value for value in values if first <= value <= last]

    def pointed(self, annotations, options):
        """The wanted assignment that names the other pool wherever the annotations name this one."""
        view, found = assignments.view(annotations, options), {}
        for option in assignments.POOL_OPTIONS:
            entries = view[option]
            if isinstance(entries, list) and any(map(self._is_meant, entries)):
                found[option] = list(dict.fromkeys(self.to if self._is_meant(entry) else entry for entry in entries))
        return found

    def fixed(self, annotations):
        """The addresses of the pool that the annotations of a pod ask for."""
        entries = assignments.view(annotations, ["ip_addrs"])["ip_addrs"]
        known = isinstance(entries, list) and self.pool is not None
        return [entry for entry in entries if self.pool.contains(entry)] if known else []

    def _is_meant(self, entry):
        return entry == self.name or bool(self.pool and assignments.look_up(entry, {self.name: self.pool}))


def leaving(wanted, pools):
    """The Leaving of a Desired. `pools`: IPPool objects by name."""
    return Leaving(wanted, _readable(wanted, pools))


def plan(wanted, observed, begun=None):
    """The DrainPlan of the next batch. Its results tell what is left, and how many batches that takes.

    `begun`: what earlier plans of the same run have begun. It is part of the batch.
    """
    outcome = DrainPlan(results=_told([], wanted.batch))
    pools = _readable(wanted, observed.pools)
    gone = Leaving(wanted, pools)
    if not (observed.served or wanted.to in pools):
        outcome.problems.append(pool_checks.NOT_SERVED)
    outcome.problems += [*wanted.policy.problems(), *_batch_problems(wanted), *_pool_problems(gone, pools)]
    outcome.problems += _owner_problems(wanted, gone, observed)
    if outcome.problems:
        return outcome
    namespaces = _point_namespaces(gone, observed.namespaces, outcome)
    units = drain_units.units(drain_units.Place(gone, observed, namespaces, _when_disabled(pools, gone), wanted))
    outcome.problems += _room_problems(gone, units, observed, pools)
    outcome.results.update(_told(units, wanted.batch))
    if outcome.problems:
        outcome.operations = []
    else:
        _add_batch(wanted, observed.pools.get(gone.name), units, begun or {}, outcome)
    return outcome


def lagging(awaited, existing, pods, gone):
    """What the `awaited` of a plan still lack, as {key: text}, out of workloads and their pods by key."""
    texts = {key: drain_units.lagging(key, existing.get(key), pods.get(key, ()), gone) for key in awaited}
    return {key: text for key, text in texts.items() if text}


def _readable(wanted, pools):
    return assignments.readable(assignments.with_declared(pools, wanted.declared_pools))


def _when_disabled(pools, gone):
    """Pools by name as they are once the one is disabled."""
    return {**pools, gone.name: replace(gone.pool, disabled=True)} if gone.pool else pools


def _batch_problems(wanted):
    if wanted.batch < 0:
        message = f"it is {wanted.batch}: give a number of workloads, or 0 for all of them"
        yield Problem(f"pool {wanted.pool}", "batch", wanted.batch, message)


def _pool_problems(gone, pools):
    subject, target = f"pool {gone.to}", pools.get(gone.to)
    if gone.name == gone.to:
        yield Problem(subject, "to", gone.to, "it is the pool that is to be emptied: name another one")
    elif target is None:
        existing = ", ".join(sorted(pools)) or "none"
        yield Problem(subject, "to", gone.to, f"it does not exist; pools: {existing}")
    elif target.why_not_usable():
        yield Problem(subject, "to", gone.to, f"it cannot take pods: {target.why_not_usable()}")
    elif gone.pool and gone.pool.family != target.family:
        families = f"IPv{target.family}, and {gone.name} is IPv{gone.pool.family}"
        yield Problem(subject, "to", gone.to, f"it is {families}: name a pool of the same family")


def _owner_problems(wanted, gone, observed):
    """Why the pool is not disabled: it is another controller's."""
    existing = observed.pools.get(gone.name)
    if wanted.adopt or existing is None or existing["spec"].get("disabled"):
        return
    owner = ownership.other_owner(existing, observed.installation)
    if owner:
        message = f"it belongs to {owner}, which would enable it again; disable it there, or take it over with adopt"
        yield Problem(f"pool {gone.name}", "adopt", False, message)


def _room_problems(gone, units, observed, pools):
    """The problem of a pool without room for the pods that can go nowhere else."""
    movable = [unit for unit in units if not unit.reason and unit.destinations == {gone.to}]
    count, free = sum(len(unit.pods) for unit in movable), pools[gone.to].network.num_addresses
    stored = observed.pools.get(gone.to)
    if stored:
        own = [block for block in observed.blocks if pool_removal.lies_in(block, pools[gone.to].network)]
        [counts] = usage([stored], own, observed.reservations)
        free = counts["free"] - counts["reserved"]
    if count > free:
        message = f"it has {free} free addresses, and {count} pods are to move from {gone.name} into it"
        yield Problem(f"pool {gone.to}", "to", gone.to, message)


def _point_namespaces(gone, namespaces, outcome):
    """Point the namespaces that name the pool. Returns the annotations of all by name, as they will be."""
    found, options = {}, assignments.NAMESPACE_OPTIONS
    for name, namespace in sorted(namespaces.items()):
        annotations = namespace["metadata"].get("annotations") or {}
        written = assignments.changes(gone.pointed(annotations, options), annotations)
        found[name] = assignments.changed(annotations, written)
        if written:
            body = {"metadata": {"annotations": written}}
            outcome.operations.append(Operation("patch", "Namespace", name, body=body, observed=namespace))
            for views, each in ((outcome.before, annotations), (outcome.after, found[name])):
                views[f"namespace {name}"] = {"name": name, **assignments.view(each, options)}
    return found


def _add_batch(wanted, pool, units, begun, outcome):
    """The next batch: first of what names pools; when that is all, the pool is disabled, and the rest follows."""
    asking = [unit for unit in units if not unit.is_unasked]
    unasked = [unit for unit in units if unit.is_unasked]
    room = _Room(wanted.batch, begun)
    are_all_begun = _add_units(asking, room, outcome)
    if are_all_begun and not any(unit.names_pool and unit.reason for unit in asking):
        _disable(pool, outcome)
        _add_units(unasked, room, outcome)


class _Room:
    """How many more workloads may be begun. What earlier plans of the run have begun is in already."""

    def __init__(self, batch, begun):
        self.begun = begun
        self._left = batch - len(begun) if batch else None

    def take(self, unit):
        if unit.key in self.begun or self._left is None:
            return True
        self._left -= 1
        return self._left >= 0


def _add_units(units, room, outcome):
    """Whether there was room for all of the units that can be moved."""
    movable = [unit for unit in units if not unit.is_idle]
    taken = [unit for unit in movable if room.take(unit)]
    for unit in taken:
        _add_unit(unit, room.begun, outcome)
    return len(taken) == len(movable)


def _add_unit(unit, begun, outcome):
    uid = outcome.begun[unit.key] = begun.get(unit.key, unit.next_uid)
    operations = unit.operations(uid)
    outcome.operations += operations
    if unit.is_awaited:
        outcome.awaited[unit.key] = uid
    if operations:
        outcome.before[unit.subject], outcome.after[unit.subject] = unit.views()
        outcome.warnings += unit.warnings()


def _disable(pool, outcome):
    if pool is None or pool["spec"].get("disabled") or pool["metadata"].get("deletionTimestamp"):
        return
    name = pool["metadata"]["name"]
    outcome.operations.append(pool_removal.disable(pool))
    for views, disabled in ((outcome.before, False), (outcome.after, True)):
        views[f"pool {name}"] = {"name": name, "disabled": disabled}


def _told(units, batch):
    in_order = sorted(units, key=lambda unit: unit.is_unasked)
    steps = [unit.steps for unit in in_order if not unit.is_idle]
    return {
        "left": sum(len(unit.occupants) for unit in units),
        "workloads": [unit.told() for unit in units],
        "stuck": [f"{unit.subject}: {unit.reason}" for unit in units if unit.reason],
        "batches": _batches(steps, batch),
    }


def _batches(steps, batch):
    """How many batches workloads take that need so many steps each, when the first `batch` take one step at a time."""
    count = 0
    while steps:
        count += 1
        size = batch or len(steps)
        steps = [each for each in (*(step - 1 for step in steps[:size]), *steps[size:]) if each]
    return count
