#!/usr/bin/python
# Copyright: the podnet.ipam contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ip_pools
short_description: Declare the ranges that pods get their addresses from
description:
  - Creates, corrects and removes Calico IP pools (C(IPPool)), all of them in one task.
  - A declared pool is declared completely. An option that is left out means Calico's default, and a pool that differs
    from it in the cluster is corrected.
  - Works with the objects in C(crd.projectcalico.org/v1) if the cluster serves them there, else in
    C(projectcalico.org/v3).
author: The podnet.ipam contributors (@podnet)
extends_documentation_fragment:
  - podnet.ipam._attributes
  - podnet.ipam._connection
options:
  pools:
    description:
      - The pools. With O(state=absent), only their names matter.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the pool.
        type: str
        required: true
      cidr:
        description:
          - The range, without host bits, such as V(10.244.0.0/18). Required with O(state=present).
          - Cannot be changed once the pool exists.
        type: str
      block_size:
        description:
          - Prefix length of the blocks that nodes claim, 20 to 32 for IPv4 and 116 to 128 for IPv6. The default is 26
            and 122.
          - Cannot be changed once the pool exists.
        type: int
      node_selector:
        description: Which nodes draw from the pool unasked, in Calico's selector language. The default is V(all(\)).
        type: str
      namespace_selector:
        description:
          - Which namespaces' pods draw from the pool unasked. The default is all.
          - Needs Calico 3.31 or this collection's node plugin.
        type: str
      nat_outgoing:
        description: Whether traffic that leaves the pools is masqueraded. The default is V(false).
        type: bool
      ipip_mode:
        description: IPIP encapsulation between nodes, for IPv4 only. The default is V(Never).
        type: str
        choices: [Never, Always, CrossSubnet]
      vxlan_mode:
        description: VXLAN encapsulation between nodes. The default is V(Never).
        type: str
        choices: [Never, Always, CrossSubnet]
      disabled:
        description: Whether to give out no new addresses from the pool. Pods keep theirs. The default is V(false).
        type: bool
      disable_bgp_export:
        description: Whether BGP leaves the pool's routes out. The default is V(false).
        type: bool
      allowed_uses:
        description:
          - What the addresses are for.
          - The default is V(Workload) and V(Tunnel), and only V(Workload) with a O(pools[].namespace_selector), which
            excludes tunnels.
        type: list
        elements: str
        choices: [Workload, Tunnel, LoadBalancer]
      assignment_mode:
        description: V(Manual) serves only who asks for the pool by name. The default is V(Automatic).
        type: str
        choices: [Automatic, Manual]
      labels:
        description: Labels that the pool must have. Others that it has are left alone.
        type: dict
  state:
    description:
      - V(present) sees that the pools exist as declared.
      - V(absent) removes them. Where the cluster serves no IP pools at all there is nothing to do.
    type: str
    choices: [present, absent]
    default: present
  purge:
    description:
      - With O(state=present), also removes the pools that are not listed and that this module created, which it tells
        by their label C(app.kubernetes.io/managed-by=podnet.ipam).
    type: bool
    default: false
  pod_cidrs:
    description:
      - The cluster's pod CIDRs. Each pool must lie in those of its family, except for pools that are only for load
        balancers.
      - Read from kubeadm's ConfigMap C(kube-system/kubeadm-config) when not given. Where that does not say either,
        the check is left out with a warning; the CIDRs of the nodes are not taken instead, as they may be only a part.
      - An empty list leaves the check out.
    type: list
    elements: str
requirements:
  - netaddr
notes:
  - Everything is validated before the first write, and all problems are reported together.
  - A pool with addresses in use is not removed. Its blocks tell, not the pods.
  - A pool is removed as Calico's own API does. It is disabled first; its blocks, which are empty, are deleted with the
    nodes' claims on them, each only if it is still as it was read; then the pool is deleted. If a pod gets an address
    meanwhile, the module fails, and the pool stays, disabled.
  - When a write fails midway, RV(operations) lists the writes that were made. Running again finishes the rest.
seealso:
  - module: podnet.ipam.namespace_pools
  - module: podnet.ipam.workload_pools
  - module: podnet.ipam.ipam_info
  - name: IP pool in Calico's documentation
    description: What the fields mean.
    link: https://docs.tigera.io/calico/latest/reference/resources/ippool
"""

EXAMPLES = r"""
- name: Two racks, and a range that is used only on demand
  podnet.ipam.ip_pools:
    pools:
      - name: rack-1
        cidr: 10.244.0.0/18
        node_selector: rack == '1'
      - name: rack-2
        cidr: 10.244.64.0/18
        node_selector: rack == '2'
      - name: legacy-firewall
        cidr: 10.244.128.0/24
        block_size: 28
        assignment_mode: Manual

- name: These pools and no others of ours
  podnet.ipam.ip_pools:
    pools:
      - name: everything
        cidr: 10.244.0.0/16
    purge: true

- name: A pool that is not needed any more
  podnet.ipam.ip_pools:
    pools:
      - name: legacy-firewall
    state: absent
"""

RETURN = r"""
before:
  description: The listed pools and those that were removed, as they were, with defaults filled in, by name.
  returned: success
  type: list
  elements: dict
  sample: []
after:
  description: The listed pools as they are now, or would be in check mode, with defaults filled in, by name.
  returned: success
  type: list
  elements: dict
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
      labels: {}
operations:
  description: The writes that were made, or would be made in check mode, in their order.
  returned: always
  type: list
  elements: dict
  contains:
    verb:
      description: One of V(create), V(patch) and V(delete).
      type: str
      returned: always
    kind:
      description: Kind of the object.
      type: str
      returned: always
    namespace:
      description: Namespace of the object.
      type: str
      returned: when the object has one
    name:
      description: Name of the object.
      type: str
      returned: always
  sample:
    - {verb: create, kind: IPPool, name: rack-1}
errors:
  description: What forbids the declaration. Nothing was written.
  returned: when the declaration is refused
  type: list
  elements: dict
  sample:
    - object: pool rack-1
      field: cidr
      value: 10.99.0.0/18
      message: 10.99.0.0/18 does not lie in the cluster's pod CIDRs (10.244.0.0/16)
"""

from ansible_collections.podnet.ipam.plugins.module_utils import _argspec, _runner
from ansible_collections.podnet.ipam.plugins.module_utils._core.pool import (
    ALLOWED_USES,
    AUTOMATIC,
    MANUAL,
    TUNNEL_MODES,
)
from ansible_collections.podnet.ipam.plugins.module_utils._kube import observe
from ansible_collections.podnet.ipam.plugins.module_utils._plan import pools

POOL = {
    "name": {"type": "str", "required": True},
    "cidr": {"type": "str"},
    "block_size": {"type": "int"},
    "node_selector": {"type": "str"},
    "namespace_selector": {"type": "str"},
    "nat_outgoing": {"type": "bool"},
    "ipip_mode": {"type": "str", "choices": list(TUNNEL_MODES)},
    "vxlan_mode": {"type": "str", "choices": list(TUNNEL_MODES)},
    "disabled": {"type": "bool"},
    "disable_bgp_export": {"type": "bool"},
    "allowed_uses": {"type": "list", "elements": "str", "choices": list(ALLOWED_USES)},
    "assignment_mode": {"type": "str", "choices": [AUTOMATIC, MANUAL]},
    "labels": {"type": "dict"},
}
OPTIONS = {
    "pools": {"type": "list", "elements": "dict", "required": True, "options": POOL},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "purge": {"type": "bool", "default": False},
    "pod_cidrs": {"type": "list", "elements": "str"},
}


def main():
    module = _argspec.create_module(OPTIONS)
    desired = pools.desired(module.params)

    def read(client, api, existing):
        needed = pools.touches_blocks(desired, existing)
        return pools.Observed(
            served=api is not None,
            pools=existing,
            blocks=tuple(observe.collection(client, api, "IPAMBlock")) if needed else (),
            affinities=tuple(observe.collection(client, api, "BlockAffinity")) if needed else (),
            pod_cidrs=tuple(observe.pod_cidrs(client)) if desired.asks_for_pod_cidrs else None,
        )

    _runner.run_plan(module, read, lambda observed: pools.plan(desired, observed))


if __name__ == "__main__":
    main()
