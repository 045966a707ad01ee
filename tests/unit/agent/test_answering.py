# SPDX-License-Identifier: Apache-2.0
"""What one agent answers while something else is still under way: before it is ready, or of the same container."""

from __future__ import annotations

import asyncio
import gc
import json
from contextlib import asynccontextmanager

import pytest
from podnet_ipam._kube.errors import Unreachable
from podnet_ipam.agent import main
from podnet_ipam.agent.config import AgentConfig
from podnet_ipam.agent.local import LocalDatastore
from podnet_ipam.agent.loop import Busy
from podnet_ipam.agent.main import Agent
from podnet_ipam.agent.protocol import Request
from podnet_ipam.agent.spool import Spool

POOLS = '[[pools]]\nname = "main"\ncidr = "10.0.0.0/24"\nblock_size = 24\n'
CONFIGURATION = json.dumps({"cniVersion": "1.1.0", "name": "net", "ipam": {"type": "podnet-ipam"}}).encode()


class Datastore(LocalDatastore):
    """A datastore that answers what is asked of handles once it is `there`; who asks before is told that it is away."""

    def __init__(self, folder):
        (folder / "pools.toml").write_text(POOLS)
        super().__init__(folder / "datastore.sqlite", folder / "pools.toml")
        self.there = asyncio.Event()
        self.there.set()
        self.asked = asyncio.Event()

    async def get(self, path):
        if "/ipamhandles/" in path and not self.there.is_set():
            self.asked.set()
            await self.there.wait()
            raise Unreachable("nothing gets through")
        return await super().get(path)


class Node:
    """An agent on a datastore of its own, without socket and executable."""

    def __init__(self, folder):
        self.datastore = Datastore(folder)
        files = {name: folder / name for name in ("store", "spool", "results")}
        self.config = AgentConfig("node-1", pools_file=folder / "pools.toml", cooldown=0, **files)
        self.agent = Agent(self.config, self.datastore, Busy())

    async def ask(self, command, container=""):
        """The exit status and the result, {} where there is none."""
        variables = {"CNI_COMMAND": command, "CNI_CONTAINERID": container, "CNI_IFNAME": "eth0", "CNI_NETNS": "/n"}
        answer = await self.agent.answer(Request(variables, CONFIGURATION))
        return answer.status, json.loads(answer.stdout or b"{}")

    @property
    def tombstones(self):
        return list(self.config.spool.iterdir())


@asynccontextmanager
async def working(folder):
    node = Node(folder)
    work = asyncio.create_task(node.agent.work())
    try:
        yield node
    finally:
        await node.agent.finish()
        work.cancel()
        await asyncio.wait({work})
        await node.datastore.close()
        # An agent has its process for itself.
        gc.unfreeze()


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture(autouse=True)
def hurried_spool(monkeypatch):
    monkeypatch.setattr(main, "SPOOL_SECONDS", 0.02)


async def test_a_container_that_starts_while_an_earlier_end_of_it_fails_keeps_its_address(hurried, tmp_path):
    async with working(tmp_path) as node:
        # From here on what is answered need not be stored yet.
        assert (await node.ask("ADD", "first"))[0] == 0
        node.datastore.there.clear()
        ending = asyncio.create_task(node.ask("DEL", "c"))
        await node.datastore.asked.wait()
        starting = asyncio.create_task(node.ask("ADD", "c"))
        await asyncio.sleep(0.01)
        node.datastore.there.set()
        assert (await ending)[0] == 0, "it is carried out later"
        status, answer = await starting
        assert status == 0
        await until(lambda: not node.tombstones)
        assert (await node.ask("ADD", "c"))[1] == answer, "it still has its address"


async def test_a_container_that_ends_while_its_start_is_under_way_holds_nothing_in_the_end(hurried, tmp_path):
    async with working(tmp_path) as node:
        starting = asyncio.create_task(node.ask("ADD", "c"))
        await asyncio.sleep(0)
        assert (await node.ask("DEL", "c"))[0] == 0
        await starting
        await until(lambda: not node.tombstones)
        assert node.agent.insight.status()["attachments"] == 0


async def test_status_says_that_earlier_ends_are_carried_out_first(hurried, tmp_path, monkeypatch):
    monkeypatch.setattr(main, "SPOOL_SECONDS", 10)
    monkeypatch.setattr(main, "STATUS_SECONDS", 0.01)
    Spool(tmp_path / "spool").leave(Request({"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "c"}, CONFIGURATION))
    async with working(tmp_path) as node:
        node.datastore.there.clear()
        await node.datastore.asked.wait()
        status, answer = await node.ask("STATUS")
        assert (status, answer["code"]) == (1, 50)
        assert answer["msg"] == main.EARLIER_ENDS_FIRST
        node.datastore.there.set()
