# SPDX-License-Identifier: Apache-2.0
"""What controllers, kubelet and IPAM would do in a cluster that has only an API server, as far as a test needs it.

A thread looks at the workloads a few times a second. It makes new pods for a Deployment or StatefulSet whose template
has changed, and for a ReplicaSet that lacks some. Each pod gets an address of the pool that its annotations name, else
of the first enabled one, and each pool with pods has one block that tells who has which address.
"""

from __future__ import annotations

import ipaddress
import json
import threading
import urllib.error

from ansible_collections.podnet.ipam.plugins.module_utils._core.names import POOLS_ANNOTATIONS, cidr_name

V4 = POOLS_ANNOTATIONS[4]
APPS = "/apis/apps/v1"
KINDS = {"deployments": "Deployment", "statefulsets": "StatefulSet", "replicasets": "ReplicaSet"}
NODE = "node-1"
_COUNTS = ("replicas", "readyReplicas", "availableReplicas")
_LOST_RACES = (404, 409, 422)


class Controllers:
    """At work on a test's Cluster for as long as the `with` block lasts."""

    def __init__(self, cluster):
        self.cluster, self.objects = cluster, cluster.objects
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._started = 0

    def __enter__(self) -> Controllers:
        self.settle()
        self._thread.start()
        return self

    def __exit__(self, *_error) -> None:
        self._end.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._end.wait(0.2):
            try:
                self.settle()
            except urllib.error.HTTPError as error:  # a module wrote at the same time
                if error.code not in _LOST_RACES:
                    raise

    def settle(self) -> None:
        """Bring pods, blocks and statuses to what the workloads say."""
        for pod in self.objects.get("/api/v1/pods")["items"]:
            if pod["metadata"].get("deletionTimestamp"):  # it has been evicted, and its containers have ended
                self.objects.delete(f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}")
        for plural, kind in KINDS.items():
            for workload in self.objects.get(f"{APPS}/{plural}")["items"]:
                if not workload["metadata"].get("ownerReferences"):
                    self._settle_workload(plural, kind, workload)
        self._write_blocks()

    def _settle_workload(self, plural: str, kind: str, workload: dict) -> None:
        metadata, spec = workload["metadata"], workload["spec"]
        if spec.get("paused"):
            return
        collection = f"/api/v1/namespaces/{metadata['namespace']}/pods"
        pods = self.objects.get(f"{collection}?labelSelector=app={metadata['name']}")["items"]
        annotations = spec["template"]["metadata"].get("annotations") or {}
        old = [pod for pod in pods if pod["metadata"].get("annotations", {}) != annotations and kind != "ReplicaSet"]
        for pod in old:
            self.objects.delete(f"{collection}/{pod['metadata']['name']}")
        for _missing in range(spec["replicas"] - len(pods) + len(old)):
            self._start_pod(kind, workload, annotations)
        status = {"observedGeneration": metadata["generation"], **dict.fromkeys(_COUNTS, spec["replicas"])}
        if kind != "ReplicaSet":
            status["updatedReplicas"] = spec["replicas"]
        self.objects.patch_status(f"{APPS}/namespaces/{metadata['namespace']}/{plural}/{metadata['name']}", status)

    def _start_pod(self, kind: str, workload: dict, annotations: dict) -> None:
        metadata = workload["metadata"]
        owner = self._replica_set(workload) if kind == "Deployment" else reference(kind, metadata)
        self._started += 1
        name = f"{metadata['name']}-{self._started}"
        self.start_pod(metadata["namespace"], name, app=metadata["name"], annotations=annotations, owner=owner)

    def _replica_set(self, deployment: dict) -> dict:
        """The owner reference to a Deployment's one ReplicaSet."""
        metadata = deployment["metadata"]
        collection = f"{APPS}/namespaces/{metadata['namespace']}/replicasets"
        name = f"{metadata['name']}-5d9f"
        if not self.objects.exists(f"{collection}/{name}"):
            about = {"name": name, "ownerReferences": [reference("Deployment", metadata)]}
            spec = {key: deployment["spec"][key] for key in ("replicas", "selector", "template")}
            self.objects.create(collection, {"metadata": about, "spec": spec})
        return reference("ReplicaSet", self.objects.get(f"{collection}/{name}")["metadata"])

    def start_pod(self, namespace: str, name: str, app=None, annotations=None, owner=None) -> str:
        """A pod that runs, with an address; its path."""
        collection = f"/api/v1/namespaces/{namespace}/pods"
        metadata = {"name": name, "labels": {"app": app or name}, "annotations": annotations or {}}
        if owner:
            metadata["ownerReferences"] = [owner]
        containers = [{"name": "main", "image": "example.com/workload:1"}]
        address = self._address(namespace, annotations or {})
        self.objects.create(collection, {"metadata": metadata, "spec": {"nodeName": NODE, "containers": containers}})
        ready = [{"type": "Ready", "status": "True"}]
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": ready}
        self.objects.patch_status(f"{collection}/{name}", status)
        return f"{collection}/{name}"

    def _address(self, namespace: str, annotations: dict) -> str:
        """The next free address of the pool that the assignment stands for."""
        inherited = self.objects.get(f"/api/v1/namespaces/{namespace}")["metadata"].get("annotations") or {}
        text, pools = annotations.get(V4) or inherited.get(V4), self._pools()
        enabled = [name for name, spec in sorted(pools.items()) if not spec.get("disabled")]
        name = json.loads(text)[0] if text else enabled[0]
        assert name in enabled, f"a pod of {namespace} asks for pool {name}, which gives out nothing"
        used = self._addresses()
        return next(str(host) for host in ipaddress.ip_network(pools[name]["cidr"]) if host not in used)

    def _pools(self) -> dict[str, dict]:
        return {
            pool["metadata"]["name"]: pool["spec"] for pool in self.objects.get(self.cluster.path("ippools"))["items"]
        }

    def _addresses(self) -> dict[ipaddress.IPv4Address, str]:
        """{address: namespace/pod} of all pods."""
        return {
            ipaddress.ip_address(pod["status"]["podIP"]): f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            for pod in self.objects.get("/api/v1/pods")["items"]
            if pod["status"].get("podIP")
        }

    def _write_blocks(self) -> None:
        used = self._addresses()
        for spec in self._pools().values():
            network = ipaddress.ip_network(spec["cidr"])
            block = next(network.subnets(new_prefix=spec.get("blockSize", 26)))
            self._write_block(block, {int(each) - int(block[0]): pod for each, pod in used.items() if each in block})

    def _write_block(self, block: ipaddress.IPv4Network, holders: dict[int, str]) -> None:
        """The block of a pool, with the pods that hold its addresses by ordinal."""
        path = self.cluster.path("ipamblocks", cidr_name(str(block)))
        if not self.objects.exists(path):
            if not holders:
                return
            self.cluster.create_block(str(block), node=NODE)
        stored, ordinals = self.objects.get(path), sorted(holders)
        spec = {
            **stored["spec"],
            "allocations": [ordinals.index(each) if each in holders else None for each in range(block.num_addresses)],
            "unallocated": [each for each in range(block.num_addresses) if each not in holders],
            "attributes": [_attribute(holders[each]) for each in ordinals],
        }
        if spec != stored["spec"]:
            self.objects.request("PUT", path, {**stored, "spec": spec})


def reference(kind: str, metadata: dict) -> dict:
    """The owner reference to an object as the controller of another."""
    owner = {"apiVersion": "apps/v1", "kind": kind, "name": metadata["name"], "uid": metadata["uid"]}
    return {**owner, "controller": True}


def _attribute(pod: str) -> dict:
    return {"handle_id": f"net.{pod}", "secondary": dict(zip(("namespace", "pod"), pod.split("/"), strict=True))}
