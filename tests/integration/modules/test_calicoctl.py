# SPDX-License-Identifier: Apache-2.0
"""pod_audit finds what `calicoctl ipam check` finds, where the two look at the same thing."""

from __future__ import annotations

import os
import random
import re
import subprocess

import pytest
from cluster import gobuild
from support.worlds import WorldBuilder

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GONE = {"namespace": "payments", "pod": "gone", "node": "node-1"}
WINDOWS = "windows-reserved-ipam-handle"
LEAKED = re.compile(r"^  (\S+) leaked;", re.MULTILINE)
OUTSIDE = re.compile(r"^  (\S+) in use by \S+ is not in any active IP pool", re.MULTILINE)
NOT_ALLOCATED = re.compile(r"^  (\S+) in use by \S+ and in active IPAM pool but has no", re.MULTILINE)
MISSING = re.compile(r"^  (\S+) is in use in a block but doesn't exist", re.MULTILINE)
LEAKED_HANDLES = re.compile(r"Found (\d+) handles with no matching IPs")
PROBLEMS = re.compile(r"Check complete; found (\d+) problems")


@pytest.fixture
def check(whole_cluster):
    """Runs Calico's own check; it needs an object that Calico makes when it is installed."""
    group = whole_cluster.group
    collection = f"/apis/{group}/clusterinformations"
    if not whole_cluster.objects.exists(collection):
        schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        version = {"name": "v1", "served": True, "storage": True, "schema": schema}
        names = {"kind": "ClusterInformation", "plural": "clusterinformations", "singular": "clusterinformation"}
        spec = {"group": "crd.projectcalico.org", "scope": "Cluster", "names": names, "versions": [version]}
        name = f"{names['plural']}.crd.projectcalico.org"
        whole_cluster.objects.create(DEFINITIONS, {"metadata": {"name": name}, "spec": spec})
        whole_cluster.wait_for(collection)
        body = {"apiVersion": group, "kind": "ClusterInformation", "metadata": {"name": "default"}}
        whole_cluster.objects.create(collection, {**body, "spec": {"datastoreReady": True, "clusterGUID": "test"}})
    program = gobuild.build("calicoctl")

    def run():
        environment = {"DATASTORE_TYPE": "kubernetes", "KUBECONFIG": str(whole_cluster.plane.kubeconfig)}
        environment |= {"PATH": os.environ["PATH"], "HOME": str(whole_cluster.folder)}
        command = [program, "ipam", "check", "--show-problem-ips", "--allow-version-mismatch"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    return run


def addresses(result, check):
    return sorted(each["address"] for each in result["findings"] if each["check"] == check and each["problem"])


def agree(cluster, check):
    """Run both, see that they agree, and return pod_audit's result."""
    report, result = check(), cluster.run("pod_audit", grace=0)
    assert result["calicoctl_problems"] == int(PROBLEMS.search(report)[1])
    problems = {each.get("address") or each["handle"] for each in result["findings"] if each["problem"]}
    assert len(problems) == result["calicoctl_problems"], "it counts an address once, whoever uses it"
    assert addresses(result, "leaked") == sorted(LEAKED.findall(report))
    outside = sorted({*OUTSIDE.findall(report), *NOT_ALLOCATED.findall(report)})
    assert sorted({*addresses(result, "outside"), *addresses(result, "not_allocated")}) == outside
    assert result["summary"]["leaked_handle"] == int(LEAKED_HANDLES.search(report)[1])
    missing = [each["handle"] for each in result["findings"] if each["check"] == "missing_handle"]
    assert sorted(missing) == sorted(MISSING.findall(report))
    return result


def pod(world, name, addresses, node="node-1", **fields):
    """A pod with addresses that nobody has allocated."""
    status = {"phase": "Running", "podIP": addresses[0], "podIPs": [{"ip": each} for each in addresses]}
    return world.add(
        "Pod", name, "payments", spec={"nodeName": node, **fields.pop("spec", {})}, status=status, **fields
    )


FAULTS = {
    "nothing": lambda world: None,
    "a pod that is gone": lambda world: world.remove("Pod", "api-0", "payments"),
    "an address outside": lambda world: pod(world, "stray", ["10.99.0.1", "fd00:99::1"]),
    "an address in a pool": lambda world: pod(world, "stray", ["10.244.0.99", "fd00:10:244::99"]),
    "an address of a disabled pool": lambda world: (
        world.get("IPPool", "b")["spec"].update(disabled=True),
        pod(world, "stray", ["10.244.64.99"]),
    ),
    "a pool that is gone": lambda world: world.remove("IPPool", "b"),
    "the same address twice": lambda world: pod(world, "twin", ["10.244.0.0"], "node-2"),
    "a stray address twice": lambda world: (pod(world, "x", ["10.99.0.1"]), pod(world, "y", ["10.99.0.1"], "node-2")),
    "a finished pod": lambda world: world.get("Pod", "web-0", "payments")["status"].update(phase="Succeeded"),
    "a pod in the node's network": lambda world: pod(world, "host", ["10.99.0.2"], spec={"hostNetwork": True}),
    "an orphaned handle": lambda world: world.handle("net.orphan", {"10.244.0.0/28": 1}),
    "a half deleted handle": lambda world: world.handle("net.half", {})["spec"].update(deleted=True),
    "a missing handle": lambda world: world.remove("IPAMHandle", "net.payments-web-0"),
    "a handle in other letters": lambda world: world.allocate("a", "node-1", "Net.Payments-web-0", GONE),
    "a wrong count": lambda world: world.handle("net.payments-web-0", {"10.244.0.0/28": 5}),
    "a tunnel that is not allocated": lambda world: world.get("Node", "node-2")["metadata"].update(
        annotations={"projectcalico.org/IPv4IPIPTunnelAddr": "10.244.0.77"}
    ),
    "a wireguard tunnel": lambda world: world.tunnel("node-2", "projectcalico.org/IPv4WireguardInterfaceAddr"),
    "reserved for Windows": lambda world: (
        world.allocate("a", "node-1", WINDOWS, {"note": "windows host rsvd"}),
        world.remove("IPAMHandle", WINDOWS),
    ),
    "an address without handle": lambda world: world.allocate("a", "node-1", None, GONE),
    "a claim too many": lambda world: world.affinity("node-2", "10.244.0.0/28"),
    "a block without node": lambda world: world.block_at("10.244.0.0")["spec"].pop("affinity"),
}


@pytest.fixture
def world():
    world = WorldBuilder()
    world.pod("web-0")
    world.pod("web-1")
    world.pod("api-0", node="node-2", pools=("b", "six"))
    world.tunnel("node-1")
    return world


@pytest.mark.parametrize("fault", FAULTS)
def test_the_two_agree_about_a_single_fault(whole_cluster, check, world, fault):
    FAULTS[fault](world)
    world.create_in(whole_cluster.objects, whole_cluster.group)
    agree(whole_cluster, check)


@pytest.mark.parametrize("seed", range(3))
def test_the_two_agree_about_many_faults_and_about_what_a_repair_leaves(whole_cluster, check, seed):
    chance, world = random.Random(seed), WorldBuilder()
    for index in range(25):
        node, pools = f"node-{chance.randint(1, 2)}", chance.choice([("a",), ("b",), ("a", "six")])
        world.pod(f"p-{index}", node=node, pools=pools)
    for kind in ("Pod", "IPAMHandle", "BlockAffinity"):
        for key in chance.sample([key for key in world.stored if key[0] == kind], 3):
            del world.stored[key]
    world.handle("net.orphan", {"10.244.0.0/28": 1})
    pod(world, "stray", ["10.244.0.200"])
    world.create_in(whole_cluster.objects, whole_cluster.group)
    before = agree(whole_cluster, check)
    whole_cluster.apply("pod_audit", repair=["leaks", "handles", "affinities"], grace=0)
    after = agree(whole_cluster, check)
    assert before["calicoctl_problems"] > after["calicoctl_problems"] == 1
    assert [each["check"] for each in after["findings"]] == ["not_allocated"]


@pytest.mark.parametrize(
    "address",
    (
        lambda world: world.tunnel("node-1", "projectcalico.org/IPv6VXLANTunnelAddr", "six"),
        lambda world: world.spare("node-1"),
    ),
    ids=("the IPv6 address of a tunnel", "the address that keeps a spare block"),
)
def test_a_problem_to_calicoctl_only(whole_cluster, check, world, address):
    address(world)
    world.create_in(whole_cluster.objects, whole_cluster.group)
    result = whole_cluster.run("pod_audit", grace=0)
    assert result["clean"] and result["calicoctl_problems"] == int(PROBLEMS.search(check())[1]) == 1
