# SPDX-License-Identifier: Apache-2.0
"""Which pool a pod's address comes from, decided by a running agent out of real objects."""

from __future__ import annotations

import asyncio

import pytest
from support.plane import create_pool

V4 = "cni.projectcalico.org/ipv4pools"


@pytest.fixture
async def pools(client):
    await create_pool(client, "legacy-firewall", "10.244.64.0/20", assignmentMode="Manual")
    await create_pool(client, "payments", "10.244.32.0/20", assignmentMode="Manual")
    await create_pool(client, "rack-1", "10.244.0.0/20", nodeSelector="rack == '1'")
    await create_pool(client, "rack-2", "10.244.16.0/20", nodeSelector="rack == '2'")


@pytest.fixture
async def namespace(client):
    """Create a namespace with annotations. Without controllers it cannot be deleted, hence names used once."""

    async def create(name, annotations):
        await client.create("/api/v1/namespaces", {"metadata": {"name": name, "annotations": annotations}})

    return create


@pytest.fixture(scope="module")
def node_object():
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-rack-1", "labels": {"rack": "1"}}}


@pytest.fixture
async def node(client, pools, node_object, start_node):
    objects, _version = await client.list("/api/v1/nodes")
    if not objects:
        await client.create("/api/v1/nodes", node_object)
    return await start_node("node-rack-1")


async def test_the_node_selector_decides_without_annotations(node):
    assert (await node.add("c1")).body["ips"][0]["gateway"] == "10.244.0.0"


async def test_the_namespace_decides_for_its_pods_and_the_pod_for_itself(node, namespace):
    await namespace("payments", {V4: '["payments"]'})
    assert (await node.add("c1", namespace="payments")).body["ips"][0]["gateway"] == "10.244.32.0"
    own = await node.add("c2", namespace="payments", annotations={V4: '["legacy-firewall"]'})
    assert own.body["ips"][0]["gateway"] == "10.244.64.0"


async def test_an_annotation_of_the_namespace_takes_effect_for_the_next_pod(node, namespace, client):
    await namespace("later", {})
    assert (await node.add("c1", namespace="later")).body["ips"][0]["gateway"] == "10.244.0.0"
    stored = await client.get("/api/v1/namespaces/later")
    stored["metadata"]["annotations"] = {V4: '["payments"]'}
    await client.replace("/api/v1/namespaces/later", stored)
    await asyncio.sleep(0.3)
    assert (await node.add("c2", namespace="later")).body["ips"][0]["gateway"] == "10.244.32.0"


async def test_without_the_capability_the_pod_is_asked_for_at_the_api_server(node, client):
    pod = {
        "metadata": {"name": "asked", "annotations": {V4: '["payments"]'}},
        "spec": {"containers": [{"name": "main", "image": "none"}]},
    }
    await client.create("/api/v1/namespaces/default/pods", pod)
    reply = await node.add("c1", pod="asked", runtimeConfig={})
    assert reply.body["ips"][0]["gateway"] == "10.244.32.0"
    replaced = await node.run(
        {
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": "c2",
            "CNI_ARGS": "K8S_POD_NAMESPACE=default;K8S_POD_NAME=asked;K8S_POD_UID=11111111-2222-3333-4444-555555555555",
        },
        {"cniVersion": "1.0.0", "name": "podnet", "ipam": {}},
    )
    assert replaced.status == 1 and "pod default/asked was replaced: its uid is not 11111111" in replaced.body["msg"]


async def test_an_unknown_pool_is_named_with_annotation_object_and_what_exists(node, namespace):
    await namespace("typo", {V4: '["paymets"]'})
    reply = await node.add("c1", namespace="typo", pod="web-0")
    assert (reply.status, reply.body["code"], reply.body["reason"]) == (1, 7, "NoPool")
    assert reply.body["msg"] == (
        f"pod typo/web-0: annotation {V4} of namespace typo names pool 'paymets', which does not exist; "
        "pools of this family: legacy-firewall, payments, rack-1, rack-2"
    )
    assert await node.logged(reply.body["msg"])


async def test_a_malformed_annotation_is_quoted(node):
    reply = await node.add("c1", annotations={V4: "payments"})
    assert reply.body["code"] == 7 and "reason" not in reply.body
    assert f"annotation {V4} of pod default/c1 is not JSON: 'payments'" in reply.body["msg"]


async def test_a_namespace_that_does_not_exist_is_named(node):
    reply = await node.add("c1", namespace="nowhere")
    assert reply.body["msg"] == "pod nowhere/c1: namespace nowhere does not exist"


async def test_outside_of_kubernetes_the_configuration_decides(node):
    reply = await node.add("c1", namespace=None, ipam={"ipv4_pools": ["10.244.32.0/20"]})
    assert reply.body["ips"][0]["gateway"] == "10.244.32.0"
