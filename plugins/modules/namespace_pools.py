#!/usr/bin/python
# Copyright: the podnet.ipam contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: namespace_pools
short_description: Assign namespaces to IP pools
description:
  - Sees that the pods of a namespace get their addresses from the pools that it is assigned to, by annotations on
    the namespace.
author: The podnet.ipam contributors (@podnet)
extends_documentation_fragment:
  - podnet.ipam._attributes
  - podnet.ipam._connection
  - podnet.ipam._assignment
options:
  namespaces:
    description: The namespaces. With O(state=absent), only their names matter.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the namespace. It must exist, unless O(state=absent).
        type: str
        required: true
      ipv4_pools:
        description: Names or CIDRs of IPv4 pools. Left out, the annotation is left alone; an empty list takes it away.
        type: list
        elements: str
      ipv6_pools:
        description: Names or CIDRs of IPv6 pools. Left out, the annotation is left alone; an empty list takes it away.
        type: list
        elements: str
seealso:
  - module: podnet.ipam.ip_pools
  - module: podnet.ipam.workload_pools
"""

EXAMPLES = r"""
- name: All pods of payments draw from their own range
  podnet.ipam.namespace_pools:
    namespaces:
      - name: payments
        ipv4_pools: [payments]

- name: Two families, two pools to try in this order
  podnet.ipam.namespace_pools:
    namespaces:
      - name: shop
        ipv4_pools: [shop-1, shop-2]
        ipv6_pools: [shop-v6]

- name: No assignment any more
  podnet.ipam.namespace_pools:
    namespaces:
      - name: shop
    state: absent
"""

RETURN = r"""
before:
  description: The listed namespaces as they were, by name. A malformed annotation is shown as its text.
  returned: success
  type: list
  elements: dict
  sample:
    - {name: payments, ipv4_pools: null, ipv6_pools: null}
after:
  description: The listed namespaces as they are now, or would be in check mode, by name.
  returned: success
  type: list
  elements: dict
  sample:
    - {name: payments, ipv4_pools: [payments], ipv6_pools: null}
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
    - {verb: patch, kind: Namespace, name: payments}
errors:
  description: What forbids the declaration. Nothing was written.
  returned: when the declaration is refused
  type: list
  elements: dict
  sample:
    - object: namespace payments
      field: ipv4_pools
      value: paymets
      message: "pool 'paymets' does not exist; pools of IPv4: payments, rack-1"
"""

from ansible_collections.podnet.ipam.plugins.module_utils import _argspec, _runner
from ansible_collections.podnet.ipam.plugins.module_utils._kube import observe
from ansible_collections.podnet.ipam.plugins.module_utils._plan import namespaces

NAMESPACE = {
    "name": {"type": "str", "required": True},
    "ipv4_pools": {"type": "list", "elements": "str"},
    "ipv6_pools": {"type": "list", "elements": "str"},
}
OPTIONS = {
    "namespaces": {"type": "list", "elements": "dict", "required": True, "options": NAMESPACE},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def main():
    module = _argspec.create_module(OPTIONS)
    items, absent = module.params["namespaces"], module.params["state"] == "absent"

    def read(client, api, pools):
        return namespaces.Observed(
            namespaces=observe.named(client, "Namespace", {item["name"] for item in items}),
            pools=pools,
        )

    _runner.run_plan(module, read, lambda observed: namespaces.plan(items, absent, observed))


if __name__ == "__main__":
    main()
