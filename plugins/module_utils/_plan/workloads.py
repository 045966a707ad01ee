# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Workloads: from the declared and the observed annotations of pod templates to the writes that make them equal.

An annotation counts only when a pod gets its address. A template's is therefore worth changing, though running pods
keep their addresses until they are replaced (`rollout` sees to that); a running pod's own is not.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from . import assignments, fixed, pod_definition, rollout, staleness
from . import workload_kinds as kinds
from .assignments import WORKLOAD_OPTIONS
from .operation import Operation, Plan, Problem

KINDS = kinds.KINDS
# Templates first: what is evicted must come back with the new one.
_ORDER = ("patch", "restart", "create", "evict")


@dataclass(frozen=True)
class Desired:
    """`items` is the option `workloads`."""

    items: tuple
    absent: bool = False
    policy: rollout.Policy = field(default_factory=rollout.Policy)
    declared_pools: tuple = ()

    def pools(self, existing):
        """Pools by name: those of the cluster (IPPool objects by name), and the declared ones."""
        return assignments.readable(assignments.with_declared(existing, self.declared_pools))

    def blocks_to_read(self, existing):
        """The CIDRs of the blocks that tell who has the wanted fixed addresses."""
        return set() if self.absent else fixed.blocks(self.items, self.pools(existing))


@dataclass(frozen=True)
class Observed:
    """`workloads` maps (kind, namespace, name) to objects, `pods` the same keys to the workload's pods.

    `pools` maps names to IPPool objects, `namespaces` names to the Namespace objects of the workloads. `uses` is the
    result of `fixed.in_use`, and `holders` are those of its pods that exist, as (namespace, name). `first`: the uids of
    the pods that were there when the module started. `served`: whether there can be pools.
    """

    workloads: dict
    pods: dict = field(default_factory=dict)
    pools: dict = field(default_factory=dict)
    namespaces: dict = field(default_factory=dict)
    uses: dict = field(default_factory=dict)
    holders: frozenset = frozenset()
    first: frozenset = frozenset()
    served: bool = True


@dataclass
class WorkloadPlan(Plan):
    """`awaited` maps the keys of workloads whose pods are being replaced, or created, to what they may have then."""

    awaited: dict = field(default_factory=dict)


def key(item):
    return item["kind"], item["namespace"], item["name"]


def names_of(pods):
    """The (namespace, name) of all pods of all workloads."""
    return {(pod["metadata"]["namespace"], pod["metadata"]["name"]) for own in pods.values() for pod in own}


def plan(wanted, observed):
    """The WorkloadPlan for a Desired. Its result `workloads` lists the stale pods of each."""
    outcome = WorkloadPlan(results={"workloads": []})
    pools = wanted.pools(observed.pools)
    planned = [_PlannedWorkload(item, wanted, observed, pools) for item in sorted(wanted.items, key=key)]
    outcome.problems += [*wanted.policy.problems(), *_repeated(wanted.items)]
    for workload in planned:
        workload.add_to(outcome)
    outcome.problems += fixed.repeated((each.subject, each.assignment.get(fixed.OPTION, ())) for each in planned)
    outcome.operations.sort(key=lambda operation: _ORDER.index(operation.verb))
    outcome.problems = assignments.with_cause(outcome.problems, observed.served)
    if outcome.problems:
        outcome.operations = []
    # Of a pod's definition only the API server knows all that can be wrong, which must not be found out midway.
    outcome.rehearsed = [operation for operation in outcome.operations if operation.verb == "create"]
    return outcome


def lagging(awaited, existing, pods):
    """What the workloads in a plan's `awaited` still lack, as {key: text}, out of workloads and pods by key."""
    found = {}
    for each, allowed in awaited.items():
        if each not in existing:
            found[each] = "it does not exist any more"
            continue
        text = rollout.lagging(each[0], existing[each], pods.get(each, ()), allowed)
        if text:
            found[each] = text
    return found


class _PlannedWorkload:
    """One item of the option `workloads`, on its way into a plan."""

    def __init__(self, item, wanted, observed, pools):
        self.item, self.absent, self.pools, self.policy = item, wanted.absent, pools, wanted.policy
        self.key = self.kind, self.namespace, self.name = key(item)
        self.subject = f"{self.kind} {self.namespace}/{self.name}"
        self.assignment = assignments.wanted(item, wanted.absent, WORKLOAD_OPTIONS)
        self.definition = None if wanted.absent else item.get("definition")
        self.existing = observed.workloads.get(self.key)
        self.pods = tuple(observed.pods.get(self.key, ()))
        self.observed = observed
        self.home = observed.namespaces.get(self.namespace)

    def add_to(self, outcome):
        outcome.problems += assignments.reference_problems(self.subject, self.assignment, self.pools)
        self._add_fixed(outcome)
        if self.definition is not None:
            outcome.problems += pod_definition.problems(self.subject, self.item, self.assignment, self.pools)
        if self.existing is not None:
            self._add_existing(outcome)
        elif self.absent:
            return
        elif self.kind == kinds.POD and self.definition is not None:
            self._add_creation(outcome)
        else:
            hint = "; give its definition to have it created" if self.kind == kinds.POD else ""
            outcome.problems.append(self._problem("name", self.name, f"it does not exist{hint}"))

    def _add_fixed(self, outcome):
        entries = self.assignment.get(fixed.OPTION)
        if not entries:
            return
        own = {(self.namespace, pod["metadata"]["name"]) for pod in self.pods}
        problems, warnings = fixed.held(self.subject, entries, self.observed.uses, own, self.observed.holders)
        outcome.problems += [*fixed.value_problems(self.subject, entries, self.pools), *problems]
        outcome.warnings += warnings
        if self.existing is not None:
            outcome.problems += fixed.workload_problems(self.subject, self.kind, self.existing)
            outcome.warnings += fixed.workload_warnings(self.subject, self.kind, self.existing)

    def _add_existing(self, outcome):
        annotations = kinds.annotations_of(self.kind, self.existing)
        written = assignments.changes(self.assignment, annotations)
        after = assignments.changed(annotations, written)
        allowed = staleness.allowed(self.pools, after, self._namespace_annotations())
        stale = tuple(staleness.stale_pods(self.pods, allowed))
        workload = rollout.Workload(self.kind, self.name, self.existing, self.pods, stale, after, changed=bool(written))
        decision = rollout.decide(workload, self.policy, self.observed.first)
        outcome.problems += self._existing_problems(annotations, written, decision)
        self._add_warnings(outcome, annotations, written, decision)
        self._add_views(outcome, annotations, after, decision.restarted)
        outcome.results["workloads"].append({**self._identity(), "stale_pods": [_described(*each) for each in stale]})
        self._add_writes(outcome, written, decision)
        if decision.underway:
            outcome.awaited[self.key] = allowed

    def _add_writes(self, outcome, written, decision):
        annotations = dict(written)
        if decision.restart:
            annotations[rollout.RESTARTED_ANNOTATION] = self.policy.stamp
        if annotations:
            verb, body = "patch" if written else "restart", kinds.patch(self.kind, annotations)
            outcome.operations.append(
                Operation(verb, self.kind, self.name, self.namespace, body=body, observed=self.existing)
            )
        patience = {"timeout": self.policy.timeout, "sleep": self.policy.sleep}
        for pod in sorted(decision.evict, key=lambda each: each["metadata"]["name"]):
            name = pod["metadata"]["name"]
            outcome.operations.append(Operation("evict", kinds.POD, name, self.namespace, body=patience, observed=pod))

    def _add_creation(self, outcome):
        if self.home is None:
            message = f"namespace {self.namespace!r} does not exist"
            outcome.problems.append(self._problem("namespace", self.namespace, message))
            return
        if any(pod_definition.type_problems(self.subject, self.definition)):
            return
        manifest = pod_definition.manifest(self.item, self.assignment)
        annotations = manifest["metadata"].get("annotations") or {}
        self._add_views(outcome, None, annotations)
        after = assignments.view(annotations, WORKLOAD_OPTIONS)
        outcome.warnings += [*assignments.contradictions(self.subject, after), *self._network_warnings(manifest)]
        outcome.results["workloads"].append({**self._identity(), "stale_pods": []})
        outcome.operations.append(Operation("create", kinds.POD, self.name, self.namespace, body=manifest))
        outcome.awaited[self.key] = staleness.allowed(self.pools, annotations, self._namespace_annotations())

    def _add_views(self, outcome, before, after, restarted=False):
        identity, restart = self._identity(), {"restarted": True} if restarted else {}
        seen = None if before is None else {**identity, **assignments.view(before, WORKLOAD_OPTIONS)}
        outcome.before[self.subject] = seen
        outcome.after[self.subject] = {**identity, **assignments.view(after, WORKLOAD_OPTIONS), **restart}

    def _add_warnings(self, outcome, annotations, written, decision):
        outcome.warnings += assignments.malformed_warnings(self.subject, self.assignment, annotations, WORKLOAD_OPTIONS)
        after = assignments.view(assignments.changed(annotations, written), WORKLOAD_OPTIONS)
        outcome.warnings += assignments.contradictions(self.subject, after)
        outcome.warnings += [f"{self.subject}: {warning}" for warning in decision.warnings]
        outcome.warnings += self._network_warnings(kinds.template_of(self.kind, self.existing))
        owner = kinds.controller(self.existing)
        if owner and written and self.kind not in (kinds.REPLICA_SET, kinds.POD):
            message = f"it is controlled by {owner['kind']} {owner['name']}, which may undo the change"
            outcome.warnings.append(f"{self.subject}: {message}")

    def _network_warnings(self, template):
        if (template.get("spec") or {}).get("hostNetwork") and any(self.assignment.values()):
            yield f"{self.subject}: its pods are in the node's network: no assignment has an effect"

    def _existing_problems(self, annotations, written, decision):
        """Why Kubernetes, or the workload's controller, would not let the change have its effect."""
        owner = kinds.controller(self.existing)
        if self.kind == kinds.REPLICA_SET and owner:
            hint = f"it belongs to {owner['kind']} {owner['name']}: declare that instead"
            yield self._problem("kind", self.kind, hint)
        elif self._is_to_come_back():
            yield self._problem("name", self.name, "it is being deleted: run again when it is gone")
        elif written:
            yield from self._unchangeable(annotations, written)
        if decision.problem:
            yield self._problem("rollout", self.policy.mode, decision.problem)

    def _is_to_come_back(self):
        """Whether it is a pod that would be created, were it not for the one that is on its way out."""
        defined = self.kind == kinds.POD and self.definition is not None
        return defined and bool(self.existing["metadata"].get("deletionTimestamp"))

    def _unchangeable(self, annotations, written):
        """The Problem of an annotation that Kubernetes would refuse to change, or that would have no effect."""
        [option, *_others] = [option for option in WORKLOAD_OPTIONS if assignments.KEYS[option] in written]
        before = assignments.view(annotations, [option])[option]
        after = assignments.view(assignments.changed(annotations, written), [option])[option]
        difference = f"it is {_shown(before)} and declared as {_shown(after)}, but "
        if self.kind == kinds.JOB and not kinds.never_started(self.existing):
            reason = "the pod template of a Job cannot be changed: delete the Job and create it again"
            yield self._problem(option, after, difference + reason)
        if self.kind == kinds.POD:
            addresses = ", ".join(map(str, staleness.addresses_of(self.existing))) or "no address yet"
            reason = f"the annotation has no effect on a pod that exists (it has {addresses}): "
            yield self._problem(option, after, difference + reason + self._remedy())

    def _remedy(self):
        owner = kinds.controller(self.existing)
        return f"declare its {owner['kind']} {owner['name']}" if owner else "delete the pod and create it again"

    def _namespace_annotations(self):
        return (self.home or {"metadata": {}})["metadata"].get("annotations") or {}

    def _identity(self):
        return {"kind": self.kind, "namespace": self.namespace, "name": self.name}

    def _problem(self, option, value, message):
        return Problem(self.subject, option, value, message)


def _described(pod, addresses, reasons):
    return {"name": pod["metadata"]["name"], "addresses": addresses, "reasons": reasons}


def _shown(value):
    return "not set" if value is None else repr(value)


def _repeated(items):
    counts = Counter(key(item) for item in items)
    for (kind, namespace, name), count in sorted(counts.items()):
        if count == 1:
            continue
        yield Problem(f"{kind} {namespace}/{name}", "name", name, f"it is declared {count} times")
