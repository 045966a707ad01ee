# SPDX-License-Identifier: Apache-2.0
"""What modules make of a busy API server, of lost answers, and of others who write at the same time."""

from __future__ import annotations

import time

import pytest
from support.faulty_proxy import Fault, FaultyProxy

POD_SPEC = {"containers": [{"name": "main", "image": "example.com/workload:1"}]}
RACKS = [{"name": f"rack-{index}", "cidr": f"10.244.{index}.0/24"} for index in range(4)]


def run(cluster, *faults, module="ip_pools", **options):
    """(result, proxy) of a run through a proxy with these faults."""
    with FaultyProxy(cluster.plane, *faults) as proxy:
        connection = {"host": proxy.url, "api_key": cluster.plane.token}
        return cluster.run(module, environ={}, **connection, **options), proxy


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(cluster, status):
    faults = [Fault("GET", "/ippools", status, times=2), Fault("POST", "/ippools", status, retry_after=0)]
    result, proxy = run(cluster, *faults, pools=RACKS)
    assert len(result["operations"]) == 4 and cluster.pools() == [pool["name"] for pool in RACKS]
    assert len(proxy.writes()) == 5


def test_a_server_that_stays_busy_is_a_failure_that_says_what_was_done(cluster):
    cluster.create_pools(*((pool["name"], pool["cidr"]) for pool in RACKS), natOutgoing=True)
    result, _proxy = run(cluster, Fault("PATCH", "/rack-2", 503, times=99, retry_after=0), pools=RACKS)
    assert result["failed"] and result["changed"]
    assert "503" in result["msg"] and "rack-2" in result["msg"]
    assert [each["name"] for each in result["operations"]] == ["rack-0", "rack-1", "rack-3"]
    assert result["failed_operation"] == {"verb": "patch", "kind": "IPPool", "name": "rack-2"}
    assert result["operations_left"] == []
    rest, _proxy = run(cluster, pools=RACKS)
    assert [each["name"] for each in rest["operations"]] == ["rack-2"]


def test_what_follows_a_failed_write_is_left_and_said_to_be(cluster):
    cluster.create_pools(("rack-0", "10.244.0.0/24"), natOutgoing=True)
    result, _proxy = run(cluster, Fault("PATCH", "/rack-0", 503, times=99, retry_after=0), pools=RACKS)
    assert result["failed"] and not result["changed"]
    assert result["failed_operation"]["name"] == "rack-0"
    assert [each["name"] for each in result["operations_left"]] == ["rack-1", "rack-2", "rack-3"]
    assert cluster.pools() == ["rack-0"]


@pytest.mark.parametrize("carried_out", [False, True])
def test_a_connection_that_is_lost_is_made_again(cluster, carried_out):
    cluster.create_pools(("rack-0", "10.244.0.0/24"), natOutgoing=True)
    writes = [Fault("POST", "/ippools", reset=True, carried_out=carried_out)]
    writes += [Fault("PATCH", "/rack-0", reset=True, carried_out=carried_out)]
    result, proxy = run(cluster, Fault("GET", "/ipamblocks", reset=True), *writes, pools=RACKS)
    assert [each["verb"] for each in result["operations"]] == ["patch", "create", "create", "create"]
    assert len(proxy.writes()) == 4 + len(writes) and cluster.pools() == [pool["name"] for pool in RACKS]


def test_a_server_that_has_not_answered_yet_is_not_asked_again(cluster):
    result, proxy = run(cluster, Fault("GET", "/ippools", reset=True), pools=RACKS)
    assert "no answer from" in result["msg"] and len(proxy.requests) == 1


def test_a_create_whose_answer_was_lost_counts_as_done(cluster):
    result, _proxy = run(cluster, Fault("POST", "/ippools", 504, carried_out=True), pools=RACKS)
    assert [each["name"] for each in result["operations"]] == [pool["name"] for pool in RACKS]
    assert cluster.pools() == [pool["name"] for pool in RACKS]


def test_a_pod_whose_answer_was_lost_counts_as_created_whatever_defaults_it_got(cluster):
    cluster.create_pools(("a", "10.244.0.0/24"))
    namespace = cluster.create_namespace()
    definition = {"spec": POD_SPEC}
    item = {"kind": "Pod", "namespace": namespace, "name": "probe", "ipv4_pools": ["a"], "definition": definition}
    lost = Fault("POST", "/pods", 504, carried_out=True)
    result, _proxy = run(cluster, lost, module="workload_pools", workloads=[item])
    assert result["operations"] == [{"verb": "create", "kind": "Pod", "namespace": namespace, "name": "probe"}]


def test_a_patch_whose_answer_was_lost_counts_as_done(cluster):
    cluster.create_pools(("rack-0", "10.244.0.0/24"), natOutgoing=True)
    result, _proxy = run(cluster, Fault("PATCH", "/rack-0", 504, carried_out=True), pools=RACKS[:1])
    assert result["operations"] == [{"verb": "patch", "kind": "IPPool", "name": "rack-0"}]
    assert cluster.pool("rack-0")["spec"]["natOutgoing"] is False


def test_a_patch_whose_answer_was_lost_and_that_someone_took_back_is_made_again(cluster):
    cluster.create_pools(("rack-0", "10.244.0.0/24"), natOutgoing=True)

    def take_back():
        cluster.objects.patch(cluster.path("ippools", "rack-0"), {"spec": {"natOutgoing": True}})

    faults = [Fault("PATCH", "/rack-0", 504, carried_out=True), Fault("PATCH", "/rack-0", meanwhile=take_back)]
    result, _proxy = run(cluster, *faults, pools=RACKS[:1])
    assert result["operations"] == [{"verb": "patch", "kind": "IPPool", "name": "rack-0"}]
    assert cluster.pool("rack-0")["spec"]["natOutgoing"] is False


def test_a_delete_whose_answer_was_lost_counts_as_done(cluster):
    cluster.create_pools(("rack-0", "10.244.0.0/24"))
    cluster.create_block("10.244.0.0/26")
    paths = ("/rack-0", "/10-244-0-0-26", "/node-1-10-244-0-0-26")
    faults = [Fault(verb, path, 504, carried_out=True) for path in paths for verb in ("PATCH", "PUT", "DELETE")]
    expected = run(cluster, pools=RACKS[:1], state="absent", check=True)[0]["operations"]
    result, _proxy = run(cluster, *faults, pools=RACKS[:1], state="absent")
    assert result["operations"] == expected and cluster.pools() == []


def test_a_delete_that_someone_else_made_is_not_called_ours(cluster):
    cluster.create_pools(("rack-0", "10.244.0.0/24"), disabled=True)

    def delete():
        cluster.objects.delete(cluster.path("ippools", "rack-0"))

    result, _proxy = run(cluster, Fault("DELETE", "/rack-0", meanwhile=delete), pools=RACKS[:1], state="absent")
    assert not result.get("failed") and result["operations"] == []


def test_a_pool_of_which_nobody_can_tell_whether_it_is_in_use_stays(cluster):
    """As of Calico with a store of its own, of which its API server shows pools and no blocks."""
    cluster.create_pools(("rack-0", "10.244.0.0/24"))
    cluster.create_block("10.244.0.0/26")
    result, proxy = run(cluster, Fault("GET", "/ipamblocks", 404, times=9), pools=RACKS[:1], state="absent")
    assert "the cluster does not serve IPAMBlocks" in result["msg"] and proxy.writes() == []


def test_an_eviction_whose_answer_was_lost_counts_as_done(cluster):
    cluster.create_pools(("a", "10.244.0.0/24"), ("b", "10.244.1.0/24"))
    namespace = cluster.create_namespace()
    cluster.create_workload("ReplicaSet", namespace, "web", {"cni.projectcalico.org/ipv4pools": '["a"]'}, replicas=1)
    cluster.create_pod(namespace, "web", address="10.244.1.9")
    item = {"kind": "ReplicaSet", "namespace": namespace, "name": "web", "ipv4_pools": ["a"]}
    lost = Fault("POST", "/eviction", 504, carried_out=True)
    result, _proxy = run(cluster, lost, module="workload_pools", workloads=[item], rollout="if_stale")
    assert [each["verb"] for each in result["operations"]] == ["evict"]


def test_a_server_is_asked_again_no_earlier_than_it_says(cluster):
    started = time.monotonic()
    result, _proxy = run(cluster, Fault("POST", "/ippools", 429, retry_after=2), pools=RACKS[:1])
    assert result["changed"] and time.monotonic() - started >= 2


def test_a_server_that_asks_for_more_patience_than_there_is_is_not_asked_again(cluster):
    result, proxy = run(cluster, Fault("POST", "/ippools", 503, times=9, retry_after=121), pools=RACKS[:1])
    assert result["failed"] and "503" in result["msg"] and len(proxy.writes()) == 1


def test_a_pool_that_changes_between_reading_and_writing_is_read_again(cluster):
    cluster.create_pools(("rack-0", "10.244.0.0/24"), natOutgoing=True)

    def disable():
        cluster.objects.patch(cluster.path("ippools", "rack-0"), {"spec": {"disabled": True}})

    result, _proxy = run(cluster, Fault("PATCH", "/rack-0", meanwhile=disable), pools=RACKS[:1])
    assert result["operations"] == [{"verb": "patch", "kind": "IPPool", "name": "rack-0"}]
    spec = cluster.pool("rack-0")["spec"]
    assert (spec["natOutgoing"], spec["disabled"]) == (False, False)


def test_a_pool_that_someone_else_makes_first_is_not_called_ours(cluster):
    def create():
        cluster.create_pools(("rack-0", "10.244.0.0/24"))

    result, _proxy = run(cluster, Fault("POST", "/ippools", meanwhile=create), pools=RACKS[:1])
    assert (result["changed"], result["operations"]) == (False, [])


def test_an_address_assigned_while_its_pool_is_removed_stops_the_removal(cluster):
    cluster.create_pools(("rack-0", "10.244.0.0/24"))

    def assign():
        cluster.create_block("10.244.0.0/26", holders=["payments/late"])

    fault = Fault("PATCH", "/ippools/rack-0", meanwhile=assign)
    result, _proxy = run(cluster, fault, pools=RACKS[:1], state="absent")
    assert result["failed"] and "pod payments/late" in result["msg"] and "it is disabled" in result["msg"]
    assert result["operations"] == [{"verb": "patch", "kind": "IPPool", "name": "rack-0"}]
    assert cluster.pools() == ["rack-0"]


def test_an_address_assigned_in_the_very_last_moment_stops_the_removal(cluster):
    cluster.create_pools(("rack-0", "10.244.0.0/24"))
    cluster.create_block("10.244.0.0/26")
    path = cluster.path("ipamblocks", "10-244-0-0-26")

    def assign():
        attributes = [{"handle_id": "net.x", "secondary": {"namespace": "payments", "pod": "late"}}]
        allocations = [0] + [None] * 63
        cluster.objects.patch(path, {"spec": {"attributes": attributes, "allocations": allocations}})

    fault = Fault("PUT", "/10-244-0-0-26", meanwhile=assign)
    result, _proxy = run(cluster, fault, pools=RACKS[:1], state="absent")
    assert result["failed"] and "pod payments/late" in result["msg"]
    assert cluster.pools() == ["rack-0"] and cluster.objects.exists(path)


def test_a_read_that_fails_between_writes_says_what_is_left(cluster):
    cluster.create_pools(("rack-0", "10.244.0.0/24"))
    cluster.create_block("10.244.0.0/26")
    disabled = Fault("PATCH", "/ippools/rack-0")
    with FaultyProxy(cluster.plane, disabled) as proxy:
        failure = Fault("GET", "/ipamblocks", 503, times=99, retry_after=0)
        disabled.meanwhile = lambda: proxy.faults.append(failure)
        result = cluster.run("ip_pools", pools=RACKS[:1], state="absent", **cluster.through(proxy))
    assert result["failed"] and "503" in result["msg"] and "failed_operation" not in result
    assert result["operations"] == [{"verb": "patch", "kind": "IPPool", "name": "rack-0"}]
    left = [f"{each['verb']} {each['kind']}" for each in result["operations_left"]]
    assert left == ["patch BlockAffinity", "delete IPAMBlock", "delete BlockAffinity", "delete IPPool"]
    assert cluster.run("ip_pools", pools=RACKS[:1], state="absent")["changed"] and cluster.pools() == []


def test_an_unchanged_run_reads_each_kind_once_and_check_mode_never_writes(cluster):
    cluster.apply("ip_pools", pools=RACKS)
    result, proxy = run(cluster, pools=RACKS)
    assert not result["changed"]
    group = f"/apis/{cluster.group}"
    assert ("GET", f"{group}/ippools?limit=500") in proxy.requests
    result, proxy = run(cluster, pools=[{"name": "new", "cidr": "10.244.9.0/24"}], purge=True, check=True)
    assert len(result["operations"]) == 9 and proxy.writes() == []


def test_lists_are_read_page_by_page_and_again_when_the_server_forgot_where_it_was(cluster):
    many = [(f"pool-{index}", f"10.244.{index // 64}.{index % 64 * 4}/30") for index in range(520)]
    for name, cidr in many:
        cluster.create_pools((name, cidr), blockSize=32)
    result, proxy = run(cluster, Fault("GET", "/ippools", 410), module="ipam_info")
    assert len(result["pools"]) == 520
    lists = [path for _method, path in proxy.requests if "/ippools?" in path]
    assert [("continue=" in path) for path in lists] == [False, False, True]


def test_a_changed_template_is_written_though_its_status_changes_all_the_time(cluster):
    cluster.create_pools(("a", "10.244.0.0/24"))
    namespace = cluster.create_namespace()
    path = cluster.create_workload("Deployment", namespace, "web")

    def report():
        cluster.objects.patch_status(path, {"observedGeneration": 1})

    item = {"kind": "Deployment", "namespace": namespace, "name": "web", "ipv4_pools": ["a"]}
    result, proxy = run(cluster, Fault("PATCH", "/web", meanwhile=report), module="workload_pools", workloads=[item])
    assert result["changed"] and len(proxy.writes()) == 1
