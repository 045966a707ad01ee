# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Questions about pods, existing or not: which pools each would draw from, and why not from the others."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from .._core import assignment, explanation
from .operation import Problem


@dataclass(frozen=True)
class Observed:
    """`namespaces`, `nodes` and `pods` (by namespace and name) are those that exist of the ones asked about.

    `pools` are Pools by name.
    """

    namespaces: dict
    nodes: dict
    pods: dict = field(default_factory=dict)
    pools: dict = field(default_factory=dict)


def problems(questions, observed):
    """What of the questions, the option `explain`, does not exist."""
    for question in questions:
        namespace, node = question["namespace"], question["node"]
        subject = f"pod of namespace {namespace} on node {node}"
        if namespace not in observed.namespaces:
            yield Problem(subject, "namespace", namespace, f"namespace {namespace!r} does not exist")
        if node not in observed.nodes:
            yield Problem(subject, "node", node, f"node {node!r} does not exist")


def explain(question, observed):
    """The answer to one question without problems."""
    subject = _subject(question, observed)
    default = [assignment.FAMILIES[name] for name in question["families"]]
    asked = {"namespace": subject.namespace, "node": subject.node, "pod": question.get("pod")}
    return {**asked, **explanation.explain(subject, default, observed.pools.values())}


def _subject(question, observed):
    namespace = observed.namespaces[question["namespace"]]["metadata"]
    pod = observed.pods.get((question["namespace"], question.get("pod")))
    annotations, labels = question.get("annotations"), question.get("labels")
    if annotations is None:
        annotations = (pod["metadata"].get("annotations") if pod else None) or {}
    return assignment.Subject(
        namespace=question["namespace"],
        name=question.get("pod") or "(new)",
        node=question["node"],
        pod_annotations={key: _annotation(value) for key, value in annotations.items()},
        namespace_annotations=namespace.get("annotations") or {},
        namespace_labels=(namespace.get("labels") or {}) if labels is None else _texts(labels),
        node_labels=observed.nodes[question["node"]]["metadata"].get("labels") or {},
    )


def _texts(values):
    return {key: str(value) for key, value in values.items()}


def _annotation(value):
    """An annotation may be given as its text, or as the list that the text is to be the JSON of."""
    return value if isinstance(value, str) else json.dumps(value)
