# SPDX-License-Identifier: Apache-2.0
"""ip_pools against a real API server. `cluster.apply` also holds check mode against the run, and runs a second time."""

from __future__ import annotations

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


def test_a_removed_pool_takes_its_empty_blocks_and_the_claims_on_them_along(either_cluster):
    either_cluster.apply("ip_pools", pools=RACKS)
    either_cluster.create_block("10.244.3.0/26")
    either_cluster.create_block("10.244.64.0/26", holders=["payments/web"])
    result = either_cluster.apply("ip_pools", pools=[{"name": "rack-1"}, {"name": "never-was"}], state="absent")
    assert [(each["verb"], each["kind"]) for each in result["operations"]] == [
        ("patch", "IPPool"),
        ("patch", "BlockAffinity"),
        ("delete", "IPAMBlock"),
        ("delete", "BlockAffinity"),
        ("delete", "IPPool"),
    ]
    assert either_cluster.pools() == ["rack-2"]
    assert either_cluster.objects.names(either_cluster.path("ipamblocks")) == ["10-244-64-0-26"]
    assert either_cluster.objects.names(either_cluster.path("blockaffinities")) == ["node-1-10-244-64-0-26"]


def test_a_pool_with_addresses_in_use_is_not_removed_and_the_pods_are_named(cluster):
    cluster.apply("ip_pools", pools=RACKS)
    cluster.create_block("10.244.3.0/26", holders=["payments/web-0", "payments/web-1"])
    message = cluster.refused("ip_pools", pools=[{"name": "rack-1"}], state="absent")["msg"]
    for part in (
        "pool rack-1",
        "2 addresses of 10.244.0.0/18",
        "pod payments/web-0, pod payments/web-1",
        "10.244.3.0/26",
    ):
        assert part in message


def test_absent_has_nothing_to_do_where_the_cluster_serves_no_pools(empty_cluster):
    result = empty_cluster.apply("ip_pools", pools=[{"name": "any"}], state="absent")
    assert result["changed"] is False


def test_present_says_what_is_missing_where_the_cluster_serves_no_pools(empty_cluster):
    message = empty_cluster.refused("ip_pools", pools=RACKS)["msg"]
    assert "crd.projectcalico.org/v1" in message and "projectcalico.org/v3" in message


def test_a_hundred_pools_are_one_task(cluster):
    pools = [{"name": f"pool-{index}", "cidr": f"10.244.{index}.0/24"} for index in range(100)]
    assert len(cluster.apply("ip_pools", pools=pools)["operations"]) == 100
