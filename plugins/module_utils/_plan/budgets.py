# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether the restart of a workload keeps within disruption budgets.

Kubernetes holds only evictions against a PodDisruptionBudget. A controller that replaces pods by its update strategy
does not look at it, so what the strategy may take away at once is held against it before. Source: the defaults of
apps/v1.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import labels
from . import workload_kinds as kinds


@dataclass(frozen=True)
class Budget:
    """A PodDisruptionBudget. `selector` is a text, empty for all pods; `allowed` is how many pods may go now."""

    namespace: str
    name: str
    selector: str
    allowed: int

    def covers(self, namespace, pod_labels):
        selectors = [self.selector] if self.selector else []
        return self.namespace == namespace and labels.matcher(selectors)(pod_labels)


def why_not(kind, workload, namespace, budgets):
    """Why a workload is not restarted now, as a text; None when it can be."""
    taken = _taken(kind, workload)
    own = (kinds.template_of(kind, workload).get("metadata") or {}).get("labels") or {}
    for budget in budgets:
        if taken > budget.allowed and budget.covers(namespace, own):
            return (
                f"its update strategy may take {taken} pods away at once, and PodDisruptionBudget {budget.name} allows"
                f" {budget.allowed} now"
            )
    return None


def _taken(kind, workload):
    """How many pods the update strategy may take away at once."""
    spec, count = workload["spec"], kinds.replicas(kind, workload)
    if kind == kinds.DEPLOYMENT:
        strategy = spec.get("strategy") or {}
        if strategy.get("type", "RollingUpdate") == "Recreate":
            return count
        rolling = strategy.get("rollingUpdate") or {}
        unavailable = _number(rolling.get("maxUnavailable", "25%"), count, up=False)
        # With neither of the two, the controller takes one away.
        return unavailable or int(_number(rolling.get("maxSurge", "25%"), count, up=True) == 0)
    if count is None:
        count = (workload.get("status") or {}).get("desiredNumberScheduled") or 0
    rolling = (spec.get("updateStrategy") or {}).get("rollingUpdate") or {}
    return _number(rolling.get("maxUnavailable", 1), count, up=True)


def _number(value, count, up):
    """A number of pods, given as that or as a percentage of `count`."""
    text = str(value)
    if not text.endswith("%"):
        return int(text)
    share = count * int(text[:-1])
    return -(-share // 100) if up else share // 100
