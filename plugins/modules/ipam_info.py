#!/usr/bin/python
# Copyright: the podnet.ipam contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ipam_info
short_description: Which IPAM a cluster uses, and how full its IP pools are
description:
  - Tells who gives pods their addresses, and what it concluded that from.
  - Lists the IP pools with the addresses in use, from the blocks that nodes have claimed.
author: The podnet.ipam contributors (@podnet)
extends_documentation_fragment:
  - podnet.ipam._attributes
  - podnet.ipam._attributes.info_module
  - podnet.ipam._connection
seealso:
  - module: podnet.ipam.ip_pools
"""

EXAMPLES = r"""
- name: Look at the cluster
  podnet.ipam.ipam_info:
  register: ipam

- name: Pools are honoured only by an IPAM that knows them
  ansible.builtin.assert:
    that: ipam.engine in ['calico', 'podnet']
    fail_msg: "{{ ipam.evidence | join('; ') }}"
"""

RETURN = r"""
engine:
  description:
    - V(calico), V(host-local), V(podnet) (the node plugin of this collection), or V(unknown).
    - What nodes were set up with by this collection's role weighs most, then the Calico operator's C(Installation),
      then the ConfigMap C(calico-config).
  returned: always
  type: str
  sample: podnet
evidence:
  description: What was seen, the weightiest first.
  returned: always
  type: list
  elements: str
  sample:
    - "3 of 3 nodes have IPAM plugin podnet-ipam (annotation ipam.podnet.io/cni: node-1, node-2, node-3)"
    - crd.projectcalico.org/v1 is served, with 4 IPPools and 7 IPAMBlocks
api_group:
  description: The API group and version that IP pools were read from; null when the cluster serves none.
  returned: always
  type: str
  sample: crd.projectcalico.org/v1
pools:
  description: The pools by name, with the options of M(podnet.ipam.ip_pools), defaults filled in.
  returned: always
  type: list
  elements: dict
  contains:
    size:
      description: Number of addresses.
      type: int
      returned: always
    used:
      description: Number of addresses that are allocated.
      type: int
      returned: always
    free:
      description: Number of addresses that are not allocated.
      type: int
      returned: always
    blocks:
      description: Number of blocks that exist.
      type: int
      returned: always
  sample:
    - name: rack-1
      cidr: 10.244.0.0/18
      block_size: 26
      node_selector: rack == '1'
      namespace_selector: ""
      nat_outgoing: false
      ipip_mode: Never
      vxlan_mode: Never
      disabled: false
      disable_bgp_export: false
      allowed_uses: [Workload, Tunnel]
      assignment_mode: Automatic
      labels: {app.kubernetes.io/managed-by: podnet.ipam}
      size: 16384
      used: 23
      free: 16361
      blocks: 2
"""

from ansible_collections.podnet.ipam.plugins.module_utils import _argspec, _runner
from ansible_collections.podnet.ipam.plugins.module_utils._kube import observe
from ansible_collections.podnet.ipam.plugins.module_utils._plan import info


def main():
    module = _argspec.create_module({})
    with _runner.reported(module):
        client = _runner.connect(module)
        api, pools = observe.pools(client)
        observed = info.Observed(
            nodes=tuple(observe.nodes(client)),
            installation=observe.installation(client),
            calico_config=observe.calico_config(client),
            pools=tuple(pools.values()),
            blocks=tuple(observe.collection(client, api, "IPAMBlock")),
            api_group=api.group_version if api else None,
        )
    engine, evidence = info.engine(observed)
    result = {"engine": engine, "evidence": evidence, "api_group": observed.api_group, "pools": info.usage(observed)}
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
