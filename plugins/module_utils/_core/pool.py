# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""A pool: a CIDR split into blocks, and the rules for who may draw from it.

Source of fields, defaults and limits: IPPool of Calico 3.29 to 3.32.
"""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass

from . import names, selector

AUTOMATIC = "Automatic"
MANUAL = "Manual"
WORKLOAD = "Workload"
ALLOWED_USES = (WORKLOAD, "Tunnel", "LoadBalancer")
TUNNEL_MODES = ("Never", "Always", "CrossSubnet")

DEFAULT_BLOCK_SIZE = {4: 26, 6: 122}
BLOCK_SIZES = {4: (20, 32), 6: (116, 128)}
_LONGEST_SELECTOR = 1024  # characters
_LINK_LOCAL = {4: ipaddress.ip_network("169.254.0.0/16"), 6: ipaddress.ip_network("fe80::/10")}


@dataclass(frozen=True)
class Pool:
    """An IPPool with the defaults that Calico applies when it reads one. `block_size` is a prefix length."""

    name: str
    network: object
    block_size: int
    node_selector: str = "all()"
    namespace_selector: str = ""
    disabled: bool = False
    allowed_uses: tuple = (WORKLOAD, "Tunnel")
    assignment_mode: str = AUTOMATIC
    allocatable: bool = True

    @classmethod
    def from_object(cls, obj):
        """Read a stored IPPool (dict with metadata, spec and perhaps status). ValueError when it has no usable CIDR.

        Calico's own read-time rules: host bits mean nothing, and a pool that is being deleted, or whose condition
        `Allocatable` is False, gives no new addresses.
        """
        name, spec = obj["metadata"]["name"], obj["spec"]
        try:
            network = names.network(spec.get("cidr") or "", strict=False)
        except ValueError as error:
            raise ValueError(f"IPPool {name}: spec.cidr: {error}") from None
        conditions = (obj.get("status") or {}).get("conditions") or ()
        refused = any(c.get("type") == "Allocatable" and c.get("status") == "False" for c in conditions)
        return cls(
            name=name,
            network=network,
            block_size=spec.get("blockSize") or DEFAULT_BLOCK_SIZE[network.version],
            node_selector=spec.get("nodeSelector") or "all()",
            namespace_selector=spec.get("namespaceSelector") or "",
            disabled=bool(spec.get("disabled")),
            allowed_uses=tuple(spec.get("allowedUses") or (WORKLOAD, "Tunnel")),
            assignment_mode=spec.get("assignmentMode") or AUTOMATIC,
            allocatable=not refused and not obj["metadata"].get("deletionTimestamp"),
        )

    @property
    def cidr(self):
        return str(self.network)

    @property
    def family(self):
        """4 or 6."""
        return self.network.version

    @property
    def enabled(self):
        """Whether new addresses may come from it at all."""
        return self.allocatable and not self.disabled

    @property
    def is_for_services(self):
        """Whether it gives addresses to services of type LoadBalancer and to nothing else."""
        return self.allowed_uses == ("LoadBalancer",)

    @property
    def block_count(self):
        return 1 << (self.block_size - self.network.prefixlen) if self.block_size >= self.network.prefixlen else 0

    @property
    def block_addresses(self):
        """Addresses in one block."""
        return 1 << (self.network.max_prefixlen - self.block_size)

    @property
    def gateway(self):
        """The pool's first address, which `ptp` and `bridge` put on the host side of the pool's pods."""
        return self.network.network_address

    @property
    def kept(self):
        """The addresses that no pod gets unasked where main plugins make the pool an IP subnet: the gateway, and the
        IPv4 broadcast address, at which nobody could reach it.
        """
        has_broadcast = self.family == 4 and self.network.num_addresses > 2
        return (self.gateway, self.network.broadcast_address) if has_broadcast else (self.gateway,)

    def block_cidr(self, index):
        """The text of block `index`, counted from 0 at the start of the pool."""
        return f"{self.network.network_address + index * self.block_addresses}/{self.block_size}"

    def contains(self, cidr):
        """Whether an address or a block (text or network) lies inside of the pool."""
        network = names.network(cidr)
        return network.version == self.family and network.subnet_of(self.network)

    def block_of(self, address):
        """The text of the block that an address (text) of the pool lies in."""
        return str(ipaddress.ip_network((address, self.block_size), strict=False))

    def block_order(self, node, taken):
        """Indices of blocks that are not in `taken` (a set of block CIDRs), in the order a node should claim them.

        Each node starts at a place of its own, so that nodes rarely compete for one block; any order is compatible
        with Calico's. Lazy, because an IPv6 pool has more blocks than can be listed: `taken` ends the search, since
        at most len(taken) + 1 places have to be looked at before a free one turns up.
        """
        digest = hashlib.sha256(f"{node} {self.network}".encode()).digest()
        start = int.from_bytes(digest, "big") % max(self.block_count, 1)
        for step in range(self.block_count):
            index = (start + step) % self.block_count
            if self.block_cidr(index) not in taken:
                yield index

    def selects_node(self, labels):
        """Whether nodeSelector matches a node's labels; a malformed selector matches none."""
        try:
            return bool(selector.parse(self.node_selector)(labels))
        except selector.SelectorError:
            return False

    def why_not_automatic(self, node_labels, namespace_labels):
        """Why the pool does not serve this node and namespace unasked; None when it does."""
        if self.assignment_mode != AUTOMATIC:
            return f"assignmentMode is {self.assignment_mode}: it serves only who asks for it by name"
        try:
            if not selector.parse(self.node_selector)(node_labels):
                return f"nodeSelector {self.node_selector!r} does not match the node's labels"
            if not selector.parse(self.namespace_selector)(namespace_labels):
                return f"namespaceSelector {self.namespace_selector!r} does not match the namespace's labels"
        except selector.SelectorError as error:
            return str(error)
        return None

    def why_not_usable(self):
        """Why the pool gives no workload an address, not even one that asks for it; None when it does."""
        if self.disabled:
            return "it is disabled"
        if not self.allocatable:
            return "it is being deleted or marked as not allocatable"
        if WORKLOAD not in self.allowed_uses:
            return f"allowedUses {list(self.allowed_uses)} does not contain Workload"
        if self.block_count == 0:
            return f"its blockSize {self.block_size} is larger than the pool itself"
        return None


def pool_of(cidr, pools):
    """The first of the pools that an address or a block (text or network) lies in, or None."""
    return next((pool for pool in pools if pool.contains(cidr)), None)


def spec_problems(spec):
    """What Calico's validation would refuse in an IPPool spec, as a list of (field, message); empty when it is fine."""
    try:
        network = names.network(spec.get("cidr") or "")
    except ValueError:
        network = None
        found = [("cidr", f"{spec.get('cidr')!r} is not a CIDR without host bits: {_what_is_right(spec.get('cidr'))}")]
    else:
        found = _cidr_problems(network, spec)
    return [*found, *_tunnel_problems(network, spec), *_selector_problems(spec), *_use_problems(spec)]


def _what_is_right(cidr):
    try:
        return f"the range is {names.network(cidr or '', strict=False)}"
    except ValueError as error:
        return error


def _cidr_problems(network, spec):
    smallest, largest = BLOCK_SIZES[network.version]
    block_size = spec.get("blockSize") or DEFAULT_BLOCK_SIZE[network.version]
    if not smallest <= block_size <= largest:
        yield "blockSize", f"{block_size} is outside of {smallest}..{largest}, the sizes for IPv{network.version}"
    elif block_size < network.prefixlen and not spec.get("disabled"):
        yield "blockSize", f"{block_size} is larger than the pool {network}: it must be /{network.prefixlen} or longer"
    if network.overlaps(_LINK_LOCAL[network.version]):
        yield "cidr", f"{network} overlaps the link-local range {_LINK_LOCAL[network.version]}"


def _tunnel_problems(network, spec):
    modes = {field: spec.get(field) or "Never" for field in ("ipipMode", "vxlanMode")}
    for field, mode in modes.items():
        if mode not in TUNNEL_MODES:
            yield field, f"{mode!r} is none of {', '.join(TUNNEL_MODES)}"
    if all(mode != "Never" for mode in modes.values()):
        yield "vxlanMode", f"{modes['vxlanMode']} excludes ipipMode {modes['ipipMode']}: a pool has one encapsulation"
    if network and network.version == 6 and modes["ipipMode"] != "Never":
        yield "ipipMode", f"{modes['ipipMode']} is for IPv4 only: an IPv6 pool needs Never"


def _selector_problems(spec):
    for field in ("nodeSelector", "namespaceSelector"):
        text = spec.get(field) or ""
        if len(text) > _LONGEST_SELECTOR:
            yield field, f"it has {len(text)} characters; at most {_LONGEST_SELECTOR} are allowed"
            continue
        try:
            selector.parse(text)
        except selector.SelectorError as error:
            yield field, str(error)


def _use_problems(spec):
    uses = list(spec.get("allowedUses") or ())
    for use in uses:
        if use not in ALLOWED_USES:
            yield "allowedUses", f"{use!r} is none of {', '.join(ALLOWED_USES)}"
    if "LoadBalancer" in uses:
        yield from _load_balancer_problems(spec, uses)
    if "Tunnel" in uses and spec.get("namespaceSelector"):
        yield "allowedUses", f"{uses}: a pool with a namespaceSelector cannot serve tunnels; leave Tunnel out"
    mode = spec.get("assignmentMode") or AUTOMATIC
    if mode not in (AUTOMATIC, MANUAL):
        yield "assignmentMode", f"{mode!r} is none of {AUTOMATIC}, {MANUAL}"


def _load_balancer_problems(spec, uses):
    """The addresses of services are announced, whichever node they are on: neither tunnels nor nodes matter."""
    if len(uses) > 1:
        yield "allowedUses", f"{uses}: LoadBalancer cannot be combined with another use"
    for field in ("ipipMode", "vxlanMode"):
        if (spec.get(field) or "Never") != "Never":
            yield field, f"{spec[field]} is not for a pool for LoadBalancer: it needs Never"
    if spec.get("disableBGPExport"):
        yield "disableBGPExport", "True is not for a pool for LoadBalancer: its addresses have to be announced"
    if (spec.get("nodeSelector") or "all()") != "all()":
        yield "nodeSelector", f"{spec['nodeSelector']!r} is not for a pool for LoadBalancer: it needs all()"
