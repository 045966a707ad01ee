# SPDX-License-Identifier: Apache-2.0
"""A clock that jumps moves no address, and a power failure that takes the last records along loses none."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager

import pytest
from podnet_ipam.agent import store
from support.simulated_cluster import SimulatedCluster

POOLS = '[[pools]]\nname = "main"\ncidr = "10.0.0.0/29"\nblock_size = 30\n'
NODE = "node-1"
COOLDOWN, DAY = 30.0, 86400.0


@asynccontextmanager
async def one_node(folder, cooldown=0.0):
    async with SimulatedCluster(folder, [NODE], POOLS) as cluster:
        cluster.nodes[NODE].cooldown = cooldown
        await cluster.start_all()
        yield cluster, cluster.nodes[NODE]


@pytest.fixture
def jump(monkeypatch):
    """Have the clock jump by some seconds."""

    class Clock:
        ahead = 0.0

        def time(self):
            return time.time() + self.ahead

    clock = Clock()
    monkeypatch.setattr(store, "time", clock)
    return lambda seconds: setattr(clock, "ahead", seconds)


async def one_rests(cluster, node):
    """A block of which one address is held and one rests."""
    await cluster.add(NODE, "a")
    await cluster.add(NODE, "b")
    await cluster.settle()
    await cluster.delete(NODE, "a")
    await cluster.settle()
    [keeper] = node.ipam.blocks
    return keeper


@pytest.mark.parametrize("seconds", (-DAY, DAY))
async def test_a_jump_of_the_clock_changes_nothing_for_an_agent_that_runs(hurried, tmp_path, jump, seconds):
    async with one_node(tmp_path, COOLDOWN) as (cluster, node):
        keeper = await one_rests(cluster, node)
        jump(seconds)
        assert COOLDOWN - 5 < keeper.rest_seconds <= COOLDOWN
        await cluster.add(NODE, "c")
        await cluster.settle()


async def test_a_clock_that_jumped_back_before_a_restart_keeps_an_address_no_longer_than_it_would_have_rested(
    hurried, tmp_path, jump
):
    async with one_node(tmp_path, COOLDOWN) as (cluster, node):
        await one_rests(cluster, node)
        node.kill()
        jump(-DAY)
        await cluster.settle()
        [keeper] = node.ipam.blocks
        assert COOLDOWN - 5 < keeper.rest_seconds <= COOLDOWN


async def test_a_clock_that_jumped_ahead_before_a_restart_ends_the_rest_and_nothing_else(hurried, tmp_path, jump):
    async with one_node(tmp_path, COOLDOWN) as (cluster, node):
        await one_rests(cluster, node)
        node.kill()
        jump(DAY)
        await cluster.settle()
        [keeper] = node.ipam.blocks
        assert keeper.rest_seconds is None
        await cluster.add(NODE, "c")
        await cluster.settle()
        assert cluster.held.keys() == {"b", "c"}


async def test_a_power_failure_that_takes_the_last_records_along_leaks_no_address_and_loses_none(hurried, tmp_path):
    async with one_node(tmp_path) as (cluster, node):
        for container in "abc":
            await cluster.add(NODE, container)
        await cluster.settle()
        disk = node.copy_of_store()
        await cluster.delete(NODE, "a")
        await cluster.settle()
        await cluster.add(NODE, "d")
        await cluster.delete(NODE, "b")
        node.lose_power(disk)
        # The runtime cleans up what it remembers; it has seen a and b end.
        await cluster.start_all()
        for container in "cd":
            await cluster.delete(NODE, container)
        for container in "ef":
            await cluster.add(NODE, container)
        await cluster.nodes[NODE].look_for_vanished()
        await cluster.settle()
        assert cluster.held.keys() == {"e", "f"}
