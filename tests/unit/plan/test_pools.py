# SPDX-License-Identifier: Apache-2.0
"""Plans for pools: what they contain, and that carrying them out reaches the declaration. No API server."""

from __future__ import annotations

import ipaddress
import itertools

import pytest
from ansible_collections.podnet.ipam.plugins.module_utils._plan import holders, network_checks, pool_view, pools, ranges
from ansible_collections.podnet.ipam.plugins.module_utils._plan.pools import Needs
from hypothesis import given
from hypothesis import strategies as st
from support.pool_plans import OWNED, Cluster, block, claim, declare, names_of, observe, stored

NOTHING = Needs(blocks=False, affinities=False, nodes=False, cidrs=False, installation=False)


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


def test_purge_leaves_pools_without_the_owner_label():
    existing = observe(
        stored("ours", OWNED, cidr="10.244.0.0/17"),
        stored("theirs", cidr="10.244.128.0/17"),
    )
    plan = pools.plan(declare(purge=True), existing)
    assert [(each.verb, each.name) for each in plan.operations] == [("patch", "ours"), ("delete", "ours")]


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


def test_an_unchanged_declaration_needs_nothing_but_the_pools():
    wanted = declare({"name": "a", "cidr": "10.244.0.0/16", "labels": {"x": "1"}}, purge=True, adopt=True, force=True)
    existing = stored("a", {"x": "1"}, cidr="10.244.0.0/16")
    assert pools.needs(wanted, {"a": existing}) == NOTHING
    assert pools.needs(declare({"name": "b"}, state="absent"), {"a": existing}) == NOTHING


def test_what_is_read_depends_on_what_is_new_removed_and_changed():
    item = {"name": "a", "cidr": "10.244.0.0/16", "nat_outgoing": True}
    ours, theirs = (stored("a", labels, cidr="10.244.0.0/16") for labels in (OWNED, {}))
    assert pools.needs(declare(item), {}) == Needs(True, False, True, True, False)
    assert pools.needs(declare(item), {"a": ours}) == NOTHING
    assert pools.needs(declare(item), {"a": theirs}) == Needs(False, False, False, False, True)
    assert pools.needs(declare(item, state="absent"), {"a": ours}) == Needs(True, True, False, False, False)
    assert pools.needs(declare(item), {}, served=False) == NOTHING


def test_a_pool_declared_twice_or_by_an_impossible_name_or_label_is_named():
    items = [
        {"name": "twice", "cidr": "10.244.0.0/24"},
        {"name": "twice", "cidr": "10.244.1.0/24"},
        {"name": "Upper", "cidr": "10.244.2.0/24"},
        {"name": "label", "cidr": "10.244.3.0/24", "labels": {"team": "pay ments", "-x": "", "x/y": "fine.1"}},
        {"name": "null", "cidr": "10.244.5.0/24", "labels": {"team": None, "a..b/c": "1"}},
        {"name": "theirs", "cidr": "10.244.4.0/24", "labels": {"app.kubernetes.io/managed-by": "tigera-operator"}},
    ]
    problems = pools.plan(declare(*items), observe()).problems
    assert sorted((each.subject, each.option, each.value) for each in problems) == [
        ("pool Upper", "name", "Upper"),
        ("pool label", "labels", "-x"),
        ("pool label", "labels", "pay ments"),
        ("pool null", "labels", "a..b/c"),
        ("pool null", "labels", "team"),
        ("pool theirs", "labels", "tigera-operator"),
        ("pool twice", "name", "twice"),
    ]


@pytest.mark.parametrize(
    ("item", "option", "message"),
    (
        ({"node_selector": "has(x)", "allowed_uses": ["LoadBalancer"]}, "node_selector", "it needs all()"),
        ({"vxlan_mode": "Always", "allowed_uses": ["LoadBalancer"]}, "vxlan_mode", "it needs Never"),
        ({"disable_bgp_export": True, "allowed_uses": ["LoadBalancer"]}, "disable_bgp_export", "announced"),
        ({"node_selector": "has(x) || " * 110 + "has(y)"}, "node_selector", "it has 1106 characters; at most 1024"),
        ({"namespace_selector": "x == 'y'", "allowed_uses": ["Workload", "Tunnel"]}, "allowed_uses", "serve tunnels"),
    ),
)
def test_what_calico_would_refuse_is_refused_in_the_words_of_the_options(item, option, message):
    [problem] = pools.plan(declare({"name": "a", "cidr": "10.244.0.0/16", **item}), observe()).problems
    assert problem.option == option and message in problem.message


@pytest.mark.parametrize("cidr", [None, "10.244.0.1/16", "10.244.0.0/99", "fd00::%1/64"])
def test_of_a_range_that_is_missing_or_malformed_nothing_more_is_said_than_that(cidr):
    for existing in (observe(), observe(stored("a", cidr="10.244.0.0/16"))):
        [problem] = pools.plan(declare({"name": "a", "cidr": cidr}, pod_cidrs=["10.0.0.0/8"]), existing).problems
        assert (problem.option, problem.value) == ("cidr", cidr)
        assert "it is missing" in problem.message or "is not a CIDR without host bits" in problem.message


@pytest.mark.parametrize("cidr", [None, "10.244.0.1/16"])
def test_what_else_is_wrong_with_a_pool_is_told_whatever_its_range(cidr):
    wrong = {"node_selector": "rack = '1'", "ipip_mode": "Always", "vxlan_mode": "Always", "labels": {"-": "x"}}
    problems = pools.plan(declare({"name": "a", "cidr": cidr, **wrong}), observe()).problems
    assert [each.option for each in problems] == ["labels", "cidr", "vxlan_mode", "node_selector"]


def test_what_is_wrong_is_told_where_no_pools_are_served_as_well():
    unserved = pools.Observed({}, served=False)
    plan = pools.plan(declare({"name": "a", "cidr": "10.244.0.0/16"}, {"name": "b", "cidr": "10.244.0.0/99"}), unserved)
    assert [each.subject for each in plan.problems] == ["the cluster", "pool b"] and plan.operations == []


def test_a_pool_for_load_balancers_stays_one():
    existing = stored("a", cidr="192.0.2.0/24", allowedUses=["LoadBalancer"])
    [problem] = pools.plan(declare({"name": "a", "cidr": "192.0.2.0/24"}), observe(existing)).problems
    assert (problem.option, problem.value) == ("allowed_uses", ["Workload", "Tunnel"])


def test_pools_that_overlap_in_the_cluster_already_can_be_disabled():
    existing = observe(stored("wide", cidr="10.244.0.0/16"), stored("narrow", cidr="10.244.1.0/24"))
    plan = pools.plan(declare({"name": "narrow", "cidr": "10.244.1.0/24", "disabled": True}), existing)
    assert names_of(plan.operations) == [("patch", "IPPool", "narrow")]
    [warning] = plan.warnings
    assert warning.startswith("pool narrow: 10.244.1.0/24 overlaps pool wide (10.244.0.0/16), and both exist")


def test_a_pool_that_is_being_deleted_cannot_be_declared_and_need_not_be_removed():
    leaving = {"deletionTimestamp": "2026-08-21T09:28:02Z"}
    existing = observe(stored("a", OWNED, leaving, cidr="10.244.0.0/16", disabled=True))
    [problem] = pools.plan(declare({"name": "a", "cidr": "10.244.0.0/16"}), existing).problems
    assert (problem.option, problem.message.partition(";")[0]) == ("name", "it is being deleted in the cluster")
    for wanted in (declare({"name": "a"}, state="absent"), declare(purge=True)):
        assert pools.needs(wanted, existing.pools) == NOTHING
        assert pools.plan(wanted, existing).operations == []
    plan = pools.plan(declare({"name": "b", "cidr": "10.244.0.0/24"}), existing)
    assert names_of(plan.operations) == [("create", "IPPool", "b")] and "which is being deleted" in plan.warnings[0]


def test_blocks_of_another_size_hold_a_new_pool_up_unless_they_go_before():
    wanted = declare({"name": "new", "cidr": "10.244.0.0/16", "block_size": 27}, purge=True, force=True)
    old = stored("old", OWNED, cidr="10.244.0.0/24")
    assert pools.plan(wanted, observe(old, blocks=(block("10.244.0.0/26"),))).problems == []
    left = block("10.244.0.0/26", "net.a")
    [problem] = pools.plan(wanted, observe(old, blocks=(left,))).problems
    assert (problem.subject, problem.option) == ("pool new", "block_size")
    assert problem.message == "27 differs from blocks that exist in 10.244.0.0/16: 10.244.0.0/26"
    deleted = block("10.244.0.0/26", "net.a", deleted=True)
    assert pools.plan(wanted, observe(blocks=(deleted,))).problems == []


def test_purge_considers_the_pools_that_label_selectors_choose():
    existing = observe(
        stored("pay", {"team": "pay"}, cidr="10.244.0.0/24", disabled=True),
        stored("shop", {"team": "shop"}, cidr="10.244.1.0/24", disabled=True),
        stored("ours", OWNED, cidr="10.244.2.0/24", disabled=True),
    )

    def purged(*selectors):
        return [each.name for each in pools.plan(declare(purge=True, label_selectors=selectors), existing).operations]

    assert purged("team=pay") == ["pay"]
    assert purged("team in (pay, shop)", "team!=shop") == ["pay"]
    assert purged("!team") == ["ours"]
    assert purged() == ["ours", "pay", "shop"]


def test_what_is_no_label_selector_is_named():
    [problem] = pools.plan(declare(label_selectors=["team = = pay"], purge=True), observe()).problems
    assert (problem.option, problem.value) == ("label_selectors", "team = = pay")


def reached(plan, observed):
    """The state that a plan ends in. `Cluster` sees to it that nothing forbidden happens on the way."""
    return [observed, *Cluster(observed).carry_out(plan.operations)][-1]


@st.composite
def clusters(draw):
    """Pools that were declared, with blocks in them, some in use, each with its node's claim or without."""
    blocks, affinities = [], []
    observed = reached(pools.plan(declare(*draw(declarations())), observe()), observe())
    for pool in observed.pools.values():
        network = ipaddress.ip_network(pool["spec"]["cidr"])
        for index in draw(st.sets(st.integers(0, 5), max_size=3)):
            cidr = f"{network.network_address + index * 64}/26"
            handles = draw(st.lists(st.sampled_from(["net.a", "net.b"]), max_size=2))
            claimed = draw(st.booleans())
            blocks.append(block(cidr, *handles, affinity="host:node-1" if claimed else None))
            affinities += [claim(cidr)] if claimed else []
    return observe(*observed.pools.values(), blocks=tuple(blocks), affinities=tuple(affinities))


@given(clusters(), declarations(), st.booleans(), st.sampled_from(["present", "absent"]))
def test_carrying_a_plan_out_reaches_the_declaration_and_leaves_nothing_to_do(before, items, purge, state):
    wanted = declare(*items, purge=purge, state=state, force=True)
    plan = pools.plan(wanted, before)
    assert plan.problems == []
    after = reached(plan, before)
    again = pools.plan(wanted, after)
    assert again.operations == [] and again.results == {"in_use": []}
    assert pools.needs(wanted, after.pools) == NOTHING
    views = {name: pool_view.stored(after.pools[name], view["labels"]) for name, view in again.after.items()}
    assert views == {name: view for name, view in plan.after.items() if view}
    names = {item["name"] for item in items}
    if state == "absent":
        assert names.isdisjoint(after.pools)
    elif purge:
        assert set(after.pools) == names


class Facts:
    """A cluster's network: half of the pools lie outside of the pod CIDR, some contain a node's address or services."""

    nodes = tuple(
        {"metadata": {"name": f"n{at}", "labels": {"rack": "1"}}, "status": {"addresses": [address]}}
        for at in range(100)
        for address in [{"type": "InternalIP", "address": f"10.244.{at * 40 % 256}.9"}]
    )
    pod_cidrs = (("10.244.0.0/17",), "a test")
    service_cidrs = (("10.244.16.0/20",), "a test")
    strict_affinity = True


INSTALLATION = {"spec": {"calicoNetwork": {"ipPools": [{"cidr": f"10.244.{at}.0/20"} for at in (0, 48, 96)]}}}


@given(clusters(), declarations(), st.booleans(), st.booleans(), st.sampled_from(["present", "absent"]))
def test_what_is_said_not_to_be_needed_makes_no_difference_to_a_plan(before, items, ours, adopt, state):
    existing = before.pools
    if not ours:
        existing = {name: {**pool, "metadata": {"name": name}} for name, pool in existing.items()}
    options = {"purge": True, "label_selectors": [], "pod_cidrs": None, "service_cidrs": None}
    wanted = declare(*items, state=state, adopt=adopt, **options)

    def plan(needed):
        return pools.plan(
            wanted,
            pools.Observed(
                pools=existing,
                blocks=before.blocks if needed.blocks else (),
                affinities=before.affinities if needed.affinities else (),
                installation=INSTALLATION if needed.installation else None,
                network=network_checks.known(Facts, wanted, needed),
            ),
        )

    assert plan(pools.needs(wanted, existing)) == plan(Needs(*[True] * 5))


@given(clusters())
def test_forced_removal_keeps_every_address_in_use_and_nothing_else(before):
    plan = pools.plan(declare(purge=True, force=True), before)
    after = reached(plan, before)

    def used(observed):
        return sorted(use["address"] for each in observed.blocks for use in holders.uses(each))

    assert after.pools == {} and after.affinities == ()
    assert used(after) == used(before) == sorted(use["address"] for use in plan.results["in_use"])
    assert all(any(holders.uses(each)) and "affinity" not in each["spec"] for each in after.blocks)


@given(clusters())
def test_without_force_exactly_the_pools_in_use_are_refused_and_nothing_is_written(before):
    plan = pools.plan(declare(purge=True), before)
    busy = {use["pool"] for use in plan.results["in_use"]}
    assert {problem.subject for problem in plan.problems} == {f"pool {name}" for name in busy}
    assert plan.operations == [] or not busy


@given(st.sets(NETWORKS, max_size=4), st.sets(NETWORKS, max_size=4))
def test_each_overlap_of_a_declared_pool_is_refused_and_nothing_else(before, after):
    existing = [stored(f"old-{index}", cidr=str(network)) for index, network in enumerate(before)]
    declared = [{"name": f"new-{index}", "cidr": str(network)} for index, network in enumerate(after)]
    problems = pools.plan(declare(*declared), observe(*existing)).problems
    pairs = [*itertools.combinations(after, 2), *itertools.product(after, before)]
    assert [each.option for each in problems] == ["cidr"] * sum(one.overlaps(other) for one, other in pairs)


@given(st.sets(NETWORKS, max_size=6), st.sets(NETWORKS, max_size=6))
def test_no_two_pools_ever_overlap_on_the_way(before, after):
    def disjoint(networks):
        kept = []
        for network in sorted(networks):
            if not any(network.overlaps(other) for other in kept):
                kept.append(network)
        return [{"name": f"pool-{net}".replace("/", "-"), "cidr": str(net)} for net in kept]

    existing = reached(pools.plan(declare(*disjoint(before)), observe()), observe())
    plan = pools.plan(declare(*disjoint(after), purge=True), existing)
    assert plan.problems == []
    for state in Cluster(existing).carry_out(plan.operations):
        named = [(name, ipaddress.ip_network(obj["spec"]["cidr"])) for name, obj in state.pools.items()]
        assert list(ranges.overlaps(named)) == []
