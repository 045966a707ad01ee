# SPDX-License-Identifier: Apache-2.0
"""ip_pools against a real API server. `cluster.apply` also holds check mode against the run, and runs a second time."""

from __future__ import annotations

import time

import pytest
from support.cluster_objects import GROUPS
from support.faulty_proxy import FaultyProxy

from .conftest import emptied

RACKS = [
    {"name": "rack-2", "cidr": "10.244.64.0/18", "node_selector": "rack == '2'"},
    {"name": "rack-1", "cidr": "10.244.0.0/18", "node_selector": "rack == '1'"},
]
OWNER = ("app.kubernetes.io/managed-by", "podnet.ipam")


def test_pools_are_created_in_order_of_their_names_with_the_owner_label(either_cluster):
    result = either_cluster.apply("ip_pools", pools=RACKS)
    assert result["operations"] == [{"verb": "create", "kind": "IPPool", "name": name} for name in ("rack-1", "rack-2")]
    assert result["before"] == []
    assert [pool["name"] for pool in result["after"]] == ["rack-1", "rack-2"]
    pool = either_cluster.pool("rack-1")
    assert OWNER in pool["metadata"]["labels"].items()
    assert pool["spec"] == {
        "cidr": "10.244.0.0/18",
        "blockSize": 26,
        "nodeSelector": "rack == '1'",
        "ipipMode": "Never",
        "vxlanMode": "Never",
        "natOutgoing": False,
    }


def test_a_result_tells_the_pools_that_change_and_no_others(cluster):
    cluster.apply("ip_pools", pools=RACKS)
    assert cluster.run("ip_pools", pools=RACKS)["after"] == []
    narrower = [RACKS[0], {**RACKS[1], "node_selector": "rack == '9'"}]
    result = cluster.apply("ip_pools", pools=narrower)
    assert [pool["node_selector"] for pool in result["before"] + result["after"]] == ["rack == '1'", "rack == '9'"]


def test_the_diff_shows_a_new_pool_with_every_default_filled_in(cluster):
    result = cluster.apply("ip_pools", pools=[{"name": "v6", "cidr": "fd00:10:244:0::/64"}])
    assert result["diff"] == {
        "before": {},
        "after": {
            "v6": {
                "name": "v6",
                "cidr": "fd00:10:244::/64",
                "block_size": 122,
                "node_selector": "all()",
                "namespace_selector": "",
                "nat_outgoing": False,
                "ipip_mode": "Never",
                "vxlan_mode": "Never",
                "disabled": False,
                "disable_bgp_export": False,
                "allowed_uses": ["Workload", "Tunnel"],
                "assignment_mode": "Automatic",
                "labels": {},
            }
        },
    }


def test_every_option_reaches_the_object(cluster):
    pool = {
        "name": "all-options",
        "cidr": "10.244.128.0/20",
        "block_size": 28,
        "node_selector": "has(rack)",
        "namespace_selector": "team == 'payments'",
        "nat_outgoing": True,
        "vxlan_mode": "CrossSubnet",
        "disabled": True,
        "disable_bgp_export": True,
        "allowed_uses": ["Workload"],
        "assignment_mode": "Manual",
        "labels": {"team": "payments"},
    }
    cluster.apply("ip_pools", pools=[pool])
    stored = cluster.pool("all-options")
    assert stored["metadata"]["labels"]["team"] == "payments"
    assert stored["spec"] == {
        "cidr": "10.244.128.0/20",
        "blockSize": 28,
        "nodeSelector": "has(rack)",
        "namespaceSelector": "team == 'payments'",
        "natOutgoing": True,
        "ipipMode": "Never",
        "vxlanMode": "CrossSubnet",
        "disabled": True,
        "disableBGPExport": True,
        "allowedUses": ["Workload"],
        "assignmentMode": "Manual",
    }


def test_drift_is_shown_and_corrected_exactly(either_cluster):
    either_cluster.apply("ip_pools", pools=RACKS)
    untouched = either_cluster.pool("rack-1")
    path = either_cluster.path("ippools", "rack-2")
    either_cluster.objects.patch(path, {"spec": {"natOutgoing": True, "nodeSelector": "all()"}})
    result = either_cluster.apply("ip_pools", pools=RACKS)
    assert result["operations"] == [{"verb": "patch", "kind": "IPPool", "name": "rack-2"}]
    before, after = result["diff"]["before"]["rack-2"], result["diff"]["after"]["rack-2"]
    differing = {key: (before[key], after[key]) for key in after if before[key] != after[key]}
    assert differing == {"nat_outgoing": (True, False), "node_selector": ("all()", "rack == '2'")}
    assert list(result["diff"]["before"]) == ["rack-2"]
    assert either_cluster.pool("rack-2")["spec"]["nodeSelector"] == "rack == '2'"
    assert either_cluster.pool("rack-1") == untouched


def test_a_pool_that_someone_else_made_is_corrected_but_not_owned(cluster):
    cluster.create("IPPool", "ippools", "foreign", {"cidr": "10.244.0.0/18"})
    cluster.apply("ip_pools", pools=[{"name": "foreign", "cidr": "10.244.0.0/18", "disabled": True}])
    assert cluster.pool("foreign")["spec"]["disabled"] is True
    assert OWNER not in cluster.pool("foreign")["metadata"].get("labels", {}).items()


def test_labels_are_added_and_others_left_alone(either_cluster):
    either_cluster.create("IPPool", "ippools", "labelled", {"cidr": "10.244.0.0/18"})
    either_cluster.objects.patch(
        either_cluster.path("ippools", "labelled"), {"metadata": {"labels": {"theirs": "kept"}}}
    )
    either_cluster.apply("ip_pools", pools=[{"name": "labelled", "cidr": "10.244.0.0/18", "labels": {"ours": "added"}}])
    assert either_cluster.pool("labelled")["metadata"]["labels"] == {"theirs": "kept", "ours": "added"}


def test_purge_removes_only_pools_that_the_collection_made(either_cluster):
    either_cluster.create("IPPool", "ippools", "foreign", {"cidr": "10.244.192.0/24"})
    either_cluster.apply("ip_pools", pools=RACKS)
    result = either_cluster.apply("ip_pools", pools=RACKS[:1], purge=True)
    assert either_cluster.pools() == ["foreign", "rack-2"]
    assert [operation["verb"] for operation in result["operations"]] == ["patch", "delete"]
    assert result["diff"]["after"] == {} and list(result["diff"]["before"]) == ["rack-1"]


def test_a_purged_range_can_be_declared_anew_in_the_same_run(cluster):
    cluster.apply("ip_pools", pools=RACKS)
    cluster.create_block("10.244.3.0/26")
    whole = [{"name": "whole", "cidr": "10.244.0.0/16", "block_size": 27}]
    cluster.apply("ip_pools", pools=whole, purge=True)
    assert cluster.pools() == ["whole"]


def test_absent_has_nothing_to_do_where_the_cluster_serves_no_pools(empty_cluster):
    result = empty_cluster.apply("ip_pools", pools=[{"name": "any"}], state="absent")
    assert result["changed"] is False


def test_present_says_what_is_missing_where_the_cluster_serves_no_pools(empty_cluster):
    message = empty_cluster.refused("ip_pools", pools=RACKS)["msg"]
    assert "crd.projectcalico.org/v1" in message and "projectcalico.org/v3" in message


def test_purge_with_label_selectors_considers_what_they_choose(either_cluster):
    either_cluster.apply("ip_pools", pools=[{**pool, "labels": {"team": pool["name"]}} for pool in RACKS])
    either_cluster.create("IPPool", "ippools", "foreign", {"cidr": "10.244.192.0/24"})
    either_cluster.apply("ip_pools", pools=[], purge=True, label_selectors=["team in (rack-1, foreign)"])
    assert either_cluster.pools() == ["foreign", "rack-2"]
    either_cluster.apply("ip_pools", pools=[], purge=True, label_selectors=[])
    assert either_cluster.pools() == []


def test_a_pool_that_names_another_owner_can_be_adopted(either_cluster):
    either_cluster.create("IPPool", "ippools", "rack-1", {"cidr": "10.244.0.0/18"})
    path = either_cluster.path("ippools", "rack-1")
    either_cluster.objects.patch(path, {"metadata": {"labels": {OWNER[0]: "tigera-operator"}}})
    result = either_cluster.apply("ip_pools", pools=RACKS[1:], adopt=True)
    assert result["diff"]["before"]["rack-1"]["labels"] == {OWNER[0]: "tigera-operator"}
    assert result["diff"]["after"]["rack-1"]["labels"] == dict([OWNER])
    [warning] = either_cluster.warnings(result)
    assert "pool rack-1 belonged to tigera-operator" in warning
    assert OWNER in either_cluster.pool("rack-1")["metadata"]["labels"].items()
    either_cluster.apply("ip_pools", pools=[], purge=True)
    assert either_cluster.pools() == []


@pytest.fixture
def operator(cluster):
    """The Calico operator's Installation, which lists a pool of rack-1's range."""
    definitions, name = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "installations.operator.tigera.io"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    kind = {"kind": "Installation", "plural": "installations", "singular": "installation"}
    spec = {"group": "operator.tigera.io", "scope": "Cluster", "names": kind, "versions": [version]}
    cluster.objects.create(definitions, {"metadata": {"name": name}, "spec": spec})
    collection = "/apis/operator.tigera.io/v1/installations"
    try:
        cluster.wait_for(collection)
        network = {"calicoNetwork": {"ipPools": [{"cidr": "10.244.0.0/18"}]}}
        body = {"apiVersion": "operator.tigera.io/v1", "kind": "Installation", "metadata": {"name": "default"}}
        cluster.objects.create(collection, {**body, "spec": network})
        yield
    finally:
        cluster.objects.delete(f"{definitions}/{name}")
        while cluster.objects.exists(f"{definitions}/{name}"):
            time.sleep(0.05)


def test_a_pool_of_the_operators_installation_is_refused_or_adopted_and_read_only_to_be_changed(cluster, operator):
    cluster.create_pools(("rack-1", "10.244.0.0/18"), nodeSelector="all()")
    message = cluster.refused("ip_pools", pools=RACKS[1:])["msg"]
    assert "pool rack-1: adopt: it belongs to the Calico operator (its Installation default lists it)" in message
    unchanged = [{"name": "rack-1", "cidr": "10.244.0.0/18"}]
    with FaultyProxy(cluster.plane) as proxy:
        assert not cluster.run("ip_pools", pools=unchanged, **cluster.through(proxy))["changed"]
    assert proxy.requests == [("GET", cluster.path("ippools") + "?limit=500")]
    [warning] = cluster.warnings(cluster.apply("ip_pools", pools=RACKS[1:], adopt=True))
    assert "pool rack-1 belonged to the Calico operator" in warning
    cluster.apply("ip_pools", pools=unchanged)


def test_that_the_installation_may_not_be_read_is_told_where_there_may_be_one(cluster, request):
    cluster.create_pools(("rack-1", "10.244.0.0/18"))
    group = cluster.group.partition("/")[0]
    user = cluster.user({"apiGroups": [group], "resources": ["*"], "verbs": ["*"]})

    def warnings(**options):
        pool = {"name": "rack-1", "cidr": "10.244.0.0/18", **options}
        return cluster.warnings(cluster.apply("ip_pools", pools=[pool], **user))

    assert warnings(nat_outgoing=True) == []
    request.getfixturevalue("operator")
    [warning] = warnings(nat_outgoing=False)
    assert warning.startswith("whether these pools belong to the Calico operator was not checked, as its Installation")
    assert warning.endswith(": rack-1")


def test_a_thousand_pools_cost_two_pages_and_a_write_for_each_that_differs(cluster):
    pools = [{"name": f"pool-{index}", "cidr": f"10.244.{index // 4}.{index % 4 * 64}/26"} for index in range(1000)]
    assert len(cluster.run("ip_pools", pools=pools)["operations"]) == 1000
    pages = ["?limit=500", "?limit=500&continue="]

    def requests(**options):
        with FaultyProxy(cluster.plane) as proxy:
            result = cluster.run("ip_pools", pools=pools, **cluster.through(proxy), **options)
        lists = [path.removeprefix(cluster.path("ippools")) for method, path in proxy.requests if method == "GET"]
        assert [page.partition("continue=")[0] + "continue=" * ("continue=" in page) for page in lists] == pages
        return result["changed"], proxy.writes()

    assert requests() == (False, [])
    for index in (1, 500, 999):
        cluster.objects.patch(cluster.path("ippools", f"pool-{index}"), {"spec": {"natOutgoing": True}})
    assert requests(check=True) == (True, [])
    changed, writes = requests()
    assert changed
    assert sorted(writes) == [("PATCH", cluster.path("ippools", f"pool-{index}")) for index in (1, 500, 999)]


@pytest.fixture
def older_cluster(planes, tmp_path, server):
    """A cluster whose definition of IPPool is of before assignment modes and namespace selectors."""
    cluster = emptied(planes("v1 older"), GROUPS["v1"], tmp_path, server)
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/ippools.crd.projectcalico.org"
    definition = cluster.objects.get(path)
    fields = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    for field in ("assignmentMode", "namespaceSelector"):
        fields.pop(field, None)
    cluster.objects.request("PUT", path, definition)
    probe = {"cidr": "10.244.0.0/24", "assignmentMode": "Manual"}
    body = {"apiVersion": cluster.group, "kind": "IPPool", "metadata": {"name": "probe"}, "spec": probe}
    while cluster.objects.request("POST", f"{cluster.path('ippools')}?dryRun=All", body)["spec"].keys() == probe.keys():
        time.sleep(0.05)
    return cluster


PLAIN = {"name": "a", "cidr": "10.244.0.0/24"}


@pytest.mark.parametrize(
    ("field", "option"),
    [("assignmentMode", {"assignment_mode": "Manual"}), ("namespaceSelector", {"namespace_selector": "x == 'y'"})],
)
def test_a_field_that_the_cluster_does_not_know_is_found_before_the_first_write(older_cluster, field, option):
    older_cluster.create_pools(("b", "10.244.1.0/24"))
    for name in ("z", "b"):  # to create, and to patch
        pools = [PLAIN, {"name": name, "cidr": "10.244.1.0/24" if name == "b" else "10.244.2.0/24", **option}]
        result = older_cluster.run("ip_pools", pools=pools)
        assert result["failed"] and f'unknown field "spec.{field}"' in result["msg"]
        assert (result["changed"], result["operations"]) == (False, [])
        assert result["failed_operation"]["name"] == name
        assert [each["name"] for each in result["operations_left"]] == ["a"]
        assert older_cluster.pools() == ["b"]


def test_a_newer_field_is_tried_once_and_not_at_all_where_a_pool_has_it_or_nothing_else_is_written(cluster):
    def tried(*pools, **options):
        with FaultyProxy(cluster.plane) as proxy:
            assert cluster.run("ip_pools", pools=pools, **options, **cluster.through(proxy))["changed"]
        return sum("dryRun" in path for _method, path in proxy.requests)

    manual = [{"name": f"m-{index}", "cidr": f"10.244.{index}.0/24", "assignment_mode": "Manual"} for index in range(5)]
    assert tried(*manual[:2], check=True) == 0
    assert tried(*manual[:2]) == 1
    assert tried(*manual) == 0
    assert tried({**PLAIN, "name": "alone", "cidr": "10.244.9.0/24", "namespace_selector": "x == 'y'"}) == 0
