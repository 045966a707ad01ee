# SPDX-License-Identifier: Apache-2.0
"""Modules run as processes of their own against a real API server that serves Calico's kinds in one of both groups."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest
from cluster.apiserver import ControlPlane
from support.cluster_objects import GROUPS, READY_SECONDS, Objects, install
from support.module_server import ModuleServer

POD_CIDRS = "10.244.0.0/16,fd00:10:244::/56"
KUBEADM_CONFIG = (
    f"apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nnetworking:\n  podSubnet: {POD_CIDRS}\n"
)
WORKLOAD_KINDS = {
    "Deployment": ("/apis/apps/v1", "deployments"),
    "StatefulSet": ("/apis/apps/v1", "statefulsets"),
    "DaemonSet": ("/apis/apps/v1", "daemonsets"),
    "ReplicaSet": ("/apis/apps/v1", "replicasets"),
    "Job": ("/apis/batch/v1", "jobs"),
    "CronJob": ("/apis/batch/v1", "cronjobs"),
    "Pod": ("/api/v1", "pods"),
}
CALICO_PLURALS = (
    "ippools",
    "ipamblocks",
    "blockaffinities",
    "ipamhandles",
    "ipreservations",
    "ipamconfigs",
    "ipamconfigurations",
)
KEPT_NAMESPACES = {"default", "kube-system", "kube-public", "kube-node-lease"}
POD_SPEC = {"containers": [{"name": "main", "image": "example.com/workload:1"}]}


@dataclass(frozen=True)
class Cluster:
    """An API server, its objects, and modules run against it."""

    plane: ControlPlane
    objects: Objects
    group: str
    folder: Path
    server: ModuleServer

    def path(self, plural, name=None):
        """The path of one of Calico's collections or objects."""
        return f"/apis/{self.group}/{plural}" + (f"/{name}" if name else "")

    def pool(self, name):
        return self.objects.get(self.path("ippools", name))

    def pools(self):
        return self.objects.names(self.path("ippools"))

    def wait_for(self, path):
        """Wait until a collection that has only just been defined is served."""
        deadline = time.monotonic() + READY_SECONDS
        while not self.objects.exists(path):
            assert time.monotonic() < deadline, f"{path} is not served"
            time.sleep(0.05)

    def versions(self):
        """The version of everything that a module may write."""
        own = [self.path(plural) for plural in CALICO_PLURALS]
        kinds = [f"{api}/{plural}" for api, plural in WORKLOAD_KINDS.values()]
        return self.objects.versions([*own, "/api/v1/namespaces", *kinds])

    def annotations(self, path):
        return self.objects.get(path)["metadata"].get("annotations", {})

    def template_annotations(self, path):
        """The annotations of a workload's pod template."""
        spec = self.objects.get(path)["spec"]
        template = spec["jobTemplate"]["spec"]["template"] if "jobTemplate" in spec else spec["template"]
        return template["metadata"].get("annotations", {})

    def create(self, kind, plural, name, spec):
        body = {"apiVersion": self.group, "kind": kind, "metadata": {"name": name}, "spec": spec}
        return self.objects.create(self.path(plural), body)

    def create_block(self, cidr, holders=(), node="node-1"):
        """A block of a node, with the first addresses allocated to the pods `namespace/name`, and the node's claim."""
        size, name = 1 << (32 - int(cidr.partition("/")[2])), cidr.translate(str.maketrans("./:", "---"))
        attributes = [
            {"handle_id": f"net.{pod}", "secondary": dict(zip(("namespace", "pod"), pod.split("/"), strict=True))}
            for pod in holders
        ]
        used = list(range(len(holders)))
        spec = {
            "cidr": cidr,
            "affinity": f"host:{node}",
            "allocations": used + [None] * (size - len(used)),
            "unallocated": list(range(len(used), size)),
            "attributes": attributes,
            "deleted": False,
            "strictAffinity": False,
        }
        self.create("IPAMBlock", "ipamblocks", name, spec)
        deleted = "false" if self.group == GROUPS["v1"] else False
        claim = {"cidr": cidr, "node": node, "type": "host", "state": "confirmed", "deleted": deleted}
        self.create("BlockAffinity", "blockaffinities", f"{node}-{name}", claim)

    def create_pools(self, *names_and_cidrs, **spec):
        for name, cidr in names_and_cidrs:
            self.create("IPPool", "ippools", name, {"cidr": cidr, **spec})

    def create_namespace(self, annotations=None):
        """A namespace of its own for the test; its name."""
        body = {"metadata": {"generateName": "payments-", "annotations": annotations or {}}}
        return self.objects.create("/api/v1/namespaces", body)["metadata"]["name"]

    def create_workload(self, kind, namespace, name, annotations=None, **spec):
        """A workload whose pod template has these annotations; its path."""
        api, plural = WORKLOAD_KINDS[kind]
        template = {"metadata": {"labels": {"app": name}, "annotations": annotations or {}}, "spec": POD_SPEC}
        spec = {"template": template, **spec}
        if kind == "CronJob":
            template["spec"] = {**POD_SPEC, "restartPolicy": "Never"}
            spec = {"schedule": "0 0 * * *", "jobTemplate": {"spec": {"template": template}}}
        elif kind == "Job":
            template["spec"] = {**POD_SPEC, "restartPolicy": "Never"}
        else:
            spec["selector"] = {"matchLabels": {"app": name}}
        collection = f"{api}/namespaces/{namespace}/{plural}"
        self.objects.create(collection, {"metadata": {"name": name}, "spec": spec})
        return f"{collection}/{name}"

    def create_pod(self, namespace, name, app=None, address=None, annotations=None):
        """A pod, running with an address if one is given; its path."""
        collection = f"/api/v1/namespaces/{namespace}/pods"
        metadata = {"name": name, "labels": {"app": app or name}, "annotations": annotations or {}}
        self.objects.create(collection, {"metadata": metadata, "spec": POD_SPEC})
        if address:
            status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
            self.objects.patch_status(f"{collection}/{name}", status)
        return f"{collection}/{name}"

    def run(self, module, *, check=False, environ=None, **options):
        """The result of a module, as it prints it."""
        arguments = {**options, "_ansible_check_mode": check, "_ansible_diff": True, "_ansible_remote_tmp": "/tmp"}
        environ = {"K8S_AUTH_KUBECONFIG": str(self.plane.kubeconfig)} if environ is None else environ
        environ = {"PATH": os.environ["PATH"], "HOME": str(self.folder), **environ}
        return self.server.run(module, arguments, environ, self.folder)

    def user(self, *rules):
        """The options of a module that acts as a user of its own who has these rights, rules of a ClusterRole."""
        name = f"user-{uuid.uuid4()}"
        rbac = "rbac.authorization.k8s.io"
        role = {"metadata": {"name": name}, "rules": list(rules)}
        self.objects.create(f"/apis/{rbac}/v1/clusterroles", role)
        binding = {
            "metadata": {"name": name},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": rbac, "kind": "User", "name": name}],
        }
        self.objects.create(f"/apis/{rbac}/v1/clusterrolebindings", binding)
        deadline = time.monotonic() + READY_SECONDS
        while rules and not self._allows(name, rules[0]):
            assert time.monotonic() < deadline, f"{name} did not get its rights"
            time.sleep(0.02)
        return {"impersonate_user": name}

    def _allows(self, user, rule):
        attributes = {"group": rule["apiGroups"][0], "resource": rule["resources"][0], "verb": rule["verbs"][0]}
        attributes["name"] = rule.get("resourceNames", [""])[0]
        review = {"spec": {"user": user, "resourceAttributes": attributes}}
        answer = self.objects.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
        return answer["status"]["allowed"]

    def through(self, proxy):
        """The options of a module that reaches the cluster through a proxy."""
        return {"environ": {}, "host": proxy.url, "api_key": self.plane.token}

    @staticmethod
    def warnings(result):
        """The texts of a result's warnings; newer releases of ansible-core have objects there."""
        return [each if isinstance(each, str) else each["event"]["msg"] for each in result.get("warnings", ())]

    def apply(self, module, **options):
        """A real run that check mode predicts exactly and without writing, and that a second run finds unchanged."""
        before = self.versions()
        predicted = self.run(module, check=True, **options)
        assert self.versions() == before, "check mode wrote"
        result = self.run(module, **options)
        keys = ("failed", "changed", "operations", "diff", "before", "after", "msg", "errors", "workloads", "in_use")
        assert {key: predicted.get(key) for key in keys} == {key: result.get(key) for key in keys}
        assert not result.get("failed"), result["msg"]
        again = self.run(module, **options)
        assert (again["changed"], again["operations"]) == (False, [])
        assert again["diff"] == {"before": {}, "after": {}}
        return result

    def refused(self, module, **options):
        """The failure of a module that wrote nothing, the same in check mode."""
        before = self.versions()
        predicted = self.run(module, check=True, **options)
        result = self.run(module, **options)
        assert self.versions() == before, "something was written"
        assert result["failed"] and not result["changed"] and result["operations"] == []
        assert (predicted["msg"], predicted["errors"]) == (result["msg"], result["errors"])
        return result


def record_pod_cidrs(objects):
    """What kubeadm leaves in a cluster."""
    if not objects.exists("/api/v1/namespaces/kube-system"):
        objects.create("/api/v1/namespaces", {"metadata": {"name": "kube-system"}})
    config = {"metadata": {"name": "kubeadm-config"}, "data": {"ClusterConfiguration": KUBEADM_CONFIG}}
    objects.create("/api/v1/namespaces/kube-system/configmaps", config)


@pytest.fixture(scope="session")
def planes():
    """Start a control plane on first use of a name, and end them all with the session."""
    with contextlib.ExitStack() as stack:
        started = {}

        def plane(name):
            if name not in started:
                started[name] = stack.enter_context(ControlPlane())
                objects = Objects(started[name])
                group = name.partition(" ")[0]
                if group in GROUPS:
                    install(objects, group)
                    record_pod_cidrs(objects)
            return started[name]

        yield plane


@pytest.fixture(scope="session")
def server():
    with ModuleServer() as server:
        yield server


def emptied(plane, group, folder, server):
    """A Cluster without any of Calico's objects."""
    cluster = Cluster(plane, Objects(plane), group, folder, server)
    for collection in map(cluster.path, CALICO_PLURALS):
        for name in cluster.objects.names(collection) if cluster.objects.exists(collection) else ():
            cluster.objects.delete(f"{collection}/{name}")
    return cluster


@pytest.fixture
def cluster(planes, tmp_path, server):
    """A cluster with Calico's kinds in the usual group."""
    return emptied(planes("v1"), GROUPS["v1"], tmp_path, server)


@pytest.fixture(params=list(GROUPS))
def either_cluster(request, planes, tmp_path, server):
    """A cluster with Calico's kinds in the one and in the other group."""
    return emptied(planes(request.param), GROUPS[request.param], tmp_path, server)


def emptied_of_everything(planes, group, folder, server):
    """A Cluster of its own, other than `emptied` also without pods, services, nodes and namespaces."""
    cluster = emptied(planes(f"{group} alone"), GROUPS[group], folder, server)
    objects = cluster.objects
    for api, plural in (*WORKLOAD_KINDS.values(), ("/api/v1", "services")):
        for each in objects.get(f"{api}/{plural}")["items"]:
            namespace, name = each["metadata"]["namespace"], each["metadata"]["name"]
            objects.delete(f"{api}/namespaces/{namespace}/{plural}/{name}")
    for name in objects.names("/api/v1/nodes"):
        objects.delete(f"/api/v1/nodes/{name}")
    for name in set(objects.names("/api/v1/namespaces")) - KEPT_NAMESPACES:
        objects.delete(f"/api/v1/namespaces/{name}")
        # What the namespace controller does when nothing is left in it.
        objects.request("PUT", f"/api/v1/namespaces/{name}/finalize", {"metadata": {"name": name}, "spec": {}})
    return cluster


@pytest.fixture
def whole_cluster(planes, tmp_path, server):
    """A cluster in which there is nothing but what the test makes, in the usual group."""
    return emptied_of_everything(planes, "v1", tmp_path, server)


@pytest.fixture(params=list(GROUPS))
def either_whole_cluster(request, planes, tmp_path, server):
    """The same in the one and in the other group."""
    return emptied_of_everything(planes, request.param, tmp_path, server)


@pytest.fixture
def empty_cluster(planes, tmp_path, server):
    """A cluster that serves none of Calico's kinds."""
    plane = planes("empty")
    return Cluster(plane, Objects(plane), "", tmp_path, server)


@pytest.fixture
def node(cluster):
    """Create a node with an internal address and labels; it goes with the test."""
    created = []

    def create(name, address, **labels):
        cluster.objects.create("/api/v1/nodes", {"metadata": {"name": name, "labels": labels}})
        created.append(f"/api/v1/nodes/{name}")
        cluster.objects.patch_status(created[-1], {"addresses": [{"type": "InternalIP", "address": address}]})

    yield create
    for path in created:
        cluster.objects.delete(path)
