# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""The node's own record of its attachments, so that an answer need not wait for the API server.

An address counts as given when its row is committed here, and as taken back when the row says so; the API server
follows (ipam.py).

Bitmaps and blocks are not kept here: they are read from the API server, and these rows are applied to them.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .sqlite import connect, transaction

HELD, RELEASED = "held", "released"
_SCHEMA = 2

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """An address of an attachment: held, or released but perhaps not yet at the API server.

    `netns` is the path of the attachment's network namespace, empty where the runtime named none.
    """

    handle: str
    block: str
    ordinal: int
    secondary: dict[str, str]
    state: str
    netns: str


class Store:
    """Rows by handle. StoreError from any method means that nothing of that call was recorded."""

    def __init__(self, path: Path):
        """Open the file, or make it. A damaged one is moved aside and reported: the API server knows nearly all.

        OSError when the folder does not exist or cannot be written.
        """
        self._path = path
        # Whether it starts without a record, so that only the API server knows what this node holds.
        self.is_new = not path.exists()
        try:
            self._connection = self._open()
        except sqlite3.OperationalError:  # a full disk or a lock, which an empty file would not mend
            raise
        except sqlite3.DatabaseError as error:
            aside = path.with_name(f"{path.name}.damaged")
            log.error("the store is damaged (%s): moved to %s, starting with an empty one", error, aside)
            path.rename(aside)
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            self.is_new = True
            self._connection = self._open()

    def close(self) -> None:
        self._connection.close()

    def rows(self) -> Iterator[Row]:
        query = "SELECT handle, block, ordinal, secondary, state, netns FROM attachments ORDER BY handle, block"
        for handle, block, ordinal, secondary, state, netns in self._connection.execute(query):
            yield Row(handle, block, ordinal, json.loads(secondary), state, netns)

    def hold(
        self, handle: str, addresses: Iterable[tuple[str, int]], secondary: dict[str, str], netns: str = ""
    ) -> None:
        """Record that `handle` holds the (block, ordinal) pairs, and nothing else."""
        encoded = json.dumps(secondary)
        rows = [(handle, block, ordinal, encoded, HELD, netns) for block, ordinal in addresses]
        with transaction(self._connection):
            self._connection.execute("DELETE FROM attachments WHERE handle = ?", (handle,))
            self._connection.executemany("INSERT INTO attachments VALUES (?, ?, ?, ?, ?, ?)", rows)

    def move(self, handle: str, netns: str) -> None:
        """Record that the attachment's network namespace is another one now."""
        with transaction(self._connection):
            self._connection.execute("UPDATE attachments SET netns = ? WHERE handle = ?", (netns, handle))

    def release(self, handle: str, rest: float = 0) -> None:
        """Record that whatever `handle` holds is free, and has to be freed at the API server.

        For `rest` seconds from now its addresses are not to be given out again.
        """
        with transaction(self._connection):
            if rest:
                self._connection.execute("DELETE FROM resting WHERE until < ?", (time.time(),))
                query = "INSERT OR REPLACE INTO resting SELECT block, ordinal, ? FROM attachments WHERE handle = ?"
                self._connection.execute(query, (time.time() + rest, handle))
            self._connection.execute("UPDATE attachments SET state = ? WHERE handle = ?", (RELEASED, handle))

    def resting(self) -> list[tuple[str, int, float]]:
        """(block, ordinal, seconds that are left) of the addresses that still rest; more seconds if clocks jumped."""
        now = time.time()
        query = "SELECT block, ordinal, until FROM resting WHERE until > ?"
        return [(block, ordinal, until - now) for block, ordinal, until in self._connection.execute(query, (now,))]

    def forget(self, handle: str) -> None:
        """Drop what was released, once the API server knows. A row held anew stays."""
        with transaction(self._connection):
            query = "DELETE FROM attachments WHERE handle = ? AND state = ?"
            self._connection.execute(query, (handle, RELEASED))

    def _open(self) -> sqlite3.Connection:
        connection = connect(self._path)
        try:
            [[version]] = connection.execute("PRAGMA user_version").fetchall()
            if version not in (0, 1, _SCHEMA):
                raise sqlite3.DatabaseError(f"schema {version} is not the supported {_SCHEMA}")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS attachments (handle TEXT, block TEXT, ordinal INTEGER, secondary TEXT,"
                " state TEXT, netns TEXT NOT NULL DEFAULT '', PRIMARY KEY (handle, block)) WITHOUT ROWID"
            )
            connection.execute(
                "CREATE TABLE IF NOT EXISTS resting (block TEXT, ordinal INTEGER, until REAL,"
                " PRIMARY KEY (block, ordinal)) WITHOUT ROWID"
            )
            if version == 1:
                connection.execute("ALTER TABLE attachments ADD COLUMN netns TEXT NOT NULL DEFAULT ''")
            connection.execute(f"PRAGMA user_version = {_SCHEMA}")
        except BaseException:
            connection.close()
            raise
        return connection
