# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Takes addresses back whose DEL never came: at the runtime's word (the verb GC), and, as some runtimes never send it,
from time to time on its own.

On its own it asks two witnesses, the attachment's network namespace and the pod at the API server, and frees only what
both have called gone for the whole of a grace period. An attachment that is younger than that is left alone. Where
there is only one witness (no cluster, no pod, or a network namespace that is not known) it takes ten times as long;
where there is none, only the runtime's word counts.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection

from .._kube.errors import ApiError, NotFound, Unreachable
from .api import Client
from .errors import TRY_AGAIN_LATER, CniError
from .ipam import Attachment, Ipam
from .netns import may_exist

GRACE_SECONDS = 60.0
_PATIENCE_WITH_ONE_WITNESS = 10

log = logging.getLogger(__name__)


class Collector:
    """Frees what nobody uses any more, `grace` seconds after it began to look so at the earliest."""

    def __init__(self, ipam: Ipam, client: Client, node: str, grace: float = GRACE_SECONDS):
        self._ipam = ipam
        self._client = client
        self._node = node
        self._grace = grace
        self._suspected: dict[str, float] = {}

    async def collect(self, network: str, valid: Collection[tuple[str, str]]) -> list[str]:
        """Free what `network` holds for others than `valid`, (container id, interface), and return the addresses.

        Goes on after an error, and raises a CniError that names all of them in the end.
        """
        freed, errors = [], []
        for handle in [handle for handle in self._ipam.attachments if self._is_invalid(handle, network, valid)]:
            try:
                freed += [held.address for held in (await self._ipam.release(handle)).addresses]
            except (ApiError, Unreachable, CniError) as error:
                errors.append(f"{handle}: {error}")
        if errors:
            raise CniError(TRY_AGAIN_LATER, f"{len(errors)} attachments could not be freed: {'; '.join(errors)}")
        return freed

    async def run(self) -> None:
        """Look for vanished pods until cancelled."""
        while True:
            await asyncio.sleep(self._grace / 2)
            try:
                await self._look()
            except (ApiError, Unreachable, CniError) as error:
                log.warning("vanished pods are looked for later: %s", error)

    def _is_invalid(self, handle: str, network: str, valid: Collection[tuple[str, str]]) -> bool:
        """A container id with a dot is left alone: it could be of a network whose name goes on behind this one's."""
        prefix, separator, container = handle.rpartition(".")
        attachment = self._ipam.attachments[handle]
        is_valid = any(each == container and attachment.serves(interface) for each, interface in valid)
        return bool(separator) and prefix == network and not is_valid and self._is_old(attachment)

    def _is_old(self, attachment: Attachment) -> bool:
        return time.monotonic() - attachment.noted >= self._grace

    async def _look(self) -> None:
        suspects = {
            handle: attachment
            for handle, attachment in list(self._ipam.attachments.items())
            if self._witnesses(attachment) and self._is_old(attachment) and not may_exist(attachment.netns)
        }
        now = time.monotonic()
        self._suspected = {handle: self._suspected.get(handle, now) for handle in suspects}
        for handle, attachment in suspects.items():
            patience = self._grace * (1 if self._witnesses(attachment) == 2 else _PATIENCE_WITH_ONE_WITNESS)
            if now - self._suspected[handle] >= patience and await self._is_gone(attachment):
                freed = [held.address for held in (await self._ipam.release(handle)).addresses]
                owner = "pod {namespace}/{pod}" if attachment.owner.get("pod") else "a container"
                who = owner.format_map(attachment.owner)
                log.warning("%s has vanished: freed %s of handle %s", who, ", ".join(freed), handle)

    def _witnesses(self, attachment: Attachment) -> int:
        return bool(attachment.netns) + self._has_pod(attachment)

    def _has_pod(self, attachment: Attachment) -> bool:
        """Whether there is a pod that the API server can be asked for."""
        return bool(self._client.knows_pods and attachment.owner.get("pod"))

    async def _is_gone(self, attachment: Attachment) -> bool:
        """Whether the API server knows no pod of this node that still has one of the addresses, or is to get one."""
        if not self._has_pod(attachment):
            return True
        namespace, name = attachment.owner.get("namespace"), attachment.owner["pod"]
        try:
            pod = await self._client.get(f"/api/v1/namespaces/{namespace}/pods/{name}")
        except NotFound:
            return True
        status = pod.get("status") or {}
        if pod["spec"].get("nodeName") != self._node or status.get("phase") in ("Succeeded", "Failed"):
            return True
        used = {entry.get("ip") for entry in status.get("podIPs") or ()}
        return bool(used) and used.isdisjoint(address.address for address in attachment.addresses)
