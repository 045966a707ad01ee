# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Which of the pools that a pod may draw from gives it an address on its node, and what the others have left.

The rules are those by which the agent gets an address (`agent/promises.py`, `agent/claims.py`), asked beforehand.
Its ways go from cheap to dear, and each is tried with all the pools, in their order, before the next one. So a pool
that comes later gives the address when the node has a block of it with room, and would have to claim one of the first.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from .names import host_affinity, is_deleted

# The ways, in their order.
OWN_BLOCK, NEW_BLOCK, EMPTY_BLOCK, BORROWED = WAYS = ("own_block", "new_block", "empty_block", "borrowed")
# How long a block that was claimed is left to its node though it is empty: it is about to be used. Calico's bound.
RECLAIM_SECONDS = 60.0
# Calico's own limit where the configuration says none.
DEFAULT_BLOCKS_PER_NODE = 20
STRICT = "strictAffinity forbids to borrow"
ROUTES = "the agent's own routes lead to whole blocks, so that none can be borrowed"


class Seen(NamedTuple):
    """An IPAMBlock. `free`: how many of its addresses may be given out unasked. See `is_abandoned`, `may_lend`."""

    cidr: str
    affinity: str | None
    free: int
    is_deleted: bool
    is_abandoned: bool
    may_lend: bool

    @classmethod
    def of(cls, block, node, since, free):
        """An IPAMBlock as `node` sees it; `since` as for `is_abandoned`."""
        spec = block["spec"]
        states = is_deleted(block), is_abandoned(spec, node, since), may_lend(spec)
        return cls(spec["cidr"], spec.get("affinity"), free, *states)


@dataclass(frozen=True)
class View:
    """The blocks of a cluster as one node sees them.

    `own` maps the blocks that the node has claimed to how many of their addresses are left, `blocks` are all that there
    are, by name; `confirmed` and `pending` are those that other nodes have claimed or are about to. `reserved` tells
    how many addresses of a block nobody gets unasked. `why_not_borrow`: None where the node may. `holders` has of
    addresses that a pod asks for who holds them, where they are in use.
    """

    node: str
    own: dict
    blocks: tuple
    confirmed: frozenset
    pending: frozenset
    reserved: object
    why_not_borrow: str | None = None
    auto_allocate_blocks: bool = True
    blocks_per_node: int = DEFAULT_BLOCKS_PER_NODE
    holders: dict = field(default_factory=dict)


class Room(NamedTuple):
    """What a pool has left for a node: by which of the WAYS an address would come, from which block, and how many.

    `way` is None where nothing is left. `reason`: why the address does not come from there; None where it does.
    """

    name: str
    way: str | None
    block: str | None
    free: int
    reason: str | None


def is_abandoned(spec, node, since):
    """Whether a block is another node's, empty, and was claimed before `since`, in seconds since 1970."""
    owner = spec.get("affinity") or ""
    if not owner.startswith("host:") or owner == host_affinity(node):
        return False
    if any(index is not None for index in spec["allocations"]):
        return False
    claimed = spec.get("affinityClaimTime")
    return claimed is None or datetime.fromisoformat(claimed.replace("Z", "+00:00")).timestamp() <= since


def may_lend(spec):
    """Whether a block is one of a node's, or of nobody's, and has free addresses."""
    return bool(spec["unallocated"]) and not (spec.get("affinity") or "").startswith("virtual:")


def holder(spec, address):
    """Who holds an address (text) of a block, as a text; None when it is free."""
    first = ipaddress.ip_network(spec["cidr"]).network_address
    index = spec["allocations"][int(ipaddress.ip_address(address)) - int(first)]
    return None if index is None else owner_of(spec["attributes"][index])


def owner_of(attribute):
    """Whose an attribute of a block is: a pod's, else a handle's, as a text."""
    owner = attribute.get("secondary") or {}
    if owner.get("pod"):
        return f"pod {owner.get('namespace')}/{owner['pod']}"
    return f"handle {attribute.get('handle_id')}"


def rooms(pools, view):
    """The Room of each of the pools of a choice; the one without a reason is where the address comes from."""
    refused = _why_not_claim(pools, view)
    found = [_room(pool, view, refused) for pool in pools]
    taken = min((room for room in found if room.way), key=lambda room: WAYS.index(room.way), default=None)
    return [_judged(room, taken, view.node) for room in found]


def why_not(address, pool, view):
    """Why no pod of the node gets this very address (text) of a pool; None when one does.

    As with Calico, neither reservations nor limits count for who asks for an address.
    """
    cidr = pool.block_of(address)
    block = next((each for each in view.blocks if each.cidr == cidr and not each.is_deleted), None)
    if view.why_not_borrow and block is not None and block.affinity != host_affinity(view.node):
        return f"its block {cidr} is not of node {view.node}, and {view.why_not_borrow}"
    return None


def _judged(room, taken, node):
    if room.way is None or room is taken:
        return room
    reason = f"pool {taken.name} comes before it"
    if room.way != taken.way:
        reason = f"{_step(room, node)}, and before that comes pool {taken.name}: {_step(taken, node)}"
    return room._replace(reason=reason)


def _why_not_claim(pools, view):
    """Why the node may claim no block for a pod of these pools. As with Calico, it does not borrow either then."""
    if not view.auto_allocate_blocks:
        return "autoAllocateBlocks is off"
    owned = sum(any(pool.contains(cidr) for pool in pools) for cidr in view.own)
    if owned >= view.blocks_per_node:
        limit = f"the limit (maxBlocksPerHost) being {view.blocks_per_node}"
        return f"node {view.node} has {owned} of these pools' blocks, {limit}"
    return None


def _room(pool, view, refused):
    own = {cidr: free for cidr, free in view.own.items() if free > 0 and pool.contains(cidr)}
    if own:
        return Room(pool.name, OWN_BLOCK, next(iter(own)), sum(own.values()), None)
    there = [block for block in view.blocks if pool.contains(block.cidr)]
    reasons = [f"node {view.node} has no block of it with a free address"]
    for find in (_new_block, _empty_block, _lender) if refused is None else ():
        found = find(pool, view, there)
        if isinstance(found, Room):
            return found
        reasons.append(found)
    return Room(pool.name, None, None, 0, "; ".join([*reasons, refused] if refused else reasons))


def _new_block(pool, view, there):
    cidr = _unclaimed(pool, view, there)
    if cidr is None:
        return "each of its blocks is claimed or in use"
    existing = next((block.free for block in there if block.cidr == cidr and not block.is_deleted), None)
    free = pool.block_addresses - view.reserved(cidr) if existing is None else existing
    if free > 0:
        return Room(pool.name, NEW_BLOCK, cidr, free, None)
    return f"block {cidr}, which would be claimed next, has no address that may be given out"


def _unclaimed(pool, view, there):
    """The block that the node would claim next, or None.

    As with the agent, a block that exists is noticed only when its turn comes; then all of them are known.
    """
    existing, known, removed = {block.cidr: block for block in there}, set(view.own), set()
    for avoided in (view.confirmed | view.pending, view.confirmed):
        taken = {*avoided, *known}
        for index in pool.block_order(view.node, taken):
            cidr = pool.block_cidr(index)
            block = existing.get(cidr)
            if block is None or cidr in removed or _is_left_over(block, view.node):
                return cidr
            if block.is_deleted:
                removed.add(cidr)
            known.update(each.cidr for each in there if not each.is_deleted)
            taken |= known  # in place: the order is lazy and sees it
    return None


def _is_left_over(block, node):
    """Whether it is the node's own block, of which the claim is not confirmed: a try that was cut short."""
    return block.affinity == host_affinity(node) and not block.is_deleted


def _empty_block(pool, view, there):
    cidr = next((block.cidr for block in there if block.is_abandoned), None)
    if cidr is None:
        return "no other node has an empty one"
    free = pool.block_addresses - view.reserved(cidr)
    if free > 0:
        return Room(pool.name, EMPTY_BLOCK, cidr, free, None)
    return f"block {cidr}, an empty one of another node, has no address that may be given out"


def _lender(pool, view, there):
    if view.why_not_borrow:
        return view.why_not_borrow
    lenders = [block for block in there if block.may_lend and not block.is_deleted and block.free > 0]
    if not lenders:
        return "none of its blocks has an address to lend"
    return Room(pool.name, BORROWED, lenders[0].cidr, sum(block.free for block in lenders), None)


def _step(room, node):
    return {
        OWN_BLOCK: f"node {node} has a block of it with free addresses",
        NEW_BLOCK: f"node {node} would claim its block {room.block}",
        EMPTY_BLOCK: f"node {node} would take over its block {room.block}, an empty one of another node",
        BORROWED: f"node {node} would borrow an address of its block {room.block}",
    }[room.way]
