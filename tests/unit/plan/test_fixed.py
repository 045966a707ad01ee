# SPDX-License-Identifier: Apache-2.0
"""Fixed addresses and the workloads that may have them. No API server."""

from __future__ import annotations

import pytest
from ansible_collections.podnet.ipam.plugins.module_utils._plan import fixed, workloads

ADDRS = "cni.projectcalico.org/ipAddrs"
POOLS = {
    "a": {"metadata": {"name": "a"}, "spec": {"cidr": "10.244.0.0/17"}},
    "off": {"metadata": {"name": "off"}, "spec": {"cidr": "10.244.128.0/17", "disabled": True}},
    "six": {"metadata": {"name": "six"}, "spec": {"cidr": "fd00:10:244::/64", "blockSize": 124}},
}


def workload(kind, name="web", **spec):
    template = {"metadata": {}, "spec": {}}
    if kind == "CronJob":
        job = {"template": template, **spec.pop("job", {})}
        return {"metadata": {"name": name, "uid": name}, "spec": {"jobTemplate": {"spec": job}, **spec}}
    return {"metadata": {"name": name, "uid": name}, "spec": {"template": template, **spec}}


def plan_of(*items, **observed):
    """The plan for (kind, name, workload, addresses) each."""
    declared = [
        {"kind": kind, "namespace": "n", "name": name, "ip_addrs": addresses} for kind, name, _each, addresses in items
    ]
    existing = {(kind, "n", name): each for kind, name, each, _addresses in items}
    return workloads.plan(workloads.Desired(tuple(declared)), workloads.Observed(existing, pools=POOLS, **observed))


def messages(*addresses, kind="StatefulSet", each=None, **observed):
    plan = plan_of((kind, "web", each or workload(kind), list(addresses)), **observed)
    assert all(problem.option == "ip_addrs" for problem in plan.problems)
    return [problem.message for problem in plan.problems]


@pytest.mark.parametrize("addresses", [["10.244.0.9"], ["fd00:10:244:0::9"], ["10.244.0.9", "fd00:10:244::9"]])
def test_one_address_of_each_family_in_an_enabled_pool_is_fine(addresses):
    assert messages(*addresses) == []


@pytest.mark.parametrize(
    ("addresses", "message"),
    [
        (["10.244.0.999"], "'10.244.0.999' is no address, such as 10.244.0.10 or fd00::10"),
        (["10.244.0.9/32"], "'10.244.0.9/32' is no address, such as 10.244.0.10 or fd00::10"),
        (["10.244.0.9", "10.244.0.8"], "10.244.0.9 and 10.244.0.8 are both IPv4; a pod has one at most"),
        (["10.9.9.9"], "10.9.9.9 lies in no pool; pools of IPv4: a (10.244.0.0/17), off (10.244.128.0/17)"),
        (["fd00:99::1"], "fd00:99::1 lies in no pool; pools of IPv6: six (fd00:10:244::/64)"),
        (["10.244.128.1"], "10.244.128.1 lies in pool 'off', which cannot be used: it is disabled"),
    ],
)
def test_any_other_address_is_refused(addresses, message):
    assert messages(*addresses) == [message]


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "ReplicaSet"])
def test_only_one_replica_can_have_an_address(kind):
    recreate = {"strategy": {"type": "Recreate"}}
    assert messages("10.244.0.9", kind=kind, each=workload(kind, replicas=1, **recreate)) == []
    assert messages("10.244.0.9", kind=kind, each=workload(kind, replicas=0, **recreate)) == []
    [message] = messages("10.244.0.9", kind=kind, each=workload(kind, replicas=3, **recreate))
    assert message.startswith("replicas is 3, but only one pod can have an address")


def test_only_one_pod_of_a_job_can_have_an_address():
    assert messages("10.244.0.9", kind="CronJob", each=workload("CronJob", job={"parallelism": 1})) == []
    for kind, each in (
        ("Job", workload("Job", parallelism=2)),
        ("CronJob", workload("CronJob", job={"parallelism": 2})),
    ):
        each["spec"]["suspend"] = True
        [message] = messages("10.244.0.9", kind=kind, each=each)
        assert message.startswith("parallelism is 2, but only one pod can have an address")


def test_a_daemonset_cannot_have_a_fixed_address():
    [message] = messages("10.244.0.9", kind="DaemonSet")
    assert message.startswith("a DaemonSet has a pod on each node")


@pytest.mark.parametrize(
    ("strategy", "waits_for_itself"),
    [
        (None, True),
        ({"type": "RollingUpdate"}, True),
        ({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}, True),
        ({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "10%"}}, True),
        ({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0}}, False),
        ({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "0%"}}, False),
        ({"type": "Recreate"}, False),
    ],
)
def test_a_deployment_must_not_start_its_new_pod_before_the_old_one_is_gone(strategy, waits_for_itself):
    each = workload("Deployment", **({"strategy": strategy} if strategy else {}))
    found = messages("10.244.0.9", kind="Deployment", each=each)
    assert bool(found) is waits_for_itself
    assert all("Set the strategy to Recreate, or maxSurge to 0" in message for message in found)


def test_a_cronjob_whose_runs_may_overlap_gives_a_warning():
    def warnings(**spec):
        return plan_of(("CronJob", "web", workload("CronJob", **spec), ["10.244.0.9"])).warnings

    assert "concurrencyPolicy is Allow" in warnings()[0]
    assert warnings(concurrencyPolicy="Forbid") == []


def test_two_workloads_cannot_have_the_same_address_in_whatever_spelling():
    plan = plan_of(
        ("StatefulSet", "one", workload("StatefulSet", "one"), ["fd00:10:244::9"]),
        ("StatefulSet", "two", workload("StatefulSet", "two"), ["fd00:10:244:0::9"]),
    )
    [problem] = plan.problems
    assert str(problem) == ("StatefulSet n/two: ip_addrs: fd00:10:244::9 is also declared for StatefulSet n/one")


def pod(name):
    return {"metadata": {"name": name, "namespace": "n", "uid": name}, "spec": {}}


def use(**holder):
    return {"10.244.0.9": {"address": "10.244.0.9", "namespace": None, "pod": None, "handle": None, **holder}}


def test_an_address_that_another_pod_has_is_refused():
    found = use(namespace="n", pod="other")
    assert messages("10.244.0.9", uses=found, holders={("n", "other")}) == ["10.244.0.9 is in use by pod n/other"]
    assert messages("10.244.0.8", uses=found, holders={("n", "other")}) == []
    own = {("StatefulSet", "n", "web"): [pod("other")]}
    assert messages("10.244.0.9", uses=found, holders={("n", "other")}, pods=own) == []
    tunnel = use(handle="vxlan-tunnel-addr-node-1")
    assert messages("10.244.0.9", uses=tunnel) == ["10.244.0.9 is in use by handle vxlan-tunnel-addr-node-1"]


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (use(namespace="n", pod="gone"), "pod n/gone, which does not exist any more"),
        (use(), "was released a moment ago"),
    ],
)
def test_an_address_that_is_on_its_way_back_gives_a_warning(found, text):
    plan = plan_of(("StatefulSet", "web", workload("StatefulSet"), ["10.244.0.9"]), uses=found)
    assert plan.problems == [] and text in plan.warnings[0]


def test_the_blocks_to_look_at_are_those_of_the_addresses_alone():
    items = ({"ip_addrs": ["10.244.1.70", "fd00:10:244::1f"]}, {"ip_addrs": ["10.9.9.9", "nonsense"]}, {})
    assert workloads.Desired(items).blocks_to_read(POOLS) == {"10.244.1.64/26", "fd00:10:244::10/124"}
    spec = {
        "cidr": "10.244.1.64/26",
        "allocations": [0, *[None] * 5, 0, *[None] * 57],
        "attributes": [{"handle_id": "h", "secondary": {"namespace": "n", "pod": "p"}}],
    }
    uses = fixed.in_use(items, [{"spec": spec}])
    assert {address: (each["namespace"], each["pod"]) for address, each in uses.items()} == {"10.244.1.70": ("n", "p")}
