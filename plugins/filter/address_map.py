# Copyright: the podnet.ipam contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter `address_map`, which is documented in the YAML file of its name."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from ansible_collections.podnet.ipam.plugins.plugin_utils._address_map import draw
from ansible_collections.podnet.ipam.plugins.plugin_utils._ranges import Arguments

SUBSETS = ("pools", "blocks")


def address_map(ipam, within=()):
    arguments = Arguments("address_map")
    if not isinstance(ipam, Mapping) or any(subset not in ipam for subset in SUBSETS):
        expected = "what podnet.ipam.ipam_info returned with gather_subset: [pools, blocks]"
        raise arguments.error("the input", sorted(ipam) if isinstance(ipam, Mapping) else ipam, expected)
    pools, blocks = (arguments.list(ipam[subset], f"the input.{subset}") for subset in SUBSETS)
    networks = [ipaddress.ip_network(cidr) for cidr in arguments.cidrs(within, "within")]
    return draw(pools, blocks, networks)


class FilterModule:
    """The filter, by name."""

    def filters(self):
        return {"address_map": address_map}
