# SPDX-License-Identifier: Apache-2.0
"""Who replaces a workload's pods, when that is needed, and when it is done. No API server.

`World` plays the controllers: it carries plans out on objects as they stand at an API server.
"""

from __future__ import annotations

import copy

import pytest
from ansible_collections.podnet.ipam.plugins.module_utils._plan import rollout, workloads
from hypothesis import given
from hypothesis import strategies as st

V4, RESTARTED = "cni.projectcalico.org/ipv4pools", "kubectl.kubernetes.io/restartedAt"
POOLS = {
    name: {"metadata": {"name": name}, "spec": {"cidr": cidr}}
    for name, cidr in (("a", "10.244.0.0/17"), ("b", "10.244.128.0/17"))
}
ADDRESSES = {"a": "10.244.0.9", "b": "10.244.200.9"}
ON_DELETE = {"updateStrategy": {"type": "OnDelete"}}


def pod(name, pool, annotations=None):
    return {
        "metadata": {"name": name, "namespace": "n", "uid": name, "annotations": annotations or {}},
        "spec": {},
        "status": {
            "phase": "Running",
            "podIPs": [{"ip": ADDRESSES[pool]}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


class World:
    """One workload whose template has these annotations, with two pods in pool b, and its controller at rest."""

    def __init__(self, kind, annotations=None, pools=("b", "b"), **spec):
        self.kind, annotations = kind, {V4: '["a"]'} if annotations is None else annotations
        self.pods = [pod(f"web-{number}", pool, annotations) for number, pool in enumerate(pools)]
        spec = {"replicas": len(pools), "template": {"metadata": {"annotations": annotations}, "spec": {}}, **spec}
        self.stored = {"metadata": {"name": "web", "uid": "web", "generation": 1}, "spec": spec}
        self.settle()

    def settle(self):
        """The controller has done its work: all pods are of the present template."""
        names = ("replicas", "updatedReplicas", "availableReplicas", "updatedNumberScheduled", "numberAvailable")
        counts = dict.fromkeys((*names, "desiredNumberScheduled"), len(self.pods))
        self.stored["status"] = {"observedGeneration": self.stored["metadata"]["generation"], **counts}

    @property
    def key(self):
        return self.kind, "n", "web"

    @property
    def template(self):
        return self.stored["spec"]["template"]["metadata"]["annotations"]

    def plan(self, mode=rollout.IF_STALE, pools=("a",), stamp="now", first=None):
        item = {"kind": self.kind, "namespace": "n", "name": "web", "ipv4_pools": pools and list(pools)}
        first = {each["metadata"]["uid"] for each in self.pods} if first is None else first
        observed = workloads.Observed({self.key: self.stored}, {self.key: self.pods}, POOLS, first=frozenset(first))
        return workloads.plan(workloads.Desired((item,), policy=rollout.Policy(mode, stamp, 5, 1)), observed)

    def carry_out(self, plan):
        for operation in plan.operations:
            if operation.verb == "evict":
                self.pods = [each for each in self.pods if each["metadata"]["name"] != operation.name]
            else:
                patch = operation.body["spec"]["template"]["metadata"]["annotations"]
                merged = {**self.template, **patch}
                self.stored["spec"]["template"]["metadata"]["annotations"] = {
                    key: value for key, value in merged.items() if value is not None
                }
                self.stored["metadata"]["generation"] += 1

    def replace(self):
        """The controller replaces what is to be replaced, and the new pods get their addresses."""
        missing = self.stored["spec"]["replicas"] - len(self.pods)
        rolling = rollout.kinds.rolls(self.kind, self.stored)
        old = [each for each in self.pods if each["metadata"]["annotations"] != self.template] if rolling else []
        kept = [each for each in self.pods if each not in old]
        pool = (self.template.get(V4) or '["b"]')[2]
        made = [pod(f"new-{number}", pool, copy.deepcopy(self.template)) for number in range(missing + len(old))]
        self.pods = [*kept, *made]
        self.settle()

    def lagging(self, plan):
        return workloads.lagging(plan.awaited, {self.key: self.stored}, {self.key: self.pods})


def verbs(plan):
    return [(each.verb, each.kind, each.name) for each in plan.operations]


ROLLING = ["Deployment", "StatefulSet", "DaemonSet"]


@pytest.mark.parametrize("kind", ROLLING)
def test_stale_pods_of_a_template_that_is_right_are_replaced_by_a_restart(kind):
    world = World(kind)
    assert verbs(world.plan(rollout.NEVER)) == []
    plan = world.plan()
    assert verbs(plan) == [("restart", kind, "web")]
    [operation] = plan.operations
    assert operation.body == {"spec": {"template": {"metadata": {"annotations": {RESTARTED: "now"}}}}}
    subject = f"{kind} n/web"
    assert plan.after[subject] == {**plan.before[subject], "restarted": True}


@pytest.mark.parametrize("kind", ROLLING)
def test_a_restart_under_way_is_not_begun_again(kind):
    world = World(kind)
    world.carry_out(world.plan(stamp="before"))
    plan = world.plan()
    assert verbs(plan) == []
    assert plan.awaited.keys() == {world.key}


@pytest.mark.parametrize("kind", ROLLING)
def test_a_changed_template_needs_no_restart(kind):
    world = World(kind, {V4: '["b"]'})
    plan = world.plan()
    assert verbs(plan) == [("patch", kind, "web")]
    world.carry_out(plan)
    assert RESTARTED not in world.template
    assert verbs(world.plan()) == []


def test_pods_of_the_present_template_are_restarted_even_while_older_ones_are_replaced():
    world = World("Deployment")
    world.stored["status"]["updatedReplicas"] = 1
    world.pods[0]["metadata"]["annotations"] = {V4: '["b"]'}
    assert verbs(world.plan()) == [("restart", "Deployment", "web")]
    world.pods[1]["metadata"]["annotations"] = {V4: '["b"]'}
    assert verbs(world.plan()) == []


def test_an_annotation_that_somebody_changed_on_a_pod_does_not_hide_that_it_is_stale():
    world = World("Deployment")
    for each in world.pods:
        each["metadata"]["annotations"] = {V4: '["b"]'}
    assert verbs(world.plan()) == [("restart", "Deployment", "web")]


EVICTING = [("ReplicaSet", {}), ("StatefulSet", ON_DELETE), ("DaemonSet", ON_DELETE)]


@pytest.mark.parametrize(("kind", "spec"), EVICTING)
def test_where_no_controller_replaces_pods_the_stale_ones_are_evicted(kind, spec):
    world = World(kind, pools=("a", "b"), **spec)
    plan = world.plan()
    assert verbs(plan) == [("evict", "Pod", "web-1")]
    assert plan.operations[0].body == {"timeout": 5, "sleep": 1}
    changing = World(kind, {V4: '["b"]'}, pools=("a", "b"), **spec).plan()
    assert verbs(changing) == [("patch", kind, "web"), ("evict", "Pod", "web-1")]
    assert verbs(World(kind, {V4: '["b"]'}, **spec).plan(rollout.NEVER)) == [("patch", kind, "web")]


def test_every_run_replaces_all_pods_when_told_to():
    for kind in ROLLING:
        world = World(kind, pools=("a", "a"))
        assert verbs(world.plan(rollout.ALWAYS)) == [("restart", kind, "web")]
        world.carry_out(world.plan(rollout.ALWAYS))
        assert verbs(world.plan(rollout.ALWAYS, stamp="later")) == [("restart", kind, "web")]
    world = World("ReplicaSet", pools=("a", "a"))
    assert verbs(world.plan(rollout.ALWAYS)) == [("evict", "Pod", "web-0"), ("evict", "Pod", "web-1")]


def test_a_second_look_in_the_same_run_begins_nothing_again():
    world = World("Deployment", pools=("a", "a"))
    first = world.plan(rollout.ALWAYS)
    world.carry_out(first)
    again = world.plan(rollout.ALWAYS)
    assert verbs(again) == []
    assert again.after == first.after
    world = World("ReplicaSet", pools=("a", "a"))
    assert verbs(world.plan(rollout.ALWAYS, first={"web-0"})) == [("evict", "Pod", "web-0")]


def test_pods_below_the_partition_are_named_and_are_no_reason_to_restart():
    partition = {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}}
    world = World("StatefulSet", pools=("b", "a"), **partition)
    plan = world.plan()
    assert verbs(plan) == []
    [warning] = plan.warnings
    assert warning.endswith("not replaced because they are below the partition 1 of its update strategy: web-0")
    plan = World("StatefulSet", **partition).plan()
    assert verbs(plan) == [("restart", "StatefulSet", "web")]
    assert workloads.lagging(plan.awaited, {}, {}) == {world.key: "it does not exist any more"}


def test_a_paused_deployment_is_refused_when_pods_are_to_be_replaced():
    world = World("Deployment", paused=True)
    [problem] = world.plan().problems
    assert problem.option == "rollout" and "spec.paused is true" in problem.message
    assert world.plan(rollout.NEVER).problems == []
    plan = world.plan(rollout.NEVER, pools=("b",))
    assert verbs(plan) == [("patch", "Deployment", "web")] and "spec.paused is true" in plan.warnings[0]
    assert plan.awaited == {}


@pytest.mark.parametrize("kind", ["Job", "Pod"])
def test_jobs_and_bare_pods_are_only_reported(kind):
    world = World("Deployment", {})
    stored = {**world.pods[0], "spec": {"template": {"spec": {}}}}
    item = {"kind": kind, "namespace": "n", "name": "web"}
    namespace = {"metadata": {"name": "n", "annotations": {V4: '["a"]'}}}
    observed = workloads.Observed(
        {(kind, "n", "web"): stored}, {(kind, "n", "web"): world.pods[:1]}, POOLS, {"n": namespace}
    )
    plan = workloads.plan(workloads.Desired((item,), policy=rollout.Policy(rollout.ALWAYS, "now")), observed)
    assert (verbs(plan), plan.awaited) == ([], {})
    assert f"{kind} n/web: stale, but pods of a {kind} are not replaced: web-0" in plan.warnings[0]
    [workload] = plan.results["workloads"]
    assert workload["stale_pods"][0]["addresses"] == ["10.244.200.9"]


def test_templates_are_written_before_pods_are_evicted():
    one, two = World("ReplicaSet", {V4: '["b"]'}), World("StatefulSet", {V4: '["b"]'})
    items = tuple({"kind": each.kind, "namespace": "n", "name": "web", "ipv4_pools": ["a"]} for each in (one, two))
    observed = workloads.Observed({each.key: each.stored for each in (one, two)}, {one.key: one.pods}, POOLS)
    plan = workloads.plan(workloads.Desired(items, policy=rollout.Policy(rollout.IF_STALE, "now")), observed)
    assert [operation.verb for operation in plan.operations] == ["patch", "patch", "evict", "evict"]


def test_a_replicaset_of_a_deployment_is_refused_with_its_owners_name():
    world = World("ReplicaSet")
    world.stored["metadata"]["ownerReferences"] = [
        {"controller": True, "kind": "Deployment", "name": "shop", "uid": "1"}
    ]
    [problem] = world.plan().problems
    assert str(problem) == "ReplicaSet n/web: kind: it belongs to Deployment shop: declare that instead"


@pytest.mark.parametrize(
    ("kind", "status", "missing"),
    [
        ("Deployment", {"observedGeneration": 1}, "its controller has not looked at the change yet"),
        ("Deployment", {"updatedReplicas": 1}, "1 of 2 pods are updated"),
        ("Deployment", {"replicas": 3}, "1 old pods are still there"),
        ("Deployment", {"availableReplicas": 1}, "1 of 2 pods are available"),
        (
            "Deployment",
            {"availableReplicas": 0, "conditions": [{"status": "False", "message": "deadline exceeded"}]},
            "0 of 2 pods are available (deadline exceeded)",
        ),
        ("StatefulSet", {"updatedReplicas": 1}, "1 of 2 pods are updated"),
        ("DaemonSet", {"updatedNumberScheduled": 1}, "1 of 2 pods are updated"),
        ("DaemonSet", {"numberAvailable": 1}, "1 of 2 pods are available"),
        ("DaemonSet", {}, None),
    ],
)
def test_a_rollout_is_finished_when_kubectl_would_say_so(kind, status, missing):
    world = World(kind, pools=("a", "a"))
    world.stored["metadata"]["generation"] = 2
    world.settle()
    world.stored["status"].update(status)
    assert rollout.unfinished(kind, world.stored) == missing


def test_after_evictions_the_pods_tell_and_not_the_status():
    world = World("ReplicaSet", pools=("a", "b"))
    plan = world.plan()
    world.pods[1]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert world.lagging(plan) == {world.key: "being deleted: web-1"}
    del world.pods[1]
    assert world.lagging(plan) == {world.key: "1 of 2 pods are ready"}
    world.replace()
    assert world.lagging(plan) == {}


def test_a_finished_rollout_with_stale_pods_is_not_what_was_wanted():
    world = World("Deployment")
    plan = world.plan()
    assert world.lagging(plan) == {
        world.key: "pod web-0: 10.244.200.9 is not from a; pod web-1: 10.244.200.9 is not from a"
    }


SPECS = st.sampled_from([(kind, {}) for kind in (*ROLLING, "ReplicaSet")] + EVICTING)


@given(
    SPECS,
    st.sampled_from([{}, {V4: '["a"]'}, {V4: '["b"]'}, {V4: "x", "other": "kept"}]),
    st.lists(st.sampled_from("ab"), max_size=3),
    st.sampled_from([("a",), ("b",)]),
)
def test_plan_and_controllers_together_leave_no_stale_pod_and_nothing_to_do(each, annotations, pods, wanted):
    kind, spec = each
    world = World(kind, annotations, tuple(pods), **spec)
    plan = world.plan(pools=wanted)
    world.carry_out(plan)
    assert verbs(world.plan(pools=wanted, stamp="later")) == [], "the second run has nothing to do, controllers or not"
    world.replace()
    assert world.lagging(plan) == {}
    assert all(each["status"]["podIPs"][0]["ip"] == ADDRESSES[wanted[0]] for each in world.pods)
    assert verbs(world.plan(pools=wanted, stamp="later")) == []
    assert world.template.get("other") == annotations.get("other")
