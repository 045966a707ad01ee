# SPDX-License-Identifier: Apache-2.0
"""namespace_pools by label selectors, purging, and pools that are only declared, against a real API server."""

from __future__ import annotations

import pytest
from support.faulty_proxy import FaultyProxy

V4, V6 = "cni.projectcalico.org/ipv4pools", "cni.projectcalico.org/ipv6pools"
FAMILIES = "cni.projectcalico.org/ipFamilies"


@pytest.fixture
def pools(cluster):
    """Two pools, and the cluster that they are in."""
    cluster.create_pools(("a", "10.244.0.0/18"), ("b", "10.244.64.0/18"))
    return cluster


@pytest.fixture
def tenant(request):
    """A label that no other test's namespaces have."""
    return f"test={request.node.name.partition('[')[0][-50:]}"


def create(cluster, *tags, annotations=None):
    """A namespace with these labels; its name."""
    labels = dict(tag.split("=") for tag in tags)
    metadata = {"generateName": "tenant-", "labels": labels, "annotations": annotations or {}}
    return cluster.objects.create("/api/v1/namespaces", {"metadata": metadata})["metadata"]["name"]


def annotations(cluster, name):
    return cluster.annotations(f"/api/v1/namespaces/{name}")


def errors(result):
    return [(each["object"], each["field"], each["value"]) for each in result["errors"]]


def test_namespaces_are_assigned_by_label_and_a_name_wins(pools, tenant):
    front, back, special = (create(pools, tenant, f"tier={tier}") for tier in ("front", "back", "front"))
    items = [
        {"label_selectors": [tenant, "tier=front"], "ipv4_pools": ["a"]},
        {"label_selectors": [f"{tenant},tier notin (front)"], "ipv4_pools": ["b"], "families": ["IPv4"]},
        {"name": special, "ipv4_pools": ["b", "a"]},
    ]
    result = pools.apply("namespace_pools", namespaces=items)
    assert [operation["name"] for operation in result["operations"]] == sorted([front, back, special])
    assert annotations(pools, front) == {V4: '["a"]'}
    assert annotations(pools, back) == {V4: '["b"]', FAMILIES: '["IPv4"]'}
    assert annotations(pools, special) == {V4: '["b","a"]'}


def test_selectors_that_disagree_are_refused_before_anything_is_written(pools, tenant):
    name = create(pools, tenant, "tier=front")
    items = [
        {"label_selectors": [tenant], "ipv4_pools": ["a"]},
        {"label_selectors": [tenant, "tier=front"], "ipv4_pools": ["b"]},
    ]
    result = pools.refused("namespace_pools", namespaces=items)
    assert errors(result) == [(f"namespace {name}", "label_selectors", [tenant, "tier=front"])]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"ipv4_pools": ["a"]}, "one of the following is required: name, label_selectors"),
        ({"name": "n", "label_selectors": ["a=b"]}, "parameters are mutually exclusive: name|label_selectors"),
        ({"name": "n", "families": ["ipv4"]}, "value of families must be one or more of: IPv4, IPv6"),
    ],
)
def test_an_item_is_for_a_name_or_for_selectors(pools, item, message):
    result = pools.run("namespace_pools", namespaces=[item])
    assert result["failed"] and message in result["msg"]


def test_what_is_no_selector_is_refused_with_all_other_problems(pools):
    items = [{"label_selectors": ["tier in front"], "ipv4_pools": ["gone"]}]
    result = pools.refused("namespace_pools", namespaces=items, purge=True, label_selectors=["=x"])
    subject = "namespaces with ['tier in front']"
    assert errors(result) == [
        ("option label_selectors", "label_selectors", "=x"),
        (subject, "ipv4_pools", "gone"),
        (subject, "label_selectors", ["tier in front"]),
    ]


def test_absent_takes_the_annotations_away_from_what_matches(pools, tenant):
    name = create(pools, tenant, annotations={V4: '["a"]', FAMILIES: "malformed", "theirs": "kept"})
    pools.apply("namespace_pools", namespaces=[{"label_selectors": [tenant]}], state="absent")
    assert annotations(pools, name) == {"theirs": "kept"}


def test_purging_needs_a_scope_and_stays_in_it(pools, tenant):
    old = {V4: '["a"]', V6: '["gone"]', FAMILIES: '["IPv4"]', "theirs": "kept"}
    listed, forgotten, foreign = (
        create(pools, tenant),
        create(pools, tenant, annotations=old),
        create(pools, annotations=old),
    )
    options = {"namespaces": [{"name": listed, "ipv4_pools": ["a"]}], "purge": True}
    result = pools.run("namespace_pools", **options)
    assert result["failed"] and "label_selectors" in result["msg"]
    result = pools.apply("namespace_pools", **options, label_selectors=[tenant])
    assert result["operations"] == [
        {"verb": "patch", "kind": "Namespace", "name": name} for name in sorted([listed, forgotten])
    ]
    assert annotations(pools, forgotten) == {"theirs": "kept"}
    assert annotations(pools, foreign) == old
    [before] = (each for each in result["before"] if each["name"] == forgotten)
    assert before == {"name": forgotten, "ipv4_pools": ["a"], "ipv6_pools": ["gone"], "families": ["IPv4"]}


def test_an_empty_scope_means_every_namespace(pools, tenant):
    name = create(pools, tenant, annotations={V4: '["a"]'})
    result = pools.run("namespace_pools", namespaces=[], purge=True, label_selectors=[], check=True)
    assert {"verb": "patch", "kind": "Namespace", "name": name} in result["operations"]


def test_namespaces_are_listed_once_however_many_items_there_are(pools, tenant):
    create(pools, tenant)
    items = [{"label_selectors": [tenant, f"tier={tier}"], "ipv4_pools": ["a"]} for tier in range(5)]
    with FaultyProxy(pools.plane) as proxy:
        connection = {"host": proxy.url, "api_key": pools.plane.token}
        pools.run("namespace_pools", environ={}, **connection, namespaces=items, purge=True, label_selectors=[tenant])
    assert proxy.requests == [
        ("GET", f"/apis/{pools.group}/ippools?limit=500"),
        ("GET", "/api/v1/namespaces?limit=500"),
    ]


NEW = {"name": "new", "cidr": "10.244.128.0/18", "node_selector": "all()", "labels": {"any": "key is fine"}}


def test_pools_that_are_declared_elsewhere_count_even_where_none_is_served(empty_cluster):
    name = create(empty_cluster)
    options = {"namespaces": [{"name": name, "ipv4_pools": ["new"]}]}
    refused = empty_cluster.refused("namespace_pools", **options)
    assert errors(refused) == [("the cluster", "pools", None), (f"namespace {name}", "ipv4_pools", "new")]
    assert "it serves IPPool neither in crd.projectcalico.org/v1 nor in projectcalico.org/v3" in refused["msg"]
    assert empty_cluster.run("namespace_pools", **options, declared_pools=[NEW], check=True)["changed"]


def test_a_pool_that_is_declared_as_disabled_counts_as_disabled(pools):
    name = create(pools)
    declared = [{"name": "a", "cidr": "10.244.0.0/18", "disabled": "yes"}]
    options = {"namespaces": [{"name": name, "ipv4_pools": ["a"]}]}
    result = pools.refused("namespace_pools", **options, declared_pools=declared)
    assert "pool 'a' cannot be used: it is disabled" in result["msg"]


def test_a_declared_pool_that_makes_no_sense_is_named(pools):
    for item, message in (
        ({"cidr": "10.0.0.0/8"}, "name"),
        ({"name": "x", "block_size": "big"}, "declared_pools: x: "),
    ):
        result = pools.run("namespace_pools", namespaces=[], declared_pools=[item])
        assert result["failed"] and message in result["msg"]
