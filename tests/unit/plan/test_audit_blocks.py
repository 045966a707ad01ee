# SPDX-License-Identifier: Apache-2.0
"""What an audit finds in blocks, handles and claims."""

from __future__ import annotations

import json

import pytest
from support.audits import YOUNG, YOUNG_TIMESTAMP, address_of, findings, found, leak, only, problems, small_cluster
from support.worlds import WorldBuilder


@pytest.fixture
def cluster():
    return small_cluster()


def test_an_address_of_a_pod_that_is_gone_is_leaked(cluster):
    address = leak(cluster)
    finding = only(cluster, "leaked")
    assert finding.objects["address"] == address and finding.objects["handle"] == "net.gone"
    assert finding.problem and finding.hindrance is None
    assert {("Pod", "payments", "gone"), ("IPAMBlock", None, "10-244-0-0-28"), ("IPAMHandle", None, "net.gone")} == set(
        finding.looks
    )


def test_an_address_that_was_allocated_a_moment_ago_is_on_its_way(cluster):
    leak(cluster, timestamp=YOUNG_TIMESTAMP)
    assert found(cluster) == {}
    assert "leaked" in found(cluster, grace=60)
    assert problems(cluster) == 1


def test_a_pod_that_has_no_address_yet_leaks_none(cluster):
    leak(cluster, pod="new")
    cluster.add("Pod", "new", "payments", spec={"nodeName": "node-1"}, status={"phase": "Pending"})
    assert found(cluster) == {}


def test_an_address_of_a_further_interface_is_not_leaked(cluster):
    address = leak(cluster, pod="web-0")
    status = json.dumps([{"name": "net", "ips": [address]}])
    cluster.get("Pod", "web-0", "payments")["metadata"]["annotations"] = {"k8s.v1.cni.cncf.io/network-status": status}
    assert found(cluster) == {}


def test_another_address_of_a_pod_on_the_same_node_is_reported_and_left_alone(cluster):
    leak(cluster, pod="web-0")
    assert "exists on the same node" in only(cluster, "leaked").hindrance


def test_an_address_of_a_pod_that_moved_to_another_node_is_leaked(cluster):
    leak(cluster, pod="web-0", node="node-2")
    finding = only(cluster, "leaked")
    assert finding.hindrance is None and "runs on node node-1" in finding.message


@pytest.mark.parametrize(
    ("owner", "hindrance"),
    [
        ({"pod": None, "namespace": None}, "nothing says what it is for"),
        ({"namespace": None}, "nothing says what it is for"),
        ({"pod": "virt-launcher-db-x2v9q", "vmi-name": "db"}, "it is a virtual machine's"),
        ({"pod": None, "namespace": None, "type": "vxlanTunnelAddress"}, "the node exists"),
    ],
)
def test_what_may_still_be_needed_is_reported_and_left_alone(cluster, owner, hindrance):
    leak(cluster, **owner)
    assert hindrance in only(cluster, "leaked").hindrance


def test_an_address_that_a_virtual_machine_moves_with_is_left_alone(cluster):
    block = cluster.block_at(leak(cluster))
    block["spec"]["attributes"][-1]["alternateOwnerAttrs"] = {"namespace": "payments", "pod": "virt-launcher-db-k4wmd"}
    assert "it is a virtual machine's" in only(cluster, "leaked").hindrance


def test_an_address_of_which_nothing_says_the_node_is_left_alone_while_its_pod_exists(cluster):
    block = cluster.block_at(leak(cluster, pod="api-0", node=None))
    assert block["spec"]["affinity"] == "host:node-1", "while the pod is on node-2"
    assert "the pod exists, and nothing says on which node" in only(cluster, "leaked").hindrance


def test_a_tunnel_address_of_a_node_that_is_gone_is_leaked():
    cluster = WorldBuilder(nodes=("node-1",))
    leak(cluster, pod=None, namespace=None, node="node-9", type="ipipTunnelAddress")
    assert only(cluster, "leaked").hindrance is None


def test_addresses_of_one_handle_are_released_together_or_not_at_all(cluster):
    owner = {"namespace": "payments", "pod": "gone", "node": "node-1"}
    cluster.allocate("b", "node-2", "net.payments-web-0", owner)
    assert "has another address that is in use" in only(cluster, "leaked").hindrance


def test_reserved_and_resting_addresses_are_not_leaked(cluster):
    spec = cluster.block_at(address_of(cluster, "web-0"))["spec"]
    for ordinal, attribute in ((5, {"handle_id": "windows-reserved-ipam-handle"}), (6, {"releasedAt": YOUNG})):
        spec["attributes"].append(attribute)
        spec["allocations"][ordinal] = len(spec["attributes"]) - 1
        spec["unallocated"].remove(ordinal)
    assert found(cluster) == {}
    assert problems(cluster) == 0


def test_ipv6_tunnels_are_in_use_though_calicoctl_calls_them_leaked(cluster):
    cluster.tunnel("node-1", "projectcalico.org/IPv6VXLANTunnelAddr", "six")
    assert found(cluster) == {}
    assert problems(cluster) == 1


@pytest.mark.parametrize("pool", ("a", "six"))
def test_spare_blocks_are_in_use_though_calicoctl_calls_their_addresses_leaked(cluster, pool):
    cluster.spare("node-1", pool)
    assert found(cluster) == {}
    assert problems(cluster) == 1


def test_the_spare_block_of_a_node_that_is_gone_is_leaked():
    cluster = WorldBuilder(nodes=("node-1",))
    cluster.spare("node-9")
    by_check = {each.check: each for each in findings(cluster)}
    assert by_check.keys() == {"leaked", "affinity_without_node"}
    assert by_check["leaked"].hindrance is None


def test_addresses_of_services_are_in_use_in_blocks_of_load_balancers(cluster):
    cluster.add("Node", "lb")
    owner = {"service": "web", "namespace": "payments", "type": "Service"}
    address = cluster.allocate("a", "lb", "lb-x", owner)
    block = cluster.block_at(address)
    block["spec"]["affinity"] = "virtual:load-balancer"
    claim = cluster.remove("BlockAffinity", f"lb-{block['metadata']['name']}")
    cluster.affinity("load-balancer", claim["spec"]["cidr"])["spec"]["type"] = "virtual"
    ingress = {"loadBalancer": {"ingress": [{"ip": address}]}}
    cluster.add("Service", "web", "payments", spec={"type": "LoadBalancer"}, status=ingress)
    assert found(cluster) == {}
    cluster.remove("Service", "web", "payments")
    assert "controller" in only(cluster, "leaked").hindrance


def test_a_handle_without_addresses_is_leaked(cluster):
    cluster.handle("net.gone", {"10.244.0.0/28": 1})
    finding = only(cluster, "leaked_handle")
    assert finding.problem and finding.objects == {"handle": "net.gone", "blocks": ["10.244.0.0/28"]}


def test_a_handle_that_was_made_a_moment_ago_is_on_its_way(cluster):
    cluster.handle("net.new", {"10.244.0.0/28": 1}, creationTimestamp=YOUNG)
    assert found(cluster) == {}


def test_a_handle_whose_deletion_stopped_halfway_is_leaked(cluster):
    cluster.handle("net.gone", {})["spec"]["deleted"] = True
    assert "still there" in only(cluster, "leaked_handle").message


def test_a_missing_handle_is_found(cluster):
    cluster.remove("IPAMHandle", "net.payments-web-0")
    finding = only(cluster, "missing_handle")
    assert not finding.problem and finding.hindrance is None
    assert finding.objects == {"handle": "net.payments-web-0", "blocks": ["10.244.0.0/28"]}


def test_a_missing_handle_whose_name_is_taken_is_left_alone(cluster):
    spec = cluster.block_at(address_of(cluster, "web-0"))["spec"]
    spec["attributes"][0]["handle_id"] = "NET.payments-web-0"
    by_check = {each.check: each for each in findings(cluster)}
    assert by_check.keys() == {"leaked_handle", "missing_handle"}
    assert "is there for handle net.payments-web-0" in by_check["missing_handle"].hindrance


def test_a_handle_that_counts_wrong_is_found(cluster):
    cluster.handle("net.payments-web-0", {"10.244.0.0/28": 2, "10.244.9.0/28": 1})
    message = only(cluster, "handle_count").message
    assert message.endswith("counts 2 in 10.244.0.0/28, 1 in 10.244.9.0/28, but the blocks have 1 in 10.244.0.0/28")


def test_a_claim_on_a_block_that_does_not_exist_is_found(cluster):
    cluster.affinity("node-1", "10.244.9.0/28")
    assert only(cluster, "affinity_without_block").objects["block"] == "10.244.9.0/28"


def test_a_claim_that_was_made_a_moment_ago_is_on_its_way(cluster):
    cluster.affinity("node-1", "10.244.9.0/28", "pending", creationTimestamp=YOUNG)
    assert found(cluster) == {}


def test_a_claim_on_a_block_of_another_node_is_found(cluster):
    cluster.affinity("node-2", "10.244.0.0/28")
    finding = only(cluster, "affinity_mismatch")
    assert finding.objects["node"] == "node-2" and "belongs to host:node-1" in finding.message


def test_a_claim_of_a_node_that_is_gone_is_found(cluster):
    cluster.claim("b", "node-9")
    finding = only(cluster, "affinity_without_node")
    assert finding.objects["node"] == "node-9" and finding.hindrance is None
    assert ("Node", None, "node-9") in finding.looks


def test_a_claim_of_a_node_that_has_just_come_is_on_its_way(cluster):
    block = cluster.claim("b", "node-9")
    claim = cluster.get("BlockAffinity", f"node-9-{block['metadata']['name']}")
    claim["metadata"]["creationTimestamp"] = YOUNG
    assert found(cluster) == {}


def test_a_claim_is_left_alone_while_pods_are_on_its_node(cluster):
    """A Node object may have been deleted by mistake: its kubelet makes it anew."""
    cluster.remove("Node", "node-2")
    by_check = {each.check: each for each in findings(cluster)}
    assert by_check.keys() == {"affinity_without_node"}
    assert by_check["affinity_without_node"].hindrance == "there are pods on the node"


def test_a_block_without_its_nodes_claim_is_found(cluster):
    cluster.remove("BlockAffinity", "node-1-10-244-0-0-28")
    assert only(cluster, "block_without_affinity").objects == {"block": "10.244.0.0/28", "node": "node-1"}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda spec: spec["unallocated"].append(0), "either allocated or in unallocated"),
        (lambda spec: spec["unallocated"].pop(), "either allocated or in unallocated"),
        (lambda spec: spec["attributes"].append({"handle_id": "net.x"}), "refers to its attribute"),
        (lambda spec: spec["allocations"].append(None), "17 allocations for 16 addresses"),
        (lambda spec: spec["attributes"][0].update(releasedAt="2126-08-22T09:58:00Z"), "in the future"),
    ],
)
def test_a_block_that_breaks_an_invariant_is_found(cluster, change, text):
    change(cluster.block_at(address_of(cluster, "web-0"))["spec"])
    finding = only(cluster, "block_invalid")
    assert text in finding.message and finding.problem


def test_an_allocation_without_attribute_makes_a_block_invalid(cluster):
    cluster.block_at(address_of(cluster, "web-0"))["spec"]["allocations"][0] = 9
    [invalid] = [each for each in findings(cluster) if each.check == "block_invalid"]
    assert "an attribute that does not exist" in invalid.message


def test_soft_deleted_objects_count_as_absent(cluster):
    cluster.affinity("node-1", "10.244.9.0/28")["spec"]["deleted"] = "true"
    empty = cluster.claim("b", "node-1")
    empty["spec"]["deleted"] = True
    assert only(cluster, "affinity_without_block").objects["block"] == empty["spec"]["cidr"]
