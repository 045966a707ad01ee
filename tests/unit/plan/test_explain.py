# SPDX-License-Identifier: Apache-2.0
"""Which pools a pod would draw from, and why not from the others."""

from __future__ import annotations

import pytest
from ansible_collections.podnet.ipam.plugins.module_utils._core.pool import Pool
from ansible_collections.podnet.ipam.plugins.module_utils._plan import explain

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
    assert answer["ipv6"] == {"pools": ["six"], "source": "selectors of the pool", "refused": [], "error": None}


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
