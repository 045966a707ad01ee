# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""What values the role's variables may have, beyond their types, so that bad ones are told before anything changes.

It runs on nodes with whatever Python they have: standard library only, from 3.9 on.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from types import MappingProxyType

from ._core.endpoint import loopback_endpoint
from ._core.names import OBJECT_NAME

INTERFACES = "/sys/class/net"
# Below these, the CNI configuration is not the role's to write.
WITHOUT_CONFLIST = ("calico", "none")
# Source: macvlan and ipvlan of the CNI plugins, 1.0 to 1.9.
MODES = MappingProxyType({"macvlan": ("bridge", "private", "vepa", "passthru"), "ipvlan": ("l2", "l3", "l3s")})
# Source: Linux's IFNAMSIZ and dev_valid_name.
_LONGEST_INTERFACE_NAME = 15
_INTERFACE_NAME = re.compile(rf"(?!\.{{1,2}}$)[^\s/:]{{1,{_LONGEST_INTERFACE_NAME}}}")
# IPv4 needs 68 bytes of a link (RFC 791), IPv6 needs 1280 (RFC 8200).
_SMALLEST_MTU = MappingProxyType({"IPv4": 68, "IPv6": 1280})
_LARGEST_MTU = 65535
# The API server grants no token for less (TokenRequest).
_SHORTEST_TOKEN = 600
_FOLDERS = ("install_dir", "config_dir", "bin_dir", "net_dir")


def complaints(given, interfaces=INTERFACES):
    """What is wrong with the options `given` of node_preflight: a text for each, with variable, value and remedy.

    `interfaces` is the folder that lists this machine's network interfaces.
    """
    rules = (_numbers, _mtu, _families, _addresses, _metrics, _names, _folders, _main_plugin)
    found = [each for rule in rules for each in rule(given)]
    if given["main_plugin"] in MODES:
        found += _segment(given, interfaces)
    return [f"cni_ipam_{each}" for each in found]


def _numbers(given):
    for name, what in (
        ("cooldown", "seconds"),
        ("keep_blocks", "seconds"),
        ("spare_blocks", "blocks"),
        ("test_seconds", "seconds"),
    ):
        if given[name] < 0:
            yield f"{name} is {given[name]}; a number of {what} is expected, not below 0"
    if given["token_lifetime"] < _SHORTEST_TOKEN:
        shortest = f"{_SHORTEST_TOKEN} seconds are the least that the API server grants"
        yield f"token_lifetime is {given['token_lifetime']}; {shortest}"


def _mtu(given):
    smallest = max(map(_SMALLEST_MTU.get, given["families"]), default=0)
    if given["mtu"] and not smallest <= given["mtu"] <= _LARGEST_MTU:
        families = " and ".join(given["families"])
        hint = f"0 for the plugin's own, or {smallest} to {_LARGEST_MTU} for {families}"
        yield f"mtu is {given['mtu']}; expected is {hint}"


def _families(given):
    if not given["families"]:
        yield "families is empty; pods need IPv4, IPv6 or both"


def _addresses(given):
    for name, parse, what in (
        ("gateways", ipaddress.ip_address, "an address"),
        ("subnets", ipaddress.ip_network, "a CIDR without host bits"),
    ):
        for text in given[name]:
            try:
                parse(text)
            except ValueError:
                yield f"{name} has {text!r}; {what} is expected"


def _metrics(given):
    try:
        if given["metrics"]:
            loopback_endpoint(given["metrics"])
    except ValueError as error:
        yield f"metrics is {error}, or an empty text for none"


def _names(given):
    # It is part of the names of handles, beside a container's id.
    if not OBJECT_NAME.fullmatch(given["network"].lower()):
        hint = "letters, digits, '-' and '.' are allowed, as it becomes a part of objects' names"
        yield f"network_name is {given['network']!r}; {hint}"
    if given["main_plugin"] not in WITHOUT_CONFLIST:
        yield from _conflist(given)


def _conflist(given):
    # Source: libcni reads a list of plugins only from files with this suffix.
    if os.path.basename(given["conflist"]) != given["conflist"] or not given["conflist"].endswith(".conflist"):
        hint = f"the name of a file in {given['net_dir']} that ends in .conflist is expected"
        yield f"conflist is {given['conflist']!r}; {hint}"


def _folders(given):
    for name in _FOLDERS:
        if not os.path.isabs(given[name]):
            yield f"{name} is {given[name]!r}; an absolute path is expected"


def _main_plugin(given):
    if given["main_plugin"] == "bridge" and not _INTERFACE_NAME.fullmatch(given["bridge"]):
        hint = "15 characters at most, none of them '/', ':' or a space, and not '.' or '..'"
        yield f"bridge is {given['bridge']!r}; the name of a network interface is expected: {hint}"


def _segment(given, interfaces):
    """Of the plugins that put pods on the link of one of the node's interfaces."""
    modes = MODES[given["main_plugin"]]
    if given["mode"] not in ("", *modes):
        yield f"mode is {given['mode']!r}; {given['main_plugin']} has {', '.join(modes)}"
    present = sorted(os.listdir(interfaces))
    if given["master"] and given["master"] not in present and not _may_be_alternative(given["master"]):
        yield f"master is {given['master']!r}, and the node has no such interface; it has {', '.join(present)}"


def _may_be_alternative(name):
    """Whether an interface may have this alternative name, which the folder of interfaces does not list."""
    if len(os.fsencode(name)) > _LONGEST_INTERFACE_NAME:
        # Only netlink knows: by what socket offers, none of these is found.
        return True
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True
