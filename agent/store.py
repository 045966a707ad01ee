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
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from .resting import FOR_NOBODY, Keep
from .sqlite import connect, transaction

HELD, RELEASED = "held", "released"
# What brings a file of each earlier version, an empty one first, to the next one.
_SCHEMA_STEPS = (
    (
        "CREATE TABLE attachments (handle TEXT, block TEXT, ordinal INTEGER, secondary TEXT, state TEXT,"
        " PRIMARY KEY (handle, block)) WITHOUT ROWID",
    ),
    (
        "ALTER TABLE attachments ADD COLUMN netns TEXT NOT NULL DEFAULT ''",
        "CREATE TABLE resting (block TEXT, ordinal INTEGER, until REAL, PRIMARY KEY (block, ordinal)) WITHOUT ROWID",
    ),
    (
        "ALTER TABLE attachments ADD COLUMN keep_pod TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE attachments ADD COLUMN keep_seconds REAL NOT NULL DEFAULT 0",
        "ALTER TABLE resting ADD COLUMN pod TEXT NOT NULL DEFAULT ''",
    ),
)
# A table that is there as long as the first start with a file has not got to its end. Earlier versions do well with it,
# and their files, which have none, count as begun.
_FIRST_START = "first_start"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """An address of an attachment: held, or released but perhaps not yet at the API server.

    `netns` is the path of the attachment's network namespace, empty where the runtime named none. `keep`: whom the
    address is kept for once it is released.
    """

    handle: str
    block: str
    ordinal: int
    secondary: dict[str, str]
    state: str
    netns: str
    keep: Keep


class Store:
    """Rows by handle. StoreError from any method means that nothing of that call was recorded."""

    def __init__(self, path: Path):
        """Open the file, or make it. A damaged one is moved aside and reported: the API server knows nearly all.

        OSError when the folder does not exist or cannot be written.
        """
        self._path = path
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
            self._connection = self._open()

    def close(self) -> None:
        self._connection.close()

    @property
    def is_new(self) -> bool:
        """Whether no start has got to its end with this file, so that only others know what this node holds."""
        query = "SELECT 1 FROM sqlite_master WHERE name = ?"
        return bool(self._connection.execute(query, (_FIRST_START,)).fetchall())

    def end_first_start(self) -> None:
        """Record that what others know of this node is held now."""
        self._connection.execute(f"DROP TABLE IF EXISTS {_FIRST_START}")

    @property
    def changes(self) -> int:
        """How many rows were written since the file was opened."""
        return self._connection.total_changes

    def checkpoint(self) -> None:
        """Bring the write-ahead log into the file itself. It waits for the disk: not for the thread that writes."""
        with closing(sqlite3.connect(self._path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def rows(self) -> Iterator[Row]:
        """What is recorded, the released ones first: an address of theirs may be held by another handle since."""
        columns = "handle, block, ordinal, secondary, state, netns, keep_pod, keep_seconds"
        for *key, secondary, state, netns, pod, seconds in self._connection.execute(
            f"SELECT {columns} FROM attachments ORDER BY state = ?, handle, block", (HELD,)
        ):
            yield Row(*key, json.loads(secondary), state, netns, Keep(pod, seconds))

    def hold(
        self,
        handle: str,
        addresses: Sequence[tuple[str, int]],
        secondary: dict[str, str],
        netns: str = "",
        keep: Keep = FOR_NOBODY,
    ) -> None:
        """Record that `handle` holds the (block, ordinal) pairs, and nothing else; they rest no longer.

        Of several in a block, which only another plugin's attachment has, there is one row: the block itself has them.
        Whoever had them before has released them, even where that could not be recorded.
        """
        encoded = json.dumps(secondary)
        rows = [(handle, *address, encoded, HELD, netns, keep.pod, keep.seconds) for address in addresses]
        with transaction(self._connection):
            self._connection.execute("DELETE FROM attachments WHERE handle = ?", (handle,))
            self._connection.executemany(
                f"UPDATE attachments SET state = '{RELEASED}' WHERE block = ? AND ordinal = ?", addresses
            )
            self._connection.executemany("INSERT OR IGNORE INTO attachments VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            self._connection.executemany("DELETE FROM resting WHERE block = ? AND ordinal = ?", addresses)

    def rows_of(self, handle: str) -> list[tuple[str, int, str]]:
        """(block, ordinal, state) of what is recorded of `handle`."""
        query = "SELECT block, ordinal, state FROM attachments WHERE handle = ?"
        return self._connection.execute(query, (handle,)).fetchall()

    def release(self, handle: str, addresses: Sequence[tuple[str, int]] = (), rest: float = 0) -> None:
        """Record that whatever `handle` holds is free, and has to be freed at the API server.

        That is what is recorded of it and the (block, ordinal) pairs, which need not be. For `rest` seconds from now,
        or as long as they are kept for a pod if that is longer, its addresses are not to be given out again.
        """
        now = time.time()
        with transaction(self._connection):
            self._connection.execute("DELETE FROM resting WHERE until < ?", (now,))
            if rest:
                until = [(*address, now + rest) for address in addresses]
                self._connection.executemany("INSERT OR REPLACE INTO resting VALUES (?, ?, ?, '')", until)
            self._connection.execute(
                "INSERT OR REPLACE INTO resting SELECT block, ordinal, ? + max(?, keep_seconds), keep_pod"
                " FROM attachments WHERE handle = ? AND state = ? AND max(?, keep_seconds) > 0",
                (now, rest, handle, HELD, rest),
            )
            rows = [(handle, *address, "{}", RELEASED) for address in addresses]
            columns = "handle, block, ordinal, secondary, state"
            self._connection.executemany(f"INSERT OR IGNORE INTO attachments ({columns}) VALUES (?, ?, ?, ?, ?)", rows)
            self._connection.execute("UPDATE attachments SET state = ? WHERE handle = ?", (RELEASED, handle))

    def resting(self) -> list[tuple[str, int, Keep]]:
        """(block, ordinal, for whom and for how long from now) of the addresses that still rest.

        A clock that jumped back makes it longer.
        """
        now = time.time()
        query = "SELECT block, ordinal, until, pod FROM resting WHERE until > ?"
        rows = self._connection.execute(query, (now,))
        return [(block, ordinal, Keep(pod, until - now)) for block, ordinal, until, pod in rows]

    def forget(self, handle: str, held_anew: bool) -> None:
        """Drop what was released, once the API server knows. Where `held_anew`, only what is recorded as released."""
        with transaction(self._connection):
            query = "DELETE FROM attachments WHERE handle = ? AND (state = ? OR NOT ?)"
            self._connection.execute(query, (handle, RELEASED, held_anew))

    def _open(self) -> sqlite3.Connection:
        connection = connect(self._path)
        try:
            [[version]] = connection.execute("PRAGMA user_version").fetchall()
            if version > len(_SCHEMA_STEPS):
                raise sqlite3.DatabaseError(f"schema {version} is newer than the supported {len(_SCHEMA_STEPS)}")
            with transaction(connection):
                if not version:
                    connection.execute(f"CREATE TABLE {_FIRST_START} (unfinished INTEGER)")
                for statement in chain.from_iterable(_SCHEMA_STEPS[version:]):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {len(_SCHEMA_STEPS)}")
                # Earlier versions do well with and without it, so that it is none of the steps.
                connection.execute("CREATE INDEX IF NOT EXISTS by_address ON attachments (block, ordinal)")
        except BaseException:
            connection.close()
            raise
        # SQLite would have some commits write the log into the file, and a pod wait for it: see `checkpoint`.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        return connection
