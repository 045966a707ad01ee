# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether all who know something about this node's addresses say the same.

Compared are the node's own store, the attachments and the blocks in memory, the blocks and the handles at the API
server, and the pods of the node. What is on its way from one to the other is no disagreement.

Only objects that this node has to do with are read. A handle that nobody holds addresses of is found by the module
pod_audit, which looks at the whole cluster.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from .._core.block import Block
from .._core.names import cidr_name, handle_name, is_deleted
from .._kube.errors import NotFound
from .attachments import Attachment
from .blocks import BlockKeeper
from .cluster import Affinity, Cluster
from .ipam import Ipam
from .store import HELD, Store

_ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True)
class Disagreement:
    """An object, such as `address 10.244.1.7`, and who says what of it."""

    subject: str
    problem: str


async def disagreements(ipam: Ipam, cluster: Cluster, store: Store, node: str) -> list[Disagreement]:
    """All of them. StoreError when the store cannot be read, ApiError or Unreachable when the API server cannot.

    What a second look does not find again came and went during the first one.
    """
    found = await _look(ipam, cluster, store, node)
    again = await _look(ipam, cluster, store, node) if found else []
    return [each for each in found if each in again]


async def _look(ipam: Ipam, cluster: Cluster, store: Store, node: str) -> list[Disagreement]:
    before, moving = dict(ipam.attachments), ipam.unsettled
    keepers = {keeper.cidr: keeper for keeper in ipam.blocks}
    blocks, handles, running = await asyncio.gather(
        _objects(cluster, "IPAMBlock", {cidr: cidr_name(cidr) for cidr in keepers}),
        _objects(cluster, "IPAMHandle", {handle: handle_name(handle) for handle in before}),
        _running(cluster, node),
    )
    # From here on nothing waits. What has changed meanwhile is left out.
    after = ipam.attachments
    changed = {handle for handle in before.keys() | after.keys() if before.get(handle) != after.get(handle)}
    moving |= ipam.unsettled | changed
    settled = {handle: attachment for handle, attachment in before.items() if handle not in moving}
    found = [
        *_of_store(store, after, moving),
        *_of_memory(keepers.values(), after, moving),
        *chain.from_iterable(_of_block(keeper, blocks[cidr], moving) for cidr, keeper in keepers.items()),
        *_of_claims(cluster.claims_of(node), keepers),
        *_of_handles(handles, settled),
    ]
    if running is not None:
        found += [*_of_owners(running, settled, node), *_of_pods(running, after, cluster)]
    return sorted(found, key=lambda each: each.subject)


async def _objects(cluster: Cluster, kind: str, names: Mapping[str, str]) -> dict[str, dict | None]:
    """The objects of these names, by key; None for one that is not there or about to go."""

    async def read(name: str) -> dict | None:
        try:
            found = await cluster.client.get(cluster.calico.path(kind, name))
        except NotFound:
            return None
        return None if is_deleted(found) else found

    return dict(zip(names, await asyncio.gather(*map(read, names.values())), strict=True))


async def _running(cluster: Cluster, node: str) -> dict[tuple[str, str], dict] | None:
    """The node's pods by namespace and name; None where nobody knows pods.

    One that ended has given its addresses back, and one on the node's own network has none.
    """
    if not cluster.client.knows_pods:
        return None
    pods, _version = await cluster.client.list("/api/v1/pods", {"fieldSelector": f"spec.nodeName={node}"})
    return {
        (pod["metadata"]["namespace"], pod["metadata"]["name"]): pod
        for pod in pods
        if pod["status"].get("phase") not in _ENDED and not pod["spec"].get("hostNetwork")
    }


def _of_store(store: Store, attachments: Mapping[str, Attachment], moving: set[str]) -> Iterator[Disagreement]:
    """What the store has must be held. The reverse is not so: the store knows only what this agent gave out."""
    rows = {_address(row.block, row.ordinal): row.handle for row in store.rows() if row.state == HELD}
    held = _attached(attachments)
    yield from _differences("the store", rows, "the agent", {each: held.get(each) for each in rows}, moving)


def _of_memory(
    keepers: Iterable[BlockKeeper], attachments: Mapping[str, Attachment], moving: set[str]
) -> Iterator[Disagreement]:
    """The agent's two views of what it holds: by block and by attachment."""
    blocks = {address: handle for keeper in keepers for address, handle in _held(keeper).items()}
    yield from _differences("the agent's blocks", blocks, "the agent's attachments", _attached(attachments), moving)


def _of_block(keeper: BlockKeeper, stored: dict | None, moving: set[str]) -> Iterator[Disagreement]:
    """A block at the API server. Of what others hold in it, the agent need not know, and learns when it writes."""
    subject = f"block {keeper.cidr}"
    if stored is None:
        yield Disagreement(subject, "the agent knows it, but it does not exist at the API server")
        return
    owner = stored["spec"].get("affinity")
    if keeper.claimed and owner != keeper.affinity:
        yield Disagreement(subject, f"of {keeper.affinity} for the agent, of {owner} for the API server")
    try:
        holders = Block(stored["spec"]).holders()
    except ValueError as error:
        yield Disagreement(subject, f"what the API server has of it is broken: {error}")
        return
    here, there = _held(keeper), {}
    for ordinal, attribute in holders:
        address = keeper.address(ordinal)
        if keeper.is_attachment(attribute) or (attribute.get("handle_id") and address in here):
            there[address] = attribute["handle_id"]
    yield from _differences("the agent", here, "the API server", there, moving)


def _of_claims(claims: Iterable[Affinity], keepers: Mapping[str, BlockKeeper]) -> Iterator[Disagreement]:
    for claim in claims:
        keeper = keepers.get(claim.cidr)
        if claim.confirmed and not (keeper and keeper.claimed):
            yield Disagreement(f"block {claim.cidr}", "claimed for this node, but the agent does not know it")


def _of_handles(handles: Mapping[str, dict | None], attachments: Mapping[str, Attachment]) -> Iterator[Disagreement]:
    for handle, attachment in attachments.items():
        stored = handles[handle]
        addresses = ", ".join(held.address for held in attachment.addresses)
        if stored is None:
            yield Disagreement(f"handle {handle}", f"holds {addresses}, but does not exist at the API server")
            continue
        missing = {held.block for held in attachment.addresses} - stored["spec"]["block"].keys()
        if missing:
            yield Disagreement(f"handle {handle}", f"holds {addresses}, but does not name {', '.join(sorted(missing))}")


def _of_owners(
    running: Mapping[tuple[str, str], dict], attachments: Mapping[str, Attachment], node: str
) -> Iterator[Disagreement]:
    for handle, attachment in attachments.items():
        namespace, name = attachment.owner.get("namespace"), attachment.owner.get("pod")
        if name and attachment.owner.get("node", node) == node and (namespace, name) not in running:
            addresses = ", ".join(held.address for held in attachment.addresses)
            yield Disagreement(f"pod {namespace}/{name}", f"does not run here, but handle {handle} holds {addresses}")


def _of_pods(
    running: Mapping[tuple[str, str], dict], attachments: Mapping[str, Attachment], cluster: Cluster
) -> Iterator[Disagreement]:
    owners = {held.address: attachment.owner for attachment in attachments.values() for held in attachment.addresses}
    for (namespace, name), pod in running.items():
        for address in [entry["ip"] for entry in pod["status"].get("podIPs") or ()]:
            owner = owners.get(address, {})
            if cluster.pool_of(address) and (owner.get("namespace"), owner.get("pod")) != (namespace, name):
                holder = f"pod {owner.get('namespace')}/{owner.get('pod')}" if owner else "nobody"
                yield Disagreement(f"pod {namespace}/{name}", f"runs with {address}, which {holder} holds")


def _differences(
    one: str, here: Mapping[str, str | None], other: str, there: Mapping[str, str | None], moving: set[str]
) -> Iterator[Disagreement]:
    """Addresses that two sources give to different handles, or that only one of them gives to any."""
    for address in here.keys() | there.keys():
        handles = here.get(address), there.get(address)
        if handles[0] != handles[1] and moving.isdisjoint(handles):
            says = [f"held by {handle}" if handle else "free" for handle in handles]
            yield Disagreement(f"address {address}", f"{says[0]} for {one}, {says[1]} for {other}")


def _held(keeper: BlockKeeper) -> dict[str, str]:
    """{address: handle} of what this node holds in a block."""
    return {keeper.address(ordinal): handle for ordinal, handle, _owner in keeper.attachments}


def _attached(attachments: Mapping[str, Attachment]) -> dict[str, str]:
    """{address: handle}."""
    return {held.address: handle for handle, attachment in attachments.items() for held in attachment.addresses}


def _address(cidr: str, ordinal: int) -> str:
    return str(ipaddress.ip_network(cidr).network_address + ordinal)
