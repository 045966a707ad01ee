# SPDX-License-Identifier: Apache-2.0
"""ADD and DEL through the CNI executable, beside host-local and beside a program that does nothing.

Every program is started by the same loop (spawn.c). The agent has a real API server behind it, on the same machine: it
shares the cores with that server and its etcd. Written through, an address is stored there before it is answered; local
first, it is stored there afterwards, which goes on while the next calls are measured. host-local writes files.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from cluster import binaries
from cluster.apiserver import ControlPlane
from podnet_ipam._kube.calico import V1
from support.plane import SHIM, AgentNode, client_of, create_pool, install_definitions, json_kubeconfig

SERIAL = 100
PAUSE = 50  # milliseconds after each call: twenty pods per second, more than a node starts
PARALLEL = 16
BURST = 192
PEER = "host-local"


def report() -> None:
    with tempfile.TemporaryDirectory(prefix="podnet-bench-") as folder, ControlPlane() as plane:
        asyncio.run(_report(Path(folder), plane))


async def _report(folder: Path, plane: ControlPlane) -> None:
    spawn = _compile(folder, "spawn", Path(__file__).with_name("spawn.c").read_text(), ["gcc", "-O2"])
    nothing = "int main(void) { return 0; }"
    floors = {
        "does nothing, musl static": _compile(folder, "musl", nothing, ["musl-gcc", "-O2", "-static"]),
        "does nothing, glibc static": _compile(folder, "glibc", nothing, ["gcc", "-O2", "-static"]),
    }
    async with client_of(plane, folder) as client:
        await install_definitions(client)
        await create_pool(client, "bench", "10.0.0.0/16", blockSize=26)
    node = AgentNode("bench", folder, json_kubeconfig(plane, folder / "agent.json"))
    await node.start()
    environment = {**os.environ, "PODNET_IPAM_SOCKET": str(node.socket)}
    ours = {"cniVersion": "1.0.0", "name": "bench", "type": "ptp", "ipam": {"type": "podnet-ipam"}}
    ours["runtimeConfig"] = {"io.kubernetes.cri.pod-annotations": {}}
    peer = {"cniVersion": "1.0.0", "name": "bench", "type": "ptp", "ipam": {"type": "host-local"}}
    peer["ipam"] |= {"ranges": [[{"subnet": "10.1.0.0/16"}]], "dataDir": str(folder / "host-local")}

    rows = {}
    for name, program in floors.items():
        rows[name] = _measure(spawn, program, _config(folder, "nothing", {}), environment)
    rows[PEER] = _measure(spawn, binaries.find(PEER), _config(folder, "peer", peer), environment)
    rows["podnet-ipam, written through"] = _measure(spawn, SHIM, _config(folder, "ours", ours), environment)
    async with client_of(plane, folder) as client:
        spec = {"strictAffinity": True, "autoAllocateBlocks": True}
        await client.create(V1.path("IPAMConfig"), V1.new("IPAMConfig", "default", spec))
    await node.add("keeps-the-block-in-use", network="bench")
    await asyncio.sleep(1)
    rows["podnet-ipam, local first"] = _measure(spawn, SHIM, _config(folder, "ours", ours), environment)
    node.stop()
    _print(rows)


def _print(rows: dict[str, tuple[float, float, float]]) -> None:
    print(f"Plugin: one process per call; ms of a call, {PAUSE} ms apart (medians), and ADD/s with {PARALLEL} at once")
    print(f"{'':34}{'ADD':>8}{'DEL':>8}{'ADD/s':>8}{'compared with ' + PEER:>36}")
    for name, (add, delete, rate) in rows.items():
        ratios = (rows[PEER][0] / add, rows[PEER][1] / delete, rate / rows[PEER][2])
        compared = "ADD {:.1f}x, DEL {:.1f}x, rate {:.1f}x".format(*ratios) if "podnet" in name else ""
        print(f"{name:<34}{add:>8.2f}{delete:>8.2f}{rate:>8.0f}{compared:>36}")


def _measure(spawn: Path, program: Path, config: Path, environment: dict) -> tuple[float, float, float]:
    """Medians in ms of serial ADD and DEL, and ADDs per second with several at once; everything is released again."""

    def run(command: str, first: int, count: int, parallel: int, pause: int = 0) -> list[int]:
        arguments = [spawn, command, str(first), str(count), str(parallel), str(pause), config, program]
        done = subprocess.run(arguments, env=environment, check=True, capture_output=True, text=True)
        return [int(line) for line in done.stdout.split()]

    # No container comes twice, as with a runtime.
    run("ADD", 0, 5, 1)
    run("DEL", 0, 5, 1)
    add = statistics.median(run("ADD", 1000, SERIAL, 1, PAUSE)) / 1e6
    delete = statistics.median(run("DEL", 1000, SERIAL, 1, PAUSE)) / 1e6
    started = time.perf_counter()
    run("ADD", 2000, BURST, PARALLEL)
    rate = BURST / (time.perf_counter() - started)
    run("DEL", 2000, BURST, PARALLEL)
    return add, delete, rate


def _config(folder: Path, name: str, config: dict) -> Path:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(config))
    return path


def _compile(folder: Path, name: str, source: str, compiler: list[str]) -> Path:
    path = folder / name
    path.with_suffix(".c").write_text(source)
    subprocess.run([*compiler, "-o", path, path.with_suffix(".c")], check=True)
    return path
