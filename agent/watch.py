# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Watch caches: the parts of the cluster's state that pool choice and routes need, without asking on the hot path."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar

from .._kube.errors import ApiError, Unreachable
from .api import Client
from .backoff import Backoff

_FORBIDDEN, _NOT_FOUND, _GONE = 403, 404, 410
# How often a kind is looked for that the cluster may come to serve later.
OPTIONAL_SECONDS = 60.0

log = logging.getLogger(__name__)

T = TypeVar("T")


class Reflector(Generic[T]):
    """A collection's objects by name, kept equal to the API server's.

    List, then watch from the list's version; a version that the server has forgotten (410) means list again. `decode`
    turns an object into what is kept. A malformed one, at which it fails, is reported and left out. `on_change` is
    called with (name, old, new) after each change; old or new is None where there was or is no object. A kind that is
    `optional` has no objects as long as the API server does not serve it.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        *,
        decode: Callable[[dict], T],
        query: dict[str, str] | None = None,
        on_change: Callable[[str, T | None, T | None], None] | None = None,
        optional: bool = False,
    ):
        self._client = client
        self._path = path
        self._query = query
        self._decode = decode
        self._on_change = on_change
        self._optional = optional
        self._items: dict[str, T] = {}
        self.synced = asyncio.Event()

    @property
    def items(self) -> Mapping[str, T]:
        """What is known now, by name; complete once `synced` is set."""
        return self._items

    async def run(self) -> None:
        """Keep the collection up to date until cancelled."""
        backoff = Backoff()
        version = None
        while True:
            try:
                if version is None:
                    version = await self._relist()
                async for event in self._client.watch(self._path, version, self._query):
                    version = self._apply(event)
                    backoff.reset()
            except ApiError as error:
                retry_after = error.retry_after
                if error.status == _GONE:
                    version = None
                    continue
                if self._optional and error.status in (_FORBIDDEN, _NOT_FOUND):
                    version = await self._do_without(error.status)
                    continue
                log.warning("watch of %s: %s", self._path, error)
            except Unreachable as error:
                retry_after = error.retry_after
                log.warning("watch of %s: %s", self._path, error)
            else:
                continue
            await backoff.pause(retry_after)

    async def _relist(self) -> str:
        names, version = await self._client.list(self._path, self._query, self._update)
        self._keep_only(names)
        self.synced.set()
        return version

    async def _do_without(self, status: int) -> None:
        """Wait until an optional kind may be served. One that must not be read any more is as it was read last."""
        if status == _NOT_FOUND:
            self._keep_only(())
        self.synced.set()
        await asyncio.sleep(OPTIONAL_SECONDS)

    def _keep_only(self, names: Iterable[str]) -> None:
        for name in self._items.keys() - set(names):
            self._set(name, None)

    def _apply(self, event: dict) -> str:
        obj = event["object"]
        if event["type"] == "ERROR":
            raise ApiError("WATCH", self._path, obj.get("code"), obj.get("reason"), obj.get("message"))
        if event["type"] == "DELETED":
            self._set(obj["metadata"]["name"], None)
        elif event["type"] != "BOOKMARK":
            self._update(obj)
        return obj["metadata"]["resourceVersion"]

    def _update(self, obj: dict) -> str:
        """Keep an object, and return its name."""
        name = obj["metadata"]["name"]
        try:
            decoded = self._decode(obj)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            log.warning("%s of %s is ignored: %r", name, self._path, error)
            decoded = None
        self._set(name, decoded)
        return name

    def _set(self, name: str, new: T | None) -> None:
        old = self._items.pop(name, None)
        if new is not None:
            self._items[name] = new
        if self._on_change is not None and old != new:
            self._on_change(name, old, new)
