# Copyright: the podnet.ipam contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests on ranges. Each is documented in the YAML file of its name."""

from __future__ import annotations

from ansible_collections.podnet.ipam.plugins.module_utils._plan import ranges
from ansible_collections.podnet.ipam.plugins.plugin_utils._ranges import Arguments, require_netaddr


def overlapping(one, other):
    require_netaddr("overlapping")
    arguments = Arguments("overlapping")
    return ranges.meet(arguments.cidrs(one, "the input"), arguments.cidrs(other, "other"))


def within(inner, outer):
    require_netaddr("within")
    arguments = Arguments("within")
    return ranges.lie_within(arguments.cidrs(inner, "the input"), arguments.cidrs(outer, "outer"))


class TestModule:
    """The tests, by name."""

    def tests(self):
        return {"overlapping": overlapping, "within": within}
