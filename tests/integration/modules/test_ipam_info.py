# SPDX-License-Identifier: Apache-2.0
"""ipam_info against a real API server."""

from __future__ import annotations

import json

import pytest

CONFIG = (
    '{"name": "net", "plugins": [{"type": "calico", "mtu": __CNI_MTU__, "ipam": {"type": "%s"}}, {"type": "portmap"}]}'
)


@pytest.fixture
def nodes(cluster):
    """Create nodes with the annotation that the role leaves, and remove them with the test."""
    created = []

    def create(name, ipam):
        record = json.dumps({"conflist": "10-podnet.conflist", "plugin": "ptp", "ipam": ipam})
        annotations = {"ipam.podnet.io/cni": record} if ipam else {}
        created.append(name)
        cluster.objects.create("/api/v1/nodes", {"metadata": {"name": name, "annotations": annotations}})

    yield create
    for name in created:
        cluster.objects.delete(f"/api/v1/nodes/{name}")


@pytest.fixture
def calico_config(cluster):
    """Create Calico's ConfigMap with the given IPAM plugin, and remove it with the test."""
    path = "/api/v1/namespaces/kube-system/configmaps"

    def create(ipam):
        body = {"metadata": {"name": "calico-config"}, "data": {"cni_network_config": CONFIG % ipam}}
        cluster.objects.create(path, body)

    yield create
    cluster.objects.delete(f"{path}/calico-config")


def test_pools_are_listed_with_their_use(either_cluster):
    either_cluster.create_pools(("b", "10.244.64.0/24"), ("six", "fd00:10:244::/64"), ("a", "10.244.0.0/18"))
    either_cluster.create_block("10.244.0.0/26", holders=["payments/web-0", "payments/web-1"])
    either_cluster.create_block("10.244.9.0/26")
    result = either_cluster.run("ipam_info")
    assert result["changed"] is False and result["api_group"] == either_cluster.group
    found = [(pool["name"], pool["size"], pool["used"], pool["free"], pool["blocks"]) for pool in result["pools"]]
    assert found == [("a", 16384, 2, 16382, 2), ("b", 256, 0, 256, 0), ("six", 1 << 64, 0, 1 << 64, 0)]
    assert result["pools"][0]["node_selector"] == "all()"


def test_nothing_known_is_unknown(empty_cluster):
    result = empty_cluster.run("ipam_info")
    assert (result["engine"], result["api_group"], result["pools"]) == ("unknown", None, [])
    assert result["evidence"] == ["no API group with IPPools is served"]


def test_nodes_that_the_role_has_set_up_are_podnet(cluster, nodes):
    nodes("node-1", "podnet-ipam")
    nodes("node-2", "podnet-ipam")
    nodes("node-3", None)
    result = cluster.run("ipam_info")
    assert result["engine"] == "podnet"
    assert result["evidence"][0] == (
        "2 of 3 nodes have IPAM plugin podnet-ipam (annotation ipam.podnet.io/cni: node-1, node-2)"
    )


@pytest.mark.parametrize(("ipam", "engine"), [("calico-ipam", "calico"), ("host-local", "host-local")])
def test_a_calico_from_manifests_is_known_by_its_config_map(cluster, calico_config, ipam, engine):
    calico_config(ipam)
    result = cluster.run("ipam_info")
    assert result["engine"] == engine
    assert result["evidence"][0] == f"ConfigMap kube-system/calico-config: cni_network_config has ipam.type {ipam}"


def test_a_calico_from_the_operator_is_known_by_its_installation(cluster):
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    names = {"kind": "Installation", "plural": "installations", "singular": "installation"}
    spec = {"group": "operator.tigera.io", "scope": "Cluster", "names": names, "versions": [version]}
    name = "installations.operator.tigera.io"
    cluster.objects.create(definitions, {"metadata": {"name": name}, "spec": spec})
    collection = "/apis/operator.tigera.io/v1/installations"
    try:
        cluster.wait_for(collection)
        installation = {
            "metadata": {"name": "default"},
            "spec": {"cni": {"type": "Calico", "ipam": {"type": "HostLocal"}}},
        }
        body = {"apiVersion": "operator.tigera.io/v1", "kind": "Installation", **installation}
        cluster.objects.create(collection, body)
        result = cluster.run("ipam_info")
    finally:
        cluster.objects.delete(f"{definitions}/{name}")
    assert result["engine"] == "host-local"
    assert result["evidence"][0] == "Installation default: spec.cni.ipam.type is HostLocal"
