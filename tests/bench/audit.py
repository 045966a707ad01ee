# SPDX-License-Identifier: Apache-2.0
"""pod_audit over a large cluster: one run of the module as a process of its own, against a real API server.

The cluster is made of objects alone: every pod is given its address by hand, with the block, the claim and the handle
that Calico would have written.
"""

from __future__ import annotations

import http.client
import json
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

from cluster.apiserver import ControlPlane
from support.cluster_objects import GROUPS, Objects, install
from support.worlds import WorldBuilder

NAMESPACES, POOLS, PODS, NODES, NODES_PER_POOL = 5_000, 1_000, 10_000, 200, 3
FAULTS = 20
WRITERS = 16
RUNS = 5
MODULE = "ansible_collections.podnet.ipam.plugins.modules.pod_audit"
# A process of its own, as the peak of a child counts the memory of whoever starts it.
LAUNCHER = """
import resource, subprocess, sys, time
started = time.perf_counter()
subprocess.run(sys.argv[1:], check=True)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, file=sys.stderr)
"""


def report() -> dict:
    """Print the figures and return them: seconds, of these on a processor, and peak memory in MB."""
    with tempfile.TemporaryDirectory(prefix="podnet-bench-") as folder, ControlPlane() as plane:
        install(Objects(plane), "v1")
        started = time.monotonic()
        fill(plane)
        print(f"Audit: {NAMESPACES} namespaces, {POOLS} pools, {PODS} pods; made in {time.monotonic() - started:.0f} s")
        runs = [measure(plane, Path(folder)) for _run in range(RUNS)]
    print(f"{'':34}{'time':>10}{'own CPU':>12}{'memory':>12}   (medians of {RUNS} runs)")
    seconds, own, memory = (statistics.median(run[figure] for run in runs) for figure in range(3))
    found = {check: count for check, count in runs[0][3]["summary"].items() if count}
    print(f"{'pod_audit':<34}{seconds:>8.2f} s{own:>10.2f} s{memory:>9.0f} MB   found: {found}\n")
    return {"seconds": round(seconds, 3), "own_cpu_seconds": round(own, 3), "memory_mb": round(memory)}


def measure(plane: ControlPlane, folder: Path) -> tuple[float, float, float, dict]:
    """(seconds, of these on a processor, peak memory in MB, result) of one run, start and imports included."""
    arguments = {"kubeconfig": str(plane.kubeconfig), "_ansible_remote_tmp": str(folder)}
    file = folder / "arguments.json"
    file.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))
    command = [sys.executable, "-c", LAUNCHER, sys.executable, "-m", MODULE, file]
    with open(folder / "result", "w+b") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, check=True)
    seconds, own, memory = map(float, done.stderr.split())
    return seconds, own, memory / 1024, json.loads((folder / "result").read_text())


def fill(plane: ControlPlane) -> None:
    """Create everything, with many requests at once, each kind of object after those that it needs."""
    world, maker = build(), Maker(plane)
    with ThreadPoolExecutor(WRITERS) as executor:
        for kinds in (("Namespace", "Node", "IPPool"), ("Pod", "IPAMBlock", "BlockAffinity", "IPAMHandle")):
            wanted = [key for key in world.stored if key[0] in kinds]
            for _done in executor.map(lambda key: world.create_one(maker, GROUPS["v1"], key), wanted):
                pass


def build() -> WorldBuilder:
    """A pool for every fifth namespace, and two pods in each namespace; a few have left their address behind."""
    pools = {f"pool-{index}": f"10.{index // 16}.{index % 16 * 16}.0/20" for index in range(POOLS)}
    world = WorldBuilder([f"node-{index}" for index in range(NODES)], pools, {4: 26})
    for index in range(NAMESPACES):
        own = json.dumps([f"pool-{index % POOLS}"])
        annotations = {"cni.projectcalico.org/ipv4pools": own} if index % 2 else {}
        world.namespace(f"namespace-{index}", labels={"team": f"team-{index % 50}"}, annotations=annotations)
    for index in range(PODS):
        node = f"node-{(index + index // POOLS % NODES_PER_POOL) % NODES}"
        namespace, pool = index % NAMESPACES, f"pool-{index % NAMESPACES % POOLS}"
        world.pod(f"web-{index}-5d8f7c9b6-x2v9q", f"namespace-{namespace}", node, (pool,))
    for index in range(FAULTS):
        world.allocate("pool-0", "node-0", f"net.gone-{index}", {"namespace": "namespace-0", "pod": f"gone-{index}"})
    return world


class Maker:
    """Creates objects over connections that are kept, one for each thread: a new one costs more than the request."""

    def __init__(self, plane: ControlPlane):
        self._server = urlsplit(plane.url)
        self._headers = {"Authorization": f"Bearer {plane.token}"}
        self._trust = ssl.create_default_context(cafile=plane.ca)
        self._local = threading.local()

    def create(self, path: str, body: dict) -> dict:
        return self._request("POST", path, body)

    def patch_status(self, path: str, status: dict) -> dict:
        return self._request("PATCH", f"{path}/status", {"status": status})

    def _request(self, method: str, path: str, body: dict) -> dict:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            server = self._server
            connection = http.client.HTTPSConnection(server.hostname, server.port, context=self._trust, timeout=60)
            self._local.connection = connection
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        connection.request(method, path, json.dumps(body), {**self._headers, "Content-Type": kind})
        answer = connection.getresponse()
        content = json.loads(answer.read())
        assert answer.status < 300, content
        return content


if __name__ == "__main__":
    report()
