# SPDX-License-Identifier: Apache-2.0
"""A machine without a cluster: the real agent, with pools from a file and a datastore of its own."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3

from support.plane import AgentNode


class Machine(AgentNode):
    """A machine whose agent declares `pools`, a text. It lists what its datastore holds, as a client does."""

    def __init__(self, folder, pools: str, **config):
        self.pools_file = folder / "pools.toml"
        self.pools_file.write_text(pools)
        super().__init__("machine", folder, pools_file=self.pools_file, **config)

    async def list(self, collection: str) -> tuple[list[dict], str]:
        with sqlite3.connect(f"file:{self.datastore}?mode=ro", uri=True) as reader:
            rows = reader.execute("SELECT body FROM objects WHERE collection = ?", (collection,)).fetchall()
        reader.close()
        return [json.loads(body) for (body,) in rows], ""

    async def declare(self, pools: str, until: str) -> None:
        """Change the pools file, and wait until the agent's log says so."""
        self.pools_file.write_text(pools)
        self.tell(signal.SIGHUP)
        async with asyncio.timeout(10):
            while until not in self.log.read_text():
                await asyncio.sleep(0.02)

    async def call(self, command, container, *, namespace=None, **options):
        """Runtimes outside of a cluster name no pod."""
        return await super().call(command, container, namespace=namespace, **options)
