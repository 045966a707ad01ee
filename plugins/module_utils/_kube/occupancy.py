# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Reading who a whole cluster's pods belong to and how far the workloads are, with one list for each kind."""

from __future__ import annotations

from . import resources

_PAGE = 1_000
_METADATA = (
    "name",
    "namespace",
    "uid",
    "generation",
    "labels",
    "annotations",
    "ownerReferences",
    "deletionTimestamp",
)
_POD_SPEC = ("nodeName", "hostNetwork")
_POD_STATUS = ("phase", "podIP", "podIPs", "conditions")


def pods(client):
    """All pods, with what tells their addresses and their controller."""
    return tuple(client.list(resources.path("Pod"), keep=_pod, limit=_PAGE))


def workloads(client, kinds):
    """The workloads of these kinds by (kind, namespace, name), with no more of the pod template than its metadata."""
    found = {}
    for kind in kinds:
        for each in client.list(resources.path(kind), keep=_workload, limit=_PAGE):
            found[kind, each["metadata"]["namespace"], each["metadata"]["name"]] = each
    return found


def budgets(client):
    """(namespace, name, selector as a text, how many pods may go now) of each PodDisruptionBudget that selects any."""
    found = client.list(resources.path("PodDisruptionBudget"))
    return [_budget(each) for each in found if each["spec"].get("selector") is not None]


def _budget(obj):
    metadata, status = obj["metadata"], obj.get("status") or {}
    seen = (status.get("observedGeneration") or 0) >= (metadata.get("generation") or 0)
    allowed = status.get("disruptionsAllowed") or 0
    selector = resources.selector_text(obj["spec"]["selector"])
    # What its controller has not looked at yet allows nothing, as for an eviction.
    return metadata["namespace"], metadata["name"], selector, allowed if seen else 0


def _pod(obj):
    return {
        "metadata": _some(obj["metadata"], _METADATA),
        "spec": _some(obj["spec"], _POD_SPEC),
        "status": _some(obj.get("status") or {}, _POD_STATUS),
    }


def _workload(obj):
    spec = dict(obj["spec"])
    if "jobTemplate" in spec:
        job = spec["jobTemplate"]["spec"]
        spec["jobTemplate"] = {"spec": {**job, "template": _template(job["template"])}}
    else:
        spec["template"] = _template(spec["template"])
    return {"metadata": _some(obj["metadata"], _METADATA), "spec": spec, "status": obj.get("status") or {}}


def _template(template):
    return {"metadata": _some(template.get("metadata") or {}, ("labels", "annotations"))}


def _some(mapping, keys):
    return {key: mapping[key] for key in keys if key in mapping}
