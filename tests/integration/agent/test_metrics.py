# SPDX-License-Identifier: Apache-2.0
"""What Prometheus and a health check see of an agent."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket

import aiohttp
import pytest
from podnet_ipam._core.names import cidr_name
from podnet_ipam._kube.calico import V1
from podnet_ipam.agent.config import AgentConfig
from prometheus_client.parser import text_string_to_metric_families
from support.faulty_proxy import Fault, FaultyProxy
from support.plane import allocated, create_pool, settled, stored


@pytest.fixture
def port():
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
async def node(client, start_node, port):
    await create_pool(client, "main", "10.244.0.0/24", blockSize=28)
    spec = {"strictAffinity": True, "autoAllocateBlocks": True}
    await client.create(V1.path("IPAMConfig"), V1.new("IPAMConfig", "default", spec))
    return await start_node("node-1", metrics=f"127.0.0.1:{port}", cooldown=60)


@pytest.fixture
async def fetch(port):
    """(status, text) of a path."""

    async def fetch(path: str) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}{path}") as response,
        ):
            return response.status, await response.text()

    return fetch


@pytest.fixture
def scrape(fetch):
    """{(name, label values...): value} of every series."""

    async def scrape() -> dict[tuple, float]:
        status, text = await fetch("/metrics")
        assert status == 200
        return {
            (sample.name, *(value for _label, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    return scrape


def figures(samples):
    """{state: addresses} of pool main."""
    return {
        key[-1]: value
        for key, value in samples.items()
        if key[0] == "podnet_ipam_addresses" and key[1:4] == ("IPv4", "node-1", "main")
    }


async def test_the_figures_of_a_pool_are_those_of_its_blocks_at_the_api_server(node, client, scrape):
    replies = [await node.add(f"c{number}") for number in range(20)]
    gone = [replies[3].address, replies[11].address]
    for container in ("c3", "c11"):
        await node.delete(container)
    await settled(client, [reply.address for reply in replies if reply.address not in gone])
    samples = await scrape()
    blocks = await stored(client, "IPAMBlock")
    assert samples["podnet_ipam_blocks", "IPv4", "node-1", "main"] == len(blocks) == 2
    found = figures(samples)
    assert found["used"] == len(await allocated(client)) == 18
    assert found["cooling"] == 2
    assert sum(found.values()) == sum(len(block["spec"]["allocations"]) for block in blocks.values())
    gateway = sum(block["spec"]["cidr"] == "10.244.0.0/28" for block in blocks.values())
    assert found["reserved"] == gateway


async def test_reserved_addresses_are_counted_apart_from_free_ones(node, client, scrape):
    await node.add("c1")
    [block] = (await stored(client, "IPAMBlock")).values()
    before = figures(await scrape())
    reservation = V1.new("IPReservation", "infrastructure", {"reservedCIDRs": [block["spec"]["cidr"]]})
    await client.create(V1.path("IPReservation"), reservation)
    async with asyncio.timeout(10):
        while figures(await scrape()) == before:
            await asyncio.sleep(0.05)
    assert figures(await scrape()) == {"used": 1, "cooling": 0, "free": 0, "reserved": 15}


async def test_addresses_that_other_nodes_hold_of_the_nodes_blocks_are_lent(node, client, scrape, start_node):
    await node.add("c1")
    await settled(client, (await allocated(client)).keys())
    node.stop()
    [block] = (await stored(client, "IPAMBlock")).values()
    other = {"handle_id": "podnet.other", "secondary": {"namespace": "default", "node": "node-2", "pod": "other"}}
    spec = block["spec"]
    ordinal = spec["unallocated"].pop()
    spec["attributes"].append(other)
    spec["allocations"][ordinal] = len(spec["attributes"]) - 1
    await client.replace(V1.path("IPAMBlock", cidr_name(spec["cidr"])), block)
    await node.start()
    samples = await scrape()
    assert samples["podnet_ipam_lent_addresses", "IPv4", "node-1", "main"] == 1
    assert samples["podnet_ipam_borrowed_addresses", "IPv4", "node-1", "main"] == 0
    assert figures(samples)["used"] == 2


async def test_addresses_that_the_node_holds_of_other_nodes_blocks_are_borrowed(client, start_node, port, scrape):
    await create_pool(client, "small", "10.244.0.0/29", blockSize=30)
    other, node = await start_node("node-2"), await start_node("node-1", metrics=f"127.0.0.1:{port}")
    lender = ipaddress.ip_network(((await other.add("lender")).address, 30), strict=False)
    replies = [await node.add(f"c{number}") for number in range(5)]
    borrowed = [reply for reply in replies if ipaddress.ip_address(reply.address) in lender]
    samples = await scrape()
    assert samples["podnet_ipam_borrowed_addresses", "IPv4", "node-1", "small"] == len(borrowed) >= 1
    assert samples["podnet_ipam_blocks", "IPv4", "node-1", "small"] == 1
    used = samples["podnet_ipam_addresses", "IPv4", "node-1", "small", "used"]
    assert used == len(replies) - len(borrowed)
    disagreements = (await node.ctl("check", "--output", "json")).json
    assert {each["subject"].partition(" ")[0] for each in disagreements} == {"pod"}, "only the pods are made up"


async def test_every_request_is_counted_by_verb_and_code_and_timed(node, scrape):
    assert (await node.add("c1")).status == 0
    assert (await node.add("c2", ipam={"ipv4_pools": ["nowhere"]})).body["code"] == 7
    assert (await node.delete("c1")).status == 0
    assert (await node.call("UNHEARD-OF", "c1")).status == 1
    samples = await scrape()
    requests = {key[1:]: value for key, value in samples.items() if key[0] == "podnet_ipam_requests_total"}
    assert requests == {("0", "ADD"): 1, ("7", "ADD"): 1, ("0", "DEL"): 1, ("4", "other"): 1}
    assert samples["podnet_ipam_request_seconds_count", "ADD"] == 2
    assert samples["podnet_ipam_request_seconds_count", "DEL"] == 1
    assert samples["podnet_ipam_request_seconds_sum", "ADD"] > 0


async def test_commits_of_the_store_and_turns_of_the_loop_are_counted(node, scrape):
    before = await scrape()
    await node.add("c1")
    after = await scrape()
    assert after["podnet_ipam_store_commits_total",] > before["podnet_ipam_store_commits_total",]
    assert after["podnet_ipam_store_errors_total",] == 0
    assert after["podnet_ipam_loop_busy_seconds_count",] > before["podnet_ipam_loop_busy_seconds_count",]


async def test_a_block_that_someone_else_changed_shows_as_a_conflict(node, client, scrape):
    first = await node.add("c1")
    await settled(client, [first.address])
    [block] = (await stored(client, "IPAMBlock")).values()
    block["metadata"]["annotations"] = {"changed-by": "someone else"}
    await client.replace(V1.path("IPAMBlock", block["metadata"]["name"]), block)
    assert (await scrape())["podnet_ipam_block_conflicts_total",] == 0
    second = await node.add("c2")
    await settled(client, [first.address, second.address])
    assert (await scrape())["podnet_ipam_block_conflicts_total",] == 1


async def test_an_api_server_that_is_away_shows_in_the_figures_while_the_agent_stays_healthy(
    node, plane, scrape, fetch
):
    await node.add("c1")
    assert (await scrape())["podnet_ipam_api_server_away_seconds",] == 0
    plane.stop_apiserver()
    try:
        await node.delete("c1")
        async with asyncio.timeout(20):
            while not (await scrape())["podnet_ipam_api_server_away_seconds",]:
                await asyncio.sleep(0.05)
        assert await fetch("/healthz") == (200, "ok\n")
        assert await fetch("/readyz") == (200, "ok\n"), "its block still has room"
    finally:
        plane.start_apiserver()


async def test_an_api_server_behind_which_nothing_works_counts_as_away(client, plane, start_node, port, scrape):
    await create_pool(client, "main", "10.244.0.0/24")
    with FaultyProxy(plane) as proxy:
        node = await start_node("node-1", proxy.url, metrics=f"127.0.0.1:{port}")
        await node.add("c1")
        proxy.faults[:] = [Fault(verb, "", status=500, times=1000) for verb in ("GET", "POST", "PUT", "DELETE")]
        await node.delete("c1")
        async with asyncio.timeout(20):
            while (await scrape())["podnet_ipam_api_server_away_seconds",] < 1:
                await asyncio.sleep(0.05)
            proxy.faults.clear()
            while (await scrape())["podnet_ipam_api_server_away_seconds",]:
                await asyncio.sleep(0.05)


async def test_not_ready_says_what_the_verb_status_says(start_node, client, port, fetch, scrape):
    node = await start_node("node-1", metrics=f"127.0.0.1:{port}")
    verdict = await node.call("STATUS", "")
    assert await fetch("/readyz") == (503, verdict.body["msg"] + "\n")
    assert "no enabled IP pool" in verdict.body["msg"]
    assert (await scrape())["podnet_ipam_ready",] == 0
    assert await fetch("/healthz") == (200, "ok\n")


async def test_an_agent_that_has_never_seen_the_api_server_answers_and_says_so(node, plane, port, fetch, scrape):
    node.stop()
    plane.stop_apiserver()
    try:
        node.launch()
        async with asyncio.timeout(20):
            while True:
                try:
                    status, text = await fetch("/readyz")
                except aiohttp.ClientConnectorError:
                    await asyncio.sleep(0.05)
                    continue
                if "API server" in text:
                    break
        assert status == 503
        assert re.match(r"the agent has not learnt .*; the API server has not answered for \d+ s", text)
        assert not figures(await scrape())
    finally:
        plane.start_apiserver()


async def test_nobody_outside_of_the_machine_can_ask(node, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outward:
        outward.connect(("192.0.2.1", 9))  # sends nothing; names the machine's own address
        own = outward.getsockname()[0]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((own, port))


@pytest.mark.parametrize("address", ["0.0.0.0:9764", "10.0.0.1:9764", "9764", "127.0.0.1", "localhost:9764", "[::]:1"])
def test_only_a_loopback_address_with_a_port_is_accepted(tmp_path, address):
    file = tmp_path / "agent.toml"
    file.write_text(f'node = "n"\nkubeconfig = "k"\nmetrics = "{address}"')
    with pytest.raises(ValueError, match=r"metrics is .*a loopback address with a port is expected"):
        AgentConfig.read(file)


@pytest.mark.parametrize("address, parsed", [("127.0.0.1:9764", ("127.0.0.1", 9764)), ("[::1]:80", ("::1", 80))])
def test_loopback_addresses_of_both_families_are_accepted(tmp_path, address, parsed):
    file = tmp_path / "agent.toml"
    file.write_text(f'node = "n"\nkubeconfig = "k"\nmetrics = "{address}"')
    assert AgentConfig.read(file).metrics_address() == parsed


async def test_a_port_in_use_costs_the_figures_and_no_pod(client, start_node):
    await create_pool(client, "main", "10.244.0.0/24")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        node = await start_node("node-1", metrics=f"127.0.0.1:{taken.getsockname()[1]}")
        assert (await node.add("c1")).status == 0
    assert "nobody can ask the agent about itself on 127.0.0.1:" in node.log.read_text()
