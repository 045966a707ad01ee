# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Reading workloads and their pods, with few requests and no more of each pod than is used."""

from __future__ import annotations

from . import observe, resources

_FEW = 3  # workloads of one namespace whose pods are listed one by one; those of more with one list of all pods
_METADATA = ("name", "namespace", "uid", "labels", "annotations", "ownerReferences", "deletionTimestamp")
_SPEC = ("nodeName", "hostNetwork")
_STATUS = ("phase", "podIPs", "conditions", "containerStatuses")


def existing(client, keys):
    """The workloads that exist out of (kind, namespace, name) keys, by key."""
    wanted = {}
    for kind, namespace, name in keys:
        wanted.setdefault((kind, namespace), set()).add(name)
    return {
        (kind, namespace, name): found
        for (kind, namespace), names in sorted(wanted.items())
        for name, found in observe.named(client, kind, names, namespace).items()
    }


def pods_of(client, workloads):
    """The pods of each workload, by its key. Those of a CronJob are those of its Jobs."""
    by_namespace = {}
    for key, workload in workloads.items():
        by_namespace.setdefault(key[1], {})[key] = workload
    found = {}
    for namespace, own in sorted(by_namespace.items()):
        found.update(_pods_in(client, namespace, own))
    return found


def exist(client, pods):
    """Those of (namespace, name) pairs of pods that exist."""
    return {(namespace, name) for namespace, name in pods if client.find(resources.path("Pod", name, namespace))}


def _pods_in(client, namespace, workloads):
    found = {key: [workload] for key, workload in workloads.items() if key[0] == "Pod"}
    cron_jobs = {key: workload for key, workload in workloads.items() if key[0] == "CronJob"}
    jobs = _jobs_of(client, namespace, cron_jobs) if cron_jobs else {}
    selecting = {key: workload for key, workload in workloads.items() if key not in found and key not in cron_jobs}
    path = resources.path("Pod", namespace=namespace)
    everything = client.list(path, keep=_kept) if any(jobs.values()) or len(selecting) > _FEW else None
    for key, workload in selecting.items():
        selector = workload["spec"]["selector"]
        if everything is None:
            pods = client.list(path, keep=_kept, labelSelector=resources.selector_text(selector))
        else:
            pods = [pod for pod in everything if resources.selects(selector, pod["metadata"].get("labels") or {})]
        found[key] = [pod for pod in pods if _may_be_of(key[0], workload, pod)]
    for key in cron_jobs:
        found[key] = [pod for pod in everything or () if _owner_uid(pod) in jobs[key]]
    return found


def _jobs_of(client, namespace, cron_jobs):
    """The uids of each CronJob's Jobs, by its key."""
    jobs = client.list(resources.path("Job", namespace=namespace), keep=lambda job: {"metadata": job["metadata"]})
    return {
        key: {each["metadata"]["uid"] for each in jobs if _owner_uid(each) == cron_job["metadata"]["uid"]}
        for key, cron_job in cron_jobs.items()
    }


def _owner_uid(obj):
    return resources.controller(obj).get("uid")


def _may_be_of(kind, workload, pod):
    """Whether a pod that a workload's selector matches is really its own, and not another controller's."""
    controller = resources.controller(pod)
    if not controller:
        return True
    if kind == "Deployment":
        return controller["kind"] == "ReplicaSet"
    return controller["uid"] == workload["metadata"]["uid"]


def _kept(pod):
    """What is used of a pod."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    return {
        "metadata": {name: metadata[name] for name in _METADATA if name in metadata},
        "spec": {name: pod["spec"][name] for name in _SPEC if name in pod["spec"]},
        "status": {name: status[name] for name in _STATUS if name in status},
    }
