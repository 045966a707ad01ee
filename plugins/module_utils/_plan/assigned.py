# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""What is assigned to pools: the namespaces and the pod templates that carry annotations."""

from __future__ import annotations

from . import assignments
from . import workload_kinds as kinds


def namespaces(objects):
    """The Namespace objects that have an assignment, as items of the option `namespaces` of namespace_pools."""
    found = []
    for each in objects:
        view = assignments.view(each["metadata"].get("annotations") or {}, assignments.NAMESPACE_OPTIONS)
        if any(value is not None for value in view.values()):
            found.append({"name": each["metadata"]["name"], **view})
    return sorted(found, key=lambda item: item["name"])


def workloads(objects):
    """The workloads that have an assignment, as items of the option `workloads` of workload_pools.

    `objects` maps kinds to lists of objects. What one of these kinds has made is left out: its maker stands for it.
    """
    found = []
    for kind, each in ((kind, each) for kind, several in objects.items() for each in several):
        if (kinds.controller(each) or {}).get("kind") in kinds.KINDS:
            continue
        view = assignments.view(kinds.annotations_of(kind, each), assignments.WORKLOAD_OPTIONS)
        if any(value is not None for value in view.values()):
            metadata = each["metadata"]
            found.append({"kind": kind, "namespace": metadata["namespace"], "name": metadata["name"], **view})
    return sorted(found, key=lambda item: (item["kind"], item["namespace"], item["name"]))
