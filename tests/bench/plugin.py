# SPDX-License-Identifier: Apache-2.0
"""ADD and DEL through the CNI executable, beside host-local and beside programs that do nothing.

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

from bench.requests import WRITING, WRITTEN, count_requests, settle

SERIAL = 100
PAUSE = 50  # milliseconds after each call: twenty pods per second, more than a node starts
PARALLEL = (1, 2, 4, 8, 16, 32, 64)
BURST = 192
BLOCK, IN_BLOCKS = 64, 4  # the addresses of a block; the blocks that the node has pods in
TABLE_PARALLEL = 16  # of PARALLEL: the one that is printed
HELD = (1, 50, 100, 200, 300, 400, 500)
AT_HELD = 20  # calls that are measured with so many addresses held
WRITTEN_BURST = 64
CHECKS = 51
PEER = "host-local"
NETWORK = {"cniVersion": "1.0.0", "name": "bench", "type": "ptp"}
THROUGH, LOCAL = "podnet-ipam, written through", "podnet-ipam, local first"


def report() -> dict:
    """Print the figures and return them, by program."""
    with tempfile.TemporaryDirectory(prefix="podnet-bench-") as folder, ControlPlane() as plane:
        figures = asyncio.run(_report(Path(folder), plane))
    _print(figures)
    return figures


async def _report(folder: Path, plane: ControlPlane) -> dict:
    spawn = compile_spawn(folder)
    nothing = "int main(void) { return 0; }"
    floors = {
        "does nothing, musl static": compile_program(folder, "musl", nothing, ["musl-gcc", "-O2", "-static"]),
        "does nothing, glibc static": compile_program(folder, "glibc", nothing, ["gcc", "-O2", "-static"]),
    }
    async with client_of(plane, folder) as client:
        await install_definitions(client)
        await create_pool(client, "bench", "10.0.0.0/16", blockSize=26)
    node = AgentNode("bench", folder, json_kubeconfig(plane, folder / "agent.json"))
    await node.start()
    programs = {name: _measure(Runner(spawn, program, {}, folder)) for name, program in floors.items()}
    ipam = {"ranges": [[{"subnet": "10.1.0.0/16"}]], "dataDir": str(folder / "host-local")}
    host_local = Runner(spawn, binaries.find(PEER), {**NETWORK, "ipam": {"type": PEER, **ipam}}, folder)
    programs[PEER] = {**_measure(host_local), "held": _held(host_local)}
    plugin = plugin_runner(spawn, folder, node)
    burst = _written_burst(plane, plugin)
    programs[THROUGH] = _measure(plugin, plane)
    async with client_of(plane, folder) as client:
        spec = {"strictAffinity": True, "autoAllocateBlocks": True}
        await client.create(V1.path("IPAMConfig"), V1.new("IPAMConfig", "default", spec))
    _keep_blocks_in_use(plugin)
    programs[LOCAL] = {**_measure(plugin, plane), "held": _held(plugin)}
    check = _check(plugin, plugin_runner(spawn, folder, node, prevResult={"cniVersion": "1.0.0", "ips": []}))
    node.stop()
    return {"pause": PAUSE, "programs": programs, "written_burst": burst, "check": check}


def _print(figures: dict) -> None:
    programs, burst = figures["programs"], figures["written_burst"]
    title = f"ms of a call, {PAUSE} ms apart (medians), and ADD/s with {TABLE_PARALLEL} at once"
    print(f"Plugin: one process per call; {title}")
    print(f"{'':34}{'ADD':>8}{'DEL':>8}{'ADD/s':>8}{'compared with ' + PEER:>36}")
    rows = {name: (each["add"], each["del"], _rate(each)) for name, each in programs.items()}
    for name, (add, delete, rate) in rows.items():
        ratios = (rows[PEER][0] / add, rows[PEER][1] / delete, rate / rows[PEER][2])
        compared = "ADD {:.1f}x, DEL {:.1f}x, rate {:.1f}x".format(*ratios) if "podnet" in name else ""
        print(f"{name:<34}{add:>8.2f}{delete:>8.2f}{rate:>8.0f}{compared:>36}")
    print(f"{'ADD/s, so many at once':<34}" + "".join(f"{parallel:>8}" for parallel in PARALLEL))
    for name, each in programs.items():
        print(f"{name:<34}" + "".join(f"{rate:>8.0f}" for _parallel, rate in each["rates"]))
    print(f"{'ms of an ADD, so many held':<34}" + "".join(f"{held:>8}" for held in HELD))
    for name, each in programs.items():
        if "held" in each:
            print(f"{name:<34}" + "".join(f"{ms:>8.2f}" for _held, ms in each["held"]))
    writes = ", ".join(f"{count} of {kind}" for kind, count in burst["writes"].items())
    print(f"{burst['adds']} ADDs at once, written through: {burst['ms']:.0f} ms, writes at the API server: {writes}")
    print(f"CHECK: {figures['check']:.2f} ms\n")


def _rate(program: dict) -> float:
    return dict(map(tuple, program["rates"]))[TABLE_PARALLEL]


class Runner:
    """Runs a program for containers that it never had before, as a runtime does."""

    def __init__(self, spawn: Path, program: Path, config: dict, folder: Path, environment: dict | None = None):
        path = Path(tempfile.mkdtemp(dir=folder), "network.json")
        path.write_text(json.dumps(config))
        self._command = [spawn, program, path]
        self._environment = {**os.environ, **(environment or {})}
        self._next = 0

    def add(self, count: int, parallel: int = 1, pause: int = 0) -> tuple[int, list[int]]:
        """The first container's number, and the ns that each call took."""
        first, self._next = self._next, self._next + count
        return first, self._run("ADD", first, count, parallel, pause)

    def delete(self, first: int, count: int, parallel: int = 1, pause: int = 0) -> list[int]:
        return self._run("DEL", first, count, parallel, pause)

    def check(self, number: int) -> list[int]:
        return self._run("CHECK", number, 1, 1, PAUSE)

    def _run(self, command: str, first: int, count: int, parallel: int, pause: int) -> list[int]:
        spawn, program, config = self._command
        arguments = [spawn, command, str(first), str(count), str(parallel), str(pause), config, program]
        done = subprocess.run(arguments, env=self._environment, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [int(line) for line in done.stdout.split()]


def plugin_runner(spawn: Path, folder: Path, node: AgentNode, **more: object) -> Runner:
    """Runs this project's executable, for pods without annotations; `more` is added to the configuration."""
    config = {**NETWORK, "ipam": {"type": "podnet-ipam"}, "runtimeConfig": {"io.kubernetes.cri.pod-annotations": {}}}
    config |= more
    return Runner(spawn, SHIM, config, folder, {"PODNET_IPAM_SOCKET": str(node.socket)})


def _measure(runner: Runner, plane: ControlPlane | None = None) -> dict:
    """Medians in ms of serial ADD and DEL, and ADDs per second with several at once; everything is released again.

    Each burst begins when all that came before is stored at the API server, if there is one.
    """
    first, _warm = runner.add(5)
    runner.delete(first, 5)
    first, adds = runner.add(SERIAL, pause=PAUSE)
    deletions = runner.delete(first, SERIAL, pause=PAUSE)
    rates = []
    for parallel in PARALLEL:
        if plane:
            settle(plane)
        started = time.perf_counter()
        first, _times = runner.add(BURST, parallel)
        rates.append((parallel, round(BURST / (time.perf_counter() - started), 1)))
        runner.delete(first, BURST, TABLE_PARALLEL)
    return {"add": _median_ms(adds), "del": _median_ms(deletions), "rates": rates}


def _held(runner: Runner) -> list[tuple[int, float]]:
    """(addresses held, ms of a serial ADD), medians; everything is released again."""
    held, curve = [], []
    for count in HELD:
        missing = count - len(held)
        first, _times = runner.add(missing, TABLE_PARALLEL)
        held += range(first, first + missing)
        first, adds = runner.add(AT_HELD, pause=PAUSE)
        runner.delete(first, AT_HELD, pause=PAUSE)
        curve.append((count, _median_ms(adds)))
    for first in held:
        runner.delete(first, 1)
    return curve


def _keep_blocks_in_use(runner: Runner) -> None:
    """Leave a pod in each of the blocks that a burst needs, as a node has them that runs pods."""
    first, _times = runner.add(IN_BLOCKS * BLOCK)
    for number in range(first, first + IN_BLOCKS * BLOCK, BLOCK):
        runner.delete(number + 1, BLOCK - 1)


def _written_burst(plane: ControlPlane, runner: Runner) -> dict:
    """How long a burst takes that is written through, and how many writes it costs the API server."""
    first, _claims_the_block = runner.add(1)
    runner.delete(first, 1)
    before, started = settle(plane), time.perf_counter()
    first, _times = runner.add(WRITTEN_BURST, WRITTEN_BURST)
    seconds, counted = time.perf_counter() - started, count_requests(plane) - before
    runner.delete(first, WRITTEN_BURST, TABLE_PARALLEL)
    writes = {kind: sum(counted[verb, kind] for verb in WRITING) for kind in WRITTEN}
    return {"adds": WRITTEN_BURST, "ms": round(seconds * 1e3, 1), "writes": writes}


def _check(plugin: Runner, checker: Runner) -> float:
    """Median of the ms that a CHECK takes, its process included."""
    first, _times = plugin.add(1)
    times = [time for _number in range(CHECKS) for time in checker.check(first)]
    plugin.delete(first, 1)
    return _median_ms(times)


def _median_ms(times: list[int]) -> float:
    return round(statistics.median(times) / 1e6, 3)


def compile_spawn(folder: Path) -> Path:
    """The loop that starts programs, as a runtime does."""
    return compile_program(folder, "spawn", Path(__file__).with_name("spawn.c").read_text(), ["gcc", "-O2"])


def compile_program(folder: Path, name: str, source: str, compiler: list[str]) -> Path:
    """Compile a C source with this compiler and its flags, in `folder`, and return the program."""
    path = folder / name
    path.with_suffix(".c").write_text(source)
    subprocess.run([*compiler, "-o", path, path.with_suffix(".c")], check=True)
    return path
