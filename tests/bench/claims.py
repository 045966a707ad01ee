# SPDX-License-Identifier: Apache-2.0
"""Claiming blocks on one API server that has 10, 100 and 1,000 nodes: time and requests of a claim.

The nodes are simulated in one process, by the agent's own code. They share a client and the watch caches, since 1,000
times six watches would measure this process. Claims one after another show what the size of the cluster does to a
claim; a burst, in which every node makes its first claim, shows how many claims per second the API server takes.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path

from cluster.apiserver import ControlPlane
from podnet_ipam._core.pool import Pool
from podnet_ipam._kube.calico import V1
from podnet_ipam.agent.api import MOST_CONNECTIONS
from podnet_ipam.agent.claims import Claims
from podnet_ipam.agent.cluster import Cluster
from support.plane import client_of, create_pool, install_definitions, remove_everything

from bench.requests import count_requests

NODES = (10, 100, 1000)
AT_ONCE = MOST_CONNECTIONS  # claims that go on at the same time
SINGLE = 50  # claims one after another, with all nodes there
KINDS = ("ipamblocks", "blockaffinities")


def report() -> dict:
    """Print the figures and return them: ms of a claim (medians), claims per second, requests of a claim."""
    with tempfile.TemporaryDirectory(prefix="podnet-bench-") as folder, ControlPlane() as plane:
        rows = asyncio.run(_report(Path(folder), plane))
    print(
        f"Claims: one API server, one process for all nodes; {SINGLE} claims one after another, and {AT_ONCE} at a time"
    )
    print(f"{'nodes':<10}{'ms of a claim':>15}{'requests':>10}{'claims/s in a burst':>24}{'requests':>10}")
    for row in rows:
        cells = f"{row['nodes']:<10}{row['ms']:>15.1f}{row['requests']:>10.2f}"
        print(f"{cells}{row['rate']:>24.0f}{row['requests_at_once']:>10.2f}")
    print()
    return {"rows": rows}


async def _report(folder: Path, plane: ControlPlane) -> list[dict]:
    async with client_of(plane, folder) as client:
        await install_definitions(client)
        rows = []
        for count in NODES:
            await create_pool(client, "bench", "10.0.0.0/12", blockSize=26)
            async with _followed(Cluster(client, V1)) as cluster:
                rows.append(await _measure(plane, cluster, count))
            await remove_everything(client)
        return rows


@asynccontextmanager
async def _followed(cluster: Cluster):
    tasks = [asyncio.create_task(reflector.run()) for reflector in cluster.reflectors]
    for reflector in cluster.reflectors:
        await reflector.synced.wait()
    yield cluster
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _measure(plane: ControlPlane, cluster: Cluster, count: int) -> dict:
    (pool,) = cluster.pools
    nodes = [Claims(cluster, f"node-{number}") for number in range(count)]
    # The connection, and what the API server prepares for a kind.
    first = await nodes[0].claim(pool, time.monotonic(), ())

    before = await _requests(plane)
    started = time.perf_counter()
    blocks = await _claim_at_once(nodes, pool)
    seconds = time.perf_counter() - started
    at_once = await _requests(plane) - before
    own = [{block["spec"]["cidr"]} for block in blocks]
    assert len(set.union(*own)) == count
    own[0].add(first["spec"]["cidr"])

    times = []
    before = await _requests(plane)
    for number in range(SINGLE):
        started = time.perf_counter()
        block = await nodes[number % count].claim(pool, time.monotonic(), own[number % count])
        times.append(time.perf_counter() - started)
        own[number % count].add(block["spec"]["cidr"])
    single = await _requests(plane) - before
    return {
        "nodes": count,
        "ms": round(statistics.median(times) * 1e3, 2),
        "requests": single / SINGLE,
        "rate": round(count / seconds, 1),
        "requests_at_once": at_once / count,
    }


async def _claim_at_once(nodes: list[Claims], pool: Pool) -> list[dict]:
    turn = asyncio.Semaphore(AT_ONCE)

    async def claim(claims: Claims) -> dict:
        async with turn:
            return await claims.claim(pool, time.monotonic(), ())

    return await asyncio.gather(*map(claim, nodes))


async def _requests(plane: ControlPlane) -> int:
    """Requests so far for blocks and claims. The watches are not a claim's."""
    counted = await asyncio.to_thread(count_requests, plane)
    return sum(count for (verb, kind), count in counted.items() if kind in KINDS and verb != "WATCH")
