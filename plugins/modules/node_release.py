#!/usr/bin/python
# Copyright: the podnet.ipam contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_release
short_description: Release the addresses and blocks of nodes that give no more addresses to pods
description:
  - Releases in Calico's records what nodes hold, which are addresses, handles, and claims on blocks. Blocks without any
    address are deleted.
  - For nodes that stay in the cluster with another IPAM. What nodes left behind that were deleted from the cluster is
    found and repaired by M(podnet.ipam.pod_audit).
author: The podnet.ipam contributors (@podnet)
extends_documentation_fragment:
  - podnet.ipam._attributes
  - podnet.ipam._connection
options:
  nodes:
    description:
      - Names of the nodes. No IPAM may give addresses there meanwhile.
    type: list
    elements: str
    required: true
requirements:
  - netaddr
notes:
  - A node on which a pod still has an address, or has got one and is about to say so, is refused, with the names of the
    pods, and nothing is written.
  - Addresses that pods of other nodes use, and those of virtual machines (KubeVirt), are not released, whatever the
    records say of their node.
  - Addresses that other nodes have borrowed of the nodes' blocks stay allocated, in blocks that belong to no node.
  - Addresses of the nodes' tunnels are released as well.
seealso:
  - module: podnet.ipam.pod_audit
"""

EXAMPLES = r"""
- name: Nobody has addresses on node-1 any more
  podnet.ipam.node_release:
    nodes: [node-1]
"""

RETURN = r"""
before:
  description: The blocks, claims and handles that change, as they were.
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
  sample: []
operations:
  description: The writes that were made, or would be made in check mode, in their order.
  returned: always
  type: list
  elements: dict
  contains:
    verb:
      description: V(replace) or V(delete).
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
    - {verb: delete, kind: IPAMBlock, name: 10-244-1-0-26}
    - {verb: delete, kind: BlockAffinity, name: node-1-10-244-1-0-26}
errors:
  description: The nodes on which pods still have addresses, and blocks of theirs that are invalid. Nothing was written.
  returned: when a node is refused
  type: list
  elements: dict
  sample:
    - object: node node-1
      field: nodes
      value: node-1
      message: "pods still have addresses there: payments/web-0; drain the node first"
failed_operation:
  description: The write that failed.
  returned: when a write failed
  type: dict
  sample: {verb: delete, kind: IPAMBlock, name: 10-244-1-0-26}
operations_left:
  description: The writes that were not made because another one failed. The next run makes them.
  returned: when a write failed
  type: list
  elements: dict
  sample:
    - {verb: delete, kind: BlockAffinity, name: node-1-10-244-1-0-26}
"""

from ansible_collections.podnet.ipam.plugins.module_utils import _argspec, _runner
from ansible_collections.podnet.ipam.plugins.module_utils._kube.inventory import Inventory
from ansible_collections.podnet.ipam.plugins.module_utils._plan import node_release
from ansible_collections.podnet.ipam.plugins.module_utils._plan.world import Observed

OPTIONS = {"nodes": {"type": "list", "elements": "str", "required": True}}


def read(client, api, pools):
    """What is held, and by which pods."""
    inventory = Inventory(client, api)
    return Observed(
        pools=pools,
        pods=tuple(inventory.pods()),
        nodes=tuple(inventory.nodes()),
        **inventory.records(),
        now=client.server_time.timestamp(),
    )


def main():
    module = _argspec.create_module(OPTIONS)
    _runner.run_plan(module, read, lambda observed: node_release.plan(observed, module.params["nodes"]))


if __name__ == "__main__":
    main()
