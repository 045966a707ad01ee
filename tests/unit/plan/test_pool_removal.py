# SPDX-License-Identifier: Apache-2.0
"""The removal of pools: what is refused, and what becomes of blocks and claims."""

from __future__ import annotations

from ansible_collections.podnet.ipam.plugins.module_utils._plan import pools
from support.pool_plans import OWNED, block, claim, declare, names_of, observe, stored

GONE = declare({"name": "a"}, state="absent")
FORCED = declare({"name": "a"}, state="absent", force=True)


def cluster(*blocks, affinities=(), disabled=True, others=()):
    pool = stored("a", OWNED, cidr="10.244.0.0/16", disabled=disabled)
    return observe(pool, *others, blocks=blocks, affinities=affinities)


def of_pod(cidr, namespace, name):
    attribute = {"handle_id": "net.1", "secondary": {"namespace": namespace, "pod": name, "node": "node-1"}}
    return block(cidr, "net.1", attributes=[attribute])


def test_a_pool_in_use_is_not_removed_and_its_holders_are_counted():
    existing = cluster(block("10.244.1.0/26", *(f"net.{index}" for index in range(7))), block("10.244.2.0/26"))
    plan = pools.plan(GONE, existing)
    assert plan.operations == []
    [problem] = plan.problems
    assert "it cannot be removed with 7 addresses of 10.244.0.0/16 in use" in problem.message
    assert "handle net.4 and 2 more (blocks 10.244.1.0/26)" in problem.message
    assert problem.message.endswith("; force removes it all the same; it is disabled, nothing new comes from it")


def test_the_refusal_lists_every_address_for_programs():
    [problem] = pools.plan(GONE, cluster(of_pod("10.244.1.0/26", "pay", "web-0"))).problems
    assert problem.describe()["in_use"] == [
        {"pool": "a", "address": "10.244.1.0", "namespace": "pay", "pod": "web-0", "handle": "net.1"}
    ]


def test_where_no_blocks_are_served_only_force_removes_a_pool():
    existing = observe(stored("a", OWNED, cidr="10.244.0.0/16"), blocks=None)
    [problem] = pools.plan(GONE, existing).problems
    assert problem.message.endswith("the cluster does not serve IPAMBlocks; force removes it all the same")
    plan = pools.plan(FORCED, existing)
    assert names_of(plan.operations) == [("patch", "IPPool", "a"), ("delete", "IPPool", "a")]
    assert plan.warnings == [
        "pool a is removed; whether addresses of it are in use, nobody can tell: the cluster does not serve IPAMBlocks"
    ]


def test_force_releases_the_blocks_as_calico_does():
    held, free = of_pod("10.244.1.0/26", "pay", "web-0"), block("10.244.2.0/26")
    plan = pools.plan(FORCED, cluster(held, free, affinities=(claim("10.244.1.0/26"), claim("10.244.2.0/26"))))
    assert names_of(plan.operations) == [
        ("patch", "BlockAffinity", "node-1-10-244-1-0-26"),
        ("patch", "BlockAffinity", "node-1-10-244-2-0-26"),
        ("delete", "IPAMBlock", "10-244-2-0-26"),
        ("replace", "IPAMBlock", "10-244-1-0-26"),
        ("delete", "BlockAffinity", "node-1-10-244-1-0-26"),
        ("delete", "BlockAffinity", "node-1-10-244-2-0-26"),
        ("delete", "IPPool", "a"),
    ]
    assert plan.operations[0].body == {"spec": {"state": "pendingDeletion"}}
    written, before = plan.operations[3].body["spec"], held["spec"]
    assert before.keys() - written.keys() == {"affinity", "affinityClaimTime"}
    differing = {key: value for key, value in written.items() if before[key] != value}
    assert differing == {"sequenceNumber": before["sequenceNumber"] + 1}


def test_force_says_which_pods_keep_addresses():
    plan = pools.plan(FORCED, cluster(of_pod("10.244.1.0/26", "pay", "web-0")))
    assert plan.results["in_use"] == [
        {"pool": "a", "address": "10.244.1.0", "namespace": "pay", "pod": "web-0", "handle": "net.1"}
    ]
    [warning] = plan.warnings
    assert warning.startswith("pool a is removed with 1 address of 10.244.0.0/16 in use, by pod pay/web-0 (")


def test_a_pool_that_still_gives_out_addresses_is_disabled_first_and_planned_anew():
    first = pools.plan(FORCED, cluster(disabled=False)).operations[0]
    assert (first.verb, first.body, first.settles) == ("patch", {"spec": {"disabled": True}}, True)


def test_what_is_soft_deleted_counts_as_absent_and_goes_with_the_pool():
    held = block("10.244.1.0/26", "net.a", deleted=True)
    plan = pools.plan(GONE, cluster(held, affinities=(claim("10.244.1.0/26", deleted="true"),)))
    assert plan.problems == [] and plan.results["in_use"] == []
    assert names_of(plan.operations) == [
        ("delete", "IPAMBlock", "10-244-1-0-26"),
        ("delete", "BlockAffinity", "node-1-10-244-1-0-26"),
        ("delete", "IPPool", "a"),
    ]
    assert pools.plan(GONE, cluster(affinities=(claim("10.244.1.0/26", deleted=True),))).operations[0].verb == "delete"


def test_what_windows_sets_aside_is_no_use():
    plan = pools.plan(GONE, cluster(block("10.244.1.0/26", *["windows-reserved-ipam-handle"] * 3)))
    assert names_of(plan.operations)[0] == ("delete", "IPAMBlock", "10-244-1-0-26")


def test_a_resting_address_is_one_in_use_of_an_unknown_holder():
    resting = block("10.244.1.0/26", "x", attributes=[{"releasedAt": "2026-08-21T09:40:00Z"}])
    [problem] = pools.plan(GONE, cluster(resting)).problems
    assert "by an unknown holder (10.244.1.0)" in problem.message


def test_a_block_without_a_node_is_left_as_it_is():
    plan = pools.plan(FORCED, cluster(block("10.244.1.0/26", "net.a", affinity=None)))
    assert names_of(plan.operations) == [("delete", "IPPool", "a")]


def test_blocks_outside_of_a_removed_pool_stay():
    existing = observe(
        stored("a", cidr="10.244.0.0/24", disabled=True),
        blocks=(block("10.244.0.64/26"), block("10.244.1.0/26", "net.a")),
        affinities=(claim("10.244.1.0/26"),),
    )
    plan = pools.plan(GONE, existing)
    assert [each.name for each in plan.operations] == ["10-244-0-64-26", "a"]


def test_of_pools_that_overlap_one_can_be_removed_without_taking_anything_from_the_other():
    home = stored("home", cidr="10.244.1.0/24")
    blocks = (block("10.244.1.0/26", "net.a"), block("10.244.2.0/26"))
    existing = cluster(*blocks, affinities=(claim("10.244.1.0/26"), claim("10.244.2.0/26")), others=(home,))
    plan = pools.plan(GONE, existing)
    assert plan.problems == []
    assert {each.name for each in plan.operations} == {"10-244-2-0-26", "node-1-10-244-2-0-26", "a"}


def test_a_range_that_is_stored_with_host_bits_is_the_one_that_calico_gives_addresses_of():
    loose = stored("a", cidr="10.244.1.7/24", disabled=True)
    [problem] = pools.plan(GONE, observe(loose, blocks=(block("10.244.1.0/26", "net.a"),))).problems
    assert "it cannot be removed with 1 address of 10.244.1.0/24 in use" in problem.message
    [problem] = pools.plan(declare({"name": "b", "cidr": "10.244.0.0/16"}), observe(loose)).problems
    assert "overlaps pool a (10.244.1.0/24)" in problem.message
    assert pools.plan(declare({"name": "a", "cidr": "10.244.1.0/24", "disabled": True}), observe(loose)).problems == []
    kept = observe(stored("b", cidr="10.244.0.0/16", disabled=True), loose, blocks=(block("10.244.1.0/26"),))
    assert names_of(pools.plan(declare({"name": "b"}, state="absent"), kept).operations) == [("delete", "IPPool", "b")]


def test_a_pool_whose_cidr_cannot_be_read_can_still_be_removed():
    plan = pools.plan(GONE, observe(stored("a", cidr="nonsense", disabled=True), blocks=(block("10.244.1.0/26"),)))
    assert names_of(plan.operations) == [("delete", "IPPool", "a")]
