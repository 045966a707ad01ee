# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""What ADD answers, so that the main plugin makes an interface of it that works.

The prefix length of an address tells the pod which addresses lie on its link, so it depends on what the main plugin
makes:

    main plugin              prefix  gateway                     why
    ptp                      pool    the pool's first address    the plugin puts it on the node's end of each pod, so
                                                                 one address serves all pods and nodes
    bridge as gateway        pool    the pool's first address    the plugin puts it on each node's bridge
    macvlan, ipvlan in L2,   pool    only one that is configured the pool lies on a segment that the nodes share
    other bridges, others
    ipvlan in L3 and L3S     host    none                        the kernel routes by device; nobody answers for others

A bridge is the node's own, but the plugin gives it one IPv4 address with one prefix, whatever number of blocks the
node has. So a part of the prefix is on other nodes, and pods must not look for it on the link: routes to both halves of
the prefix, through the gateway, win over the link's own. With several pools on one bridge, `subnets` names a network
that they all lie in.

A pod gets a default route in each family in which it has a gateway. Keys of the configuration's `ipam` object that say
otherwise:

    subnets   CIDRs of the links that pools lie on, where these are larger than the pool
    gateway   an address, or a list of addresses: in each family the first that lies on the link
    routes    objects with `dst`, as the CNI specification has them, in place of the default routes; [] for none

Under the name `calico-ipam` the answer is what Calico's main plugin expects of its own IPAM plugin (3.29 to 3.32): the
block's prefix length, or the host's for an address that was asked for, and a route to the very same text for each
address, without which 3.32 leaves the node's route to the pod out.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeVar

from .attachments import Address
from .calico import is_calico
from .errors import ALREADY_ASSIGNED, INVALID_CONFIGURATION, CniError

_LAST_WITH_FAMILY = ("0.3.1", "0.4.0")
_DEFAULT_ROUTES = {4: "0.0.0.0/0", 6: "::/0"}

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network
T = TypeVar("T")


class Link(Enum):
    """What the main plugin connects a pod to."""

    POINT_TO_POINT = auto()
    NODE_BRIDGE = auto()
    SEGMENT = auto()
    ROUTED = auto()
    CALICO = auto()

    @classmethod
    def of(cls, config: dict) -> Link:
        """The link that a network configuration, which is the main plugin's own, describes."""
        if is_calico(config):
            return cls.CALICO
        plugin = config.get("type")
        if plugin == "ptp":
            return cls.POINT_TO_POINT
        if plugin == "bridge" and (config.get("isGateway") or config.get("isDefaultGateway")):
            return cls.NODE_BRIDGE
        if plugin == "ipvlan" and config.get("mode") in ("l3", "l3s"):
            return cls.ROUTED
        return cls.SEGMENT


@dataclass(frozen=True)
class Results:
    """How addresses are answered to one network configuration. `routes` is None where the default ones are meant.

    `gateways` are for every address, `range_gateways` only for those on their links.
    """

    link: Link
    subnets: tuple[IPNetwork, ...] = ()
    gateways: tuple[IPAddress, ...] = ()
    range_gateways: tuple[IPAddress, ...] = ()
    routes: tuple[dict, ...] | None = None

    @classmethod
    def of(cls, config: dict, range_gateways: tuple[IPAddress, ...]) -> Results:
        """Read a network configuration; its ranges are read already. CniError names the key that cannot be used."""
        plugin = config.get("ipam") or {}
        gateway = plugin.get("gateway") or []
        gateways = [gateway] if isinstance(gateway, str) else gateway
        return cls(
            link=Link.of(config),
            subnets=_parsed("subnets", plugin.get("subnets") or [], ipaddress.ip_network, "CIDRs"),
            gateways=_parsed("gateway", gateways, ipaddress.ip_address, "addresses"),
            range_gateways=range_gateways,
            routes=_parsed_routes(plugin.get("routes")),
        )

    @property
    def pools_are_subnets(self) -> bool:
        """Whether pods see their pool as an IP subnet."""
        return self.link not in (Link.CALICO, Link.ROUTED)

    def result(self, version: str, held: Sequence[Address], asked: bool) -> dict:
        """The answer in a CNI version. `asked` tells whether the caller asked for these very addresses.

        CniError when an address cannot be used on this link.
        """
        ips, routes = [], []
        for address in held:
            own = ipaddress.ip_address(address.address)
            network = self._network(address, own, asked)
            entry = {"address": f"{own}/{network.prefixlen}"}
            gateway = self._gateway(own, network)
            if gateway == own:
                raise CniError(ALREADY_ASSIGNED, f"address {own} is its network's gateway and cannot be a pod's")
            if gateway is not None:
                entry["gateway"] = str(gateway)
            if version in _LAST_WITH_FAMILY:
                entry["version"] = str(own.version)
            ips.append(entry)
            routes += self._routes(entry, own.version)
            if self.link is Link.NODE_BRIDGE and gateway is not None:
                routes += _through(gateway, network)
        return {"cniVersion": version, "ips": ips, "routes": routes, "dns": {}}

    def _network(self, address: Address, own: IPAddress, asked: bool) -> IPNetwork:
        """The addresses that lie on the link of the pod that holds `address`."""
        configured = next((subnet for subnet in self.subnets if own in subnet), None)
        if configured is not None:
            return configured
        if self.link is Link.CALICO and not asked:
            return ipaddress.ip_network(address.block)
        if self.link in (Link.CALICO, Link.ROUTED) or address.pool is None:
            return ipaddress.ip_network(own)
        return address.pool.network

    def _gateway(self, own: IPAddress, network: IPNetwork) -> IPAddress | None:
        configured = [gateway for gateway in self.gateways if gateway.version == own.version]
        usable = [gateway for gateway in (*self.range_gateways, *configured) if gateway in network]
        if configured and not usable:
            message = f"ipam.gateway: {', '.join(map(str, configured))} does not lie in {network}, the link of {own}"
            hint = "name a gateway of that link, or the link's own CIDR in ipam.subnets"
            raise CniError(INVALID_CONFIGURATION, f"{message}; {hint}")
        if usable:
            return usable[0]
        made_by_plugin = self.link in (Link.POINT_TO_POINT, Link.NODE_BRIDGE)
        # Without a pool there is no network either, only the address itself.
        return network.network_address if made_by_plugin and network.num_addresses > 1 else None

    def _routes(self, entry: dict, family: int) -> list[dict]:
        if self.routes is not None:
            return [route for route in self.routes if ipaddress.ip_network(route["dst"]).version == family]
        if self.link is Link.CALICO:
            return [{"dst": entry["address"]}]
        if "gateway" in entry:
            return [{"dst": _DEFAULT_ROUTES[family], "gw": entry["gateway"]}]
        return [{"dst": _DEFAULT_ROUTES[family]}] if self.link is Link.ROUTED else []


def _through(gateway: IPAddress, network: IPNetwork) -> list[dict]:
    """Routes to all of the network through a gateway in it, in the order in which a kernel takes them.

    They win over the route to the link, as they are longer. The gateway's own half is last: with it, the gateway
    itself no longer counts as an address of the link, which a next hop has to be when its route is made.
    """
    halves = sorted(network.subnets(), key=lambda half: gateway in half)
    return [{"dst": str(half), "gw": str(gateway)} for half in halves]


def _parsed(key: str, texts: object, parse: Callable[[str], T], expected: str) -> tuple[T, ...]:
    try:
        return tuple(parse(text) for text in texts)
    except (TypeError, ValueError) as error:
        raise CniError(INVALID_CONFIGURATION, f"ipam.{key} is {texts!r}: {error}; {expected} are expected") from None


def _parsed_routes(routes: object) -> tuple[dict, ...] | None:
    if routes is None:
        return None
    try:
        for route in routes:
            ipaddress.ip_network(route["dst"])
    except (KeyError, TypeError, ValueError) as error:
        message = f"ipam.routes is {routes!r}: {error!r}; objects with a CIDR as dst are expected"
        raise CniError(INVALID_CONFIGURATION, message) from None
    return tuple(routes)
