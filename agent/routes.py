# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Kernel routes to the other nodes' blocks, over the segment that the nodes share.

With `ptp`, each node routes its own pods; this adds, for every confirmed claim of another node, a route to the block
via that node's internal address. Routes carry a protocol number of their own, so that only what was made here is
ever changed, and a restart finds it again.
"""

from __future__ import annotations

import asyncio
import logging

from pyroute2 import AsyncIPRoute, NetlinkError

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


def wanted_routes(cluster: Cluster, node: str) -> dict[str, str]:
    """The next hop of each block that belongs to another node. A node without an address of the family has none."""
    routes = {}
    for affinity in cluster.affinities.items.values():
        owner = cluster.nodes.items.get(affinity.node)
        if affinity.confirmed and affinity.node != node and owner is not None:
            gateway = owner.addresses.get(6 if ":" in affinity.cidr else 4)
            if gateway is not None:
                routes[affinity.cidr] = gateway
    return routes


async def keep_routes(cluster: Cluster, node: str) -> None:
    """Keep the kernel at `wanted_routes` until cancelled."""
    async with AsyncIPRoute() as kernel:
        while True:
            cluster.routing_changed.clear()
            await _sync(kernel, wanted_routes(cluster, node))
            try:
                async with asyncio.timeout(RESYNC_SECONDS):
                    await cluster.routing_changed.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(SETTLE_SECONDS)


async def _sync(kernel: AsyncIPRoute, wanted: dict[str, str]) -> None:
    present = await _present(kernel)
    for cidr, gateway in present.items() - wanted.items():
        if cidr not in wanted:
            await _change(kernel, "del", cidr, gateway)
    for cidr, gateway in wanted.items() - present.items():
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
