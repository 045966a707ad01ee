# SPDX-License-Identifier: Apache-2.0
"""What must not be written: one clear error that names object, field and value. `cluster.refused` sees to it that
nothing was written, and that check mode says the same.
"""

from __future__ import annotations

import pytest

RACK = [{"name": "rack", "cidr": "10.244.0.0/18"}]
V4, V6 = "cni.projectcalico.org/ipv4pools", "cni.projectcalico.org/ipv6pools"


def problems(result):
    """(object, field, value) of each error; the message has to contain all of their texts."""
    assert (
        "; ".join(f"{each['object']}: {each['field']}: {each['message']}" for each in result["errors"]) == result["msg"]
    )
    return [(each["object"], each["field"], each["value"]) for each in result["errors"]]


def test_overlapping_declared_pools(cluster):
    result = cluster.refused(
        "ip_pools", pools=[{"name": "wide", "cidr": "10.244.0.0/17"}, {"name": "narrow", "cidr": "10.244.1.0/24"}]
    )
    assert problems(result) == [("pool narrow", "cidr", "10.244.1.0/24")]
    assert "10.244.1.0/24 overlaps pool wide (10.244.0.0/17)" in result["msg"]


def test_a_pool_that_overlaps_an_existing_one(cluster):
    cluster.create_pools(("old", "10.244.1.0/24"))
    result = cluster.refused("ip_pools", pools=[{"name": "wide", "cidr": "10.244.0.0/17"}])
    assert problems(result) == [("pool wide", "cidr", "10.244.0.0/17")]
    assert "overlaps pool old (10.244.1.0/24), which exists in the cluster" in result["msg"]


@pytest.mark.parametrize("cidr", ["10.99.0.0/16", "10.128.0.0/9", "fd00:99::/64"])
def test_a_pool_outside_of_the_pod_cidr_of_its_family(cluster, cidr):
    result = cluster.refused("ip_pools", pools=[{"name": "lost", "cidr": cidr}])
    assert problems(result) == [("pool lost", "cidr", cidr)]
    assert f"{cidr} does not lie in the cluster's pod CIDRs (10.244.0.0/16, fd00:10:244::/56)" in result["msg"]


def test_given_pod_cidrs_win_over_the_clusters(cluster):
    lost = [{"name": "lost", "cidr": "10.99.0.0/16"}]
    assert cluster.run("ip_pools", pools=lost, pod_cidrs=["10.99.0.0/17", "10.99.128.0/17"], check=True)["changed"]
    assert cluster.run("ip_pools", pools=lost, pod_cidrs=[], check=True)["changed"]
    assert problems(cluster.refused("ip_pools", pools=lost, pod_cidrs=["10.98.0.0/16"]))


@pytest.mark.parametrize(
    ("option", "value", "old"),
    [("cidr", "10.244.64.0/18", "10.244.0.0/18"), ("block_size", 28, 26)],
)
def test_a_changed_immutable_field_names_both_values(cluster, option, value, old):
    cluster.create_pools(("rack", "10.244.0.0/18"))
    result = cluster.refused("ip_pools", pools=[{"name": "rack", "cidr": "10.244.0.0/18", option: value}])
    assert problems(result) == [("pool rack", option, value)]
    assert f"{option}: it is {old} in the cluster and declared as {value}, but cannot be changed" in result["msg"]
    assert "the role podnet.ipam.pool_migration moves the pods" in result["msg"]


def test_all_problems_of_a_declaration_are_reported_together(cluster):
    cluster.create_pools(("rack", "10.244.0.0/18"))
    pools = [
        {"name": "rack", "cidr": "10.244.0.0/18", "block_size": 28},
        {"name": "Upper", "cidr": "10.244.64.0/18"},
        {"name": "host-bits", "cidr": "10.244.128.1/24"},
        {"name": "selector", "cidr": "10.244.129.0/24", "node_selector": "rack = '1'"},
        {"name": "twice", "cidr": "10.244.130.0/24"},
        {"name": "twice", "cidr": "10.244.131.0/24"},
        {"name": "modes", "cidr": "10.244.132.0/24", "ipip_mode": "Always", "vxlan_mode": "Always"},
        {"name": "no-cidr"},
        {"name": "small", "cidr": "10.244.133.0/28"},
        {"name": "lost", "cidr": "10.99.0.0/24"},
    ]
    assert sorted(problems(cluster.refused("ip_pools", pools=pools)), key=str) == [
        ("pool Upper", "name", "Upper"),
        ("pool host-bits", "cidr", "10.244.128.1/24"),
        ("pool lost", "cidr", "10.99.0.0/24"),
        ("pool modes", "vxlan_mode", "Always"),
        ("pool no-cidr", "cidr", None),
        ("pool rack", "block_size", 28),
        ("pool selector", "node_selector", "rack = '1'"),
        ("pool small", "block_size", 26),
        ("pool twice", "name", "twice"),
    ]


def test_blocks_of_another_size_in_a_new_pools_range(cluster):
    cluster.create_block("10.244.3.0/26")
    result = cluster.refused("ip_pools", pools=[{"name": "new", "cidr": "10.244.0.0/18", "block_size": 28}])
    assert problems(result) == [("pool new", "block_size", 28)]
    assert "10.244.3.0/26" in result["msg"]


@pytest.mark.parametrize("cidr", ["10.96.0.0/24", "10.64.0.0/10", "fd00:10:96::/64"])
def test_a_pool_that_overlaps_the_services(cluster, cidr):
    result = cluster.refused("ip_pools", pools=[{"name": "lost", "cidr": cidr}], pod_cidrs=[])
    assert problems(result) == [("pool lost", "cidr", cidr)]
    assert f"{cidr} overlaps the cluster's service CIDR" in result["msg"]
    assert "which is from the cluster's ServiceCIDRs" in result["msg"]


def test_given_service_cidrs_win_over_the_clusters(cluster):
    services = [{"name": "lost", "cidr": "10.96.0.0/24"}]
    for given in ([], ["10.97.0.0/16"]):
        assert cluster.run("ip_pools", pools=services, pod_cidrs=[], service_cidrs=given, check=True)["changed"]
    result = cluster.refused("ip_pools", pools=RACK, service_cidrs=["10.244.9.0/24", "services"])
    assert sorted(problems(result)) == [
        ("option service_cidrs", "service_cidrs", "services"),
        ("pool rack", "cidr", "10.244.0.0/18"),
    ]


def test_a_pool_that_contains_the_address_of_a_node(cluster, node):
    node("worker-1", "10.244.7.1")
    result = cluster.refused("ip_pools", pools=RACK)
    assert problems(result) == [("pool rack", "cidr", "10.244.0.0/18")]
    assert "10.244.0.0/18 contains node addresses: 10.244.7.1 (node worker-1)" in result["msg"]


@pytest.mark.parametrize("wanted", [{"pools": RACK}, {"pools": RACK, "state": "absent"}])
def test_a_pool_of_another_controller(cluster, wanted):
    cluster.create_pools(("rack", "10.244.0.0/18"), natOutgoing=True)
    labels = {"app.kubernetes.io/managed-by": "tigera-operator"}
    cluster.objects.patch(cluster.path("ippools", "rack"), {"metadata": {"labels": labels}})
    result = cluster.refused("ip_pools", **wanted)
    assert problems(result) == [("pool rack", "adopt", False)]
    assert "it belongs to tigera-operator (its label app.kubernetes.io/managed-by says so)" in result["msg"]


def test_what_is_no_label_selector(cluster):
    for module, option in (("ip_pools", "pools"), ("ip_reservations", "reservations")):
        result = cluster.refused(module, **{option: []}, label_selectors=["team=(x)"])
        assert problems(result) == [("option label_selectors", "label_selectors", "team=(x)")]
        assert "'team=(x)' is no label selector" in result["msg"]


def test_all_problems_of_reservations_are_reported_together(cluster):
    items = [
        {"name": "Upper", "reserved_cidrs": ["10.244.0.1"]},
        {"name": "host-bits", "reserved_cidrs": ["10.244.0.1/24", "10.244.0.300"]},
        {"name": "nothing"},
    ]
    result = cluster.refused("ip_reservations", reservations=items)
    assert problems(result) == [
        ("reservation Upper", "name", "Upper"),
        ("reservation host-bits", "reserved_cidrs", "10.244.0.1/24"),
        ("reservation host-bits", "reserved_cidrs", "10.244.0.300"),
        ("reservation nothing", "reserved_cidrs", None),
    ]
    assert "the range is 10.244.0.0/24, the address alone 10.244.0.1" in result["msg"]


def test_settings_that_calico_does_not_allow_together(cluster):
    result = cluster.refused("ipam_config", auto_allocate_blocks=False, max_blocks_per_host=4)
    assert problems(result) == [
        ("IPAMConfig default", "auto_allocate_blocks", False),
        ("IPAMConfig default", "max_blocks_per_host", 4),
    ]
    assert "StrictAffinity and AutoAllocateBlocks at the same time" in result["msg"]
    assert "MaxBlocksPerHost requires StrictAffinity to be enabled" in result["msg"]


def test_a_block_limit_beyond_what_the_api_group_allows(either_cluster):
    most = 2147483647 if either_cluster.group.startswith("crd.") else 1000000
    result = either_cluster.refused("ipam_config", strict_affinity=True, max_blocks_per_host=most + 1)
    assert problems(result) == [("IPAMConfig default", "max_blocks_per_host", most + 1)]


def test_an_unknown_pool_of_a_namespace(cluster):
    cluster.create_pools(("known", "10.244.0.0/18"))
    namespace = cluster.create_namespace()
    result = cluster.refused("namespace_pools", namespaces=[{"name": namespace, "ipv4_pools": ["known", "unknwon"]}])
    assert problems(result) == [(f"namespace {namespace}", "ipv4_pools", "unknwon")]
    assert "pool 'unknwon' does not exist; pools of IPv4: known" in result["msg"]


def test_a_pool_of_the_other_family_and_a_disabled_one(cluster):
    cluster.create_pools(("six", "fd00:10:244::/64"))
    cluster.create_pools(("off", "10.244.0.0/18"), disabled=True)
    namespace = cluster.create_namespace()
    result = cluster.refused("namespace_pools", namespaces=[{"name": namespace, "ipv4_pools": ["six", "off"]}])
    subject = f"namespace {namespace}"
    assert problems(result) == [(subject, "ipv4_pools", "six"), (subject, "ipv4_pools", "off")]
    assert "pool 'six' is IPv6 (fd00:10:244::/64)" in result["msg"]
    assert "pool 'off' cannot be used: it is disabled" in result["msg"]


def test_a_namespace_that_does_not_exist(cluster):
    result = cluster.refused("namespace_pools", namespaces=[{"name": "nowhere", "ipv4_pools": []}])
    assert problems(result) == [("namespace nowhere", "name", "nowhere")]


@pytest.mark.parametrize("name", ["", "..", "a/b"])
def test_a_name_that_no_object_can_have(cluster, name):
    result = cluster.refused("namespace_pools", namespaces=[{"name": name, "ipv4_pools": []}])
    assert problems(result) == [(f"namespace {name}", "name", name)]
    item = {"kind": "Deployment", "namespace": "default", "name": name, "ipv4_pools": []}
    assert problems(cluster.refused("workload_pools", workloads=[item])) == [
        (f"Deployment default/{name}", "name", name)
    ]
    elsewhere = {**item, "namespace": name, "name": "web"}
    assert problems(cluster.refused("workload_pools", workloads=[elsewhere])) == [
        (f"Deployment {name}/web", "name", "web")
    ]


def test_one_bad_namespace_keeps_the_good_ones_from_being_written(cluster):
    cluster.create_pools(("known", "10.244.0.0/18"))
    namespace = cluster.create_namespace()
    items = [{"name": namespace, "ipv4_pools": ["known"]}, {"name": "nowhere", "ipv4_pools": ["known"]}]
    assert problems(cluster.refused("namespace_pools", namespaces=items)) == [("namespace nowhere", "name", "nowhere")]


def test_an_unknown_pool_of_a_workload(cluster):
    namespace = cluster.create_namespace()
    cluster.create_workload("Deployment", namespace, "web")
    item = {"kind": "Deployment", "namespace": namespace, "name": "web", "ipv6_pools": ["unknown"]}
    result = cluster.refused("workload_pools", workloads=[item])
    assert problems(result) == [(f"Deployment {namespace}/web", "ipv6_pools", "unknown")]


def test_a_workload_that_does_not_exist(cluster):
    item = {"kind": "Deployment", "namespace": "default", "name": "nowhere", "ipv4_pools": []}
    assert problems(cluster.refused("workload_pools", workloads=[item])) == [
        ("Deployment default/nowhere", "name", "nowhere")
    ]


def test_the_template_of_a_job_cannot_be_changed(cluster):
    cluster.create_pools(("one", "10.244.0.0/18"))
    namespace = cluster.create_namespace()
    cluster.create_workload("Job", namespace, "once")
    item = {"kind": "Job", "namespace": namespace, "name": "once", "ipv4_pools": ["one"]}
    result = cluster.refused("workload_pools", workloads=[item])
    assert problems(result) == [(f"Job {namespace}/once", "ipv4_pools", ["one"])]
    assert "it is not set and declared as ['one'], but the pod template of a Job cannot be changed" in result["msg"]


def test_the_annotation_of_a_running_pod_has_no_effect(cluster):
    cluster.create_pools(("one", "10.244.0.0/18"))
    namespace = cluster.create_namespace()
    cluster.create_pod(namespace, "bare", address="10.244.77.5")
    item = {"kind": "Pod", "namespace": namespace, "name": "bare", "ipv4_pools": ["one"]}
    result = cluster.refused("workload_pools", workloads=[item])
    assert problems(result) == [(f"Pod {namespace}/bare", "ipv4_pools", ["one"])]
    assert (
        "has no effect on a pod that exists (it has 10.244.77.5): delete the pod and create it again" in result["msg"]
    )


def test_a_definition_that_is_of_another_pod(cluster):
    definition = {"metadata": {"name": "other"}, "spec": {}}
    item = {"kind": "Pod", "namespace": "default", "name": "bare", "definition": definition}
    result = cluster.refused("workload_pools", workloads=[item])
    assert problems(result) == [("Pod default/bare", "definition", "other")]


@pytest.mark.parametrize(
    ("definition", "value", "message"),
    [
        ({"metadata": "bare"}, "str", "metadata is of type str; a mapping is expected"),
        ({"metadata": {"annotations": [V4]}}, "list", "metadata.annotations is of type list; a mapping is expected"),
        ({"metadata": {"annotations": {V4: ["one"]}}}, ["one"], f"annotation {V4} is ['one']; a text is expected"),
        ({"metadata": {"annotations": {"day": 5}}}, 5, "annotation day is 5; a text is expected"),
        ({"spec": [{"env": "secret"}]}, "list", "spec is of type list; a mapping is expected"),
    ],
)
def test_a_definition_that_is_no_pods(cluster, definition, value, message):
    item = {"kind": "Pod", "namespace": "default", "name": "bare", "definition": {"spec": {}, **definition}}
    result = cluster.refused("workload_pools", workloads=[item])
    assert problems(result) == [("Pod default/bare", "definition", value)]
    assert message in result["msg"] and "secret" not in result["msg"]


def test_a_definition_with_a_malformed_annotation(cluster):
    definition = {"metadata": {"annotations": {V4: "one"}}, "spec": {}}
    item = {"kind": "Pod", "namespace": "default", "name": "bare", "definition": definition}
    result = cluster.refused("workload_pools", workloads=[item])
    assert problems(result) == [("Pod default/bare", "definition", "one")]
    assert f"annotation {V4} is 'one', which is not a JSON list of strings" in result["msg"]


def test_a_pod_to_create_in_a_namespace_that_does_not_exist(cluster):
    item = {"kind": "Pod", "namespace": "nowhere", "name": "bare", "definition": {"spec": {}}}
    result = cluster.refused("workload_pools", workloads=[item])
    assert problems(result) == [("Pod nowhere/bare", "namespace", "nowhere")]


def test_a_workload_declared_twice(cluster):
    namespace = cluster.create_namespace()
    cluster.create_workload("Deployment", namespace, "web")
    item = {"kind": "Deployment", "namespace": namespace, "name": "web", "ipv4_pools": []}
    assert problems(cluster.refused("workload_pools", workloads=[item, item])) == [
        (f"Deployment {namespace}/web", "name", "web")
    ]


@pytest.mark.parametrize(("option", "value"), [("wait_timeout", -1), ("wait_sleep", 0), ("wait_sleep", -5)])
def test_a_time_that_nobody_can_wait(cluster, option, value):
    namespace = cluster.create_namespace()
    cluster.create_workload("Deployment", namespace, "web", {V4: '["gone"]'})
    item = {"kind": "Deployment", "namespace": namespace, "name": "web", "ipv4_pools": []}
    result = cluster.refused("workload_pools", workloads=[item], wait=True, **{option: value})
    assert problems(result) == [(f"option {option}", option, value)]


@pytest.mark.parametrize("name", ["", "default/pods", "kube system"])
def test_a_question_about_a_name_that_no_object_can_have(cluster, name):
    result = cluster.run("ipam_info", gather_subset=[], explain=[{"namespace": name, "node": name}])
    assert [each["field"] for each in result["errors"]] == ["namespace", "node"]


@pytest.mark.parametrize("option", ["name", "namespace"])
@pytest.mark.parametrize("value", ["", "a/b", "A_b"])
def test_a_lease_that_cannot_have_such_a_name(cluster, option, value):
    options = {"name": "nodes", "namespace": "default", option: value}
    for check in (True, False):
        result = cluster.run("lease", check=check, **options)
        assert result["failed"] and result["msg"].startswith(f"{option} is {value!r}, ")


def test_a_lease_for_no_time(cluster):
    for check in (True, False):
        result = cluster.run("lease", check=check, name="nodes", namespace="default", duration=0)
        assert result["failed"] and result["msg"] == "duration is 0, which has to be a second at least"


def test_a_batch_of_less_than_nothing(cluster):
    cluster.create_pools(("old", "10.244.0.0/24"), ("young", "10.244.1.0/24"))
    result = cluster.refused("pool_drain", pool="old", to="young", batch=-1)
    assert problems(result) == [("pool old", "batch", -1)]


def test_a_pool_to_empty_where_no_pools_are_served(empty_cluster):
    result = empty_cluster.run("pool_drain", pool="old", to="young")
    assert "it serves IPPool neither in crd.projectcalico.org/v1" in result["msg"]
