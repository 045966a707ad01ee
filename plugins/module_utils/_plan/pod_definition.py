# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""The manifest of a bare pod: what must not be in it, and what is created from it."""

from __future__ import annotations

import copy

from . import assignments, fixed
from . import workload_kinds as kinds
from .assignments import WORKLOAD_OPTIONS
from .operation import Problem

OPTION = "definition"


def problems(subject, item, assignment, pools):
    """Problems of an item's definition. `pools`: Pools by name."""
    definition = item["definition"]
    if item["kind"] != kinds.POD:
        yield Problem(subject, OPTION, None, "it is for kind Pod only: other kinds must exist already")
        return
    malformed = list(type_problems(subject, definition))
    if malformed:
        yield from malformed
        return
    metadata = definition.get("metadata") or {}
    for name in ("name", "namespace"):
        if metadata.get(name, item[name]) != item[name]:
            message = f"metadata.{name} is {metadata[name]!r} and differs from {name} {item[name]!r}"
            yield Problem(subject, OPTION, metadata[name], message)
    if definition.get("kind", kinds.POD) != kinds.POD:
        yield Problem(subject, OPTION, definition["kind"], f"kind is {definition['kind']!r}; it must be Pod")
    yield from _annotation_problems(subject, metadata.get("annotations") or {}, assignment, pools)


def type_problems(subject, definition):
    """What is of another type than Kubernetes expects, where it is looked at here."""
    metadata, spec = definition.get("metadata") or {}, definition.get("spec") or {}
    annotations = metadata.get("annotations") or {} if isinstance(metadata, dict) else {}
    for field, value in (("metadata", metadata), ("metadata.annotations", annotations), ("spec", spec)):
        if not isinstance(value, dict):
            given = type(value).__name__  # not the value itself: a spec may contain secrets
            yield Problem(subject, OPTION, given, f"{field} is of type {given}; a mapping is expected")
    for key, value in annotations.items() if isinstance(annotations, dict) else ():
        if not isinstance(value, str):
            yield Problem(subject, OPTION, value, f"annotation {key} is {value!r}; a text is expected")


def _annotation_problems(subject, annotations, assignment, pools):
    """Annotations that the definition brings along count where the options leave them alone."""
    for key, text, what in assignments.malformed(assignment, annotations, WORKLOAD_OPTIONS):
        yield Problem(subject, OPTION, text, f"annotation {key} is {text!r}, {what}")
    given = assignments.view(annotations, WORKLOAD_OPTIONS)
    own = {option: given[option] for option in given if option not in assignment and isinstance(given[option], list)}
    for problem in assignments.reference_problems(subject, own, pools):
        yield Problem(subject, OPTION, problem.value, problem.message)
    for problem in fixed.value_problems(subject, own.get(fixed.OPTION, ()), pools):
        yield Problem(subject, OPTION, problem.value, problem.message)


def manifest(item, assignment):
    """The pod to create: the definition with the annotations of its assignment."""
    body = copy.deepcopy(item["definition"])
    metadata = {**(body.get("metadata") or {}), "name": item["name"], "namespace": item["namespace"]}
    given = metadata.get("annotations") or {}
    annotations = assignments.changed(given, assignments.changes(assignment, given))
    if annotations:
        metadata["annotations"] = annotations
    return {"apiVersion": "v1", "kind": kinds.POD, **body, "metadata": metadata}
