# SPDX-License-Identifier: Apache-2.0
"""ipam_info against a real API server."""

from __future__ import annotations

import json

import pytest
from support.faulty_proxy import FaultyProxy
from support.worlds import WorldBuilder

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


@pytest.fixture
def world():
    """Pods of two nodes, one of them with an address in the other's block; a reservation."""
    world = WorldBuilder()
    world.namespace("payments", annotations={"cni.projectcalico.org/ipv4pools": '["b","a"]'})
    world.pod("web-0")
    world.pod("api-0", node="node-2", pools=("b", "six"))
    world.allocate("a", "node-1", "net.guest", {"namespace": "payments", "pod": "guest", "node": "node-2"})
    return world


def test_all_is_everything_that_is_known(either_whole_cluster, world):
    cluster = either_whole_cluster
    world.create_in(cluster.objects, cluster.group)
    cluster.create("IPReservation", "ipreservations", "kept", {"reservedCIDRs": ["10.244.0.0/30"]})
    cluster.create_workload("Deployment", "payments", "web", {"cni.projectcalico.org/ipv4pools": '["a"]'})
    cluster.create_workload("CronJob", "payments", "tick", {"cni.projectcalico.org/ipv6pools": "six"})
    result = cluster.run("ipam_info", gather_subset=["all"])
    pool = result["pools"][0]
    assert {key: pool[key] for key in ("used", "borrowed", "reserved", "blocks")} == {
        "used": 2,
        "borrowed": 1,
        "reserved": 2,
        "blocks": 1,
    }
    assert pool["nodes"] == [
        {"name": "node-1", "blocks": 1, "used": 1, "borrowed": 0},
        {"name": "node-2", "blocks": 0, "used": 1, "borrowed": 1},
    ]
    assert result["families"]["IPv6"]["used"] == 1
    nothing = {"ipv4_pools": None, "ipv6_pools": None, "families": None}
    web = {"kind": "Deployment", "namespace": "payments", "name": "web", **nothing, "ip_addrs": None}
    tick = {**web, "kind": "CronJob", "name": "tick"}
    assert result["assignments"] == {
        "namespaces": [{"name": "payments", **nothing, "ipv4_pools": ["b", "a"]}],
        "workloads": [{**tick, "ipv6_pools": "six"}, {**web, "ipv4_pools": ["a"]}],
    }
    assert result["reservations"] == [{"name": "kept", "reserved_cidrs": ["10.244.0.0/30"], "labels": {}}]
    defaults = {"strict_affinity": False, "auto_allocate_blocks": True, "max_blocks_per_host": 0}
    assert result["config"] == {**defaults, "stored": False}
    assert [block["cidr"] for block in result["blocks"]] == ["10.244.0.0/28", "10.244.64.0/28", "fd00:10:244::/124"]
    assert [(each["address"], each["pod"], each["borrowed"]) for each in result["addresses"]] == [
        ("10.244.0.0", "web-0", False),
        ("10.244.0.1", "guest", True),
        ("10.244.64.0", "api-0", False),
        ("fd00:10:244::", "api-0", False),
    ]
    assert result["evidence"][-1].endswith("is served, with 3 IPPools and 3 IPAMBlocks")


def test_a_stored_configuration_is_told(either_whole_cluster):
    kind, plural = ("IPAMConfig", "ipamconfigs")
    if not either_whole_cluster.group.endswith("v1"):
        kind, plural = ("IPAMConfiguration", "ipamconfigurations")
    spec = {"strictAffinity": True, "autoAllocateBlocks": True, "maxBlocksPerHost": 4}
    either_whole_cluster.create(kind, plural, "default", spec)
    result = either_whole_cluster.run("ipam_info", gather_subset=["config"])
    assert result["config"] == {
        "strict_affinity": True,
        "auto_allocate_blocks": True,
        "max_blocks_per_host": 4,
        "stored": True,
    }


@pytest.mark.parametrize(
    ("subsets", "read"),
    [
        ([], []),
        (["engine"], ["nodes"]),
        (["pools"], ["ipamblocks", "ipreservations"]),
        (["blocks", "addresses"], ["blockaffinities", "ipamblocks"]),
        (["reservations"], ["ipreservations"]),
        (["config"], []),
    ],
)
def test_a_subset_reads_no_more_than_it_needs(whole_cluster, subsets, read):
    with FaultyProxy(whole_cluster.plane) as proxy:
        result = whole_cluster.run("ipam_info", gather_subset=subsets, **whole_cluster.through(proxy))
    lists = [path.partition("?")[0].rpartition("/")[2] for _method, path in proxy.requests if "limit=" in path]
    assert sorted(lists) == sorted(["ippools", *read])
    expected = {"pools": "families", "engine": "evidence"}
    keys = {"api_group", *subsets, *(expected[subset] for subset in subsets if subset in expected)}
    assert result.keys() - {"changed", "invocation"} == keys


def test_explanations_agree_with_what_is_stored(either_whole_cluster, world):
    world.create_in(either_whole_cluster.objects, either_whole_cluster.group)
    either_whole_cluster.objects.create("/api/v1/namespaces", {"metadata": {"name": "plain"}})
    questions = [
        {"namespace": "payments", "node": "node-1"},
        {"namespace": "plain", "node": "node-1", "families": ["IPv4"]},
        {"namespace": "plain", "node": "node-2", "annotations": {"cni.projectcalico.org/ipv4pools": ["nowhere"]}},
    ]
    result = either_whole_cluster.run("ipam_info", gather_subset=[], explain=questions)
    first, second, third = result["explanations"]
    assert first["ipv4"]["pools"] == ["b", "a"] and first["ipv6"]["pools"] == ["six"]
    assert first["ipv4"]["pool"] == "a" and "would claim its block 10.244." in first["ipv4"]["room"][0]["reason"]
    assert first["ipv4"]["source"] == "annotation cni.projectcalico.org/ipv4pools of namespace payments"
    assert second["ipv4"]["pools"] == ["a", "b"] and second["ipv6"] is None
    assert "pool 'nowhere', which does not exist" in third["ipv4"]["error"] and third["ipv6"]["error"] is None


def test_a_pool_without_an_address_left_for_the_node_is_passed_over(either_whole_cluster):
    cluster = either_whole_cluster
    cluster.objects.create("/api/v1/nodes", {"metadata": {"name": "node-1"}})
    cluster.create_pools(("full", "10.244.0.0/27"), ("kept", "10.244.1.0/28"), ("wide", "10.244.64.0/18"), blockSize=28)
    cluster.create_block("10.244.0.0/28", [f"payments/web-{index}" for index in range(16)], node="node-1")
    cluster.create_block("10.244.0.16/28", ["payments/api-0"], node="node-2")
    cluster.create("IPReservation", "ipreservations", "kept", {"reservedCIDRs": ["10.244.1.0/28"]})

    def choice(names, **config):
        kind = (
            ("IPAMConfig", "ipamconfigs")
            if cluster.group.endswith("v1")
            else ("IPAMConfiguration", "ipamconfigurations")
        )
        cluster.create(*kind, "default", {"strictAffinity": True, "autoAllocateBlocks": True, **config})
        annotations = {"cni.projectcalico.org/ipv4pools": names}
        question = {"namespace": "default", "node": "node-1", "annotations": annotations, "families": ["IPv4"]}
        with FaultyProxy(cluster.plane) as proxy:
            options = cluster.through(proxy)
            [answer] = cluster.run("ipam_info", gather_subset=[], explain=[question], **options)["explanations"]
        read = [path.partition("?")[0].rpartition("/")[2] for _method, path in proxy.requests if "limit=" in path]
        assert sorted({*read} - {"ippools"}) == ["blockaffinities", "ipamblocks", "ipreservations"]
        cluster.objects.delete(cluster.path(kind[1], "default"))
        return answer["ipv4"]

    answer = choice(["full", "kept", "wide"])
    assert (answer["pool"], answer["error"]) == ("wide", None)
    assert [(each["name"], each["way"], each["free"]) for each in answer["room"]] == [
        ("full", None, 0),
        ("kept", None, 0),
        ("wide", "new_block", 16),
    ]
    reasons = [each["reason"] for each in answer["room"]]
    assert reasons[0].endswith(
        "each of its blocks is claimed or in use; no other node has an empty one; strictAffinity forbids to borrow"
    )
    assert "block 10.244.1.0/28, which would be claimed next, has no address that may be given out" in reasons[1]
    assert choice(["full"], strictAffinity=False)["room"][0]["way"] == "borrowed"
    limited = choice(["full", "wide"], maxBlocksPerHost=1)
    assert limited["pool"] is None and "the limit (maxBlocksPerHost) being 1" in limited["error"]


def test_a_pod_that_exists_is_explained_with_its_own_annotations(whole_cluster, world):
    world.pod("own", annotations={"cni.projectcalico.org/ipv4pools": '["a"]'})
    world.create_in(whole_cluster.objects, whole_cluster.group)
    question = {"namespace": "payments", "node": "node-1", "pod": "own"}
    [answer] = whole_cluster.run("ipam_info", gather_subset=[], explain=[question])["explanations"]
    assert answer["ipv4"]["pools"] == ["a"] and "of pod payments/own" in answer["ipv4"]["source"]


def test_what_does_not_exist_cannot_be_explained(whole_cluster):
    question = {"namespace": "nowhere", "node": "node-9"}
    result = whole_cluster.run("ipam_info", explain=[question])
    assert result["failed"]
    assert [(each["field"], each["value"]) for each in result["errors"]] == [
        ("namespace", "nowhere"),
        ("node", "node-9"),
    ]
    assert "namespace 'nowhere' does not exist" in result["msg"]


def test_without_calicos_kinds_every_subset_is_empty(empty_cluster):
    result = empty_cluster.run("ipam_info", gather_subset=["all"])
    assert result["pools"] == result["blocks"] == result["addresses"] == result["reservations"] == []
    assert result["config"]["stored"] is False and result["assignments"]["namespaces"] == []
