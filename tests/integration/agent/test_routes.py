# SPDX-License-Identifier: Apache-2.0
"""Which blocks are routed to which node: what nodes claim, unless it is not theirs to claim."""

from __future__ import annotations

import asyncio

import pytest
from podnet_ipam._core.names import affinity_name, cidr_name
from podnet_ipam._kube.calico import V1
from podnet_ipam.agent.api import Client, read_kubeconfig
from podnet_ipam.agent.cluster import Cluster
from podnet_ipam.agent.routes import wanted_routes
from support.plane import create_pool, json_kubeconfig
from support.rights import client_of_node, empty_block

ADDRESSES = {"node-1": "192.0.2.1", "node-2": "192.0.2.2", "node-3": "192.0.2.3"}
OURS, THEIRS, SIX = "10.244.0.0/26", "10.244.0.64/26", "fd00:10:244::/122"


@pytest.fixture
async def nodes(client):
    created = []
    for name, address in ADDRESSES.items():
        node = await client.create("/api/v1/nodes", {"metadata": {"name": name}})
        both = [
            {"type": "InternalIP", "address": text} for text in (address, address.replace("192.0.2.", "2001:db8::"))
        ]
        created.append(await client.replace(f"/api/v1/nodes/{name}/status", {**node, "status": {"addresses": both}}))
    yield
    for node in created:
        await client.delete(f"/api/v1/nodes/{node['metadata']['name']}", node["metadata"]["uid"])


@pytest.fixture
async def cluster(plane, client, nodes, tmp_path):
    """What the agent of a node knows of a cluster with two pools."""
    await create_pool(client, "main", "10.244.0.0/24", blockSize=26)
    await create_pool(client, "six", "fd00:10:244::/64")
    own = Client(read_kubeconfig(json_kubeconfig(plane, tmp_path / "own.json")))
    cluster = Cluster(own, V1)
    following = [asyncio.create_task(reflector.run()) for reflector in cluster.reflectors]
    for reflector in cluster.reflectors:
        await reflector.synced.wait()
    yield cluster
    for task in following:
        task.cancel()
    await asyncio.gather(*following, return_exceptions=True)
    await own.close()


async def claim(client, node, cidr, has_block=True, state="confirmed"):
    """Have a node claim a CIDR; with it comes a block of 64 addresses that is the node's, if it is to have one."""
    if has_block:
        await client.create(V1.path("IPAMBlock"), V1.new("IPAMBlock", cidr_name(cidr), empty_block(cidr, node)))
    await client.create(V1.path("BlockAffinity"), V1.new_affinity(node, cidr, state))


async def routes(cluster, *until):
    """The routes of node-1, once it knows of the last claim, (node, CIDR)."""
    async with asyncio.timeout(30):
        while until and affinity_name(*until) not in cluster.affinities.items:
            await asyncio.sleep(0.02)
    return await wanted_routes(cluster, "node-1")


async def test_blocks_of_other_nodes_are_reached_through_these(cluster, client):
    await claim(client, "node-1", OURS)
    await claim(client, "node-2", SIX)
    await claim(client, "node-2", "10.244.0.128/26", state="pending")
    await claim(client, "node-2", THEIRS)
    assert await routes(cluster, "node-2", THEIRS) == {THEIRS: "192.0.2.2", SIX: "2001:db8::2"}


@pytest.mark.parametrize(
    "cidr",
    ("192.0.2.0/26", "0.0.0.0/0", "10.244.0.0/16", "10.244.0.64/28", "10.244.1.0/26", "fd00:10:244::/64", "::/0"),
)
async def test_what_is_no_whole_block_of_a_pool_is_not_routed_whoever_claims_it(cluster, client, plane, tmp_path, cidr):
    async with client_of_node(plane, client, "node-2", tmp_path) as thief:
        await claim(thief, "node-2", cidr, has_block=False)
        await claim(thief, "node-2", THEIRS)
    assert await routes(cluster, "node-2", THEIRS) == {THEIRS: "192.0.2.2"}
    assert affinity_name("node-2", cidr) in cluster.affinities.items


async def test_a_claim_of_no_cidr_at_all_is_ignored(cluster, client):
    await client.create(V1.path("BlockAffinity"), V1.new_affinity("node-2", "everything", "confirmed"))
    await claim(client, "node-2", THEIRS)
    assert await routes(cluster, "node-2", THEIRS) == {THEIRS: "192.0.2.2"}


async def test_a_block_that_another_node_claims_as_well_stays_with_its_node(cluster, client, plane, tmp_path):
    await claim(client, "node-1", OURS)
    await claim(client, "node-2", THEIRS)
    async with client_of_node(plane, client, "node-3", tmp_path) as thief:
        await claim(thief, "node-3", OURS, has_block=False)
        await claim(thief, "node-3", THEIRS, has_block=False)
    assert await routes(cluster, "node-3", THEIRS) == {THEIRS: "192.0.2.2"}


async def test_while_it_cannot_be_told_whose_a_block_is_its_route_stays_as_it_is(cluster, client, plane):
    await claim(client, "node-2", THEIRS)
    await claim(client, "node-3", THEIRS, has_block=False)
    assert await routes(cluster, "node-3", THEIRS) == {THEIRS: "192.0.2.2"}
    plane.stop_apiserver()
    try:
        assert await routes(cluster) == {THEIRS: None}
    finally:
        plane.start_apiserver()


async def test_blocks_are_routed_as_soon_as_their_pool_is_known(cluster, client):
    late = "10.245.0.0/26"
    await claim(client, "node-2", late)
    assert await routes(cluster, "node-2", late) == {}
    cluster.routing_changed.clear()
    await create_pool(client, "late", "10.245.0.0/24", blockSize=26)
    async with asyncio.timeout(30):
        await cluster.routing_changed.wait()
    assert await routes(cluster) == {late: "192.0.2.2"}
