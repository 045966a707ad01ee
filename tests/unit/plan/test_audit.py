# SPDX-License-Identifier: Apache-2.0
"""What an audit finds: nothing in a cluster that fits together, and each fault that is planted, as what it is."""

from __future__ import annotations

import copy
import random

import pytest
from ansible_collections.podnet.ipam.plugins.module_utils._plan.audit import Audit
from ansible_collections.podnet.ipam.plugins.module_utils._plan.finding import CHECKS, SEVERITIES
from ansible_collections.podnet.ipam.plugins.module_utils._plan.network_checks import Cidrs
from hypothesis import given, settings
from hypothesis import strategies as st
from support.audits import (
    GRACE,
    YOUNG,
    YOUNG_TIMESTAMP,
    address_of,
    findings,
    found,
    leak,
    only,
    problems,
    small_cluster,
)
from support.worlds import NOW, WorldBuilder

POOLS = "cni.projectcalico.org/ipv4pools"


@pytest.fixture
def cluster():
    return small_cluster()


def test_a_cluster_that_fits_together_has_no_findings(cluster):
    assert found(cluster) == {}
    report = Audit(cluster.observed(), GRACE).plan([]).results
    assert report["clean"] and report["calicoctl_problems"] == 0
    assert report["summary"] == dict.fromkeys(CHECKS, 0)
    assert report["examined"] == {
        "pools": 3,
        "namespaces": 1,
        "nodes": 2,
        "pods": 2,
        "blocks": 3,
        "addresses": 4,
        "handles": 3,
    }


def test_an_empty_cluster_has_no_findings():
    assert found(WorldBuilder(nodes=(), pools={})) == {}


def test_a_pod_that_is_not_in_the_pools_of_its_namespace_is_stale(cluster):
    cluster.get("Namespace", "payments")["metadata"]["annotations"] = {POOLS: '["b"]'}
    finding = only(cluster, "stale")
    assert finding.objects["pod"] == "web-0" and finding.objects["addresses"] == [address_of(cluster, "web-0")]
    assert finding.objects["reasons"] == [f"{address_of(cluster, 'web-0')} is not from b"]


def test_a_pods_own_assignment_counts_before_that_of_its_namespace(cluster):
    cluster.get("Namespace", "payments")["metadata"]["annotations"] = {POOLS: '["b"]'}
    cluster.get("Pod", "web-0", "payments")["metadata"]["annotations"] = {POOLS: '["a"]'}
    assert found(cluster) == {}


@pytest.mark.parametrize("field", ["nodeSelector", "namespaceSelector"])
def test_a_pod_whose_pool_does_not_select_it_any_more_is_stale(cluster, field):
    cluster.get("IPPool", "a")["spec"][field] = "has(rack)"
    finding = only(cluster, "stale")
    assert field in finding.message and "is from a" in finding.message


def test_selectors_do_not_matter_to_a_pod_that_asks_for_its_pool_by_name(cluster):
    cluster.get("IPPool", "a")["spec"] |= {"nodeSelector": "has(rack)", "assignmentMode": "Manual"}
    cluster.get("Namespace", "payments")["metadata"]["annotations"] = {POOLS: '["a","b"]'}
    assert found(cluster) == {}


def test_a_pod_of_a_manual_pool_that_nobody_asks_for_is_stale(cluster):
    cluster.get("IPPool", "a")["spec"]["assignmentMode"] = "Manual"
    assert "assignmentMode is Manual" in only(cluster, "stale").message


def test_a_pod_without_an_address_of_a_family_that_is_wanted_is_stale(cluster):
    cluster.get("Namespace", "payments")["metadata"]["annotations"] = {
        "cni.projectcalico.org/ipFamilies": '["IPv4","IPv6"]'
    }
    finding = only(cluster, "stale")
    assert finding.objects["pod"] == "web-0" and finding.objects["reasons"] == ["it has no IPv6 address"]


def test_a_pod_without_the_fixed_address_that_it_is_to_have_is_stale(cluster):
    cluster.get("Pod", "web-0", "payments")["metadata"]["annotations"] = {
        "cni.projectcalico.org/ipAddrs": '["10.244.0.200"]'
    }
    assert only(cluster, "stale").objects["pod"] == "web-0"


def test_findings_about_a_pod_name_what_makes_it(cluster):
    cluster.get("IPPool", "a")["spec"]["nodeSelector"] = "has(rack)"
    metadata = cluster.get("Pod", "web-0", "payments")["metadata"]
    metadata["labels"] = {"pod-template-hash": "7d4b9c6f5d"}
    metadata["ownerReferences"] = [{"kind": "ReplicaSet", "name": "web-7d4b9c6f5d", "controller": True}]
    assert only(cluster, "stale").objects["owner"] == {"kind": "Deployment", "name": "web"}
    metadata["ownerReferences"] = [{"kind": "StatefulSet", "name": "web", "controller": True}]
    assert only(cluster, "stale").objects["owner"] == {"kind": "StatefulSet", "name": "web"}


def test_a_pod_on_a_node_that_is_gone_is_not_judged_by_selectors(cluster):
    cluster.get("IPPool", "a")["spec"]["nodeSelector"] = "has(rack)"
    cluster.get("Pod", "web-0", "payments")["spec"]["nodeName"] = "node-9"
    assert "stale" not in found(cluster)


def test_a_pod_in_a_disabled_pool_is_found_and_not_called_stale(cluster):
    cluster.get("IPPool", "a")["spec"]["disabled"] = True
    finding = only(cluster, "pool_disabled")
    assert (finding.objects["pod"], finding.objects["pool"]) == ("web-0", "a")
    assert "it is disabled" in finding.message


def test_addresses_of_a_pool_that_was_removed_lie_outside(cluster):
    cluster.remove("IPPool", "b")
    finding = only(cluster, "outside")
    assert finding.objects["pod"] == "api-0" and not finding.problem


def test_an_address_of_no_pool_and_no_block_is_also_a_problem_to_calicoctl(cluster):
    cluster.add("Pod", "stray", "payments", spec={"nodeName": "node-1"}, status={"podIPs": [{"ip": "10.99.0.1"}]})
    assert only(cluster, "outside").problem


def test_an_address_that_no_block_has_as_allocated_is_found(cluster):
    cluster.forget_allocation(address_of(cluster, "web-0"))
    finding = only(cluster, "not_allocated")
    assert finding.problem and finding.objects["pool"] == "a"
    assert ("Pod", "payments", "web-0") in finding.looks


def test_a_pod_that_is_going_may_have_given_its_address_back(cluster):
    cluster.forget_allocation(address_of(cluster, "web-0"))
    cluster.get("Pod", "web-0", "payments")["metadata"]["deletionTimestamp"] = YOUNG
    assert found(cluster) == {}


def test_the_same_address_on_two_pods_is_a_duplicate(cluster):
    status = {"podIPs": [{"ip": address_of(cluster, "web-0")}]}
    cluster.add("Pod", "twin", "payments", spec={"nodeName": "node-2"}, status=status)
    finding = only(cluster, "duplicate")
    assert finding.objects["users"] == ["pod payments/twin", "pod payments/web-0"]
    cluster.get("Pod", "twin", "payments")["metadata"]["deletionTimestamp"] = YOUNG
    assert found(cluster) == {}


def test_an_address_allocated_in_two_blocks_is_a_duplicate(cluster):
    address = address_of(cluster, "web-0")
    block = cluster.block_at(address)
    spec = {**block["spec"], "cidr": "10.244.0.0/29", "allocations": [0] + [None] * 7, "unallocated": list(range(1, 8))}
    spec["attributes"] = spec["attributes"][:1]
    cluster.add("IPAMBlock", "10-244-0-0-29", spec=spec)
    cluster.affinity("node-1", "10.244.0.0/29")
    cluster.handle("net.payments-web-0", {"10.244.0.0/28": 1, "10.244.0.0/29": 1})
    assert only(cluster, "duplicate").objects == {"address": address, "blocks": ["10.244.0.0/28", "10.244.0.0/29"]}


@pytest.mark.parametrize(
    ("annotations", "text"),
    [
        ({POOLS: '["aa"]'}, "pool 'aa' does not exist; pools of IPv4: a, b"),
        ({POOLS: "a"}, "which is not a JSON list of strings"),
        ({POOLS: '["six"]'}, "is IPv6"),
        ({"cni.projectcalico.org/ipFamilies": '["IPv5"]'}, "which is not a JSON list of IPv4, IPv6 or both"),
    ],
)
def test_an_assignment_with_which_no_pod_would_start_is_found(cluster, annotations, text):
    cluster.namespace("empty", annotations=annotations)
    finding = only(cluster, "assignment_invalid")
    assert finding.objects == {"namespace": "empty"} and text in finding.message


def test_an_assignment_is_found_once_for_all_pods_of_an_owner(cluster):
    for name in ("web-1", "web-2"):
        owner = {"kind": "StatefulSet", "name": "web", "controller": True}
        metadata = {"ownerReferences": [owner], "annotations": {"cni.projectcalico.org/ipAddrs": '["10.99.0.1"]'}}
        cluster.add("Pod", name, "payments", metadata=metadata, spec={}, status={"phase": "Pending"})
    finding = only(cluster, "assignment_invalid")
    assert finding.objects["owner"] == {"kind": "StatefulSet", "name": "web"}
    assert "10.99.0.1 lies in no enabled pool" in finding.message


def test_a_pool_outside_of_the_pod_cidrs_is_found_where_these_are_known(cluster):
    assert found(cluster, pod_cidrs=None) == {}
    assert found(cluster, pod_cidrs=("10.244.0.0/16",)) == {}, "nothing is known about IPv6"
    finding = only(cluster, "pool_outside", pod_cidrs=("10.244.0.0/18", "fd00:10:244::/56"))
    assert finding.objects == {"pool": "b", "cidr": "10.244.64.0/18"}


def test_a_pool_that_overlaps_services_is_found_where_these_are_known(cluster):
    known = Cidrs(("10.244.64.0/24", "fd00:10:96::/112"), "the cluster's ServiceCIDRs")
    finding = only(cluster, "pool_services", service_cidrs=known)
    assert finding.objects == {"pool": "b", "cidr": "10.244.64.0/18"}
    assert (
        "overlaps the cluster's service CIDR 10.244.64.0/24, which is from the cluster's ServiceCIDRs"
        in finding.message
    )


def test_a_pool_that_contains_addresses_of_nodes_is_found_once_with_all_of_them(cluster):
    for name, address in (("node-1", "10.244.64.1"), ("node-2", "10.244.64.2")):
        cluster.get("Node", name)["status"] = {"addresses": [{"type": "InternalIP", "address": address}]}
    finding = only(cluster, "pool_nodes")
    assert finding.objects == {"pool": "b", "cidr": "10.244.64.0/18"}
    assert finding.message.endswith("contains node addresses: 10.244.64.1 (node node-1), 10.244.64.2 (node node-2)")


def test_what_is_looked_at_again_is_what_may_have_changed_meanwhile(cluster):
    assert Audit(cluster.observed(), GRACE).looks == set()
    leak(cluster)
    first = Audit(cluster.observed(), GRACE)
    block = cluster.get("IPAMBlock", "10-244-0-0-28")
    unchanged = {("Pod", "payments", "gone"): None, ("IPAMBlock", None, "10-244-0-0-28"): block}
    assert first.looks >= unchanged.keys() and first.seen_again(unchanged) is first
    pod = cluster.add("Pod", "gone", "payments", spec={"nodeName": "node-1"}, status={"phase": "Pending"})
    assert first.seen_again({**unchanged, ("Pod", "payments", "gone"): pod}).findings == []


def seen_again(cluster, first):
    """The Audit after a second look at the cluster as it is by now."""
    return first.seen_again({look: copy.deepcopy(cluster.stored.get(look)) for look in first.looks})


def test_what_only_the_second_look_shows_is_not_believed_yet(cluster):
    address = leak(cluster)
    first = Audit(cluster.observed(), GRACE)
    cluster.allocate("a", "node-1", "net.new", {"namespace": "payments", "pod": "new", "node": "node-1"})
    cluster.get("IPAMBlock", "10-244-0-0-28")["metadata"]["resourceVersion"] = "later"
    second = seen_again(cluster, first)
    assert [(each.check, each.objects["address"]) for each in second.findings] == [("leaked", address)]


def test_what_the_second_look_shows_of_all_that_it_looked_at_is_believed(cluster):
    leak(cluster)
    first = Audit(cluster.observed(), GRACE)
    cluster.get("IPAMBlock", "10-244-0-0-28")["spec"]["unallocated"].pop()
    cluster.get("IPAMBlock", "10-244-0-0-28")["metadata"]["resourceVersion"] = "later"
    assert sorted(each.check for each in seen_again(cluster, first).findings) == ["block_invalid", "leaked"]


FAULTS = {
    "stale": lambda cluster: cluster.get("Namespace", "n-0")["metadata"].update(annotations={POOLS: '["b"]'}),
    "leaked": lambda cluster: leak(cluster, namespace="n-0"),
    "leaked_handle": lambda cluster: cluster.handle("net.gone", {"10.244.0.0/28": 1}),
    "missing_handle": lambda cluster: cluster.remove("IPAMHandle", "net.n-0-planted"),
    "handle_count": lambda cluster: cluster.handle("net.n-0-planted", {"10.244.0.0/28": 3}),
    "not_allocated": lambda cluster: cluster.forget_allocation(address_of(cluster, "planted", "n-0")),
    "affinity_without_block": lambda cluster: cluster.affinity("node-1", "10.244.63.0/28"),
    "block_without_affinity": lambda cluster: cluster.remove("BlockAffinity", cluster.name_of_first("BlockAffinity")),
    "affinity_mismatch": lambda cluster: cluster.affinity("node-9", cluster.all("IPAMBlock")[0]["spec"]["cidr"]),
    "affinity_without_node": lambda cluster: cluster.claim("b", "node-9"),
    "block_invalid": lambda cluster: cluster.all("IPAMBlock")[0]["spec"]["attributes"].append({"handle_id": "net.x"}),
    "outside": lambda cluster: cluster.add(
        "Pod", "stray", "n-0", spec={"nodeName": "node-1"}, status={"podIPs": [{"ip": "192.168.0.1"}]}
    ),
    "assignment_invalid": lambda cluster: cluster.namespace("bad", annotations={POOLS: '["nowhere"]'}),
}


def random_cluster(seed):
    """Up to 20 pods and tunnels of random nodes and pools; some have come and gone."""
    chance = random.Random(seed)
    cluster = WorldBuilder(nodes=[f"node-{index}" for index in range(1, 4)])
    for index in range(chance.randrange(20)):
        pools = chance.choice([("a",), ("b",), ("six",), ("a", "six"), ("b", "six")])
        node, namespace = f"node-{chance.randint(1, 3)}", f"n-{chance.randint(1, 3)}"
        cluster.pod(f"p-{index}", namespace, node, pools)
        if chance.random() < 0.3:
            for address in [each["ip"] for each in cluster.get("Pod", f"p-{index}", namespace)["status"]["podIPs"]]:
                cluster.forget_allocation(address)
            cluster.remove("Pod", f"p-{index}", namespace)
    for node in ("node-1", "node-2"):
        if chance.random() < 0.5:
            cluster.tunnel(node)
    return cluster


@given(st.integers())
@settings(max_examples=60, deadline=None)
def test_a_random_cluster_that_fits_together_has_no_findings(seed):
    cluster = random_cluster(seed)
    assert findings(cluster) == []
    assert problems(cluster) == 0


@given(st.integers(), st.sampled_from(sorted(FAULTS)))
@settings(max_examples=150, deadline=None)
def test_a_fault_planted_into_a_random_cluster_is_found_and_nothing_else(seed, fault):
    cluster = random_cluster(seed)
    cluster.pod("planted", "n-0")
    FAULTS[fault](cluster)
    assert [each.check for each in findings(cluster)] == [fault]
    described = Audit(cluster.observed(), GRACE).plan([]).results["findings"][0]
    assert described["severity"] == SEVERITIES[fault] and described["repaired"] is False


def test_now_is_the_moment_that_timestamps_are_compared_with(cluster):
    leak(cluster, timestamp=YOUNG_TIMESTAMP)
    assert "leaked" in found(cluster, now=NOW + GRACE)
