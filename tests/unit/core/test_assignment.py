# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

V4, V6 = "cni.projectcalico.org/ipv4pools", "cni.projectcalico.org/ipv6pools"


@pytest.fixture
def pools(core):
    def pool(name, cidr, **spec):
        return core.pool.Pool.from_object({"metadata": {"name": name}, "spec": {"cidr": cidr, **spec}})

    return [
        pool("disabled", "10.244.96.0/20", disabled=True),
        pool("legacy-firewall", "10.244.64.0/20", assignmentMode="Manual"),
        pool("payments", "10.244.32.0/20", assignmentMode="Manual"),
        pool("rack-1", "10.244.0.0/20", nodeSelector="rack == '1'"),
        pool("rack-2", "10.244.16.0/20", nodeSelector="rack == '2'"),
        pool("tunnels", "10.244.112.0/20", allowedUses=["Tunnel"]),
        pool("v6", "fd00:10:244::/64"),
    ]


@pytest.fixture
def subject(core):
    def make(pod=None, namespace=None, **others):
        return core.assignment.Subject(
            namespace="payments",
            name="web-1",
            node="worker",
            pod_annotations=pod or {},
            namespace_annotations=namespace or {},
            node_labels={"rack": "1"},
            **others,
        )

    return make


def names(choice):
    return [pool.name for pool in choice.pools]


def test_without_annotations_the_selectors_decide(core, pools, subject):
    choice = core.assignment.choose(4, subject(), pools)
    assert names(choice) == ["rack-1"]
    assert choice.source == "selectors of the pool"
    assert dict(choice.refused) == {
        "disabled": "it is disabled",
        "legacy-firewall": "assignmentMode is Manual: it serves only who asks for it by name",
        "payments": "assignmentMode is Manual: it serves only who asks for it by name",
        "rack-2": "nodeSelector \"rack == '2'\" does not match the node's labels",
        "tunnels": "allowedUses ['Tunnel'] does not contain Workload",
    }


def test_the_namespace_wins_over_selectors_and_configuration(core, pools, subject):
    choice = core.assignment.choose(4, subject(namespace={V4: '["payments"]'}, configured={4: ["rack-1"]}), pools)
    assert names(choice) == ["payments"]
    assert choice.source == f"annotation {V4} of namespace payments"


def test_the_pod_wins_over_the_namespace_and_replaces_it(core, pools, subject):
    pod = subject(pod={V4: '["legacy-firewall", "rack-2"]'}, namespace={V4: '["payments"]'})
    choice = core.assignment.choose(4, pod, pools)
    assert names(choice) == ["legacy-firewall", "rack-2"], "in the order asked for, whatever the selectors say"
    assert choice.source == f"annotation {V4} of pod payments/web-1"


def test_each_family_is_decided_by_itself(core, pools, subject):
    pod = subject(pod={V4: '["payments"]'}, namespace={V6: '["v6"]'})
    assert names(core.assignment.choose(6, pod, pools)) == ["v6"]


def test_the_configuration_decides_when_no_annotation_does(core, pools, subject):
    choice = core.assignment.choose(4, subject(configured={4: ["rack-2"]}), pools)
    assert (names(choice), choice.source) == (["rack-2"], "the plugin's configuration")


def test_an_empty_value_counts_as_absent(core, pools, subject):
    assert names(core.assignment.choose(4, subject(pod={V4: ""}, namespace={V4: '["payments"]'}), pools)) == [
        "payments"
    ]


@pytest.mark.parametrize("value", ("[]", "null"))
def test_an_empty_list_lifts_every_restriction_even_the_configured_one(core, pools, subject, value):
    pod = subject(pod={V4: value}, namespace={V4: '["payments"]'}, configured={4: ["rack-2"]})
    assert names(core.assignment.choose(4, pod, pools)) == ["rack-1"]


def test_a_pool_may_be_asked_for_by_its_cidr(core, pools, subject):
    assert names(core.assignment.choose(4, subject(pod={V4: '["10.244.32.0/20"]'}), pools)) == ["payments"]


def test_a_pool_that_is_named_twice_is_tried_once(core, pools, subject):
    assert names(core.assignment.choose(4, subject(pod={V4: '["payments", "payments"]'}), pools)) == ["payments"]


@pytest.mark.parametrize(
    ("value", "message"),
    (
        (
            '["nope"]',
            "names pool 'nope', which does not exist; pools of this family: disabled, legacy-firewall, payments,",
        ),
        ('["10.244.32.0/24"]', "names pool '10.244.32.0/24', which does not exist"),
        ('["v6"]', "names pool 'v6', which is IPv6 (fd00:10:244::/64)"),
        ('["disabled"]', "names pool 'disabled', but it is disabled"),
        ('["tunnels"]', "names no usable pool: tunnels: allowedUses ['Tunnel'] does not contain Workload"),
        ("payments", "is not JSON: 'payments'"),
        ('["payments",]', "is not JSON"),
        ('"payments"', "is not a JSON list of strings"),
        ("[1]", "is not a JSON list of strings: '[1]'"),
    ),
)
def test_an_unusable_annotation_is_named_with_its_object_and_value(core, pools, subject, value, message):
    with pytest.raises(core.assignment.AssignmentError) as caught:
        core.assignment.choose(4, subject(namespace={V4: value}), pools)
    assert f"pod payments/web-1: annotation {V4} of namespace payments" in str(caught.value)
    assert message in str(caught.value)


def test_a_node_that_no_pool_serves_is_told_why_for_each_pool(core, pools, subject):
    with pytest.raises(core.assignment.AssignmentError) as caught:
        core.assignment.choose(4, subject(), [pool for pool in pools if pool.name in ("rack-2", "payments")])
    assert "no IPv4 pool serves it on node worker: payments: assignmentMode is Manual" in str(caught.value)
    assert "rack-2: nodeSelector" in str(caught.value)


def test_a_cluster_without_pools_says_so(core, subject):
    with pytest.raises(core.assignment.AssignmentError, match="there is no IPv6 pool at all"):
        core.assignment.choose(6, subject(), [])


def test_families_follow_pod_then_namespace_then_configuration(core, subject):
    key = core.assignment.FAMILIES_ANNOTATION
    assert core.assignment.families(subject(), [4]) == (4,)
    assert core.assignment.families(subject(namespace={key: '["IPv6"]'}), [4]) == (6,)
    assert core.assignment.families(subject(pod={key: '["IPv6","IPv4"]'}, namespace={key: '["IPv6"]'}), [4]) == (4, 6)


@pytest.mark.parametrize("value", ('["ipv4"]', "[]"))
def test_an_unknown_family_is_refused_with_the_value(core, subject, value):
    with pytest.raises(core.assignment.AssignmentError) as caught:
        core.assignment.families(subject(pod={core.assignment.FAMILIES_ANNOTATION: value}), [4])
    assert f"{value!r}; it must list IPv4, IPv6 or both" in str(caught.value)
