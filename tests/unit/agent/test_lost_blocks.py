# SPDX-License-Identifier: Apache-2.0
"""What others do to a node's blocks: they take empty ones, and they delete what they should not."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager

import pytest
from podnet_ipam._core.block import Block
from podnet_ipam._core.names import affinity_name, cidr_name
from podnet_ipam._kube.calico import V1
from podnet_ipam._kube.errors import NotFound
from podnet_ipam.agent import mirror
from podnet_ipam.agent.attachments import WRITTEN_THROUGH
from podnet_ipam.agent.claims import Claims
from podnet_ipam.agent.errors import CniError
from support.simulated_cluster import SimulatedCluster
from support.simulated_nodes import CUT_OFF, REFUSED, address_of

BLOCK = cidr_name("10.0.0.0/30")
CLAIM = affinity_name("node-1", "10.0.0.0/30")
NODES = ("node-1", "node-2")
ONE_BLOCK = '[[pools]]\nname = "main"\ncidr = "10.0.0.0/30"\nblock_size = 30\n'


@asynccontextmanager
async def cluster_with(folder, pools=ONE_BLOCK):
    async with SimulatedCluster(folder, NODES, pools) as cluster:
        await cluster.start_all()
        yield cluster


async def stored(cluster, node, count):
    """Wait until a node's first write of several is through."""
    async with asyncio.timeout(10):
        while len(cluster.nodes[node].client.faults) != count:
            await asyncio.sleep(0)


async def test_a_block_that_the_datastore_may_see_empty_gives_no_address_without_it(hurried, tmp_path, monkeypatch):
    monkeypatch.setattr(mirror, "WRITE_SECONDS", 0.2)
    async with cluster_with(tmp_path) as cluster:
        await cluster.add("node-1", "a")
        await cluster.settle()
        # The release is stored, but node-1 does not come to know.
        cluster.nodes["node-1"].client.faults.append(CUT_OFF)
        await cluster.delete("node-1", "a")
        await stored(cluster, "node-1", 0)
        with pytest.raises(CniError, match="not stored"):
            await cluster.nodes["node-1"].add("b")
        await cluster.add("node-2", "c")
        assert cluster.held["c"], "node-2 has got the empty block"
        await cluster.settle()


async def test_while_the_last_address_of_a_block_is_freed_the_next_one_waits_until_it_is_stored(hurried, tmp_path):
    async with cluster_with(tmp_path) as cluster:
        await cluster.add("node-1", "a")
        await cluster.settle()
        node = cluster.nodes["node-1"]
        node.client.faults.append(None)
        await cluster.delete("node-1", "a")
        await stored(cluster, "node-1", 0)
        assert (await node.assign("b")).mode == WRITTEN_THROUGH


async def one_block_deleted(cluster, *containers):
    """The block of node-1, in which these containers have addresses, is deleted behind its back."""
    for container in containers:
        await cluster.add("node-1", container)
    await cluster.settle()
    await cluster.remove("IPAMBlock", BLOCK)


async def test_a_block_that_somebody_deletes_is_made_anew_with_what_runs(hurried, tmp_path):
    async with cluster_with(tmp_path) as cluster:
        await one_block_deleted(cluster, "a", "b")
        await cluster.add("node-1", "c")
        await cluster.settle()
        assert cluster.held.keys() == {"a", "b", "c"}


async def test_a_container_that_ends_in_a_deleted_block_takes_no_other_address_along(hurried, tmp_path):
    async with cluster_with(tmp_path) as cluster:
        await one_block_deleted(cluster, "a", "b")
        await cluster.delete("node-1", "a")
        await cluster.settle()
        assert cluster.held.keys() == {"b"}


async def test_a_block_that_is_deleted_while_it_is_empty_serves_the_next_container(hurried, tmp_path):
    async with cluster_with(tmp_path) as cluster:
        await cluster.add("node-1", "a")
        await cluster.delete("node-1", "a")
        await one_block_deleted(cluster)
        assert await cluster.nodes["node-1"].add("b")


async def test_a_block_that_is_deleted_with_its_pool_is_forgotten_with_its_last_container(hurried, tmp_path):
    async with cluster_with(tmp_path) as cluster:
        await one_block_deleted(cluster, "a", "b")
        await cluster.remove("IPPool", "main")
        await asyncio.sleep(0.02)
        node = cluster.nodes["node-1"]
        for container in ("a", "b"):
            await node.delete(container)
        async with asyncio.timeout(10):
            while node.ipam.unsettled:
                await asyncio.sleep(0.001)
        assert not list(node.ipam.blocks)


async def test_a_block_that_says_to_be_another_nodes_gives_no_address_whatever_the_claim_says(hurried, tmp_path):
    async with cluster_with(tmp_path) as cluster:
        await cluster.add("node-1", "a")
        await cluster.settle()
        await cluster.set_affinity(BLOCK, "node-2")
        node = cluster.nodes["node-1"]
        # The node learns of it with its next write.
        await cluster.delete("node-1", "a")
        async with asyncio.timeout(10):
            while node.ipam.unsettled:
                await asyncio.sleep(0.001)
        with pytest.raises(CniError, match="belongs to another node"):
            await node.assign("b", "10.0.0.2")


async def test_a_claim_that_is_deleted_and_made_anew_changes_nothing_of_what_runs(hurried, tmp_path):
    async with cluster_with(tmp_path) as cluster:
        await cluster.add("node-1", "a")
        await cluster.settle()
        node = cluster.nodes["node-1"]
        before = node.ipam.attachments["net.a"]
        await cluster.select_nodes("!has(gone)")
        await cluster.remove("BlockAffinity", affinity_name("node-1", "10.0.0.0/30"))
        await asyncio.sleep(0.02)
        await cluster.add("node-1", "b")
        attachment = node.ipam.attachments["net.a"]
        assert attachment.places == before.places
        assert (attachment.netns, attachment.keep) == (before.netns, before.keep)
        assert await node.add("a") == cluster.held["a"][1]
        await cluster.settle()


async def test_an_answered_address_stays_whatever_a_former_run_has_got_to_write_for_the_same_container(
    hurried, tmp_path
):
    async with cluster_with(tmp_path) as cluster:
        await cluster.add("node-1", "a")
        await cluster.settle()
        await cluster.add("node-1", "c")
        path = V1.path("IPAMBlock", BLOCK)
        stored = await cluster.datastore.get(path)
        block = Block(stored["spec"])
        assert block.assign_ordinal(3, "net.c", {"node": "node-1"})
        await cluster.datastore.replace(path, V1.changed(stored, block.spec()))
        async with asyncio.timeout(10):
            while cluster.nodes["node-1"].ipam.unsettled:
                await asyncio.sleep(0.001)
        block = Block((await cluster.datastore.get(path))["spec"])
        both = {str(address_of(block.cidr, ordinal)) for ordinal in block.ordinals_of("net.c")}
        assert both == {"10.0.0.3", *cluster.held["c"][1]}
        await cluster.delete("node-1", "c")
        await cluster.settle()


async def test_a_borrowed_address_that_a_lost_store_had_recorded_is_known_to_all_later_runs(hurried, tmp_path):
    async with cluster_with(tmp_path) as cluster:
        await cluster.toggle_strictness()
        await cluster.add("node-2", "a")
        await cluster.add("node-1", "borrower")
        await cluster.settle()
        node = cluster.nodes["node-1"]
        held = node.ipam.holding("net.borrower")
        node.kill()
        for file in tmp_path.glob("node-1.sqlite*"):
            file.unlink()
        for _start in range(3):
            await cluster.start_all()
            assert node.ipam.holding("net.borrower") == held
            node.kill()
        await cluster.settle()


async def release_begun(cluster):
    """Somebody begins to release the claim of node-1, and does not go on."""
    path = V1.path("BlockAffinity", CLAIM)
    claim = await cluster.datastore.get(path)
    await cluster.datastore.replace(path, V1.changed(claim, {**claim["spec"], "state": "pendingDeletion"}))


async def until(condition):
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("refused", (0, 1, 5))
async def test_a_claim_that_someone_began_to_release_is_confirmed_however_many_tries_fail(hurried, tmp_path, refused):
    async with cluster_with(tmp_path) as cluster:
        await cluster.add("node-1", "a")
        await cluster.settle()
        node = cluster.nodes["node-1"]
        node.client.faults = deque([REFUSED] * refused)
        await release_begun(cluster)

        async def is_confirmed():
            claim = await cluster.datastore.get(V1.path("BlockAffinity", CLAIM))
            return claim["spec"]["state"] == "confirmed"

        await until(is_confirmed)
        assert not node.client.faults
        await cluster.add("node-1", "b")
        assert "b" in cluster.held


async def test_a_block_that_went_to_another_node_while_its_claim_was_unconfirmed_is_forgotten(hurried, tmp_path):
    async with cluster_with(tmp_path) as cluster:
        await cluster.add("node-1", "a")
        await cluster.delete("node-1", "a")
        await cluster.settle()
        await cluster.set_affinity(BLOCK, "node-2")
        await release_begun(cluster)

        async def is_gone():
            try:
                await cluster.datastore.get(V1.path("BlockAffinity", CLAIM))
            except NotFound:
                return not list(cluster.nodes["node-1"].ipam.blocks)
            return False

        await until(is_gone)


async def test_a_claim_that_is_removed_while_a_node_starts_is_claimed_anew_before_it_gives_addresses(
    hurried, tmp_path, monkeypatch
):
    complete = Claims.complete
    async with cluster_with(tmp_path) as cluster:
        await cluster.add("node-1", "a")
        await cluster.settle()
        node = cluster.nodes["node-1"]
        node.kill()

        async def completed_and_removed(claims, cidr, confirmed):
            monkeypatch.setattr(Claims, "complete", complete)
            block = await complete(claims, cidr, confirmed)
            await cluster.remove("BlockAffinity", CLAIM)
            while node.cluster.claims_of("node-1"):
                await asyncio.sleep(0)
            return block

        monkeypatch.setattr(Claims, "complete", completed_and_removed)
        await cluster.start_all()
        await cluster.add("node-1", "b")
        assert "b" in cluster.held
        await cluster.settle()
