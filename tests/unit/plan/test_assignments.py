# SPDX-License-Identifier: Apache-2.0
"""Plans for namespaces and workloads. No API server."""

from __future__ import annotations

import pytest
from ansible_collections.podnet.ipam.plugins.module_utils._plan import assignments, namespaces, workloads
from hypothesis import given
from hypothesis import strategies as st

V4, V6 = "cni.projectcalico.org/ipv4pools", "cni.projectcalico.org/ipv6pools"
POOLS = {
    name: {"metadata": {"name": name}, "spec": {"cidr": cidr}}
    for name, cidr in (("a", "10.244.0.0/17"), ("b", "10.244.128.0/17"), ("six", "fd00:10:244::/64"))
}


def namespace(name, **annotations):
    return {"metadata": {"name": name, "annotations": annotations, "uid": name}}


def plan_of(item, stored, absent=False):
    observed = namespaces.Observed({item["name"]: {"metadata": {"name": item["name"], "annotations": stored}}}, POOLS)
    return namespaces.plan([item], absent, observed)


def carried_out(plan, stored):
    for operation in plan.operations:
        stored = assignments.changed(stored, operation.body["metadata"]["annotations"])
    return stored


ENTRIES = {"ipv4_pools": ["a", "b", "10.244.0.0/17"], "ipv6_pools": ["six", "fd00:10:244::/64"]}
ITEMS = st.fixed_dictionaries(
    {"name": st.just("payments")},
    optional={
        option: st.none() | st.lists(st.sampled_from(entries), unique=True, max_size=3)
        for option, entries in ENTRIES.items()
    },
)
STORED = st.dictionaries(
    st.sampled_from([V4, V6, "other"]),
    st.sampled_from(["", "null", "[]", '["a"]', ' ["a", "b"]', '["six"]', '["gone"]', "a", "[1]", "{}"]),
)


@given(ITEMS, STORED, st.booleans())
def test_carrying_a_plan_out_reaches_the_declaration_and_leaves_nothing_to_do(item, stored, absent):
    plan = plan_of(item, stored, absent)
    assert plan.problems == []
    reached = carried_out(plan, stored)
    assert plan_of(item, reached, absent).operations == []
    for family, option in assignments.FAMILY_OPTIONS.items():
        key, wanted = assignments.POOLS_ANNOTATIONS[family], [] if absent else item.get(option)
        if wanted is None:
            assert reached.get(key) == stored.get(key)
        else:
            assert (assignments.view(reached)[option] or []) == wanted
    assert reached.get("other") == stored.get("other")


def test_a_pool_can_be_named_by_its_cidr_in_any_spelling():
    assert plan_of({"name": "n", "ipv6_pools": ["fd00:10:244:0::/64"]}, {}).problems == []
    [problem] = plan_of({"name": "n", "ipv4_pools": ["10.244.0.0/24"]}, {}).problems
    assert problem.message == "pool '10.244.0.0/24' does not exist; pools of IPv4: a, b"


def test_an_empty_list_in_an_annotation_is_taken_away_because_it_would_hide_the_namespaces():
    [operation] = plan_of({"name": "n", "ipv4_pools": []}, {V4: "[]"}).operations
    assert operation.body == {"metadata": {"annotations": {V4: None}}}


def test_a_namespace_declared_twice_is_refused():
    observed = namespaces.Observed({"n": namespace("n")}, POOLS)
    [problem] = namespaces.plan([{"name": "n"}, {"name": "n"}], False, observed).problems
    assert problem.subject == "namespace n"


def pod(name, *addresses, **others):
    status = {"phase": "Running", "podIPs": [{"ip": address} for address in addresses]}
    return {"metadata": {"name": name}, "spec": {}, "status": status, **others}


@pytest.mark.parametrize(
    ("assignment", "stale"),
    [
        ({4: ["a"]}, ["10.244.200.1"]),
        ({4: ["a", "b"]}, []),
        ({4: [], 6: ["six"]}, ["fd00:99::1"]),
        ({}, []),
    ],
)
def test_an_address_is_stale_when_it_lies_in_none_of_the_pools_of_its_family(assignment, stale):
    pods = [pod("p", "10.244.200.1", "fd00:99::1")]
    found = workloads.stale_pods(assignment, pods, assignments.readable(POOLS))
    assert [address for each in found for address in each["addresses"]] == stale


def test_finished_leaving_and_host_network_pods_are_never_stale():
    pods = [
        pod("done", "10.9.9.9", status={"phase": "Succeeded", "podIPs": [{"ip": "10.9.9.9"}]}),
        pod("leaving", "10.9.9.9", metadata={"name": "leaving", "deletionTimestamp": "2026-01-01T00:00:00Z"}),
        pod("host", "10.9.9.9", spec={"hostNetwork": True}),
        pod("waiting"),
    ]
    assert workloads.stale_pods({4: ["a"]}, pods, assignments.readable(POOLS)) == []


def test_a_definition_is_not_changed_by_planning():
    definition = {"metadata": {"annotations": {"own": "kept"}}, "spec": {}}
    item = {"kind": "Pod", "namespace": "n", "name": "p", "ipv4_pools": ["a"], "definition": definition}
    [operation] = workloads.plan([item], False, workloads.Observed({}, pools=POOLS, namespaces={"n"})).operations
    assert operation.body["metadata"] == {"name": "p", "namespace": "n", "annotations": {"own": "kept", V4: '["a"]'}}
    assert definition == {"metadata": {"annotations": {"own": "kept"}}, "spec": {}}


def test_pools_named_in_a_definition_count_as_well():
    definition = {"metadata": {"annotations": {V6: '["gone"]'}}, "spec": {}}
    item = {"kind": "Pod", "namespace": "n", "name": "p", "definition": definition}
    [problem] = workloads.plan([item], False, workloads.Observed({}, pools=POOLS, namespaces={"n"})).problems
    assert (problem.option, problem.value) == ("definition", "gone")
