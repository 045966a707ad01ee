# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Why a pod gets no address though pools serve it: in our words, and in Calico's for those who search for them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from .._core.assignment import Choice, Subject
from .blocks import BlockKeeper
from .cluster import Config
from .errors import EXHAUSTED, TRY_AGAIN_LATER, CniError


def refuse_claim(refused: str, config: Config, owned: int) -> None:
    """CniError where a node that owns so many blocks of the pools may not claim another one.

    As with Calico, such a node does not borrow either.
    """
    if not config.auto_allocate_blocks:
        message = f"{refused}, and autoAllocateBlocks is off"
        raise CniError(EXHAUSTED, message, calico="failed to find or claim a block")
    if owned >= config.blocks_per_node:
        message = f"{refused}, the limit (maxBlocksPerHost) being {config.blocks_per_node}"
        raise CniError(EXHAUSTED, message, calico="cannot allocate new block due to per host block limit")


def refuse_all_in_use(refused: str, choice: Choice, config: Config, why_not_borrow: str | None) -> NoReturn:
    """CniError of pools all of whose blocks are in use."""
    reason = why_not_borrow or "none of them has a free address to lend"
    family = f"IPv{choice.pools[0].family}"
    tried = f"No IPs available in pools: [{' '.join(pool.cidr for pool in choice.pools)}]"
    if config.strict_affinity:
        tried = "No more free affine blocks and strict affinity enabled"
    calico = f"failed to request {family} addresses: Assigned 0 out of 1 requested {family} addresses; {tried}"
    raise CniError(EXHAUSTED, f"{refused}, every other block is in use, and {reason}", calico=calico)


def refuse_resting(subject: Subject, choice: Choice, node: str, keepers: Iterable[BlockKeeper]) -> None:
    """CniError where some of the node's blocks have addresses that only rest.

    They come back by themselves: the runtime is told to try again, and when.
    """
    seconds = [keeper.rest_seconds for keeper in keepers if keeper.rest_seconds is not None]
    if seconds:
        pools = ", ".join(pool.name for pool in choice.pools)
        message = (
            f"{subject}: every free address of pools {pools} on node {node} was freed a moment ago or is kept"
            f" for the pod that had it; the next one has rested in {min(seconds):.0f} s"
        )
        raise CniError(TRY_AGAIN_LATER, message)
