# Copyright: the podnet.ipam contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    # What all modules promise, and their membership of the action group.

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return the changed status prediction without modifying the cluster.
    support: full
  diff_mode:
    description: Returns details on what has changed, or would change in C(check_mode), when in diff mode.
    support: full
  idempotent:
    description: When run twice in a row outside of check mode with the same options, the second run changes nothing.
    support: full
  action_group:
    description: Use C(group/podnet.ipam.ipam) in C(module_defaults) to set the connection options for all modules.
    support: full
    membership:
      - podnet.ipam.ipam
"""

    # For modules that only look at the machine that they run on: they reach no cluster.
    NODE_INFO = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return the changed status prediction without modifying the node.
    support: full
    details: This module does not change anything.
  diff_mode:
    description: Returns details on what has changed, or would change in C(check_mode), when in diff mode.
    support: N/A
    details: This module does not change anything.
"""

    # For modules that only read.
    INFO_MODULE = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return the changed status prediction without modifying the cluster.
    support: full
    details: This module does not change anything.
  diff_mode:
    description: Returns details on what has changed, or would change in C(check_mode), when in diff mode.
    support: N/A
    details: This module does not change anything.
  idempotent:
    description: When run twice in a row outside of check mode with the same options, the second run changes nothing.
    support: full
    details: This module does not change anything.
  action_group:
    description: Use C(group/podnet.ipam.ipam) in C(module_defaults) to set the connection options for all modules.
    support: full
    membership:
      - podnet.ipam.ipam
"""
