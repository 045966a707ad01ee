#!/usr/bin/python
# Copyright: the podnet.ipam contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ip_reservations
short_description: Declare addresses that pods do not get unasked
description:
  - Creates, corrects and removes Calico IP reservations (C(IPReservation)), all of them in one task.
  - An address that is reserved is never given to a pod that does not ask for this very address. A pod that does gets
    it all the same. Addresses that are in use already stay in use.
author: The podnet.ipam contributors (@podnet)
extends_documentation_fragment:
  - podnet.ipam._attributes
  - podnet.ipam._connection
options:
  reservations:
    description:
      - The reservations. With O(state=absent), only their names matter.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the reservation.
        type: str
        required: true
      reserved_cidrs:
        description:
          - What is reserved, ranges such as V(10.244.9.0/26) and single addresses such as V(10.244.1.7), of both
            families. Required with O(state=present).
          - It is a set. Another order, another spelling of the same range and repetitions are no difference.
        type: list
        elements: str
      labels:
        description: Labels that the reservation must have. Others that it has are left alone.
        type: dict
  state:
    description:
      - V(present) sees that the reservations exist as declared.
      - V(absent) removes them. Where the cluster serves no IP reservations at all there is nothing to do.
    type: str
    choices: [present, absent]
    default: present
  purge:
    description:
      - With O(state=present), also removes the reservations that are not listed. Which ones, O(label_selectors) says.
    type: bool
    default: false
  label_selectors:
    description:
      - With O(purge), the reservations that it considers are those whose labels match all of these selectors, for
        example V(team=payments) or V(team in (payments,shop\)). An empty list stands for all reservations of the
        cluster.
      - Left out, it considers the reservations that this module created, which it tells by their label
        C(app.kubernetes.io/managed-by=podnet.ipam).
    type: list
    elements: str
  declared_pools:
    description:
      - Pools that the same play declares with M(podnet.ipam.ip_pools), in the form of its option
        O(podnet.ipam.ip_pools#module:pools).
      - They count as existing, and what is declared here wins over what the cluster has. So reservations can be made
        before their pools, and get the right warnings.
      - Of them only C(name) and C(cidr) are used.
    type: list
    elements: dict
    default: []
requirements:
  - netaddr
notes:
  - Everything is validated before the first write, and all problems are reported together.
  - There is a warning for a range that lies in no pool, for a pool that is reserved to more than 10 %, and for
    addresses that are in use when they are reserved. For the last, the cluster's blocks are read, and only when
    something is added.
  - What moves from one reservation to another stays reserved meanwhile. For that, a reservation that takes something
    over and gives something up may be written twice.
seealso:
  - module: podnet.ipam.ip_pools
  - name: IP reservation in Calico's documentation
    description: What the fields mean.
    link: https://docs.tigera.io/calico/latest/reference/resources/ipreservation
"""

EXAMPLES = r"""
- name: Addresses that appliances use, and the first ones of a range
  podnet.ipam.ip_reservations:
    reservations:
      - name: appliances
        reserved_cidrs:
          - 10.244.1.7
          - 10.244.1.9
          - fd00:10:244::7
      - name: for-later
        reserved_cidrs: [10.244.9.0/26]

- name: These reservations and no others of ours
  podnet.ipam.ip_reservations:
    reservations:
      - name: appliances
        reserved_cidrs: [10.244.1.7]
    purge: true

- name: A reservation that is not needed any more
  podnet.ipam.ip_reservations:
    reservations:
      - name: for-later
    state: absent
"""

RETURN = r"""
before:
  description: The reservations that change or go, as they were, by name.
  returned: success
  type: list
  elements: dict
  sample: []
after:
  description:
    - The reservations that change or are new, as they are now, or would be in check mode, by name.
    - RV(after[].reserved_cidrs) is sorted, IPv4 first, and a single address is a range of one.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the reservation.
      type: str
      returned: always
    reserved_cidrs:
      description: What is reserved.
      type: list
      elements: str
      returned: always
    labels:
      description: The labels that were declared.
      type: dict
      returned: always
  sample:
    - name: appliances
      reserved_cidrs: [10.244.1.7/32, 10.244.1.9/32, "fd00:10:244::7/128"]
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
    name:
      description: Name of the object.
      type: str
      returned: always
  sample:
    - {verb: create, kind: IPReservation, name: appliances}
errors:
  description: What forbids the declaration. Nothing was written.
  returned: when the declaration is refused
  type: list
  elements: dict
  sample:
    - object: reservation for-later
      field: reserved_cidrs
      value: 10.244.9.1/26
      message: "'10.244.9.1/26' has host bits: the range is 10.244.9.0/26, the address alone 10.244.9.1"
failed_operation:
  description: The write that failed.
  returned: when a write failed
  type: dict
  sample: {verb: create, kind: IPReservation, name: appliances}
operations_left:
  description: The writes that were not made because of the one that failed.
  returned: when a write failed
  type: list
  elements: dict
  sample:
    - {verb: create, kind: IPReservation, name: for-later}
"""

from ansible_collections.podnet.ipam.plugins.module_utils import _argspec, _runner
from ansible_collections.podnet.ipam.plugins.module_utils._kube import observe
from ansible_collections.podnet.ipam.plugins.module_utils._plan import reservations

RESERVATION = {
    "name": {"type": "str", "required": True},
    "reserved_cidrs": {"type": "list", "elements": "str"},
    "labels": {"type": "dict"},
}
OPTIONS = {
    "reservations": {"type": "list", "elements": "dict", "required": True, "options": RESERVATION},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "purge": {"type": "bool", "default": False},
    "label_selectors": {"type": "list", "elements": "str"},
    "declared_pools": _argspec.DECLARED_POOLS,
}


def main():
    module = _argspec.create_module(OPTIONS)
    desired = reservations.desired(module.params, _argspec.declared_pools(module))

    def read(client, api, pools):
        existing = observe.labelled(client, api, reservations.KIND)
        adds = reservations.adds_entries(desired, existing)
        return reservations.Observed(
            reservations=existing,
            pools=pools,
            blocks=tuple(observe.collection(client, api, "IPAMBlock")) if adds else (),
        )

    _runner.run_plan(module, read, lambda observed: reservations.plan(desired, observed))


if __name__ == "__main__":
    main()
