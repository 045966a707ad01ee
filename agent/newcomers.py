# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""What runs by the runtime's own records and is known to nobody else: containers that another IPAM plugin has served.

They count as attachments of this plugin's network: under that name their DEL will come. The runtime goes on calling the
other plugin until it has this one's configuration, so they are looked for with every ADD.
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
from .node_blocks import NodeBlocks
from .pods import is_asked_for, may_use
from .running import Records, Running

log = logging.getLogger(__name__)


class Newcomers:
    """Takes them over. `holding` says what a handle holds, and `hold` has it hold (block, ordinal) pairs."""

    def __init__(
        self,
        cluster: Cluster,
        node: str,
        blocks: NodeBlocks,
        records: Records,
        holding: Callable[[str], Sequence[Address]],
        hold: Callable[[str, Sequence[tuple[BlockKeeper, int]], Attachment], None],
    ):
        self._cluster = cluster
        self._node = node
        self._blocks = blocks
        self._records = records
        self._holding = holding
        self._hold = hold
        self._noticing = asyncio.Lock()

    async def take_over_all(self) -> None:
        """Hold all that runs. ApiError or Unreachable where that cannot be done now."""
        for attachment in self._records.all():
            await self._take_over(attachment)

    async def notice(self) -> None:
        """Hold what has begun to run since."""
        async with self._noticing:
            for attachment in self._records.newcomers():
                try:
                    await self._take_over(attachment)
                except (ApiError, Unreachable) as error:
                    # In a block that this node has not got, so that it gives out nothing of it either.
                    log.warning(
                        "container %s runs with addresses that cannot be held yet: %s", attachment.container, error
                    )

    async def _take_over(self, attachment: Running) -> None:
        """Hold the addresses of an attachment that runs here, unless they are."""
        handle = handle_id(self._records.network or attachment.network, attachment.container)
        known = self._holding(handle) or self._holding(handle_id(attachment.network, attachment.container))
        if not known and await self._still_runs(attachment):
            await self._hold_running(handle, attachment)
        self._records.note(attachment)

    async def _hold_running(self, handle: str, attachment: Running) -> None:
        taken = []
        for address in attachment.addresses:
            keeper = await self._blocks.take(address)
            if keeper is None:
                continue
            ordinal = keeper.ordinal(address)
            if keeper.claimed and keeper.holder(ordinal) is None:
                taken.append((keeper, ordinal))
            else:
                owner = keeper.holder(ordinal) or "another node's block"
                log.critical("container %s runs with address %s of %s", attachment.container, address, owner)
        if taken:
            owner = {**attachment.owner, "node": self._node, "timestamp": timestamp()}
            self._hold(handle, taken, Attachment((), owner, attachment.netns, 0.0))
            addresses = ", ".join(attachment.addresses)
            log.warning("container %s runs with %s, which nobody held", attachment.container, addresses)

    async def _still_runs(self, attachment: Running) -> bool:
        """Whether an attachment of the runtime's record is one: records of a former network are never removed.

        Its network namespace, which still exists, is witness enough. Older runtimes note none: then its pod decides.
        """
        client = self._cluster.client
        if attachment.netns or not is_asked_for(client, attachment.owner):
            return True
        return await may_use(client, self._node, attachment.owner, attachment.addresses)
