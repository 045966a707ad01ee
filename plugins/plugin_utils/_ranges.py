# Copyright: the podnet.ipam contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What filters and tests are given: ranges, as CIDRs or as pools, each checked and named when it is wrong."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from ansible.errors import AnsibleFilterError
from ansible.module_utils.basic import missing_required_lib
from ansible_collections.podnet.ipam.plugins.module_utils._plan import ranges
from jinja2 import Undefined

EXPECTED = "a CIDR without host bits, such as 10.244.0.0/16"


def require_netaddr(plugin):
    """AnsibleFilterError where the controller has no netaddr."""
    if ranges.NETADDR_IMPORT_ERROR:
        raise AnsibleFilterError(f"podnet.ipam.{plugin}: {missing_required_lib('netaddr')}")


class Arguments:
    """The arguments of the filter or test `plugin`; every method returns a checked value or raises an error."""

    def __init__(self, plugin):
        self.plugin = plugin

    def error(self, what, value, expected):
        if isinstance(value, Undefined):
            str(value)  # Jinja's own error names the variable; before ansible-core 2.19 it is for the plugin to raise
        return AnsibleFilterError(f"podnet.ipam.{self.plugin}: {what}: {value!r} is not {expected}")

    def cidr(self, value, what):
        """The canonical text of a CIDR; an address counts as a range of one."""
        if isinstance(value, str):
            try:
                return str(ipaddress.ip_network(str(value)))
            except ValueError:
                pass
        raise self.error(what, value, EXPECTED)

    def cidrs(self, value, what):
        """The CIDRs of one range or of a list of ranges."""
        if isinstance(value, (str, Mapping)):
            return [self.range(value, what)]
        if not isinstance(value, Iterable):
            raise self.error(what, value, f"{EXPECTED}, nor a pool, nor a list of these")
        return [self.range(entry, f"{what}[{index}]") for index, entry in enumerate(value)]

    def range(self, value, what):
        """The CIDR of a range: a CIDR, or a pool, a mapping with the key `cidr`."""
        if not isinstance(value, Mapping):
            return self.cidr(value, what)
        if "cidr" not in value:
            raise self.error(what, value, "a pool: the key cidr is missing")
        return self.cidr(value["cidr"], f"{what}.cidr")

    def list(self, value, what):
        """A list, also of what Jinja's own filters make of one, such as `map`."""
        if isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
            raise self.error(what, value, "a list")
        return list(value)

    def name(self, value, what):
        if not isinstance(value, Mapping):
            raise self.error(what, value, "a mapping with the key name")
        name = value.get("name")
        if not isinstance(name, str) or not name:
            raise self.error(f"{what}.name", name, "a name")
        return str(name)

    def number(self, value, what):
        """A whole number, also as the text that a template makes of it; None stays None."""
        if value is None:
            return None
        if isinstance(value, str) and value.isdecimal():
            return int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(what, value, "a whole number")
        return int(value)
