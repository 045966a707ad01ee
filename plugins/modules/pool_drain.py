#!/usr/bin/python
# Copyright: the podnet.ipam contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pool_drain
short_description: Move pods out of an IP pool, batch by batch
description:
  - Points the annotations of namespaces and pod templates that name a pool to another one, disables the pool, and
    replaces the pods that have addresses of it.
  - One run does one batch and waits until its workloads have their new pods. RV(batches) says how many runs are needed,
    RV(left) how many pods are left. The role P(podnet.ipam.pool_migration#role) repeats it, and removes the pool
    afterwards.
  - What is left is read from the cluster in each run. So an interrupted move goes on where it was, and a run on an
    empty pool that nothing names changes nothing.
author: The podnet.ipam contributors (@podnet)
extends_documentation_fragment:
  - podnet.ipam._attributes
  - podnet.ipam._connection
options:
  pool:
    description:
      - Name of the pool to be emptied. When it does not exist, what still names it is pointed to the other one.
    type: str
    required: true
  to:
    description:
      - Name of the pool in its place. It must exist, be enabled, be of the same family, and have room.
      - Pods that draw from a pool unasked get it only if its selectors and its assignment mode say so. A warning tells
        where they go otherwise.
    type: str
    required: true
  batch:
    description:
      - How many workloads are begun at a time; V(0) for all of them.
      - Of a workload whose pods are evicted, one pod goes in each batch.
    type: int
    default: 0
  evict_bare_pods:
    description:
      - Whether to evict pods without a controller. Nobody makes them anew, so they are only reported by default.
    type: bool
    default: false
  adopt:
    description:
      - Whether to disable a pool that belongs to another controller, as O(podnet.ipam.ip_pools#module:adopt).
    type: bool
    default: false
  declared_pools:
    description:
      - Pools that the same play declares with M(podnet.ipam.ip_pools), in the form of its option
        O(podnet.ipam.ip_pools#module:pools). They count as existing, so that check mode works before they do.
      - Only C(name), C(cidr), C(block_size), C(disabled) and C(allowed_uses) are looked at.
    type: list
    elements: dict
    default: []
  wait_timeout:
    description:
      - How many seconds to wait for the workloads of the batch, and how long each eviction is tried that a disruption
        budget forbids. When they have passed, the module fails and says what is missing. The next run goes on.
    type: int
    default: 300
  wait_sleep:
    description: How many seconds to let pass before looking, or trying to evict, again. At least 1.
    type: int
    default: 2
requirements:
  - netaddr
notes:
  - Namespaces are pointed first, all of them at once. Then come the workloads that name the pool, or whose namespace
    does. When nothing names it any more, the pool is disabled, and the workloads follow whose pods draw from it
    unasked. So at no time there is an assignment that names a disabled pool, and a pod that dies by accident can come
    back.
  - The pods of Deployments, StatefulSets and DaemonSets are replaced by their controllers, as their update strategy
    says, by a changed template or as C(kubectl rollout restart) does it. Kubernetes does not hold that against
    disruption budgets, so the module does before. A workload whose strategy may take more pods away at once than a
    PodDisruptionBudget allows at that moment is left alone, and a later run tries again.
  - The pods of a ReplicaSet, and of a StatefulSet or DaemonSet with update strategy C(OnDelete), are evicted, which
    respects disruption budgets.
  - The pods of Jobs and CronJobs keep their addresses until they end. A CronJob is pointed; the template of a Job that
    has started cannot be changed.
  - Not moved, and reported with the reason, are also pods with fixed addresses of the pool, pods below the partition of
    a StatefulSet, those of a paused Deployment, static pods, pods of controllers whose kind is not known here, and
    workloads whose new pods would get no address.
  - The user needs to read pods, namespaces, nodes, the workloads and disruption budgets of the whole cluster, IP pools,
    blocks and reservations; and to patch namespaces, workloads and IP pools, and to evict pods.
seealso:
  - module: podnet.ipam.ip_pools
    description: Removes the pool when it is empty.
  - module: podnet.ipam.workload_pools
  - name: Migrate from one IP pool to another
    description: The steps in Calico's documentation.
    link: https://docs.tigera.io/calico/latest/networking/ipam/migrate-pools
"""

EXAMPLES = r"""
- name: What has to move, and what cannot
  podnet.ipam.pool_drain:
    pool: rack-1
    to: rack-1-wide
  check_mode: true

- name: Move all of it, five workloads at a time
  podnet.ipam.pool_drain:
    pool: rack-1
    to: rack-1-wide
    batch: 5
  register: drain
  until: drain.left | default(1) == 0
  retries: 100
  delay: 10
"""

RETURN = r"""
left:
  description: How many pods have an address of the pool when the module ends; in check mode, now.
  returned: success
  type: int
  sample: 2
batches:
  description: How many further runs with this O(batch) it takes to move what can be moved.
  returned: success
  type: int
  sample: 1
workloads:
  description: What still has pods in the pool, or asks for it, when the module ends; in check mode, now.
  returned: success
  type: list
  elements: dict
  contains:
    kind:
      description: Kind of the workload; V(Pod) for a pod without a controller, or with one that is not known here.
      type: str
      returned: always
    namespace:
      description: Its namespace.
      type: str
      returned: always
    name:
      description: Its name.
      type: str
      returned: always
    pods:
      description: Its pods with addresses of the pool, with C(name) and C(addresses).
      type: list
      elements: dict
      returned: always
    reason:
      description: Why it does not move, and what would help; V(null) when a further run moves it.
      type: str
      returned: always
  sample:
    - kind: Deployment
      namespace: payments
      name: settlement
      pods:
        - name: settlement-7d4b9c-x2x7p
          addresses: [10.244.3.17]
      reason: null
    - kind: Pod
      namespace: payments
      name: probe
      pods:
        - name: probe
          addresses: [10.244.3.18]
      reason: "it has no controller that would make it anew: a person has to delete it, or allow its eviction"
stuck:
  description: Those of RV(workloads) that do not move, each with its reason, in words.
  returned: success
  type: list
  elements: str
  sample:
    - >-
      Pod payments/probe: it has no controller that would make it anew: a person has to delete it, or allow its eviction
before:
  description: What this run changes, as it was.
  returned: success
  type: list
  elements: dict
  sample:
    - kind: Deployment
      namespace: payments
      name: settlement
      ipv4_pools: [rack-1]
      ipv6_pools: null
      families: null
      ip_addrs: null
after:
  description:
    - The same as it is now, or would be in check mode. With C(restarted), which tells whether its pods are replaced.
    - Pods that nobody makes anew are not listed.
  returned: success
  type: list
  elements: dict
  sample:
    - kind: Deployment
      namespace: payments
      name: settlement
      ipv4_pools: [rack-1-wide]
      ipv6_pools: null
      families: null
      ip_addrs: null
      restarted: true
operations:
  description: The writes that were made, or would be made in check mode, in their order.
  returned: always
  type: list
  elements: dict
  contains:
    verb:
      description: V(patch), V(restart) of a workload by an annotation of its template, or V(evict) of a pod.
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
    - {verb: patch, kind: Deployment, namespace: payments, name: settlement}
    - {verb: patch, kind: IPPool, name: rack-1}
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
  description: What forbids it. Nothing was written.
  returned: when it is refused
  type: list
  elements: dict
  sample:
    - object: pool rack-1-wide
      field: to
      value: rack-1-wide
      message: "it does not exist; pools: rack-1"
"""

from datetime import datetime, timezone

from ansible_collections.podnet.ipam.plugins.module_utils import _argspec, _runner
from ansible_collections.podnet.ipam.plugins.module_utils._kube import observe, occupancy, rollout
from ansible_collections.podnet.ipam.plugins.module_utils._kube.inventory import Inventory
from ansible_collections.podnet.ipam.plugins.module_utils._kube.network import Network
from ansible_collections.podnet.ipam.plugins.module_utils._plan import drain
from ansible_collections.podnet.ipam.plugins.module_utils._plan.budgets import Budget
from ansible_collections.podnet.ipam.plugins.module_utils._plan.rollout import IF_STALE, Policy
from ansible_collections.podnet.ipam.plugins.module_utils._plan.workload_kinds import KINDS, POD

OPTIONS = {
    "pool": {"type": "str", "required": True},
    "to": {"type": "str", "required": True},
    "batch": {"type": "int", "default": 0},
    "evict_bare_pods": {"type": "bool", "default": False},
    "adopt": {"type": "bool", "default": False},
    "declared_pools": _argspec.DECLARED_POOLS,
    "wait_timeout": {"type": "int", "default": 300},
    "wait_sleep": {"type": "int", "default": 2},
}


def desired(module):
    params = module.params
    # The time marks the restarts of this run, so it must not be that of another one.
    stamp = datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")
    return drain.Desired(
        pool=params["pool"],
        to=params["to"],
        batch=params["batch"],
        evict_bare_pods=params["evict_bare_pods"],
        adopt=params["adopt"],
        policy=Policy(IF_STALE, stamp, params["wait_timeout"], params["wait_sleep"]),
        declared_pools=_argspec.declared_pools(module),
    )


def read(client, api, pools):
    """The whole cluster, as far as it is about who has addresses."""
    return drain.Observed(
        pools=pools,
        namespaces=observe.namespaces(client),
        nodes={node["metadata"]["name"]: node for node in Inventory(client, api).nodes()},
        workloads=occupancy.workloads(client, [kind for kind in KINDS if kind != POD]),
        pods=occupancy.pods(client),
        blocks=tuple(observe.collection(client, api, "IPAMBlock")),
        reservations=tuple(observe.collection(client, api, "IPReservation")),
        budgets=tuple(Budget(*each) for each in occupancy.budgets(client)),
        installation=Network(client, api).installation,
        served=api is not None,
    )


class Session:
    """One run of the module: what it plans, what it waits for, and what it finds in the end."""

    def __init__(self, wanted):
        self.wanted, self.begun, self.awaited, self._first = wanted, {}, {}, None

    def plan(self, observed):
        """The plan of a round. What an earlier round has changed stays part of what the run has changed."""
        plan = drain.plan(self.wanted, observed, self.begun)
        self.begun.update(plan.begun)
        self.awaited.update(plan.awaited)
        if self._first is None:
            self._first = plan
        else:
            self._first.before = {**plan.before, **self._first.before}
            plan.after = {**self._first.after, **plan.after}
        return plan

    def finish(self, client, results, _done):
        self._wait(client)
        api, pools = observe.pools(client)
        results.update(drain.plan(self.wanted, read(client, api, pools)).results)

    def _wait(self, client):
        policy, leaving = self.wanted.policy, drain.leaving(self.wanted, observe.pools(client)[1])

        def judge(keys, existing, pods):
            return drain.lagging(keys, existing, pods, leaving)

        missing = rollout.wait(client, self.awaited, judge, policy.timeout, policy.sleep)
        if missing:
            texts = [f"{kind} {namespace}/{name}: {text}" for (kind, namespace, name), text in sorted(missing.items())]
            raise _runner.Unfinished(f"not finished after {policy.timeout} s: {'. '.join(texts)}")


def main():
    module = _argspec.create_module(OPTIONS)
    session = Session(desired(module))
    _runner.run_plan(module, read, session.plan, session.finish)


if __name__ == "__main__":
    main()
