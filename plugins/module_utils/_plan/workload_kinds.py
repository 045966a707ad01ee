# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""What the kinds of workloads have in common and in what they differ: their pod template, and who replaces its pods."""

from __future__ import annotations

DEPLOYMENT, STATEFUL_SET, DAEMON_SET = "Deployment", "StatefulSet", "DaemonSet"
REPLICA_SET, JOB, CRON_JOB, POD = "ReplicaSet", "Job", "CronJob", "Pod"
_TEMPLATES = {
    DEPLOYMENT: ("spec", "template"),
    STATEFUL_SET: ("spec", "template"),
    DAEMON_SET: ("spec", "template"),
    REPLICA_SET: ("spec", "template"),
    JOB: ("spec", "template"),
    CRON_JOB: ("spec", "jobTemplate", "spec", "template"),
    POD: (),
}
KINDS = tuple(_TEMPLATES)


def template_of(kind, workload):
    """A workload's pod template; of a Pod the pod itself."""
    for part in _TEMPLATES[kind]:
        workload = workload[part]
    return workload


def annotations_of(kind, workload):
    """The annotations of a workload's pod template."""
    return (template_of(kind, workload).get("metadata") or {}).get("annotations") or {}


def patch(kind, annotations):
    """The merge patch that writes annotations of a workload's pod template."""
    body = {"metadata": {"annotations": annotations}}
    for part in reversed(_TEMPLATES[kind]):
        body = {part: body}
    return body


def controller(obj):
    """The owner reference of the object's controller, or None."""
    owners = obj["metadata"].get("ownerReferences") or ()
    return next((owner for owner in owners if owner.get("controller")), None)


def never_started(job):
    """A suspended Job that has not started yet: the only one whose template's annotations may change."""
    return bool(job["spec"].get("suspend")) and not (job.get("status") or {}).get("startTime")


def rolls(kind, workload):
    """Whether the workload's controller replaces its pods by itself when their template changes."""
    if kind == DEPLOYMENT:
        return True
    strategy = (workload["spec"].get("updateStrategy") or {}).get("type", "RollingUpdate")
    return kind in (STATEFUL_SET, DAEMON_SET) and strategy != "OnDelete"


def recreates(kind, workload):
    """Whether the controller makes a new pod from the present template for one that goes, and no more than that."""
    return kind == REPLICA_SET or (kind in (STATEFUL_SET, DAEMON_SET) and not rolls(kind, workload))


def is_paused(kind, workload):
    return kind == DEPLOYMENT and bool(workload["spec"].get("paused"))


def partition(kind, workload):
    """The ordinal below which a StatefulSet keeps its pods as they are."""
    if kind != STATEFUL_SET or not rolls(kind, workload):
        return 0
    rolling = (workload["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}
    return rolling.get("partition") or 0


def ordinal(pod):
    """The ordinal of a StatefulSet's pod."""
    digits = pod["metadata"]["name"].rpartition("-")[2]
    return int(digits) if digits.isdigit() else 0


def replicas(kind, workload):
    """How many pods the workload may have at the same time; None when that is one for each node."""
    spec = workload["spec"]
    if kind == DAEMON_SET:
        return None
    if kind == POD:
        return 1
    if kind == CRON_JOB:
        spec = spec["jobTemplate"]["spec"]
    count = spec.get("parallelism" if kind in (JOB, CRON_JOB) else "replicas")
    return 1 if count is None else count
