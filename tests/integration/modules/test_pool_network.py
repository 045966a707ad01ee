# SPDX-License-Identifier: Apache-2.0
"""New pools against the network of a real API server, whatever tells what that is."""

from __future__ import annotations

import pytest
from support.faulty_proxy import Fault, FaultyProxy

RACKS = [
    {"name": "rack-1", "cidr": "10.244.0.0/18", "node_selector": "rack == '1'"},
    {"name": "rack-2", "cidr": "10.244.64.0/18", "node_selector": "rack == '2'"},
]


def test_whoever_may_not_read_the_network_gets_warnings_and_no_failure(cluster):
    forbidden = [
        Fault("GET", path, 403, times=99)
        for path in ("/nodes", "/servicecidrs", "/kubeadm-config", "/kube-proxy", "/pods", "/ipamconfigs/default")
    ]
    with FaultyProxy(cluster.plane, *forbidden) as proxy:
        result = cluster.run("ip_pools", pools=RACKS, **cluster.through(proxy))
    assert len(result["operations"]) == 2
    pods, services, nodes = cluster.warnings(result)
    assert "lie in the pod CIDRs was not checked" in pods and "pod_cidrs" in pods
    assert "those of services was not checked" in services and "service_cidrs" in services
    assert "addresses of nodes was not checked" in nodes


SYSTEM = "/api/v1/namespaces/kube-system"
LOST = [{"name": "lost", "cidr": "10.99.0.0/24"}]


@pytest.fixture
def unrecorded(cluster):
    """A cluster that kubeadm did not make; what is put into kube-system with `create` goes with the test."""
    path = f"{SYSTEM}/configmaps/kubeadm-config"
    recorded, created = cluster.objects.get(path), []
    cluster.objects.delete(path)

    def create(collection, body):
        cluster.objects.create(f"{SYSTEM}/{collection}", body)
        created.append(f"{SYSTEM}/{collection}/{body['metadata']['name']}")

    yield create
    for each in created:
        cluster.objects.delete(each)
    body = {"metadata": {"name": "kubeadm-config"}, "data": recorded["data"]}
    cluster.objects.create(f"{SYSTEM}/configmaps", body)


def static_pod(component, *flags):
    container = {"name": component, "image": "example.com/x:1", "command": [component, *flags]}
    metadata = {"name": f"{component}-node-1", "labels": {"component": component}}
    return {"metadata": metadata, "spec": {"containers": [container]}}


def refusal(cluster, **options):
    """The message for a pool that lies nowhere, where ServiceCIDRs may not be read."""
    with FaultyProxy(cluster.plane, Fault("GET", "/servicecidrs", 403, times=99)) as proxy:
        return cluster.run("ip_pools", check=True, **cluster.through(proxy), **options).get("msg", "")


def test_pod_cidrs_are_read_from_kube_proxy_then_from_the_controller_manager(cluster, unrecorded):
    flag = "--cluster-cidr=10.98.0.0/16,fd00:98::/56"
    unrecorded("pods", static_pod("kube-controller-manager", flag))
    message = refusal(cluster, pools=LOST)
    assert "(10.98.0.0/16, fd00:98::/56), which are from flag --cluster-cidr of pod kube-system/kube-cont" in message
    config = {"config.conf": "kind: KubeProxyConfiguration\nclusterCIDR: 10.97.0.0/16\n"}
    unrecorded("configmaps", {"metadata": {"name": "kube-proxy"}, "data": config})
    assert "(10.97.0.0/16), which are from ConfigMap kube-system/kube-proxy" in refusal(cluster, pools=LOST)


def test_the_pod_cidrs_of_nodes_are_only_good_for_a_warning(cluster, unrecorded, node):
    node("worker-1", "192.0.2.1")
    cluster.objects.patch("/api/v1/nodes/worker-1", {"spec": {"podCIDR": "10.97.0.0/24", "podCIDRs": ["10.97.0.0/24"]}})
    result = cluster.run("ip_pools", pools=LOST)
    assert len(result["operations"]) == 1
    assert "pod CIDRs that are known (10.97.0.0/24, from spec.podCIDRs of the nodes)" in cluster.warnings(result)[0]


def test_service_cidrs_are_read_from_the_api_servers_flags_where_nothing_else_says_them(cluster, unrecorded):
    unrecorded("pods", static_pod("kube-apiserver", "--service-cluster-ip-range", "10.99.0.0/16"))
    message = refusal(cluster, pools=LOST, pod_cidrs=[])
    flag = "flag --service-cluster-ip-range of pod kube-system/kube-apiserver-node-1"
    assert f"service CIDR 10.99.0.0/16, which is from {flag}" in message


def test_service_cidrs_are_read_from_kubeadm_where_there_are_no_objects(cluster, unrecorded):
    text = "networking: {podSubnet: 10.96.0.0/12, serviceSubnet: 10.99.0.0/16}"
    unrecorded("configmaps", {"metadata": {"name": "kubeadm-config"}, "data": {"ClusterConfiguration": text}})
    message = refusal(cluster, pools=LOST)
    assert "service CIDR 10.99.0.0/16, which is from ConfigMap kube-system/kubeadm-config" in message


@pytest.mark.parametrize("text", ["networking: [", "networking: none", "- 1", ""])
def test_a_record_of_kubeadm_that_cannot_be_read_is_none(cluster, unrecorded, text):
    unrecorded("configmaps", {"metadata": {"name": "kubeadm-config"}, "data": {"ClusterConfiguration": text}})
    assert "pod CIDRs was not checked" in cluster.warnings(cluster.run("ip_pools", pools=LOST, check=True))[0]


def test_fewer_blocks_than_nodes_are_a_warning_that_says_what_it_means(cluster, node):
    for index in range(3):
        node(f"worker-{index}", f"192.0.2.{index}", rack="1")
    cluster.run("ipam_config", strict_affinity=True)
    small = {"name": "small", "cidr": "10.244.0.0/25", "node_selector": "rack == '1'"}
    [warning] = cluster.warnings(cluster.apply("ip_pools", pools=[small]))
    assert "3 nodes match its node_selector, but 10.244.0.0/25 has only 2 blocks of /26" in warning
    assert "strictAffinity is on" in warning


def test_of_an_existing_pool_no_more_is_read_than_who_draws_from_it(cluster, node):
    for index in range(3):
        node(f"worker-{index}", f"192.0.2.{index}", rack="1")
    cluster.create_pools(("small", "10.244.0.0/25"), nodeSelector="rack == '2'")
    small = {"name": "small", "cidr": "10.244.0.0/25", "node_selector": "rack == '1'"}
    with FaultyProxy(cluster.plane) as proxy:
        [warning] = cluster.warnings(cluster.run("ip_pools", pools=[small], **cluster.through(proxy)))
    assert "3 nodes match its node_selector, but 10.244.0.0/25 has only 2 blocks of /26" in warning
    read = [path.partition("?")[0].rpartition("/")[2] for method, path in proxy.requests if method == "GET"]
    assert sorted(read) == ["default", "default", "ippools", "nodes"]  # the operator's Installation, the configuration
