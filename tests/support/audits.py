# SPDX-License-Identifier: Apache-2.0
"""A small cluster to audit, and what is found in it."""

from __future__ import annotations

from ansible_collections.podnet.ipam.plugins.module_utils._plan import audit
from ansible_collections.podnet.ipam.plugins.module_utils._plan.world import world
from support.worlds import WorldBuilder

GRACE = 300
# Less than GRACE before worlds.NOW.
YOUNG = "2026-08-22T09:58:00Z"
YOUNG_TIMESTAMP = "2026-08-22 09:58:00 +0000 UTC"


def small_cluster():
    """Two pods on two nodes, one of them dual-stack, and a tunnel address."""
    cluster = WorldBuilder()
    cluster.pod("web-0")
    cluster.pod("api-0", node="node-2", pools=("b", "six"))
    cluster.tunnel("node-1")
    return cluster


def findings(cluster, grace=GRACE, **observed):
    return audit.Audit(cluster.observed(**observed), grace).findings


def problems(cluster):
    """How many problems `calicoctl ipam check` would count."""
    return audit.calicoctl_problems(world(cluster.observed(), GRACE))


def found(cluster, **options):
    """{check: [objects]} of what is found."""
    by_check = {}
    for finding in findings(cluster, **options):
        by_check.setdefault(finding.check, []).append(finding.objects)
    return by_check


def only(cluster, check, **options):
    """The one finding there is, of this check."""
    [finding] = findings(cluster, **options)
    assert finding.check == check
    return finding


def address_of(cluster, name, namespace="payments"):
    return cluster.get("Pod", name, namespace)["status"]["podIPs"][0]["ip"]


def leak(cluster, **owner):
    """An address that is allocated and used by nobody; the text of it."""
    owner = {"namespace": "payments", "pod": "gone", "node": "node-1", **owner}
    return cluster.allocate("a", "node-1", "net.gone", {key: value for key, value in owner.items() if value})
