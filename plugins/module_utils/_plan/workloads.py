# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Workloads: from the declared and the observed annotations of pod templates to the writes that make them equal.

An annotation counts only when a pod gets its address. A template's is therefore worth changing, though running pods
keep their addresses until they are replaced; a running pod's own is not.
"""

from __future__ import annotations

import copy
import ipaddress
from collections import Counter
from dataclasses import dataclass, field

from . import assignments
from .operation import Operation, Plan, Problem

POD = "Pod"
JOB = "Job"
_TEMPLATES = {
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    JOB: ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    POD: (),
}
KINDS = tuple(_TEMPLATES)


@dataclass(frozen=True)
class Observed:
    """`workloads` maps (kind, namespace, name) to objects, `pods` the same keys to the workload's pods.

    `pools` maps names to IPPool objects, `namespaces` holds those of `namespaces_to_create_in` that exist.
    """

    workloads: dict
    pods: dict = field(default_factory=dict)
    pools: dict = field(default_factory=dict)
    namespaces: frozenset = frozenset()


def key(item):
    return item["kind"], item["namespace"], item["name"]


def namespaces_to_create_in(items, existing):
    """The namespaces of pods that have a definition and do not exist. `existing`: workloads by their key."""
    return {item["namespace"] for item in items if item.get("definition") is not None and key(item) not in existing}


def plan(items, absent, observed):
    """The Plan for `items`, the option `workloads`. Its result `workloads` lists the stale pods of each."""
    outcome, pools = Plan(results={"workloads": []}), assignments.readable(observed.pools)
    outcome.problems += _repeated(items)
    for item in sorted(items, key=key):
        planned = _PlannedWorkload(item, absent, observed, pools)
        planned.add_to(outcome)
    if outcome.problems:
        outcome.operations = []
    return outcome


def stale_pods(assignment, pods, pools):
    """Pods that run with an address which their workload's wanted assignment would not give, as {name, addresses}."""
    allowed = {
        family: [pool.network for pool in (assignments.look_up(entry, pools) for entry in entries) if pool]
        for family, entries in assignment.items()
        if entries
    }
    found = []
    for pod in pods:
        stale = [str(address) for address in _addresses(pod) if _is_outside(address, allowed)]
        if stale:
            found.append({"name": pod["metadata"]["name"], "addresses": stale})
    return sorted(found, key=lambda each: each["name"])


class _PlannedWorkload:
    """One item of the option `workloads`, on its way into a plan."""

    def __init__(self, item, absent, observed, pools):
        self.item, self.absent, self.pools = item, absent, pools
        self.kind, self.namespace, self.name = key(item)
        self.subject = f"{self.kind} {self.namespace}/{self.name}"
        self.assignment = assignments.wanted(item, absent)
        self.existing = observed.workloads.get(key(item))
        self.pods = observed.pods.get(key(item), ())
        self.namespace_exists = self.namespace in observed.namespaces

    def add_to(self, outcome):
        outcome.problems += assignments.reference_problems(self.subject, self.assignment, self.pools)
        outcome.problems += self._definition_problems()
        if self.existing is not None:
            self._add_existing(outcome)
        elif self.absent:
            return
        elif self.kind == POD and self.item.get("definition") is not None:
            self._add_creation(outcome)
        else:
            hint = "; give its definition to have it created" if self.kind == POD else ""
            outcome.problems.append(self._problem("name", self.name, f"it does not exist{hint}"))

    def _add_existing(self, outcome):
        annotations = _template(self.kind, self.existing)
        outcome.warnings += assignments.malformed_warnings(self.subject, self.assignment, annotations)
        written = assignments.changes(self.assignment, annotations)
        self._add_views(outcome, annotations, assignments.changed(annotations, written))
        stale = stale_pods(self.assignment, self.pods, self.pools)
        outcome.results["workloads"].append({**self._identity(), "stale_pods": stale})
        if not written:
            return
        problem = self._unchangeable(annotations, written)
        if problem:
            outcome.problems.append(problem)
            return
        body = {"metadata": {"annotations": written}}
        for part in reversed(_TEMPLATES[self.kind]):
            body = {part: body}
        outcome.operations.append(
            Operation("patch", self.kind, self.name, self.namespace, body=body, observed=self.existing)
        )

    def _add_creation(self, outcome):
        if not self.namespace_exists:
            message = f"namespace {self.namespace!r} does not exist"
            outcome.problems.append(self._problem("namespace", self.namespace, message))
            return
        manifest = copy.deepcopy(self.item["definition"])
        metadata = {**(manifest.get("metadata") or {}), "name": self.name, "namespace": self.namespace}
        given = metadata.get("annotations") or {}
        annotations = assignments.changed(given, assignments.changes(self.assignment, given))
        if annotations:
            metadata["annotations"] = annotations
        manifest = {"apiVersion": "v1", "kind": POD, **manifest, "metadata": metadata}
        self._add_views(outcome, None, annotations)
        outcome.results["workloads"].append({**self._identity(), "stale_pods": []})
        outcome.operations.append(Operation("create", POD, self.name, self.namespace, body=manifest))

    def _add_views(self, outcome, before, after):
        identity = self._identity()
        outcome.before[self.subject] = None if before is None else {**identity, **assignments.view(before)}
        outcome.after[self.subject] = {**identity, **assignments.view(after)}

    def _unchangeable(self, annotations, written):
        """The Problem of an annotation that Kubernetes would refuse to change, or that would have no effect."""
        option = next(
            option
            for family, option in assignments.FAMILY_OPTIONS.items()
            if assignments.POOLS_ANNOTATIONS[family] in written
        )
        before = assignments.view(annotations)[option]
        after = assignments.view(assignments.changed(annotations, written))[option]
        difference = f"it is {_shown(before)} and declared as {_shown(after)}, but "
        if self.kind == JOB and not _never_started(self.existing):
            return self._problem(
                option,
                after,
                difference + "the pod template of a Job cannot be changed: delete the Job and create it again",
            )
        if self.kind == POD:
            addresses = ", ".join(str(address) for address in _addresses(self.existing)) or "no address yet"
            return self._problem(
                option,
                after,
                difference + f"the annotation has no effect on a pod that exists (it has {addresses}):"
                " delete the pod and create it again",
            )
        return None

    def _definition_problems(self):
        definition = self.item.get("definition")
        if definition is None:
            return
        if self.kind != POD:
            yield self._problem("definition", None, "it is for kind Pod only: other kinds must exist already")
            return
        metadata = definition.get("metadata") or {}
        for field_name, own in (("name", self.name), ("namespace", self.namespace)):
            if metadata.get(field_name, own) != own:
                value = metadata[field_name]
                yield self._problem(
                    "definition", value, f"metadata.{field_name} is {value!r} and differs from {field_name} {own!r}"
                )
        if definition.get("kind", POD) != POD:
            yield self._problem("definition", definition["kind"], f"kind is {definition['kind']!r}; it must be Pod")
        yield from self._given_annotation_problems(metadata.get("annotations") or {})

    def _given_annotation_problems(self, annotations):
        """Annotations that the definition brings along count where the options leave a family out."""
        for key, text in assignments.malformed(self.assignment, annotations):
            yield self._problem("definition", text, f"annotation {key} is {text!r}, {assignments.MALFORMED}")
        given = assignments.view(annotations)
        for family, option in assignments.FAMILY_OPTIONS.items():
            if family not in self.assignment and isinstance(given[option], list):
                for problem in assignments.reference_problems(self.subject, {family: given[option]}, self.pools):
                    yield self._problem("definition", problem.value, problem.message)

    def _identity(self):
        return {"kind": self.kind, "namespace": self.namespace, "name": self.name}

    def _problem(self, option, value, message):
        return Problem(self.subject, option, value, message)


def _template(kind, workload):
    """The annotations of a workload's pod template."""
    template = workload
    for part in _TEMPLATES[kind]:
        template = template[part]
    return (template.get("metadata") or {}).get("annotations") or {}


def _never_started(job):
    """A suspended Job that has not started yet: the only one whose template's annotations may change."""
    return bool(job["spec"].get("suspend")) and not (job.get("status") or {}).get("startTime")


def _addresses(pod):
    """The addresses of a pod that has its own and runs; none of a finished one or of one in the node's network."""
    status = pod.get("status") or {}
    finished = status.get("phase") in ("Succeeded", "Failed") or pod["metadata"].get("deletionTimestamp")
    if finished or pod["spec"].get("hostNetwork"):
        return []
    return [ipaddress.ip_address(each["ip"]) for each in status.get("podIPs") or () if each.get("ip")]


def _is_outside(address, allowed):
    networks = allowed.get(address.version)
    return networks is not None and not any(address in network for network in networks)


def _shown(value):
    return "not set" if value is None else repr(value)


def _repeated(items):
    counts = Counter(key(item) for item in items)
    for (kind, namespace, name), count in sorted(counts.items()):
        if count == 1:
            continue
        yield Problem(f"{kind} {namespace}/{name}", "name", name, f"it is declared {count} times")
