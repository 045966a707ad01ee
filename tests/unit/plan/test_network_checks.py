# SPDX-License-Identifier: Apache-2.0
"""New pools against what the cluster says about its network."""

from __future__ import annotations

import pytest
from ansible_collections.podnet.ipam.plugins.module_utils._plan import pools
from ansible_collections.podnet.ipam.plugins.module_utils._plan.network_checks import Cidrs
from support.pool_plans import declare, observe, stored

KUBEADM = "ConfigMap kube-system/kubeadm-config"
POD = {"name": "a", "cidr": "10.244.0.0/16"}


def node(name, *addresses, **labels):
    listed = [{"type": "Hostname", "address": name}, *({"type": "InternalIP", "address": each} for each in addresses)]
    return {"metadata": {"name": name, "labels": labels}, "spec": {}, "status": {"addresses": listed}}


def test_pools_for_load_balancers_need_not_lie_in_the_pod_cidr():
    declared = declare(
        {"name": "lb", "cidr": "192.0.2.0/24", "allowed_uses": ["LoadBalancer"]},
        {"name": "pods", "cidr": "198.51.100.0/24"},
        pod_cidrs=None,
    )
    [problem] = pools.plan(declared, observe(pod_cidrs=Cidrs(("10.244.0.0/16",), KUBEADM))).problems
    assert problem.subject == "pool pods"
    assert problem.message == (
        "198.51.100.0/24 does not lie in the cluster's pod CIDRs (10.244.0.0/16), which are from " + KUBEADM
    )


def test_a_pool_may_span_adjacent_pod_cidrs():
    declared = declare(POD, pod_cidrs=["10.244.0.0/17", "10.244.128.0/17"])
    assert pools.plan(declared, observe()).problems == []


def test_unknown_cidrs_give_a_warning_each_and_empty_lists_none():
    warnings = pools.plan(declare(POD, pod_cidrs=None, service_cidrs=None), observe()).warnings
    assert ["pod_cidrs" in each for each in warnings] == [True, False]
    assert ["service_cidrs" in each for each in warnings] == [False, True]
    assert pools.plan(declare(POD), observe()).warnings == []


def test_a_family_without_a_pod_cidr_gives_a_warning():
    declared = declare({"name": "six", "cidr": "fd00::/64"}, pod_cidrs=["10.244.0.0/16"])
    plan = pools.plan(declared, observe())
    assert plan.problems == []
    assert plan.warnings == ["pool six: the pod CIDRs (10.244.0.0/16) have none of IPv6"]


def test_the_pod_cidrs_of_nodes_may_be_only_a_part_so_that_what_lies_outside_is_a_warning():
    known = Cidrs(("10.244.0.0/24", "10.244.1.0/24"), "spec.podCIDRs of the nodes", partial=True)
    plan = pools.plan(declare(POD, pod_cidrs=None), observe(pod_cidrs=known))
    assert plan.problems == [] and plan.warnings == [
        "pool a: 10.244.0.0/16 does not lie in the pod CIDRs that are known (10.244.0.0/24, 10.244.1.0/24, from"
        " spec.podCIDRs of the nodes), which may be only a part of the cluster's; option pod_cidrs says what they are"
    ]
    inside = declare({"name": "a", "cidr": "10.244.0.0/23"}, pod_cidrs=None)
    assert pools.plan(inside, observe(pod_cidrs=known)).warnings == []


@pytest.mark.parametrize("option", ["pod_cidrs", "service_cidrs"])
def test_what_is_not_a_cidr_among_the_given_ones_is_named(option):
    [problem] = pools.plan(declare(**{option: ["10.244.0.0/16", "pods"]}), observe()).problems
    assert (problem.option, problem.value) == (option, "pods")


def test_a_pool_that_overlaps_the_services_is_refused_whoever_names_them():
    known = Cidrs(("10.244.192.0/18", "fd00:10:96::/112"), "the cluster's ServiceCIDRs")
    [problem] = pools.plan(declare(POD, service_cidrs=None), observe(service_cidrs=known)).problems
    assert problem.message.startswith(
        "10.244.0.0/16 overlaps the cluster's service CIDR 10.244.192.0/18, which is from the cluster's ServiceCIDRs"
    )
    [problem] = pools.plan(declare(POD, service_cidrs=["10.0.0.0/8"]), observe(service_cidrs=known)).problems
    assert "10.0.0.0/8, which is from option service_cidrs" in problem.message
    assert pools.plan(declare(POD), observe(service_cidrs=known)).problems == []


def test_a_pool_that_contains_addresses_of_nodes_is_refused_once_with_all_of_them():
    nodes = (node("n1", "10.244.7.1", "192.0.2.1"), node("n2", "10.244.7.2"), node("n3", "fd00::1", "::ffff:garbage"))
    [problem] = pools.plan(declare(POD), observe(nodes=nodes)).problems
    assert problem.message == "10.244.0.0/16 contains node addresses: 10.244.7.1 (node n1), 10.244.7.2 (node n2)"


def test_nodes_that_cannot_be_read_give_a_warning():
    [warning] = pools.plan(declare(POD), observe(nodes=None)).warnings
    assert "addresses of nodes was not checked" in warning


def test_only_new_pools_are_held_against_the_network():
    nodes = (node("n1", "10.244.7.1"),)
    declared = declare({**POD, "nat_outgoing": True}, pod_cidrs=["192.0.2.0/24"], service_cidrs=["10.0.0.0/8"])
    plan = pools.plan(declared, observe(stored("a", cidr="10.244.0.0/16"), nodes=nodes))
    assert (plan.problems, plan.warnings, len(plan.operations)) == ([], [], 1)


@pytest.mark.parametrize(
    ("strict", "meaning"), [(True, "strictAffinity is on"), (False, "can only borrow"), (None, "")]
)
def test_fewer_blocks_than_nodes_that_the_pool_is_for_are_a_warning(strict, meaning):
    nodes = tuple(node(f"n{index}", rack="1" if index < 5 else "2") for index in range(8))
    small = {"name": "small", "cidr": "10.244.0.0/24", "node_selector": "rack == '1'"}
    [warning] = pools.plan(declare(small), observe(nodes=nodes, strict_affinity=strict)).warnings
    assert "5 nodes match its node_selector, but 10.244.0.0/24 has only 4 blocks of /26" in warning
    assert meaning in warning
    for change in (
        {"node_selector": "rack == '2'"},
        {"assignment_mode": "Manual"},
        {"disabled": True},
        {"allowed_uses": ["Tunnel"]},
        {"block_size": 27},
    ):
        assert pools.plan(declare({**small, **change}), observe(nodes=nodes)).warnings == []


NODES = tuple(node(f"n{index}", rack="1") for index in range(5))
TIGHT = {"name": "tight", "cidr": "10.244.0.0/24", "node_selector": "rack == '1'"}


@pytest.mark.parametrize(
    ("before", "warned"),
    [
        ({"nodeSelector": "rack == '2'"}, True),
        ({"disabled": True}, True),
        ({"assignmentMode": "Manual"}, True),
        ({"allowedUses": ["Tunnel"]}, True),
        ({"natOutgoing": True}, False),
    ],
)
def test_an_existing_pool_from_which_more_nodes_draw_than_before_is_warned_of_as_well(before, warned):
    existing = stored("tight", cidr="10.244.0.0/24", **{"nodeSelector": "rack == '1'", **before})
    wanted = declare(TIGHT, pod_cidrs=None, service_cidrs=None)
    assert pools.needs(wanted, {"tight": existing}).nodes is warned
    plan = pools.plan(wanted, observe(existing, nodes=NODES))
    assert len(plan.operations) == 1 and len(plan.warnings) == warned
    assert all("5 nodes match its node_selector" in each for each in plan.warnings)


def test_a_pool_from_which_no_node_draws_any_more_is_not_warned_of():
    existing = stored("tight", cidr="10.244.0.0/24", nodeSelector="rack == '1'")
    assert not pools.needs(declare({**TIGHT, "disabled": True}), {"tight": existing}).nodes
    assert pools.plan(declare({**TIGHT, "disabled": True}), observe(existing, nodes=NODES)).warnings == []
