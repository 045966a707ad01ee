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
          - Cannot be changed once the pool exists. The role P(podnet.ipam.pool_migration#role) moves the pods to
            another pool, which may take its place.
        type: str
      block_size:
        description:
          - Prefix length of the blocks that nodes claim, 20 to 32 for IPv4 and 116 to 128 for IPv6. The default is 26
            and 122.
          - Cannot be changed once the pool exists, like O(pools[].cidr).
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
          - V(LoadBalancer) stands alone, needs Calico 3.30, and cannot be taken back. Such a pool has no encapsulation,
            is exported by BGP, and is for all nodes.
        type: list
        elements: str
        choices: [Workload, Tunnel, LoadBalancer]
      assignment_mode:
        description:
          - V(Manual) serves only who asks for the pool by name. The default is V(Automatic).
          - Needs Calico 3.30 or this collection's node plugin.
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
      - With O(state=present), also removes the pools that are not listed. Which ones, O(label_selectors) says.
    type: bool
    default: false
  label_selectors:
    description:
      - With O(purge), the pools that it considers are those whose labels match all of these selectors, for example
        V(team=payments) or V(team in (payments,shop\)). An empty list stands for all pools of the cluster.
      - Left out, it considers the pools that this module created or adopted, which it tells by their label
        C(app.kubernetes.io/managed-by=podnet.ipam).
    type: list
    elements: str
  force:
    description:
      - Whether to remove a pool although addresses of it are in use. The pods keep them, and a warning and RV(in_use)
        say which ones. Their blocks stay until the last address is given back, but belong to no node any more.
      - Without it, such a pool is refused.
    type: bool
    default: false
  adopt:
    description:
      - Whether to change or remove pools that belong to another controller. These are pools with a controller among
        their C(ownerReferences), pools whose label C(app.kubernetes.io/managed-by) names somebody else, and pools that
        the Calico operator's C(Installation) lists.
      - A listed pool that names another owner gets this collection's label instead; one that only the C(Installation)
        names gets it when anything else about it is changed. The other owner may revert that.
      - Where the user may not read the C(Installation), a warning tells that it was not looked at.
      - Without it, such a pool is refused, unless nothing about it has to be changed. A pool of nobody is corrected,
        but not labelled.
    type: bool
    default: false
  pod_cidrs:
    description:
      - The cluster's pod CIDRs. Each new pool must lie in those of its family, except for pools that are only for load
        balancers.
      - When not given, they are read from the first of these places that has them. These are kubeadm's ConfigMap
        C(kube-system/kubeadm-config), the ConfigMap C(kube-system/kube-proxy), the flag C(--cluster-cidr) of the pod of
        C(kube-controller-manager), and C(spec.podCIDRs) of the nodes. As the last may be only a part of them, a pool
        that lies outside only gives a warning then.
      - An empty list leaves the check out.
    type: list
    elements: str
  service_cidrs:
    description:
      - The cluster's service CIDRs. A new pool must not overlap them.
      - When not given, they are read from the first of these places that has them. These are the cluster's
        C(ServiceCIDR) objects, kubeadm's ConfigMap C(kube-system/kubeadm-config), and the flag
        C(--service-cluster-ip-range) of the pod of C(kube-apiserver).
      - An empty list leaves the check out.
    type: list
    elements: str
requirements:
  - netaddr
notes:
  - Everything is validated before the first write, and all problems are reported together.
  - New pools are held against the cluster's network. They must not overlap each other, other pools, or the services'
    CIDRs, must not contain an address of a node, must lie in the pod CIDRs, and must not hold blocks of another size.
    A pool with fewer blocks than nodes that its O(pools[].node_selector) matches gives a warning, also when an existing
    one is changed so that more nodes draw from it.
  - As a pool's range cannot change, nothing else of this is read when no pool is new. A run that changes nothing
    makes as many requests as the list of pools has pages of 500. What the user may not read of it (other than Calico's
    objects) is left out with a warning.
  - Options that came with Calico 3.30 and 3.31, O(pools[].assignment_mode) and O(pools[].namespace_selector), are tried
    with a dry run before the first of several writes, unless a pool of the cluster has them already. So an older Calico
    refuses them before anything is changed.
  - A pool is removed as Calico's own API does. It is disabled first; then the nodes' claims on its blocks are released,
    each only if it is still as it was read, and the empty blocks deleted; then the pool is deleted. If a pod gets an
    address meanwhile, the module fails unless O(force), and the pool stays, disabled.
  - Whether addresses are in use is told by the blocks, not by the pods. So those of nodes' tunnels and of spare blocks
    count as well. Nodes give them back some time after the pool was disabled, or after its last pod went. Where the
    cluster does not serve blocks, as with a Calico that has an etcd of its own, a pool is removed with O(force) only.
  - When the module fails midway, RV(operations) lists the writes that were made, RV(failed_operation) the one that
    failed, if it was one, and RV(operations_left) those that were left. Running again finishes the rest.
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

- name: The pools of one team, and no others with its label
  podnet.ipam.ip_pools:
    pools:
      - name: payments
        cidr: 10.244.128.0/20
        labels: {team: payments}
    purge: true
    label_selectors: [team=payments]

- name: A pool that is not needed any more
  podnet.ipam.ip_pools:
    pools:
      - name: legacy-firewall
    state: absent

- name: A pool that goes at once, though pods still have addresses of it
  podnet.ipam.ip_pools:
    pools:
      - name: legacy-firewall
    state: absent
    force: true
  register: removed

- name: Which pods these are
  ansible.builtin.debug:
    msg: "{{ removed.in_use | map(attribute='pod') }}"
"""

RETURN = r"""
before:
  description: The pools that change or go, as they were, with defaults filled in, by name.
  returned: success
  type: list
  elements: dict
  sample: []
after:
  description:
    - The pools that change or are new, as they are now, or would be in check mode, with defaults filled in, by name.
    - M(podnet.ipam.ipam_info) tells all pools.
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
      description: One of V(create), V(patch), V(replace) and V(delete).
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
in_use:
  description: The addresses in use of the pools that were removed, or would be in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    pool:
      description: Name of the pool.
      type: str
      returned: always
    address:
      description: The address.
      type: str
      returned: always
    namespace:
      description: Namespace of the pod or of the service that has it; V(null) where it is neither's.
      type: str
      returned: always
    pod:
      description: Name of the pod that has it; V(null) where it is no pod's.
      type: str
      returned: always
    handle:
      description: Calico's handle of the address; V(null) while it rests after its release.
      type: str
      returned: always
  sample:
    - pool: legacy-firewall
      address: 10.244.128.5
      namespace: payments
      pod: web-0
      handle: k8s-pod-network.4f1c0b7e5d9a86e2
errors:
  description:
    - What forbids the declaration. Nothing was written.
    - For a pool that is not removed because of addresses in use, C(in_use) lists these as RV(in_use) does.
    - C(overlaps) is the name of a pool of the cluster that a new one overlaps, and C(blocks) are the CIDRs of blocks of
      another size in its range.
  returned: when the declaration is refused
  type: list
  elements: dict
  sample:
    - object: pool rack-1
      field: cidr
      value: 10.99.0.0/18
      message: >-
        10.99.0.0/18 does not lie in the cluster's pod CIDRs (10.244.0.0/16), which are from ConfigMap
        kube-system/kubeadm-config
failed_operation:
  description: The write that failed.
  returned: when a write failed
  type: dict
  sample: {verb: create, kind: IPPool, name: rack-2}
operations_left:
  description: The writes that were not made because one failed, or because the cluster could not be read between them.
  returned: when a write failed, or a read after the first write
  type: list
  elements: dict
  sample:
    - {verb: create, kind: IPPool, name: rack-3}
"""

from ansible_collections.podnet.ipam.plugins.module_utils import _argspec, _runner
from ansible_collections.podnet.ipam.plugins.module_utils._core.pool import (
    ALLOWED_USES,
    AUTOMATIC,
    MANUAL,
    TUNNEL_MODES,
)
from ansible_collections.podnet.ipam.plugins.module_utils._kube import observe
from ansible_collections.podnet.ipam.plugins.module_utils._kube.network import Network
from ansible_collections.podnet.ipam.plugins.module_utils._plan import network_checks, pools

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
    "label_selectors": {"type": "list", "elements": "str"},
    "force": {"type": "bool", "default": False},
    "adopt": {"type": "bool", "default": False},
    "pod_cidrs": {"type": "list", "elements": "str"},
    "service_cidrs": {"type": "list", "elements": "str"},
}


def main():
    module = _argspec.create_module(OPTIONS)
    desired, results = pools.desired(module.params), {}

    def read(client, api, existing):
        needs, facts = pools.needs(desired, existing, api is not None), Network(client, api)
        return pools.Observed(
            served=api is not None,
            pools=existing,
            blocks=observe.collection(client, api, "IPAMBlock", unserved=None) if needs.blocks else (),
            affinities=tuple(observe.collection(client, api, "BlockAffinity")) if needs.affinities else (),
            installation=facts.installation if needs.installation else None,
            hides_installation=needs.installation and facts.hides_installation,
            network=network_checks.known(facts, desired, needs),
        )

    def plan(observed):
        made = pools.plan(desired, observed)
        if made.operations:
            results.update(made.results)
        return made

    # What was in use when a pool was removed, not when it was disabled.
    _runner.run_plan(module, read, plan, finish=lambda _client, returned, _done: returned.update(results))


if __name__ == "__main__":
    main()
