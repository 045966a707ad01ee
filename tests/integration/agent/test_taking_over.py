# SPDX-License-Identifier: Apache-2.0
"""What runs on a node when its agent starts keeps its addresses, whoever gave them and whatever was lost meanwhile."""

from __future__ import annotations

import asyncio
import ipaddress
import json

import pytest
from podnet_ipam._core.names import cidr_name
from podnet_ipam._kube.calico import V1
from podnet_ipam.agent.running import LOOK_SECONDS
from support.plane import allocated, create_pool, settled, stored


@pytest.fixture
async def node(client, start_node):
    await create_pool(client, "main", "10.244.0.0/20")
    return await start_node("node-1")


def record(node, container, *addresses, network="podnet", netns="/proc/self/ns/net", interface="eth0"):
    """What the runtime's library writes down after an ADD."""
    node.results.mkdir(exist_ok=True)
    cached = {
        "kind": "cniCacheV1",
        "containerId": container,
        "ifName": interface,
        "networkName": network,
        "netns": netns,
        "cniArgs": [["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", container]],
        "result": {"cniVersion": "1.0.0", "ips": [{"address": f"{address}/20"} for address in addresses]},
    }
    (node.results / f"{network}-{container}-{interface}").write_text(json.dumps(cached))


def restart_without_a_record(node):
    node.stop()
    node.store.unlink()
    return node.start()


async def test_pods_that_another_plugin_has_served_keep_their_addresses(node, client):
    record(node, "old-1", "10.244.1.2", network="kindnet")
    record(node, "old-2", "10.244.1.3", "fd00::5", network="kindnet")
    await restart_without_a_record(node)
    await settled(client, ["10.244.1.2", "10.244.1.3"])
    [block] = (await stored(client, "IPAMBlock")).values()
    assert block["spec"]["affinity"] == "host:node-1"
    owners = [attribute["secondary"] for attribute in block["spec"]["attributes"]]
    assert {owner["pod"] for owner in owners} == {"old-1", "old-2"}
    assert {owner["node"] for owner in owners} == {"node-1"}
    new = (await node.add("new")).address
    assert (await node.delete("old-1")).status == 0, "its DEL comes under the name of the network of today"
    await settled(client, ["10.244.1.3", new])


async def test_pods_that_another_plugin_serves_while_the_agent_runs_keep_their_addresses(node, client):
    """Between the agent's start and the runtime's next configuration, the former plugin goes on."""
    first = ipaddress.ip_address((await node.add("first")).address)
    record(node, "late-1", str(first + 1), network="kindnet")
    await asyncio.sleep(LOOK_SECONDS)
    new = (await node.add("new")).address
    assert new not in (str(first), str(first + 1))
    node.stop()
    record(node, "late-2", "10.244.9.9", network="kindnet")
    await node.start()
    await settled(client, [str(first), str(first + 1), new, "10.244.9.9"])
    assert (await node.delete("late-1")).status == 0, "its DEL comes under the name of the network of today"
    await settled(client, [str(first), new, "10.244.9.9"])


async def test_every_interface_of_a_pod_that_other_plugins_have_served_keeps_its_addresses(node, client):
    """As with Multus, which calls a plugin for each network of a pod."""
    record(node, "old", "10.244.1.0", "10.244.1.1", network="kindnet")
    record(node, "old", "10.244.1.2", network="storage", interface="net1")
    await restart_without_a_record(node)
    handles = {"10.244.1.0": "podnet.old", "10.244.1.1": "podnet.old", "10.244.1.2": "storage.old"}
    await settled(client, handles)
    assert await allocated(client) == handles
    assert (await stored(client, "IPAMHandle"))["podnet.old"]["spec"]["block"] == {"10.244.1.0/26": 2}
    new = (await node.add("new")).address
    assert new not in handles
    assert (await node.delete("old")).status == 0
    await settled(client, ["10.244.1.2", new])
    assert (await node.delete("old", network="storage")).status == 0, "it is this plugin's by now"
    await settled(client, [new])


async def test_what_another_network_of_this_plugin_serves_is_nobodys_newcomer(node, client):
    second = (await node.add("c1", network="second")).address
    record(node, "c1", second, network="second")
    first = (await node.add("c2")).address
    assert await allocated(client) == {second: "second.c1", first: "podnet.c2"}
    assert "CRITICAL" not in node.log.read_text()


async def test_pods_keep_their_addresses_when_the_store_and_the_block_are_lost(node, client):
    reply = await node.add("c1")
    record(node, "c1", reply.address)
    node.stop()
    node.store.unlink()
    for kind in ("IPAMBlock", "IPAMHandle", "BlockAffinity"):
        for name, obj in (await stored(client, kind)).items():
            await client.delete(V1.path(kind, name), obj["metadata"]["uid"])
    await node.start()
    await settled(client, [reply.address])
    assert (await node.add("c1")).address == reply.address


async def test_a_container_that_is_gone_is_not_taken_over(node, client):
    record(node, "gone", "10.244.1.2", netns="/run/netns/no-such-namespace")
    await restart_without_a_record(node)
    assert await allocated(client) == {}


async def test_a_record_without_a_network_namespace_counts_as_long_as_its_pod_has_the_address(node, client):
    """Older runtimes note none, and no runtime forgets what the plugins of a former network have served."""
    await client.create("/api/v1/namespaces", {"metadata": {"name": "shop"}})
    for name, address in (("living", "10.244.1.2"), ("renewed", "10.244.1.9")):
        await create_pod(client, name, address)
    for number, container in enumerate(("living", "renewed", "gone"), 2):
        record(node, container, f"10.244.1.{number}", network="kindnet", netns=None)
    await restart_without_a_record(node)
    await settled(client, ["10.244.1.2"])


async def create_pod(client, name, address):
    """A pod of namespace shop that runs on node-1 with an address."""
    spec = {"nodeName": "node-1", "containers": [{"name": "main", "image": "none"}]}
    await client.create("/api/v1/namespaces/shop/pods", {"metadata": {"name": name}, "spec": spec})
    pod = await client.get(f"/api/v1/namespaces/shop/pods/{name}")
    status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
    await client.replace(f"/api/v1/namespaces/shop/pods/{name}/status", {**pod, "status": status})


async def test_an_address_that_someone_else_holds_is_reported_and_not_touched(node, client, start_node):
    other = await start_node("node-2")
    theirs = (await other.add("theirs")).address
    record(node, "ours", theirs)
    await restart_without_a_record(node)
    assert await allocated(client) == {theirs: "podnet.theirs"}
    assert f"container ours runs with address {theirs} of pod default/theirs" in node.log.read_text()


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"kind": "x"}', '{"kind": "cniCacheV1", "networkName": 1}'])
async def test_a_record_that_is_not_understood_is_reported_and_left_out(node, client, content):
    record(node, "good", "10.244.1.2")
    (node.results / "a-bad-one").write_text(content)
    await restart_without_a_record(node)
    await settled(client, ["10.244.1.2"])
    assert "a-bad-one is not understood" in node.log.read_text()
    assert cidr_name("10.244.1.0/26") in await stored(client, "IPAMBlock")
