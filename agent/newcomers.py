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
from .backoff import Backoff
from .blocks import BlockKeeper
from .cluster import Cluster
from .errors import CniError
from .netns import may_exist
from .node_blocks import NodeBlocks
from .pods import is_asked_for, may_use
from .running import Records, Running

# For how long a pod that starts waits for what has nothing to do with it, all newcomers together.
FIRST_TRY_SECONDS = 1.0

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
        # What is not held yet, by the name of its record.
        self._waiting: dict[str, Running] = {}
        self._trying: asyncio.Task | None = None

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
        """Hold what has begun to run since. What that needs the API server for is held as soon as it can be."""
        async with self._noticing:
            latest = asyncio.get_running_loop().time() + FIRST_TRY_SECONDS
            for attachment in self._records.newcomers():
                if attachment.record not in self._waiting:
                    await self._try_first(attachment, latest)

    def hold_in(self, keeper: BlockKeeper) -> None:
        """A block is this node's from now on: hold what waits for it before anybody else gets it."""
        for attachment in list(self._waiting.values()):
            ordinals = [keeper.ordinal(each) for each in attachment.addresses if self._block_of(each) == keeper.cidr]
            free = [(keeper, ordinal) for ordinal in ordinals if keeper.holder(ordinal) is None]
            if free:
                self._hold_all(attachment, free)

    async def _try_first(self, attachment: Running, latest: float) -> None:
        """Hold it now if that takes until `latest` (the loop's clock) at most: pods that start wait meanwhile."""
        self._waiting[attachment.record] = attachment
        if not self._cluster.client.seconds_away or self._is_at_hand(attachment):
            try:
                # What is at hand needs no time at all, so that it is held also when that is over.
                async with asyncio.timeout_at(latest):
                    await self._take_over(attachment)
                return
            except (ApiError, Unreachable, CniError, TimeoutError) as error:
                self._report(attachment, error)
        if self._trying is None or self._trying.done():
            self._trying = asyncio.get_running_loop().create_task(self._keep_trying())

    async def _keep_trying(self) -> None:
        backoff = Backoff()
        while self._waiting:
            await backoff.pause(None)
            for attachment in list(self._waiting.values()):
                try:
                    await self._take_over(attachment)
                except (ApiError, CniError) as error:
                    self._report(attachment, error)
                except Unreachable as error:
                    # Nor would it be reached for the others.
                    self._report(attachment, error)
                    break

    @staticmethod
    def _report(attachment: Running, error: Exception) -> None:
        why = str(error) or "the API server takes its time"
        log.warning("container %s runs with addresses that cannot be held yet: %s", attachment.container, why)

    async def _take_over(self, attachment: Running) -> list[asyncio.Future]:
        """Hold the addresses of an attachment that runs here, unless they are."""
        stored = []
        if self._missing(attachment) and await self._still_runs(attachment):
            stored = await self._hold_running(attachment)
        self._note(attachment)
        return stored

    async def _hold_running(self, attachment: Running) -> list[asyncio.Future]:
        keepers = {address: await self._blocks.take(address) for address in self._missing(attachment)}
        # Nobody else gets one of them between the look at it and the last line, where nothing is waited for.
        taken = []
        for address in self._missing(attachment):
            keeper = keepers[address]
            if keeper is None:
                continue
            ordinal = keeper.ordinal(address)
            if keeper.claimed and keeper.holder(ordinal) is None:
                taken.append((keeper, ordinal))
            else:
                owner = keeper.holder(ordinal) or "another node's block"
                log.critical("container %s runs with address %s of %s", attachment.container, address, owner)
        return self._hold_all(attachment, taken) if taken else []

    def _hold_all(self, attachment: Running, taken: Sequence[tuple[BlockKeeper, int]]) -> list[asyncio.Future]:
        addresses = ", ".join(keeper.address(ordinal) for keeper, ordinal in taken)
        log.warning("container %s runs with %s, which nobody held", attachment.container, addresses)
        owner = {**attachment.owner, "node": self._node, "timestamp": timestamp()}
        return self._hold(self._handle(attachment), taken, Attachment((), owner, attachment.netns, 0.0))

    def _note(self, attachment: Running) -> None:
        self._records.note(attachment)
        self._waiting.pop(attachment.record, None)

    def _missing(self, attachment: Running) -> list[str]:
        """The addresses of an attachment that are of a pool, and that it does not hold."""
        held = self._addresses(self._handle(attachment))
        return [address for address in attachment.addresses if self._cluster.pool_of(address) and address not in held]

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

    def _is_at_hand(self, attachment: Running) -> bool:
        """Whether it can be held without asking the API server."""
        blocks = [self._block_of(address) for address in attachment.addresses]
        return bool(attachment.netns) and all(block is None or self._blocks.keeper(block) for block in blocks)

    def _block_of(self, address: str) -> str | None:
        pool = self._cluster.pool_of(address)
        return pool.block_of(address) if pool else None

    async def _still_runs(self, attachment: Running) -> bool:
        """Whether an attachment of the runtime's record is one: records of a former network are never removed.

        Its network namespace, while it exists, is witness enough. Older runtimes note none: then its pod decides.
        """
        client = self._cluster.client
        if attachment.netns and not may_exist(attachment.netns):
            return False
        if attachment.netns or not is_asked_for(client, attachment.owner):
            return True
        return await may_use(client, self._node, attachment.owner, attachment.addresses)
