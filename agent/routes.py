# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Kernel routes to the other nodes' blocks, over the segment that the nodes share.

With `ptp`, each node routes its own pods; this adds, for every confirmed claim of another node, a route to the block
via that node's internal address. Routes carry a protocol number of their own, so that only what was made here is
ever changed, and a restart finds it again.

Any node can write claims of its own, and what it claims is routed to it. So only whole blocks of pools are, not its
neighbours' network; and where several nodes claim a block, the block says whose it is, which no other node can change.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable

from pyroute2 import AsyncIPRoute, NetlinkError

from .._core.names import cidr_name, host_affinity, is_deleted, network
from .._core.pool import Pool
from .._kube.errors import ApiError, NotFound, Unreachable
from .cluster import Cluster

# Unassigned in the kernel's list of routing protocols (rtnetlink.h); shown by `ip route` as `proto 112`.
PROTOCOL = 112
# Many claims arrive together when a cluster starts; one pass serves them all.
SETTLE_SECONDS = 0.05
# Someone else may remove routes, and a failed one is worth another try.
RESYNC_SECONDS = 30.0

_FAMILY = {4: 2, 6: 10}  # AF_INET, AF_INET6
_MAIN_TABLE = 254

log = logging.getLogger(__name__)


async def wanted_routes(cluster: Cluster, node: str) -> dict[str, str | None]:
    """The next hop of each block that belongs to another node; None where its route is to stay as it is.

    That is so where it cannot be told now whose block it is. A node without an address of the family has no routes.
    """
    routes: dict[str, str | None] = {}
    for cidr, claimants in _claimed_blocks(cluster).items():
        try:
            owner = claimants[0] if len(claimants) == 1 else await _owner(cluster, cidr, claimants)
        except (ApiError, Unreachable) as error:
            log.warning("block %s is claimed by %s, and cannot be read: %s", cidr, " and ".join(claimants), error)
            routes[cidr] = None
            continue
        known = cluster.nodes.items.get(owner)
        gateway = known.addresses.get(6 if ":" in cidr else 4) if known and owner != node else None
        if gateway is not None:
            routes[cidr] = gateway
    return routes


def _claimed_blocks(cluster: Cluster) -> dict[str, list[str]]:
    """Who claims each block of a pool: the nodes of its confirmed claims."""
    claims = [affinity for affinity in cluster.affinities.items.values() if affinity.confirmed]
    blocks = _blocks_among({affinity.cidr for affinity in claims}, cluster.pools)
    claimants = defaultdict(list)
    for affinity in claims:
        if affinity.cidr in blocks:
            claimants[affinity.cidr].append(affinity.node)
    return claimants


def _blocks_among(cidrs: Iterable[str], pools: Iterable[Pool]) -> set[str]:
    """The CIDRs that are whole blocks of one of the pools. How many pools there are costs nothing."""
    known = {(pool.block_size, pool.network) for pool in pools if pool.block_count}
    lengths = defaultdict(set)
    for size, pool in known:
        lengths[pool.version, size].add(pool.prefixlen)
    found = set()
    for cidr in cidrs:
        block = network(cidr)
        size = block.prefixlen
        if any((size, block.supernet(new_prefix=length)) in known for length in lengths[block.version, size]):
            found.add(cidr)
    return found


async def _owner(cluster: Cluster, cidr: str, claimants: Iterable[str]) -> str | None:
    """Which of several nodes has a block by what the block itself says."""
    try:
        block = await cluster.client.get(cluster.calico.path("IPAMBlock", cidr_name(cidr)))
    except NotFound:
        return None
    affinity = None if is_deleted(block) else block["spec"].get("affinity")
    return next((node for node in claimants if host_affinity(node) == affinity), None)


async def keep_routes(cluster: Cluster, node: str) -> None:
    """Keep the kernel at `wanted_routes` until cancelled."""
    async with AsyncIPRoute() as kernel:
        while True:
            cluster.routing_changed.clear()
            await _sync(kernel, await wanted_routes(cluster, node))
            try:
                async with asyncio.timeout(RESYNC_SECONDS):
                    await cluster.routing_changed.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(SETTLE_SECONDS)


async def _sync(kernel: AsyncIPRoute, wanted: dict[str, str | None]) -> None:
    present = await _present(kernel)
    for cidr, gateway in present.items() - wanted.items():
        if cidr not in wanted:
            await _change(kernel, "del", cidr, gateway)
    for cidr, gateway in wanted.items() - present.items():
        if gateway is not None:
            await _change(kernel, "replace", cidr, gateway)


async def _present(kernel: AsyncIPRoute) -> dict[str, str]:
    found = {}
    for family in _FAMILY.values():
        async for route in await kernel.route("dump", family=family, table=_MAIN_TABLE, proto=PROTOCOL):
            if route["proto"] == PROTOCOL and route.get("dst"):
                found[f"{route.get('dst')}/{route['dst_len']}"] = route.get("gateway")
    return found


async def _change(kernel: AsyncIPRoute, action: str, cidr: str, gateway: str) -> None:
    try:
        await kernel.route(action, dst=cidr, gateway=gateway, proto=PROTOCOL, table=_MAIN_TABLE)
    except NetlinkError as error:
        log.warning("route to block %s via %s: %s failed: %s", cidr, gateway, action, error)
    else:
        log.info("route to block %s via %s: %s", cidr, gateway, action)
