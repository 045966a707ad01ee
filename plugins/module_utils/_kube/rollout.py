# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Moving pods: evictions that wait for disruption budgets, and waiting until workloads have their new pods.

Times are seconds of the monotonic clock.
"""

from __future__ import annotations

import time

from . import resources, workloads
from .errors import ApiError

_FORBIDDEN_NOW = 429
_SHOWN = 3  # pods of one workload whose trouble a message tells


def evict(writer, path, pod, timeout, sleep):
    """Ask the API server to evict this very pod (at `path`), again and again while a disruption budget forbids it.

    ApiError when that takes longer than `timeout`, NotFound when the pod is gone, Conflict when it is another one.
    """
    metadata = pod["metadata"]
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
        "deleteOptions": {"preconditions": {"uid": metadata["uid"]}},
    }
    deadline = time.monotonic() + timeout
    while True:
        try:
            return writer.evict(path, body)
        except ApiError as error:
            if error.status != _FORBIDDEN_NOW:
                raise
            if time.monotonic() + sleep > deadline:
                raise _given_up(error, timeout) from None
        time.sleep(sleep)


def _given_up(error, timeout):
    message = f"{error.message} (tried for {timeout:g} s, which is wait_timeout)"
    given_up = ApiError(error.method, error.path, error.status, error.reason, message)
    given_up.origin = error.origin
    return given_up


def wait(client, keys, judge, timeout, sleep):
    """Wait until `judge(keys, existing, pods)`, which gets workloads and their pods by key, finds nothing missing.

    It returns {key: text} of what is missing. The result is the last such answer, {} when nothing is: with what keeps
    pods from starting when time is up.
    """
    deadline = time.monotonic() + timeout
    missing = dict.fromkeys(keys)
    while missing:
        existing = workloads.existing(client, missing)
        pods = workloads.pods_of(client, existing)
        missing = judge(list(missing), existing, pods)
        left = deadline - time.monotonic()
        if missing and left <= 0:
            return {key: "; ".join([text, *_troubles(client, pods.get(key, ()))]) for key, text in missing.items()}
        if missing:
            time.sleep(min(sleep, left))
    return {}


def _troubles(client, pods):
    """What the first pods that do not start are waiting for."""
    waiting = [pod for pod in pods if not _is_ready(pod) and not pod["metadata"].get("deletionTimestamp")]
    for pod in sorted(waiting, key=lambda each: each["metadata"]["name"])[:_SHOWN]:
        status = pod.get("status") or {}
        reason = _waiting_container(status) or _last_warning(client, pod["metadata"])
        yield f"pod {pod['metadata']['name']} is {status.get('phase') or 'Pending'}" + (f": {reason}" if reason else "")


def _waiting_container(status):
    """Why a container of a pod that has its address does not run. Before that, it only says `ContainerCreating`."""
    if not status.get("podIPs"):
        return None
    states = [(each.get("state") or {}).get("waiting") or {} for each in status.get("containerStatuses") or ()]
    found = next((state for state in states if state.get("reason")), {})
    return ": ".join(text for text in (found.get("reason"), found.get("message")) if text)


def _last_warning(client, metadata):
    """The last event about a pod, such as that of the CNI plugin that found no address; None if it may not be read."""
    path = resources.path("Event", namespace=metadata["namespace"])
    try:
        events = client.list(path, fieldSelector=f"involvedObject.name={metadata['name']},type=Warning")
    except ApiError:
        return None
    latest = max(events, key=_time, default=None)
    return latest and f"{latest.get('reason')}: {latest.get('message')}"


def _time(event):
    return event.get("lastTimestamp") or event.get("eventTime") or ""


def _is_ready(pod):
    status = pod.get("status") or {}
    conditions = status.get("conditions") or ()
    ready = any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)
    return ready or status.get("phase") == "Succeeded"
