#!/usr/bin/python
# Copyright: the podnet.ipam contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ipam_info
short_description: Which IPAM a cluster uses, how full its IP pools are, and who gets addresses from where
description:
  - Tells who gives pods their addresses, and what it concluded that from.
  - Lists the IP pools with the addresses in use, from the blocks that nodes have claimed; on request also what is
    assigned to pools, reservations, the configuration, blocks, and single addresses.
  - Explains which pools a pod would draw from, which of them has an address left for it on its node, and why not from
    the others.
author: The podnet.ipam contributors (@podnet)
extends_documentation_fragment:
  - podnet.ipam._attributes.info_module
  - podnet.ipam._connection
options:
  gather_subset:
    description:
      - What to gather. Only what the subsets need is read from the cluster.
      - V(engine) is RV(engine) and RV(evidence). Each of the others is the return value of the same name, and V(pools)
        is RV(families) as well. V(all) is all of them.
      - An empty list gathers nothing, for O(explain) alone.
    type: list
    elements: str
    choices: [all, engine, pools, assignments, reservations, config, blocks, addresses]
    default: [engine, pools]
  explain:
    description:
      - Pods, existing or not, whose choice of pools is to be explained. It is made by the very rules of this
        collection's node plugin, which are Calico's.
      - Which pool gives the address is told as of now, out of the blocks, the claims of nodes on them, reservations and
        the configuration. What only the node itself knows does not count, namely pools that its CNI configuration
        names, addresses that rest since they were freed, and those that it keeps for a gateway or for the pod of a
        name. On the node, C(podnet-ipam-ctl explain) knows most of that.
    type: list
    elements: dict
    default: []
    suboptions:
      namespace:
        description: The pod's namespace, which has to exist.
        type: str
        required: true
      node:
        description: The node that the pod is to run on, which has to exist.
        type: str
        required: true
      pod:
        description:
          - Name of the pod. If there is such a pod and O(explain[].annotations) is left out, its annotations are taken.
            The answer is then what it would get if it were started anew.
        type: str
      annotations:
        description:
          - Annotations of the pod. The value of one that assigns pools may be given as a list instead of as a text in
            JSON.
        type: dict
      labels:
        description:
          - Labels to assume for the namespace instead of its own, to try out a pool's namespace selector. A pod's own
            labels have no part in the choice.
        type: dict
      families:
        description:
          - The families of which the node plugin gives a pod an address each when no annotation says which. Without
            configuration, that is only V(IPv4).
        type: list
        elements: str
        choices: [IPv4, IPv6]
        default: [IPv4, IPv6]
seealso:
  - module: podnet.ipam.ip_pools
  - module: podnet.ipam.pod_audit
"""

EXAMPLES = r"""
- name: Look at the cluster
  podnet.ipam.ipam_info:
  register: ipam

- name: Pools are honoured only by an IPAM that knows them
  ansible.builtin.assert:
    that: ipam.engine in ['calico', 'podnet']
    fail_msg: "{{ ipam.evidence | join('; ') }}"

- name: Everything that is known about addresses
  podnet.ipam.ipam_info:
    gather_subset: all

- name: Where would a pod of payments on node-1 get its addresses from?
  podnet.ipam.ipam_info:
    gather_subset: []
    explain:
      - namespace: payments
        node: node-1
      - namespace: payments
        node: node-1
        annotations:
          cni.projectcalico.org/ipv4pools: [legacy-firewall]
"""

RETURN = r"""
engine:
  description:
    - V(calico), V(host-local), V(podnet) (the node plugin of this collection), or V(unknown).
    - What nodes were set up with by this collection's role weighs most, then the Calico operator's C(Installation),
      then the ConfigMap C(calico-config).
  returned: for subset V(engine)
  type: str
  sample: podnet
evidence:
  description: What was seen, the weightiest first, and what of it the user may not read.
  returned: for subset V(engine)
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
  description:
    - The pools by name, with the options of M(podnet.ipam.ip_pools), defaults filled in.
    - Where one pool lies in another, the smaller one counts what lies in it.
  returned: for subset V(pools)
  type: list
  elements: dict
  contains:
    size:
      description: Number of addresses.
      type: int
      returned: always
    blocks:
      description: Number of blocks that exist.
      type: int
      returned: always
    used:
      description: Number of addresses that are allocated, to pods or otherwise.
      type: int
      returned: always
    free:
      description: Number of addresses that are not allocated.
      type: int
      returned: always
    borrowed:
      description: Number of the used addresses that belong to a node other than their block's, or to one in a block
        without a node.
      type: int
      returned: always
    reserved:
      description: Number of addresses in reservations that are not allocated. C(free) - C(reserved) are left to give.
      type: int
      returned: always
    nodes:
      description:
        - The nodes that have blocks or addresses of the pool, by name, with the number of their blocks, of their
          addresses (C(used)), and of those among them that lie in others' blocks (C(borrowed)).
      type: list
      elements: dict
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
      blocks: 2
      used: 23
      free: 16361
      borrowed: 0
      reserved: 10
      nodes:
        - {name: node-1, blocks: 2, used: 23, borrowed: 0}
families:
  description: The counts of the pools, summed up by family.
  returned: for subset V(pools)
  type: dict
  sample:
    IPv4: {pools: 1, size: 16384, blocks: 2, used: 23, free: 16361, borrowed: 0, reserved: 10}
    IPv6: {pools: 0, size: 0, blocks: 0, used: 0, free: 0, borrowed: 0, reserved: 0}
assignments:
  description:
    - What carries annotations that assign pools, families or fixed addresses. A malformed annotation is shown as its
      text.
  returned: for subset V(assignments)
  type: dict
  contains:
    namespaces:
      description: Items of the option O(podnet.ipam.namespace_pools#module:namespaces).
      type: list
      elements: dict
      returned: always
    workloads:
      description:
        - Items of the option O(podnet.ipam.workload_pools#module:workloads), for the pod templates of workloads and for
          bare pods. What one of them has made is left out.
      type: list
      elements: dict
      returned: always
  sample:
    namespaces:
      - {name: payments, ipv4_pools: [payments], ipv6_pools: null, families: null}
    workloads:
      - kind: Deployment
        namespace: shop
        name: web
        ipv4_pools: [shop]
        ipv6_pools: null
        families: null
        ip_addrs: null
reservations:
  description: The reservations by name.
  returned: for subset V(reservations)
  type: list
  elements: dict
  sample:
    - {name: gateways, reserved_cidrs: [10.244.0.0/30], labels: {}}
config:
  description: The options of M(podnet.ipam.ipam_config), defaults filled in, and whether the object exists.
  returned: for subset V(config)
  type: dict
  sample: {strict_affinity: false, auto_allocate_blocks: true, max_blocks_per_host: 0, stored: false}
blocks:
  description:
    - The blocks in order of their addresses, with counts as for RV(pools).
    - C(affinity) is whom the block belongs to as Calico notes it, C(node) the same if it is a node, C(state) that of
      the claim (V(confirmed), V(pending) or V(pendingDeletion), null without one), C(claim_time) since when (null
      before Calico 3.32).
  returned: for subset V(blocks)
  type: list
  elements: dict
  sample:
    - cidr: 10.244.1.0/26
      pool: rack-1
      affinity: host:node-1
      node: node-1
      state: confirmed
      size: 64
      used: 23
      free: 41
      borrowed: 0
      claim_time: "2026-08-21T09:28:02Z"
addresses:
  description:
    - The allocated addresses in order. What is not noted is null.
    - C(type) is V(workload) for a pod, V(cooling) for an address that rests after its release, V(windowsReserved),
      V(spareBlock) for the address by which C(podnet-ipam) keeps a block that it has claimed ahead for its node, or
      what Calico notes, such as V(vxlanTunnelAddress). C(borrowed) says whether the block belongs to another node.
  returned: for subset V(addresses)
  type: list
  elements: dict
  sample:
    - address: 10.244.1.1
      pool: rack-1
      block: 10.244.1.0/26
      node: node-1
      namespace: default
      pod: web-0
      handle: k8s-pod-network.4f1c0b7e
      type: workload
      borrowed: false
explanations:
  description: The answers, in the order of O(explain), with the namespace, node and pod that were asked about.
  returned: when O(explain) is given
  type: list
  elements: dict
  contains:
    families:
      description: The families of which the pod gets an address each.
      type: list
      elements: str
      returned: always
    families_source:
      description: What says so.
      type: str
      returned: always
    error:
      description: Why the pod gets no address of either family, or null. Each family has an error of its own as well.
      type: str
      returned: always
    ipv4:
      description: The choice of IPv4 pools; null when the pod gets no IPv4 address.
      type: dict
      returned: always
      contains:
        pools:
          description: The pools that are tried, in this order.
          type: list
          elements: str
          returned: always
        pool:
          description:
            - The one of them that the pod would get its address from now; null with an error.
            - It need not be the first one that has an address left. A node draws from blocks that it has, of whichever
              of the pools, before it claims another one, and borrows only where there is no block to claim.
          type: str
          returned: always
        room:
          description: What each of the pools has left for the node, in their order; empty for a fixed address.
          type: list
          elements: dict
          returned: always
          contains:
            name:
              description: The pool.
              type: str
              returned: always
            way:
              description:
                - How the node would get an address of it. V(own_block), a block that it has; V(new_block), one that it
                  claims; V(empty_block), an empty one that it takes over from another node; V(borrowed), an address of
                  a block that is not its own.
                - Null when nothing is left of the pool for this node.
              type: str
              returned: always
            block:
              description: The block that the address comes from; null when nothing is left.
              type: str
              returned: always
            free:
              description: How many addresses the node could get in that way, without those that are reserved.
              type: int
              returned: always
            reason:
              description: Why the address does not come from this pool; null for the one that it comes from.
              type: str
              returned: always
        source:
          description: What asks for them; null with an error.
          type: str
          returned: always
        refused:
          description: The others, each with C(name) and the C(reason) why it is not tried.
          type: list
          elements: dict
          returned: always
        error:
          description: Why no pool would serve the pod, or has an address left, so that it would not start; or null.
          type: str
          returned: always
    ipv6:
      description: The same for IPv6.
      type: dict
      returned: always
  sample:
    - namespace: payments
      node: node-1
      pod: null
      families: [IPv4]
      families_source: the default families
      error: null
      ipv4:
        pools: [payments]
        pool: payments
        room:
          - {name: payments, way: own_block, block: 10.244.64.0/26, free: 41, reason: null}
        source: annotation cni.projectcalico.org/ipv4pools of namespace payments
        refused:
          - name: rack-1
            reason: annotation cni.projectcalico.org/ipv4pools of namespace payments does not name it
        error: null
      ipv6: null
errors:
  description: What of O(explain) does not exist.
  returned: when something of it does not
  type: list
  elements: dict
  sample:
    - object: pod of namespace paymets on node node-1
      field: namespace
      value: paymets
      message: "namespace 'paymets' does not exist"
"""

from ansible_collections.podnet.ipam.plugins.module_utils import _argspec, _runner
from ansible_collections.podnet.ipam.plugins.module_utils._core.assignment import FAMILIES
from ansible_collections.podnet.ipam.plugins.module_utils._gather import SUBSETS, Cluster

QUESTION = {
    "namespace": {"type": "str", "required": True},
    "node": {"type": "str", "required": True},
    "pod": {"type": "str"},
    "annotations": {"type": "dict"},
    "labels": {"type": "dict"},
    "families": {"type": "list", "elements": "str", "choices": list(FAMILIES), "default": list(FAMILIES)},
}
OPTIONS = {
    "gather_subset": {
        "type": "list",
        "elements": "str",
        "choices": ["all", *SUBSETS],
        "default": ["engine", "pools"],
    },
    "explain": {"type": "list", "elements": "dict", "options": QUESTION, "default": []},
}


def main():
    module = _argspec.create_module(OPTIONS)
    subsets, questions = set(module.params["gather_subset"]), module.params["explain"]
    with _runner.reported(module):
        cluster = Cluster(_runner.connect(module))
        result = cluster.gather(set(SUBSETS) if "all" in subsets else subsets)
        answers, problems = cluster.explain(questions) if questions else ([], [])
    if problems:
        errors = [problem.describe() for problem in problems]
        module.fail_json(msg="; ".join(str(problem) for problem in problems), errors=errors)
    if questions:
        result["explanations"] = answers
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
