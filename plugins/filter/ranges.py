# Copyright: the podnet.ipam contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters for planning ranges. Each is documented in the YAML file of its name."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from ansible.errors import AnsibleFilterError
from ansible_collections.podnet.ipam.plugins.module_utils._core.carve import CarveError, Part
from ansible_collections.podnet.ipam.plugins.module_utils._core.carve import carve as carve_parts
from ansible_collections.podnet.ipam.plugins.module_utils._plan import ranges
from ansible_collections.podnet.ipam.plugins.plugin_utils._ranges import Arguments, require_netaddr

SIZES = ("prefix", "addresses")


def carve(cidr, pools, existing=None):
    arguments = Arguments("carve")
    cidr = arguments.cidr(cidr, "the input")
    items = arguments.list(pools, "pools")
    parts = [_part(item, f"pools[{index}]", arguments) for index, item in enumerate(items)]
    try:
        places = carve_parts(cidr, parts, _existing(existing, arguments))
    except CarveError as error:
        raise AnsibleFilterError(f"podnet.ipam.carve: {error}") from error
    return [
        {"name": part.name, "cidr": place, **{key: item[key] for key in item if key not in ("name", *SIZES)}}
        for part, place, item in zip(parts, places, items)
    ]


def free_space(cidr, used=()):
    require_netaddr("free_space")
    arguments = Arguments("free_space")
    return ranges.remaining(arguments.cidrs(cidr, "the input"), arguments.cidrs(used, "used"))


def summarise(cidrs):
    require_netaddr("summarise")
    return ranges.merged(Arguments("summarise").cidrs(cidrs, "the input"))


def overlaps(entries):
    arguments = Arguments("overlaps")
    entries = arguments.list(entries, "the input")
    cidrs = [arguments.range(entry, f"the input[{index}]") for index, entry in enumerate(entries)]
    networks = [(index, ipaddress.ip_network(cidr)) for index, cidr in enumerate(cidrs)]
    shown = [
        {"name": entry.get("name"), "cidr": cidr} if isinstance(entry, Mapping) else cidr
        for entry, cidr in zip(entries, cidrs)
    ]
    return [[shown[outer], shown[inner]] for outer, inner in ranges.overlaps(networks)]


def _part(item, what, arguments):
    name = arguments.name(item, what)
    if "cidr" in item:
        expected = "needed: the filter finds the place; what has one already belongs into existing"
        raise arguments.error(f"{what}.cidr", item["cidr"], expected)
    return Part(name, **{key: arguments.number(item.get(key), f"{what}.{key}") for key in SIZES})


def _existing(value, arguments):
    """{name: CIDR} of a mapping of that form or of a list of pools."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return {str(name): arguments.cidr(cidr, f"existing.{name}") for name, cidr in value.items()}
    found = {}
    for index, pool in enumerate(arguments.list(value, "existing")):
        what = f"existing[{index}]"
        name = arguments.name(pool, what)
        if name in found:
            raise arguments.error(f"{what}.name", name, "the name of one pool only")
        found[name] = arguments.range(pool, what)
    return found


class FilterModule:
    """The filters, by name."""

    def filters(self):
        return {"carve": carve, "free_space": free_space, "summarise": summarise, "overlaps": overlaps}
