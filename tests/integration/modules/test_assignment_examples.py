# SPDX-License-Identifier: Apache-2.0
"""Every documented example of the modules for assignments: check mode predicts it, and a second run changes nothing."""

from __future__ import annotations

import importlib

import pytest
import yaml

MODULES = "ansible_collections.podnet.ipam.plugins.modules"
POOLS = ("payments", "shop-1", "shop-2", "front", "back", "batch", "legacy-firewall")
NAMESPACES = {
    "payments": {},
    "shop": {"tenant": "x", "tier": "front"},
    "orders": {"tenant": "x", "tier": "back"},
    "batch": {"tenant": "x", "tier": "back"},
    "left-over": {"tenant": "x"},
}


def named(namespace):
    """The name of an example's namespace among those of all tests."""
    return f"{namespace}-of-examples"


def in_namespaces_of_their_own(options):
    for item in options.get("namespaces", ()):
        if "name" in item:
            item["name"] = named(item["name"])
    for item in options.get("workloads", ()):
        item["namespace"] = named(item["namespace"])
    return options


def examples():
    for module in ("namespace_pools", "workload_pools"):
        for task in yaml.safe_load(importlib.import_module(f"{MODULES}.{module}").EXAMPLES):
            options = in_namespaces_of_their_own(task[f"podnet.ipam.{module}"])
            yield pytest.param(module, options, id=task["name"])


@pytest.fixture
def shop(cluster):
    """The cluster that the examples are about."""
    cluster.create_pools(*((name, f"10.244.{144 + index}.0/24") for index, name in enumerate(POOLS, -6)))
    cluster.create_pools(("shop-v6", "fd00:10:244::/64"))
    for name, labels in ((named(name), labels) for name, labels in NAMESPACES.items()):
        path = f"/api/v1/namespaces/{name}"
        if not cluster.objects.exists(path):
            cluster.objects.create("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
        annotations = {"cni.projectcalico.org/ipv4pools": '["shop-1"]'}
        cluster.objects.patch(path, {"metadata": {"labels": labels, "annotations": annotations}})
    created = [
        cluster.create_workload("Deployment", named("payments"), "settlement"),
        cluster.create_workload("StatefulSet", named("payments"), "gateway"),
    ]
    yield cluster
    pod = f"/api/v1/namespaces/{named('payments')}/pods/probe"
    for path in (*created, pod):
        if cluster.objects.exists(path):
            cluster.objects.delete(path)


@pytest.mark.parametrize(("module", "options"), list(examples()))
def test_an_example_is_predicted_exactly_and_is_idempotent(shop, module, options):
    # There are no controllers here that would finish a rollout.
    options = {option: value for option, value in options.items() if option != "wait"}
    assert shop.apply(module, **options)["changed"]
