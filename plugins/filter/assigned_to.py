# Copyright: the podnet.ipam contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter `assigned_to`, which is documented in the YAML file of its name."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from ansible_collections.podnet.ipam.plugins.module_utils._plan import ranges
from ansible_collections.podnet.ipam.plugins.plugin_utils._ranges import Arguments

ADDRESSES = "ip_addrs"
OPTIONS = ("ipv4_pools", "ipv6_pools", ADDRESSES)


def assigned_to(assignments, pools):
    arguments = Arguments("assigned_to")
    wanted = [_pool(pool, f"pools[{index}]", arguments) for index, pool in enumerate(arguments.list(pools, "pools"))]
    found = []
    for index, item in enumerate(arguments.list(assignments, "the input")):
        if not isinstance(item, Mapping):
            raise arguments.error(f"the input[{index}]", item, "an assignment, a mapping")
        found += _asking(item, wanted)
    return found


def _pool(value, what, arguments):
    name = arguments.name(value, what)
    return name, ipaddress.ip_network(arguments.range(value, what))


def _asking(item, pools):
    for field in OPTIONS:
        entries = item.get(field)
        # A malformed annotation, which asks for nothing, is shown as its text.
        for entry in entries if isinstance(entries, (list, tuple)) else ():
            if any(_means(field, entry, *pool) for pool in pools):
                who = _who(item)
                text = f"{who} {'asks' if item.get('name') else 'ask'} for {entry}"
                yield {"object": who, "field": field, "value": str(entry), "text": text}


def _means(field, entry, name, network):
    """Whether an entry of an option means a pool: by name or CIDR, or by an address of it."""
    asked = ranges.network(entry)
    if field == ADDRESSES:
        return asked is not None and asked.version == network.version and asked.subnet_of(network)
    return entry == name if asked is None else asked == network


def _who(item):
    """The object that an assignment is for, as the modules name it."""
    if item.get("kind"):
        return f"{item['kind']} {item.get('namespace')}/{item.get('name')}"
    if item.get("name"):
        return f"namespace {item['name']}"
    return f"namespaces with {list(item.get('label_selectors') or ())}"


class FilterModule:
    """The filter, by name."""

    def filters(self):
        return {"assigned_to": assigned_to}
