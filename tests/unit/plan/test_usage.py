# SPDX-License-Identifier: Apache-2.0
"""How full pools are, and how blocks, addresses, the configuration and assignments are told."""

from __future__ import annotations

import ipaddress

import pytest
from ansible_collections.podnet.ipam.plugins.module_utils._plan import assigned, listing, usage
from hypothesis import given
from hypothesis import strategies as st
from support.worlds import WorldBuilder


def usage_of(cluster, reservations=()):
    found = usage.usage(cluster.all("IPPool"), cluster.all("IPAMBlock"), reservations)
    return {pool["name"]: pool for pool in found}


def reservation(*cidrs):
    return {"metadata": {"name": "kept"}, "spec": {"reservedCIDRs": list(cidrs)}}


@pytest.fixture
def cluster():
    cluster = WorldBuilder()
    cluster.pod("web-0")
    cluster.pod("web-1", node="node-2")
    cluster.pod("six-0", pools=("six",))
    return cluster


def borrow(cluster):
    """Give a pod of node-2 an address in the block of node-1."""
    owner = {"namespace": "payments", "pod": "guest", "node": "node-2"}
    return cluster.allocate("a", "node-1", "net.guest", owner)


def test_addresses_and_blocks_are_counted_by_pool_node_and_family(cluster):
    borrow(cluster)
    pools = usage_of(cluster)
    counts = {key: pools["a"][key] for key in ("size", "blocks", "used", "free", "borrowed", "reserved", "nodes")}
    assert counts == {
        "size": 16384,
        "blocks": 2,
        "used": 3,
        "free": 16381,
        "borrowed": 1,
        "reserved": 0,
        "nodes": [
            {"name": "node-1", "blocks": 1, "used": 1, "borrowed": 0},
            {"name": "node-2", "blocks": 1, "used": 2, "borrowed": 1},
        ],
    }
    assert pools["b"]["used"] == pools["b"]["blocks"] == 0
    totals = usage.totals(list(pools.values()))
    assert totals["IPv4"]["pools"] == 2 and totals["IPv4"]["size"] == 32768 and totals["IPv4"]["used"] == 3
    assert totals["IPv6"]["size"] == 1 << 64 and totals["IPv6"]["free"] == (1 << 64) - 1


def test_a_range_that_is_stored_with_host_bits_counts_as_the_range_itself(cluster):
    before = usage_of(cluster)
    [pool] = (each for each in cluster.all("IPPool") if each["metadata"]["name"] == "a")
    pool["spec"]["cidr"] = pool["spec"]["cidr"].replace(".0/", ".9/")
    assert usage_of(cluster) == before


def test_reserved_addresses_count_once_and_only_while_they_are_not_allocated(cluster):
    reservations = [reservation("10.244.0.0/30", " 10.244.0.2/31 ", "10.244.0.9", "nonsense", "fd00:10:244::/65")]
    pools = usage_of(cluster, reservations)
    assert pools["a"]["reserved"] == 4 + 1 - 1
    assert pools["six"]["reserved"] == (1 << 63) - 1
    assert pools["b"]["reserved"] == 0


def test_soft_deleted_blocks_do_not_count(cluster):
    for block in cluster.all("IPAMBlock"):
        block["spec"]["deleted"] = True
    assert all(pool["used"] == pool["blocks"] == 0 for pool in usage_of(cluster).values())


def test_the_smaller_of_two_pools_counts_what_lies_in_both(cluster):
    cluster.add("IPPool", "inner", spec={"cidr": "10.244.0.0/28", "blockSize": 28})
    pools = usage_of(cluster)
    assert (pools["inner"]["used"], pools["a"]["used"]) == (1, 1)


def test_addresses_of_a_block_without_node_are_borrowed(cluster):
    for block in cluster.blocks_of("a", "node-1"):
        del block["spec"]["affinity"]
    assert usage_of(cluster)["a"]["borrowed"] == 1


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "six"]), st.sampled_from(["node-1", "node-2"])), max_size=30))
def test_counts_add_up(pods):
    cluster = WorldBuilder()
    for index, (pool, node) in enumerate(pods):
        cluster.pod(f"p-{index}", node=node, pools=(pool,))
    pools = usage_of(cluster)
    assert sum(pool["used"] for pool in pools.values()) == len(pods)
    for pool in pools.values():
        assert pool["used"] == sum(node["used"] for node in pool["nodes"])
        assert pool["blocks"] == sum(node["blocks"] for node in pool["nodes"])
        assert pool["used"] + pool["free"] == pool["size"] == ipaddress.ip_network(pool["cidr"]).num_addresses


def test_blocks_are_told_in_order_with_the_state_of_their_claim(cluster):
    borrow(cluster)
    cluster.get("BlockAffinity", "node-2-10-244-0-16-28")["spec"]["state"] = "pending"
    cluster.remove("BlockAffinity", "node-1-fd00-10-244---124")
    objects = [cluster.all(kind) for kind in ("IPPool", "IPAMBlock", "BlockAffinity")]
    first, second, third = listing.blocks(*objects)
    assert first == {
        "cidr": "10.244.0.0/28",
        "pool": "a",
        "affinity": "host:node-1",
        "node": "node-1",
        "state": "confirmed",
        "size": 16,
        "used": 2,
        "free": 14,
        "borrowed": 1,
        "claim_time": "2026-08-21T09:30:15Z",
    }
    assert (second["cidr"], second["state"]) == ("10.244.0.16/28", "pending")
    assert (third["cidr"], third["pool"], third["state"]) == ("fd00:10:244::/124", "six", None)


def test_addresses_are_told_in_order_with_whom_they_are_for(cluster):
    tunnel = cluster.tunnel("node-1")
    guest = borrow(cluster)
    spare = cluster.spare("node-1")
    cluster.remove("IPPool", "six")
    found = {each["address"]: each for each in listing.addresses(cluster.all("IPPool"), cluster.all("IPAMBlock"))}
    assert list(found) == ["10.244.0.0", tunnel, guest, spare, "10.244.0.16", "fd00:10:244::"]
    assert found["10.244.0.0"] == {
        "address": "10.244.0.0",
        "pool": "a",
        "block": "10.244.0.0/28",
        "node": "node-1",
        "namespace": "payments",
        "pod": "web-0",
        "handle": "net.payments-web-0",
        "type": "workload",
        "borrowed": False,
    }
    assert (found[tunnel]["type"], found[tunnel]["pod"]) == ("vxlanTunnelAddress", None)
    assert (found[spare]["type"], found[spare]["pod"]) == ("spareBlock", None)
    assert found[guest]["borrowed"] and found[guest]["node"] == "node-2"
    assert found["fd00:10:244::"]["pool"] is None


def test_a_missing_configuration_has_calicos_defaults():
    defaults = {"strict_affinity": False, "auto_allocate_blocks": True, "max_blocks_per_host": 0}
    assert listing.config(None) == {**defaults, "stored": False}
    stored = {"spec": {"strictAffinity": True, "autoAllocateBlocks": False}}
    expected = {"strict_affinity": True, "auto_allocate_blocks": False, "max_blocks_per_host": 0, "stored": True}
    assert listing.config(stored) == expected


def template(namespace, name, annotations=None, owner=None):
    metadata = {"namespace": namespace, "name": name}
    if owner:
        metadata["ownerReferences"] = [{"kind": owner, "name": "x", "controller": True}]
    return {"metadata": metadata, "spec": {"template": {"metadata": {"annotations": annotations or {}}}}}


def test_only_what_has_an_assignment_is_told_and_what_is_malformed_as_its_text():
    annotations = {"cni.projectcalico.org/ipv4pools": '["a"]', "cni.projectcalico.org/ipAddrs": "10.0.0.1"}
    workloads = {
        "Deployment": [template("n", "web", annotations), template("n", "plain")],
        "ReplicaSet": [
            template("n", "web-1", annotations, "Deployment"),
            template("n", "odd-1", annotations, "Rollout"),
        ],
    }
    view = {"ipv4_pools": ["a"], "ipv6_pools": None, "families": None, "ip_addrs": "10.0.0.1"}
    assert assigned.workloads(workloads) == [
        {"kind": "Deployment", "namespace": "n", "name": "web", **view},
        {"kind": "ReplicaSet", "namespace": "n", "name": "odd-1", **view},
    ]
    namespaces = [{"metadata": {"name": name, "annotations": each}} for name, each in (("b", annotations), ("a", {}))]
    del view["ip_addrs"]
    assert assigned.namespaces(namespaces) == [{"name": "b", **view}]
