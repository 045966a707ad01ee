# Copyright: the podnet.ipam contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    # What a pool assignment is, for the modules that write annotations.

    DOCUMENTATION = r"""
options:
  state:
    description:
      - V(present) sees that the assignments are as declared.
      - V(absent) takes both annotations away.
    type: str
    choices: [present, absent]
    default: present
requirements:
  - netaddr
notes:
  - A pod's annotation wins over its namespace's, for each family by itself, and replaces it. Without any, the pool is
    chosen by the pools' selectors. Several pools are tried in the order in which they are listed.
  - A pool that is asked for by name serves whatever its selectors and its assignment mode say. It must exist, be
    enabled and be of the right family; anything else is refused before the first write.
  - An annotation has an effect only when a pod gets its address. Pods that run keep theirs.
  - "The annotations are C(cni.projectcalico.org/ipv4pools) and C(cni.projectcalico.org/ipv6pools). They are compared by
    meaning: other spacing is no difference. A stored value that is no JSON list of strings is replaced where the family
    is declared, and gives a warning where it is not."
"""
