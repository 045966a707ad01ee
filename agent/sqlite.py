# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""SQLite files as the agent keeps them.

Write-ahead logging with `synchronous=NORMAL`: a commit survives the death of the process. A power failure may lose the
last ones, but after it no pod of this node is running either.

So a commit waits for no disk, and concurrent requests do not share one: of the 60 us that an ADD's takes, sharing would
save half, and an answer would have to wait for those that come after it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

StoreError = sqlite3.Error
# What is to be written cannot stand beside what is there: that will not pass, as a full disk or a lock may.
IntegrityError = sqlite3.IntegrityError

# For how long a write waits for whoever has locked the file. Nobody should, and meanwhile nobody is answered.
BUSY_MILLISECONDS = 100


def connect(path: Path) -> sqlite3.Connection:
    """Open a file, or make it; each statement is a transaction unless `transaction` says otherwise.

    OSError when the file's folder does not exist. StoreError, which names the file, when it cannot be used:
    OperationalError when something around it is wrong (a full disk, a lock), else the file itself is damaged.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path} cannot be made: its folder does not exist")
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
        [[verdict]] = connection.execute("PRAGMA quick_check(1)").fetchall()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise type(error)(f"{path}: {error}") from error
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All statements within, or, when anything fails, none of them."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
