# SPDX-License-Identifier: Apache-2.0
"""Clusters in memory whose pods, blocks, claims and handles fit each other until a test breaks something.

Objects look as the API server serves them, in group v1. `create_in` makes the same on a real server.
"""

from __future__ import annotations

import copy
import ipaddress
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from ansible_collections.podnet.ipam.plugins.module_utils._core import names
from ansible_collections.podnet.ipam.plugins.module_utils._core.block import Block
from ansible_collections.podnet.ipam.plugins.module_utils._plan.world import Observed
from support.cluster_objects import GROUPS, Objects

SEQUENCE = 1787304482417330915
OLD, OLD_TIMESTAMP = "2026-08-21T09:30:15Z", "2026-08-21 09:30:15.123456789 +0000 UTC"
NOW = 1787392815.0  # a day later
POOLS = MappingProxyType({"a": "10.244.0.0/18", "b": "10.244.64.0/18", "six": "fd00:10:244::/64"})
BLOCK_PREFIX = MappingProxyType({4: 28, 6: 124})
PLURALS = {
    "IPPool": "ippools",
    "IPAMBlock": "ipamblocks",
    "BlockAffinity": "blockaffinities",
    "IPAMHandle": "ipamhandles",
}
CREATED = ("name", "namespace", "labels", "annotations")
REQUIRED = {
    "Pod": {"containers": [{"name": "main", "image": "example.com/workload:1"}]},
    "Service": {"ports": [{"port": 80}]},
}
LISTS = {
    "Namespace": "namespaces",
    "Node": "nodes",
    "Pod": "pods",
    "Service": "services",
    "IPAMBlock": "blocks",
    "BlockAffinity": "affinities",
    "IPAMHandle": "handles",
}


class WorldBuilder:
    """A cluster under construction. `stored` maps (kind, namespace, name) to objects."""

    def __init__(
        self,
        nodes: Iterable[str] = ("node-1", "node-2"),
        pools: Mapping[str, str] = POOLS,
        block_prefix: Mapping[int, int] = BLOCK_PREFIX,
    ):
        self.stored: dict[tuple[str, str | None, str], dict] = {}
        self._versions = 0
        self._claimed: dict[tuple[str, str], list[str]] = {}
        self._claims: dict[str, int] = {}
        for node in nodes:
            self.add("Node", node)
        for name, cidr in pools.items():
            prefix = block_prefix[ipaddress.ip_network(cidr).version]
            self.add("IPPool", name, spec={"cidr": cidr, "blockSize": prefix})

    def add(self, kind: str, name: str, namespace: str | None = None, **fields) -> dict:
        self._versions += 1
        metadata = {"name": name, "uid": f"uid-{self._versions}", "resourceVersion": str(self._versions)}
        metadata |= {"creationTimestamp": OLD, **fields.pop("metadata", {})}
        if namespace:
            metadata["namespace"] = namespace
        obj = {"kind": kind, "metadata": metadata, **fields}
        self.stored[kind, namespace, name] = obj
        return obj

    def get(self, kind: str, name: str, namespace: str | None = None) -> dict:
        return self.stored[kind, namespace, name]

    def remove(self, kind: str, name: str, namespace: str | None = None) -> dict:
        return self.stored.pop((kind, namespace, name))

    def all(self, kind: str) -> list[dict]:
        return [obj for key, obj in self.stored.items() if key[0] == kind]

    def name_of_first(self, kind: str) -> str:
        return self.all(kind)[0]["metadata"]["name"]

    def namespace(self, name: str, **metadata) -> str:
        self.add("Namespace", name, metadata=metadata)
        return name

    def pod(self, name: str, namespace: str = "payments", node: str = "node-1", pools=("a",), **metadata) -> dict:
        """A running pod with an address of each pool, a handle of its own, and all that belongs to it."""
        if ("Namespace", None, namespace) not in self.stored:
            self.namespace(namespace)
        handle, owner = f"net.{namespace}-{name}", {"namespace": namespace, "node": node, "pod": name}
        addresses = [self.allocate(pool, node, handle, {**owner, "timestamp": OLD_TIMESTAMP}) for pool in pools]
        status = {"phase": "Running", "podIP": addresses[0], "podIPs": [{"ip": address} for address in addresses]}
        return self.add("Pod", name, namespace, metadata=metadata, spec={"nodeName": node}, status=status)

    def tunnel(self, node: str, key: str = "projectcalico.org/IPv4VXLANTunnelAddr", pool: str = "a") -> str:
        """A tunnel address of a node, recorded as Calico does it."""
        kind = "vxlanTunnelAddress" if pool != "six" else "vxlanV6TunnelAddress"
        address = self.allocate(pool, node, f"{kind.lower()}-{node}", {"node": node, "type": kind})
        self.get("Node", node)["metadata"].setdefault("annotations", {})[key] = address
        return address

    def spare(self, node: str, pool: str = "a") -> str:
        """The address by which a node keeps a spare block, as podnet-ipam records it."""
        kind = "vxlanTunnelAddress" if pool != "six" else "vxlanV6TunnelAddress"
        return self.allocate(pool, node, names.spare_handle(node), {"node": node, "type": kind})

    def allocate(self, pool: str, node: str, handle: str | None, owner: dict[str, str]) -> str:
        """An address of the node's first block of the pool with room, as text."""
        stored = next((each for each in self.blocks_of(pool, node) if None in each["spec"]["allocations"]), None)
        stored = stored or self.claim(pool, node)
        block = Block(stored["spec"])
        ordinal = block.assign(handle, owner)
        block.sequence_number += 1
        stored["spec"] = block.spec()
        if handle:
            self._count(handle, block.cidr)
        else:
            self._without_handle(stored, ordinal)
        return str(ipaddress.ip_network(block.cidr).network_address + ordinal)

    def blocks_of(self, pool: str, node: str) -> list[dict]:
        """The blocks that the node has claimed of the pool and that are still its own."""
        claimed = (self.stored.get(("IPAMBlock", None, name)) for name in self._claimed.get((pool, node), ()))
        return [block for block in claimed if block and block["spec"].get("affinity") == f"host:{node}"]

    def claim(self, pool: str, node: str) -> dict:
        """A block of the pool that nobody has yet, with the node's claim."""
        spec, index = self.get("IPPool", pool)["spec"], self._claims.get(pool, 0)
        self._claims[pool] = index + 1
        inside = ipaddress.ip_network(spec["cidr"])
        first = inside.network_address + (index << (inside.max_prefixlen - spec["blockSize"]))
        network = ipaddress.ip_network(f"{first}/{spec['blockSize']}")
        self._claimed.setdefault((pool, node), []).append(names.cidr_name(str(network)))
        block = Block.empty(str(network), network.num_addresses, f"host:{node}", SEQUENCE, OLD)
        self.affinity(node, str(network))
        return self.add("IPAMBlock", names.cidr_name(str(network)), spec=block.spec())

    def affinity(self, node: str, cidr: str, state: str = "confirmed", **metadata) -> dict:
        spec = {"state": state, "node": node, "type": "host", "cidr": cidr, "deleted": "false"}
        metadata = {"labels": names.affinity_labels(node, cidr), **metadata}
        return self.add("BlockAffinity", names.affinity_name(node, cidr), metadata=metadata, spec=spec)

    def handle(self, identity: str, blocks: dict[str, int], **metadata) -> dict:
        spec = {"handleID": identity, "block": blocks, "deleted": False}
        return self.add("IPAMHandle", names.handle_name(identity), metadata=metadata, spec=spec)

    def block_at(self, address: str) -> dict:
        """The block that an address lies in."""
        parsed = ipaddress.ip_address(address)
        return next(each for each in self.all("IPAMBlock") if parsed in ipaddress.ip_network(each["spec"]["cidr"]))

    def forget_allocation(self, address: str) -> None:
        """Free an address in its block and handle, as if nobody had it."""
        stored = self.block_at(address)
        block = Block(stored["spec"])
        ordinal = int(ipaddress.ip_address(address)) - int(ipaddress.ip_network(block.cidr).network_address)
        handle = dict(block.holders())[ordinal]["handle_id"]
        block.release_ordinals([ordinal])
        stored["spec"] = block.spec()
        held = self.get("IPAMHandle", names.handle_name(handle))["spec"]["block"]
        held[block.cidr] -= 1
        if not held[block.cidr]:
            del held[block.cidr]
        if not held:
            self.remove("IPAMHandle", names.handle_name(handle))

    def observed(self, **options) -> Observed:
        """What an audit reads of it."""
        lists = {name: tuple(copy.deepcopy(self.all(kind))) for kind, name in LISTS.items()}
        pools = {each["metadata"]["name"]: copy.deepcopy(each) for each in self.all("IPPool")}
        return Observed(pools=pools, **{"now": NOW, **lists, **options})

    def create_in(self, objects: Objects, group: str) -> None:
        """Create everything on a real API server, in one of Calico's API groups."""
        for key in self.stored:
            self.create_one(objects, group, key)

    def create_one(self, objects: Objects, group: str, key: tuple[str, str | None, str]) -> None:
        """Create one object. Of `objects` only `create` and `patch_status` are used."""
        (kind, namespace, name), obj = key, self.stored[key]
        metadata = {field: obj["metadata"][field] for field in CREATED if field in obj["metadata"]}
        body = {"metadata": metadata, "spec": {**REQUIRED.get(kind, {}), **obj.get("spec", {})}}
        if kind in PLURALS:
            if kind == "BlockAffinity" and group != GROUPS["v1"]:
                body["spec"]["deleted"] = body["spec"]["deleted"] == "true"
            objects.create(f"/apis/{group}/{PLURALS[kind]}", {"apiVersion": group, "kind": kind, **body})
            return
        path = f"/api/v1/{f'namespaces/{namespace}/' if namespace else ''}{kind.lower()}s"
        objects.create(path, body)
        if "status" in obj:
            objects.patch_status(f"{path}/{name}", obj["status"])

    def carry_out(self, operations) -> None:
        """What the API server makes of operations: under compare-and-swap, names are taken once."""
        for operation in operations:
            key = operation.kind, operation.namespace, operation.name
            if operation.verb == "create":
                assert key not in self.stored, f"{key} exists"
                labels = {"labels": operation.body["labels"]} if operation.body.get("labels") else {}
                self.add(*key[::2], metadata=labels, spec=operation.body["spec"])
                continue
            stored = self.stored[key]
            assert stored["metadata"]["resourceVersion"] == operation.observed["metadata"]["resourceVersion"]
            if operation.verb == "delete":
                del self.stored[key]
            else:
                assert operation.verb == "replace"
                self.add(*key[::2], metadata=stored["metadata"], spec=operation.body["spec"])

    def _count(self, handle: str, cidr: str) -> None:
        key = "IPAMHandle", None, names.handle_name(handle)
        counts = self.stored[key]["spec"]["block"] if key in self.stored else {}
        self.handle(handle, {**counts, cidr: counts.get(cidr, 0) + 1})

    @staticmethod
    def _without_handle(stored: dict, ordinal: int) -> None:
        spec = stored["spec"]
        del spec["attributes"][spec["allocations"][ordinal]]["handle_id"]
