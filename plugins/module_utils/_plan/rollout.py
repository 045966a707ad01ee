# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""How a workload's pods come to the addresses of its assignment: who replaces them, and when that is done.

A changed pod template makes the controllers of Deployments, StatefulSets and DaemonSets replace the pods. Where the
template is right already, an annotation with the time does the same, as `kubectl rollout restart` writes it. Other
controllers make a new pod when one goes: there, pods are evicted, which respects disruption budgets. The rest is only
reported.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import assignments, staleness
from . import workload_kinds as kinds
from .operation import Problem

NEVER, IF_STALE, ALWAYS = "never", "if_stale", "always"
MODES = (NEVER, IF_STALE, ALWAYS)
RESTARTED_ANNOTATION = "kubectl.kubernetes.io/restartedAt"


@dataclass(frozen=True)
class Policy:
    """`mode` is one of MODES. `stamp` is the text that marks a restart as one of this run.

    An eviction that a disruption budget forbids is tried again every `sleep` seconds, for `timeout` seconds.
    """

    mode: str = NEVER
    stamp: str = ""
    timeout: float = 0
    sleep: float = 1

    def problems(self):
        """Problems of the times. Without a pause in between, waiting would be a flood of requests."""
        for option, value, least in (("wait_timeout", self.timeout, 0), ("wait_sleep", self.sleep, 1)):
            if value < least:
                yield Problem(f"option {option}", option, value, f"{value} is too short; {least} s is the least")


@dataclass(frozen=True)
class Workload:
    """One workload and its pods as they were read, and what the plan makes of it.

    `stale` are (pod, addresses, reasons) by the assignment as it will be. `template` are the annotations that the pod
    template will have, and `changed` tells whether they differ from what they are.
    """

    kind: str
    name: str
    stored: dict
    pods: tuple
    stale: tuple
    template: dict
    changed: bool


@dataclass(frozen=True)
class Decision:
    """`restart`: whether to restart by annotation. `restarted`: whether this run does or did so.

    `evict` are pods. `underway`: whether pods are being replaced, or will be. `problem` forbids it all.
    """

    restart: bool = False
    restarted: bool = False
    evict: tuple = ()
    underway: bool = False
    warnings: tuple = ()
    problem: str | None = None


def decide(workload, policy, first):
    """The Decision for a Workload. `first`: the uids of the pods that were there when the module started."""
    if kinds.rolls(workload.kind, workload.stored):
        return _decide_rolling(workload, policy)
    if kinds.recreates(workload.kind, workload.stored):
        return _decide_evicting(workload, policy, first)
    warnings = []
    if policy.mode != NEVER and workload.stale:
        pods = _names(pod for pod, _addresses, _reasons in workload.stale)
        hint = "delete it and create it again" if workload.kind == kinds.POD else "they keep it until they end"
        warnings.append(f"stale, but pods of a {workload.kind} are not replaced: {pods}; {hint}")
    return Decision(warnings=tuple(warnings))


def _decide_rolling(workload, policy):
    kind, stored = workload.kind, workload.stored
    kept, curable = _split(kind, stored, [pod for pod, _addresses, _reasons in workload.stale])
    warnings = []
    if kept and policy.mode != NEVER:
        first = kinds.partition(kind, stored)
        reason = f"below the partition {first} of its update strategy"
        warnings.append(f"stale, but not replaced because they are {reason}: {_names(kept)}")
    restarted = bool(policy.stamp) and workload.template.get(RESTARTED_ANNOTATION) == policy.stamp
    restart = not restarted and _is_due(workload, policy, curable)
    if kinds.is_paused(kind, stored):
        return _decide_paused(workload, policy, restart, curable)
    underway = workload.changed or restart or restarted or bool(curable and _being_replaced(workload, curable))
    return Decision(restart, restart or restarted, underway=underway, warnings=tuple(warnings))


def _decide_paused(workload, policy, restart, curable):
    """The controller of a paused Deployment replaces nothing."""
    message = "spec.paused is true: no pod is replaced before the Deployment is resumed"
    if policy.mode != NEVER and (workload.changed or restart or curable):
        return Decision(problem=f"{message}; resume it, or use rollout=never")
    return Decision(warnings=(message,) if workload.changed else ())


def _decide_evicting(workload, policy, first):
    if policy.mode == IF_STALE:
        pods = [pod for pod, _addresses, _reasons in workload.stale]
    elif policy.mode == ALWAYS:
        pods = [pod for pod in workload.pods if _is_alive(pod) and pod["metadata"]["uid"] in first]
    else:
        pods = []
    return Decision(restarted=bool(pods), evict=tuple(pods), underway=bool(pods))


def _is_due(workload, policy, curable):
    """Whether to restart a workload by annotation.

    Stale pods alone are no reason when the template changes in this run, or when they are older than the template: the
    controller replaces them anyway.
    """
    if policy.mode == ALWAYS:
        return True
    is_needed = policy.mode == IF_STALE and bool(curable) and not workload.changed
    return is_needed and not _being_replaced(workload, curable)


def _being_replaced(workload, pods):
    """Whether all of these pods were made from an older template and a rollout has begun that replaces them.

    Pods carry the annotations of the template that they were made from.
    """
    if unfinished(workload.kind, workload.stored) is None:
        return False
    keys = (*assignments.KEYS.values(), RESTARTED_ANNOTATION)
    return all(
        any((pod["metadata"].get("annotations") or {}).get(key) != workload.template.get(key) for key in keys)
        for pod in pods
    )


def lagging(kind, workload, pods, allowed):
    """What a workload still lacks after its pods were to be replaced, as a text; None when it is done."""
    missing = _recreated(kind, workload, pods) if kinds.recreates(kind, workload) else unfinished(kind, workload)
    _kept, stale = _split(kind, workload, staleness.stale_pods(pods, allowed), pod_of=lambda each: each[0])
    texts = [missing] if missing else []
    texts += [f"pod {pod['metadata']['name']}: {', '.join(reasons)}" for pod, _addresses, reasons in stale]
    return "; ".join(texts) or None


def unfinished(kind, workload):
    """What a workload's status lacks for a finished rollout, as a text; None when it is finished.

    The same conditions as `kubectl rollout status`.
    """
    status, metadata = workload.get("status") or {}, workload["metadata"]
    if kind == kinds.POD:
        ready = status.get("phase") == "Succeeded" or _is_ready(workload)
        return None if ready else f"it is {status.get('phase') or 'Pending'} and not ready"
    if (status.get("observedGeneration") or 0) < (metadata.get("generation") or 0):
        return "its controller has not looked at the change yet"
    wanted = _wanted(kind, workload)
    names = ("updatedNumberScheduled", "numberAvailable") if kind == kinds.DAEMON_SET else _COUNTS
    updated, available = (status.get(name) or 0 for name in names)
    old = (status.get("replicas") or 0) - updated if kind == kinds.DEPLOYMENT else 0
    to_update = max(wanted - kinds.partition(kind, workload), 0)
    if updated < to_update:
        return f"{updated} of {to_update} pods are updated{_obstacle(status)}"
    if old > 0:
        return f"{old} old pods are still there{_obstacle(status)}"
    if available < wanted:
        return f"{available} of {wanted} pods are available{_obstacle(status)}"
    return None


_COUNTS = ("updatedReplicas", "availableReplicas")


def _wanted(kind, workload):
    """How many pods a workload shall have; a DaemonSet's controller counts the nodes."""
    count = kinds.replicas(kind, workload)
    return (workload.get("status") or {}).get("desiredNumberScheduled") or 0 if count is None else count


def _recreated(kind, workload, pods):
    """What is missing after evictions, judged by the pods: the status does not tell new ones from old ones."""
    going = [pod for pod in pods if pod["metadata"].get("deletionTimestamp")]
    if going:
        return f"being deleted: {_names(going)}"
    wanted = _wanted(kind, workload)
    ready = sum(1 for pod in pods if _is_ready(pod))
    return None if ready >= wanted else f"{ready} of {wanted} pods are ready"


def _obstacle(status):
    for condition in status.get("conditions") or ():
        if condition.get("status") == "False" and condition.get("message"):
            return f" ({condition['message']})"
    return ""


def _split(kind, workload, each, pod_of=lambda pod: pod):
    """(those of a StatefulSet's pods that its partition keeps as they are, the others)."""
    limit = kinds.partition(kind, workload)
    kept = [one for one in each if kinds.ordinal(pod_of(one)) < limit] if limit else []
    return kept, [one for one in each if not limit or kinds.ordinal(pod_of(one)) >= limit]


def _is_alive(pod):
    finished = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    return not finished and not pod["metadata"].get("deletionTimestamp")


def _is_ready(pod):
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)


def _names(pods):
    return ", ".join(sorted(pod["metadata"]["name"] for pod in pods))
