# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""A datastore of this machine's own in place of an API server, for runtimes outside of a cluster.

It has the verbs of `api.Client` and keeps those promises of an API server on which the agent builds: compare-and-swap
by resourceVersion, deletion by uid, and watches that miss nothing. Calico's objects are rows of an SQLite file; so are
the declared ones, which are brought to what the pools file says (pools_file.py) at start and whenever it is told to.

It is not the store (store.py) although both are files: the store may be lost, for the datastore knows what is held.
Without the datastore nobody does, so a damaged one keeps the agent from starting.

One process writes, and nothing here awaits: a write is a commit of well under a millisecond.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from .._kube.calico import V1
from .._kube.errors import AlreadyExists, ApiError, Conflict, NotFound, Unreachable
from . import codec
from .pools_file import read_pools_file
from .sqlite import StoreError, connect, transaction

_NAMESPACES = "/api/v1/namespaces/"
_GONE = 410

log = logging.getLogger(__name__)

T = TypeVar("T")


class Change(NamedTuple):
    """A write: the `event` that watchers see (ADDED, MODIFIED, DELETED), the collection's path, and the object."""

    event: str
    collection: str
    obj: dict


class LocalDatastore:
    """Objects by collection and name. Of Kubernetes' own kinds there are none, but any namespace is there if asked for.

    Unreachable from any method means that nothing of that call was stored.
    """

    knows_pods = False

    def __init__(self, path: Path, pools_file: Path):
        """Open the file, or make it, and read the pools file.

        A bad pools file is reported, and what the last good one said stays in force. Without such a one: ValueError or
        OSError. StoreError when the datastore cannot be used.
        """
        self.name = f"the datastore {path}"
        self._pools_file = pools_file
        self._failing_since: float | None = None
        self._connection = self._open(path)
        [[self._version]] = self._connection.execute("SELECT coalesce(max(version), 0) FROM objects").fetchall()
        # The version of each collection's last change, and who is told of the next ones.
        self._changed: defaultdict[str, int] = defaultdict(int)
        self._watchers: defaultdict[str, set[asyncio.Queue[dict]]] = defaultdict(set)
        try:
            self._declare()
        except (OSError, ValueError) as error:
            if not self._items(V1.path("IPPool")):
                self._connection.close()
                raise
            log.error("%s; what the last good file declared stays in force", error)

    @property
    def seconds_away(self) -> float:
        """For how long the file could not be used; 0 when the last call could."""
        return 0.0 if self._failing_since is None else time.monotonic() - self._failing_since

    async def close(self) -> None:
        self._connection.close()

    def reload(self) -> None:
        """Read the pools file again. A bad one is reported and changes nothing."""
        try:
            self._declare()
        except (OSError, ValueError, Unreachable) as error:
            log.error("%s; what the last good file declared stays in force", error)

    async def get(self, path: str) -> dict:
        if path == f"/apis/{V1.group_version}":
            return {"resources": [{"name": "ippools"}]}
        if path.startswith(_NAMESPACES) and "/" not in path.removeprefix(_NAMESPACES):
            return {"metadata": {"name": path.removeprefix(_NAMESPACES)}}
        return self._find("GET", path)

    async def create(self, path: str, obj: dict) -> dict:
        name = obj["metadata"]["name"]
        if self._look_up(path, name) is not None:
            raise AlreadyExists("POST", path, 409, "AlreadyExists", f"{name} already exists")
        return self._commit(_added(path, obj))[0]

    async def replace(self, path: str, obj: dict) -> dict:
        """Under compare-and-swap: `obj` carries the resourceVersion that it was read with."""
        before = self._find("PUT", path)
        if obj["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]:
            raise Conflict("PUT", path, 409, "Conflict", "the object has been modified")
        return self._commit(_modified(_split(path)[0], before, obj))[0]

    async def delete(self, path: str, uid: str) -> None:
        """Delete the very object with this uid, not a newer one of the same name."""
        found = self._find("DELETE", path)
        if found["metadata"]["uid"] != uid:
            raise Conflict("DELETE", path, 409, "Conflict", f"the uid is {found['metadata']['uid']}, not {uid}")
        self._commit(Change("DELETED", _split(path)[0], found))

    async def list(
        self, path: str, query: dict[str, str] | None = None, keep: Callable[[dict], T] = lambda obj: obj
    ) -> tuple[list[T], str]:
        """What `keep` makes of all objects of a collection, and the resourceVersion to watch from."""
        return [keep(obj) for obj in self._items(path)], str(self._version)

    async def watch(self, path: str, version: str, query: dict[str, str] | None = None) -> AsyncIterator[dict]:
        """Events since `version`. ApiError 410 when there have been some before this was called: list again."""
        if self._changed[path] > int(version):
            raise ApiError("WATCH", path, _GONE, "Expired", f"version {version} is too old")
        events: asyncio.Queue[dict] = asyncio.Queue()
        self._watchers[path].add(events)
        try:
            while True:
                yield await events.get()
        finally:
            self._watchers[path].discard(events)

    @staticmethod
    def _open(path: Path) -> sqlite3.Connection:
        try:
            connection = connect(path)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"the datastore is damaged ({error}), and what containers hold is not known any more: end all of them,"
                f" remove {path}* and the agent's store, then start the agent again"
            ) from error
        connection.execute(
            "CREATE TABLE IF NOT EXISTS objects (collection TEXT, name TEXT, version INTEGER, body BLOB,"
            " PRIMARY KEY (collection, name)) WITHOUT ROWID"
        )
        return connection

    def _declare(self) -> None:
        """Bring the declared kinds to what the pools file says, all of them or none."""
        blocks = [block["spec"]["cidr"] for block in self._items(V1.path("IPAMBlock"))]
        changes: list[Change] = []
        for kind, objects in read_pools_file(self._pools_file, blocks).items():
            collection = V1.path(kind)
            present = {obj["metadata"]["name"]: obj for obj in self._items(collection)}
            for obj in objects:
                before = present.pop(obj["metadata"]["name"], None)
                if before is None:
                    changes.append(_added(collection, obj))
                elif before["spec"] != obj["spec"]:
                    changes.append(_modified(collection, before, obj))
            changes += (Change("DELETED", collection, gone) for gone in present.values())
        self._commit(*changes)
        log.info("%s: %s changes of what is declared", self._pools_file, len(changes))

    def _find(self, method: str, path: str) -> dict:
        found = self._look_up(*_split(path))
        if found is None:
            raise NotFound(method, path, 404, "NotFound", "there is no such object")
        return found

    def _look_up(self, collection: str, name: str) -> dict | None:
        rows = self._read("SELECT body FROM objects WHERE collection = ? AND name = ?", collection, name)
        return codec.decode(rows[0][0]) if rows else None

    def _items(self, collection: str) -> list[dict]:
        rows = self._read("SELECT body FROM objects WHERE collection = ? ORDER BY name", collection)
        return [codec.decode(body) for (body,) in rows]

    def _read(self, query: str, *values: str) -> list[tuple]:
        with self._watched():
            return self._connection.execute(query, values).fetchall()

    def _commit(self, *changes: Change) -> list[dict]:
        """Store the changes, all of them or none, tell who watches, and return the objects as stored."""
        with self._watched(), transaction(self._connection):
            stored = [self._write(change) for change in changes]
        for change, obj in zip(changes, stored, strict=True):
            self._changed[change.collection] = self._version
            for events in self._watchers[change.collection]:
                events.put_nowait({"type": change.event, "object": obj})
        return stored

    def _write(self, change: Change) -> dict:
        self._version += 1
        metadata = {**change.obj["metadata"], "resourceVersion": str(self._version)}
        stored = {**change.obj, "metadata": metadata}
        key = (change.collection, metadata["name"])
        if change.event == "DELETED":
            self._connection.execute("DELETE FROM objects WHERE collection = ? AND name = ?", key)
        else:
            row = (*key, self._version, codec.encode(stored))
            self._connection.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?)", row)
        return stored

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Turns what SQLite refuses into Unreachable, upon which callers try again."""
        try:
            yield
        except StoreError as error:
            self._failing_since = self._failing_since or time.monotonic()
            raise Unreachable(f"{self.name} cannot be used: {error}") from error
        self._failing_since = None


def _added(collection: str, obj: dict) -> Change:
    return Change("ADDED", collection, {**obj, "metadata": {**obj["metadata"], "uid": str(uuid.uuid4())}})


def _modified(collection: str, before: dict, obj: dict) -> Change:
    return Change("MODIFIED", collection, {**obj, "metadata": {**obj["metadata"], "uid": before["metadata"]["uid"]}})


def _split(path: str) -> tuple[str, str]:
    """A path's collection and name."""
    collection, _slash, name = path.rpartition("/")
    return collection, name
