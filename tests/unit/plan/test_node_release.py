# SPDX-License-Identifier: Apache-2.0
"""What is released of nodes with another IPAM: nothing that a pod has, or is about to have."""

from __future__ import annotations

import pytest
from ansible_collections.podnet.ipam.plugins.module_utils._plan import node_release
from support.worlds import OLD_TIMESTAMP, WorldBuilder

OWNER = {"namespace": "payments", "node": "node-1"}


@pytest.fixture
def cluster():
    """A pod on node-2, and an address on node-1 that a pod has left behind."""
    cluster = WorldBuilder()
    cluster.pod("api-0", node="node-2", pools=("b",))
    cluster.allocate("a", "node-1", "net.gone", {**OWNER, "pod": "gone"})
    return cluster


def plan(cluster):
    return node_release.plan(cluster.observed(), ["node-1"])


def refusals(cluster):
    return [problem.message for problem in plan(cluster).problems]


def allocated_after(cluster):
    """The addresses that the blocks of node-1 have afterwards, with their holders."""
    views = plan(cluster).after.values()
    return {address: pod for view in views if view and "block" in view for address, pod in view["allocated"].items()}


def test_what_pods_have_left_behind_is_released(cluster):
    assert refusals(cluster) == [] and allocated_after(cluster) == {}


def test_a_pod_that_is_about_to_report_its_address_forbids_it(cluster):
    cluster.allocate("a", "node-1", "net.new", {**OWNER, "pod": "new", "timestamp": OLD_TIMESTAMP})
    pod = cluster.add("Pod", "new", "payments", spec={"nodeName": "node-1"}, status={"phase": "Pending"})
    assert refusals(cluster) == ["pods still have addresses there: payments/new; drain the node first"]
    pod["status"]["phase"] = "Succeeded"
    assert refusals(cluster) == [] and allocated_after(cluster) == {}


def test_a_pod_in_the_nodes_network_does_not_forbid_it(cluster):
    spec = {"nodeName": "node-1", "hostNetwork": True}
    cluster.add("Pod", "gone", "payments", spec=spec, status={"podIPs": [{"ip": "192.0.2.7"}]})
    assert refusals(cluster) == [] and allocated_after(cluster) == {}


def test_what_a_pod_of_the_same_name_has_left_behind_does_not_forbid_it(cluster):
    cluster.add("Pod", "gone", "payments", spec={"nodeName": "node-1"}, status={"podIPs": [{"ip": "192.168.0.1"}]})
    assert refusals(cluster) == [] and allocated_after(cluster) == {}


def test_an_address_of_a_pod_on_another_node_stays_whatever_the_records_say(cluster):
    for name, owner in (("moved", OWNER), ("old", {"namespace": "payments"})):
        address = cluster.allocate("a", "node-1", f"net.{name}", {**owner, "pod": name})
        cluster.add("Pod", name, "payments", spec={"nodeName": "node-2"}, status={"podIPs": [{"ip": address}]})
    assert sorted(allocated_after(cluster).values()) == ["payments/moved", "payments/old"]


def test_an_address_of_a_virtual_machine_stays(cluster):
    cluster.allocate("a", "node-1", "net.vmi.db", {**OWNER, "pod": "virt-launcher-db-x2v9q", "vmi-name": "db"})
    assert list(allocated_after(cluster).values()) == ["payments/virt-launcher-db-x2v9q"]


def test_an_invalid_block_of_the_node_forbids_it(cluster):
    cluster.block_at("10.244.0.0")["spec"]["unallocated"].pop()
    assert [str(problem) for problem in plan(cluster).problems] == [
        "block 10.244.0.0/28: nodes: it is invalid: each ordinal must be either allocated or in unallocated, once;"
        " correct it, or delete it if nothing of it is in use"
    ]
