# SPDX-License-Identifier: Apache-2.0
"""Plans for pools: what they contain, and that carrying them out reaches the declaration. No API server."""

from __future__ import annotations

import copy
import ipaddress

from ansible_collections.podnet.ipam.plugins.module_utils._plan import pool_view, pools, ranges
from hypothesis import given
from hypothesis import strategies as st

OWNED = {pool_view.OWNER_LABEL: pool_view.OWNER}


def declare(*items, state="present", purge=False, pod_cidrs=()):
    return pools.desired({"pools": list(items), "state": state, "purge": purge, "pod_cidrs": pod_cidrs})


def stored(name, labels=None, **spec):
    metadata = {"name": name, "labels": labels or {}, "resourceVersion": "1", "uid": name}
    return {"kind": "IPPool", "metadata": metadata, "spec": spec}


def observe(*objects, **others):
    return pools.Observed({each["metadata"]["name"]: each for each in objects}, **others)


def block(cidr, *holders):
    network = ipaddress.ip_network(cidr)
    attributes = [{"handle_id": holder} for holder in holders]
    free = [None] * (network.num_addresses - len(holders))
    spec = {"cidr": cidr, "allocations": [*range(len(holders)), *free], "attributes": attributes}
    return {"kind": "IPAMBlock", "metadata": {"name": cidr.translate(str.maketrans("./:", "---"))}, "spec": spec}


def carry_out(operations, existing):
    """What the API server's pools become, with the set after each operation."""
    state = {name: copy.deepcopy(obj) for name, obj in existing.items()}
    for operation in operations:
        if operation.kind == "IPPool":
            if operation.verb == "create":
                assert operation.name not in state
                state[operation.name] = stored(operation.name, operation.body["labels"], **operation.body["spec"])
            elif operation.verb == "patch":
                obj = state[operation.name]
                obj["spec"].update(operation.body.get("spec", {}))
                obj["metadata"]["labels"].update(operation.body.get("labels", {}))
            else:
                assert state.pop(operation.name)["spec"]["disabled"], "a pool is disabled before it is removed"
        yield state


def test_an_unchanged_declaration_has_no_operations_whatever_defaults_are_stored():
    sparse = stored("a", cidr="10.244.0.0/16")
    full = stored("a", cidr="10.244.0.0/16", blockSize=26, allowedUses=["Tunnel", "Workload"], disabled=False)
    for existing in (sparse, full):
        plan = pools.plan(declare({"name": "a", "cidr": "10.244.0.0/16"}), observe(existing))
        assert (plan.operations, plan.problems) == ([], [])


def test_another_spelling_of_the_same_ipv6_range_is_not_a_change():
    existing = stored("six", cidr="fd00:10:244:0::/64", blockSize=122)
    plan = pools.plan(declare({"name": "six", "cidr": "fd00:10:244::/64"}), observe(existing))
    assert (plan.operations, plan.problems) == ([], [])


def test_a_patch_contains_only_what_differs():
    existing = stored("a", cidr="10.244.0.0/16", natOutgoing=True, nodeSelector="has(rack)")
    [operation] = pools.plan(
        declare({"name": "a", "cidr": "10.244.0.0/16", "nat_outgoing": False, "node_selector": "has(rack)"}),
        observe(existing),
    ).operations
    assert operation.body == {"spec": {"natOutgoing": False}, "labels": {}}


def test_fields_that_an_older_calico_does_not_know_are_written_only_when_they_matter():
    [plain, manual] = pools.plan(
        declare(
            {"name": "a", "cidr": "10.244.0.0/17"},
            {"name": "b", "cidr": "10.244.128.0/17", "assignment_mode": "Manual"},
        ),
        observe(),
    ).operations
    assert {"assignmentMode", "namespaceSelector", "allowedUses"}.isdisjoint(plain.body["spec"])
    assert manual.body["spec"]["assignmentMode"] == "Manual"


def test_a_namespace_selector_takes_tunnels_out_of_the_default_uses():
    declared = declare({"name": "a", "cidr": "10.244.0.0/17", "namespace_selector": "team == 'x'"})
    plan = pools.plan(declared, observe())
    assert plan.operations[0].body["spec"]["allowedUses"] == ["Workload"]


def test_pools_for_load_balancers_need_not_lie_in_the_pod_cidr():
    declared = declare(
        {"name": "lb", "cidr": "192.0.2.0/24", "allowed_uses": ["LoadBalancer"]},
        {"name": "pods", "cidr": "198.51.100.0/24"},
        pod_cidrs=None,
    )
    plan = pools.plan(declared, observe(pod_cidrs=("10.244.0.0/16",)))
    assert [problem.subject for problem in plan.problems] == ["pool pods"]


def test_a_pool_may_span_adjacent_pod_cidrs():
    declared = declare({"name": "a", "cidr": "10.244.0.0/16"}, pod_cidrs=["10.244.0.0/17", "10.244.128.0/17"])
    assert pools.plan(declared, observe()).problems == []


def test_unknown_pod_cidrs_give_a_warning_and_an_empty_list_none():
    item = {"name": "a", "cidr": "10.244.0.0/16"}
    [warning] = pools.plan(declare(item, pod_cidrs=None), observe(pod_cidrs=())).warnings
    assert "pod_cidrs" in warning
    assert pools.plan(declare(item, pod_cidrs=[]), observe()).warnings == []


def test_a_family_without_a_pod_cidr_gives_a_warning():
    declared = declare({"name": "six", "cidr": "fd00::/64"}, pod_cidrs=["10.244.0.0/16"])
    plan = pools.plan(declared, observe())
    assert plan.problems == []
    assert plan.warnings == ["pool six: the pod CIDRs (10.244.0.0/16) have none of IPv6"]


def test_what_is_not_a_cidr_among_the_pod_cidrs_is_named():
    [problem] = pools.plan(declare(pod_cidrs=["10.244.0.0/16", "pods"]), observe()).problems
    assert (problem.option, problem.value) == ("pod_cidrs", "pods")


def test_purge_leaves_pools_without_the_owner_label():
    existing = observe(
        stored("ours", OWNED, cidr="10.244.0.0/17"),
        stored("theirs", cidr="10.244.128.0/17"),
    )
    plan = pools.plan(declare(purge=True), existing)
    assert [(each.verb, each.name) for each in plan.operations] == [("patch", "ours"), ("delete", "ours")]


def test_a_pool_in_use_is_not_removed_and_its_holders_are_counted():
    existing = observe(
        stored("a", OWNED, cidr="10.244.0.0/16", disabled=True),
        blocks=(block("10.244.1.0/26", *(f"net.{index}" for index in range(7))), block("10.244.2.0/26")),
    )
    plan = pools.plan(declare({"name": "a"}, state="absent"), existing)
    assert plan.operations == []
    [problem] = plan.problems
    assert "7 addresses of 10.244.0.0/16 are in use" in problem.message
    assert "handle net.4 and 2 more (blocks 10.244.1.0/26)" in problem.message
    assert problem.message.endswith("it is disabled, nothing new comes from it")


def test_blocks_outside_of_a_removed_pool_stay():
    existing = observe(
        stored("a", cidr="10.244.0.0/24", disabled=True),
        blocks=(block("10.244.0.64/26"), block("10.244.1.0/26")),
    )
    plan = pools.plan(declare({"name": "a"}, state="absent"), existing)
    assert [each.name for each in plan.operations] == ["10-244-0-64-26", "a"]


NETWORKS = st.tuples(st.integers(0, 255), st.integers(4, 8)).map(
    lambda place: ipaddress.ip_network(
        (int(ipaddress.ip_address("10.244.0.0")) + place[0] * 256, 16 + place[1]), strict=False
    )
)


@given(st.lists(NETWORKS, max_size=12))
def test_overlaps_are_those_that_comparing_each_with_each_finds(networks):
    named = list(enumerate(networks))
    found = {frozenset(pair) for pair in ranges.overlaps(named)}
    expected = {frozenset((i, j)) for i, one in named for j, other in named if i < j and one.overlaps(other)}
    assert found == expected


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "node_selector": st.sampled_from(["all()", "rack == '1'", None]),
        "nat_outgoing": st.booleans(),
        "vxlan_mode": st.sampled_from(["Never", "Always", "CrossSubnet"]),
        "disabled": st.booleans(),
        "disable_bgp_export": st.booleans(),
        "allowed_uses": st.sampled_from([["Workload"], ["Tunnel", "Workload"], None]),
        "assignment_mode": st.sampled_from(["Manual", "Automatic", None]),
        "labels": st.dictionaries(st.sampled_from(["x", "y"]), st.sampled_from(["1", "2"])),
    },
)


@st.composite
def declarations(draw):
    """Sound sets of pools: each name has a range of its own, so that none of them ever moves."""
    chosen = draw(st.sets(st.integers(0, 15), max_size=6))
    return [{"name": f"pool-{index}", "cidr": f"10.244.{index * 16}.0/20", **draw(OPTIONS)} for index in chosen]


@given(declarations(), declarations(), st.booleans(), st.sampled_from(["present", "absent"]))
def test_carrying_a_plan_out_reaches_the_declaration_and_leaves_nothing_to_do(first, second, purge, state):
    *_, existing = [{}, *carry_out(pools.plan(declare(*first), observe()).operations, {})]
    wanted = declare(*second, purge=purge, state=state)
    plan = pools.plan(wanted, observe(*existing.values()))
    assert plan.problems == []
    *_, reached = [existing, *carry_out(plan.operations, existing)]
    again = pools.plan(wanted, observe(*reached.values()))
    assert again.operations == []
    views = {
        name: pool_view.stored(obj, again.after[name]["labels"])
        for name, obj in reached.items()
        if again.after.get(name)
    }
    assert views == {name: view for name, view in plan.after.items() if view}
    names = {item["name"] for item in second}
    if state == "absent":
        assert names.isdisjoint(reached)
    elif purge:
        assert set(reached) == names


@given(st.sets(NETWORKS, max_size=6), st.sets(NETWORKS, max_size=6))
def test_no_two_pools_ever_overlap_on_the_way(before, after):
    def disjoint(networks):
        kept = []
        for network in sorted(networks):
            if not any(network.overlaps(other) for other in kept):
                kept.append(network)
        return [{"name": f"pool-{net}".replace("/", "-"), "cidr": str(net)} for net in kept]

    *_, existing = [{}, *carry_out(pools.plan(declare(*disjoint(before)), observe()).operations, {})]
    plan = pools.plan(declare(*disjoint(after), purge=True), observe(*existing.values()))
    assert plan.problems == []
    for state in carry_out(plan.operations, existing):
        named = [(name, ipaddress.ip_network(obj["spec"]["cidr"])) for name, obj in state.items()]
        assert list(ranges.overlaps(named)) == []
