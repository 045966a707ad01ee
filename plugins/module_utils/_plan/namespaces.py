# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Namespaces: from the declared and the observed pool annotations to the writes that make them equal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from . import assignments, labels, ownership
from .assignments import NAMESPACE_OPTIONS
from .operation import Operation, Plan, Problem


@dataclass(frozen=True)
class Desired:
    """`items` is the option `namespaces`, `scope` the top-level `label_selectors`: where `purge` may act, or None."""

    items: tuple
    absent: bool = False
    purge: bool = False
    scope: tuple | None = None
    declared_pools: tuple = ()

    @property
    def names(self):
        """The namespaces that are listed by name."""
        return {item["name"] for item in self.items if item.get("name") is not None}

    @property
    def purges(self):
        return self.purge and not self.absent

    @property
    def needs_all(self):
        """Whether planning has to know every namespace."""
        return self.purges or any(item.get("name") is None for item in self.items)


@dataclass(frozen=True)
class Observed:
    """`namespaces` maps names to Namespace objects, `pools` names to IPPool objects. `served`: whether there can be
    pools.
    """

    namespaces: dict
    pools: dict = field(default_factory=dict)
    served: bool = True


def plan(wanted, observed):
    """The Plan for a Desired."""
    outcome = Plan()
    pools = assignments.readable(assignments.with_declared(observed.pools, wanted.declared_pools))
    items = [_Item(item, wanted.absent) for item in wanted.items]
    outcome.problems += ownership.selector_problems(wanted.scope)
    for item in items:
        item.check(pools, outcome)
    outcome.problems += _repeated(item.name for item in items if item.name is not None)
    assigned = _assigned(items, observed.namespaces, wanted.absent, outcome)
    for name, assignment in sorted(assigned.items()):
        _plan_one(name, assignment, observed.namespaces[name], outcome)
    if wanted.purges:
        for name in ownership.purged(observed.namespaces, assigned, wanted.scope):
            _purge(name, observed.namespaces[name], outcome)
    outcome.operations.sort(key=lambda operation: operation.name)
    outcome.problems = assignments.with_cause(outcome.problems, observed.served)
    if outcome.problems:
        outcome.operations = []
    return outcome


class _Item:
    """One item of the option `namespaces`: an assignment, and whom it is for."""

    def __init__(self, item, absent):
        self.name, self.selectors = item.get("name"), item.get("label_selectors")
        self.assignment = assignments.wanted(item, absent, NAMESPACE_OPTIONS)
        self.matches = None

    @property
    def subject(self):
        if self.name is not None:
            return f"namespace {self.name}"
        return f"namespaces with {self.selectors}"

    def check(self, pools, outcome):
        outcome.problems += assignments.reference_problems(self.subject, self.assignment, pools)
        if self.name is None:
            self.matches = _matcher(self.selectors, self.subject, outcome)


def _matcher(selectors, subject, outcome):
    """The predicate over labels; one that matches nothing, and a problem, when there is no understanding them."""
    try:
        return labels.matcher(selectors)
    except ValueError as error:
        outcome.problems.append(Problem(subject, "label_selectors", list(selectors), str(error)))
        return lambda _labels: False


def _assigned(items, namespaces, absent, outcome):
    """The wanted assignment of each existing namespace that an item is for."""
    listed = {item.name: item for item in items if item.name is not None}
    for name in sorted(set(listed) - set(namespaces)):
        if not absent:
            problem = Problem(f"namespace {name}", "name", name, f"namespace {name!r} does not exist")
            outcome.problems.append(problem)
    selecting = [item for item in items if item.name is None]
    matched, found = set(), {}
    for name, namespace in sorted(namespaces.items()):
        own = [item for item in selecting if item.matches(_labels(namespace))]
        matched.update(map(id, own))
        if name in listed:
            found[name] = listed[name].assignment
        elif own:
            found[name] = own[0].assignment
            outcome.problems += _disagreements(name, own)
    for item in selecting:
        if id(item) not in matched and not absent:
            outcome.warnings.append(f"label_selectors {item.selectors}: no namespace matches")
    return found


def _disagreements(name, items):
    """The problem of a namespace that items by label selector assign differently: there is no order among them."""
    first = items[0]
    for other in items[1:]:
        if other.assignment != first.assignment:
            message = (
                f"the items with label_selectors {first.selectors} and {other.selectors} both match, and one says"
                f" {_shown(first.assignment)}, the other {_shown(other.assignment)}: make the selectors exclude each"
                f" other, or list {name} by name, which wins"
            )
            yield Problem(f"namespace {name}", "label_selectors", other.selectors, message)


def _shown(assignment):
    return ", ".join(f"{option} {entries}" for option, entries in sorted(assignment.items())) or "nothing"


def _plan_one(name, assignment, namespace, outcome):
    subject, annotations = f"namespace {name}", _annotations(namespace)
    outcome.warnings += assignments.malformed_warnings(subject, assignment, annotations, NAMESPACE_OPTIONS)
    written = assignments.changes(assignment, annotations)
    after = assignments.view(assignments.changed(annotations, written), NAMESPACE_OPTIONS)
    outcome.warnings += assignments.contradictions(subject, after)
    outcome.before[name] = {"name": name, **assignments.view(annotations, NAMESPACE_OPTIONS)}
    outcome.after[name] = {"name": name, **after}
    if written:
        body = {"metadata": {"annotations": written}}
        outcome.operations.append(Operation("patch", "Namespace", name, body=body, observed=namespace))


def _purge(name, namespace, outcome):
    """Take all assignments away, of a namespace that has any."""
    assignment = assignments.wanted({}, True, NAMESPACE_OPTIONS)
    if assignments.changes(assignment, _annotations(namespace)):
        _plan_one(name, assignment, namespace, outcome)


def _annotations(namespace):
    return namespace["metadata"].get("annotations") or {}


def _labels(namespace):
    return namespace["metadata"].get("labels") or {}


def _repeated(names):
    counts = Counter(names)
    for name in sorted(name for name, count in counts.items() if count > 1):
        yield Problem(f"namespace {name}", "name", name, f"{name!r} is declared {counts[name]} times")
