# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio

import pytest
from cluster.apiserver import ControlPlane
from support.machine import Machine
from support.plane import AgentNode, CalicoNode, client_of, install_definitions, json_kubeconfig, remove_everything
from support.rights import install_rights, node_kubeconfig
from support.shims import FORMS, shim


@pytest.fixture(scope="session")
def plane(tmp_path_factory):
    """An API server with the resource definitions and what the role gives all agents, for the whole session."""
    with ControlPlane() as plane:

        async def prepare():
            folder = tmp_path_factory.mktemp("prepare")
            async with client_of(plane, folder) as client:
                await install_definitions(client)
                await install_rights(plane, client, folder)

        asyncio.run(prepare())
        yield plane


@pytest.fixture
async def client(plane, tmp_path):
    """A client of the API server, in which no pool, block, claim or handle exists."""
    async with client_of(plane, tmp_path) as client:
        await remove_everything(client)
        yield client


@pytest.fixture
async def start_node(plane, client, tmp_path):
    """Start the agent of a node of the given name, with that node's credentials; all are ended with the test.

    `server` is the URL of what stands in front of the API server, if anything does.
    """
    nodes = []

    async def start(name: str, server: str = "", **config) -> AgentNode:
        kubeconfig = await node_kubeconfig(plane, client, name, tmp_path, server)
        nodes.append(AgentNode(name, tmp_path, kubeconfig, **config))
        return await nodes[-1].start()

    yield start
    for node in nodes:
        node.stop()


@pytest.fixture(params=FORMS)
def executable(request, tmp_path):
    """The CNI executable in both forms."""
    return shim(request.param, tmp_path)


@pytest.fixture
async def start_machine(tmp_path):
    """Start the agent of a machine without a cluster, which declares `pools`; it is ended with the test."""
    machines = []

    async def start(pools: str, **config) -> Machine:
        machines.append(Machine(tmp_path, pools, **config))
        return await machines[-1].start()

    yield start
    for machine in machines:
        machine.stop()


@pytest.fixture
async def calico_node(plane, client, tmp_path):
    """Make a node that runs Calico's own IPAM plugin; its Node object goes with the test."""
    kubeconfig = json_kubeconfig(plane, tmp_path / "calico-kubeconfig.json")
    created = []

    async def make(name: str) -> CalicoNode:
        created.append(await client.create("/api/v1/nodes", {"metadata": {"name": name}}))
        return CalicoNode(name, tmp_path, kubeconfig)

    yield make
    for obj in created:
        await client.delete(f"/api/v1/nodes/{obj['metadata']['name']}", obj["metadata"]["uid"])
