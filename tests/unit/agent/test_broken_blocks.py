# SPDX-License-Identifier: Apache-2.0
"""Blocks that somebody has broken: each is left out and left as it is until it is mended, and all others serve on."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from contextlib import asynccontextmanager

import pytest
from podnet_ipam._core.names import affinity_name, cidr_name
from podnet_ipam._kube.calico import V1
from podnet_ipam.agent import mirror
from podnet_ipam.agent.attachments import LOCAL_FIRST
from podnet_ipam.agent.errors import TRY_AGAIN_LATER, CniError
from support.simulated_cluster import SimulatedCluster

NODES = ("node-1", "node-2")
TWO_BLOCKS = '[[pools]]\nname = "main"\ncidr = "10.0.0.0/29"\nblock_size = 30\n'
BREAKS = {
    "an ordinal that is neither allocated nor free": {"unallocated": []},
    "an attribute that does not exist": {"attributes": []},
    "no network": {"cidr": "10.0.0.0/300"},
}


@asynccontextmanager
async def cluster_with(folder, pools=TWO_BLOCKS, strict=True):
    async with SimulatedCluster(folder, NODES, pools) as cluster:
        if not strict:
            await cluster.toggle_strictness()
        await cluster.start_all()
        yield cluster


async def block_of(cluster, container):
    """The stored block in which a container has its address."""
    node, _addresses = cluster.held[container]
    [held] = cluster.nodes[node].ipam.holding(f"net.{container}")
    return await cluster.datastore.get(V1.path("IPAMBlock", cidr_name(held.block)))


async def write(cluster, block, spec):
    path = V1.path("IPAMBlock", block["metadata"]["name"])
    number = (await cluster.datastore.get(path))["spec"]["sequenceNumber"] + 1
    stored = await cluster.datastore.get(path)
    return await cluster.datastore.replace(path, V1.changed(stored, {**spec, "sequenceNumber": number}))


async def break_block(cluster, block, **how):
    return await write(cluster, block, {**block["spec"], **(how or {"unallocated": []})})


async def mend(cluster, block):
    await write(cluster, block, block["spec"])


async def unchanged(cluster, broken):
    return await cluster.datastore.get(V1.path("IPAMBlock", broken["metadata"]["name"])) == broken


@asynccontextmanager
async def container_on_node_1(folder, strict=True):
    """A cluster in which container `a` runs on node-1, that node, and the container's block as it is stored."""
    async with cluster_with(folder, strict=strict) as cluster:
        await cluster.add("node-1", "a")
        await cluster.settle()
        yield cluster, cluster.nodes["node-1"], await block_of(cluster, "a")


@asynccontextmanager
async def started_with_a_broken_block(folder, strict=True):
    """The same, but the node has started again since the block broke."""
    async with container_on_node_1(folder, strict) as (cluster, node, block):
        node.kill()
        await break_block(cluster, block)
        await cluster.start_all()
        yield cluster, node, block


@pytest.mark.parametrize("how", BREAKS.values(), ids=BREAKS.keys())
async def test_a_node_that_has_a_broken_block_starts_and_serves_out_of_the_next_one(hurried, tmp_path, how):
    async with container_on_node_1(tmp_path) as (cluster, node, block):
        node.kill()
        broken = await break_block(cluster, block, **how)
        await cluster.start_all()
        await cluster.add("node-1", "b")
        assert "b" in cluster.held
        assert await unchanged(cluster, broken)
        await mend(cluster, block)
        await cluster.settle()


async def test_a_claim_on_a_broken_block_that_is_not_confirmed_yet_stays_as_it_is(hurried, tmp_path):
    async with container_on_node_1(tmp_path) as (cluster, node, block):
        node.kill()
        path = V1.path("BlockAffinity", affinity_name("node-1", block["spec"]["cidr"]))
        claim = await cluster.datastore.get(path)
        pending = V1.changed(claim, {**claim["spec"], "state": "pending"})
        pending = await cluster.datastore.replace(path, pending)
        broken = await break_block(cluster, block)
        await cluster.start_all()
        await cluster.add("node-1", "b")
        assert "b" in cluster.held
        assert await cluster.datastore.get(path) == pending and await unchanged(cluster, broken)
        await mend(cluster, block)
        await cluster.settle()


@pytest.mark.parametrize("strict", (True, False))
async def test_who_asks_for_an_address_of_a_broken_block_is_told_so(hurried, tmp_path, strict):
    async with started_with_a_broken_block(tmp_path, strict=strict) as (cluster, node, block):
        address = str(ipaddress.ip_network(block["spec"]["cidr"])[3])
        with pytest.raises(CniError, match="is broken, and is left out until somebody mends it") as failure:
            await node.assign("b", address)
        assert failure.value.code == TRY_AGAIN_LATER
        await mend(cluster, block)
        assert (await node.assign("b", address)).addresses[0].address == address


async def test_a_broken_block_is_named_with_what_is_wrong(hurried, tmp_path, caplog):
    async with container_on_node_1(tmp_path) as (cluster, node, block):
        node.kill()
        await break_block(cluster, block)
        logging.disable(logging.NOTSET)
        await cluster.start_all()
        name = block["metadata"]["name"]
        [message] = [record.getMessage() for record in caplog.records if f"block {name}" in record.getMessage()]
        assert message == (
            f"block {name} is broken, and is left out until somebody mends it:"
            " each ordinal must be either allocated or in unallocated, once"
        )


async def test_a_container_in_a_broken_block_keeps_its_address_and_ends_once_the_block_is_mended(hurried, tmp_path):
    async with started_with_a_broken_block(tmp_path) as (cluster, node, block):
        # The same address, or the cluster says so.
        await cluster.add("node-1", "a")
        with pytest.raises(CniError, match="is broken, and is left out until somebody mends it") as failure:
            await node.delete("a")
        assert failure.value.code == TRY_AGAIN_LATER
        await mend(cluster, block)
        await cluster.delete("node-1", "a")
        assert not cluster.open
        await cluster.settle()


async def test_what_a_node_without_records_held_in_a_broken_block_ends_once_it_is_mended(hurried, tmp_path):
    async with container_on_node_1(tmp_path) as (cluster, node, block):
        node.kill()
        for file in tmp_path.glob("node-1.sqlite*"):
            file.unlink()
        await break_block(cluster, block)
        await cluster.start_all()
        with pytest.raises(CniError) as failure:
            await node.delete("a")
        assert failure.value.code == TRY_AGAIN_LATER
        await mend(cluster, block)
        await cluster.delete("node-1", "a")
        await cluster.settle()


async def test_what_could_not_be_stored_before_a_block_broke_is_stored_once_it_is_mended(hurried, tmp_path):
    async with container_on_node_1(tmp_path) as (cluster, node, block):
        node.client.cut_off = True
        assert (await node.assign("b")).mode == LOCAL_FIRST
        cluster.held["b"] = ("node-1", {held.address for held in node.ipam.holding("net.b")})
        node.kill()
        await break_block(cluster, block)
        await cluster.start_all()
        await mend(cluster, block)
        # More than the other block has room for, so that the mended one is claimed again.
        for number in range(6):
            await cluster.add("node-1", f"c{number}")
        await cluster.settle()


async def test_what_had_ended_before_a_block_broke_is_freed_once_it_is_mended(hurried, tmp_path):
    async with cluster_with(tmp_path) as cluster:
        for container in ("a", "b"):
            await cluster.add("node-1", container)
        await cluster.settle()
        block, node = await block_of(cluster, "a"), cluster.nodes["node-1"]
        node.client.cut_off = True
        await cluster.delete("node-1", "a")
        assert not cluster.open, "its end is recorded, but not stored"
        node.kill()
        await break_block(cluster, block)
        await cluster.start_all()
        assert not node.ipam.holding("net.a")
        await mend(cluster, block)
        await cluster.settle()


async def test_a_block_that_breaks_while_it_is_in_use_gives_nothing_out_until_it_is_mended(
    hurried, tmp_path, monkeypatch
):
    monkeypatch.setattr(mirror, "WRITE_SECONDS", 0.2)
    async with container_on_node_1(tmp_path) as (cluster, node, block):
        broken = await break_block(cluster, block)
        # Answered out of memory. The node learns of it when it stores this one.
        await cluster.add("node-1", "b")
        [keeper] = node.ipam.blocks
        async with asyncio.timeout(10):
            while not keeper.is_broken:
                await asyncio.sleep(0.001)
        await cluster.add("node-1", "c")
        assert (await block_of(cluster, "c"))["metadata"]["name"] != block["metadata"]["name"]
        assert await unchanged(cluster, broken)
        await mend(cluster, block)
        await cluster.settle()
        assert cluster.held.keys() == {"a", "b", "c"}
        assert not keeper.is_broken


async def test_a_broken_block_that_is_looked_at_is_used_again_once_it_is_mended(hurried, tmp_path):
    async with container_on_node_1(tmp_path, strict=False) as (cluster, node, block):
        broken = await break_block(cluster, block)
        [keeper] = node.ipam.blocks
        keeper.refresh(broken)
        assert keeper.room == 0 and not keeper.is_idle
        await mend(cluster, block)
        async with asyncio.timeout(10):
            while not keeper.room:
                await asyncio.sleep(0.001)
        await cluster.settle()


@pytest.mark.parametrize("how", BREAKS.values(), ids=BREAKS.keys())
async def test_a_broken_block_of_another_node_keeps_nobody_from_borrowing_of_the_next_one(hurried, tmp_path, how):
    pools = TWO_BLOCKS.replace("/29", "/28")
    async with cluster_with(tmp_path, pools, strict=False) as cluster:
        for number in range(13):
            await cluster.add("node-2", f"c{number}")
        for container in ("c0", "c4", "c8"):
            await cluster.delete("node-2", container)
        await cluster.settle()
        # The first that anybody would borrow from.
        block = (await cluster.datastore.list(V1.path("IPAMBlock")))[0][0]
        broken = await break_block(cluster, block, **how)
        await cluster.add("node-1", "a")
        assert (await block_of(cluster, "a"))["metadata"]["name"] != block["metadata"]["name"]
        view = await cluster.nodes["node-1"].ipam.blocks.view([next(iter(cluster.held["a"][1]))])
        assert len(view.blocks) == 4
        assert await unchanged(cluster, broken)
        await mend(cluster, block)
        await cluster.settle()


async def test_an_empty_block_of_another_node_that_is_broken_is_not_taken_over(hurried, tmp_path):
    async with cluster_with(tmp_path, TWO_BLOCKS.replace("/29", "/30")) as cluster:
        await cluster.add("node-2", "a")
        block = await block_of(cluster, "a")
        await cluster.delete("node-2", "a")
        await cluster.settle()
        block = await cluster.datastore.get(V1.path("IPAMBlock", block["metadata"]["name"]))
        broken = await break_block(cluster, block)
        with pytest.raises(CniError, match="every other block is in use"):
            await cluster.nodes["node-1"].add("b")
        assert await unchanged(cluster, broken)
        await mend(cluster, block)
        await cluster.add("node-1", "b")
        assert "b" in cluster.held


async def test_containers_of_another_plugin_in_a_broken_block_keep_nobody_from_starting(hurried, tmp_path):
    async with container_on_node_1(tmp_path) as (cluster, node, block):
        node.kill()
        await break_block(cluster, block)
        address = str(ipaddress.ip_network(block["spec"]["cidr"])[3])
        cluster.nodes["node-1"].record("x", address, network="other")
        await cluster.start_all()
        cluster.nodes["node-1"].record("y", address, network="other")
        await cluster.add("node-1", "b")
        assert "b" in cluster.held
        await mend(cluster, block)


async def test_a_vanished_container_in_a_broken_block_keeps_no_other_one_from_being_freed(hurried, tmp_path):
    async with started_with_a_broken_block(tmp_path) as (cluster, node, block):
        await cluster.add("node-1", "b")
        for container in ("a", "b"):
            (tmp_path / f"node-1-{container}.netns").unlink()
        async with asyncio.timeout(10):
            while node.ipam.holding("net.b"):
                await node.look_for_vanished()
        assert node.ipam.holding("net.a")
        await mend(cluster, block)
        async with asyncio.timeout(10):
            while node.ipam.holding("net.a"):
                await node.look_for_vanished()
