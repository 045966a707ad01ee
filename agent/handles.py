# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Handles: the reverse index from an attachment to the blocks that hold its addresses.

A handle is written before the block and removed after it, so that a crash leaves a handle too many, never an allocation
without one. What an attachment holds is known, so writing "at least so many" instead of "one more" is right and can be
repeated when an answer was lost. Removal is soft, then hard (Calico: first `deleted: true` under compare-and-swap, then
DELETE by uid).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from .._core.names import handle_name, is_deleted
from .._kube.calico import CalicoApi
from .._kube.errors import AlreadyExists, Conflict, NotFound
from .api import Client

# Calico's own bound on tries against other writers.
MOST_TRIES = 100


async def delete_softly(client: Client, calico: CalicoApi, path: str, obj: dict, deleted: object = True) -> None:
    """Mark `obj` as deleted under compare-and-swap, which is the moment that counts, then delete it.

    Conflict when someone changed the object since it was read. An object that is gone already is fine.
    """
    try:
        if not is_deleted(obj):
            obj = await client.replace(path, calico.changed(obj, {**obj["spec"], "deleted": deleted}))
        await client.delete(path, obj["metadata"]["uid"])
    except NotFound:
        return


class Handles:
    """Writes handles. One attachment is worked on by one task at a time; other programs may write, too."""

    def __init__(self, client: Client, calico: CalicoApi):
        self._client = client
        self._calico = calico
        # As last written, so that removing a handle needs no read.
        self._stored: dict[str, dict] = {}

    async def ensure(self, handle: str, cidrs: Iterable[str]) -> None:
        """Have `handle` say that it holds an address in each of the blocks `cidrs`; n, where one is there n times."""
        path = self._path(handle)
        wanted = dict(Counter(cidrs))
        spec = {"handleID": handle, "block": wanted, "deleted": False}
        new = self._calico.new("IPAMHandle", handle_name(handle), spec)
        for _try in range(MOST_TRIES):
            try:
                self._stored[handle] = await self._client.create(self._calico.path("IPAMHandle"), new)
                return
            except AlreadyExists:
                pass
            try:
                found = await self._client.get(path)
                if is_deleted(found):
                    await delete_softly(self._client, self._calico, path, found)
                    continue
                held = found["spec"]["block"]
                missing = {cidr: count for cidr, count in wanted.items() if count > held.get(cidr, 0)}
                if missing:
                    found = await self._replace(path, found, {**held, **missing})
                self._stored[handle] = found
                return
            except (Conflict, NotFound):
                continue
        raise Conflict("PUT", path, 409, "Conflict", f"changed by others {MOST_TRIES} times in a row")

    async def remove(self, handle: str, cidrs: Iterable[str]) -> None:
        """Have `handle` hold nothing in the blocks `cidrs`; without any left, it goes. A missing one is fine."""
        path = self._path(handle)
        gone = set(cidrs)
        for _try in range(MOST_TRIES):
            try:
                found = self._stored.pop(handle, None) or await self._client.get(path)
                left = {cidr: count for cidr, count in found["spec"]["block"].items() if cidr not in gone}
                if left:
                    self._stored[handle] = await self._replace(path, found, left)
                else:
                    await delete_softly(self._client, self._calico, path, found)
                return
            except Conflict:
                continue
            except NotFound:
                return
        raise Conflict("PUT", path, 409, "Conflict", f"changed by others {MOST_TRIES} times in a row")

    async def blocks(self, handle: str) -> list[str]:
        """The CIDRs of the blocks in which `handle` holds addresses; [] without such a handle."""
        try:
            found = await self._client.get(self._path(handle))
        except NotFound:
            return []
        return list(found["spec"]["block"])

    async def _replace(self, path: str, found: dict, block: dict[str, int]) -> dict:
        return await self._client.replace(path, self._calico.changed(found, {**found["spec"], "block": block}))

    def _path(self, handle: str) -> str:
        return self._calico.path("IPAMHandle", handle_name(handle))
