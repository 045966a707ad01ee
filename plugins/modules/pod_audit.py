#!/usr/bin/python
# Copyright: the podnet.ipam contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pod_audit
short_description: Find and repair contradictions between pods, IP pools and Calico's records
description:
  - Holds the addresses that pods run with against the IP pools, against what is assigned to the pods, and against what
    the blocks and handles of Calico's IPAM say.
  - Repairs what nobody needs any more or what can be derived from the rest, while the cluster runs.
author: The podnet.ipam contributors (@podnet)
extends_documentation_fragment:
  - podnet.ipam._attributes
  - podnet.ipam._connection
options:
  repair:
    description:
      - What to set right. Nothing by default; the module only reports then.
      - V(leaks) releases addresses that are allocated for a pod or a node that does not exist any more, or for a pod
        that runs on another node by now, first in the block, then in the handle. A block without any address and
        without a node is deleted.
      - V(handles) deletes handles of which no block has an address, creates those that are missing, and corrects
        what they count.
      - V(affinities) deletes the claims of nodes on blocks that do not exist or belong to another, and gives blocks
        the claim of their node back. The claims of a node that does not exist any more are deleted, and its blocks left
        without a node, or deleted when they have no addresses.
    type: list
    elements: str
    choices: [leaks, handles, affinities]
    default: []
  grace:
    description:
      - Seconds for which an allocated address, a handle or a claim may be on its way. What is younger is neither
        reported nor repaired.
      - By the clock of the API server. An address without a timestamp counts as old.
      - Before addresses are released, a run waits for as long, 30 seconds at most, and releases those that still nobody
        uses. The containers of a pod that was deleted by force may outlive it for a moment.
    type: int
    default: 300
requirements:
  - netaddr
notes:
  - Whatever seems to be leaked, missing or contradictory is read from the API server a second time before it is
    reported or repaired, with the pod that it is about. A pod that has no address yet leaks none.
  - Some leaked addresses are reported and not released. Those are of pods that still exist on the node that the address
    was allocated on, which frees it with the pod; of tunnels of nodes that exist; of services; of virtual machines
    (KubeVirt), which keep theirs while they are stopped; and those of which nothing says what they are for.
  - Each object is written once, and only in the version that was judged. When it has changed meanwhile, the cluster is
    audited anew.
  - Which addresses are in use is decided as C(calicoctl ipam check) does it, with two exceptions. That takes the IPv6
    addresses of nodes' tunnels for leaked, and the addresses by which C(podnet-ipam) keeps spare blocks for its node;
    here they are in use.
  - Assignments are the annotations that M(podnet.ipam.namespace_pools) and M(podnet.ipam.workload_pools) write and,
    where there is none, the selectors of the pools. Pools that a node's CNI configuration names are not known here.
  - Of clusters without Calico's kinds only the addresses outside of every pool can be told.
  - The user needs to read pods, namespaces, nodes and services of the whole cluster, IP pools, blocks, claims and
    handles; for a repair, to write the last three.
  - A repair can be tried in check mode.
seealso:
  - module: podnet.ipam.ipam_info
  - module: podnet.ipam.workload_pools
    description: Replaces stale pods.
  - name: calicoctl ipam check
    description: Calico's own check.
    link: https://docs.tigera.io/calico/latest/reference/calicoctl/ipam/check
"""

EXAMPLES = r"""
- name: Everything in its place?
  podnet.ipam.pod_audit:
  register: audit

- name: Errors are not accepted
  ansible.builtin.assert:
    that: errors | length == 0
    fail_msg: "{{ errors | map(attribute='message') | join('; ') }}"
  vars:
    errors: "{{ audit.findings | selectattr('severity', 'equalto', 'error') }}"

- name: Free what was allocated more than an hour ago for pods that are gone
  podnet.ipam.pod_audit:
    repair: [leaks, handles]
    grace: 3600

- name: What would be repaired
  podnet.ipam.pod_audit:
    repair: [leaks, handles, affinities]
  check_mode: true
"""

RETURN = r"""
findings:
  description: What was found before anything was repaired, by check and object.
  returned: success
  type: list
  elements: dict
  contains:
    check:
      description:
        - V(duplicate), one address in use by two, or allocated in two blocks.
        - V(outside), an address in use that lies in no pool.
        - V(not_allocated), an address in use that lies in a pool, while no block has it as allocated.
        - V(assignment_invalid), annotations of a namespace or a pod with which no pod would start.
        - V(stale), a pod that runs with an address which its present assignment would not give it.
        - V(pool_disabled), a pod with an address of a pool that gives out no more.
        - V(pool_outside), a pool outside of the cluster's pod CIDRs. Left out where these are not known for sure.
        - V(pool_services), a pool that overlaps the CIDRs of services. Left out where these are not known.
        - V(pool_nodes), a pool that contains addresses of nodes.
        - V(leaked), an allocated address that nobody uses.
        - V(leaked_handle), a handle of which no block has an address.
        - V(missing_handle), a handle that a block names and that does not exist.
        - V(handle_count), a handle that counts other addresses than the blocks.
        - V(block_invalid), a block that breaks an invariant of its format.
        - V(block_without_affinity), a block that belongs to a node which has no claim on it.
        - V(affinity_without_block), a node's claim on a block that does not exist.
        - V(affinity_without_node), a claim on a block of a node that does not exist.
        - V(affinity_mismatch), a node's claim on a block that belongs to another.
      type: str
      returned: always
    severity:
      description: V(error) where pods suffer, or new ones will; else V(warning).
      type: str
      returned: always
    problem:
      description: Whether C(calicoctl ipam check) counts it as a problem, too; invalid blocks from Calico 3.33 on.
      type: bool
      returned: always
    message:
      description: The finding in words, and what hinders its repair if something does.
      type: str
      returned: always
    repair:
      description: The choice of O(repair) that sets it right; null when none does.
      type: str
      returned: always
    repaired:
      description: Whether this run has repaired it, or would in check mode.
      type: bool
      returned: always
    namespace:
      description: Namespace that it is about, or of the pod.
      type: str
      returned: for findings about pods and namespaces
    pod:
      description: Name of the pod; of a leaked address, of the pod that it was allocated for.
      type: str
      returned: for findings about pods and leaked addresses
    owner:
      description: RV(findings[].owner.kind) and RV(findings[].owner.name) of what makes the pod, null of a bare pod.
      type: dict
      returned: for findings about pods
      contains:
        kind:
          description: Kind of the owner; a Deployment instead of its ReplicaSet.
          type: str
          returned: always
        name:
          description: Name of the owner.
          type: str
          returned: always
    node:
      description: Node of the pod, the address, the block or the claim.
      type: str
      returned: for findings about pods, leaked addresses, blocks without claim and claims
    address:
      description: The address.
      type: str
      returned: for findings about a single address
    addresses:
      description: The addresses that the pod would not get again.
      type: list
      elements: str
      returned: for stale pods
    reasons:
      description: Why, one text for each of them, and for each family that is missing.
      type: list
      elements: str
      returned: for stale pods
    pool:
      description: Name of the pool.
      type: str
      returned: for findings about a pool
    block:
      description: CIDR of the block.
      type: str
      returned: for leaked addresses and findings about a block
    blocks:
      description: CIDRs of the blocks.
      type: list
      elements: str
      returned: for addresses that are allocated twice and findings about handles
    handle:
      description: The handle.
      type: str
      returned: for leaked addresses and findings about handles
    affinity:
      description: Name of the BlockAffinity.
      type: str
      returned: for findings about claims
    users:
      description: Who uses the address.
      type: list
      elements: str
      returned: for addresses that are used twice
  sample:
    - check: stale
      severity: warning
      problem: false
      namespace: payments
      pod: web-7d4b9c6f5d-x2v9q
      node: node-1
      owner: {kind: Deployment, name: web}
      addresses: [10.244.3.17]
      reasons: [10.244.3.17 is not from payments]
      message: "pod payments/web-7d4b9c6f5d-x2v9q: 10.244.3.17 is not from payments"
      repair: null
      repaired: false
summary:
  description: How many findings there are of each check; all checks are listed.
  returned: success
  type: dict
  sample: {stale: 1, leaked: 0}
clean:
  description: Whether nothing was found.
  returned: success
  type: bool
  sample: false
calicoctl_problems:
  description:
    - How many problems C(calicoctl ipam check) would have counted at the moment of the audit. It also counts the
      addresses of pods that are about to start or to end, the IPv6 addresses of tunnels, and one
      address of each spare block.
    - Addresses of services are taken for used, as newer versions of it do, and those of virtual machines without a pod
      for leaked, as older ones do.
  returned: success
  type: int
  sample: 0
examined:
  description: How many objects and allocated addresses were looked at.
  returned: success
  type: dict
  sample: {pools: 4, namespaces: 12, nodes: 3, pods: 57, blocks: 6, addresses: 49, handles: 49}
before:
  description: The blocks, handles and claims that a repair changes, as they were.
  returned: success
  type: list
  elements: dict
  sample:
    - {block: 10.244.1.0/26, affinity: "host:node-1", allocated: {10.244.1.4: payments/web-0}}
after:
  description: The same as they are now, or would be in check mode; what is deleted is not listed.
  returned: success
  type: list
  elements: dict
  sample:
    - {block: 10.244.1.0/26, affinity: "host:node-1", allocated: {}}
operations:
  description: The writes that were made, or would be made in check mode, in their order.
  returned: always
  type: list
  elements: dict
  contains:
    verb:
      description: One of V(create), V(replace) and V(delete).
      type: str
      returned: always
    kind:
      description: V(IPAMBlock), V(IPAMHandle) or V(BlockAffinity).
      type: str
      returned: always
    name:
      description: Name of the object.
      type: str
      returned: always
  sample:
    - {verb: replace, kind: IPAMBlock, name: 10-244-1-0-26}
    - {verb: delete, kind: IPAMHandle, name: k8s-pod-network.4f1c0b7e}
failed_operation:
  description: The write that failed.
  returned: when a write failed
  type: dict
  sample: {verb: replace, kind: IPAMBlock, name: 10-244-1-0-26}
operations_left:
  description: The writes that were not made because another one failed. The next run makes them.
  returned: when a write failed
  type: list
  elements: dict
  sample:
    - {verb: delete, kind: IPAMHandle, name: k8s-pod-network.4f1c0b7e}
"""

import time

from ansible_collections.podnet.ipam.plugins.module_utils import _argspec, _runner
from ansible_collections.podnet.ipam.plugins.module_utils._kube.inventory import Inventory
from ansible_collections.podnet.ipam.plugins.module_utils._kube.network import Network
from ansible_collections.podnet.ipam.plugins.module_utils._plan.audit import Audit
from ansible_collections.podnet.ipam.plugins.module_utils._plan.finding import REPAIRS
from ansible_collections.podnet.ipam.plugins.module_utils._plan.network_checks import Cidrs
from ansible_collections.podnet.ipam.plugins.module_utils._plan.world import Observed

LONGEST_WAIT = 30  # seconds: in which a kubelet ends what a pod leaves behind that was deleted by force

OPTIONS = {
    "repair": {"type": "list", "elements": "str", "choices": list(REPAIRS), "default": []},
    "grace": {"type": "int", "default": 300},
}


def read(client, api, pools):
    """The whole cluster, as far as it is about addresses."""
    inventory, facts = Inventory(client, api), Network(client, api)
    cidrs, _source, partial = facts.pod_cidrs or ((), None, True)
    return Observed(
        pools=pools,
        pod_cidrs=None if partial else cidrs,
        service_cidrs=facts.service_cidrs and Cidrs(*facts.service_cidrs),
        pods=tuple(inventory.pods()),
        namespaces=tuple(inventory.namespaces()),
        nodes=tuple(inventory.nodes()),
        services=tuple(inventory.load_balancers()),
        **inventory.records(),
        now=client.server_time.timestamp(),
    )


def main():
    module = _argspec.create_module(OPTIONS)
    wanted, grace = module.params["repair"], module.params["grace"]
    waited_for, audits = set(), []

    def look_twice(client, api, pools):
        first = Audit(read(client, api, pools), grace)
        released = first.released(wanted)
        if not module.check_mode and released - waited_for:
            time.sleep(max(0, min(grace, LONGEST_WAIT)))
            waited_for.update(released)
        return first.seen_again(Inventory(client, api).again(first.looks))

    def plan(audit):
        audits.append(audit)
        return audit.plan(wanted)

    def finish(_client, results, done):
        """What others have changed meanwhile need not be repaired as the first round was to."""
        for told, repaired in zip(results["findings"], audits[-1].repaired(audits[0], wanted, done)):
            told["repaired"] = repaired

    _runner.run_plan(module, look_twice, plan, finish if wanted else None)


if __name__ == "__main__":
    main()
