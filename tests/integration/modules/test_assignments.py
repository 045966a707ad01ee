# SPDX-License-Identifier: Apache-2.0
"""namespace_pools and workload_pools against a real API server."""

from __future__ import annotations

import pytest

V4, V6 = "cni.projectcalico.org/ipv4pools", "cni.projectcalico.org/ipv6pools"
FAMILIES = "cni.projectcalico.org/ipFamilies"


@pytest.fixture
def pools(cluster):
    """Three pools, and the cluster that they are in."""
    cluster.create_pools(("a", "10.244.0.0/18"), ("b", "10.244.64.0/18"), ("six", "fd00:10:244::/64"))
    return cluster


def test_a_namespace_gets_annotations_in_calicos_spelling(either_cluster):
    either_cluster.create_pools(("a", "10.244.0.0/18"), ("b", "10.244.64.0/18"), ("six", "fd00:10:244::/64"))
    name = either_cluster.create_namespace({"theirs": "kept"})
    item = {"name": name, "ipv4_pools": ["b", "a"], "ipv6_pools": ["six"]}
    result = either_cluster.apply("namespace_pools", namespaces=[item])
    assert either_cluster.annotations(f"/api/v1/namespaces/{name}") == {
        "theirs": "kept",
        V4: '["b","a"]',
        V6: '["six"]',
    }
    assert result["operations"] == [{"verb": "patch", "kind": "Namespace", "name": name}]
    assert result["diff"]["before"] == {name: {"name": name, "ipv4_pools": None, "ipv6_pools": None, "families": None}}
    assert result["diff"]["after"] == {name: {**item, "families": None}}


def test_a_family_that_is_left_out_is_left_alone_and_an_empty_list_takes_it_away(pools):
    name = pools.create_namespace({V4: '["a"]', V6: '["six"]'})
    pools.apply("namespace_pools", namespaces=[{"name": name, "ipv4_pools": []}])
    assert pools.annotations(f"/api/v1/namespaces/{name}") == {V6: '["six"]'}


def test_absent_takes_all_annotations_away_and_needs_no_namespace(pools):
    name = pools.create_namespace({V4: '["gone"]', V6: "malformed", FAMILIES: '["IPv4"]', "theirs": "kept"})
    pools.apply("namespace_pools", namespaces=[{"name": name}, {"name": "nowhere"}], state="absent")
    assert pools.annotations(f"/api/v1/namespaces/{name}") == {"theirs": "kept"}


def test_families_are_written_in_calicos_spelling_and_compared_as_a_set(pools):
    name = pools.create_namespace()
    path = f"/api/v1/namespaces/{name}"
    pools.apply("namespace_pools", namespaces=[{"name": name, "families": ["IPv6", "IPv4"]}])
    assert pools.annotations(path) == {FAMILIES: '["IPv4","IPv6"]'}
    pools.objects.patch(path, {"metadata": {"annotations": {FAMILIES: '["IPv6", "IPv4"]'}}})
    result = pools.apply("namespace_pools", namespaces=[{"name": name, "families": ["IPv4", "IPv6"]}])
    assert result["changed"] is False
    pools.apply("namespace_pools", namespaces=[{"name": name, "families": []}])
    assert pools.annotations(path) == {}


def test_pools_of_a_family_that_pods_do_not_get_give_a_warning(pools):
    name = pools.create_namespace()
    item = {"name": name, "ipv4_pools": ["a"], "families": ["IPv6"]}
    [warning] = pools.run("namespace_pools", namespaces=[item])["warnings"]
    assert f"namespace {name}: ipv4_pools ['a'] is not used: families is ['IPv6']" in str(warning)


def test_other_spacing_is_not_drift(pools):
    name = pools.create_namespace({V4: ' [ "a", "b" ] '})
    result = pools.apply("namespace_pools", namespaces=[{"name": name, "ipv4_pools": ["a", "b"]}])
    assert result["changed"] is False
    assert pools.annotations(f"/api/v1/namespaces/{name}")[V4] == ' [ "a", "b" ] '


@pytest.mark.parametrize("stored", ["a", '["a"', '{"a": 1}', '["b"]', '["b","a"]', "[1]"])
def test_another_or_a_malformed_value_is_drift(pools, stored):
    name = pools.create_namespace({V4: stored})
    result = pools.apply("namespace_pools", namespaces=[{"name": name, "ipv4_pools": ["a"]}])
    assert result["changed"] and pools.annotations(f"/api/v1/namespaces/{name}")[V4] == '["a"]'


def test_a_malformed_annotation_that_is_left_alone_gives_a_warning(pools):
    name = pools.create_namespace({V6: "six"})
    result = pools.run("namespace_pools", namespaces=[{"name": name, "ipv4_pools": ["a"]}])
    [warning] = result["warnings"]
    assert f"namespace {name}: annotation {V6} is 'six'" in str(warning)


def test_many_namespaces_are_one_task(pools):
    names = [pools.create_namespace() for _each in range(6)]
    result = pools.apply("namespace_pools", namespaces=[{"name": name, "ipv4_pools": ["a"]} for name in names])
    assert [operation["name"] for operation in result["operations"]] == sorted(names)


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "CronJob"])
def test_the_pod_template_of_a_workload_is_annotated(pools, kind):
    namespace = pools.create_namespace()
    path = pools.create_workload(kind, namespace, "web", {"theirs": "kept"})
    item = {"kind": kind, "namespace": namespace, "name": "web", "ipv4_pools": ["a"]}
    result = pools.apply("workload_pools", workloads=[item])
    assert pools.template_annotations(path) == {"theirs": "kept", V4: '["a"]'}
    assert result["operations"] == [{"verb": "patch", "kind": kind, "namespace": namespace, "name": "web"}]
    pools.apply("workload_pools", workloads=[{**item, "ipv4_pools": None}], state="absent")
    assert pools.template_annotations(path) == {"theirs": "kept"}


def test_a_job_is_fine_as_long_as_nothing_differs_or_it_never_started(pools):
    namespace = pools.create_namespace()
    pools.create_workload("Job", namespace, "done", {V4: '["a"]'})
    path = pools.create_workload("Job", namespace, "suspended", suspend=True)
    items = [
        {"kind": "Job", "namespace": namespace, "name": name, "ipv4_pools": ["a"]} for name in ("done", "suspended")
    ]
    result = pools.apply("workload_pools", workloads=items)
    assert [operation["name"] for operation in result["operations"]] == ["suspended"]
    assert pools.template_annotations(path)[V4] == '["a"]'


def test_a_bare_pod_is_created_with_its_annotations(pools):
    namespace = pools.create_namespace()
    definition = {
        "metadata": {"labels": {"app": "probe"}},
        "spec": {"containers": [{"name": "main", "image": "example.com/workload:1"}]},
    }
    item = {"kind": "Pod", "namespace": namespace, "name": "probe", "ipv4_pools": ["a"], "definition": definition}
    result = pools.apply("workload_pools", workloads=[item])
    assert result["operations"] == [{"verb": "create", "kind": "Pod", "namespace": namespace, "name": "probe"}]
    assert pools.annotations(f"/api/v1/namespaces/{namespace}/pods/probe") == {V4: '["a"]'}


def test_a_pod_that_the_api_server_would_not_take_is_found_before_the_first_write(pools):
    namespace = pools.create_namespace()
    path = pools.create_workload("Deployment", namespace, "web")
    assignment = {"namespace": namespace, "ipv4_pools": ["a"]}
    probe = {"kind": "Pod", "name": "probe", "definition": {"spec": {"containers": []}}, **assignment}
    items = [{"kind": "Deployment", "name": "web", **assignment}, probe]
    result = pools.run("workload_pools", workloads=items)
    assert "spec.containers: Required value" in result["msg"] and result["operations"] == []
    assert result["failed_operation"]["name"] == "probe"
    assert V4 not in pools.template_annotations(path)


def test_running_pods_with_an_address_of_another_pool_are_listed_as_stale(pools):
    namespace = pools.create_namespace()
    pools.create_workload("Deployment", namespace, "web")
    pools.create_pod(namespace, "web-old", app="web", address="10.244.64.9")
    pools.create_pod(namespace, "web-new", app="web", address="10.244.0.9")
    pools.create_pod(namespace, "other", address="10.244.64.10")
    item = {"kind": "Deployment", "namespace": namespace, "name": "web", "ipv4_pools": ["a"]}
    result = pools.apply("workload_pools", workloads=[item])
    [workload] = result["workloads"]
    reasons = ["10.244.64.9 is not from a"]
    assert workload["stale_pods"] == [{"name": "web-old", "addresses": ["10.244.64.9"], "reasons": reasons}]


def test_a_cluster_without_pools_says_so_of_workloads_that_ask_for_one(empty_cluster):
    namespace = empty_cluster.create_namespace()
    item = {"kind": "Deployment", "namespace": namespace, "name": "web"}
    empty_cluster.create_workload("Deployment", namespace, "web")
    message = empty_cluster.refused("workload_pools", workloads=[{**item, "ipv4_pools": ["a"]}])["msg"]
    assert "the cluster: pools: it serves IPPool neither in crd.projectcalico.org/v1 nor in" in message
    assert not empty_cluster.run("workload_pools", workloads=[{**item, "ipv4_pools": []}])["changed"]
