# SPDX-License-Identifier: Apache-2.0
"""What a repair writes: no more than is wrong, each object once, and afterwards everything fits together."""

from __future__ import annotations

import copy

import pytest
from ansible_collections.podnet.ipam.plugins.module_utils._plan.audit import Audit
from ansible_collections.podnet.ipam.plugins.module_utils._plan.finding import REPAIRS
from hypothesis import given, settings
from hypothesis import strategies as st
from support.worlds import SEQUENCE, WorldBuilder

EVERYTHING = tuple(REPAIRS)
GRACE = 300
GONE = {"namespace": "payments", "pod": "gone", "node": "node-1"}


def plan(cluster, wanted=EVERYTHING):
    return Audit(cluster.observed(), GRACE).plan(wanted)


def writes(cluster, wanted=EVERYTHING):
    return [(each.verb, each.kind, each.name) for each in plan(cluster, wanted).operations]


def repaired(cluster, wanted=EVERYTHING):
    """Carry out a plan, see that another one finds nothing to do, and return it."""
    outcome = plan(cluster, wanted)
    objects = [(each.kind, each.name) for each in outcome.operations if each.verb != "create"]
    assert len(set(objects)) == len(objects), "an object is written twice"
    cluster.carry_out(outcome.operations)
    assert plan(cluster, wanted).operations == []
    return outcome


@pytest.fixture
def cluster():
    cluster = WorldBuilder()
    cluster.pod("web-0")
    cluster.pod("web-1")
    return cluster


def test_without_being_told_nothing_is_repaired(cluster):
    cluster.allocate("a", "node-1", "net.gone", GONE)
    cluster.handle("net.other", {})
    cluster.handle("net.payments-web-0", {"10.244.0.0/28": 3})
    cluster.affinity("node-1", "10.244.9.0/28")
    outcome = plan(cluster, [])
    assert outcome.operations == [] and outcome.before == outcome.after == {}
    assert {each["check"]: each["repair"] for each in outcome.results["findings"]} == {
        "leaked": "leaks",
        "leaked_handle": "handles",
        "handle_count": "handles",
        "affinity_without_block": "affinities",
    }
    assert not any(each["repaired"] for each in outcome.results["findings"])


def test_a_leaked_address_is_released_in_the_block_and_then_in_the_handle(cluster):
    address = cluster.allocate("a", "node-1", "net.gone", GONE)
    before = copy.deepcopy(cluster.block_at(address)["spec"])
    assert writes(cluster, ["leaks"]) == [
        ("replace", "IPAMBlock", "10-244-0-0-28"),
        ("delete", "IPAMHandle", "net.gone"),
    ]
    repaired(cluster, ["leaks"])
    spec = cluster.block_at(address)["spec"]
    assert spec["unallocated"] == [*before["unallocated"], 2], "freed addresses go to the end"
    assert spec["sequenceNumber"] == before["sequenceNumber"] + 1
    assert spec["sequenceNumberForAllocation"].keys() == {"0", "1"}
    assert spec["attributes"] == before["attributes"][:2]
    assert plan(cluster).results["clean"]


def test_attributes_are_renumbered_when_one_in_the_middle_goes(cluster):
    address = cluster.allocate("a", "node-1", "net.gone", GONE)
    cluster.pod("web-2")
    repaired(cluster, ["leaks"])
    spec = cluster.block_at(address)["spec"]
    assert spec["allocations"][:4] == [0, 1, None, 2]
    assert [each["secondary"]["pod"] for each in spec["attributes"]] == ["web-0", "web-1", "web-2"]


def test_several_leaks_of_a_block_are_one_write(cluster):
    for index in range(3):
        cluster.allocate("a", "node-1", f"net.gone-{index}", GONE)
    assert [write[:2] for write in writes(cluster, ["leaks"])] == [("replace", "IPAMBlock")] + [
        ("delete", "IPAMHandle")
    ] * 3


def test_both_addresses_of_a_handle_are_released(cluster):
    cluster.pod("gone", pools=("a", "six"))
    cluster.remove("Pod", "gone", "payments")
    outcome = repaired(cluster, ["leaks"])
    assert [(each.verb, each.kind) for each in outcome.operations] == [
        ("replace", "IPAMBlock"),
        ("replace", "IPAMBlock"),
        ("delete", "IPAMHandle"),
    ]
    assert plan(cluster).results["clean"]


def test_an_emptied_block_stays_with_its_node_and_goes_without_one(cluster):
    cluster.pod("gone", pools=("b",))
    cluster.remove("Pod", "gone", "payments")
    kept = copy.deepcopy(cluster)
    repaired(kept, ["leaks"])
    assert kept.blocks_of("b", "node-1"), "the node still has its block"
    [block] = cluster.blocks_of("b", "node-1")
    block["spec"]["affinity"] = None
    cluster.remove("BlockAffinity", f"node-1-{block['metadata']['name']}")
    assert ("delete", "IPAMBlock", block["metadata"]["name"]) in writes(cluster, ["leaks"])
    repaired(cluster, ["leaks"])
    assert plan(cluster).results["clean"]


def test_what_is_on_its_way_or_may_be_needed_stays(cluster):
    cluster.allocate("a", "node-1", "net.new", {**GONE, "timestamp": "2026-08-22 09:59:00 +0000 UTC"})
    cluster.allocate("a", "node-1", "net.second", {**GONE, "pod": "web-0"})
    cluster.allocate("a", "node-1", "net.unknown", {"node": "node-1"})
    assert writes(cluster) == []


def test_an_invalid_block_is_not_touched(cluster):
    address = cluster.allocate("a", "node-1", "net.gone", GONE)
    cluster.block_at(address)["spec"]["unallocated"].pop()
    assert writes(cluster) == []


def test_an_invalid_block_of_a_node_that_is_gone_is_reported_and_left_alone(cluster):
    block = cluster.claim("b", "node-2")
    cluster.remove("BlockAffinity", f"node-2-{block['metadata']['name']}")
    cluster.remove("Node", "node-2")
    block["spec"]["unallocated"].pop()
    assert writes(cluster) == []
    [finding] = [each for each in plan(cluster).results["findings"] if each["check"] == "block_without_affinity"]
    assert finding["message"].endswith("not repaired: the block is invalid") and not finding["repaired"]


def test_a_handle_keeps_what_it_holds_elsewhere(cluster):
    cluster.allocate("a", "node-1", "net.gone", GONE)
    cluster.handle("net.gone", {"10.244.0.0/28": 1, "10.244.9.0/28": 1})
    repaired(cluster, ["leaks"])
    assert cluster.get("IPAMHandle", "net.gone")["spec"]["block"] == {"10.244.9.0/28": 1}
    repaired(cluster, ["handles"])
    assert plan(cluster).results["clean"]


def test_handles_are_made_to_say_what_the_blocks_say(cluster):
    cluster.handle("net.orphan", {"10.244.0.0/28": 1})
    cluster.handle("net.payments-web-0", {"10.244.0.0/28": 2})
    cluster.remove("IPAMHandle", "net.payments-web-1")
    assert writes(cluster, ["handles"]) == [
        ("replace", "IPAMHandle", "net.payments-web-0"),
        ("delete", "IPAMHandle", "net.orphan"),
        ("create", "IPAMHandle", "net.payments-web-1"),
    ]
    outcome = repaired(cluster, ["handles"])
    assert outcome.after["handle net.payments-web-1"] == {
        "handle": "net.payments-web-1",
        "blocks": {"10.244.0.0/28": 1},
    }
    assert outcome.after["handle net.orphan"] is None
    assert plan(cluster).results["clean"]


def test_a_missing_handle_of_a_leaked_address_is_not_made_first(cluster):
    cluster.allocate("a", "node-1", "net.gone", GONE)
    cluster.remove("IPAMHandle", "net.gone")
    assert writes(cluster) == [("replace", "IPAMBlock", "10-244-0-0-28")]


def test_the_remains_of_a_handle_are_removed_before_it_is_made_again(cluster):
    cluster.get("IPAMHandle", "net.payments-web-0")["spec"]["deleted"] = True
    assert writes(cluster, ["handles"]) == [
        ("delete", "IPAMHandle", "net.payments-web-0"),
        ("create", "IPAMHandle", "net.payments-web-0"),
    ]
    repaired(cluster)


def test_claims_without_their_block_go(cluster):
    cluster.affinity("node-1", "10.244.9.0/28")
    cluster.affinity("node-2", "10.244.0.0/28")
    assert writes(cluster, ["affinities"]) == [
        ("delete", "BlockAffinity", "node-1-10-244-9-0-28"),
        ("delete", "BlockAffinity", "node-2-10-244-0-0-28"),
    ]
    repaired(cluster)
    assert plan(cluster).results["clean"]


def test_a_block_gets_the_claim_of_its_node_back(cluster):
    lost = cluster.remove("BlockAffinity", "node-1-10-244-0-0-28")
    outcome = repaired(cluster, ["affinities"])
    [operation] = outcome.operations
    assert (operation.verb, operation.kind, operation.name) == ("create", "BlockAffinity", lost["metadata"]["name"])
    assert operation.body["labels"] == lost["metadata"]["labels"]
    assert operation.body["spec"] == {key: value for key, value in lost["spec"].items() if key != "deleted"}


def test_the_remains_of_a_claim_are_removed_before_it_is_made_again(cluster):
    cluster.get("BlockAffinity", "node-1-10-244-0-0-28")["spec"]["deleted"] = "true"
    assert [write[0] for write in writes(cluster, ["affinities"])] == ["delete", "create"]
    repaired(cluster)
    assert plan(cluster).results["clean"]


def test_blocks_of_a_node_that_is_gone_lose_it_or_go(cluster):
    cluster.remove("Node", "node-1")
    empty = cluster.claim("b", "node-1")
    used = cluster.block_at("10.244.0.0")
    for block in (empty, used):
        cluster.remove("BlockAffinity", f"node-1-{block['metadata']['name']}")
    assert writes(cluster, ["affinities"]) == [
        ("replace", "IPAMBlock", used["metadata"]["name"]),
        ("delete", "IPAMBlock", empty["metadata"]["name"]),
    ]
    repaired(cluster, ["affinities"])
    spec = cluster.block_at("10.244.0.0")["spec"]
    assert "affinity" not in spec and "affinityClaimTime" not in spec
    assert spec["sequenceNumber"] > SEQUENCE
    assert plan(cluster).results["clean"]


def test_claims_of_a_node_that_is_gone_go_and_its_blocks_with_them_unless_somebody_has_addresses(cluster):
    used = cluster.block_at("10.244.0.0")
    empty = cluster.claim("b", "node-1")
    for name in ("web-0", "web-1"):
        cluster.get("Pod", name, "payments")["spec"]["nodeName"] = "node-2"
    cluster.remove("Node", "node-1")
    assert writes(cluster, ["affinities"]) == [
        ("replace", "IPAMBlock", used["metadata"]["name"]),
        ("delete", "IPAMBlock", empty["metadata"]["name"]),
        ("delete", "BlockAffinity", f"node-1-{used['metadata']['name']}"),
        ("delete", "BlockAffinity", f"node-1-{empty['metadata']['name']}"),
    ]
    repaired(cluster, ["affinities"])
    assert "affinity" not in cluster.block_at("10.244.0.0")["spec"]
    assert plan(cluster).results["clean"]


def test_all_that_a_node_left_behind_goes_in_one_run(cluster):
    cluster.pod("gone", node="node-2", pools=("b", "six"))
    cluster.tunnel("node-2")
    cluster.spare("node-2")
    cluster.remove("Pod", "gone", "payments")
    cluster.remove("Node", "node-2")
    repaired(cluster)
    assert plan(cluster).results["clean"]
    assert all("node-2" not in str(obj) for obj in cluster.stored.values())


def test_a_block_of_a_lost_node_with_nothing_but_leaks_is_one_write(cluster):
    cluster.pod("gone", node="node-2", pools=("b",))
    cluster.remove("Pod", "gone", "payments")
    [block] = cluster.blocks_of("b", "node-2")
    cluster.remove("BlockAffinity", f"node-2-{block['metadata']['name']}")
    cluster.remove("Node", "node-2")
    assert writes(cluster) == [
        ("delete", "IPAMBlock", block["metadata"]["name"]),
        ("delete", "IPAMHandle", "net.payments-gone"),
    ]
    repaired(cluster)
    assert plan(cluster).results["clean"]


def test_fields_that_are_not_known_here_are_carried_over(cluster):
    cluster.allocate("a", "node-1", "net.gone", GONE)
    block = cluster.block_at("10.244.0.0")
    block["spec"]["someday"] = {"a": 1}
    block["spec"]["attributes"][0]["alternateOwnerAttrs"] = {"pod": "b"}
    repaired(cluster)
    spec = cluster.block_at("10.244.0.0")["spec"]
    assert spec["someday"] == {"a": 1} and spec["attributes"][0]["alternateOwnerAttrs"] == {"pod": "b"}


def test_the_views_name_addresses_by_their_pods(cluster):
    cluster.allocate("a", "node-1", "net.gone", GONE)
    outcome = plan(cluster, ["leaks"])
    name = "block 10.244.0.0/28"
    assert outcome.before[name]["allocated"] == {
        "10.244.0.0": "payments/web-0",
        "10.244.0.1": "payments/web-1",
        "10.244.0.2": "payments/gone",
    }
    assert outcome.after[name]["allocated"].keys() == {"10.244.0.0", "10.244.0.1"}
    assert outcome.before["handle net.gone"]["blocks"] == {"10.244.0.0/28": 1}
    assert outcome.after["handle net.gone"] is None


def _lose(kind):
    def lose(cluster, index):
        keys = [key for key in cluster.stored if key[0] == kind]
        if keys:
            del cluster.stored[keys[index % len(keys)]]

    return lose


def _change(kind, change):
    def breakage(cluster, index):
        objects = cluster.all(kind)
        if objects:
            change(objects[index % len(objects)]["spec"])

    return breakage


BREAKAGES = {
    "a pod is gone": _lose("Pod"),
    "a handle is gone": _lose("IPAMHandle"),
    "a claim is gone": _lose("BlockAffinity"),
    "a block is gone": _lose("IPAMBlock"),
    "a node is gone": _lose("Node"),
    "a handle too many": lambda cluster, _index: cluster.handle("net.orphan", {"10.244.0.0/28": 1}),
    "a claim too many": lambda cluster, _index: cluster.affinity("node-2", "10.244.0.0/28"),
    "a wrong count": _change("IPAMHandle", lambda spec: spec["block"].update({"10.244.0.0/28": 7})),
    "a claim half deleted": _change("BlockAffinity", lambda spec: spec.update(deleted="true")),
    "a handle half deleted": _change("IPAMHandle", lambda spec: spec.update(deleted=True)),
    "a block without node": _change("IPAMBlock", lambda spec: spec.pop("affinity", None)),
}
PODS = st.tuples(st.sampled_from(["node-1", "node-2"]), st.sampled_from([("a",), ("b",), ("a", "six")]))


@given(
    st.lists(PODS, min_size=2, max_size=20),
    st.lists(st.tuples(st.sampled_from(sorted(BREAKAGES)), st.integers(0, 30)), max_size=6),
)
@settings(max_examples=100, deadline=None)
def test_whatever_breaks_a_repair_leaves_nothing_that_it_could_repair(pods, breakages):
    cluster = WorldBuilder()
    for index, (node, pools) in enumerate(pods):
        cluster.pod(f"p-{index}", node=node, pools=pools)
    for name, index in breakages:
        BREAKAGES[name](cluster, index)
    before = allocated_to_pods(cluster)
    repaired(cluster)
    assert [each for each in plan(cluster).results["findings"] if each["repair"]] == []
    assert allocated_to_pods(cluster) == before, "an address that is in use was released"


def allocated_to_pods(cluster):
    """(CIDR of the block, ordinal, pod) of what is allocated for pods that exist."""
    return {
        (block["spec"]["cidr"], ordinal, owner["pod"])
        for block in cluster.all("IPAMBlock")
        for ordinal, owner in holders(block["spec"])
        if ("Pod", owner.get("namespace"), owner.get("pod")) in cluster.stored
    }


def holders(spec):
    for ordinal, index in enumerate(spec["allocations"]):
        if index is not None:
            yield ordinal, spec["attributes"][index]["secondary"]
