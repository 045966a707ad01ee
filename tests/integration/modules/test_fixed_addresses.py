# SPDX-License-Identifier: Apache-2.0
"""Fixed addresses of workloads against a real API server."""

from __future__ import annotations

import pytest
from support.faulty_proxy import FaultyProxy

V4, ADDRS = "cni.projectcalico.org/ipv4pools", "cni.projectcalico.org/ipAddrs"
ADDRESS = "10.244.0.1"  # the second of the block that the tests make


@pytest.fixture
def pools(either_cluster):
    """Two pools, and the cluster that they are in."""
    either_cluster.create_pools(("a", "10.244.0.0/18"), ("six", "fd00:10:244::/64"))
    return either_cluster


def item(namespace, kind="StatefulSet", **options):
    return {"kind": kind, "namespace": namespace, "name": "web", "ip_addrs": [ADDRESS], **options}


def errors(result):
    return [(each["object"], each["field"], each["value"]) for each in result["errors"]]


@pytest.mark.parametrize(
    ("kind", "spec"),
    [("StatefulSet", {}), ("ReplicaSet", {}), ("Deployment", {"strategy": {"type": "Recreate"}}), ("CronJob", {})],
)
def test_the_one_pod_of_a_workload_gets_its_addresses(pools, kind, spec):
    namespace = pools.create_namespace()
    path = pools.create_workload(kind, namespace, "web", **spec)
    both = item(namespace, kind, ip_addrs=[ADDRESS, "fd00:10:244:0::9"])
    result = pools.apply("workload_pools", workloads=[both])
    assert pools.template_annotations(path) == {ADDRS: '["10.244.0.1","fd00:10:244::9"]'}
    assert result["after"][0]["ip_addrs"] == [ADDRESS, "fd00:10:244::9"]
    pools.apply("workload_pools", workloads=[item(namespace, kind, ip_addrs=[])])
    assert pools.template_annotations(path) == {}


def test_absent_takes_fixed_addresses_away_as_well(pools):
    namespace = pools.create_namespace()
    path = pools.create_workload("StatefulSet", namespace, "web", {ADDRS: '["10.9.9.9"]', V4: '["gone"]'})
    pools.apply("workload_pools", workloads=[item(namespace, ip_addrs=None)], state="absent")
    assert pools.template_annotations(path) == {}


def test_an_address_that_another_pod_has_is_refused_with_the_pods_name(pools):
    namespace = pools.create_namespace()
    pools.create_workload("StatefulSet", namespace, "web")
    pools.create_pod(namespace, "other", address=ADDRESS)
    pools.create_block("10.244.0.0/26", holders=[f"{namespace}/first", f"{namespace}/other"])
    result = pools.refused("workload_pools", workloads=[item(namespace)])
    assert errors(result) == [(f"StatefulSet {namespace}/web", "ip_addrs", ADDRESS)]
    assert f"{ADDRESS} is in use by pod {namespace}/other" in result["msg"]


def test_an_address_of_an_own_pod_is_fine(pools):
    namespace = pools.create_namespace()
    pools.create_workload("StatefulSet", namespace, "web")
    pools.create_pod(namespace, "web-0", app="web", address=ADDRESS)
    pools.create_block("10.244.0.0/26", holders=[f"{namespace}/first", f"{namespace}/web-0"])
    result = pools.apply("workload_pools", workloads=[item(namespace)])
    assert result["changed"] and not result.get("warnings")


def test_an_address_of_a_pod_that_is_gone_gives_a_warning(pools):
    namespace = pools.create_namespace()
    pools.create_workload("StatefulSet", namespace, "web")
    pools.create_block("10.244.0.0/26", holders=[f"{namespace}/first", f"{namespace}/gone"])
    [warning] = pools.run("workload_pools", workloads=[item(namespace)])["warnings"]
    assert f"still recorded for pod {namespace}/gone, which does not exist any more" in str(warning)


def test_only_the_block_of_the_address_is_read(pools):
    namespace = pools.create_namespace()
    pools.create_workload("StatefulSet", namespace, "web")
    with FaultyProxy(pools.plane) as proxy:
        connection = {"host": proxy.url, "api_key": pools.plane.token}
        pools.run("workload_pools", environ={}, **connection, workloads=[item(namespace)])
    blocks = [path for _method, path in proxy.requests if "/ipamblocks" in path]
    assert blocks == [f"/apis/{pools.group}/ipamblocks/10-244-0-0-26"]


def test_running_pods_with_another_address_are_stale(pools):
    namespace = pools.create_namespace()
    pools.create_workload("StatefulSet", namespace, "web", {ADDRS: f'["{ADDRESS}"]'})
    pools.create_pod(namespace, "web-0", app="web", address="10.244.0.7", annotations={ADDRS: f'["{ADDRESS}"]'})
    result = pools.apply("workload_pools", workloads=[item(namespace)], rollout="if_stale")
    [stale] = result["workloads"][0]["stale_pods"]
    assert stale == {"name": "web-0", "addresses": ["10.244.0.7"], "reasons": [f"10.244.0.7 is not from {ADDRESS}"]}
    assert result["operations"] == [{"verb": "restart", "kind": "StatefulSet", "namespace": namespace, "name": "web"}]


def test_all_that_stands_in_the_way_of_a_fixed_address_is_told_together(pools):
    pools.create_pools(("off", "10.244.64.0/18"), disabled=True)
    namespace = pools.create_namespace()
    pools.create_workload("Deployment", namespace, "web")
    pools.create_workload("DaemonSet", namespace, "web")
    pools.create_workload("StatefulSet", namespace, "web", replicas=2)
    items = [
        item(namespace, "Deployment", ip_addrs=["10.244.64.1"]),
        item(namespace, "DaemonSet", ip_addrs=["10.9.9.9", "nonsense"]),
        item(namespace, "StatefulSet", ip_addrs=["10.244.0.5", "10.244.0.6"]),
        {**item(namespace, "Job", ip_addrs=["10.244.0.5"]), "name": "nowhere"},
    ]
    result = pools.refused("workload_pools", workloads=items)
    assert sorted(errors(result), key=str) == [
        (f"DaemonSet {namespace}/web", "ip_addrs", "10.9.9.9"),
        (f"DaemonSet {namespace}/web", "ip_addrs", "nonsense"),
        (f"DaemonSet {namespace}/web", "ip_addrs", None),
        (f"Deployment {namespace}/web", "ip_addrs", "10.244.64.1"),
        (f"Deployment {namespace}/web", "ip_addrs", 1),
        (f"Job {namespace}/nowhere", "name", "nowhere"),
        (f"StatefulSet {namespace}/web", "ip_addrs", "10.244.0.5"),
        (f"StatefulSet {namespace}/web", "ip_addrs", 2),
        (f"StatefulSet {namespace}/web", "ip_addrs", ["10.244.0.5", "10.244.0.6"]),
    ]
    for text in (
        "10.244.64.1 lies in pool 'off', which cannot be used: it is disabled",
        "its strategy is RollingUpdate with a maxSurge other than 0",
        "10.9.9.9 lies in no pool; pools of IPv4: a (10.244.0.0/18), off (10.244.64.0/18)",
        "a DaemonSet has a pod on each node",
        "replicas is 2, but only one pod can have an address",
        f"10.244.0.5 is also declared for Job {namespace}/nowhere",
    ):
        assert text in result["msg"]
