# SPDX-License-Identifier: Apache-2.0
"""ip_reservations against a real API server. `cluster.apply` also holds check mode against the run, and runs twice."""

from __future__ import annotations

import pytest
from support.faulty_proxy import Fault, FaultyProxy

OWNER = {"app.kubernetes.io/managed-by": "podnet.ipam"}
APPLIANCES = {"name": "appliances", "reserved_cidrs": ["10.244.1.9", "10.244.1.7", "fd00:10:244::7"]}


def reservation(cluster, name):
    return cluster.objects.get(cluster.path("ipreservations", name))


def names(cluster):
    return cluster.objects.names(cluster.path("ipreservations"))


@pytest.fixture
def pools(either_cluster):
    either_cluster.create_pools(("four", "10.244.0.0/18"), ("six", "fd00:10:244::/64"))
    return either_cluster


def test_a_reservation_is_created_with_ranges_in_canonical_form(pools):
    result = pools.apply("ip_reservations", reservations=[{**APPLIANCES, "labels": {"team": "x"}}])
    assert result["operations"] == [{"verb": "create", "kind": "IPReservation", "name": "appliances"}]
    canonical = ["10.244.1.7/32", "10.244.1.9/32", "fd00:10:244::7/128"]
    assert result["after"] == [{"name": "appliances", "reserved_cidrs": canonical, "labels": {"team": "x"}}]
    stored = reservation(pools, "appliances")
    assert stored["spec"] == {"reservedCIDRs": canonical}
    assert stored["metadata"]["labels"] == {"team": "x", **OWNER}
    assert "warnings" not in result


def test_another_order_or_spelling_is_no_difference_and_a_missing_entry_is_drift(pools):
    pools.apply("ip_reservations", reservations=[APPLIANCES])
    spelled = ["10.244.1.7", "FD00:10:244:0::7/128", "10.244.1.9/32"]
    path = pools.path("ipreservations", "appliances")
    pools.objects.patch(path, {"spec": {"reservedCIDRs": spelled}})
    assert not pools.apply("ip_reservations", reservations=[APPLIANCES])["changed"]
    assert reservation(pools, "appliances")["spec"]["reservedCIDRs"] == spelled
    pools.objects.patch(path, {"spec": {"reservedCIDRs": spelled[:2]}})
    result = pools.apply("ip_reservations", reservations=[APPLIANCES])
    assert result["operations"] == [{"verb": "patch", "kind": "IPReservation", "name": "appliances"}]
    before, after = (result["diff"][side]["appliances"]["reserved_cidrs"] for side in ("before", "after"))
    assert set(after) - set(before) == {"10.244.1.9/32"}


def test_removal_and_purge_touch_what_is_meant_and_nothing_else(pools):
    pools.create("IPReservation", "ipreservations", "theirs", {"reservedCIDRs": ["10.244.9.0/28"]})
    items = [APPLIANCES, {"name": "later", "reserved_cidrs": ["10.244.2.0/28"]}]
    pools.apply("ip_reservations", reservations=items)
    result = pools.apply("ip_reservations", reservations=items[1:], purge=True)
    assert result["operations"] == [{"verb": "delete", "kind": "IPReservation", "name": "appliances"}]
    assert names(pools) == ["later", "theirs"]
    pools.apply("ip_reservations", reservations=[{"name": "later"}, {"name": "never-was"}], state="absent")
    assert names(pools) == ["theirs"]
    pools.apply("ip_reservations", reservations=[], purge=True, label_selectors=["!app.kubernetes.io/managed-by"])
    assert names(pools) == []


def test_warnings_name_ranges_without_pool_full_pools_and_addresses_in_use(pools):
    pools.create_block("10.244.1.0/26", holders=["payments/web-0", "payments/web-1"])
    items = [{"name": "much", "reserved_cidrs": ["10.244.1.1", "10.244.32.0/19", "10.99.0.0/24"]}]
    predicted = pools.run("ip_reservations", reservations=items, check=True)
    result = pools.run("ip_reservations", reservations=items)
    assert pools.warnings(predicted) == pools.warnings(result)
    useless, full, taken = pools.warnings(result)
    assert useless == "reservation much: 10.99.0.0/24 lies in no pool, so that it reserves nothing"
    assert full.startswith("pool four: 50 % of its addresses are reserved; Calico recommends at most 10 %")
    assert taken.startswith("reservation much: 1 address of 10.244.1.1/32 in use, by pod payments/web-1: a reservation")
    again = pools.run("ip_reservations", reservations=items)
    assert pools.warnings(again) == [useless, full]


def test_an_unchanged_run_reads_pools_and_reservations_and_nothing_else(cluster):
    cluster.create_pools(("four", "10.244.0.0/18"))
    cluster.apply("ip_reservations", reservations=[APPLIANCES])
    with FaultyProxy(cluster.plane) as proxy:
        cluster.run("ip_reservations", reservations=[APPLIANCES], **cluster.through(proxy))
    paths = [cluster.path(plural) + "?limit=500" for plural in ("ippools", "ipreservations")]
    assert proxy.requests == [("GET", path) for path in paths]


def test_a_reservation_that_changes_meanwhile_is_read_again(cluster):
    cluster.create_pools(("four", "10.244.0.0/18"))
    cluster.create("IPReservation", "ipreservations", "appliances", {"reservedCIDRs": ["10.244.1.7/32"]})

    def meddle():
        path = cluster.path("ipreservations", "appliances")
        cluster.objects.patch(path, {"spec": {"reservedCIDRs": ["10.244.3.3/32"]}})

    item = {"name": "appliances", "reserved_cidrs": ["10.244.1.8"]}
    with FaultyProxy(cluster.plane, Fault("PATCH", "/appliances", meanwhile=meddle)) as proxy:
        result = cluster.run("ip_reservations", reservations=[item], **cluster.through(proxy))
    assert len(result["operations"]) == 1
    assert reservation(cluster, "appliances")["spec"]["reservedCIDRs"] == ["10.244.1.8/32"]


def test_a_failure_midway_says_what_was_done_and_what_is_left_and_running_again_finishes_it(cluster):
    cluster.create_pools(("four", "10.244.0.0/18"))
    cluster.create("IPReservation", "ipreservations", "old", {"reservedCIDRs": ["10.244.1.7/32"]})
    items = [{"name": "old", "reserved_cidrs": ["10.244.1.8"]}, {"name": "new", "reserved_cidrs": ["10.244.1.7"]}]
    with FaultyProxy(cluster.plane, Fault("PATCH", "/old", 503, times=99, retry_after=0)) as proxy:
        result = cluster.run("ip_reservations", reservations=items, **cluster.through(proxy))
    assert result["failed"] and [each["name"] for each in result["operations"]] == ["new"]
    assert result["failed_operation"]["name"] == "old" and result["operations_left"] == []
    assert [each["name"] for each in cluster.apply("ip_reservations", reservations=items)["operations"]] == ["old"]


def test_what_moves_is_not_given_up_before_it_is_taken_over(cluster):
    cluster.create_pools(("four", "10.244.0.0/18"))
    for name, entries in (("from", ["10.244.1.7", "10.244.1.8"]), ("to", ["10.244.1.9"])):
        cluster.create("IPReservation", "ipreservations", name, {"reservedCIDRs": [f"{each}/32" for each in entries]})
    moved = [
        {"name": "from", "reserved_cidrs": ["10.244.1.8"]},
        {"name": "to", "reserved_cidrs": ["10.244.1.7", "10.244.1.9"]},
    ]
    with FaultyProxy(cluster.plane, Fault("PATCH", "/to", 503, times=99, retry_after=0)) as proxy:
        result = cluster.run("ip_reservations", reservations=moved, **cluster.through(proxy))
    assert result["failed_operation"]["name"] == "to" and result["operations"] == []
    assert [each["name"] for each in result["operations_left"]] == ["from"]
    cluster.apply("ip_reservations", reservations=moved)
    swapped = [
        {"name": "from", "reserved_cidrs": ["10.244.1.7"]},
        {"name": "to", "reserved_cidrs": ["10.244.1.8", "10.244.1.9"]},
    ]
    result = cluster.apply("ip_reservations", reservations=swapped)
    assert [each["name"] for each in result["operations"]] == ["from", "to", "from", "to"]


def test_a_cluster_without_reservations_has_none_to_remove_and_cannot_have_any(empty_cluster):
    assert not empty_cluster.apply("ip_reservations", reservations=[{"name": "any"}], state="absent")["changed"]
    message = empty_cluster.refused("ip_reservations", reservations=[APPLIANCES])["msg"]
    assert "it serves IPReservation neither in crd.projectcalico.org/v1 nor" in message
