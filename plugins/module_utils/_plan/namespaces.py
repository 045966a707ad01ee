# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Namespaces: from the declared and the observed pool annotations to the writes that make them equal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from . import assignments
from .operation import Operation, Plan, Problem


@dataclass(frozen=True)
class Observed:
    """`namespaces` maps names to Namespace objects, `pools` names to IPPool objects."""

    namespaces: dict
    pools: dict = field(default_factory=dict)


def plan(items, absent, observed):
    """The Plan for `items`, the option `namespaces`."""
    outcome, pools = Plan(), assignments.readable(observed.pools)
    outcome.problems += _repeated(items)
    for item in sorted(items, key=lambda each: each["name"]):
        _plan_one(item, absent, observed.namespaces.get(item["name"]), pools, outcome)
    if outcome.problems:
        outcome.operations = []
    return outcome


def _plan_one(item, absent, namespace, pools, outcome):
    name, subject = item["name"], f"namespace {item['name']}"
    assignment = assignments.wanted(item, absent)
    outcome.problems += assignments.reference_problems(subject, assignment, pools)
    if namespace is None:
        if not absent:
            outcome.problems.append(Problem(subject, "name", name, f"namespace {name!r} does not exist"))
        return
    annotations = namespace["metadata"].get("annotations") or {}
    outcome.warnings += assignments.malformed_warnings(subject, assignment, annotations)
    written = assignments.changes(assignment, annotations)
    outcome.before[name] = {"name": name, **assignments.view(annotations)}
    outcome.after[name] = {"name": name, **assignments.view(assignments.changed(annotations, written))}
    if written:
        body = {"metadata": {"annotations": written}}
        outcome.operations.append(Operation("patch", "Namespace", name, body=body, observed=namespace))


def _repeated(items):
    counts = Counter(item["name"] for item in items)
    for name in sorted(name for name, count in counts.items() if count > 1):
        yield Problem(f"namespace {name}", "name", name, f"{name!r} is declared {counts[name]} times")
