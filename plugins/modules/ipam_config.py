#!/usr/bin/python
# Copyright: the podnet.ipam contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ipam_config
short_description: Declare how nodes of a cluster claim addresses
description:
  - Sees that the settings of address management for the whole cluster are as declared. They are one object named
    C(default), of kind C(IPAMConfig) in C(crd.projectcalico.org/v1) or C(IPAMConfiguration) in C(projectcalico.org/v3).
    It is created when it does not exist.
  - A setting that is left out is left alone. In an object that is created it gets Calico's default.
author: The podnet.ipam contributors (@podnet)
extends_documentation_fragment:
  - podnet.ipam._attributes
  - podnet.ipam._connection
options:
  state:
    description:
      - V(present) sees that the settings are as declared. At least one of them has to be given.
      - V(absent) removes the object, so that Calico's defaults count. The other options mean nothing then.
      - Calico before 3.33 creates the object anew, with its defaults, where it finds none, so that the next run removes
        it again. There, rather declare the defaults.
    type: str
    choices: [present, absent]
    default: present
  strict_affinity:
    description:
      - Whether a node takes addresses only from blocks that it has claimed itself. Calico's default is V(false); a node
        may then borrow addresses from others' blocks when no block is free.
      - The same holds for this collection's node plugin, except where its own routes lead to whole blocks
        (C(cni_ipam_routes)); there it never borrows. With V(true), and only then, it may answer a pod's request before
        the API server knows of it.
    type: bool
  auto_allocate_blocks:
    description:
      - Whether a node claims a further block when its own are full. Calico's default is V(true).
      - V(false) needs O(strict_affinity=true).
    type: bool
  max_blocks_per_host:
    description:
      - How many blocks a node claims at most. Calico's default is V(0), which means 20. Blocks that a node has beyond a
        new limit stay with it.
      - Any other value needs O(strict_affinity=true). The largest is 2147483647 in C(crd.projectcalico.org/v1) and
        1000000 in C(projectcalico.org/v3).
    type: int
requirements:
  - netaddr
notes:
  - The API server does not know the rules between the settings. This module applies them, as Calico's own tools do, to
    the object as it would be, so that a setting that is given can contradict one that is stored.
  - There is a warning when O(strict_affinity) is off in a cluster that has nodes with Windows.
seealso:
  - module: podnet.ipam.ip_pools
  - name: IPAM configuration in Calico's documentation
    description: What the fields mean.
    link: https://docs.tigera.io/calico/latest/reference/resources/ipamconfig
"""

EXAMPLES = r"""
- name: Nodes keep to their own blocks, four of them at most
  podnet.ipam.ipam_config:
    strict_affinity: true
    max_blocks_per_host: 4

- name: Calico's own defaults
  podnet.ipam.ipam_config:
    strict_affinity: false
    auto_allocate_blocks: true
    max_blocks_per_host: 0

- name: No settings at all, which means the same
  podnet.ipam.ipam_config:
    state: absent
"""

RETURN = r"""
before:
  description:
    - The settings as they were, in a list of one, when they change.
    - An empty list when they do not, and when the object did not exist.
  returned: success
  type: list
  elements: dict
  sample:
    - {strict_affinity: false, auto_allocate_blocks: true, max_blocks_per_host: 0}
after:
  description:
    - The settings as they are now, or would be in check mode, in a list of one, when they change.
    - An empty list with O(state=absent).
  returned: success
  type: list
  elements: dict
  contains:
    strict_affinity:
      description: Whether a node takes addresses only from its own blocks.
      type: bool
      returned: always
    auto_allocate_blocks:
      description: Whether a node claims a further block when its own are full.
      type: bool
      returned: always
    max_blocks_per_host:
      description: How many blocks a node claims at most; V(0) means 20.
      type: int
      returned: always
  sample:
    - {strict_affinity: true, auto_allocate_blocks: true, max_blocks_per_host: 4}
operations:
  description: The writes that were made, or would be made in check mode. The kind is C(IPAMConfig) in both API groups.
  returned: always
  type: list
  elements: dict
  contains:
    verb:
      description: V(create), V(patch) or V(delete).
      type: str
      returned: always
    kind:
      description: Kind of the object.
      type: str
      returned: always
    name:
      description: Name of the object.
      type: str
      returned: always
  sample:
    - {verb: patch, kind: IPAMConfig, name: default}
errors:
  description: What forbids the declaration. Nothing was written.
  returned: when the declaration is refused
  type: list
  elements: dict
  sample:
    - object: IPAMConfig default
      field: max_blocks_per_host
      value: 4
      message: >-
        it is 4 (declared), but strict_affinity is false (in the cluster): Calico's MaxBlocksPerHost requires
        StrictAffinity to be enabled; set strict_affinity to true, or this to 0, which means 20
failed_operation:
  description: The write that failed.
  returned: when a write failed
  type: dict
  sample: {verb: patch, kind: IPAMConfig, name: default}
operations_left:
  description: The writes that were not made because of the one that failed; there are none.
  returned: when a write failed
  type: list
  elements: dict
  sample: []
"""

from ansible_collections.podnet.ipam.plugins.module_utils import _argspec, _runner
from ansible_collections.podnet.ipam.plugins.module_utils._kube import observe
from ansible_collections.podnet.ipam.plugins.module_utils._kube.network import Network
from ansible_collections.podnet.ipam.plugins.module_utils._plan import config

SETTINGS = {
    "strict_affinity": {"type": "bool"},
    "auto_allocate_blocks": {"type": "bool"},
    "max_blocks_per_host": {"type": "int"},
}
OPTIONS = {"state": {"type": "str", "choices": ["present", "absent"], "default": "present"}, **SETTINGS}


def main():
    module = _argspec.create_module(OPTIONS, required_if=[("state", "present", tuple(SETTINGS), True)])
    wanted = None if module.params["state"] == "absent" else config.given(module.params)

    def read(client, api, _pools):
        found = observe.labelled(client, api, api.config_kind) if api else None
        if found is None:
            return config.Observed(None)
        stored = found.get(config.NAME)
        windows = Network(client, api).windows_nodes if config.turns_strictness_off(wanted, stored) else ()
        return config.Observed(api.group_version, stored, windows)

    _runner.run_plan(module, read, lambda observed: config.plan(wanted, observed))


if __name__ == "__main__":
    main()
