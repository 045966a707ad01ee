# SPDX-License-Identifier: Apache-2.0
"""An address rests that somebody has had, and no other: whatever was lost, and whatever has failed."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from podnet_ipam._core.block import COOLING
from podnet_ipam.agent import mirror
from podnet_ipam.agent.errors import CniError
from podnet_ipam.agent.resting import Keep
from podnet_ipam.agent.store import Store
from support.simulated_cluster import SimulatedCluster

ONE_BLOCK = '[[pools]]\nname = "main"\ncidr = "10.0.0.0/30"\nblock_size = 30\n'
NODE = "node-1"


@asynccontextmanager
async def one_node(folder):
    async with SimulatedCluster(folder, [NODE], ONE_BLOCK) as cluster:
        node = cluster.nodes[NODE]
        node.cooldown = 60.0
        await cluster.start_all()
        yield cluster, node


def resting(node):
    return sum(keeper.states.count(COOLING) for keeper in node.ipam.blocks)


async def started_again(cluster):
    cluster.nodes[NODE].kill()
    await cluster.settle()


async def test_an_address_that_only_its_block_knows_of_rests_over_a_restart(hurried, tmp_path):
    async with one_node(tmp_path) as (cluster, node):
        await cluster.add(NODE, "a")
        await cluster.add(NODE, "b")
        await cluster.settle()
        node.kill()
        for file in tmp_path.glob(f"{NODE}.sqlite*"):
            file.unlink()
        await cluster.settle()
        await cluster.delete(NODE, "a")
        await cluster.settle()
        await started_again(cluster)
        assert resting(node) == 1


async def test_an_address_that_nobody_was_told_of_does_not_rest(hurried, tmp_path, monkeypatch):
    monkeypatch.setattr(mirror, "WRITE_SECONDS", 0.02)
    async with one_node(tmp_path) as (cluster, node):
        await cluster.toggle_strictness()
        await cluster.add(NODE, "a")
        await cluster.settle()
        node.client.cut_off = True
        for number in range(5):
            with pytest.raises(CniError, match="not stored"):
                await node.add(f"failing-{number}")
        node.client.cut_off = False
        assert not resting(node)
        await cluster.add(NODE, "b")
        assert "b" in cluster.held
        await cluster.settle()


def test_the_end_of_a_kept_address_is_that_of_its_pod_and_not_of_the_cooldown(tmp_path):
    store = Store(tmp_path / "store.sqlite")
    store.hold("net.a", [("10.0.0.0/30", 1)], {}, keep=Keep("db-0", 600))
    store.release("net.a", [("10.0.0.0/30", 1), ("10.0.0.0/30", 2)], 30)
    kept, other = store.resting()
    assert kept[:2] == ("10.0.0.0/30", 1) and kept[2].pod == "db-0" and 590 < kept[2].seconds <= 600
    assert other[:2] == ("10.0.0.0/30", 2) and not other[2].pod and 20 < other[2].seconds <= 30
    store.close()
