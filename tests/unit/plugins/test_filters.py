# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ipaddress

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.podnet.ipam.plugins.filter.assigned_to import FilterModule as AssignmentFilters
from ansible_collections.podnet.ipam.plugins.filter.differences import FilterModule as DifferenceFilters
from ansible_collections.podnet.ipam.plugins.filter.ranges import FilterModule
from ansible_collections.podnet.ipam.plugins.module_utils._plan import ranges
from ansible_collections.podnet.ipam.plugins.test.ranges import TestModule as RangeTests
from hypothesis import given
from hypothesis import strategies as st

FILTERS = FilterModule().filters()
carve, free_space, summarise, overlaps = (FILTERS[name] for name in ("carve", "free_space", "summarise", "overlaps"))
assigned_to = AssignmentFilters().filters()["assigned_to"]
differences = DifferenceFilters().filters()["differences"]
overlapping, within = (RangeTests().tests()[name] for name in ("overlapping", "within"))


def test_a_carved_list_is_a_list_of_pools_and_keeps_what_else_they_say():
    wanted = [
        {"name": "rack-1", "prefix": 18, "node_selector": "rack == '1'"},
        {"name": "payments", "addresses": "4000", "assignment_mode": "Manual", "labels": {"team": "pay"}},
    ]
    assert carve("10.244.0.0/16", wanted) == [
        {"name": "rack-1", "cidr": "10.244.0.0/18", "node_selector": "rack == '1'"},
        {"name": "payments", "cidr": "10.244.64.0/20", "assignment_mode": "Manual", "labels": {"team": "pay"}},
    ]
    assert "prefix" in wanted[0], "the input is left as it was"


@pytest.mark.parametrize(
    "existing",
    (
        {"b": "10.244.0.0/18"},
        [{"name": "b", "cidr": "10.244.0.0/18", "used": 17, "free": 16367}, {"name": "v6", "cidr": "fd00::/64"}],
    ),
    ids=("mapping", "pools"),
)
def test_existing_pools_are_a_mapping_or_what_ipam_info_returns(existing):
    assert [pool["cidr"] for pool in carve("10.244.0.0/16", [{"name": "a", "prefix": 24}], existing)] == [
        "10.244.64.0/24"
    ]
    both = [{"name": "a", "prefix": 24}, {"name": "b", "prefix": 18}]
    assert [pool["cidr"] for pool in carve("10.244.0.0/16", both, existing)] == ["10.244.64.0/24", "10.244.0.0/18"]


def test_free_space_is_what_no_used_range_covers():
    used = ["10.244.0.0/18", {"name": "a", "cidr": "10.244.64.0/20"}, "10.99.0.0/16", "fd00:10:244::1"]
    assert free_space("10.244.0.0/16", used) == ["10.244.80.0/20", "10.244.96.0/19", "10.244.128.0/17"]
    assert free_space("10.244.0.0/16") == ["10.244.0.0/16"]
    assert free_space("10.244.0.0/16", ["10.0.0.0/8"]) == []
    assert free_space(["fd00::/126", "10.0.0.0/31"], ["fd00::", "10.0.0.1"]) == [
        "10.0.0.0/32",
        "fd00::1/128",
        "fd00::2/127",
    ]


def test_a_summary_is_the_fewest_cidrs_for_the_same_addresses():
    assert summarise(["10.0.1.0/24", "fd00::/65", "10.0.0.0/24", "10.0.1.7", "fd00:0:0:0:8000::/65"]) == [
        "10.0.0.0/23",
        "fd00::/64",
    ]
    assert summarise([]) == []


def test_overlaps_are_pairs_with_the_wider_range_first():
    assert overlaps(["10.1.0.0/24", "10.0.0.0/8", "fd00::/8", "10.1.0.0/16", "11.0.0.0/8"]) == [
        ["10.0.0.0/8", "10.1.0.0/16"],
        ["10.0.0.0/8", "10.1.0.0/24"],
        ["10.1.0.0/16", "10.1.0.0/24"],
    ]
    assert overlaps(["10.0.0.0/8", "10.0.0.0/8"]) == [["10.0.0.0/8", "10.0.0.0/8"]]


def test_overlapping_pools_are_shown_by_name_and_cidr():
    pools = [{"name": "a", "cidr": "10.0.0.0/16", "disabled": True}, {"name": "b", "cidr": "10.0.1.0/24"}, "10.0.1.7"]
    a, b = {"name": "a", "cidr": "10.0.0.0/16"}, {"name": "b", "cidr": "10.0.1.0/24"}
    assert overlaps(pools) == [[a, b], [a, "10.0.1.7/32"], [b, "10.0.1.7/32"]]


def test_overlapping_asks_for_one_common_address():
    assert overlapping("10.0.0.0/8", "10.244.0.0/16")
    assert overlapping(["fd00::/8", "10.0.0.0/8"], [{"name": "a", "cidr": "10.244.0.0/16"}])
    assert not overlapping("10.244.0.0/16", ["10.245.0.0/16", "fd00::/8"])
    assert not overlapping("10.244.0.0/16", [])


def test_within_asks_for_every_address():
    assert within("10.244.3.7", "10.244.0.0/16")
    assert within({"name": "a", "cidr": "10.244.0.0/16"}, ["10.244.0.0/17", "10.244.128.0/17"])
    assert within(["10.244.3.7", "fd00::7"], ["fd00::/64", "10.244.0.0/16"])
    assert not within(["10.244.3.7", "10.245.3.7"], "10.244.0.0/16")
    assert not within("10.244.0.0/16", "10.244.0.0/17")
    assert not within("10.244.0.1", "fd00::/8")


def test_what_jinja_makes_of_a_list_counts_as_one():
    cidrs = ["10.0.0.0/9", "10.128.0.0/9"]
    assert summarise(iter(cidrs)) == ["10.0.0.0/8"] and free_space("10.0.0.0/8", iter(cidrs)) == []
    assert overlaps(iter(cidrs)) == [] and within("10.0.0.0/8", iter(cidrs))
    assert carve("10.0.0.0/8", iter([{"name": "a", "prefix": 9}]), iter([]))[0]["cidr"] == "10.0.0.0/9"


@pytest.mark.parametrize(
    ("call", "message"),
    (
        (
            lambda: carve("10.244.0.1/16", []),
            "carve: the input: '10.244.0.1/16' is not a CIDR without host bits, such as",
        ),
        (lambda: carve(10, []), "carve: the input: 10 is not a CIDR without host bits"),
        (lambda: carve("10.0.0.0/8", {"name": "a"}), "carve: pools: {'name': 'a'} is not a list"),
        (lambda: carve("10.0.0.0/8", ["a"]), "carve: pools[0]: 'a' is not a mapping with the key name"),
        (lambda: carve("10.0.0.0/8", [{"prefix": 9}]), "carve: pools[0].name: None is not a name"),
        (
            lambda: carve("10.0.0.0/8", [{"name": "a", "prefix": "/9"}]),
            "carve: pools[0].prefix: '/9' is not a whole number",
        ),
        (
            lambda: carve("10.0.0.0/8", [{"name": "a", "addresses": True}]),
            "pools[0].addresses: True is not a whole number",
        ),
        (
            lambda: carve("10.0.0.0/8", [{"name": "a", "addresses": 2.5}]),
            "pools[0].addresses: 2.5 is not a whole number",
        ),
        (lambda: carve("10.0.0.0/8", [{"name": "a"}]), "carve: a: one of prefix and addresses says its size"),
        (
            lambda: carve("10.0.0.0/8", [{"name": "a", "prefix": 9, "cidr": "10.0.0.0/9"}]),
            "pools[0].cidr: '10.0.0.0/9' is not needed: the filter finds the place; what has one already belongs into",
        ),
        (lambda: carve("10.0.0.0/8", [], "10.0.0.0/9"), "carve: existing: '10.0.0.0/9' is not a list"),
        (lambda: carve("10.0.0.0/8", [], {"a": "x"}), "carve: existing.a: 'x' is not a CIDR without host bits"),
        (lambda: carve("10.0.0.0/8", [], [{"name": "a"}]), "existing[0]: {'name': 'a'} is not a pool: the key cidr is"),
        (
            lambda: carve("10.0.0.0/8", [], [{"name": "a", "cidr": "10.0.0.0/9"}] * 2),
            "carve: existing[1].name: 'a' is not the name of one pool only",
        ),
        (lambda: free_space("10.0.0.0/8", ["10.0.0.1/9"]), "free_space: used[0]: '10.0.0.1/9' is not a CIDR without"),
        (
            lambda: free_space(8),
            "free_space: the input: 8 is not a CIDR without host bits, such as 10.244.0.0/16, nor a",
        ),
        (lambda: summarise([None]), "summarise: the input[0]: None is not a CIDR"),
        (lambda: summarise([{"name": "a", "cidr": "x"}]), "summarise: the input[0].cidr: 'x' is not a CIDR"),
        (lambda: overlaps("10.0.0.0/8"), "overlaps: the input: '10.0.0.0/8' is not a list"),
        (lambda: overlapping("10.0.0.0/8", "x"), "overlapping: other: 'x' is not a CIDR"),
        (lambda: within("x", "10.0.0.0/8"), "within: the input: 'x' is not a CIDR"),
    ),
)
def test_a_wrong_argument_is_named_with_its_value_and_what_is_right(call, message):
    with pytest.raises(AnsibleFilterError) as caught:
        call()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "call",
    (
        lambda: free_space("10.0.0.0/8"),
        lambda: summarise(["10.0.0.0/8"]),
        lambda: overlapping("10.0.0.0/8", "10.0.0.0/9"),
        lambda: within("10.0.0.0/9", "10.0.0.0/8"),
    ),
    ids=("free_space", "summarise", "overlapping", "within"),
)
def test_without_netaddr_the_error_says_what_to_install(call, monkeypatch):
    monkeypatch.setattr(ranges, "NETADDR_IMPORT_ERROR", "Traceback ...")
    with pytest.raises(AnsibleFilterError, match=r"podnet\.ipam\.\w+: .*netaddr"):
        call()


def test_carving_and_overlaps_need_no_netaddr(monkeypatch):
    monkeypatch.setattr(ranges, "NETADDR_IMPORT_ERROR", "Traceback ...")
    assert overlaps(["10.0.0.0/8", "10.0.0.0/9"]) == [["10.0.0.0/8", "10.0.0.0/9"]]
    assert carve("10.0.0.0/8", [{"name": "a", "prefix": 9}]) == [{"name": "a", "cidr": "10.0.0.0/9"}]


def networks_of(space, depth=6):
    """Networks inside of a small space, of every size."""
    space = ipaddress.ip_network(space)

    def network(place):
        bits, index = place
        subnets = list(space.subnets(prefixlen_diff=bits))
        return str(subnets[index % len(subnets)])

    return st.tuples(st.integers(0, depth), st.integers(0, 1 << depth)).map(network)


any_networks = st.lists(networks_of("10.0.0.192/26") | networks_of("fd00::c0/122"), max_size=6)


def addresses(cidrs):
    return {address for cidr in cidrs for address in ipaddress.ip_network(cidr)}


@given(any_networks, any_networks)
def test_arithmetic_agrees_with_sets_of_addresses(one, other):
    assert addresses(free_space(one, other)) == addresses(one) - addresses(other)
    assert addresses(summarise(one)) == addresses(one)
    assert len(summarise(one)) <= len(set(one)) and summarise(summarise(one)) == summarise(one)
    assert overlapping(one, other) == bool(addresses(one) & addresses(other))
    assert within(one, other) == (addresses(one) <= addresses(other))


@given(any_networks)
def test_overlaps_finds_every_pair_once(cidrs):
    expected = [
        {one, other}
        for index, one in enumerate(cidrs)
        for other in cidrs[index + 1 :]
        if addresses([one]) & addresses([other])
    ]
    found = [set(pair) for pair in overlaps(cidrs)]
    assert sorted(map(sorted, found)) == sorted(map(sorted, expected))


def test_differences_are_one_list_of_all_parts_in_words_and_values():
    diffs = {
        "pools": {
            "before": {"b": {"cidr": "10.0.1.0/24"}, "c": {"disabled": True, "labels": {"team": "a"}, "same": 1}},
            "after": {"a": {"cidr": "10.0.0.0/24"}, "c": {"disabled": False, "labels": {}, "same": 1}},
        },
        "reservations": {},
        "namespaces": {"before": {"shop": {"ipv4_pools": None}}, "after": {"shop": {"ipv4_pools": ["a"]}}},
    }
    found = differences(diffs)
    assert [(each["part"], each["object"], each["field"], each["before"], each["after"]) for each in found] == [
        ("pools", "a", None, None, {"cidr": "10.0.0.0/24"}),
        ("pools", "b", None, {"cidr": "10.0.1.0/24"}, None),
        ("pools", "c", "disabled", True, False),
        ("pools", "c", "labels", {"team": "a"}, {}),
        ("namespaces", "shop", "ipv4_pools", None, ["a"]),
    ]
    assert [each["text"] for each in found] == [
        "pools: a: is missing",
        "pools: b: exists and is not declared",
        "pools: c: disabled is true, declared is false",
        'pools: c: labels is {"team": "a"}, declared is {}',
        'namespaces: shop: ipv4_pools is not set, declared is ["a"]',
    ]


@pytest.mark.parametrize(
    ("diffs", "message"),
    (
        ([], "differences: the input: [] is not diffs by part"),
        ({"pools": "-a"}, "differences: the input.pools: '-a' is not diffs by part"),
        (
            {"pools": {"before": "text", "after": {}}},
            "differences: the input.pools.before: 'text' is not diffs by part",
        ),
        ({"pools": {"before": {}, "after": {"a": 1}}}, "the input.pools.after: {'a': 1} is not diffs by part"),
    ),
)
def test_what_is_no_diff_of_a_module_is_named(diffs, message):
    with pytest.raises(AnsibleFilterError) as caught:
        differences(diffs)
    assert message in str(caught.value)


LEAVING = [{"name": "old", "cidr": "10.244.64.0/24"}, {"name": "old-v6", "cidr": "fd00:10:244::/64"}]


@pytest.mark.parametrize(
    ("assignment", "texts"),
    (
        ({"name": "shop", "ipv4_pools": ["new", "old"]}, ["namespace shop asks for old"]),
        ({"name": "shop", "ipv6_pools": ["FD00:10:244:0::/64"]}, ["namespace shop asks for FD00:10:244:0::/64"]),
        ({"label_selectors": ["a=b"], "ipv4_pools": ["old"]}, ["namespaces with ['a=b'] ask for old"]),
        (
            {"kind": "Pod", "namespace": "n", "name": "p", "ip_addrs": ["10.244.64.9", "fd00:10:244::9"]},
            ["Pod n/p asks for 10.244.64.9", "Pod n/p asks for fd00:10:244::9"],
        ),
        ({"name": "shop", "ipv4_pools": ["new", "10.244.64.0/25"], "ipv6_pools": None}, []),
        ({"name": "shop", "ipv4_pools": "[old", "ip_addrs": ["10.244.65.9"], "families": ["IPv4"]}, []),
    ),
)
def test_who_asks_for_a_pool_says_so_by_name_by_cidr_or_by_address(assignment, texts):
    assert [each["text"] for each in assigned_to([assignment], LEAVING)] == texts


def test_what_asks_for_a_pool_is_told_with_object_field_and_value():
    item = {"kind": "Deployment", "namespace": "n", "name": "web", "ipv4_pools": ["old"]}
    assert assigned_to([item], LEAVING) == [
        {"object": "Deployment n/web", "field": "ipv4_pools", "value": "old", "text": "Deployment n/web asks for old"}
    ]


@pytest.mark.parametrize(
    ("assignments", "pools", "message"),
    (
        ({"namespaces": []}, LEAVING, "assigned_to: the input: {'namespaces': []} is not a list"),
        (["shop"], LEAVING, "assigned_to: the input[0]: 'shop' is not an assignment, a mapping"),
        ([], ["old"], "assigned_to: pools[0]: 'old' is not a mapping with the key name"),
        ([], [{"name": "old"}], "assigned_to: pools[0]: {'name': 'old'} is not a pool: the key cidr is missing"),
    ),
)
def test_what_is_no_assignment_or_no_pool_is_named(assignments, pools, message):
    with pytest.raises(AnsibleFilterError) as caught:
        assigned_to(assignments, pools)
    assert message in str(caught.value)
