# SPDX-License-Identifier: Apache-2.0
"""The annotations of one object, and namespaces and workloads that have them. No API server."""

from __future__ import annotations

import json

import pytest
from ansible_collections.podnet.ipam.plugins.module_utils._plan import assignments, namespaces, workloads
from hypothesis import given
from hypothesis import strategies as st

V4, V6 = "cni.projectcalico.org/ipv4pools", "cni.projectcalico.org/ipv6pools"
FAMILIES, ADDRS = "cni.projectcalico.org/ipFamilies", "cni.projectcalico.org/ipAddrs"
POOLS = {
    name: {"metadata": {"name": name}, "spec": {"cidr": cidr}}
    for name, cidr in (("a", "10.244.0.0/17"), ("b", "10.244.128.0/17"), ("six", "fd00:10:244::/64"))
}
DEPLOYMENT = ("Deployment", "payments", "web")
ITEM = {"kind": "Deployment", "namespace": "payments", "name": "web"}


def deployment(annotations):
    spec = {"strategy": {"type": "Recreate"}, "template": {"metadata": {"annotations": annotations}, "spec": {}}}
    return {"metadata": {"name": "web", "uid": "web"}, "spec": spec}


def plan_of(kind, options, stored, absent=False):
    """The plan for one namespace or Deployment with these options, whose annotations are `stored`."""
    if kind == "namespace":
        namespace = {"metadata": {"name": "n", "annotations": stored}}
        wanted = namespaces.Desired(({"name": "n", **options},), absent)
        return namespaces.plan(wanted, namespaces.Observed({"n": namespace}, POOLS))
    observed = workloads.Observed({DEPLOYMENT: deployment(stored)}, pools=POOLS)
    return workloads.plan(workloads.Desired(({**ITEM, **options},), absent), observed)


def written(plan):
    """The annotations that a plan writes."""
    for operation in plan.operations:
        body = operation.body if operation.kind == "Namespace" else operation.body["spec"]["template"]
        yield from body["metadata"]["annotations"].items()


ENTRIES = {
    "ipv4_pools": ["a", "b", "10.244.0.0/17"],
    "ipv6_pools": ["six", "fd00:10:244::/64"],
    "families": ["IPv4", "IPv6"],
}
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        option: st.none() | st.lists(st.sampled_from(entries), unique=True, max_size=3)
        for option, entries in ENTRIES.items()
    },
)
ADDRESSES = st.sampled_from([None, [], ["10.244.0.9"], ["fd00:10:244:0::9"], ["fd00:10:244::9", "10.244.0.9"]])
VALUES = [
    "",
    "null",
    "[]",
    '["a"]',
    ' ["a", "b"]',
    '["six"]',
    '["gone"]',
    "a",
    "[1]",
    "{}",
    '["IPv4"]',
    '["IPv6","IPv4"]',
]
STORED = st.dictionaries(
    st.sampled_from([V4, V6, FAMILIES, ADDRS, "other"]),
    st.sampled_from([*VALUES, '["10.244.0.9"]', '["fd00:10:244:0:0::9"]', '["10.244.0.9","10.244.0.10"]']),
)


@given(st.sampled_from(["namespace", "workload"]), OPTIONS, ADDRESSES, STORED, st.booleans())
def test_carrying_a_plan_out_reaches_the_declaration_and_leaves_nothing_to_do(kind, options, fixed, stored, absent):
    known = assignments.NAMESPACE_OPTIONS if kind == "namespace" else assignments.WORKLOAD_OPTIONS
    options = {**options, "ip_addrs": fixed} if kind == "workload" else options
    plan = plan_of(kind, options, stored, absent)
    assert plan.problems == []
    reached = assignments.changed(stored, dict(written(plan)))
    assert plan_of(kind, options, reached, absent).operations == []
    for option in known:
        wanted, key = [] if absent else options.get(option), assignments.KEYS[option]
        if wanted is None:
            assert reached.get(key) == stored.get(key)
        else:
            meaning = assignments.wanted({option: wanted}, False, [option])[option]
            assert (assignments.view(reached, [option])[option] or []) == meaning
    assert reached.get("other") == stored.get("other")
    if kind == "namespace":
        assert reached.get(ADDRS) == stored.get(ADDRS)


@given(OPTIONS)
def test_what_is_written_is_what_calico_reads(options):
    for key, text in written(plan_of("namespace", options, {})):
        values = json.loads(text)
        assert values and all(isinstance(value, str) for value in values)
        assert key != FAMILIES or set(values) <= {"IPv4", "IPv6"}


def test_a_pool_can_be_named_by_its_cidr_in_any_spelling():
    assert plan_of("namespace", {"ipv6_pools": ["fd00:10:244:0::/64"]}, {}).problems == []
    [problem] = plan_of("namespace", {"ipv4_pools": ["10.244.0.0/24"]}, {}).problems
    assert problem.message == "pool '10.244.0.0/24' does not exist; pools of IPv4: a, b"


def test_an_empty_list_in_an_annotation_is_taken_away_because_it_would_hide_the_namespaces():
    assert dict(written(plan_of("workload", {"ipv4_pools": []}, {V4: "[]"}))) == {V4: None}


@pytest.mark.parametrize(
    ("key", "text", "what"),
    [
        (V4, "a", "which is not a JSON list of strings"),
        (FAMILIES, '["ipv4"]', "which is not a JSON list of IPv4, IPv6 or both"),
        (FAMILIES, "[]", "which is not a JSON list of IPv4, IPv6 or both"),
        (ADDRS, "[]", "which is not a JSON list of addresses, one at most of each family"),
        (ADDRS, '["10.244.0.1","10.244.0.2"]', "which is not a JSON list of addresses, one at most of each family"),
    ],
)
def test_a_stored_value_that_calico_would_refuse_gives_a_warning_where_it_is_left_alone(key, text, what):
    plan = plan_of("workload", {}, {key: text})
    assert plan.warnings == [f"Deployment payments/web: annotation {key} is {text!r}, {what}"]
    [option] = (option for option, each in assignments.KEYS.items() if each == key)
    assert plan_of("workload", {option: []}, {key: text}).warnings == []


def test_families_without_any_pool_are_refused():
    observed = namespaces.Observed({"n": {"metadata": {"name": "n"}}}, {"a": POOLS["a"]})
    [problem] = namespaces.plan(namespaces.Desired(({"name": "n", "families": ["IPv4", "IPv6"]},)), observed).problems
    assert str(problem) == "namespace n: families: no enabled pool of IPv6 exists"


def test_options_without_an_effect_beside_others_give_a_warning():
    [warning] = plan_of("workload", {"families": ["IPv4"]}, {V6: '["six"]'}).warnings
    assert warning == "Deployment payments/web: ipv6_pools ['six'] is not used: families is ['IPv4']"
    plan = plan_of("workload", {"ip_addrs": ["10.244.0.9"]}, {V4: '["a"]', FAMILIES: '["IPv4"]'})
    [warning] = plan.warnings
    assert "beside it, ipv4_pools and families of the pods have no effect" in warning


DECLARED = {"name": "new", "cidr": "10.99.0.0/24"}


def problems_with(declared, *entries, pools=POOLS):
    wanted = namespaces.Desired(({"name": "n", "ipv4_pools": entries},), declared_pools=tuple(declared))
    plan = namespaces.plan(wanted, namespaces.Observed({"n": {"metadata": {"name": "n"}}}, pools))
    return [problem.message for problem in plan.problems]


def test_a_pool_that_is_declared_elsewhere_counts_as_existing():
    assert problems_with([DECLARED], "new", "10.99.0.0/24", "a") == []
    assert problems_with([DECLARED], "new", pools={}) == []
    assert problems_with([{**DECLARED, "disabled": True}], "new") == ["pool 'new' cannot be used: it is disabled"]


def test_what_is_declared_wins_over_what_the_cluster_has():
    status = {"conditions": [{"type": "Allocatable", "status": "False", "reason": "PoolDisabled"}]}
    off = {"off": {"metadata": {"name": "off"}, "spec": {"cidr": "10.99.0.0/24", "disabled": True}, "status": status}}
    assert problems_with([], "off", pools=off) == ["pool 'off' cannot be used: it is disabled"]
    assert problems_with([{"name": "off", "cidr": "10.99.0.0/24"}], "off", pools=off) == []
    assert problems_with([{"name": "off"}], "off", pools=off) == ["pool 'off' cannot be used: it is disabled"]
    going = {"off": {**off["off"], "metadata": {"name": "off", "deletionTimestamp": "2026-01-01T00:00:00Z"}}}
    [message] = problems_with([{"name": "off", "cidr": "10.99.0.0/24"}], "off", pools=going)
    assert "it is being deleted" in message


def test_a_definition_is_not_changed_by_planning():
    definition = {"metadata": {"annotations": {"own": "kept"}}, "spec": {}}
    item = {"kind": "Pod", "namespace": "n", "name": "p", "ipv4_pools": ["a"], "definition": definition}
    observed = workloads.Observed({}, pools=POOLS, namespaces={"n": {"metadata": {"name": "n"}}})
    [operation] = workloads.plan(workloads.Desired((item,)), observed).operations
    assert operation.body["metadata"] == {"name": "p", "namespace": "n", "annotations": {"own": "kept", V4: '["a"]'}}
    assert definition == {"metadata": {"annotations": {"own": "kept"}}, "spec": {}}


@pytest.mark.parametrize(
    ("annotations", "value"), [({V6: '["gone"]'}, "gone"), ({ADDRS: '["10.99.0.1"]'}, "10.99.0.1"), ({V4: "a"}, "a")]
)
def test_what_a_definition_brings_along_counts_as_well(annotations, value):
    definition = {"metadata": {"annotations": annotations}, "spec": {}}
    item = {"kind": "Pod", "namespace": "n", "name": "p", "definition": definition}
    observed = workloads.Observed({}, pools=POOLS, namespaces={"n": {"metadata": {"name": "n"}}})
    [problem] = workloads.plan(workloads.Desired((item,)), observed).problems
    assert (problem.option, problem.value) == ("definition", value)


def test_a_workload_in_the_nodes_network_gives_a_warning():
    stored = deployment({})
    stored["spec"]["template"]["spec"]["hostNetwork"] = True
    observed = workloads.Observed({DEPLOYMENT: stored}, pools=POOLS)
    [warning] = workloads.plan(workloads.Desired(({**ITEM, "ipv4_pools": ["a"]},)), observed).warnings
    assert warning == "Deployment payments/web: its pods are in the node's network: no assignment has an effect"
    assert workloads.plan(workloads.Desired(({**ITEM, "ipv4_pools": []},)), observed).warnings == []


def test_a_pod_that_is_created_in_the_nodes_network_gives_a_warning():
    item = {
        "kind": "Pod",
        "namespace": "n",
        "name": "p",
        "ipv4_pools": ["a"],
        "definition": {"spec": {"hostNetwork": True}},
    }
    observed = workloads.Observed({}, pools=POOLS, namespaces={"n": {"metadata": {"name": "n"}}})
    [warning] = workloads.plan(workloads.Desired((item,)), observed).warnings
    assert warning == "Pod n/p: its pods are in the node's network: no assignment has an effect"


def test_a_workload_that_another_controller_owns_gives_a_warning_when_it_is_changed():
    stored = deployment({})
    stored["metadata"]["ownerReferences"] = [{"controller": True, "kind": "Shop", "name": "web", "uid": "1"}]
    observed = workloads.Observed({DEPLOYMENT: stored}, pools=POOLS)
    plan = workloads.plan(workloads.Desired(({**ITEM, "ipv4_pools": ["a"]},)), observed)
    assert plan.warnings == ["Deployment payments/web: it is controlled by Shop web, which may undo the change"]
    assert workloads.plan(workloads.Desired((ITEM,)), observed).warnings == []


def test_where_assignments_are_taken_away_no_definition_matters():
    item = {"kind": "Pod", "namespace": "n", "name": "p", "definition": {"metadata": {"name": "other"}}}
    plan = workloads.plan(workloads.Desired((item,), absent=True), workloads.Observed({}, pools=POOLS))
    assert plan.problems == plan.operations == []


@pytest.mark.parametrize("annotations", [{}, {V4: '["a"]'}])
def test_a_pod_that_is_being_deleted_is_no_pod_that_exists(annotations):
    going = {"name": "p", "uid": "x", "annotations": annotations, "deletionTimestamp": "2026-01-01T00:00:00Z"}
    item = {"kind": "Pod", "namespace": "n", "name": "p", "ipv4_pools": ["a"], "definition": {"spec": {}}}
    observed = workloads.Observed({("Pod", "n", "p"): {"metadata": going, "spec": {}}}, pools=POOLS)
    [problem] = workloads.plan(workloads.Desired((item,)), observed).problems
    assert str(problem) == "Pod n/p: name: it is being deleted: run again when it is gone"


def test_a_pod_of_a_controller_is_assigned_through_that():
    pod = {"metadata": {"name": "web-x", "uid": "x"}, "spec": {}}
    pod["metadata"]["ownerReferences"] = [{"controller": True, "kind": "ReplicaSet", "name": "web", "uid": "1"}]
    item = {"kind": "Pod", "namespace": "n", "name": "web-x", "ipv4_pools": ["a"]}
    observed = workloads.Observed({("Pod", "n", "web-x"): pod}, pools=POOLS)
    [problem] = workloads.plan(workloads.Desired((item,)), observed).problems
    assert problem.message.endswith("(it has no address yet): declare its ReplicaSet web")
