# SPDX-License-Identifier: Apache-2.0
"""node_release against a real API server. `cluster.apply` also holds check mode against the run, and runs twice."""

from __future__ import annotations

import pytest
from support.worlds import WorldBuilder


@pytest.fixture
def world():
    """A pod on node-1 that is to go, one on node-2 with an address of its own, and one with an address of node-1's."""
    world = WorldBuilder()
    world.pod("web-0", node="node-1", pools=("a",))
    world.pod("api-0", node="node-2", pools=("b",))
    return world


def left(cluster):
    return {
        kind: cluster.objects.names(cluster.path(kind)) for kind in ("ipamblocks", "blockaffinities", "ipamhandles")
    }


def test_a_node_on_which_pods_have_addresses_is_refused_by_their_names(either_whole_cluster, world):
    world.create_in(either_whole_cluster.objects, either_whole_cluster.group)
    result = either_whole_cluster.refused("node_release", nodes=["node-1"])
    assert result["msg"] == (
        "node node-1: nodes: pods still have addresses there: payments/web-0; drain the node first"
    )


def test_all_that_a_node_held_is_released_and_nothing_of_others(either_whole_cluster, world):
    world.remove("Pod", "web-0", "payments")
    world.create_in(either_whole_cluster.objects, either_whole_cluster.group)
    either_whole_cluster.apply("node_release", nodes=["node-1"])
    assert left(either_whole_cluster) == {
        "ipamblocks": ["10-244-64-0-28"],
        "blockaffinities": ["node-2-10-244-64-0-28"],
        "ipamhandles": ["net.payments-api-0"],
    }
    assert either_whole_cluster.run("pod_audit", grace=0)["clean"]


def test_what_another_node_has_borrowed_stays_allocated_in_a_block_without_a_node(either_whole_cluster, world):
    world.remove("Pod", "web-0", "payments")
    borrower = {"namespace": "payments", "pod": "far", "node": "node-2"}
    world.allocate("a", "node-1", "net.far", borrower)
    world.create_in(either_whole_cluster.objects, either_whole_cluster.group)
    result = either_whole_cluster.apply("node_release", nodes=["node-1"])
    [block] = [each for each in result["after"] if "block" in each]
    assert block["affinity"] is None and list(block["allocated"].values()) == ["payments/far"]


def test_a_node_that_holds_nothing_changes_nothing(either_whole_cluster, world):
    world.create_in(either_whole_cluster.objects, either_whole_cluster.group)
    assert not either_whole_cluster.apply("node_release", nodes=["node-3"])["changed"]
