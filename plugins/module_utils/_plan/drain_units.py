# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""What is moved as one when a pool is emptied: a workload with its pods in the pool, or a bare pod."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from .._core.assignment import AssignmentError, Subject, choose
from . import assignments, drain_reasons, in_use, rollout, staleness
from . import workload_kinds as kinds
from .address_index import address_of, family_of
from .operation import Operation

_ANYTHING = staleness.Allowed({})
_OPTIONS = assignments.WORKLOAD_OPTIONS
_POOLS_OPTION = {family: option for option, family in assignments.POOL_OPTIONS.items()}


@dataclass(frozen=True)
class Place:
    """Where units live. `namespaces` are the annotations of namespaces by name, `pools` the Pools by name, both as they
    will be. `leaving`, `observed` and `wanted` are those of `drain`.
    """

    leaving: object
    observed: object
    namespaces: dict
    pools: dict
    wanted: object


@dataclass(frozen=True)
class Occupant:
    """A pod with addresses of the pool; `values` are their numbers."""

    pod: dict
    values: tuple

    @property
    def name(self):
        return self.pod["metadata"]["name"]

    @property
    def uid(self):
        return self.pod["metadata"]["uid"]

    @property
    def is_leaving(self):
        return bool(self.pod["metadata"].get("deletionTimestamp"))

    @property
    def addresses(self):
        return [address_of(value) for value in self.values]


def units(place):
    """The Units of a cluster by kind, namespace and name: what has pods in the pool, or asks for it in its template."""
    occupants = {}
    for pod in place.observed.pods:
        values = place.leaving.addresses(in_use.pod_addresses(pod))
        if values:
            occupants.setdefault(_root(place, pod), []).append(Occupant(pod, tuple(values)))
    for (kind, namespace, name), workload in place.observed.workloads.items():
        if _asks(place.leaving, kind, workload):
            occupants.setdefault(((kind, namespace, name), _foreign(kinds.controller(workload))), [])
    roots = sorted(occupants, key=lambda root: root[0])
    return [Unit(place, key, foreign, occupants[key, foreign]) for key, foreign in roots]


def _asks(leaving, kind, workload):
    """Whether a template that is nobody else's asks for the pool, or for an address of it."""
    owner = kinds.controller(workload)
    is_going = workload["metadata"].get("deletionTimestamp") or (kind == kinds.JOB and _is_over(workload))
    if is_going or (owner and owner["kind"] in kinds.KINDS):
        return False
    annotations = kinds.annotations_of(kind, workload)
    return bool(leaving.pointed(annotations, _OPTIONS) or leaving.fixed(annotations))


def _is_over(job):
    """Whether a Job starts no pods any more."""
    conditions = (job.get("status") or {}).get("conditions") or ()
    return any(each.get("type") in ("Complete", "Failed") and each.get("status") == "True" for each in conditions)


def _root(place, pod):
    """(key, owner) of what is replaced for a pod: the topmost workload of a known kind, or else the pod itself.

    `owner` is (kind, name) of what controls that and is of another kind, or None.
    """
    namespace = pod["metadata"]["namespace"]
    key, owner = (kinds.POD, namespace, pod["metadata"]["name"]), kinds.controller(pod)
    while owner and owner["kind"] in kinds.KINDS:
        key = owner["kind"], namespace, owner["name"]
        stored = place.observed.workloads.get(key)
        owner = kinds.controller(stored) if stored else None
    return key, _foreign(owner)


def _foreign(owner):
    return (owner["kind"], owner["name"]) if owner else None


class Unit:
    """`key` is (kind, namespace, name); `foreign` the (kind, name) of a controller above it that is not known here.

    `stored` is the workload; None of a bare pod, and of a workload that is gone. `pods` are the Occupants to be moved.
    """

    def __init__(self, place, key, foreign, occupants):
        self.place, self.key, self.foreign = place, key, foreign
        self.kind, self.namespace, self.name = key
        self.occupants = sorted(occupants, key=lambda each: each.name)
        self.pods = [each for each in self.occupants if not each.is_leaving]
        self.stored = place.observed.workloads.get(key)
        self.subject = f"{self.kind} {self.namespace}/{self.name}"
        self.before = self._annotations()
        assignment = place.leaving.pointed(self.before, _OPTIONS) if self.stored else {}
        self.written = assignments.changes(assignment, self.before)
        self.template = assignments.changed(self.before, self.written)
        self.names_pool = bool(self.written) or bool(self.stored and place.leaving.fixed(self.before))

    def _annotations(self):
        """The annotations that the unit's pods start with."""
        if self.stored:
            return kinds.annotations_of(self.kind, self.stored)
        return (self.occupants[0].pod["metadata"].get("annotations") or {}) if self.kind == kinds.POD else {}

    @property
    def rolls(self):
        """Whether a controller replaces its pods when the template changes."""
        return self.stored is not None and kinds.rolls(self.kind, self.stored)

    @property
    def is_recreated(self):
        """Whether a controller makes a new pod for one that goes, and no more than that."""
        return self.stored is not None and kinds.recreates(self.kind, self.stored)

    @cached_property
    def is_unasked(self):
        """Whether its pods come to the pool only by the pool's selectors: nothing names a pool of the family."""
        if self.names_pool or not self.pods:
            return False
        view = assignments.view({**self.place.namespaces.get(self.namespace, {}), **self.template}, _OPTIONS)
        return not view[_POOLS_OPTION[family_of(self.pods[0].values[0])]] and not view["ip_addrs"]

    @cached_property
    def decision(self):
        """The rollout.Decision about a workload whose controller makes new pods."""
        stale = tuple((each.pod, each.addresses, ()) for each in self.pods)
        pods, changed = tuple(each.pod for each in self.pods), bool(self.written)
        workload = rollout.Workload(self.kind, self.name, self.stored, pods, stale, self.template, changed)
        return rollout.decide(workload, self.place.wanted.policy, frozenset())

    @cached_property
    def reason(self):
        """Why nothing is done about the unit now, as a text; None when it can be moved."""
        return drain_reasons.why_not(self)

    @cached_property
    def future(self):
        """(names of the pools that its new pods may draw from, why one of them gets no address or None)."""
        found, pools = set(), self.place.pools.values()
        places = {(each.pod["spec"].get("nodeName"), family_of(each.values[0])) for each in self.pods}
        for node, family in sorted(places, key=str):
            try:
                found.update(pool.name for pool in choose(family, self._new_pod(node), pools).pools)
            except AssignmentError as error:
                return set(), str(error)
        return found, None

    @property
    def destinations(self):
        return self.future[0]

    def _new_pod(self, node):
        observed = self.place.observed
        return Subject(
            namespace=self.namespace,
            name=self.name,
            node=node,
            pod_annotations=self.template,
            namespace_annotations=self.place.namespaces.get(self.namespace, {}),
            namespace_labels=_labels(observed.namespaces.get(self.namespace)),
            node_labels=_labels(observed.nodes.get(node)),
        )

    @property
    def is_idle(self):
        """Whether there is nothing to do about it, or nothing that can be done."""
        return self.reason is not None or not (self.pods or self.written)

    @property
    def _evicted(self):
        """The pods that are evicted one by one, because nobody replaces them otherwise."""
        return self.pods if self.kind == kinds.POD or self.is_recreated else []

    @property
    def next_uid(self):
        """The uid of the pod to evict next, or None."""
        return self._evicted[0].uid if self._evicted else None

    @property
    def steps(self):
        """In how many batches it takes part."""
        return len(self._evicted) or 1

    @property
    def is_awaited(self):
        """Whether to wait until it has new pods, or is gone. A CronJob's next Job has its own."""
        return self.rolls or bool(self._evicted)

    def operations(self, uid):
        """The writes of a batch. `uid`: of the pod to evict, or None."""
        annotations, policy = dict(self.written), self.place.wanted.policy
        if self.rolls and self.decision.restart:
            annotations[rollout.RESTARTED_ANNOTATION] = policy.stamp
        found = []
        if annotations:
            verb, body = "patch" if self.written else "restart", kinds.patch(self.kind, annotations)
            found.append(Operation(verb, self.kind, self.name, self.namespace, body=body, observed=self.stored))
        patience = {"timeout": policy.timeout, "sleep": policy.sleep}
        for each in self._evicted:
            if each.uid == uid:
                evicted = Operation("evict", kinds.POD, each.name, self.namespace, body=patience, observed=each.pod)
                found.append(evicted)
        return found

    def views(self):
        """(before, after) as modules return them; None after what nobody makes anew."""
        identity = {"kind": self.kind, "namespace": self.namespace, "name": self.name}
        before = {**identity, **assignments.view(self.before, _OPTIONS)}
        after = {**identity, **assignments.view(self.template, _OPTIONS), "restarted": bool(self.pods)}
        return before, None if self.kind == kinds.POD else after

    def warnings(self):
        """What may surprise when it is moved."""
        found = [f"{self.subject}: {text}" for text in self.decision.warnings] if self.rolls else []
        target = self.place.leaving.to
        if self.destinations and target not in self.destinations and self.kind != kinds.POD:
            names = ", ".join(sorted(self.destinations))
            found.append(f"{self.subject}: its new pods draw from {names}, as its assignment says, not from {target}")
        return found

    def told(self):
        """The unit as modules return it."""
        return {
            "kind": self.kind,
            "namespace": self.namespace,
            "name": self.name,
            "pods": [{"name": each.name, "addresses": each.addresses} for each in self.occupants],
            "reason": self.reason,
        }


def lagging(key, stored, pods, leaving):
    """What a unit that was begun still lacks, as a text; None when it is done. `stored` and `pods` as they are now."""
    kind = key[0]
    if kind == kinds.POD:
        return "it is not gone yet" if stored else None
    if stored is None:
        return None
    missing = rollout.lagging(kind, stored, pods, _ANYTHING)
    texts = [missing] if missing else []
    if kinds.rolls(kind, stored):
        limit = kinds.partition(kind, stored)
        for pod in pods:
            values = leaving.addresses(in_use.pod_addresses(pod))
            if values and (not limit or kinds.ordinal(pod) >= limit):
                texts.append(f"pod {pod['metadata']['name']} has {address_of(values[0])} of pool {leaving.name}")
    return "; ".join(texts) or None


def _labels(obj):
    return (obj or {"metadata": {}})["metadata"].get("labels") or {}
