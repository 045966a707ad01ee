#!/usr/bin/python
# Copyright: the podnet.ipam contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: workload_pools
short_description: Assign workloads to IP pools
description:
  - Sees that the pods of a workload get their addresses from the pools that it is assigned to, by annotations on
    its pod template.
  - Changing the pod template of a Deployment, StatefulSet or DaemonSet makes Kubernetes replace its pods, as its update
    strategy says. That is also what makes the assignment take effect. A CronJob's next Job has it.
author: The podnet.ipam contributors (@podnet)
extends_documentation_fragment:
  - podnet.ipam._attributes
  - podnet.ipam._connection
  - podnet.ipam._assignment
options:
  workloads:
    description: The workloads. With O(state=absent), only kind, namespace and name matter.
    type: list
    elements: dict
    required: true
    suboptions:
      kind:
        description:
          - Kind of the workload.
          - The pod template of a V(Job) cannot be changed, unless the Job is suspended and has never started. A
            difference is an error.
          - On a V(Pod) that exists the annotation has no effect. A difference is an error that says which address the
            pod has; delete the pod and create it again.
        type: str
        choices: [Deployment, StatefulSet, DaemonSet, Job, CronJob, Pod]
        required: true
      namespace:
        description: Namespace of the workload.
        type: str
        required: true
      name:
        description:
          - Name of the workload. It must exist, unless O(state=absent) or a O(workloads[].definition) is given.
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
      definition:
        description:
          - The manifest of a V(Pod), which is created with the annotations if it does not exist.
          - Of a pod that exists only the annotations are compared.
        type: dict
seealso:
  - module: podnet.ipam.ip_pools
  - module: podnet.ipam.namespace_pools
  - name: Restrict a pod to use an IP address in a specific range
    description: The annotations in Calico's documentation.
    link: https://docs.tigera.io/calico/latest/networking/ipam/legacy-firewalls
"""

EXAMPLES = r"""
- name: This Deployment must pass the old firewall
  podnet.ipam.workload_pools:
    workloads:
      - kind: Deployment
        namespace: payments
        name: settlement
        ipv4_pools: [legacy-firewall]

- name: A bare pod, created with its assignment
  podnet.ipam.workload_pools:
    workloads:
      - kind: Pod
        namespace: payments
        name: probe
        ipv4_pools: [legacy-firewall]
        definition:
          spec:
            containers:
              - name: probe
                image: registry.example.com/probe:1
"""

RETURN = r"""
before:
  description:
    - The listed workloads as they were, by kind, namespace and name.
    - A malformed annotation is shown as its text.
  returned: success
  type: list
  elements: dict
  sample:
    - {kind: Deployment, namespace: payments, name: settlement, ipv4_pools: null, ipv6_pools: null}
after:
  description: The listed workloads as they are now, or would be in check mode.
  returned: success
  type: list
  elements: dict
  sample:
    - {kind: Deployment, namespace: payments, name: settlement, ipv4_pools: [legacy-firewall], ipv6_pools: null}
workloads:
  description: The listed workloads that exist or were created, with their stale pods.
  returned: success
  type: list
  elements: dict
  contains:
    kind:
      description: Kind of the workload.
      type: str
      returned: always
    namespace:
      description: Namespace of the workload.
      type: str
      returned: always
    name:
      description: Name of the workload.
      type: str
      returned: always
    stale_pods:
      description:
        - Pods that ran, when the module started, with an address that lies in none of the pools that the workload is
          assigned to. Only families with a non-empty list count. Not filled for a CronJob.
      type: list
      elements: dict
      returned: always
      sample:
        - {name: settlement-7d4b9c-x2x7p, addresses: [10.244.3.17]}
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
    - {verb: patch, kind: Deployment, namespace: payments, name: settlement}
errors:
  description: What forbids the declaration. Nothing was written.
  returned: when the declaration is refused
  type: list
  elements: dict
  sample:
    - object: Pod payments/probe
      field: ipv4_pools
      value: [legacy-firewall]
      message: >-
        it is not set and declared as ['legacy-firewall'], but the annotation has no effect on a pod that exists (it has
        10.244.3.17): delete the pod and create it again
"""

from ansible_collections.podnet.ipam.plugins.module_utils import _argspec, _runner
from ansible_collections.podnet.ipam.plugins.module_utils._kube import observe
from ansible_collections.podnet.ipam.plugins.module_utils._plan import workloads

WORKLOAD = {
    "kind": {"type": "str", "choices": list(workloads.KINDS), "required": True},
    "namespace": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "ipv4_pools": {"type": "list", "elements": "str"},
    "ipv6_pools": {"type": "list", "elements": "str"},
    "definition": {"type": "dict"},
}
OPTIONS = {
    "workloads": {"type": "list", "elements": "dict", "required": True, "options": WORKLOAD},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def main():
    module = _argspec.create_module(OPTIONS)
    items, absent = module.params["workloads"], module.params["state"] == "absent"

    def read(client, api, pools):
        existing = observe.workloads(client, [workloads.key(item) for item in items])
        return workloads.Observed(
            workloads=existing,
            pods={} if absent else observe.pods_of(client, existing),
            pools=pools,
            namespaces=frozenset(
                observe.named(client, "Namespace", workloads.namespaces_to_create_in(items, existing))
            ),
        )

    _runner.run_plan(module, read, lambda observed: workloads.plan(items, absent, observed))


if __name__ == "__main__":
    main()
