# SPDX-License-Identifier: Apache-2.0
"""pod_audit against a real API server, with Calico's own check beside it."""

from __future__ import annotations

import threading

import pytest
from support.faulty_proxy import Fault, FaultyProxy
from support.worlds import WorldBuilder

REPAIR = ["leaks", "handles", "affinities"]
GONE = {"namespace": "payments", "pod": "gone", "node": "node-1"}
POOLS = "cni.projectcalico.org/ipv4pools"


@pytest.fixture
def world():
    """Three pods on two nodes, one of them dual-stack, and a tunnel."""
    world = WorldBuilder()
    for name, node, pools in (
        ("web-0", "node-1", ("a",)),
        ("web-1", "node-1", ("a",)),
        ("api-0", "node-2", ("b", "six")),
    ):
        world.pod(name, node=node, pools=pools)
    world.tunnel("node-1")
    return world


def audited(cluster, world, **options):
    """The result for this world, of a run in which everything counts whatever its age."""
    world.create_in(cluster.objects, cluster.group)
    return cluster.run("pod_audit", grace=0, **options)


def checks(result):
    return {check: count for check, count in result["summary"].items() if count}


def break_everything(world):
    """One fault of every kind that can be repaired."""
    world.allocate("a", "node-1", "net.gone", GONE)
    world.pod("left", node="node-2", pools=("b", "six"))
    world.remove("Pod", "left", "payments")
    world.handle("net.orphan", {"10.244.0.0/28": 1})
    world.remove("IPAMHandle", "net.payments-web-0")
    world.handle("net.payments-web-1", {"10.244.0.0/28": 3})
    world.affinity("node-1", "10.244.9.0/28")
    world.affinity("node-2", "10.244.0.0/28")
    world.remove("BlockAffinity", "node-2-10-244-64-0-28")


def test_a_cluster_that_fits_together_is_clean(either_whole_cluster, world):
    result = audited(either_whole_cluster, world)
    assert result["findings"] == [] and result["clean"] and result["calicoctl_problems"] == 0
    assert (result["changed"], result["operations"]) == (False, [])
    assert result["examined"]["pods"] == 3 and result["examined"]["addresses"] == 5


def test_findings_name_the_pod_and_what_makes_it(either_whole_cluster, world):
    world.get("Namespace", "payments")["metadata"]["annotations"] = {POOLS: '["b"]'}
    metadata = world.get("Pod", "web-0", "payments")["metadata"]
    metadata["labels"] = {"pod-template-hash": "5d8f7c9b6"}
    world.create_in(either_whole_cluster.objects, either_whole_cluster.group)
    result = either_whole_cluster.run("pod_audit", grace=0)
    assert checks(result) == {"stale": 2}
    assert result["findings"][0] == {
        "check": "stale",
        "severity": "warning",
        "problem": False,
        "namespace": "payments",
        "pod": "web-0",
        "node": "node-1",
        "owner": None,
        "addresses": ["10.244.0.0"],
        "reasons": ["10.244.0.0 is not from b"],
        "message": "pod payments/web-0: 10.244.0.0 is not from b",
        "repair": None,
        "repaired": False,
    }


def test_everything_that_can_be_repaired_is_and_nothing_is_left(either_whole_cluster, world):
    break_everything(world)
    world.create_in(either_whole_cluster.objects, either_whole_cluster.group)
    predicted = either_whole_cluster.run("pod_audit", check=True, repair=REPAIR, grace=0)
    result = either_whole_cluster.apply("pod_audit", repair=REPAIR, grace=0)
    assert predicted["findings"] == result["findings"] and predicted["summary"] == result["summary"]
    assert checks(result) == {
        "leaked": 3,
        "leaked_handle": 1,
        "missing_handle": 1,
        "handle_count": 1,
        "block_without_affinity": 1,
        "affinity_without_block": 1,
        "affinity_mismatch": 1,
    }
    assert all(finding["repaired"] for finding in result["findings"])
    after = either_whole_cluster.run("pod_audit", grace=0)
    assert after["clean"] and after["calicoctl_problems"] == 0


def test_all_that_a_deleted_node_has_left_behind_is_released(either_whole_cluster, world):
    world.tunnel("node-2")
    world.spare("node-2", "six")
    for kind, name, namespace in (("Pod", "api-0", "payments"), ("Node", "node-2", None)):
        world.remove(kind, name, namespace)
    world.create_in(either_whole_cluster.objects, either_whole_cluster.group)
    result = either_whole_cluster.apply("pod_audit", repair=REPAIR, grace=0)
    assert checks(result) == {"leaked": 4, "affinity_without_node": 3}
    assert either_whole_cluster.objects.names(either_whole_cluster.path("ipamblocks")) == ["10-244-0-0-28"]
    assert either_whole_cluster.objects.names(either_whole_cluster.path("blockaffinities")) == ["node-1-10-244-0-0-28"]
    assert either_whole_cluster.run("pod_audit", grace=0)["clean"]


def test_what_was_not_asked_for_is_left_as_it_is(either_whole_cluster, world):
    break_everything(world)
    world.create_in(either_whole_cluster.objects, either_whole_cluster.group)
    result = either_whole_cluster.apply("pod_audit", repair=["affinities"], grace=0)
    assert {operation["kind"] for operation in result["operations"]} == {"BlockAffinity"}
    assert checks(either_whole_cluster.run("pod_audit", grace=0)) == {
        "leaked": 3,
        "leaked_handle": 1,
        "missing_handle": 1,
        "handle_count": 1,
    }


def test_objects_of_calico_are_written_as_calico_writes_them(either_whole_cluster, world):
    world.remove("IPAMHandle", "net.payments-web-0")
    world.remove("BlockAffinity", "node-1-10-244-0-0-28")
    world.create_in(either_whole_cluster.objects, either_whole_cluster.group)
    either_whole_cluster.apply("pod_audit", repair=REPAIR, grace=0)
    claim = either_whole_cluster.objects.get(either_whole_cluster.path("blockaffinities", "node-1-10-244-0-0-28"))
    deleted = "false" if either_whole_cluster.group.endswith("v1") else False
    assert claim["spec"] == {
        "cidr": "10.244.0.0/28",
        "node": "node-1",
        "state": "confirmed",
        "type": "host",
        "deleted": deleted,
    }
    assert claim["metadata"]["labels"].keys() == {
        "projectcalico.org/hostname-hash",
        "projectcalico.org/affinity-type",
        "projectcalico.org/ip-version",
    }
    handle = either_whole_cluster.objects.get(either_whole_cluster.path("ipamhandles", "net.payments-web-0"))
    assert handle["spec"] == {"handleID": "net.payments-web-0", "block": {"10.244.0.0/28": 1}, "deleted": False}


def test_what_is_younger_than_the_grace_is_left_alone(whole_cluster, world):
    break_everything(world)
    world.create_in(whole_cluster.objects, whole_cluster.group)
    result = whole_cluster.run("pod_audit", check=True, repair=REPAIR)
    kept = {"leaked_handle", "handle_count", "affinity_without_block", "affinity_mismatch"}
    assert not kept & checks(result).keys(), "handles and claims have just been created"
    assert checks(result)["leaked"] == 3, "addresses have an old timestamp"


def test_without_calicos_kinds_addresses_lie_outside_of_every_pool(empty_cluster):
    path = "/api/v1/namespaces/default/pods"
    spec = {"nodeName": "node-1", "containers": [{"name": "main", "image": "example.com/workload:1"}]}
    empty_cluster.objects.create(path, {"metadata": {"name": "web"}, "spec": spec})
    try:
        empty_cluster.objects.patch_status(f"{path}/web", {"phase": "Running", "podIPs": [{"ip": "10.1.2.3"}]})
        result = empty_cluster.run("pod_audit", repair=REPAIR)
        assert checks(result) == {"outside": 1} and not result["changed"]
    finally:
        empty_cluster.objects.delete(f"{path}/web")


def test_pools_in_the_place_of_services_and_of_nodes_are_found(whole_cluster, world):
    world.create_in(whole_cluster.objects, whole_cluster.group)
    whole_cluster.create_pools(("services", "10.96.0.0/24"), ("nodes", "192.0.2.0/24"))
    addresses = [{"type": "InternalIP", "address": "192.0.2.7"}]
    whole_cluster.objects.patch_status("/api/v1/nodes/node-1", {"addresses": addresses})
    result = whole_cluster.run("pod_audit", grace=0)
    found = [(each["check"], each["pool"]) for each in result["findings"] if each["check"] != "pool_outside"]
    assert found == [("pool_services", "services"), ("pool_nodes", "nodes")]


def test_a_report_reads_each_kind_once(whole_cluster, world):
    world.create_in(whole_cluster.objects, whole_cluster.group)
    with FaultyProxy(whole_cluster.plane) as proxy:
        whole_cluster.run("pod_audit", grace=0, **whole_cluster.through(proxy))
    lists = [path.partition("?")[0].rpartition("/")[2] for _method, path in proxy.requests if "limit=" in path]
    assert sorted(lists) == [
        "blockaffinities",
        "ipamblocks",
        "ipamhandles",
        "ippools",
        "namespaces",
        "nodes",
        "pods",
        "servicecidrs",
        "services",
    ]
    assert proxy.writes() == []


def repair_through(cluster, *faults, **options):
    """(result, proxy) of a repair through a proxy with these faults."""
    with FaultyProxy(cluster.plane, *faults) as proxy:
        return cluster.run("pod_audit", repair=REPAIR, grace=0, **cluster.through(proxy), **options), proxy


@pytest.mark.parametrize(("moment", "writes"), [("GET", 1), ("PUT", 2)], ids=("second look", "write"))
def test_an_address_that_is_assigned_meanwhile_stays(whole_cluster, world, moment, writes):
    world.allocate("a", "node-1", "net.gone", GONE)
    world.create_in(whole_cluster.objects, whole_cluster.group)
    block = whole_cluster.path("ipamblocks", "10-244-0-0-28")

    def assign():
        """What a node's plugin does: the handle first, then the block."""
        spec = {"handleID": "net.new", "block": {"10.244.0.0/28": 1}, "deleted": False}
        whole_cluster.create("IPAMHandle", "ipamhandles", "net.new", spec)
        stored = whole_cluster.objects.get(block)
        ordinal = stored["spec"]["unallocated"].pop(0)
        owner = {"namespace": "payments", "pod": "new", "node": "node-1"}
        stored["spec"]["attributes"].append({"handle_id": "net.new", "secondary": owner})
        stored["spec"]["allocations"][ordinal] = len(stored["spec"]["attributes"]) - 1
        whole_cluster.objects.request("PUT", block, stored)
        pod = {"nodeName": "node-1", "containers": [{"name": "main", "image": "example.com/workload:1"}]}
        whole_cluster.objects.create("/api/v1/namespaces/payments/pods", {"metadata": {"name": "new"}, "spec": pod})

    result, proxy = repair_through(whole_cluster, Fault(moment, "/10-244-0-0-28", meanwhile=assign))
    assert [operation["name"] for operation in result["operations"]] == ["10-244-0-0-28", "net.gone"]
    assert [(each["check"], each["repaired"]) for each in result["findings"]] == [("leaked", True)]
    assert len([write for write in proxy.writes() if write[1].endswith("/10-244-0-0-28")]) == writes
    spec = whole_cluster.objects.get(block)["spec"]
    assert {each["handle_id"] for each in spec["attributes"] if "net." in each["handle_id"]} == {
        "net.payments-web-0",
        "net.payments-web-1",
        "net.new",
    }
    assert spec["unallocated"][-1] == 3, "the leaked address was freed all the same"


def test_a_pod_that_comes_back_before_the_second_look_keeps_its_address(whole_cluster, world):
    address = world.allocate("a", "node-1", "net.gone", GONE)
    world.create_in(whole_cluster.objects, whole_cluster.group)
    spec = {"nodeName": "node-1", "containers": [{"name": "main", "image": "example.com/workload:1"}]}

    def come_back():
        path = "/api/v1/namespaces/payments/pods"
        whole_cluster.objects.create(path, {"metadata": {"name": "gone"}, "spec": spec})
        whole_cluster.objects.patch_status(f"{path}/gone", {"podIPs": [{"ip": address}]})

    result, proxy = repair_through(whole_cluster, Fault("GET", "/pods/gone", meanwhile=come_back))
    assert result["findings"] == [] and proxy.writes() == []


def test_an_address_is_released_when_it_is_still_nobodys_after_a_pause(whole_cluster, world):
    """A pod that was deleted by force is gone at once, while its container runs on and its node frees the address."""
    kept = world.allocate("a", "node-1", "net.gone", GONE)
    world.allocate("a", "node-1", "net.left", {**GONE, "pod": "left"})
    world.create_in(whole_cluster.objects, whole_cluster.group)

    def appear():
        path = "/api/v1/namespaces/payments/pods"
        spec = {"nodeName": "node-1", "containers": [{"name": "main", "image": "example.com/workload:1"}]}
        whole_cluster.objects.create(path, {"metadata": {"name": "gone"}, "spec": spec})
        whole_cluster.objects.patch_status(f"{path}/gone", {"podIPs": [{"ip": kept}]})

    def after_the_lists():
        threading.Timer(0.5, appear).start()

    fault = Fault("GET", "/ipamhandles", meanwhile=after_the_lists)
    with FaultyProxy(whole_cluster.plane, fault) as proxy:
        result = whole_cluster.run("pod_audit", repair=["leaks"], grace=3, **whole_cluster.through(proxy))
    assert [(each["check"], each["pod"], each["repaired"]) for each in result["findings"]] == [("leaked", "left", True)]


def test_a_handle_that_is_used_meanwhile_stays(whole_cluster, world):
    world.handle("net.orphan", {"10.244.0.0/28": 1})
    world.create_in(whole_cluster.objects, whole_cluster.group)
    path = whole_cluster.path("ipamhandles", "net.orphan")

    def use():
        block = whole_cluster.path("ipamblocks", "10-244-0-0-28")
        stored = whole_cluster.objects.get(block)
        ordinal = stored["spec"]["unallocated"].pop(0)
        owner = {"namespace": "payments", "pod": "web-0", "node": "node-1"}
        stored["spec"]["attributes"].append({"handle_id": "net.orphan", "secondary": owner})
        stored["spec"]["allocations"][ordinal] = len(stored["spec"]["attributes"]) - 1
        whole_cluster.objects.request("PUT", block, stored)
        whole_cluster.objects.patch(path, {"metadata": {"annotations": {"touched": "yes"}}})

    result, _proxy = repair_through(whole_cluster, Fault("PUT", "/net.orphan", meanwhile=use))
    assert result["operations"] == [] and not result.get("failed")
    assert [(each["check"], each["repaired"]) for each in result["findings"]] == [("leaked_handle", False)]
    assert whole_cluster.objects.get(path)["spec"]["deleted"] is False


def test_a_claim_whose_block_is_made_meanwhile_stays(whole_cluster, world):
    world.affinity("node-1", "10.244.9.0/28", "pending")
    world.create_in(whole_cluster.objects, whole_cluster.group)
    name = "node-1-10-244-9-0-28"

    def claim():
        world.stored = {}
        world.add("IPAMBlock", "10-244-9-0-28", spec={**EMPTY_BLOCK, "cidr": "10.244.9.0/28"})
        world.create_in(whole_cluster.objects, whole_cluster.group)
        whole_cluster.objects.patch(whole_cluster.path("blockaffinities", name), {"spec": {"state": "confirmed"}})

    result, _proxy = repair_through(whole_cluster, Fault("PUT", f"/{name}", meanwhile=claim))
    assert result["operations"] == [] and not result.get("failed")
    assert whole_cluster.objects.exists(whole_cluster.path("blockaffinities", name))


EMPTY_BLOCK = {
    "affinity": "host:node-1",
    "allocations": [None] * 16,
    "unallocated": list(range(16)),
    "attributes": [],
    "sequenceNumber": 1787304482417330915,
    "deleted": False,
    "strictAffinity": False,
}


def test_where_no_blocks_are_served_claims_and_handles_contradict_nothing(whole_cluster, world):
    """As of Calico with a store of its own, of which its API server shows pools and claims only."""
    world.create_in(whole_cluster.objects, whole_cluster.group)
    blocks = [each["metadata"]["name"] for each in world.all("IPAMBlock")]
    faults = [Fault("GET", f"/{name}", 404, times=99) for name in ("ipamblocks", *blocks)]
    result, proxy = repair_through(whole_cluster, *faults)
    assert checks(result) == {"not_allocated": 5} and proxy.writes() == []


def test_a_repair_that_stops_midway_says_what_was_done_and_is_finished_by_the_next(whole_cluster, world):
    break_everything(world)
    world.create_in(whole_cluster.objects, whole_cluster.group)
    result, _proxy = repair_through(whole_cluster, Fault("PUT", "/net.gone", 503, times=99, retry_after=0))
    assert result["failed"] and result["changed"] and "503" in result["msg"]
    assert {operation["kind"] for operation in result["operations"]} >= {"IPAMBlock"}
    assert result["failed_operation"] == {"verb": "delete", "kind": "IPAMHandle", "name": "net.gone"}
    assert {"verb": "create", "kind": "IPAMHandle", "name": "net.payments-web-0"} in result["operations_left"]
    whole_cluster.apply("pod_audit", repair=REPAIR, grace=0)
    assert whole_cluster.run("pod_audit", grace=0)["clean"]


def test_a_mass_of_findings_is_looked_at_again_with_lists(whole_cluster, world):
    pods = 520
    for index in range(pods):
        world.allocate("six", "node-1", f"net.gone-{index}", {**GONE, "pod": f"gone-{index}"})
    world.create_in(whole_cluster.objects, whole_cluster.group)
    with FaultyProxy(whole_cluster.plane) as proxy:
        result = whole_cluster.run("pod_audit", grace=0, **whole_cluster.through(proxy))
    assert checks(result) == {"leaked": pods}
    assert not [path for _method, path in proxy.requests if "/pods/" in path], "pods are not read one by one"
