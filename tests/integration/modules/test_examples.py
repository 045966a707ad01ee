# SPDX-License-Identifier: Apache-2.0
"""Every documented example of the modules that write Calico's objects: check mode predicts it, and a second run changes
nothing. Those of the modules for assignments are in test_assignment_examples.
"""

from __future__ import annotations

import importlib

import pytest
import yaml
from support.worlds import WorldBuilder

MODULES = "ansible_collections.podnet.ipam.plugins.modules"
OURS = {"app.kubernetes.io/managed-by": "podnet.ipam"}


def examples(module):
    """The documented tasks of a module that can change something, as parameters of a test."""
    for task in yaml.safe_load(importlib.import_module(f"{MODULES}.{module}").EXAMPLES):
        options = task.get(f"podnet.ipam.{module}", "not of this module")
        if isinstance(options, dict):
            yield pytest.param(options, id=task["name"])


def create(cluster, kind, plural, name, spec, **labels):
    body = {"apiVersion": cluster.group, "kind": kind, "metadata": {"name": name, "labels": labels}, "spec": spec}
    cluster.objects.create(cluster.path(plural), body)


@pytest.mark.parametrize("options", list(examples("ip_pools")))
def test_an_example_of_ip_pools_is_predicted_exactly_and_is_idempotent(cluster, options):
    if options.get("state") == "absent":
        cluster.create_pools(("legacy-firewall", "10.244.128.0/24"))
        cluster.create_block("10.244.128.0/26", holders=["payments/old"] if options.get("force") else ())
    if options.get("purge"):
        create(cluster, "IPPool", "ippools", "old", {"cidr": "10.244.240.0/24"}, team="payments", **OURS)
    assert cluster.apply("ip_pools", **options)["changed"]


@pytest.mark.parametrize("options", list(examples("ip_reservations")))
def test_an_example_of_ip_reservations_is_predicted_exactly_and_is_idempotent(cluster, options):
    cluster.create_pools(("all", "10.244.0.0/16"), ("six", "fd00:10:244::/64"))
    if "purge" in options or "state" in options:
        create(cluster, "IPReservation", "ipreservations", "for-later", {"reservedCIDRs": ["10.244.9.0/26"]}, **OURS)
    assert cluster.apply("ip_reservations", **options)["changed"]


@pytest.mark.parametrize("options", list(examples("ipam_config")))
def test_an_example_of_ipam_config_is_predicted_exactly_and_is_idempotent(cluster, options):
    cluster.run("ipam_config", strict_affinity=True, max_blocks_per_host=2)
    assert cluster.apply("ipam_config", **options)["changed"]


@pytest.mark.parametrize("options", list(examples("pod_audit")))
def test_an_example_of_a_repair_by_pod_audit_is_predicted_exactly_and_is_idempotent(whole_cluster, options):
    world = WorldBuilder()
    world.pod("web-0", node="node-1", pools=("a",))
    world.allocate("a", "node-1", "net.gone", {"namespace": "payments", "pod": "gone", "node": "node-1"})
    world.handle("net.orphan", {"10.244.0.0/28": 1})
    world.affinity("node-1", "10.244.9.0/28")
    world.create_in(whole_cluster.objects, whole_cluster.group)
    # Nothing here is as old as in the example.
    assert whole_cluster.apply("pod_audit", **{**options, "grace": 0})["changed"]
