# SPDX-License-Identifier: Apache-2.0
"""The modules beside kubernetes.core.k8s: task times, and the requests that reach the API server.

Both run as an operator runs them, with ansible-playbook, on the same API server and with the same declaration. A task's
time is that of a playbook with the task in it, minus that of a playbook with one ansible.builtin.ping and the same
variables: what is left is the task itself, with Ansible's work for its arguments and its result.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import yaml
from cluster.apiserver import ControlPlane
from support.cluster_objects import GROUPS, Objects, install

MANY, FEW, TOUCHED = 1000, 20, 3
OURS_RUNS, PEER_RUNS = 5, 3
POOLS = f"/apis/{GROUPS['v1']}/ippools"
KUBEADM = {"ClusterConfiguration": "networking: {podSubnet: 10.0.0.0/14, serviceSubnet: 10.96.0.0/16}"}
PLAYBOOK = ["--inventory", "localhost,", "--connection", "local"]
PEER = "kubernetes.core.k8s"
# What is compared, and by how much ours is meant to be faster.
GOALS = {
    f"{MANY} pools created": 4,
    f"{MANY} pools unchanged": 15,
    f"{FEW} pools created, peer in a loop": 30,
    f"{FEW} pools unchanged, peer in a loop": 30,
}

TEMPLATE = """\
{% for pool in pools %}
---
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata: {name: "{{ pool.name }}"}
spec: {cidr: "{{ pool.cidr }}", blockSize: 26, natOutgoing: true, nodeSelector: "{{ pool.node_selector }}"}
{% endfor %}
"""
LOOPED = {
    "apiVersion": "crd.projectcalico.org/v1",
    "kind": "IPPool",
    "metadata": {"name": "{{ item.name }}"},
    "spec": {
        "cidr": "{{ item.cidr }}",
        "blockSize": 26,
        "natOutgoing": True,
        "nodeSelector": "{{ item.node_selector }}",
    },
}
TASKS = {
    "ping": {"ansible.builtin.ping": {}},
    "ours": {"podnet.ipam.ip_pools": {"pools": "{{ pools }}"}},
    "templated": {PEER: {"template": "pools.yml.j2"}},
    "looped": {PEER: {"definition": LOOPED}, "loop": "{{ pools }}"},
}
# One line per request that the API server finished, and whose it was.
AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "users": ["admin"]}, {"level": "None"}],
}


def report() -> dict:
    """Print the figures and return them: seconds of a task, and requests by sort, ours and the peer's."""
    with tempfile.TemporaryDirectory(prefix="podnet-bench-") as folder:
        return {"seconds": _report_times(Path(folder)), "requests": _report_requests(Path(folder))}


def _report_times(folder: Path) -> list[dict]:
    with ControlPlane() as plane:
        bench = _Bench(folder, plane)
        times = {}
        for name, task, count, runs in (
            ("ours", "ours", MANY, OURS_RUNS),
            ("peer", "templated", MANY, PEER_RUNS),
            ("ours", "ours", FEW, OURS_RUNS),
            ("peer", "looped", FEW, PEER_RUNS),
        ):
            figures = bench.measure(task, count, runs)
            first = 0 if count == MANY else 2
            for case, figure in zip(list(GOALS)[first:], figures):
                times[case, name] = figure
        nothing = {count: statistics.median(pings) for count, pings in bench.pings.items()}
    print(f"Modules: seconds of a task beside {PEER} (medians of {OURS_RUNS} and {PEER_RUNS} runs; load", end=" ")
    pings = " and ".join(f"{seconds:.2f} s with {count} pools" for count, seconds in nothing.items())
    print(f"{os.getloadavg()[0]:.1f}); a playbook with one ping takes {pings}")
    print(f"{'':42}{'ours':>8}{'peer':>8}{'faster':>9}{'goal':>7}")
    rows = []
    for case, goal in GOALS.items():
        ping = nothing[MANY if case.startswith(str(MANY)) else FEW]
        ours, peer = times[case, "ours"] - ping, times[case, "peer"] - ping
        print(f"{case:<42}{ours:>8.2f}{peer:>8.2f}{peer / ours:>8.1f}x{goal:>6}x")
        rows.append({"case": case, "ours": round(ours, 3), "peer": round(peer, 3)})
    print()
    return rows


def _report_requests(folder: Path) -> list[dict]:
    policy, log = folder / "policy.yml", folder / "audit.log"
    policy.write_text(yaml.safe_dump(AUDIT))
    flags = [f"--audit-policy-file={policy}", f"--audit-log-path={log}"]
    rows = []
    with ControlPlane(apiserver_flags=flags) as plane:
        bench = _Bench(folder, plane)
        requests = _Requests(log)
        for name, task in (("ours", "ours"), ("peer", "templated")):
            bench.reset()
            bench.declare(MANY)
            for case, prepare, arguments in (
                (f"{MANY} pools in check mode", lambda: None, ["--check"]),
                (f"{MANY} pools created", lambda: None, []),
                (f"{MANY} pools unchanged", lambda: None, []),
                (f"{TOUCHED} of {MANY} pools changed", lambda: bench.edit(TOUCHED), []),
            ):
                prepare()
                requests.forget()
                bench.run(task, *arguments)
                rows.append((case, name, requests.count()))
    print("Requests that reach the API server: pages of pools + other reads, discovery among them + trial writes, that")
    print("are dry runs or refused + writes")
    print(f"{'':42}{'ours':>24}{'peer':>24}")
    for case in dict.fromkeys(case for case, _name, _count in rows):
        cells = [count for one, _name, count in rows if one == case]
        print(f"{case:<42}" + "".join(f"{' + '.join(map(str, cell)):>24}" for cell in cells))
    print()
    return [{"case": case, "who": name, "requests": count} for case, name, count in rows]


class _Bench:
    """Playbooks with one task each, and the cluster that they run against."""

    def __init__(self, folder: Path, plane: ControlPlane):
        self._folder = folder
        self._plane = plane
        self._objects = Objects(plane)
        self.pings = {MANY: [], FEW: []}  # seconds, by number of pools: one after each two runs that are measured
        install(self._objects, "v1")
        if not self._objects.exists("/api/v1/namespaces/kube-system"):
            self._objects.create("/api/v1/namespaces", {"metadata": {"name": "kube-system"}})
        config = {"metadata": {"name": "kubeadm-config"}, "data": KUBEADM}
        self._objects.create("/api/v1/namespaces/kube-system/configmaps", config)
        (folder / "pools.yml.j2").write_text(TEMPLATE)
        for name, task in TASKS.items():
            play = {"hosts": "localhost", "gather_facts": False, "tasks": [{"name": name, **task}]}
            play["vars_files"] = ["pools.yml"]
            (folder / f"{name}.yml").write_text(yaml.safe_dump([play], sort_keys=False))

    def measure(self, task: str, count: int, runs: int) -> tuple[float, float]:
        """Seconds of a playbook that creates so many pools, and of one that finds them as they should be (medians)."""
        self.declare(count)
        created, unchanged = [], []
        for _run in range(runs):
            self.reset()
            created.append(self.run(task, changed=1))
            assert len(self._objects.names(POOLS)) == count
            unchanged.append(self.run(task, changed=0))
            self.pings[count].append(self.run("ping"))
        return statistics.median(created), statistics.median(unchanged)

    def declare(self, count: int) -> None:
        pools = [
            {
                "name": f"pool-{number}",
                "cidr": f"10.{number >> 8}.{number & 255}.0/24",
                "block_size": 26,
                "nat_outgoing": True,
                "node_selector": f"rack == '{number % 8}'",
            }
            for number in range(count)
        ]
        (self._folder / "pools.yml").write_text(yaml.safe_dump({"pools": pools}))

    def reset(self) -> None:
        """No pools."""
        self._objects.delete(POOLS)

    def edit(self, count: int) -> None:
        """So many pools are not any more as declared."""
        for number in range(count):
            self._objects.patch(f"{POOLS}/pool-{number}", {"spec": {"nodeSelector": "all()"}})

    def run(self, task: str, *arguments: str, changed: int | None = None) -> float:
        """Seconds of the playbook with this task."""
        program = Path(sys.executable).with_name("ansible-playbook")
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self._folder),
            "TMPDIR": str(self._folder),  # where the peer keeps what it discovered, from run to run
            "LC_ALL": "C.UTF-8",
            "K8S_AUTH_KUBECONFIG": str(self._plane.kubeconfig),
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        }
        command = [program, *PLAYBOOK, *arguments, self._folder / f"{task}.yml"]
        started = time.perf_counter()
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        seconds = time.perf_counter() - started
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        if changed is not None:
            assert f"changed={changed} " in done.stdout, done.stdout[-3000:]
        return seconds


class _Requests:
    """What the API server's audit log says about the requests of one run."""

    def __init__(self, log: Path):
        self._log = log
        self._read = 0

    def forget(self) -> None:
        self._read = self._log.stat().st_size

    def count(self) -> list[int]:
        """Pages of pools, other reads, trial writes and writes, since `forget()`."""
        with self._log.open() as file:
            file.seek(self._read)
            counted = Counter(_sort(json.loads(line)) for line in file)
        return [counted[sort] for sort in ("page", "read", "trial", "write")]


def _sort(event: dict) -> str:
    resource = event.get("objectRef", {}).get("resource")
    if event["verb"] in ("create", "update", "patch", "delete", "deletecollection"):
        is_trial = "dryRun=All" in event["requestURI"] or event["responseStatus"]["code"] >= 400
        return "trial" if is_trial else "write"
    return "page" if event["verb"] == "list" and resource == "ippools" else "read"
