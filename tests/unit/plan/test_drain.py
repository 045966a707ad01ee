# SPDX-License-Identifier: Apache-2.0
"""How a pool is emptied, whatever draws from it. No API server: `Town` carries plans out as controllers would."""

from __future__ import annotations

import copy
import itertools

import pytest
from ansible_collections.podnet.ipam.plugins.module_utils._plan import budgets, drain
from ansible_collections.podnet.ipam.plugins.module_utils._plan.rollout import IF_STALE, Policy
from hypothesis import given, settings
from hypothesis import strategies as st

V4, RESTARTED = "cni.projectcalico.org/ipv4pools", "kubectl.kubernetes.io/restartedAt"
OLD, NEW = "10.244.0.", "10.244.64."
NAMED = {V4: '["old"]'}


class Town:
    """A cluster in namespace `n`. Pools `old` and `young` serve everybody; each pod has an address of one of them."""

    def __init__(self, namespace=None):
        self.pools = {
            name: {"metadata": {"name": name, "uid": name}, "spec": {"cidr": f"{prefix}0/24"}}
            for name, prefix in (("old", OLD), ("young", NEW))
        }
        self.namespaces = {"n": {"metadata": {"name": "n", "annotations": dict(namespace or {})}}}
        self.workloads, self.pods, self.serial = {}, {}, itertools.count(1)

    def add(self, kind, name, replicas=1, annotations=None, **spec):
        template = {"metadata": {"labels": {"app": name}, "annotations": dict(annotations or {})}}
        body = {"replicas": replicas, "template": template, **spec}
        if kind == "CronJob":
            body = {"jobTemplate": {"spec": {"template": template}}}
        metadata = {"name": name, "namespace": "n", "uid": name, "generation": 1}
        self.workloads[kind, "n", name] = {"metadata": metadata, "spec": body, "status": {}}
        for _each in range(replicas if kind != "CronJob" else 0):
            self.start(kind, name, template["metadata"]["annotations"])

    def start(self, kind=None, name="bare", annotations=None):
        number = next(self.serial)
        owner = {"ownerReferences": [{"kind": kind, "name": name, "uid": name, "controller": True}]} if kind else {}
        self.pods[f"{name}-{number}"] = {
            "metadata": {
                "name": f"{name}-{number}",
                "namespace": "n",
                "uid": f"{name}-{number}",
                "annotations": dict(annotations or {}),
                **owner,
            },
            "spec": {"nodeName": "node-1"},
            "status": {"phase": "Running", "podIPs": [{"ip": f"{self.prefix(annotations or {})}{number}"}]},
        }

    def prefix(self, annotations):
        text = annotations.get(V4) or self.namespaces["n"]["metadata"]["annotations"].get(V4)
        disabled = self.pools["old"]["spec"].get("disabled")
        assert not (disabled and text and "old" in text), "a new pod asks for a pool that gives out nothing"
        return NEW if disabled or (text and "young" in text) else OLD

    def observed(self, found=()):
        return drain.Observed(
            pools=self.pools,
            namespaces=self.namespaces,
            nodes={"node-1": {"metadata": {"name": "node-1"}}},
            workloads=self.workloads,
            pods=tuple(self.pods.values()),
            budgets=tuple(found),
        )

    def plan(self, batch=0, begun=None, **options):
        wanted = drain.Desired("old", "young", batch, policy=Policy(IF_STALE, "now", 5, 1), **options)
        return drain.plan(wanted, copy.deepcopy(self.observed()), begun)

    def carry_out(self, batch, **options):
        """One run of the module: its plan up to what has to settle, then the rest as it is planned by then.

        Returns its writes.
        """
        begun, done = {}, []
        while True:
            plan = self.plan(batch, begun, **options)
            begun.update(plan.begun)
            for position, operation in enumerate(plan.operations):
                self.apply(operation)
                done.append(operation)
                if operation.settles and plan.operations[position + 1 :]:
                    break
            else:
                return done

    def apply(self, operation):
        if operation.verb == "evict":
            self.evict(operation.name)
        elif operation.kind == "IPPool":
            self.pools["old"]["spec"]["disabled"] = True
        elif operation.kind == "Namespace":
            self.namespaces["n"]["metadata"]["annotations"].update(operation.body["metadata"]["annotations"])
        else:
            self.patch(operation)

    def evict(self, name):
        pod = self.pods.pop(name)
        [owner] = pod["metadata"].get("ownerReferences") or [None]
        if owner:
            workload = self.workloads[owner["kind"], "n", owner["name"]]
            self.start(owner["kind"], owner["name"], workload["spec"]["template"]["metadata"]["annotations"])

    def patch(self, operation):
        spec, body = self.workloads[operation.kind, "n", operation.name]["spec"], operation.body["spec"]
        if operation.kind == "CronJob":
            spec, body = spec["jobTemplate"]["spec"], body["jobTemplate"]["spec"]
        annotations = spec["template"]["metadata"]["annotations"]
        annotations.update(body["template"]["metadata"]["annotations"])
        if operation.kind in ("Deployment", "StatefulSet"):
            own = [name for name, pod in self.pods.items() if self.is_of(pod, operation.kind, operation.name)]
            for name in own:
                del self.pods[name]
                self.start(operation.kind, operation.name, annotations)

    @staticmethod
    def is_of(pod, kind, name):
        owners = pod["metadata"].get("ownerReferences") or ()
        return any((owner["kind"], owner["name"]) == (kind, name) for owner in owners)


KINDS = ("Deployment", "StatefulSet", "ReplicaSet", "CronJob", None)
ANNOTATIONS = ({}, NAMED, {V4: '["young"]'}, {V4: '["young","old"]'}, {V4: '["10.244.0.0/24"]'})


@st.composite
def towns(draw):
    """Any mixture of workloads and bare pods; nothing that only a person can solve."""
    town = Town(draw(st.sampled_from(ANNOTATIONS[:3])))
    for number, kind in enumerate(draw(st.lists(st.sampled_from(KINDS), max_size=6))):
        annotations = draw(st.sampled_from(ANNOTATIONS))
        if kind is None:
            town.start(None, f"bare{number}", annotations)
        else:
            town.add(kind, f"w{number}", draw(st.integers(0, 3)), annotations)
    return town


@settings(deadline=None)
@given(towns(), st.integers(0, 3))
def test_as_many_batches_as_predicted_empty_the_pool_and_leave_nothing_that_names_it(town, batch):
    batches = town.plan(batch, evict_bare_pods=True).results["batches"]
    for _batch in range(max(batches, 1)):
        town.carry_out(batch, evict_bare_pods=True)
    last = town.plan(batch, evict_bare_pods=True)
    assert (last.operations, last.results["left"], last.results["workloads"]) == ([], 0, [])
    assert town.pools["old"]["spec"]["disabled"]
    assert not [pod for pod in town.pods.values() if pod["status"]["podIPs"][0]["ip"].startswith(OLD)]


@settings(deadline=None)
@given(towns(), st.integers(1, 3))
def test_a_batch_begins_no_more_than_it_may(town, batch):
    for _batch in range(30):
        done = town.carry_out(batch)
        begun = {each.name.partition("-")[0] for each in done if each.kind not in ("Namespace", "IPPool")}
        assert len(begun) <= batch
        if not done:
            break
    assert all(each["kind"] == "Pod" for each in town.plan(batch).results["workloads"]), "only bare pods are left"


@settings(deadline=None)
@given(towns())
def test_no_pod_goes_that_has_no_address_of_the_pool_unless_its_template_names_it(town):
    untouched = {
        name: pod
        for name, pod in town.pods.items()
        if pod["status"]["podIPs"][0]["ip"].startswith(NEW) and "old" not in str(pod["metadata"]["annotations"])
    }
    for _batch in range(10):
        town.carry_out(0, evict_bare_pods=True)
    assert {name: town.pods.get(name) for name in untouched} == untouched


DEPLOYMENT, STATEFUL_SET, DAEMON_SET = "Deployment", "StatefulSet", "DaemonSet"


@pytest.mark.parametrize(
    ("kind", "spec", "status", "taken"),
    [
        (DEPLOYMENT, {"replicas": 10}, {}, 2),
        (DEPLOYMENT, {"replicas": 3}, {}, 0),
        (DEPLOYMENT, {"replicas": 3, "strategy": {"type": "Recreate"}}, {}, 3),
        (DEPLOYMENT, {"replicas": 3, "strategy": {"rollingUpdate": {"maxUnavailable": 2, "maxSurge": 0}}}, {}, 2),
        (DEPLOYMENT, {"replicas": 3, "strategy": {"rollingUpdate": {"maxUnavailable": "10%", "maxSurge": 0}}}, {}, 1),
        (STATEFUL_SET, {"replicas": 5}, {}, 1),
        (STATEFUL_SET, {"replicas": 5, "updateStrategy": {"rollingUpdate": {"maxUnavailable": "50%"}}}, {}, 3),
        (DAEMON_SET, {}, {"desiredNumberScheduled": 9}, 1),
        (
            DAEMON_SET,
            {"updateStrategy": {"rollingUpdate": {"maxUnavailable": "25%"}}},
            {"desiredNumberScheduled": 9},
            3,
        ),
    ],
)
def test_a_restart_is_held_back_exactly_when_the_budget_allows_less_than_the_strategy_takes(kind, spec, status, taken):
    workload = {"spec": {**spec, "template": {"metadata": {"labels": {"app": "web"}}}}, "status": status}

    def why_not(allowed, namespace="n", selector="app=web"):
        found = [budgets.Budget(namespace, "web", selector, allowed)]
        return budgets.why_not(kind, workload, "n", found)

    assert why_not(taken) is None
    if taken:
        assert f"may take {taken} pods away at once" in why_not(taken - 1)
        assert why_not(0, namespace="other") is None and why_not(0, selector="app=other") is None
        assert why_not(0, selector="") is not None


@pytest.mark.parametrize("kind", ["ReplicaSet", "CronJob"])
def test_a_workload_without_pods_that_is_pointed_elsewhere_takes_its_place_in_the_batch(kind):
    town = Town()
    town.add(kind, "pointed", 0, NAMED)
    for name in ("web", "shop"):
        town.add("Deployment", name)
    begun = [[each.name for each in town.carry_out(2) if each.kind != "IPPool"] for _batch in range(2)]
    assert begun == [["pointed", "shop"], ["web"]]
