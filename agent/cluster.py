# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""What the agent knows of the cluster: pools, reservations, configuration, namespaces, nodes and claims on blocks."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

from .._core.assignment import Subject
from .._core.names import NAMESPACE_ANNOTATIONS, canonical_cidr, is_deleted
from .._core.pool import Pool, pool_of
from .._core.room import DEFAULT_BLOCKS_PER_NODE
from .._kube.calico import CONFIG_NAME, V1, V3, CalicoApi
from .._kube.errors import NotFound
from .api import Client
from .watch import Reflector

# Blocks and addresses of which the pool is remembered: more than one node has at a time.
_POOLS_FOUND = 4096


@dataclass(frozen=True, slots=True)
class Config:
    """IPAMConfig with the defaults that hold when the object is missing."""

    strict_affinity: bool = False
    auto_allocate_blocks: bool = True
    blocks_per_node: int = DEFAULT_BLOCKS_PER_NODE


@dataclass(frozen=True, slots=True)
class Namespace:
    annotations: dict[str, str]
    labels: dict[str, str]


@dataclass(frozen=True, slots=True)
class Node:
    """`addresses` holds the node's internal address of each family (4, 6) that it has."""

    labels: dict[str, str]
    addresses: dict[int, str]


@dataclass(frozen=True, slots=True)
class Affinity:
    """A claim on the block `cidr`. Only a confirmed one may be routed to or assigned from."""

    cidr: str
    node: str
    uid: str
    confirmed: bool


class Cluster:
    """Watch caches of one API server, and who follows them.

    `routing_changed` is set whenever claims, nodes or pools changed. `on_reserved` is called when reservations or pools
    changed, `on_claim_changed` with what each Affinity was and is; None where there was or is none.
    """

    def __init__(self, client: Client, calico: CalicoApi):
        self.client = client
        self.calico = calico
        self.routing_changed = asyncio.Event()
        # When affinity became strict, in seconds of the monotonic clock; 0 when it was so at the start.
        self.strict_since = 0.0
        self.on_reserved: Callable[[], None] = lambda: None
        self.on_claim_changed: Callable[[Affinity | None, Affinity | None], None] = lambda old, new: None
        # Pools are asked for with every address, and change rarely.
        self._find_pool = lru_cache(maxsize=_POOLS_FOUND)(lambda text: pool_of(text, self.pools))
        self._gateways: frozenset = frozenset()
        self._pools_are_subnets = False

        def reflect(kind: str, decode, on_change, optional: bool = False) -> Reflector:
            return Reflector(client, calico.path(kind), decode=decode, on_change=on_change, optional=optional)

        self._pools = reflect("IPPool", Pool.from_object, self._pool_changed)
        self._reservations = reflect("IPReservation", _reserved_networks, self._reserved_changed)
        self._config = reflect(calico.config_kind, _config, self._config_changed)
        self._information = reflect("ClusterInformation", _is_locked, None, optional=True)
        self.affinities = reflect("BlockAffinity", _affinity, self._claim_changed)
        self.namespaces = Reflector(client, "/api/v1/namespaces", decode=_namespace)
        self.nodes = Reflector(client, "/api/v1/nodes", decode=_node, on_change=self._node_changed)

    @property
    def reflectors(self) -> tuple[Reflector, ...]:
        """Those that have to be complete before anything is asked; `namespaces` need not."""
        calicos = self._pools, self._reservations, self._config, self._information, self.affinities
        return *calicos, self.nodes

    @property
    def pools(self) -> list[Pool]:
        """All pools, by name: the order in which Calico tries those that nobody asked for."""
        return [pool for _name, pool in sorted(self._pools.items.items())]

    @property
    def config(self) -> Config:
        return self._config.items.get(CONFIG_NAME, Config())

    @property
    def locked(self) -> bool:
        """Whether addresses must stay as they are, while an operator moves them to another datastore."""
        return self._information.items.get(CONFIG_NAME, False)

    def pool_of(self, address: str) -> Pool | None:
        """The pool that an address or a block lies in."""
        return self._find_pool(address)

    def reserved_ordinals(self, cidr: str) -> set[int]:
        """The ordinals of a block that nobody gets unasked: reservations, gateways, broadcast addresses."""
        block = ipaddress.ip_network(cidr)
        ordinals: set[int] = set()
        for networks in self._reservations.items.values():
            for network in networks:
                ordinals |= _common_ordinals(block, network)
        pool = self.pool_of(cidr)
        kept = self._gateways | set(pool.kept if pool and self._pools_are_subnets else ())
        return ordinals | {int(address) - int(block.network_address) for address in kept if address in block}

    def keep_free(self, gateways: Iterable, pools_are_subnets: bool) -> None:
        """From now on, reserve these addresses, too, and in each pool those that no pod of an IP subnet can have.

        It is the pods' network configuration that says so, which comes with each request.
        """
        known = self._gateways, self._pools_are_subnets
        self._gateways |= set(gateways)
        self._pools_are_subnets |= pools_are_subnets
        if known != (self._gateways, self._pools_are_subnets):
            self.on_reserved()

    async def subject(self, node: str, namespace: str, pod: str, annotations: dict, configured: dict) -> Subject:
        """The pod as pool choice sees it. A namespace that is not known yet is read; NotFound when there is none."""
        known = self.namespaces.items.get(namespace)
        if known is None:
            known = _namespace(await self.client.get(f"/api/v1/namespaces/{namespace}"))
        return Subject(
            namespace=namespace,
            name=pod,
            node=node,
            pod_annotations=annotations,
            namespace_annotations=known.annotations,
            namespace_labels=known.labels,
            node_labels=self.labels(node),
            configured=configured,
        )

    def labels(self, node: str) -> dict[str, str]:
        """The labels of a node; none while it is not known."""
        known = self.nodes.items.get(node)
        return known.labels if known else {}

    def claims_of(self, node: str) -> list[Affinity]:
        return [affinity for affinity in self.affinities.items.values() if affinity.node == node]

    def claims_of_others(self, node: str) -> list[Affinity]:
        return [affinity for affinity in self.affinities.items.values() if affinity.node != node]

    def _config_changed(self, _name, old: Config | None, new: Config | None) -> None:
        before, after = (config is not None and config.strict_affinity for config in (old, new))
        if after and not before and self._config.synced.is_set():
            self.strict_since = time.monotonic()

    def _pool_changed(self, _name, _old, _new) -> None:
        self._find_pool.cache_clear()
        self.routing_changed.set()
        self.on_reserved()

    def _reserved_changed(self, _name, _old, _new) -> None:
        self.on_reserved()

    def _node_changed(self, _name, _old, _new) -> None:
        self.routing_changed.set()

    def _claim_changed(self, _name, old: Affinity | None, new: Affinity | None) -> None:
        self.routing_changed.set()
        self.on_claim_changed(old, new)


async def detect_calico_api(client: Client) -> CalicoApi | None:
    """The API group that holds the pools: v1 wherever it is served, as Calico prefers it; None without either."""
    for calico in (V1, V3):
        try:
            served = await client.get(f"/apis/{calico.group_version}")
        except NotFound:
            continue
        if any(resource["name"] == "ippools" for resource in served["resources"]):
            return calico
    return None


def _common_ordinals(block, network) -> set[int]:
    if block.version != network.version or not block.overlaps(network):
        return set()
    start = max(int(block.network_address), int(network.network_address))
    end = min(int(block.broadcast_address), int(network.broadcast_address))
    return set(range(start - int(block.network_address), end - int(block.network_address) + 1))


def _reserved_networks(obj: dict) -> tuple:
    """A malformed entry is skipped: Calico reads reservations this way, and refusing all would unreserve the others."""
    networks = []
    for text in obj["spec"].get("reservedCIDRs") or ():
        try:
            networks.append(ipaddress.ip_network(text.strip(), strict=False))
        except ValueError:
            continue
    return tuple(networks)


def _config(obj: dict) -> Config:
    spec = obj["spec"]
    return Config(
        strict_affinity=spec.get("strictAffinity", False),
        auto_allocate_blocks=spec.get("autoAllocateBlocks", True),
        blocks_per_node=spec.get("maxBlocksPerHost") or DEFAULT_BLOCKS_PER_NODE,
    )


def _is_locked(obj: dict) -> bool:
    """Whether a ClusterInformation says so: `calicoctl datastore migrate lock` sets `datastoreReady` to false."""
    return obj["spec"].get("datastoreReady") is False


def _namespace(obj: dict) -> Namespace:
    metadata = obj["metadata"]
    annotations = metadata.get("annotations") or {}
    # Of the others some are long, such as what `kubectl apply` leaves.
    asked = {key: annotations[key] for key in NAMESPACE_ANNOTATIONS if key in annotations}
    return Namespace(asked, metadata.get("labels") or {})


def _node(obj: dict) -> Node:
    addresses: dict[int, str] = {}
    for entry in obj["status"].get("addresses") or ():
        if entry["type"] == "InternalIP":
            addresses.setdefault(ipaddress.ip_address(entry["address"]).version, entry["address"])
    return Node(obj["metadata"].get("labels") or {}, addresses)


def _affinity(obj: dict) -> Affinity:
    spec = obj["spec"]
    if is_deleted(obj):
        raise ValueError("soft-deleted")
    # An empty state is the oldest form and counts as confirmed. Nodes write claims: one may be of no CIDR at all.
    return Affinity(
        canonical_cidr(spec["cidr"]), spec["node"], obj["metadata"]["uid"], spec["state"] in ("confirmed", "")
    )
