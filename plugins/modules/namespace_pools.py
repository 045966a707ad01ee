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
    description:
      - The namespaces, each item by name or by label selectors. With O(state=absent), only these matter.
      - Of an item that says nothing more, the annotations are left alone, and O(purge) spares them as well.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Name of the namespace. It must exist, unless O(state=absent).
          - An item by name decides alone, whatever items by label selectors match the namespace too.
        type: str
      label_selectors:
        description:
          - Label selectors, such as V(team=payments) or V(tier in (front,back\)). The item is for every namespace that
            matches all of them; an empty list matches every namespace.
          - Two items that match the same namespace and differ in what they say are refused, unless the namespace is
            listed by name.
        type: list
        elements: str
      ipv4_pools:
        description: Names or CIDRs of IPv4 pools. Left out, the annotation is left alone; an empty list takes it away.
        type: list
        elements: str
      ipv6_pools:
        description: Names or CIDRs of IPv6 pools. Left out, the annotation is left alone; an empty list takes it away.
        type: list
        elements: str
      families:
        description:
          - The families of which a pod gets an address each. It gets all of them, or does not start.
          - Left out, the annotation is left alone; an empty list takes it away, and the node plugin's configuration
            decides.
        type: list
        elements: str
        choices: [IPv4, IPv6]
  purge:
    description:
      - With O(state=present), also takes the annotations away from namespaces that no item is for.
      - Only from those that match O(label_selectors).
    type: bool
    default: false
  label_selectors:
    description:
      - Which namespaces O(purge) is about, as label selectors that all have to match. Required with it.
      - An empty list means every namespace of the cluster.
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

- name: Two families, and two IPv4 pools to try in this order
  podnet.ipam.namespace_pools:
    namespaces:
      - name: shop
        ipv4_pools: [shop-1, shop-2]
        ipv6_pools: [shop-v6]
        families: [IPv4, IPv6]

- name: A range for each tier, an exception, and no other assignment in any namespace of a tenant
  podnet.ipam.namespace_pools:
    namespaces:
      - label_selectors: [tenant, tier=front]
        ipv4_pools: [front]
      - label_selectors: [tenant, tier=back]
        ipv4_pools: [back]
      - name: batch
        ipv4_pools: [batch]
    purge: true
    label_selectors: [tenant]

- name: No assignment any more
  podnet.ipam.namespace_pools:
    namespaces:
      - name: shop
    state: absent
"""

RETURN = r"""
before:
  description:
    - The namespaces whose annotations change, by the items or by O(purge), as they were, by name.
    - A malformed annotation is shown as its text.
  returned: success
  type: list
  elements: dict
  sample:
    - {name: payments, ipv4_pools: null, ipv6_pools: null, families: null}
after:
  description: The same namespaces as they are now, or would be in check mode, by name.
  returned: success
  type: list
  elements: dict
  sample:
    - {name: payments, ipv4_pools: [payments], ipv6_pools: null, families: null}
operations:
  description: The writes that were made, or would be made in check mode, in their order.
  returned: always
  type: list
  elements: dict
  contains:
    verb:
      description: Always V(patch).
      type: str
      returned: always
    kind:
      description: Always V(Namespace).
      type: str
      returned: always
    name:
      description: Name of the namespace.
      type: str
      returned: always
  sample:
    - {verb: patch, kind: Namespace, name: payments}
failed_operation:
  description: The write that failed.
  returned: when a write failed
  type: dict
  sample: {verb: patch, kind: Namespace, name: shop}
operations_left:
  description: The writes that were not made because another one failed. The next run makes them.
  returned: when a write failed
  type: list
  elements: dict
  sample:
    - {verb: patch, kind: Namespace, name: web}
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
from ansible_collections.podnet.ipam.plugins.module_utils._plan import assignments, namespaces

NAMESPACE = {
    "name": {"type": "str"},
    "label_selectors": {"type": "list", "elements": "str"},
    "ipv4_pools": {"type": "list", "elements": "str"},
    "ipv6_pools": {"type": "list", "elements": "str"},
    "families": {"type": "list", "elements": "str", "choices": list(assignments.FAMILIES)},
}
OPTIONS = {
    "namespaces": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": NAMESPACE,
        "mutually_exclusive": [("name", "label_selectors")],
        "required_one_of": [("name", "label_selectors")],
    },
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "purge": {"type": "bool", "default": False},
    "label_selectors": {"type": "list", "elements": "str"},
    "declared_pools": _argspec.DECLARED_POOLS,
}


def main():
    module = _argspec.create_module(OPTIONS, required_if=[("purge", True, ["label_selectors"])])
    params = module.params
    scope = params["label_selectors"]
    wanted = namespaces.Desired(
        items=tuple(params["namespaces"]),
        absent=params["state"] == "absent",
        purge=params["purge"],
        scope=None if scope is None else tuple(scope),
        declared_pools=_argspec.declared_pools(module),
    )

    def read(client, api, pools):
        names = None if wanted.needs_all else wanted.names
        return namespaces.Observed(observe.namespaces(client, names), pools, served=api is not None)

    _runner.run_plan(module, read, lambda observed: namespaces.plan(wanted, observed))


if __name__ == "__main__":
    main()
