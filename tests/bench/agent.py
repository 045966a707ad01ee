# SPDX-License-Identifier: Apache-2.0
"""One agent in a large cluster: its memory, what it costs when nothing happens, its latency in a churn, its start.

The cluster has 100 pools and 5,000 namespaces. In the churn 250 pods are there, and again and again some of them are
replaced, as fast as the executable can be called.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Iterable
from pathlib import Path

from cluster.apiserver import ControlPlane
from podnet_ipam._kube.calico import V1
from podnet_ipam.agent.api import Client
from support.plane import AgentNode, client_of, create_pool, install_definitions, json_kubeconfig

from bench.plugin import PAUSE, Runner, compile_spawn, plugin_runner
from bench.requests import WRITING, WRITTEN, settle

POOLS, NAMESPACES, PODS = 100, 5_000, 250
ROUNDS, REPLACED, PARALLEL = 40, 25, 8
READING = ("GET", "LIST")
IDLE_SECONDS = 20
RECORDS = (500, 10_000)
METRICS = "127.0.0.1:19764"
BUSY = re.compile(r'^podnet_ipam_loop_busy_seconds_bucket\{le="([^"]+)"\} (\S+)$', re.MULTILINE)
LONG = "0.005"  # seconds for which the loop is not to be busy, one of agent/loop.py's bounds


def report() -> dict:
    """Print the figures and return them."""
    with tempfile.TemporaryDirectory(prefix="podnet-bench-") as folder, ControlPlane() as plane:
        figures = asyncio.run(_report(Path(folder), plane))
    churn, start = figures["churn"], figures["start"]
    print(f"Agent, with {POOLS} pools, {NAMESPACES:,} namespaces and {PODS} pods")
    print(f"  resident {figures['resident']:.0f} MB; {figures['idle']:.2f} % of a core when nothing happens")
    print(
        f"  churn of {churn['adds']} pods, {PARALLEL} at once: ADD {churn['p50']:.2f} ms, p99 {churn['p99']:.2f} ms,"
        f" {churn['p99'] / churn['p50']:.1f} times as long; the loop was busy for more than {float(LONG) * 1e3:.0f} ms"
        f" {churn['long']} times in {churn['turns']:,}"
    )
    requests = figures["requests"]
    print(f"  an ADD costs the API server {requests['writes']:.2f} writes and {requests['reads']:.2f} reads")
    for records, milliseconds in start:
        print(f"  ready {milliseconds:.0f} ms after its start with {records:,} records")
    print(f"  of which {figures['imports']:.0f} ms are Python's own start and its imports")
    print()
    return figures


async def _report(folder: Path, plane: ControlPlane) -> dict:
    async with client_of(plane, folder) as client:
        await install_definitions(client)
        await _populate(client)
    node = AgentNode("bench", folder, json_kubeconfig(plane, folder / "agent.json"), metrics=METRICS)
    await node.start()
    runner = plugin_runner(compile_spawn(folder), folder, node)
    held, _times = runner.add(PODS, PARALLEL)
    settle(plane)
    figures = {"idle": _idle(node), "resident": node.resident_bytes / 1e6, "churn": _churn(runner, held)}
    figures["requests"] = _requests(plane, runner)
    figures["start"], recorded = [], PODS + REPLACED
    for records in RECORDS:
        runner.add(records - recorded, 64)
        recorded = records
        settle(plane)
        figures["start"].append((records, await _start(node)))
    node.stop()
    figures["imports"] = _imports()
    return figures


async def _populate(client: Client) -> None:
    for number in range(POOLS):
        await create_pool(client, f"other-{number}", f"10.1.{number}.0/24", nodeSelector="rack == 'none'")
    await create_pool(client, "bench", "10.0.0.0/16")
    spec = {"strictAffinity": True, "autoAllocateBlocks": True, "maxBlocksPerHost": 1 << 10}
    await client.create(V1.path("IPAMConfig"), V1.new("IPAMConfig", "default", spec))
    names = (f"tenant-{number}" for number in range(NAMESPACES))
    await _at_once(client.create("/api/v1/namespaces", {"metadata": {"name": name}}) for name in names)


async def _at_once(requests: Iterable[Awaitable]) -> None:
    turn = asyncio.Semaphore(32)

    async def take_turn(request: Awaitable) -> None:
        async with turn:
            await request

    await asyncio.gather(*map(take_turn, requests))


def _idle(node: AgentNode) -> float:
    """Percent of a core."""
    before = node.cpu_seconds
    time.sleep(IDLE_SECONDS)
    return (node.cpu_seconds - before) / IDLE_SECONDS * 100


def _churn(runner: Runner, held: int) -> dict:
    """Times in ms, and how long the agent's loop was busy meanwhile."""
    times: list[int] = []
    before = _stretches()
    for number in range(ROUNDS):
        runner.delete(held + number * REPLACED, REPLACED, PARALLEL)
        times += runner.add(REPLACED, PARALLEL)[1]
    turns, long = (after - earlier for after, earlier in zip(_stretches(), before, strict=True))
    cuts = statistics.quantiles(times, n=100)
    return {"adds": len(times), "p50": cuts[49] / 1e6, "p99": cuts[98] / 1e6, "turns": turns, "long": long}


def _requests(plane: ControlPlane, runner: Runner) -> dict[str, float]:
    """Requests at the API server for each of some pods that come one by one."""
    before = settle(plane)
    runner.add(REPLACED, pause=PAUSE)
    counted = settle(plane) - before
    return {
        name: sum(counted[verb, kind] for verb in verbs for kind in WRITTEN) / REPLACED
        for name, verbs in (("writes", WRITING), ("reads", READING))
    }


def _stretches() -> tuple[int, int]:
    """How often the loop was busy so far, and how often for longer than LONG."""
    with urllib.request.urlopen(f"http://{METRICS}/metrics") as answer:
        within = {bound: int(float(count)) for bound, count in BUSY.findall(answer.read().decode())}
    return within["+Inf"], within["+Inf"] - within[LONG]


async def _start(node: AgentNode) -> float:
    """Milliseconds from the start of the process until it answers, the median of three."""
    times = []
    for _time in range(3):
        node.stop()
        started = time.perf_counter()
        await node.start()
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times)


def _imports() -> float:
    """Milliseconds until Python has started and knows the agent's modules, the median of five."""
    times = []
    for _time in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import podnet_ipam.agent.main, os; os._exit(0)"], check=True)
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times)
