# SPDX-License-Identifier: Apache-2.0
"""Which namespace gets which assignment, and which loses its own. No API server."""

from __future__ import annotations

import pytest
from ansible_collections.podnet.ipam.plugins.module_utils._plan import labels, namespaces
from hypothesis import given
from hypothesis import strategies as st

V4, FAMILIES = "cni.projectcalico.org/ipv4pools", "cni.projectcalico.org/ipFamilies"
POOLS = {
    name: {"metadata": {"name": name}, "spec": {"cidr": cidr}}
    for name, cidr in (("a", "10.244.0.0/17"), ("b", "10.244.128.0/17"), ("six", "fd00:10:244::/64"))
}


def namespace(name, tags=(), annotations=None):
    own = dict(tag.split("=") for tag in tags)
    return {"metadata": {"name": name, "labels": own, "annotations": annotations or {}}}


def plan_of(items, existing, **options):
    observed = namespaces.Observed({each["metadata"]["name"]: each for each in existing}, POOLS)
    return namespaces.plan(namespaces.Desired(tuple(items), **options), observed)


def patches(plan):
    return {each.name: each.body["metadata"]["annotations"] for each in plan.operations}


def test_an_item_by_label_selectors_is_for_every_namespace_that_matches_all_of_them():
    existing = [namespace("one", ["team=x", "tier=1"]), namespace("two", ["team=x"]), namespace("three", ["tier=1"])]
    items = [{"label_selectors": ["team=x", "tier in (1,2)"], "ipv4_pools": ["a"]}]
    assert patches(plan_of(items, existing)) == {"one": {V4: '["a"]'}}
    everywhere = [{"label_selectors": [], "ipv4_pools": ["a"]}]
    assert patches(plan_of(everywhere, existing)).keys() == {"one", "two", "three"}


def test_a_name_wins_over_label_selectors_and_decides_alone():
    items = [
        {"label_selectors": ["team=x"], "ipv4_pools": ["a"], "families": ["IPv4"]},
        {"name": "one", "ipv4_pools": ["b"]},
    ]
    plan = plan_of(items, [namespace("one", ["team=x"]), namespace("two", ["team=x"])])
    assert plan.problems == []
    assert patches(plan) == {"one": {V4: '["b"]'}, "two": {V4: '["a"]', FAMILIES: '["IPv4"]'}}


def test_two_selectors_that_disagree_about_a_namespace_are_refused_by_both_names():
    items = [{"label_selectors": ["team=x"], "ipv4_pools": ["a"]}, {"label_selectors": ["tier=1"], "ipv4_pools": ["b"]}]
    existing = [namespace("both", ["team=x", "tier=1"]), namespace("one", ["team=x"])]
    [problem] = plan_of(items, existing).problems
    assert (problem.subject, problem.option) == ("namespace both", "label_selectors")
    assert problem.message == (
        "the items with label_selectors ['team=x'] and ['tier=1'] both match, and one says ipv4_pools ['a'], the other"
        " ipv4_pools ['b']: make the selectors exclude each other, or list both by name, which wins"
    )
    assert plan_of([*items, {"name": "both", "ipv4_pools": ["b"]}], existing).problems == []
    agreeing = [{**item, "ipv4_pools": ["a"]} for item in items]
    assert patches(plan_of(agreeing, existing)).keys() == {"both", "one"}


def test_a_selector_that_matches_nothing_gives_a_warning():
    plan = plan_of([{"label_selectors": ["team=typo"], "ipv4_pools": ["a"]}], [namespace("one", ["team=x"])])
    assert (plan.operations, plan.warnings) == ([], ["label_selectors ['team=typo']: no namespace matches"])


@pytest.mark.parametrize("scope", [False, True])
def test_what_is_no_label_selector_is_refused(scope):
    items = [] if scope else [{"label_selectors": ["team in x"], "ipv4_pools": ["a"]}]
    [problem] = plan_of(items, [], purge=scope, scope=("team in x",) if scope else None).problems
    assert problem.option == "label_selectors"
    assert "'team in x' is no label selector" in problem.message


def test_purging_takes_all_annotations_away_from_what_no_item_is_for_within_the_scope():
    old = {V4: '["b"]', FAMILIES: '["IPv4"]', "theirs": "kept"}
    existing = [
        namespace("listed", ["team=x"], old),
        namespace("matched", ["team=x", "tier=1"], old),
        namespace("forgotten", ["team=x"], old),
        namespace("plain", ["team=x"], {"theirs": "kept"}),
        namespace("elsewhere", (), old),
    ]
    items = [{"name": "listed"}, {"label_selectors": ["tier=1"]}]
    plan = plan_of(items, existing, purge=True, scope=("team=x",))
    assert patches(plan) == {"forgotten": {V4: None, FAMILIES: None}}
    assert plan.before.keys() == {"listed", "matched", "forgotten"}
    assert plan.after["forgotten"] == {"name": "forgotten", "ipv4_pools": None, "ipv6_pools": None, "families": None}
    assert patches(plan_of(items, existing, purge=True, scope=())).keys() == {"forgotten", "elsewhere"}
    assert patches(plan_of(items, existing)) == {}


def test_a_scope_without_purge_means_nothing():
    existing = [namespace("one", ["team=x"], {V4: '["b"]'})]
    assert patches(plan_of([], existing, scope=("team=x",))) == {}


def test_a_namespace_declared_twice_is_refused():
    [problem] = plan_of([{"name": "n"}, {"name": "n"}], [namespace("n")]).problems
    assert problem.subject == "namespace n"


TAGS = st.lists(st.sampled_from(["team=x", "team=y", "tier=1", "tier=2"]), max_size=2)
EXISTING = st.dictionaries(
    st.sampled_from("abcdef"), st.tuples(TAGS, st.sampled_from([{}, {V4: '["a"]'}, {V4: '["b"]', "other": "1"}]))
).map(lambda found: [namespace(name, *each) for name, each in found.items()])
ITEMS = st.lists(
    st.fixed_dictionaries(
        {"label_selectors": TAGS}, optional={"ipv4_pools": st.lists(st.sampled_from(["a", "b"]), unique=True)}
    )
    | st.fixed_dictionaries({"name": st.sampled_from("abc"), "ipv4_pools": st.just(["b"])}),
    max_size=3,
)


@given(ITEMS, EXISTING, st.booleans(), TAGS)
def test_a_plan_carried_out_reaches_the_declaration_and_leaves_nothing_to_do(items, existing, purge, scope):
    options = {"purge": purge, "scope": tuple(scope) if purge else None}
    plan = plan_of(items, existing, **options)
    if plan.problems:
        assert plan.operations == []
        return
    for each in existing:
        patch = patches(plan).get(each["metadata"]["name"], {})
        merged = {**each["metadata"]["annotations"], **patch}
        each["metadata"]["annotations"] = {key: value for key, value in merged.items() if value is not None}
    assert plan_of(items, existing, **options).operations == []
    for each in existing:
        name, own, annotations = each["metadata"]["name"], each["metadata"]["labels"], each["metadata"]["annotations"]
        by_name = [item for item in items if item.get("name") == name]
        matching = [item for item in items if "name" not in item and labels.matcher(item["label_selectors"])(own)]
        for item in by_name or matching:
            if item.get("ipv4_pools"):
                assert annotations[V4] == str(item["ipv4_pools"]).replace("'", '"').replace(" ", "")
        if purge and not by_name and not matching and labels.matcher(scope)(own):
            assert V4 not in annotations
