#!/usr/bin/python
# Copyright: the podnet.ipam contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: workload_pools
short_description: Assign workloads to IP pools
description:
  - Sees that the pods of a workload get their addresses from the pools that it is assigned to, or fixed addresses, by
    annotations on its pod template.
  - Changing the pod template of a Deployment, StatefulSet or DaemonSet makes Kubernetes replace its pods, as its update
    strategy says, whatever O(rollout) says. That is also what makes the assignment take effect. A CronJob's next Job
    has it.
  - Where the template is right already but pods run with other addresses, O(rollout) replaces them.
author: The podnet.ipam contributors (@podnet)
extends_documentation_fragment:
  - podnet.ipam._attributes
  - podnet.ipam._connection
  - podnet.ipam._assignment
attributes:
  idempotent:
    support: partial
    details: With O(rollout=always), every run replaces all pods.
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
          - A V(ReplicaSet) that belongs to a Deployment is refused; declare the Deployment.
          - On a V(Pod) that exists the annotation has no effect. A difference is an error that says which address the
            pod has; delete the pod and create it again.
        type: str
        choices: [Deployment, StatefulSet, DaemonSet, ReplicaSet, Job, CronJob, Pod]
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
      families:
        description:
          - The families of which a pod gets an address each. It gets all of them, or does not start.
          - Left out, the annotation is left alone; an empty list takes it away, and the namespace's or the node
            plugin's configuration decides.
        type: list
        elements: str
        choices: [IPv4, IPv6]
      ip_addrs:
        description:
          - The very addresses that the pod gets, at most one of each family, each in an enabled pool. The annotation is
            C(cni.projectcalico.org/ipAddrs). Left out, it is left alone; an empty list takes it away.
          - Only one pod can have an address at a time. So replicas, or the parallelism of a Job, must be 1 at most, a
            Deployment must not start new pods before the old ones are gone (strategy C(Recreate), or C(maxSurge) 0),
            and a V(DaemonSet) is refused.
          - An address that another pod has, or that another item declares, is refused.
          - It wins over pools and families. Calico does not look at reservations and at the pool's selectors then.
        type: list
        elements: str
      definition:
        description:
          - The manifest of a V(Pod), which is created with the annotations if it does not exist.
          - Of a pod that exists only the annotations are compared. One that is being deleted is an error.
        type: dict
  rollout:
    description:
      - Whether to replace pods that a change of the template does not replace.
      - V(never) writes annotations only. The controllers of Deployments, StatefulSets and DaemonSets replace the pods
        of a template that was changed.
      - V(if_stale) also replaces pods that run with addresses that the assignment would not give them.
      - V(always) replaces all pods in every run. It is not idempotent.
      - Deployments, StatefulSets and DaemonSets are restarted as C(kubectl rollout restart) does it, by an annotation
        of the template. A StatefulSet's pods below the partition of its update strategy stay, which gives a warning.
        A Deployment that is paused is refused.
      - The pods of a ReplicaSet, and of a StatefulSet or DaemonSet with update strategy C(OnDelete), are evicted, all
        at once as far as disruption budgets allow it. What a budget forbids is tried again for O(wait_timeout) seconds.
      - Jobs, CronJobs and bare Pods are never restarted; a warning names their stale pods.
    type: str
    choices: [never, if_stale, always]
    default: never
  wait:
    description:
      - Whether to wait until the pods of workloads that were changed, restarted or found on the way are replaced. A
        created Pod is waited for until it is ready.
      - That is when the workload's controller has finished its rollout, by the conditions of C(kubectl rollout status),
        and no pod that can be replaced is stale any more.
      - Check mode does not wait. Nor is a Deployment waited for that is paused.
    type: bool
    default: false
  wait_timeout:
    description:
      - How many seconds to wait, for all workloads together. When they have passed, the module fails and says what is
        missing. The changes stay; the next run waits for what is still stale.
      - Also how long each eviction is tried that a disruption budget forbids, with or without O(wait).
    type: int
    default: 120
  wait_sleep:
    description: How many seconds to let pass before looking, or trying to evict, again. At least 1.
    type: int
    default: 5
seealso:
  - module: podnet.ipam.ip_pools
  - module: podnet.ipam.namespace_pools
  - name: Restrict a pod to use an IP address in a specific range
    description: The annotations in Calico's documentation.
    link: https://docs.tigera.io/calico/latest/networking/ipam/legacy-firewalls
"""

EXAMPLES = r"""
- name: This Deployment must pass the old firewall, its running pods included
  podnet.ipam.workload_pools:
    workloads:
      - kind: Deployment
        namespace: payments
        name: settlement
        ipv4_pools: [legacy-firewall]
    rollout: if_stale
    wait: true

- name: The one pod of this StatefulSet is known by its address
  podnet.ipam.workload_pools:
    workloads:
      - kind: StatefulSet
        namespace: payments
        name: gateway
        ip_addrs: [10.244.144.10]

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
    - The listed workloads that change, as they were, by kind, namespace and name.
    - A malformed annotation is shown as its text.
  returned: success
  type: list
  elements: dict
  sample:
    - kind: Deployment
      namespace: payments
      name: settlement
      ipv4_pools: null
      ipv6_pools: null
      families: null
      ip_addrs: null
after:
  description:
    - The same workloads as they are now, or would be in check mode.
    - With C(restarted), which is V(true), where the pods are replaced for another reason than a changed assignment.
  returned: success
  type: list
  elements: dict
  sample:
    - kind: Deployment
      namespace: payments
      name: settlement
      ipv4_pools: [legacy-firewall]
      ipv6_pools: null
      families: null
      ip_addrs: null
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
        - Pods that ran, when the module started, with addresses that the workload's assignment would not give them.
        - The assignment is what the pod template's annotations say after this run, and what those of the namespace say
          where the template has none. Where neither names pools, the addresses of that family are not judged.
        - Of a CronJob these are pods of its Jobs.
      type: list
      elements: dict
      returned: always
      contains:
        name:
          description: Name of the pod.
          type: str
          returned: always
        addresses:
          description: Those of its addresses that it would not get; empty when it only lacks one.
          type: list
          elements: str
          returned: always
        reasons:
          description: What is wrong, as texts.
          type: list
          elements: str
          returned: always
      sample:
        - name: settlement-7d4b9c-x2x7p
          addresses: [10.244.3.17]
          reasons: [10.244.3.17 is not from legacy-firewall]
operations:
  description: The writes that were made, or would be made in check mode, in their order.
  returned: always
  type: list
  elements: dict
  contains:
    verb:
      description:
        - V(patch) of a workload's pod template, V(create) or V(evict) of a pod, or V(restart) of a workload by an
          annotation of its template.
      type: str
      returned: always
    kind:
      description: Kind of the object.
      type: str
      returned: always
    namespace:
      description: Namespace of the object.
      type: str
      returned: always
    name:
      description: Name of the object.
      type: str
      returned: always
  sample:
    - {verb: patch, kind: Deployment, namespace: payments, name: settlement}
failed_operation:
  description: The write that failed.
  returned: when a write failed
  type: dict
  sample: {verb: evict, kind: Pod, namespace: payments, name: gateway-0}
operations_left:
  description: The writes that were not made because another one failed. The next run makes them.
  returned: when a write failed
  type: list
  elements: dict
  sample:
    - {verb: evict, kind: Pod, namespace: payments, name: gateway-1}
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

from datetime import datetime, timezone

from ansible_collections.podnet.ipam.plugins.module_utils import _argspec, _runner
from ansible_collections.podnet.ipam.plugins.module_utils._kube import observe, rollout
from ansible_collections.podnet.ipam.plugins.module_utils._kube import workloads as reading
from ansible_collections.podnet.ipam.plugins.module_utils._plan import assignments, fixed, workloads
from ansible_collections.podnet.ipam.plugins.module_utils._plan.rollout import MODES, NEVER, Policy

WORKLOAD = {
    "kind": {"type": "str", "choices": list(workloads.KINDS), "required": True},
    "namespace": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "ipv4_pools": {"type": "list", "elements": "str"},
    "ipv6_pools": {"type": "list", "elements": "str"},
    "families": {"type": "list", "elements": "str", "choices": list(assignments.FAMILIES)},
    "ip_addrs": {"type": "list", "elements": "str"},
    "definition": {"type": "dict"},
}
OPTIONS = {
    "workloads": {"type": "list", "elements": "dict", "required": True, "options": WORKLOAD},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "rollout": {"type": "str", "choices": list(MODES), "default": NEVER},
    "wait": {"type": "bool", "default": False},
    "wait_timeout": {"type": "int", "default": 120},
    "wait_sleep": {"type": "int", "default": 5},
    "declared_pools": _argspec.DECLARED_POOLS,
}


def desired(module):
    params = module.params
    # The time marks the restarts of this run, so it must not be that of another one.
    stamp = datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")
    return workloads.Desired(
        items=tuple(params["workloads"]),
        absent=params["state"] == "absent",
        policy=Policy(params["rollout"], stamp, params["wait_timeout"], params["wait_sleep"]),
        declared_pools=_argspec.declared_pools(module),
    )


class Session:
    """One run of the module: what it reads, what it plans, and what it waits for."""

    def __init__(self, wanted):
        self.wanted, self.awaited, self.first = wanted, {}, None

    def read(self, client, api, pools):
        items = self.wanted.items
        existing = reading.existing(client, [workloads.key(item) for item in items])
        pods = reading.pods_of(client, existing)
        if self.first is None:
            self.first = frozenset(pod["metadata"]["uid"] for own in pods.values() for pod in own)
        blocks = observe.blocks(client, api, self.wanted.blocks_to_read(pools))
        uses = fixed.in_use(items, blocks)
        return workloads.Observed(
            workloads=existing,
            pods=pods,
            pools=pools,
            namespaces=observe.namespaces(client, {item["namespace"] for item in items}),
            uses=uses,
            holders=self._existing(client, fixed.pods_of(uses), workloads.names_of(pods)),
            first=self.first,
            served=api is not None,
        )

    @staticmethod
    def _existing(client, holders, known):
        """Those pods among `holders` that exist; the API server is asked about those that are not `known` already."""
        return frozenset(holders & known | reading.exist(client, holders - known))

    def plan(self, observed):
        plan = workloads.plan(self.wanted, observed)
        self.awaited.update(plan.awaited)
        return plan

    def finish(self, client, _results, _done):
        def judge(keys, existing, pods):
            return workloads.lagging({key: self.awaited[key] for key in keys}, existing, pods)

        policy = self.wanted.policy
        missing = rollout.wait(client, self.awaited, judge, policy.timeout, policy.sleep)
        if missing:
            texts = [f"{kind} {namespace}/{name}: {text}" for (kind, namespace, name), text in sorted(missing.items())]
            raise _runner.Unfinished(f"not finished after {policy.timeout} s: {'. '.join(texts)}")


def main():
    module = _argspec.create_module(OPTIONS)
    session = Session(desired(module))
    _runner.run_plan(module, session.read, session.plan, session.finish if module.params["wait"] else None)


if __name__ == "__main__":
    main()
