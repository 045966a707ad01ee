# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Which pools a pod would draw from, and why not from the others: the node plugin's own rules, asked beforehand."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass, field

from .._core import assignment
from .._core.names import ADDRESSES_ANNOTATION, FAMILIES_ANNOTATION
from .._core.pool import pool_of
from .operation import Problem

_DEFAULT_FAMILIES = "the default families"


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
    answer = {"namespace": subject.namespace, "node": subject.node, "pod": question.get("pod")}
    if subject.pod_annotations.get(ADDRESSES_ANNOTATION):
        return {**answer, **_fixed(subject, observed.pools)}
    _value, where = subject.annotation(FAMILIES_ANNOTATION)
    answer["families_source"] = where or _DEFAULT_FAMILIES
    try:
        families = assignment.families(subject, [assignment.FAMILIES[name] for name in question["families"]])
    except assignment.AssignmentError as error:
        return {**answer, "families": [], "ipv4": None, "ipv6": None, "error": str(error)}
    answer["families"] = [name for name, family in assignment.FAMILIES.items() if family in families]
    for family in assignment.FAMILIES.values():
        answer[f"ipv{family}"] = _choice(family, subject, observed.pools) if family in families else None
    return {**answer, "error": None}


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


def _choice(family, subject, pools):
    try:
        choice = assignment.choose(family, subject, pools.values())
    except assignment.AssignmentError as error:
        return {"pools": [], "source": None, "refused": [], "error": str(error)}
    chosen = [pool.name for pool in choice.pools]
    reasons = dict(choice.refused)
    for pool in pools.values():
        if pool.family == family and pool.name not in chosen:
            reasons.setdefault(pool.name, f"{choice.source} does not name it")
    refused = [{"name": name, "reason": reason} for name, reason in sorted(reasons.items())]
    return {"pools": chosen, "source": choice.source, "refused": refused, "error": None}


def _fixed(subject, pools):
    """The answer for a pod with the annotation ipAddrs, which makes pools and families meaningless."""
    source = f"annotation {ADDRESSES_ANNOTATION} of {subject}"
    answer = {"families_source": source, "families": [], "ipv4": None, "ipv6": None, "error": None}
    try:
        addresses = assignment.addresses(subject)
    except assignment.AssignmentError as error:
        return {**answer, "error": str(error)}
    for text in addresses:
        version = ipaddress.ip_address(text).version
        answer["families"].append(f"IPv{version}")
        answer[f"ipv{version}"] = {"source": f"{source}: {text}", "refused": [], **_pool_of(text, pools)}
    return answer


def _pool_of(text, pools):
    """The pool that one particular address comes from, or why it comes from none."""
    pool = pool_of(text, pools.values())
    if pool is None:
        return {"pools": [], "error": f"{text} lies in no pool"}
    if pool.why_not_usable():
        return {"pools": [], "error": f"{text} lies in pool {pool.name}, but {pool.why_not_usable()}"}
    return {"pools": [pool.name], "error": None}
