# SPDX-License-Identifier: Apache-2.0
"""What a node remembers of other nodes' blocks, of which a cluster has thousands."""

from __future__ import annotations

import asyncio
import weakref
from contextlib import asynccontextmanager

from podnet_ipam._kube.calico import V1
from support.simulated_cluster import SimulatedCluster

NODES = ("node-1", "node-2", "node-3")
# Two blocks, which two nodes have half full.
POOLS = '[[pools]]\nname = "main"\ncidr = "10.0.0.0/29"\nblock_size = 30\n'


class Text(str):
    """A text of which one can tell whether anybody still has it."""


@asynccontextmanager
async def cluster_without_a_free_block(folder):
    async with SimulatedCluster(folder, NODES, POOLS) as cluster:
        await cluster.toggle_strictness()
        await cluster.start_all()
        for node in NODES[:2]:
            for number in range(2):
                await cluster.add(node, f"{node}-{number}")
        await cluster.settle()
        yield cluster


async def test_a_node_that_borrows_keeps_no_block_in_memory_but_the_one_that_it_borrows_from(hurried, tmp_path):
    listed = []

    def noted(block):
        text = Text(block["spec"]["affinityClaimTime"])
        listed.append(weakref.ref(text))
        return {**block, "spec": {**block["spec"], "affinityClaimTime": text}}

    async with cluster_without_a_free_block(tmp_path) as cluster:
        node = cluster.nodes["node-3"]
        lists = node.client.list

        async def listing(path, query=None, keep=lambda obj: obj):
            is_blocks = path == V1.path("IPAMBlock")
            return await lists(path, query, (lambda block: keep(noted(block))) if is_blocks else keep)

        node.client.list = listing
        await cluster.add("node-3", "a")
        assert "a" in cluster.held
        assert len(listed) >= 2 and not any(text() for text in listed)
        assert len(list(node.ipam.blocks)) == 1


async def test_pods_that_wait_together_for_an_address_to_borrow_have_the_blocks_listed_once(hurried, tmp_path):
    async with cluster_without_a_free_block(tmp_path) as cluster:
        node = cluster.nodes["node-3"]
        lists, looks = node.client.list, []

        async def counted(path, query=None, keep=lambda obj: obj):
            looks.append(path)
            return await lists(path, query, keep)

        node.client.list = counted
        async with node.ipam.blocks.claiming:
            starting = [asyncio.create_task(cluster.add("node-3", f"c{number}")) for number in range(4)]
            await asyncio.sleep(0.05)
        await asyncio.gather(*starting)
        assert {f"c{number}" for number in range(4)} <= cluster.held.keys()
        assert looks == [V1.path("IPAMBlock")]
        await cluster.settle()
