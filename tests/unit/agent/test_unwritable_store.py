# SPDX-License-Identifier: Apache-2.0
"""What a node's own store refuses for a moment, as on a full disk, must be neither lost nor come back later."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from podnet_ipam.agent import mirror
from podnet_ipam.agent.errors import CniError
from support.simulated_cluster import SimulatedCluster
from support.simulated_nodes import DEATH_AFTER, IMPOSSIBLE, REFUSED

POOLS = '[[pools]]\nname = "main"\ncidr = "10.0.0.0/29"\nblock_size = 30\n'
NODE = "node-1"


@asynccontextmanager
async def one_node(folder, pools=POOLS):
    async with SimulatedCluster(folder, [NODE], pools) as cluster:
        await cluster.start_all()
        yield cluster, cluster.nodes[NODE]


async def in_use(cluster, *containers):
    """Containers that run, with nothing under way."""
    for container in containers:
        await cluster.add(NODE, container)
    await cluster.settle()


async def started_again(cluster):
    cluster.nodes[NODE].kill()
    await cluster.settle()


async def test_a_release_that_was_refused_twice_is_recorded_before_the_next_write(hurried, tmp_path):
    async with one_node(tmp_path) as (cluster, node):
        await in_use(cluster, "a", "b")
        node.store.faults.extend([REFUSED, REFUSED, DEATH_AFTER])
        await cluster.delete(NODE, "a")
        assert not cluster.open, "freed at the datastore, which is enough"
        await cluster.add(NODE, "c")
        assert not node.is_up
        await cluster.settle()


async def test_a_release_that_was_refused_twice_is_recorded_in_time_without_any_request(hurried, tmp_path):
    async with one_node(tmp_path) as (cluster, node):
        await in_use(cluster, "a", "b")
        node.store.faults.extend([REFUSED, REFUSED])
        await cluster.delete(NODE, "a")
        assert node.ipam.recording.behind == {"net.a"}
        node.ipam.recording.catch_up()
        assert not node.ipam.recording.behind
        await started_again(cluster)


async def test_a_release_that_is_never_recorded_is_found_to_be_over_by_the_next_run(hurried, tmp_path):
    async with one_node(tmp_path) as (cluster, node):
        await in_use(cluster, "a", "b")
        node.store.faults.extend([REFUSED] * 2)
        await cluster.delete(NODE, "a")
        node.kill()
        await cluster.start_all()
        assert node.ipam.holding("net.a"), "its store says so"
        async with asyncio.timeout(10):
            while node.ipam.holding("net.a"):
                await node.look_for_vanished()
        assert node.ipam.holding("net.b")
        await cluster.settle()


async def test_a_container_that_came_back_keeps_its_address_whatever_its_store_says(hurried, tmp_path):
    async with one_node(tmp_path) as (cluster, node):
        await in_use(cluster, "a", "b")
        # Its release is recorded. That it is over is not, nor that it runs again.
        node.store.faults.extend([None, *[REFUSED] * 8])
        await cluster.delete(NODE, "a")
        while node.ipam.unsettled:
            await asyncio.sleep(0)
        await cluster.add(NODE, "a")
        assert (NODE, "a") in cluster.open, "the next run would free what it was given"
        await cluster.ask_again()
        assert "a" in cluster.held
        await started_again(cluster)


async def test_who_was_never_recorded_is_released_all_the_same(hurried, tmp_path):
    async with one_node(tmp_path) as (cluster, node):
        await in_use(cluster, "b")
        node.store.faults.append(REFUSED)
        await cluster.add(NODE, "a")
        await cluster.settle()
        await cluster.delete(NODE, "a")
        assert not cluster.open
        assert node.ipam.unsettled, "answered before it is stored"
        await started_again(cluster)


async def test_what_a_lost_store_had_not_recorded_is_released_all_the_same(hurried, tmp_path):
    async with one_node(tmp_path) as (cluster, node):
        await in_use(cluster, "a", "b")
        node.kill()
        for file in tmp_path.glob(f"{NODE}.sqlite*"):
            file.unlink()
        await cluster.settle()
        await cluster.delete(NODE, "a")
        assert node.ipam.unsettled, "answered before it is stored"
        await started_again(cluster)


async def test_an_addition_of_the_other_family_is_known_to_the_next_run(hurried, tmp_path):
    pools = POOLS + '[[pools]]\nname = "six"\ncidr = "fd00::/120"\nblock_size = 126\n'
    async with one_node(tmp_path, pools) as (cluster, node):
        await in_use(cluster, "b")
        await cluster.add(NODE, "a")
        node.store.faults.extend([REFUSED] * 4)
        both = (await node.assign("a", "10.0.0.1", "fd00::1")).addresses
        assert len(both) == 2
        cluster.held["a"] = (NODE, {address.address for address in both})
        await started_again(cluster)
        assert node.ipam.holding("net.a") == both
        await cluster.delete(NODE, "a")
        await cluster.settle()


async def test_a_container_that_moved_is_known_by_its_new_network_namespace(hurried, tmp_path):
    async with one_node(tmp_path) as (cluster, node):
        await in_use(cluster, "a")
        node.store.faults.append(REFUSED)
        await node.assign("a", netns="/run/netns/new")
        node.ipam.recording.catch_up()
        node.kill()
        await cluster.settle()
        assert node.ipam.attachments["net.a"].netns == "/run/netns/new"


async def test_what_the_store_can_never_record_keeps_nothing_else_from_being_recorded(hurried, tmp_path):
    async with one_node(tmp_path) as (cluster, node):
        await in_use(cluster, "a", "b", "c")
        node.store.faults.extend([IMPOSSIBLE, IMPOSSIBLE, REFUSED, IMPOSSIBLE])
        for container in ("a", "b"):
            await node.assign(container, netns="/run/netns/new")
        node.ipam.recording.catch_up()
        assert node.ipam.recording.behind == {"net.a"}
        node.kill()
        await cluster.settle()
        assert node.ipam.attachments["net.b"].netns == "/run/netns/new"


@pytest.mark.parametrize("refused", range(6))
async def test_an_assignment_that_is_refused_and_taken_back_leaves_nothing(hurried, tmp_path, monkeypatch, refused):
    monkeypatch.setattr(mirror, "WRITE_SECONDS", 0.05)
    async with one_node(tmp_path) as (cluster, node):
        await cluster.toggle_strictness()
        await in_use(cluster, "b")
        node.client.cut_off = True
        node.store.faults.extend([None, *[REFUSED] * refused])
        with pytest.raises(CniError):
            await node.add("a")
        node.client.cut_off = False
        while node.ipam.unsettled:
            await asyncio.sleep(0.001)
        node.store.faults.clear()
        await cluster.delete(NODE, "a")
        await started_again(cluster)
