# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""What runs by the runtime's own records and is known to nobody else: containers that another IPAM plugin has served.

They count as attachments of this plugin's network: under that name their DEL will come. Only one of a container can, so
another one counts as an attachment of the network that its record names. That has a DEL of its own where the network is
this plugin's by then; else it is found to have vanished (collector.py). The runtime goes on calling the other plugin
until it has this one's configuration, so they are looked for with every ADD.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from .._core.names import handle_id
from .._kube.errors import ApiError, Unreachable
from .attachments import Address, Attachment, timestamp
from .blocks import BlockKeeper
from .cluster import Cluster
from .errors import CniError
from .node_blocks import NodeBlocks
from .pods import is_asked_for, may_use
from .running import Records, Running

log = logging.getLogger(__name__)


class Newcomers:
    """Takes them over. `holding` says what a handle holds, and `hold` has it hold (block, ordinal) pairs beside that.

    `hold` returns what is done when they are stored at the API server.
    """

    def __init__(
        self,
        cluster: Cluster,
        node: str,
        blocks: NodeBlocks,
        records: Records,
        holding: Callable[[str], Sequence[Address]],
        hold: Callable[[str, Sequence[tuple[BlockKeeper, int]], Attachment], list[asyncio.Future]],
    ):
        self._cluster = cluster
        self._node = node
        self._blocks = blocks
        self._records = records
        self._holding = holding
        self._hold = hold
        self._noticing = asyncio.Lock()

    async def take_over_all(self) -> list[asyncio.Future]:
        """Hold all that runs, and return what is done when it is stored at the API server.

        ApiError or Unreachable where that cannot be done now.
        """
        stored = []
        for attachment in self._records.all():
            try:
                stored += await self._take_over(attachment)
            except CniError as error:  # a broken block, which gives out nothing
                log.critical("container %s runs with addresses that cannot be held: %s", attachment.container, error)
        return stored

    async def notice(self) -> None:
        """Hold what has begun to run since."""
        async with self._noticing:
            for attachment in self._records.newcomers():
                try:
                    await self._take_over(attachment)
                except (ApiError, Unreachable, CniError) as error:
                    # In a block that this node has not got, so that it gives out nothing of it either.
                    log.warning(
                        "container %s runs with addresses that cannot be held yet: %s", attachment.container, error
                    )

    async def _take_over(self, attachment: Running) -> list[asyncio.Future]:
        """Hold the addresses of an attachment that runs here, unless they are."""
        handle, stored = self._handle(attachment), []
        held = self._addresses(handle)
        ours = filter(self._cluster.pool_of, attachment.addresses)
        missing = [address for address in ours if address not in held]
        if missing and await self._still_runs(attachment):
            stored = await self._hold_running(handle, attachment, missing)
        self._records.note(attachment)
        return stored

    def _handle(self, attachment: Running) -> str:
        """The handle that has addresses of the attachment; without one, the handle under which its DEL will come."""
        networks = self._records.network or attachment.network, attachment.network
        today, recorded = (handle_id(network, attachment.container) for network in networks)
        for handle in (today, recorded):
            if not self._addresses(handle).isdisjoint(attachment.addresses):
                return handle
        return recorded if self._addresses(today) else today

    def _addresses(self, handle: str) -> set[str]:
        return {held.address for held in self._holding(handle)}

    async def _hold_running(self, handle: str, attachment: Running, missing: Sequence[str]) -> list[asyncio.Future]:
        taken = []
        # Nobody else gets one of them between the look at it and the last line, where nothing is waited for.
        keepers = [await self._blocks.take(address) for address in missing]
        for address, keeper in zip(missing, keepers, strict=True):
            if keeper is None:
                continue
            ordinal = keeper.ordinal(address)
            if keeper.claimed and keeper.holder(ordinal) is None:
                taken.append((keeper, ordinal))
            else:
                owner = keeper.holder(ordinal) or "another node's block"
                log.critical("container %s runs with address %s of %s", attachment.container, address, owner)
        if not taken:
            return []
        addresses = ", ".join(keeper.address(ordinal) for keeper, ordinal in taken)
        log.warning("container %s runs with %s, which nobody held", attachment.container, addresses)
        owner = {**attachment.owner, "node": self._node, "timestamp": timestamp()}
        return self._hold(handle, taken, Attachment((), owner, attachment.netns, 0.0))

    async def _still_runs(self, attachment: Running) -> bool:
        """Whether an attachment of the runtime's record is one: records of a former network are never removed.

        Its network namespace, which still exists, is witness enough. Older runtimes note none: then its pod decides.
        """
        client = self._cluster.client
        if attachment.netns or not is_asked_for(client, attachment.owner):
            return True
        return await may_use(client, self._node, attachment.owner, attachment.addresses)
