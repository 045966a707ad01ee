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
      - V(absent) takes all annotations of an assignment away.
    type: str
    choices: [present, absent]
    default: present
  declared_pools:
    description:
      - Pools that the same play declares with M(podnet.ipam.ip_pools), in the form of its option
        O(podnet.ipam.ip_pools#module:pools).
      - They count as existing, and what is declared here wins over what the cluster has. So a declaration can be
        checked as a whole, and check mode works on a cluster where the pools do not exist yet.
      - Only C(name), C(cidr), C(block_size), C(disabled) and C(allowed_uses) are looked at.
    type: list
    elements: dict
    default: []
requirements:
  - netaddr
notes:
  - A pod's annotation wins over its namespace's, for each annotation by itself, and replaces it. Without any, the pool
    is chosen by the pools' selectors. Several pools are tried in the order in which they are listed.
  - A pool that is asked for by name serves whatever its selectors and its assignment mode say. It must exist, be
    enabled and be of the right family; anything else is refused before the first write.
  - An annotation has an effect only when a pod gets its address. Pods that run keep theirs.
  - "The annotations are C(cni.projectcalico.org/ipv4pools), C(cni.projectcalico.org/ipv6pools) and
    C(cni.projectcalico.org/ipFamilies). They are compared by meaning: other spacing, or another order of families, is
    no difference. A stored value that is not what Calico expects is replaced where it is declared, and gives a warning
    where it is left alone."
  - Calico honours C(cni.projectcalico.org/ipFamilies) from 3.30 on.
"""
