# SPDX-License-Identifier: Apache-2.0
"""Agents in a cluster that serves Calico's kinds as projectcalico.org/v3."""

from __future__ import annotations

import asyncio

import pytest
from cluster.apiserver import ControlPlane
from podnet_ipam._kube.calico import V3
from support.cluster_objects import Objects, install
from support.plane import AgentNode, client_of, create_pool
from support.rights import install_rights, node_kubeconfig


@pytest.fixture
async def cluster(tmp_path):
    """A client of the API server, and a function that starts the agent of a node."""
    nodes = []
    with ControlPlane() as plane:
        install(Objects(plane), "v3")
        async with client_of(plane, tmp_path) as client:
            await install_rights(plane, client, tmp_path, V3)

            async def start(name: str) -> AgentNode:
                kubeconfig = await node_kubeconfig(plane, client, name, tmp_path)
                nodes.append(AgentNode(name, tmp_path, kubeconfig, keep_blocks=1))
                return await nodes[-1].start()

            yield client, start
            for node in nodes:
                node.stop()


async def listed(client, kind):
    return [obj["spec"] for obj in (await client.list(V3.path(kind)))[0]]


async def until(condition):
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.05)


async def test_addresses_are_claimed_given_borrowed_and_given_back_as_in_the_first_group(cluster):
    client, start = cluster
    await create_pool(client, "main", "10.244.0.0/29", calico=V3, blockSize=30)
    one, two = await start("node-1"), await start("node-2")
    # node-1 fills its block, and has none left to claim, and affinity is not strict.
    given = [(await two.add("b0")).address, *[(await one.add(f"a{number}")).address for number in range(5)]]
    assert len(set(given)) == 6 and all(address.startswith("10.244.0.") for address in given)

    claims = {claim["cidr"]: claim for claim in await listed(client, "BlockAffinity")}
    assert {claim["node"] for claim in claims.values()} == {"node-1", "node-2"}
    assert {claim["state"] for claim in claims.values()} == {"confirmed"}
    assert not any(claim.get("deleted") for claim in claims.values()), "a boolean, not a text"
    assert {spec["handleID"] for spec in await listed(client, "IPAMHandle")} == {
        *(f"podnet.a{number}" for number in range(5)),
        "podnet.b0",
    }

    for node, containers in ((one, [f"a{number}" for number in range(5)]), (two, ["b0"])):
        for container in containers:
            assert (await node.delete(container)).status == 0

    async def nothing_held():
        blocks, handles = await listed(client, "IPAMBlock"), await listed(client, "IPAMHandle")
        return not handles and not any(index is not None for block in blocks for index in block["allocations"])

    await until(nothing_held)
