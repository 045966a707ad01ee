# SPDX-License-Identifier: Apache-2.0
"""While an operator moves Calico's objects to another datastore, addresses stay as they are."""

from __future__ import annotations

import asyncio

import pytest
from podnet_ipam._kube.calico import V1
from podnet_ipam._kube.errors import NotFound
from support.plane import allocated, create_pool, settled

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "clusterinformations.crd.projectcalico.org"},
    "spec": {
        "group": "crd.projectcalico.org",
        "names": {"kind": "ClusterInformation", "plural": "clusterinformations", "singular": "clusterinformation"},
        "scope": "Cluster",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


@pytest.fixture
async def information(client):
    """The path of ClusterInformation `default`, a kind that exists where Calico is installed."""
    definition = await client.create(DEFINITIONS, DEFINITION)
    spec = {"datastoreReady": True}
    async with asyncio.timeout(15):
        while True:
            try:
                path = V1.path("ClusterInformation")
                await client.create(path, V1.new("ClusterInformation", "default", spec))
                break
            except NotFound:  # not served yet
                await asyncio.sleep(0.05)
    yield V1.path("ClusterInformation", "default")
    await client.delete(f"{DEFINITIONS}/{definition['metadata']['name']}", definition["metadata"]["uid"])


async def set_ready(client, path, ready):
    obj = await client.get(path)
    await client.replace(path, {**obj, "spec": {**obj["spec"], "datastoreReady": ready}})
    await asyncio.sleep(0.5)


async def test_a_locked_datastore_is_left_alone_and_deletes_are_carried_out_afterwards(information, client, start_node):
    await create_pool(client, "main", "10.244.0.0/20")
    node = await start_node("node-1")
    before = await node.add("before")
    await settled(client, [before.address])

    await set_ready(client, information, False)
    refused, status = await node.add("during"), await node.call("STATUS", "")
    assert (refused.body["code"], status.body["code"]) == (11, 50)
    assert "Calico is currently not ready to process requests" in refused.body["msg"]
    assert (await node.delete("before")).status == 0
    assert list(await allocated(client)) == [before.address]

    await set_ready(client, information, True)
    during = await node.add("during")
    await settled(client, [during.address])


async def test_a_container_that_comes_back_keeps_what_it_gets_whenever_its_earlier_delete_is_carried_out(
    information, client, start_node
):
    await create_pool(client, "main", "10.244.0.0/20")
    node = await start_node("node-1")
    await node.add("again")
    await set_ready(client, information, False)
    assert (await node.delete("again")).status == 0
    await set_ready(client, information, True)
    reply = await node.add("again")
    assert reply.status == 0
    await node.worked_off()
    await asyncio.sleep(0.5)
    await settled(client, [reply.address])
