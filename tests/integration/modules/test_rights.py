# SPDX-License-Identifier: Apache-2.0
"""Modules run by users who may do some things and not others."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
import yaml
from support.controllers import Controllers
from support.worlds import WorldBuilder

GUIDE = Path(__file__).resolve().parents[3] / "docs/docsite/rst/guide_restrict_pod.rst"
ROLE = re.compile(r"^\.\. code-block:: yaml\n\n((?:   .*\n|\n)+)", re.MULTILINE)
RACK = [{"name": "rack-1", "cidr": "10.244.0.0/18"}]
# Modules that change something, with options for a cluster of which they know nothing yet.
CHANGING = {
    "ipam_config": {"strict_affinity": True},
    "ip_pools": {"pools": [{"name": "old", "cidr": "10.244.0.0/24"}, {"name": "young", "cidr": "10.244.1.0/24"}]},
    "ip_reservations": {"reservations": [{"name": "kept", "reserved_cidrs": ["10.244.1.0/30"]}]},
}


def rule(group, resources, *verbs):
    return {"apiGroups": [group], "resources": resources, "verbs": list(verbs)}


def documented(*names):
    """The rules of ClusterRoles in the guide."""
    roles = [yaml.safe_load(textwrap.dedent(text)) for text in ROLE.findall(GUIDE.read_text())]
    rules = {role["metadata"]["name"]: role["rules"] for role in roles}
    return [each for name in names for each in rules[name]]


def test_rights_on_the_group_that_is_served_are_enough(either_cluster):
    """Kubernetes refuses whoever has no rights on a group before it looks whether there is such a group."""
    user = either_cluster.user(rule(either_cluster.group.partition("/")[0], ["*"], "*"))
    assert len(either_cluster.run("ip_pools", pools=RACK, **user)["operations"]) == 1
    assert either_cluster.run("ip_pools", pools=RACK, **user)["operations"] == []


def test_pools_that_may_not_be_read_are_not_taken_for_none(either_cluster):
    group = either_cluster.group.partition("/")[0]
    result = either_cluster.run("ip_pools", pools=RACK, state="absent", **either_cluster.user())
    assert result["failed"]
    assert f'cannot list resource "ippools" in API group "{group}"' in result["msg"]


def test_where_no_pools_are_served_nobody_needs_rights_to_learn_it(empty_cluster):
    user = empty_cluster.user()
    result = empty_cluster.run("ip_pools", pools=RACK, state="absent", **user)
    assert not result.get("failed") and result["operations"] == []
    result = empty_cluster.run("ip_pools", pools=RACK, **user)
    assert "it serves IPPool neither in crd.projectcalico.org/v1" in result["msg"]


def test_a_user_without_rights_on_the_operators_kinds_is_told_what_could_not_be_read(cluster):
    calico = rule(cluster.group.partition("/")[0], ["*"], "get", "list")
    result = cluster.run("ipam_info", **cluster.user(calico, rule("", ["nodes"], "list")))
    assert (result["engine"], result["api_group"]) == ("unknown", cluster.group)
    assert result["evidence"][:2] == [
        "Installation default may not be read by this user",
        "ConfigMap kube-system/calico-config may not be read by this user",
    ]


@pytest.fixture
def world():
    """A cluster with something to repair."""
    world = WorldBuilder()
    world.pod("web-0")
    world.pod("web-1")
    world.allocate("a", "node-1", "net.gone", {"namespace": "payments", "pod": "gone", "node": "node-1"})
    world.handle("net.orphan", {"10.244.0.0/28": 1})
    world.remove("IPAMHandle", "net.payments-web-0")
    world.remove("BlockAffinity", "node-1-10-244-0-0-28")
    world.affinity("node-2", "10.244.9.0/28")
    return world


def done(result):
    """The result of a module that found everything it looked for."""
    assert not result.get("failed"), result["msg"]
    assert "warnings" not in result
    return result


def test_who_has_the_documented_rights_to_read_sees_all_and_changes_nothing(either_whole_cluster, world):
    cluster = either_whole_cluster
    world.create_in(cluster.objects, cluster.group)
    user, before = cluster.user(*documented("podnet-ipam-read")), cluster.versions()
    question = {"namespace": "payments", "node": "node-1", "pod": "web-0"}
    told = done(cluster.run("ipam_info", gather_subset=["all"], explain=[question], **user))
    administrators = cluster.run("ipam_info", gather_subset=["all"], explain=[question])
    # Which ansible-core adds up to 2.18.
    assert {**told, "invocation": None} == {**administrators, "invocation": None}
    assert done(cluster.run("pod_audit", repair=["leaks"], grace=0, check=True, **user))["operations"]
    for module in ("ipam_config", "ip_reservations"):
        assert done(cluster.run(module, check=True, **CHANGING[module], **user))["operations"]
        refused = cluster.run(module, **CHANGING[module], **user)
        assert refused["failed"] and "403 Forbidden" in refused["msg"]
    assert cluster.versions() == before


def test_who_has_the_documented_rights_can_repair_and_release(either_whole_cluster, world):
    cluster = either_whole_cluster
    world.create_in(cluster.objects, cluster.group)
    user = cluster.user(*documented("podnet-ipam-read", "podnet-ipam-write"))
    repaired = done(cluster.run("pod_audit", repair=["leaks", "handles", "affinities"], grace=0, **user))
    assert {each["verb"] for each in repaired["operations"]} == {"create", "replace", "delete"}
    assert not cluster.run("pod_audit", grace=0)["findings"]
    for name in ("web-0", "web-1"):
        cluster.objects.delete(f"/api/v1/namespaces/payments/pods/{name}")
    assert done(cluster.run("node_release", nodes=["node-1"], **user))["operations"]


def test_who_has_the_documented_rights_can_declare_move_and_remove(whole_cluster):
    cluster = whole_cluster
    cluster.objects.create("/api/v1/nodes", {"metadata": {"name": "node-1"}})
    namespace = cluster.create_namespace()
    user = cluster.user(*documented("podnet-ipam-read", "podnet-ipam-write"))
    assigned = {"namespaces": [{"name": namespace, "ipv4_pools": ["old"]}]}
    for module, options in {**CHANGING, "namespace_pools": assigned}.items():
        assert done(cluster.run(module, **options, **user))["operations"]
    pod = {"kind": "Pod", "namespace": namespace, "name": "probe", "ipv4_pools": ["young"]}
    workloads = [{**pod, "definition": {"spec": {"containers": [{"name": "main", "image": "example.com/x:1"}]}}}]
    paths = {}
    for kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "CronJob"):
        more = {"serviceName": "x"} if kind == "StatefulSet" else {}
        paths[kind] = cluster.create_workload(kind, namespace, kind.lower(), **more)
        workloads.append({"kind": kind, "namespace": namespace, "name": kind.lower(), "ipv4_pools": ["old"]})
    assert len(done(cluster.run("workload_pools", workloads=workloads, **user))["operations"]) == len(workloads)
    cluster.objects.delete(paths["DaemonSet"])  # nobody here would move its pods
    with Controllers(cluster):
        moved = cluster.run("pool_drain", pool="old", to="young", wait_sleep=1, wait_timeout=30, **user)
        assert {each["verb"] for each in moved["operations"]} >= {"patch", "evict"}, moved
        assert not moved.get("failed"), moved["msg"]
    goes = {"pools": [{"name": "old"}], "state": "absent", "force": True}
    assert done(cluster.run("ip_pools", **goes, **user))["operations"][-1]["verb"] == "delete"
    access = [{"verbs": ["list"], "group": cluster.group.partition("/")[0], "resources": ["ippools"]}]
    assert not done(cluster.run("cluster_preflight", access=access, **user)).get("failed")
