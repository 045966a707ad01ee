# SPDX-License-Identifier: Apache-2.0
"""Pods that real main plugins connect reach each other with the addresses, routes and gateways that are answered."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from support.netns import exchange, kernel_has, namespace, run
from support.node_network import NodeNetwork
from support.plane import create_pool, settled, stored

SEGMENT = "seg0"
PTP = {"type": "ptp"}
BRIDGE = {"type": "bridge", "bridge": "cni0", "isDefaultGateway": True}
MACVLAN = {"type": "macvlan", "master": SEGMENT}
IPVLAN = {"type": "ipvlan", "master": SEGMENT}
IPVLAN_L3 = {**IPVLAN, "mode": "l3"}
FAMILIES = {
    "IPv4": {},
    "IPv6": {"assign_ipv4": "false", "assign_ipv6": "true"},
    "dual stack": {"assign_ipv6": "true"},
}

with_ipvlan = pytest.mark.skipif(not kernel_has("ipvlan"), reason="this kernel has no ipvlan")
every_plugin = pytest.mark.parametrize(
    "plugin",
    (
        PTP,
        BRIDGE,
        MACVLAN,
        pytest.param(IPVLAN, marks=with_ipvlan),
        pytest.param(IPVLAN_L3, marks=with_ipvlan),
    ),
    ids=("ptp", "bridge", "macvlan", "ipvlan", "ipvlan-l3"),
)


@pytest.fixture
def netns():
    """Make network namespaces for a role; all go with the test."""
    with ExitStack() as stack:
        yield lambda role: stack.enter_context(namespace(role))


@pytest.fixture
async def pools(client):
    """A pool per family with blocks of four addresses: of these a block that is an IP subnet has one for a pod."""
    await create_pool(client, "four", "10.77.0.0/24", blockSize=30)
    await create_pool(client, "six", "fd00:77::/112", blockSize=126)


@pytest.fixture
async def node(pools, start_node, netns):
    """A node with a segment, whose other end is a router: it has 10.77.0.1 there, and 198.51.100.1 behind."""
    network = NodeNetwork(await start_node("node-1"), netns("node"))
    router = netns("router")
    join(network.netns, router)
    run("ip", "-n", router, "address", "add", "10.77.0.1/24", "dev", SEGMENT)
    run("ip", "-n", router, "address", "add", "198.51.100.1/32", "dev", "lo")
    network.router = router
    return network


def join(one: str, other: str) -> None:
    """Put two namespaces on one segment."""
    run("ip", "-n", one, "link", "add", SEGMENT, "type", "veth", "peer", "name", SEGMENT, "netns", other)
    for name in (one, other):
        run("ip", "-n", name, "link", "set", SEGMENT, "up")


def texts(result):
    return [entry["address"].partition("/")[0] for entry in result["ips"]]


async def connect(node, netns, plugin, ipam=None, version="1.1.0", network="net"):
    """A new pod in the network of a main plugin: its namespace, and what the main plugin answered."""
    node.configure(network, {**plugin, "ipam": {"type": "podnet-ipam", **(ipam or {})}}, version)
    pod = netns("pod")
    return pod, await node.cni("add", network, pod)


@every_plugin
@pytest.mark.parametrize("ipam", FAMILIES.values(), ids=FAMILIES)
async def test_two_pods_of_a_node_reach_each_other_under_their_own_addresses(node, netns, plugin, ipam):
    one, result_of_one = await connect(node, netns, plugin, ipam)
    two, result_of_two = await connect(node, netns, plugin, ipam)
    for from_address, to_address in zip(texts(result_of_one), texts(result_of_two), strict=True):
        assert exchange(one, two, to_address) == from_address


@pytest.mark.parametrize("version", ("0.3.1", "0.4.0", "1.0.0", "1.1.0"))
@every_plugin
async def test_a_pod_lives_and_ends_in_every_version(node, netns, client, plugin, version):
    pod, result = await connect(node, netns, plugin, version=version)
    assert result["cniVersion"] == version
    if version >= "0.4.0":
        await node.cni("check", "net", pod)
    if version >= "1.1.0":
        await node.cni("status", "net", pod)
        await node.cni("gc", "net", pod)
    await node.cni("del", "net", pod)
    await settled(client, [])


@every_plugin
async def test_pods_of_two_nodes_reach_each_other(pools, client, start_node, netns, plugin):
    nodes = [NodeNetwork(await start_node(name), netns(name)) for name in ("node-1", "node-2")]
    join(*(node.netns for node in nodes))
    for number, node in enumerate(nodes):
        run("ip", "-n", node.netns, "address", "add", f"192.0.2.{number}/24", "dev", SEGMENT)
        run("ip", "-n", node.netns, "address", "add", f"fd00:2::{number}/64", "dev", SEGMENT)
    pods = [await connect(node, netns, plugin, FAMILIES["dual stack"]) for node in nodes]
    for number, node in enumerate(nodes):
        # What agents do with `routes = true`, in a network namespace where none of them runs.
        other = 1 - number
        for affinity in (await stored(client, "BlockAffinity")).values():
            spec = affinity["spec"]
            if spec["node"] == f"node-{other + 1}":
                gateway = f"fd00:2::{other}" if ":" in spec["cidr"] else f"192.0.2.{other}"
                run("ip", "-n", node.netns, "route", "add", spec["cidr"], "via", gateway)
    (one, result_of_one), (two, result_of_two) = pods
    for from_address, to_address in zip(texts(result_of_one), texts(result_of_two), strict=True):
        assert exchange(one, two, to_address) == from_address


@pytest.mark.parametrize("plugin", (PTP, BRIDGE, MACVLAN), ids=("ptp", "bridge", "macvlan"))
async def test_pods_of_different_pools_reach_each_other_where_the_configuration_names_their_common_network(
    node, netns, client, plugin
):
    await create_pool(client, "other", "10.77.8.0/24")
    common = {"subnets": ["10.77.0.0/16"]}
    one, result_of_one = await connect(node, netns, plugin, {**common, "ipv4_pools": ["four"]})
    two, result_of_two = await connect(node, netns, plugin, {**common, "ipv4_pools": ["other"]})
    assert result_of_two["ips"][0]["address"].startswith("10.77.8.")
    assert exchange(one, two, *texts(result_of_two)) == texts(result_of_one)[0]


async def test_a_pod_reaches_what_lies_behind_the_segments_gateway(node, netns):
    pod, result = await connect(node, netns, MACVLAN, {"gateway": "10.77.0.1"})
    assert exchange(pod, node.router, "198.51.100.1") == texts(result)[0]


async def test_routes_of_the_configuration_replace_the_default_route(node, netns):
    ipam = {"gateway": "10.77.0.1", "routes": [{"dst": "198.51.100.0/24"}, {"dst": "fd00:5::/64"}]}
    pod, _result = await connect(node, netns, MACVLAN, ipam)
    routes = run("ip", "-n", pod, "route")
    assert "198.51.100.0/24 via 10.77.0.1" in routes and "default" not in routes


@pytest.mark.parametrize(
    ("mode", "entry", "routes"),
    (
        ("l2", "/24", []),
        ("l3", "/32", [{"dst": "0.0.0.0/0"}]),
        ("l3s", "/32", [{"dst": "0.0.0.0/0"}]),
    ),
)
async def test_ipvlan_is_answered_by_its_mode(pools, start_node, mode, entry, routes):
    reply = await (await start_node("node-1")).add("c1", type="ipvlan", mode=mode)
    assert reply.body["ips"] == [{"address": f"{reply.address}{entry}"}]
    assert reply.body["routes"] == routes


@pytest.mark.parametrize("plugin", ({"type": "ptp"}, {"type": "macvlan"}), ids=("ptp", "macvlan"))
async def test_the_gateway_and_the_broadcast_address_are_no_pods(client, start_node, plugin):
    await create_pool(client, "tiny", "10.78.0.0/29", blockSize=29)
    node = await start_node("node-1")
    replies = [await node.add(f"c{number}", ipam={"gateway": "10.78.0.1"}, **plugin) for number in range(6)]
    assert [reply.status for reply in replies] == [0, 0, 0, 0, 0, 1]
    assert {reply.address for reply in replies[:5]} == {f"10.78.0.{number}" for number in range(2, 7)}


@pytest.mark.parametrize(
    ("ipam", "message"),
    (
        ({"gateway": "10.9.0.1"}, "ipam.gateway: 10.9.0.1 does not lie in 10.77.0.0/24, the link of 10.77.0."),
        (
            {"gateway": "no"},
            "ipam.gateway is ['no']: 'no' does not appear to be an IPv4 or IPv6 address; addresses are",
        ),
        ({"subnets": "10.0.0.0/8"}, "ipam.subnets is '10.0.0.0/8'"),
        (
            {"routes": [{"gw": "10.77.0.1"}]},
            "ipam.routes is [{'gw': '10.77.0.1'}]: KeyError('dst'); objects with a CIDR",
        ),
        ({"assign_ipv4": "false"}, "neither assign_ipv4 nor assign_ipv6 is true"),
    ),
    ids=str,
)
async def test_a_configuration_that_cannot_work_is_refused(pools, start_node, ipam, message):
    reply = await (await start_node("node-1")).add("c1", type="macvlan", ipam=ipam)
    assert reply.body["code"] == 7 and message in reply.body["msg"]


async def test_a_pod_that_asks_for_the_gateways_address_does_not_get_it(pools, start_node):
    reply = await (await start_node("node-1")).add("c1", arguments="IgnoreUnknown=1;IP=10.77.0.0")
    assert reply.body["code"] == 102 and "10.77.0.0 is its network's gateway" in reply.body["msg"]
