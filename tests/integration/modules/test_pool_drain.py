# SPDX-License-Identifier: Apache-2.0
"""How pool_drain empties a pool, against a real API server: in which order, what it leaves, and how it goes on."""

from __future__ import annotations

import ipaddress

import pytest
from support.controllers import V4, Controllers, reference
from support.faulty_proxy import FaultyProxy

OLD, NEW = ipaddress.ip_network("10.244.64.0/24"), ipaddress.ip_network("10.244.128.0/24")
OPTIONS = {"pool": "old", "to": "young", "wait_sleep": 1, "wait_timeout": 30}
NAMED = {V4: '["old"]'}


@pytest.fixture
def town(whole_cluster):
    """A node and two pools, of which the first serves whoever asks for nothing."""
    whole_cluster.objects.create("/api/v1/nodes", {"metadata": {"name": "node-1"}})
    whole_cluster.create_pools(("old", str(OLD)), ("young", str(NEW)))
    return whole_cluster


@pytest.fixture
def namespace(town):
    return town.create_namespace()


@pytest.fixture
def controllers(town):
    """Controllers that a test sets to work when its workloads are there."""
    return Controllers(town)


def drain(town, **options):
    return town.run("pool_drain", **{**OPTIONS, **options})


def writes(result):
    return [f"{each['verb']} {each['kind']} {each['name']}" for each in result["operations"]]


def stuck(result):
    """{name: reason} of what does not move."""
    return {each["name"]: each["reason"] for each in result["workloads"] if each["reason"]}


def addresses(town, namespace):
    pods = town.objects.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
    return [ipaddress.ip_address(pod["status"]["podIP"]) for pod in pods]


def test_what_names_the_pool_is_pointed_first_and_the_pool_is_disabled_when_nothing_does(town, controllers, namespace):
    asking = town.create_namespace(NAMED)
    town.create_workload("Deployment", asking, "by-namespace", replicas=2)
    named = town.create_workload(
        "StatefulSet", namespace, "named", {V4: '["young","old"]'}, replicas=1, serviceName="x"
    )
    town.create_workload("Deployment", namespace, "unasked", replicas=2)
    with controllers:
        before = town.versions()
        predicted = drain(town, check=True)
        assert town.versions() == before, "check mode wrote"
        result = drain(town)
    expected = [
        f"patch Namespace {asking}",
        "restart Deployment by-namespace",
        "patch StatefulSet named",
        "patch IPPool old",
        "restart Deployment unasked",
    ]
    assert writes(predicted) == writes(result) == expected
    assert predicted["diff"] == result["diff"] and predicted["left"] == 4
    assert (result["left"], result["workloads"], result["batches"]) == (0, [], 0)
    assert town.template_annotations(named)[V4] == '["young"]'
    assert all(address in NEW for each in (asking, namespace) for address in addresses(town, each))
    again = drain(town)
    assert (again["changed"], again["diff"]) == (False, {"before": {}, "after": {}})


def test_a_batch_begins_no_more_workloads_than_it_may_and_says_how_many_batches_are_left(town, controllers, namespace):
    for number in range(3):
        town.create_workload("Deployment", namespace, f"named-{number}", NAMED, replicas=1)
    town.create_workload("Deployment", namespace, "unasked", replicas=3)
    with controllers:
        assert drain(town, batch=2, check=True)["batches"] == 2
        first = drain(town, batch=2)
        assert writes(first) == ["patch Deployment named-0", "patch Deployment named-1"]
        assert (first["left"], first["batches"]) == (4, 1)
        second = drain(town, batch=2)
        assert writes(second) == ["patch Deployment named-2", "patch IPPool old", "restart Deployment unasked"]
        assert second["left"] == 0


def test_pods_of_a_replicaset_go_one_by_one(town, controllers, namespace):
    town.create_workload("ReplicaSet", namespace, "web", replicas=3)
    with controllers:
        counts = []
        for _batch in range(3):
            result = drain(town, batch=5)
            counts.append((len([each for each in result["operations"] if each["verb"] == "evict"]), result["left"]))
    assert counts == [(1, 2), (1, 1), (1, 0)]
    assert all(address in NEW for address in addresses(town, namespace))


def test_bare_pods_are_left_to_a_person_unless_their_eviction_is_allowed(town, controllers, namespace):
    with controllers:
        controllers.start_pod(namespace, "probe")
        result = drain(town)
        assert result["left"] == 1 and writes(result) == ["patch IPPool old"]
        assert "a person has to delete it" in stuck(result)["probe"]
        assert result["stuck"] == [f"Pod {namespace}/probe: {stuck(result)['probe']}"]
        allowed = drain(town, evict_bare_pods=True)
        assert writes(allowed) == ["evict Pod probe"] and allowed["left"] == 0
    assert addresses(town, namespace) == []


def test_what_cannot_move_is_told_with_its_reason_and_keeps_the_pool_enabled_while_it_names_it(
    town, controllers, namespace
):
    fixed = {"cni.projectcalico.org/ipAddrs": '["10.244.64.0"]'}
    town.create_workload("Deployment", namespace, "pinned", fixed, replicas=0, strategy={"type": "Recreate"})
    town.create_workload("Deployment", namespace, "halted", NAMED, replicas=0, paused=True)
    town.create_workload("Job", namespace, "batch", NAMED)
    town.create_workload("Deployment", namespace, "lost", {V4: '["nowhere","old"]'}, replicas=0)
    owner = reference("Cluster", {"name": "pg", "uid": "pg"})
    with controllers:
        controllers.start_pod(namespace, "pg-1", owner=owner)
        result = drain(town)
        assert writes(result) == ["patch Deployment lost"]
        reasons = stuck(result)
        assert "asks for 10.244.64.0: give it an address of young" in reasons["pinned"]
        assert "spec.paused is true" in reasons["halted"]
        assert "the pod template of a Job cannot be changed" in reasons["batch"]
        assert "it belongs to Cluster pg, whose kind is not known here" in reasons["pg-1"]
        assert not town.pool("old")["spec"].get("disabled")


def test_a_workload_whose_new_pods_would_get_no_address_is_left_as_it_is(town, controllers, namespace):
    town.objects.patch(town.path("ippools", "young"), {"spec": {"nodeSelector": "rack == '1'"}})
    town.create_workload("Deployment", namespace, "web", replicas=1)
    with controllers:
        reason = stuck(drain(town))["web"]
    assert "its new pods would not start" in reason and "nodeSelector \"rack == '1'\" does not match" in reason
    assert all(address in OLD for address in addresses(town, namespace))


def budget(town, namespace, allowed):
    collection = f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets"
    spec = {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}}
    town.objects.create(collection, {"metadata": {"name": "web"}, "spec": spec})
    counts = {"currentHealthy": 2, "desiredHealthy": 2, "expectedPods": 2, "observedGeneration": 1}
    town.objects.patch_status(f"{collection}/web", {**counts, "disruptionsAllowed": allowed})
    return f"{collection}/web"


def test_a_workload_waits_while_its_budget_allows_less_than_its_strategy_takes(town, controllers, namespace):
    town.create_workload("StatefulSet", namespace, "web", NAMED, replicas=2, serviceName="web")
    path = budget(town, namespace, allowed=0)
    with controllers:
        reason = stuck(drain(town))["web"]
        assert reason == ("its update strategy may take 1 pods away at once, and PodDisruptionBudget web allows 0 now")
        town.objects.patch_status(path, {"disruptionsAllowed": 1})
        assert drain(town)["left"] == 0


def test_a_workload_that_was_begun_by_an_interrupted_run_is_waited_for_and_not_begun_again(
    town, controllers, namespace
):
    town.create_workload("Deployment", namespace, "web", NAMED, replicas=2)
    controllers.settle()
    begun = drain(town, wait_timeout=0)
    assert begun["failed"] and writes(begun) == ["patch Deployment web", "patch IPPool old"]
    assert "not finished after 0 s" in begun["msg"]
    with controllers:
        result = drain(town)
    assert (result["changed"], result["left"]) == (False, 0)


def test_entries_by_cidr_and_pools_that_exist_no_more_are_pointed_as_well(town, controllers):
    by_cidr = town.create_namespace({V4: f'["{OLD}"]'})
    assert writes(drain(town)) == [f"patch Namespace {by_cidr}", "patch IPPool old"]
    town.objects.delete(town.path("ippools", "old"))
    late = town.create_namespace(NAMED)
    assert writes(drain(town)) == [f"patch Namespace {late}"]
    assert town.annotations(f"/api/v1/namespaces/{late}") == {V4: '["young"]'}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"to": "old"}, "pool old: to: it is the pool that is to be emptied"),
        ({"to": "yung"}, "pool yung: to: it does not exist; pools: old, six, young"),
        ({"to": "six"}, "pool six: to: it is IPv6, and old is IPv4"),
    ],
)
def test_a_pool_that_cannot_take_the_place_is_refused(town, options, said):
    town.create_pools(("six", "fd00:10:244::/64"))
    assert said in town.refused("pool_drain", **{**OPTIONS, **options})["msg"]


def test_a_pool_without_room_is_refused_before_anything_is_written(town, controllers, namespace):
    town.create_pools(("tiny", "10.244.200.0/31"), blockSize=32)
    town.create_workload("Deployment", namespace, "web", NAMED, replicas=3)
    controllers.settle()
    message = town.refused("pool_drain", **{**OPTIONS, "to": "tiny"})["msg"]
    assert "it has 2 free addresses, and 3 pods are to move from old into it" in message


def test_a_pool_of_another_controller_is_disabled_only_when_it_is_to_be_adopted(town):
    town.objects.patch(town.path("ippools", "old"), {"metadata": {"labels": {"app.kubernetes.io/managed-by": "argo"}}})
    assert "it belongs to argo" in town.refused("pool_drain", **OPTIONS)["msg"]
    assert writes(drain(town, adopt=True)) == ["patch IPPool old"]


def test_the_number_of_requests_depends_on_the_pages_and_not_on_the_namespaces(town, controllers):
    counts = []
    for _each in range(2):
        for _namespace in range(4):
            town.create_workload("Deployment", town.create_namespace(), "web", NAMED, replicas=1)
        controllers.settle()
        with FaultyProxy(town.plane) as proxy:
            result = town.run("pool_drain", check=True, **OPTIONS, **town.through(proxy))
        counts.append((result["left"], len(proxy.requests)))
    assert counts == [(4, 14), (8, 14)]
