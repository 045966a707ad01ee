# SPDX-License-Identifier: Apache-2.0
"""Which pools a pod would draw from, and why not from the others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.podnet.ipam.plugins.module_utils._core.block import Block
from ansible_collections.podnet.ipam.plugins.module_utils._core.pool import Pool
from ansible_collections.podnet.ipam.plugins.module_utils._plan import explain, usage

POOLS = "cni.projectcalico.org/ipv4pools"
POOL6 = "cni.projectcalico.org/ipv6pools"
FAMILIES = "cni.projectcalico.org/ipFamilies"
FIXED = "cni.projectcalico.org/ipAddrs"


def pool(name, cidr, **spec):
    return Pool.from_object({"metadata": {"name": name}, "spec": {"cidr": cidr, **spec}})


def named(**objects):
    return {name: {"metadata": {"name": name, **metadata}} for name, metadata in objects.items()}


@pytest.fixture
def observed():
    pools = (
        pool("rack-1", "10.0.0.0/24", nodeSelector="rack == '1'"),
        pool("rack-2", "10.0.1.0/24", nodeSelector="rack == '2'"),
        pool("teams", "10.0.2.0/24", namespaceSelector="has(team)"),
        pool("manual", "10.0.3.0/24", assignmentMode="Manual"),
        pool("off", "10.0.4.0/24", disabled=True),
        pool("six", "fd00::/64"),
    )
    return explain.Observed(
        namespaces=named(plain={}, own={"annotations": {POOLS: '["manual","rack-2"]'}}),
        nodes=named(n={"labels": {"rack": "1"}}),
        pods={("plain", "web-0"): {"metadata": {"annotations": {POOLS: '["rack-2"]'}}}},
        pools={each.name: each for each in pools},
    )


def ask(observed, namespace="plain", node="n", **question):
    question = {"pod": None, "annotations": None, "labels": None, "families": ["IPv4", "IPv6"], **question}
    question |= {"namespace": namespace, "node": node}
    problems = list(explain.problems([question], observed))
    assert problems == []
    return explain.explain(question, observed)


def reasons(choice):
    return {each["name"]: each["reason"] for each in choice["refused"]}


def test_without_any_assignment_the_selectors_decide_and_every_other_pool_has_its_reason(observed):
    answer = ask(observed)
    assert answer["families"] == ["IPv4", "IPv6"] and answer["families_source"] == "the default families"
    assert answer["ipv4"]["pools"] == ["rack-1"] and answer["ipv4"]["source"] == "selectors of the pool"
    assert reasons(answer["ipv4"]) == {
        "rack-2": "nodeSelector \"rack == '2'\" does not match the node's labels",
        "teams": "namespaceSelector 'has(team)' does not match the namespace's labels",
        "manual": "assignmentMode is Manual: it serves only who asks for it by name",
        "off": "it is disabled",
    }
    six = answer["ipv6"]
    assert (six["pools"], six["source"]) == (["six"], "selectors of the pool")
    assert (six["pool"], six["refused"], six["error"]) == ("six", [], None)


def test_a_namespaces_pools_are_tried_in_its_order_whatever_they_select(observed):
    choice = ask(observed, "own")["ipv4"]
    assert choice["pools"] == ["manual", "rack-2"]
    assert choice["source"] == f"annotation {POOLS} of namespace own"
    assert reasons(choice)["rack-1"] == f"annotation {POOLS} of namespace own does not name it"


def test_annotations_that_are_given_win_and_may_be_lists(observed):
    for value in (["rack-2"], '["rack-2"]'):
        choice = ask(observed, "own", annotations={POOLS: value})["ipv4"]
        assert choice["pools"] == ["rack-2"] and "of pod own/(new)" in choice["source"]


def test_the_annotations_of_a_pod_that_exists_count_unless_others_are_given(observed):
    assert ask(observed, pod="web-0")["ipv4"]["pools"] == ["rack-2"]
    assert ask(observed, pod="web-0", annotations={})["ipv4"]["pools"] == ["rack-1"]
    assert ask(observed, pod="web-9")["ipv4"]["pools"] == ["rack-1"]


def test_labels_stand_in_for_those_of_the_namespace(observed):
    assert ask(observed, labels={"team": 1})["ipv4"]["pools"] == ["rack-1", "teams"]


def test_families_come_from_the_annotation_or_the_question(observed):
    answer = ask(observed, annotations={FAMILIES: '["IPv6"]'})
    assert answer["families"] == ["IPv6"] and answer["ipv4"] is None and answer["ipv6"]["pools"] == ["six"]
    assert answer["families_source"] == f"annotation {FAMILIES} of pod plain/(new)"
    assert ask(observed, families=["IPv4"])["ipv6"] is None
    broken = ask(observed, annotations={FAMILIES: '["IPv5"]'})
    assert broken["families"] == [] and "it must list IPv4, IPv6 or both" in broken["error"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("rack-1", "is not JSON"),
        ('["nowhere"]', "does not exist"),
        ('["off"]', "it is disabled"),
        ('["six"]', "is IPv6"),
    ],
)
def test_what_no_pool_can_serve_is_an_error_of_that_family(observed, value, text):
    answer = ask(observed, annotations={POOLS: value})
    assert answer["ipv4"]["pools"] == [] and text in answer["ipv4"]["error"] and answer["error"] is None
    assert answer["ipv6"]["pools"] == ["six"]


def test_fixed_addresses_make_pools_meaningless(observed):
    answer = ask(observed, annotations={FIXED: '["10.0.4.7","fd00::7"]', POOLS: '["rack-1"]'})
    assert answer["families"] == ["IPv4", "IPv6"]
    assert answer["ipv4"]["error"] == "10.0.4.7 lies in pool off, but it is disabled"
    assert answer["ipv6"]["pools"] == ["six"] and "fd00::7" in answer["ipv6"]["source"]
    assert "lies in no pool" in ask(observed, annotations={FIXED: '["10.9.9.9"]'})["ipv4"]["error"]
    for value, text in (("10.0.0.1", "is not JSON"), ("[]", "at least one address"), ('["a"]', "is no IP address")):
        assert text in ask(observed, annotations={FIXED: value})["error"]


def test_namespaces_and_nodes_that_do_not_exist_are_problems_all_together(observed):
    questions = [{"namespace": "nowhere", "node": "n"}, {"namespace": "plain", "node": "m"}]
    assert [(each.option, each.value) for each in explain.problems(questions, observed)] == [
        ("namespace", "nowhere"),
        ("node", "m"),
    ]


LONG_AGO = "2026-01-01T00:00:00Z"
TWO_POOLS = ("manual", "rack-2")


def block(cidr, node, used=0, pod="web-0", claimed=LONG_AGO):
    size = 1 << (32 - int(cidr.partition("/")[2]))
    stored = Block.empty(cidr, size, f"host:{node}" if node else None, 1, claimed)
    for number in range(used):
        stored.assign(f"net.{pod}-{number}", {"namespace": "plain", "pod": pod, "node": node})
    return {"metadata": {"name": cidr}, "spec": stored.spec()}


def claim(cidr, node, state="confirmed"):
    return {"metadata": {"name": f"{node}-{cidr}"}, "spec": {"cidr": cidr, "node": node, "state": state}}


def blocks_of(node, used, *cidrs, **spec):
    return tuple(block(cidr, node, used, **spec) for cidr in cidrs), tuple(claim(cidr, node) for cidr in cidrs)


def with_blocks(observed, *groups, **fields):
    """`observed`, with what `blocks_of` gives, and other fields."""
    blocks, claims = (sum(parts, ()) for parts in zip(*groups, strict=True)) if groups else ((), ())
    return replace(observed, blocks=blocks, affinities=claims, now=1.8e9, **fields)


def choose(observed, names=TWO_POOLS):
    return ask(observed, annotations={POOLS: names}, families=["IPv4"])["ipv4"]


def ways(choice):
    return [(each["name"], each["way"], each["free"]) for each in choice["room"]]


MANUAL = [f"10.0.3.{start}/26" for start in (0, 64, 128, 192)]
RACK_2 = [f"10.0.1.{start}/26" for start in (0, 64, 128, 192)]
STRICT = {"spec": {"strictAffinity": True}}


def test_an_empty_cluster_gives_a_new_block_of_the_first_pool(observed):
    choice = choose(observed)
    assert choice["pool"] == "manual" and ways(choice) == [("manual", "new_block", 64), ("rack-2", "new_block", 64)]
    assert choice["room"][0]["block"] in MANUAL
    assert [each["reason"] for each in choice["room"]] == [None, "pool manual comes before it"]


def test_a_block_of_the_nodes_own_comes_before_the_order_of_the_pools(observed):
    choice = choose(with_blocks(observed, blocks_of("n", 60, RACK_2[0])))
    assert choice["pool"] == "rack-2" and ways(choice) == [("manual", "new_block", 64), ("rack-2", "own_block", 4)]
    new = choice["room"][0]["block"]
    assert choice["room"][0]["reason"] == (
        f"node n would claim its block {new}, and before that comes pool rack-2:"
        " node n has a block of it with free addresses"
    )


def test_a_full_pool_is_passed_over_and_says_why(observed):
    choice = choose(with_blocks(observed, blocks_of("n", 64, *MANUAL[:2]), blocks_of("m", 64, *MANUAL[2:])))
    assert choice["pool"] == "rack-2" and ways(choice)[0] == ("manual", None, 0)
    assert choice["room"][0]["reason"] == (
        "node n has no block of it with a free address; each of its blocks is claimed or in use;"
        " no other node has an empty one; none of its blocks has an address to lend"
    )


def test_an_empty_block_of_another_node_is_taken_over_unless_it_was_claimed_just_now(observed):
    others = blocks_of("m", 64, *MANUAL[1:])
    choice = choose(with_blocks(observed, others, blocks_of("m", 0, MANUAL[0])), ["manual"])
    assert ways(choice) == [("manual", "empty_block", 64)] and choice["room"][0]["block"] == MANUAL[0]
    young = blocks_of("m", 0, MANUAL[0], claimed="2027-01-15T08:00:00Z")
    assert ways(choose(with_blocks(observed, others, young), ["manual"])) == [("manual", "borrowed", 64)]


def test_addresses_are_borrowed_where_that_is_allowed(observed):
    others = blocks_of("m", 60, *MANUAL)
    assert ways(choose(with_blocks(observed, others), ["manual"])) == [("manual", "borrowed", 16)]
    strict = choose(with_blocks(observed, others, config=STRICT), ["manual"])
    assert strict["pool"] is None and strict["error"].startswith(
        "pod plain/(new): none of its pools has an address left for node n: manual: node n has no block of it with"
    )
    assert strict["error"].endswith("strictAffinity forbids to borrow")
    record = {"annotations": {"ipam.podnet.io/cni": '{"ipam": "podnet-ipam", "routes": true}'}}
    routed = choose(with_blocks(observed, others, nodes=named(n=record)), ["manual"])
    assert routed["pool"] is None and "the agent's own routes lead to whole blocks" in routed["error"]
    for record in ("no JSON", "[]", '{"ipam": "podnet-ipam"}'):
        nodes = named(n={"annotations": {"ipam.podnet.io/cni": record}})
        assert choose(with_blocks(observed, others, nodes=nodes), ["manual"])["pool"] == "manual"


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        ({"maxBlocksPerHost": 1}, "node n has 1 of these pools' blocks, the limit (maxBlocksPerHost) being 1"),
        ({"autoAllocateBlocks": False}, "autoAllocateBlocks is off"),
    ],
)
def test_a_node_that_may_claim_no_more_gets_nothing_beyond_its_own_blocks(observed, limit, text):
    full = with_blocks(observed, blocks_of("n", 64, RACK_2[0]), config={"spec": {"strictAffinity": True, **limit}})
    choice = choose(full)
    assert choice["pool"] is None and all(text in each["reason"] for each in choice["room"])
    free = with_blocks(observed, blocks_of("n", 63, RACK_2[0]), config={"spec": {"strictAffinity": True, **limit}})
    assert choose(free)["pool"] == "rack-2" and ways(choose(free))[0] == ("manual", None, 0)


def test_reserved_addresses_are_left_out(observed):
    reserved = usage.reserved_ranges([{"spec": {"reservedCIDRs": ["10.0.3.0/24", "10.0.1.0/27"]}}])
    choice = choose(with_blocks(observed, blocks_of("n", 0, RACK_2[0]), reserved=reserved))
    assert choice["pool"] == "rack-2" and ways(choice) == [("manual", None, 0), ("rack-2", "own_block", 32)]
    assert "which would be claimed next, has no address that may be given out" in choice["room"][0]["reason"]


def test_a_claim_that_is_not_confirmed_gives_nothing_yet_and_is_taken_up_first(observed):
    pending = with_blocks(observed)
    pending = replace(pending, blocks=(block(MANUAL[0], "n"),), affinities=(claim(MANUAL[0], "n", "pending"),))
    taken = blocks_of("m", 64, *MANUAL[1:])
    pending = replace(pending, blocks=pending.blocks + taken[0], affinities=pending.affinities + taken[1])
    [left] = choose(pending, ["manual"])["room"]
    assert (left["way"], left["block"]) == ("new_block", MANUAL[0])


def fixed(observed, address, **question):
    return ask(observed, annotations={FIXED: f'["{address}"]'}, **question)["ipv4"]


def test_a_fixed_address_is_refused_when_somebody_else_holds_it_or_its_block_is_out_of_reach(observed):
    held = with_blocks(observed, blocks_of("m", 1, MANUAL[0], pod="web-0"))
    assert fixed(held, "10.0.3.0")["error"] == "10.0.3.0 lies in pool manual, but pod plain/web-0 holds it"
    assert fixed(held, "10.0.3.0", pod="web-0")["pool"] == "manual"
    assert fixed(held, "10.0.3.1")["pool"] == fixed(held, "10.0.3.64")["pool"] == "manual"
    strict = fixed(replace(held, config=STRICT), "10.0.3.1")
    assert strict["pool"] is None and strict["pools"] == ["manual"]
    assert strict["error"] == (
        f"10.0.3.1 lies in pool manual, but its block {MANUAL[0]} is not of node n,"
        " and strictAffinity forbids to borrow"
    )
