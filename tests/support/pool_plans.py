# SPDX-License-Identifier: Apache-2.0
"""Declarations of pools, the objects that they meet, and what becomes of these when a plan is carried out."""

from __future__ import annotations

import copy
import ipaddress
import itertools

from ansible_collections.podnet.ipam.plugins.module_utils import _runner
from ansible_collections.podnet.ipam.plugins.module_utils._core import names
from ansible_collections.podnet.ipam.plugins.module_utils._core.names import is_deleted
from ansible_collections.podnet.ipam.plugins.module_utils._plan import holders, network_checks, ownership, pools

OWNED = dict([ownership.MARK])


def declare(*items, state="present", **options):
    """A declaration that leaves the CIDRs of pods and services out, unless told otherwise."""
    return pools.desired({"pools": items, "state": state, "pod_cidrs": (), "service_cidrs": (), **options})


def stored(name, labels=None, metadata=None, **spec):
    metadata = {"name": name, "labels": labels or {}, "resourceVersion": "1", "uid": name, **(metadata or {})}
    return {"kind": "IPPool", "metadata": metadata, "spec": spec}


def observe(*objects, nodes=(), pod_cidrs=None, service_cidrs=None, strict_affinity=None, **others):
    """Observed pools; CIDRs are given as `network_checks.Cidrs`."""
    network = network_checks.Network(nodes, pod_cidrs, service_cidrs, strict_affinity)
    return pools.Observed({each["metadata"]["name"]: each for each in objects}, network=network, **others)


def block(cidr, *held, affinity="host:node-1", **spec):
    """A block whose first addresses have these handles."""
    network = ipaddress.ip_network(cidr)
    attributes = [{"handle_id": handle} for handle in held]
    free = [None] * (network.num_addresses - len(held))
    claimed = {"affinity": affinity, "affinityClaimTime": "2026-08-21T09:28:02Z"} if affinity else {}
    spec = {
        "cidr": cidr,
        **claimed,
        "allocations": [*range(len(held)), *free],
        "attributes": attributes,
        "sequenceNumber": 1787304482417330915,
        "deleted": False,
        **spec,
    }
    return {"kind": "IPAMBlock", "metadata": {"name": names.cidr_name(cidr)}, "spec": spec}


def claim(cidr, node="node-1", state="confirmed", deleted="false"):
    spec = {"cidr": cidr, "node": node, "type": "host", "state": state, "deleted": deleted}
    return {"kind": "BlockAffinity", "metadata": {"name": names.affinity_name(node, cidr)}, "spec": spec}


def names_of(operations):
    return [(each.verb, each.kind, each.name) for each in operations]


class Cluster:
    """What the API server holds while a plan is carried out, and what must never happen on the way."""

    def __init__(self, observed):
        objects = [*observed.pools.values(), *observed.blocks, *observed.affinities]
        self.network = observed.network
        self.objects = {(each["kind"], each["metadata"]["name"]): copy.deepcopy(each) for each in objects}

    def kind(self, kind):
        return [each for (found, _name), each in sorted(self.objects.items()) if found == kind]

    def observed(self):
        return observe(
            *self.kind("IPPool"),
            nodes=self.network.nodes,
            blocks=tuple(self.kind("IPAMBlock")),
            affinities=tuple(self.kind("BlockAffinity")),
        )

    def carry_out(self, operations):
        """The state after each operation. Of those that may be made at the same time, the last comes first."""
        for operation in itertools.chain.from_iterable(map(reversed, _runner.in_groups(operations))):
            getattr(self, operation.verb)(operation, (operation.kind, operation.name))
            yield self.observed()

    def create(self, operation, key):
        assert key not in self.objects
        assert operation.kind == "IPPool"
        self.objects[key] = stored(operation.name, operation.body["labels"], **copy.deepcopy(operation.body["spec"]))

    def patch(self, operation, key):
        obj = self.objects[key]
        obj["spec"].update(operation.body.get("spec") or {})
        obj["metadata"].setdefault("labels", {}).update(operation.body.get("labels") or {})

    def replace(self, operation, key):
        self._must_be_released(self.objects[key])
        self.objects[key]["spec"] = operation.body["spec"]

    def delete(self, operation, key):
        obj = self.objects.pop(key)
        if operation.kind == "IPPool":
            assert obj["spec"].get("disabled"), "a pool is disabled before it is removed"
        elif operation.kind == "IPAMBlock":
            assert not list(holders.uses(obj)), "no address loses its block"
            self._must_be_released(obj)

    def _must_be_released(self, obj):
        """A block loses its node only after the node's claim is marked, so that whoever claims it anew loses."""
        for affinity in self.kind("BlockAffinity"):
            if affinity["spec"]["cidr"] == obj["spec"]["cidr"] and not is_deleted(affinity):
                assert affinity["spec"]["state"] == "pendingDeletion"
