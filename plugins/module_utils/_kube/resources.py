# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""URL paths of Kubernetes' own kinds. Calico's are in `calico`."""

from __future__ import annotations

_COLLECTIONS = {
    "Namespace": ("/api/v1", "namespaces"),
    "Node": ("/api/v1", "nodes"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "Pod": ("/api/v1", "pods"),
    "Service": ("/api/v1", "services"),
    "Event": ("/api/v1", "events"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "StatefulSet": ("/apis/apps/v1", "statefulsets"),
    "DaemonSet": ("/apis/apps/v1", "daemonsets"),
    "ReplicaSet": ("/apis/apps/v1", "replicasets"),
    "Job": ("/apis/batch/v1", "jobs"),
    "CronJob": ("/apis/batch/v1", "cronjobs"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
    "ServiceCIDR": ("/apis/networking.k8s.io/v1", "servicecidrs"),
}


def path(kind, name=None, namespace=None):
    """The path of a kind's collection, in one namespace if given, or of one object."""
    group, plural = _COLLECTIONS[kind]
    parts = [group, *(("namespaces", namespace) if namespace else ()), plural, *((name,) if name else ())]
    return "/".join(parts)


def selector_text(selector):
    """A LabelSelector as the text of a list request's `labelSelector`."""
    terms = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for term in selector.get("matchExpressions") or ():
        terms.append(_EXPRESSIONS[term["operator"]].format(key=term["key"], values=",".join(term.get("values") or ())))
    return ",".join(terms)


_EXPRESSIONS = {
    "In": "{key} in ({values})",
    "NotIn": "{key} notin ({values})",
    "Exists": "{key}",
    "DoesNotExist": "!{key}",
}


def selects(selector, labels):
    """Whether a LabelSelector matches a dict of labels."""
    exact = all(labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items())
    return exact and all(_TESTS[term["operator"]](term, labels) for term in selector.get("matchExpressions") or ())


_TESTS = {
    "In": lambda term, labels: term["key"] in labels and labels[term["key"]] in term["values"],
    "NotIn": lambda term, labels: labels.get(term["key"]) not in term["values"],
    "Exists": lambda term, labels: term["key"] in labels,
    "DoesNotExist": lambda term, labels: term["key"] not in labels,
}


def controller(obj):
    """The owner reference of an object's controller, {} without one."""
    owners = obj["metadata"].get("ownerReferences") or ()
    return next((owner for owner in owners if owner.get("controller")), {})
