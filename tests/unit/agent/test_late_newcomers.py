# SPDX-License-Identifier: Apache-2.0
"""Containers of another plugin that cannot be held yet: they keep nobody from starting, and keep their addresses."""

from __future__ import annotations

import asyncio
import ipaddress
from contextlib import asynccontextmanager

import pytest
from podnet_ipam.agent import backoff, newcomers, running
from podnet_ipam.agent.attachments import LOCAL_FIRST
from support.simulated_cluster import SimulatedCluster
from support.simulated_nodes import REFUSED

NODE = "node-1"
BLOCKS = ("10.0.0.0/30", "10.0.0.4/30")
POOLS = '[[pools]]\nname = "main"\ncidr = "10.0.0.0/29"\nblock_size = 30\n'


@pytest.fixture(autouse=True)
def at_each_add(monkeypatch):
    monkeypatch.setattr(running, "LOOK_SECONDS", 0)
    monkeypatch.setattr(newcomers, "FIRST_TRY_SECONDS", 0.05)


@asynccontextmanager
async def one_node(folder):
    """A node that has one of two blocks, in which container `a` runs; and the first address of the other one."""
    async with SimulatedCluster(folder, [NODE], POOLS) as cluster:
        await cluster.start_all()
        await cluster.add(NODE, "a")
        await cluster.settle()
        node = cluster.nodes[NODE]
        [keeper] = node.ipam.blocks
        [other] = set(BLOCKS) - {keeper.cidr}
        yield cluster, node, ipaddress.ip_network(other).network_address


def held(node, container):
    return [address.address for address in node.ipam.holding(f"net.{container}")]


async def until_held(node, container, address):
    async with asyncio.timeout(10):
        while held(node, container) != [str(address)]:
            await asyncio.sleep(0.001)


async def test_no_container_waits_for_an_api_server_that_others_need(hurried, tmp_path, monkeypatch):
    # Not for each of them.
    monkeypatch.setattr(newcomers, "FIRST_TRY_SECONDS", 2.0)
    async with one_node(tmp_path) as (_cluster, node, address):
        gets_through = asyncio.Event()
        travel = node.client._travel

        async def travel_late():
            await gets_through.wait()
            await travel()

        node.client._travel = travel_late
        for number in range(4):
            node.record(f"x{number}", address + number, network="other")
        async with asyncio.timeout(5):
            for number in range(2):
                assert (await node.assign(f"b{number}")).mode == LOCAL_FIRST
        assert not held(node, "x0")
        gets_through.set()
        for number in range(4):
            await until_held(node, f"x{number}", address + number)


async def test_a_container_in_a_block_that_is_here_is_held_at_once_while_the_api_server_is_away(hurried, tmp_path):
    async with one_node(tmp_path) as (_cluster, node, _address):
        node.client.cut_off = True
        node.client.seconds_away = 1.0
        [keeper] = node.ipam.blocks
        node.record("x", keeper.address(1), network="other")
        assert keeper.address(1) not in await node.add("b")
        assert held(node, "x") == [keeper.address(1)]


async def test_an_address_that_could_not_be_held_yet_is_given_to_nobody(hurried, tmp_path, monkeypatch):
    async with one_node(tmp_path) as (_cluster, node, address):
        for seconds in ("FIRST_SECONDS", "LONGEST_SECONDS"):
            monkeypatch.setattr(backoff, seconds, 60.0)
        node.record("x", address, network="other")
        node.client.faults.append(REFUSED)
        await node.add("b")
        assert not held(node, "x"), "it waits"
        given = set()
        for number in range(4):
            given |= await node.add(f"c{number}")
        assert str(address) not in given
        assert held(node, "x") == [str(address)]


async def test_a_container_that_ends_before_it_could_be_held_is_not(hurried, tmp_path):
    async with one_node(tmp_path) as (_cluster, node, address):
        node.record("x", address, network="other")
        netns, record = tmp_path / f"{NODE}-x.netns", tmp_path / f"{NODE}.results" / "other-x-eth0"
        node.client.cut_off = True
        node.client.seconds_away = 1.0
        await node.add("b")
        netns.unlink()
        record.unlink()
        node.client.cut_off = False
        node.client.seconds_away = 0.0
        await asyncio.sleep(0.1)
        assert not held(node, "x") and len(list(node.ipam.blocks)) == 1
