# SPDX-License-Identifier: Apache-2.0
"""What other plugins have given out is never given again: each address of each attachment, and however starts end."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, closing
from itertools import chain

import pytest
from podnet_ipam._core.names import cidr_name
from podnet_ipam.agent import running, store
from podnet_ipam.agent.sqlite import connect
from podnet_ipam.agent.store import Store
from support.simulated_cluster import SimulatedCluster
from support.simulated_nodes import DEATH_AFTER, DEATH_BEFORE

POOLS = '[[pools]]\nname = "main"\ncidr = "10.0.0.0/29"\nblock_size = 30\n'
NODE = "node-1"


@asynccontextmanager
async def one_node(folder, network="net"):
    async with SimulatedCluster(folder, [NODE], POOLS) as cluster:
        node = cluster.nodes[NODE]
        node.network = network
        yield cluster, node


async def given(cluster, count):
    """The addresses that so many new containers get."""
    for number in range(count):
        await cluster.add(NODE, f"new-{number}")
    return {address for _node, addresses in cluster.held.values() for address in addresses}


async def quiet(cluster):
    """Let what was taken over be stored, and a node that dies of it start again."""
    node = cluster.nodes[NODE]
    async with asyncio.timeout(10):
        while node.is_up and node.ipam.unsettled:
            await asyncio.sleep(0.001)
    await cluster.start_all()


def forget_everything(folder):
    for file in folder.glob(f"{NODE}.sqlite*"):
        file.unlink()


@pytest.mark.parametrize("writes", range(6))
@pytest.mark.parametrize("death", (DEATH_BEFORE, DEATH_AFTER))
async def test_a_first_start_that_does_not_finish_is_followed_by_another_first_start(hurried, tmp_path, writes, death):
    async with one_node(tmp_path, network="") as (cluster, node):
        node.record("old-1", "10.0.0.0", network="former")
        node.record("old-2", "10.0.0.5", network="former")
        node.faults_at_start.extend([None] * writes + [death])
        await cluster.start_all()
        await quiet(cluster)
        assert await given(cluster, 6) == {"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.6", "10.0.0.7"}


async def test_a_start_that_is_not_the_first_looks_for_nothing_where_the_network_is_not_known(hurried, tmp_path):
    async with one_node(tmp_path, network="") as (cluster, node):
        await cluster.start_all()
        node.record("old", "10.0.0.0", network="former")
        node.kill()
        await cluster.start_all()
        assert not node.ipam.attachments
        node.kill()
        forget_everything(tmp_path)
        await cluster.start_all()
        assert node.ipam.holding("former.old")


@pytest.mark.parametrize("version", (1, 2, 3))
def test_a_store_of_an_earlier_version_has_had_its_first_start(tmp_path, version):
    path = tmp_path / "store.sqlite"
    with closing(connect(path)) as connection:
        for statement in chain.from_iterable(store._SCHEMA_STEPS[:version]):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {version}")
    opened = Store(path)
    assert not opened.is_new
    opened.close()


@pytest.mark.parametrize("content", (None, b"", b"this is no database" * 100))
def test_a_store_is_new_until_a_start_has_got_to_its_end(tmp_path, content):
    path = tmp_path / "store.sqlite"
    if content is not None:
        path.write_bytes(content)
    for _start in range(2):
        opened = Store(path)
        assert opened.is_new
        opened.close()
    opened = Store(path)
    opened.end_first_start()
    assert not opened.is_new
    opened.close()


@pytest.fixture(params=("at the start", "while the agent runs"))
def taken_over(request, monkeypatch):
    """Has a node take over what other plugins have left records of; `record` leaves them."""
    monkeypatch.setattr(running, "LOOK_SECONDS", 0.0)

    async def take_over(cluster, record):
        if request.param == "at the start":
            record()
        await cluster.start_all()
        record()
        await cluster.add(NODE, "first")

    return take_over


# What each of a container's records says: network, interface and addresses.
TWO_NETWORKS = (("former", "eth0", "10.0.0.0"), ("storage", "net1", "10.0.0.1"))
TWO_INTERFACES = (("former", "eth0", "10.0.0.0"), ("former", "net1", "10.0.0.1"))
TWO_ADDRESSES = (("former", "eth0", "10.0.0.0", "10.0.0.1"),)
TWO_ADDRESSES_AND_ANOTHER = (*TWO_ADDRESSES, ("storage", "net1", "10.0.0.4", "10.0.0.3"))
ATTACHMENTS = (TWO_NETWORKS, TWO_INTERFACES, TWO_ADDRESSES, TWO_ADDRESSES_AND_ANOTHER)


def addresses_of(attachments):
    return {address for _network, _interface, *addresses in attachments for address in addresses}


def addresses_held(node):
    return {address.address for attachment in node.ipam.attachments.values() for address in attachment.addresses}


async def allocated(cluster):
    """{address: handle} at the datastore."""
    return (await cluster._state())[0]


def recorder(node, attachments):
    def record():
        for network, interface, *addresses in attachments:
            node.record("old", *addresses, network=network, interface=interface)

    return record


@pytest.mark.parametrize("attachments", ATTACHMENTS)
@pytest.mark.parametrize("again", (False, True))
async def test_every_address_of_a_container_that_another_plugin_has_served_is_held(
    hurried, tmp_path, taken_over, attachments, again
):
    async with one_node(tmp_path) as (cluster, node):
        await taken_over(cluster, recorder(node, attachments))
        if again:
            await quiet(cluster)
            node.kill()
            await cluster.start_all()
        used = addresses_of(attachments)
        assert addresses_held(node) == used | cluster.held["first"][1]
        assert not used & await given(cluster, 7 - len(used))
        await quiet(cluster)
        assert (await allocated(cluster)).keys() >= used


@pytest.mark.parametrize("attachments", ATTACHMENTS)
async def test_nothing_is_left_of_a_container_that_another_plugin_has_served(
    hurried, tmp_path, taken_over, attachments
):
    """Its DEL comes under the name of the network of today; what has no such DEL is found to have vanished."""
    async with one_node(tmp_path) as (cluster, node):
        await taken_over(cluster, recorder(node, attachments))
        await node.delete("old")
        assert not node.ipam.holding("net.old")
        async with asyncio.timeout(10):
            while addresses_held(node) != cluster.held["first"][1]:
                await node.look_for_vanished()
        await cluster.settle()


async def test_two_addresses_in_a_block_that_somebody_deletes_are_both_in_it_again(hurried, tmp_path):
    async with one_node(tmp_path) as (cluster, node):
        recorder(node, TWO_ADDRESSES)()
        await cluster.start_all()
        await quiet(cluster)
        await cluster.remove("IPAMBlock", cidr_name("10.0.0.0/30"))
        await cluster.add(NODE, "first")
        await quiet(cluster)
        assert (await allocated(cluster)).keys() == {"10.0.0.0", "10.0.0.1", *cluster.held["first"][1]}


async def test_a_handle_says_how_many_addresses_it_has_in_a_block(hurried, tmp_path):
    """Calico takes as many off as it frees, and refuses to free more than that."""
    async with one_node(tmp_path) as (cluster, node):
        node.record("old", "10.0.0.0", network="former")
        await cluster.start_all()
        await quiet(cluster)
        node.record("old", "10.0.0.0", "10.0.0.1", "10.0.0.5", network="former")
        node.kill()
        await cluster.start_all()
        await quiet(cluster)
        [handle] = await cluster._stored("IPAMHandle")
        assert handle["spec"]["handleID"] == "net.old"
        assert handle["spec"]["block"] == {"10.0.0.0/30": 2, "10.0.0.4/30": 1}
