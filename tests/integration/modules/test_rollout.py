# SPDX-License-Identifier: Apache-2.0
"""How workload_pools replaces pods and waits for it, against a real API server.

No controllers run there: what they would do, the tests do, when a request of the module comes by.
"""

from __future__ import annotations

import pytest
from support.faulty_proxy import Fault, FaultyProxy

V4 = "cni.projectcalico.org/ipv4pools"
RESTARTED = "kubectl.kubernetes.io/restartedAt"
RIGHT = {V4: '["a"]'}
STALE, FRESH = "10.244.64.9", "10.244.0.9"


@pytest.fixture
def pools(cluster):
    """Two pools, and the cluster that they are in."""
    cluster.create_pools(("a", "10.244.0.0/18"), ("b", "10.244.64.0/18"))
    return cluster


@pytest.fixture
def namespace(pools):
    return pools.create_namespace()


def item(namespace, kind="Deployment", **options):
    return {"kind": kind, "namespace": namespace, "name": "web", "ipv4_pools": ["a"], **options}


def through(pools, *faults, **options):
    """(result, proxy) of workload_pools through a proxy with these faults."""
    with FaultyProxy(pools.plane, *faults) as proxy:
        connection = {"host": proxy.url, "api_key": pools.plane.token}
        return pools.run("workload_pools", environ={}, **connection, **options), proxy


def operation(verb, kind, namespace, name="web"):
    return {"verb": verb, "kind": kind, "namespace": namespace, "name": name}


def set_running(pools, path, address, ready=True):
    status = {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": str(ready)}],
    }
    pools.objects.patch_status(path, status)


def finish_rollout(pools, path, old, count=1):
    """What the Deployment controller and the kubelet do: new pods in place of the old one."""
    namespace = path.split("/")[5]
    pools.objects.delete(old)
    new = pools.create_pod(namespace, "web-new", app="web", annotations=pools.template_annotations(path))
    set_running(pools, new, FRESH)
    generation = pools.objects.get(path)["metadata"]["generation"]
    counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), count)
    pools.objects.patch_status(path, {"observedGeneration": generation, **counts})


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet"])
def test_stale_pods_are_replaced_by_a_restart_as_check_mode_predicts(pools, namespace, kind):
    path = pools.create_workload(kind, namespace, "web", RIGHT)
    pools.create_pod(namespace, "web-old", app="web", address=STALE, annotations=RIGHT)
    result = pools.apply("workload_pools", workloads=[item(namespace, kind)], rollout="if_stale")
    assert result["operations"] == [operation("restart", kind, namespace)]
    assert result["diff"]["before"].keys() == result["diff"]["after"].keys() == {f"{kind} {namespace}/web"}
    assert result["after"][0] == {**result["before"][0], "restarted": True}
    assert pools.template_annotations(path).keys() == {V4, RESTARTED}


def test_by_default_nothing_is_restarted_and_without_stale_pods_neither(pools, namespace):
    pools.create_workload("Deployment", namespace, "web", RIGHT)
    pools.create_pod(namespace, "web-new", app="web", address=FRESH, annotations=RIGHT)
    assert not pools.apply("workload_pools", workloads=[item(namespace)], rollout="if_stale")["changed"]
    pools.create_pod(namespace, "web-old", app="web", address=STALE, annotations=RIGHT)
    assert not pools.apply("workload_pools", workloads=[item(namespace)])["changed"]


def test_a_template_that_is_changed_is_not_restarted_as_well(pools, namespace):
    path = pools.create_workload("Deployment", namespace, "web")
    pools.create_pod(namespace, "web-old", app="web", address=STALE)
    result = pools.apply("workload_pools", workloads=[item(namespace)], rollout="if_stale")
    assert result["operations"] == [operation("patch", "Deployment", namespace)]
    assert pools.template_annotations(path) == RIGHT


def test_an_assignment_of_the_namespace_makes_pods_stale_as_well(pools):
    namespace = pools.create_namespace(RIGHT)
    pools.create_workload("Deployment", namespace, "web")
    pools.create_pod(namespace, "web-old", app="web", address=STALE)
    result = pools.apply("workload_pools", workloads=[item(namespace, ipv4_pools=[])], rollout="if_stale")
    assert result["operations"] == [operation("restart", "Deployment", namespace)]


def test_always_restarts_in_every_run(pools, namespace):
    path = pools.create_workload("Deployment", namespace, "web", RIGHT)
    times = set()
    for _run in range(2):
        result = pools.run("workload_pools", workloads=[item(namespace)], rollout="always")
        assert result["operations"] == [operation("restart", "Deployment", namespace)]
        times.add(pools.template_annotations(path)[RESTARTED])
    assert len(times) == 2


def test_pods_of_a_replicaset_are_evicted_and_those_of_others_are_not(pools, namespace):
    path = pools.create_workload("ReplicaSet", namespace, "web", RIGHT)
    for name, address in (("web-1", STALE), ("web-2", STALE), ("web-3", FRESH)):
        pools.create_pod(namespace, name, app="web", address=address)
    foreign = pools.create_pod(namespace, "foreign", app="web", address=STALE)
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "other", "uid": "other", "controller": True}
    pools.objects.patch(foreign, {"metadata": {"ownerReferences": [owner]}})
    result = pools.apply("workload_pools", workloads=[item(namespace, "ReplicaSet")], rollout="if_stale")
    assert result["operations"] == [operation("evict", "Pod", namespace, name) for name in ("web-1", "web-2")]
    assert pools.objects.names(f"/api/v1/namespaces/{namespace}/pods") == ["foreign", "web-3"]
    assert pools.template_annotations(path) == RIGHT


def budget(pools, namespace, allowed):
    """A disruption budget for the pods of `web`, and what its controller says of it; its path."""
    collection = f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets"
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}
    pools.objects.create(collection, {"metadata": {"name": "web"}, "spec": spec})
    counts = {"currentHealthy": 1, "desiredHealthy": 2, "expectedPods": 2, "observedGeneration": 1}
    pools.objects.patch_status(f"{collection}/web", {**counts, "disruptionsAllowed": allowed})
    return f"{collection}/web"


def test_an_eviction_that_a_budget_forbids_is_tried_until_time_is_up(pools, namespace):
    pools.create_workload("ReplicaSet", namespace, "web", RIGHT)
    for name in ("web-1", "web-2"):
        set_running(pools, pools.create_pod(namespace, name, app="web"), STALE)
    budget(pools, namespace, allowed=1)
    options = {"workloads": [item(namespace, "ReplicaSet")], "rollout": "if_stale", "wait_timeout": 1, "wait_sleep": 1}
    result = pools.run("workload_pools", **options)
    assert result["failed"] and result["changed"]
    assert "disruption budget" in result["msg"] and "(tried for 1 s, which is wait_timeout)" in result["msg"]
    [done], failed = result["operations"], result["failed_operation"]
    assert {done["name"], failed["name"]} == {"web-1", "web-2"}
    assert result["operations_left"] == []
    assert pools.objects.names(f"/api/v1/namespaces/{namespace}/pods") == [failed["name"]]


def test_an_eviction_goes_on_as_soon_as_the_budget_allows_it(pools, namespace):
    pools.create_workload("ReplicaSet", namespace, "web", RIGHT)
    set_running(pools, pools.create_pod(namespace, "web-1", app="web"), STALE)
    path = budget(pools, namespace, allowed=0)

    def allow():
        pools.objects.patch_status(path, {"disruptionsAllowed": 1})

    faults = [Fault("POST", "/eviction", 429, times=5), Fault("POST", "/eviction", meanwhile=allow)]
    options = {"workloads": [item(namespace, "ReplicaSet")], "rollout": "if_stale", "wait_timeout": 60, "wait_sleep": 1}
    result, proxy = through(pools, *faults, **options)
    assert result["operations"] == [operation("evict", "Pod", namespace, "web-1")]
    assert len(proxy.writes()) == 6


def test_an_eviction_whose_answer_was_lost_counts_as_done(pools, namespace):
    pools.create_workload("ReplicaSet", namespace, "web", RIGHT)
    pools.create_pod(namespace, "web-1", app="web", address=STALE)
    lost = Fault("POST", "/eviction", 504, carried_out=True)
    result, _proxy = through(pools, lost, workloads=[item(namespace, "ReplicaSet")], rollout="if_stale")
    assert result["operations"] == [operation("evict", "Pod", namespace, "web-1")]


def test_a_pod_that_goes_by_itself_is_not_called_evicted(pools, namespace):
    pools.create_workload("ReplicaSet", namespace, "web", RIGHT)
    path = pools.create_pod(namespace, "web-1", app="web", address=STALE)
    fault = Fault("POST", "/eviction", meanwhile=lambda: pools.objects.delete(path))
    result, _proxy = through(pools, fault, workloads=[item(namespace, "ReplicaSet")], rollout="always")
    assert (result["changed"], result["operations"]) == (False, [])


def test_a_workload_that_is_made_anew_between_reading_and_writing_is_read_again(pools, namespace):
    path = pools.create_workload("Deployment", namespace, "web")

    def make_anew():
        pools.objects.delete(path)
        pools.create_workload("Deployment", namespace, "web", {"theirs": "kept"})

    result, _proxy = through(pools, Fault("PATCH", "/web", meanwhile=make_anew), workloads=[item(namespace)])
    assert result["operations"] == [operation("patch", "Deployment", namespace)]
    assert pools.template_annotations(path) == {"theirs": "kept", **RIGHT}


def test_waiting_ends_when_the_new_pods_are_there(pools, namespace):
    path = pools.create_workload("Deployment", namespace, "web", RIGHT)
    old = pools.create_pod(namespace, "web-old", app="web", address=STALE, annotations=RIGHT)
    faults = [
        Fault("GET", "/deployments/web"),  # the module reads
        Fault("GET", "/deployments/web"),  # it waits and looks for the first time
        Fault("GET", "/deployments/web", meanwhile=lambda: finish_rollout(pools, path, old)),
    ]
    options = {"workloads": [item(namespace)], "rollout": "if_stale", "wait": True, "wait_sleep": 1}
    result, proxy = through(pools, *faults, **options)
    assert result["operations"] == [operation("restart", "Deployment", namespace)] and not result.get("failed")
    assert len([path for method, path in proxy.requests if method == "GET" and path.endswith("/web")]) == 3
    assert not pools.run("workload_pools", **options)["changed"]


def test_when_time_is_up_the_failure_says_what_is_missing_and_why(pools, namespace):
    pools.create_workload("Deployment", namespace, "web", RIGHT)
    pools.create_pod(namespace, "web-old", app="web", address=STALE, annotations=RIGHT)
    pools.create_pod(namespace, "web-new", app="web", annotations=RIGHT)
    about = {"kind": "Pod", "name": "web-new", "namespace": namespace}
    event = {
        "reason": "FailedCreatePodSandBox",
        "message": "pool a is full",
        "type": "Warning",
        "involvedObject": about,
    }
    pools.objects.create(f"/api/v1/namespaces/{namespace}/events", {"metadata": {"name": "web-new.1"}, **event})
    options = {"workloads": [item(namespace)], "rollout": "if_stale", "wait": True, "wait_timeout": 1, "wait_sleep": 1}
    result = pools.run("workload_pools", **options)
    assert result["failed"] and result["changed"]
    assert result["operations"] == [operation("restart", "Deployment", namespace)]
    assert "failed_operation" not in result
    assert result["msg"].startswith(f"not finished after 1 s: Deployment {namespace}/web: ")
    for text in (
        "its controller has not looked at the change yet",
        f"pod web-old: {STALE} is not from a",
        "pod web-new is Pending: FailedCreatePodSandBox: pool a is full",
    ):
        assert text in result["msg"]
    again = pools.run("workload_pools", **options)
    assert again["failed"] and not again["changed"], "the next run begins nothing, and waits for what is still stale"


def test_check_mode_does_not_wait_and_neither_does_a_run_that_replaces_nothing(pools, namespace):
    pools.create_workload("Deployment", namespace, "web", RIGHT)
    pools.create_pod(namespace, "web-old", app="web", address=STALE, annotations=RIGHT)
    options = {"workloads": [item(namespace)], "wait": True, "wait_timeout": 0}
    assert not pools.run("workload_pools", rollout="always", check=True, **options).get("failed")
    assert not pools.run("workload_pools", **options).get("failed")


def test_a_created_pod_is_waited_for(pools, namespace):
    definition = {"spec": {"containers": [{"name": "main", "image": "example.com/workload:1"}]}}
    pod = item(namespace, "Pod", definition=definition)
    path = f"/api/v1/namespaces/{namespace}/pods/web"
    faults = [
        Fault("GET", "/pods/web"),
        Fault("GET", "/pods/web", meanwhile=lambda: set_running(pools, path, FRESH)),
    ]
    result, _proxy = through(pools, *faults, workloads=[pod], wait=True, wait_sleep=1)
    assert result["operations"] == [operation("create", "Pod", namespace)] and not result.get("failed")


def test_stale_pods_of_a_cronjob_are_those_of_its_jobs_and_only_reported(pools, namespace):
    cron_job = pools.objects.get(pools.create_workload("CronJob", namespace, "web", RIGHT))
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": "web", "controller": True}
    job = pools.objects.get(pools.create_workload("Job", namespace, "web-1"))
    reference = {**owner, "uid": cron_job["metadata"]["uid"]}
    pools.objects.patch(
        f"/apis/batch/v1/namespaces/{namespace}/jobs/web-1", {"metadata": {"ownerReferences": [reference]}}
    )
    path = pools.create_pod(namespace, "web-1-x", address=STALE)
    reference = {**owner, "kind": "Job", "name": "web-1", "uid": job["metadata"]["uid"]}
    pools.objects.patch(path, {"metadata": {"ownerReferences": [reference]}})
    pools.create_pod(namespace, "other", address=STALE)
    result = pools.apply("workload_pools", workloads=[item(namespace, "CronJob")], rollout="if_stale")
    [workload] = result["workloads"]
    assert [stale["name"] for stale in workload["stale_pods"]] == ["web-1-x"]
    assert result["operations"] == []
    assert "pods of a CronJob are not replaced: web-1-x" in str(result["warnings"])


def test_pods_of_many_workloads_of_a_namespace_are_read_with_one_list(pools, namespace):
    names = [f"web-{number}" for number in range(5)]
    for name in names:
        pools.create_workload("Deployment", namespace, name, RIGHT)
        pools.create_pod(namespace, f"{name}-x", app=name, address=STALE, annotations=RIGHT)
    items = [{**item(namespace), "name": name} for name in names]
    result, proxy = through(pools, workloads=items, rollout="if_stale", check=True)
    assert [each["stale_pods"][0]["name"] for each in result["workloads"]] == [f"{name}-x" for name in names]
    assert [path.partition("?")[0] for _method, path in proxy.requests] == [
        f"/apis/{pools.group}/ippools",
        f"/apis/apps/v1/namespaces/{namespace}/deployments",
        f"/api/v1/namespaces/{namespace}/pods",
        f"/api/v1/namespaces/{namespace}",
    ]


def test_a_failure_midway_says_what_was_done_and_the_next_run_finishes_it(pools, namespace):
    for kind in ("Deployment", "ReplicaSet", "StatefulSet"):
        pools.create_workload(kind, namespace, "web")
    pods = [pools.create_pod(namespace, "web-1", app="web", address=STALE)]
    items = [item(namespace, kind) for kind in ("Deployment", "ReplicaSet", "StatefulSet")]
    options = {"workloads": items, "rollout": "if_stale"}
    result, _proxy = through(pools, Fault("PATCH", "/replicasets/web", 503, times=99, retry_after=0), **options)
    assert result["failed"] and result["operations"] == [operation("patch", "Deployment", namespace)]
    assert result["failed_operation"] == operation("patch", "ReplicaSet", namespace)
    assert result["operations_left"][0] == operation("patch", "StatefulSet", namespace)
    rest = pools.run("workload_pools", **options)
    assert [each["kind"] for each in rest["operations"][:2]] == ["ReplicaSet", "StatefulSet"]
    assert pools.run("workload_pools", **options)["operations"] == []
    assert not pools.objects.exists(pods[0])


def refused(pools, *items, **options):
    result = pools.refused("workload_pools", workloads=list(items), **options)
    return [(each["object"], each["field"], each["value"]) for each in result["errors"]], result["msg"]


def test_a_replicaset_of_a_deployment_is_refused_with_its_owners_name(pools, namespace):
    path = pools.create_workload("ReplicaSet", namespace, "web")
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop", "uid": "shop", "controller": True}
    pools.objects.patch(path, {"metadata": {"ownerReferences": [owner]}})
    errors, message = refused(pools, item(namespace, "ReplicaSet"))
    assert errors == [(f"ReplicaSet {namespace}/web", "kind", "ReplicaSet")]
    assert "it belongs to Deployment shop: declare that instead" in message


def test_a_paused_deployment_whose_pods_are_to_be_replaced_is_refused(pools, namespace):
    pools.create_workload("Deployment", namespace, "web", paused=True)
    errors, message = refused(pools, item(namespace), rollout="if_stale")
    assert errors == [(f"Deployment {namespace}/web", "rollout", "if_stale")]
    assert "spec.paused is true: no pod is replaced before the Deployment is resumed" in message


def test_pods_below_a_partition_are_named(pools, namespace):
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}
    pools.create_workload("StatefulSet", namespace, "web", RIGHT, updateStrategy=strategy, replicas=2)
    pools.create_pod(namespace, "web-0", app="web", address=STALE, annotations=RIGHT)
    result = pools.apply("workload_pools", workloads=[item(namespace, "StatefulSet")], rollout="if_stale")
    assert result["operations"] == []
    assert "below the partition 1 of its update strategy: web-0" in str(result["warnings"])
