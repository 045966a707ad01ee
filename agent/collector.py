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

from .._kube.errors import ApiError, Unreachable
from .api import Client
from .attachments import Attachment
from .errors import TRY_AGAIN_LATER, CniError
from .ipam import Ipam
from .netns import may_exist
from .pods import is_asked_for, may_use

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
        held = list(self._ipam.attachments.items())
        for handle, attachment in [each for each in held if self._is_invalid(*each, network, valid)]:
            try:
                freed += await self._free(handle, attachment)
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

    async def _free(self, handle: str, attachment: Attachment) -> list[str]:
        """The addresses that were freed: none where the runtime has asked for the attachment again meanwhile."""
        return [held.address for held in (await self._ipam.release(handle, only=attachment)).addresses]

    def _is_invalid(
        self, handle: str, attachment: Attachment, network: str, valid: Collection[tuple[str, str]]
    ) -> bool:
        """A container id with a dot is left alone: it could be of a network whose name goes on behind this one's."""
        prefix, separator, container = handle.rpartition(".")
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
                try:
                    freed = await self._free(handle, attachment)
                except CniError as error:  # such as a broken block: the others are freed all the same
                    log.warning("handle %s is freed later: %s", handle, error.message)
                    continue
                owner = "pod {namespace}/{pod}" if attachment.owner.get("pod") else "a container"
                who = owner.format_map(attachment.owner)
                if freed:
                    log.warning("%s has vanished: freed %s of handle %s", who, ", ".join(freed), handle)

    def _witnesses(self, attachment: Attachment) -> int:
        return bool(attachment.netns) + is_asked_for(self._client, attachment.owner)

    async def _is_gone(self, attachment: Attachment) -> bool:
        """Whether the API server knows no pod of this node that still has one of the addresses, or is to get one."""
        if not is_asked_for(self._client, attachment.owner):
            return True
        held = [address.address for address in attachment.addresses]
        return not await may_use(self._client, self._node, attachment.owner, held)
