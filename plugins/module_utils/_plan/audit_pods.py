# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Pods and the addresses that they run with: against pools, against what is assigned to them, against each other."""

from __future__ import annotations

import ipaddress

from .._core.names import cidr_name
from . import assignments, in_use, staleness
from . import workload_kinds as kinds
from .address_index import address_of, family_of
from .finding import Finding


def findings(world):
    """Findings about addresses in use."""
    stale = _Staleness(world)
    for value, users in world.users.items():
        yield from _duplicate(value, users)
        for user in users:
            yield from _placed(world, value, user)
            if user.kind == "Pod" and not user.is_leaving:
                yield from _in_pool(world, value, user)
    for pod in world.pods.values():
        yield from stale.findings(pod)
    yield from _invalid_assignments(world)


def _duplicate(value, users):
    address = address_of(value)
    staying = [user for user in users if not user.is_leaving]
    names = sorted({str(user) for user in staying})
    looks = tuple(user.look for user in users)
    if len(names) > 1:
        message = f"{address} is in use by {' and '.join(names)}"
        yield Finding("duplicate", message, {"address": address, "users": names}, looks=looks)


def _placed(world, value, user):
    """Whether an address lies in a pool, and in a block that has it as allocated."""
    address, pool, allocated = address_of(value), world.pool_at(value), value in world.allocated
    objects = {**_identity(user), "address": address}
    if pool is None:
        known = "" if allocated else ", and no block has it as allocated"
        message = f"{address} of {user} lies in no pool{known}"
        counted = not allocated and user.seen_by_calicoctl
        yield Finding("outside", message, objects, problem=counted)
    elif not allocated and not user.is_leaving:
        message = f"{address} of {user} lies in pool {pool.name}, but no block has it as allocated"
        looks = (user.look, ("IPAMBlock", None, cidr_name(pool.block_of(address))))
        objects["pool"] = pool.name
        yield Finding("not_allocated", message, objects, problem=user.seen_by_calicoctl, looks=looks)


def _in_pool(world, value, user):
    pool = world.pool_at(value)
    if pool and not pool.enabled:
        address = address_of(value)
        message = f"{address} of {user} lies in pool {pool.name}: {pool.why_not_usable()}"
        yield Finding("pool_disabled", message, {**_identity(user), "address": address, "pool": pool.name})


def _identity(user):
    return _identity_of_pod(user.obj) if user.kind == "Pod" else {"kind": user.kind, **_place(user)}


def _place(user):
    return {"namespace": user.namespace, "name": user.name} if user.namespace else {"name": user.name}


def _identity_of_pod(pod):
    metadata = pod["metadata"]
    return {
        "namespace": metadata["namespace"],
        "pod": metadata["name"],
        "node": pod["spec"].get("nodeName"),
        "owner": owner_of(pod),
    }


def owner_of(pod):
    """{kind, name} of a pod's controller, the Deployment instead of its ReplicaSet; None of a bare pod."""
    controller, labels = kinds.controller(pod), pod["metadata"].get("labels") or {}
    if controller is None:
        return None
    name, suffix = controller["name"], f"-{labels.get('pod-template-hash')}"
    if controller["kind"] == kinds.REPLICA_SET and name.endswith(suffix):
        return {"kind": kinds.DEPLOYMENT, "name": name[: -len(suffix)]}
    return {"kind": controller["kind"], "name": name}


class _Staleness:
    """Which pods run with addresses that their present assignment would not give them.

    Many pods share an assignment, and many a node and a namespace: each is judged once.
    """

    def __init__(self, world):
        self._world = world
        self._allowed, self._reasons = {}, {}

    def findings(self, pod):
        values = self._world.pod_addresses.get((pod["metadata"]["namespace"], pod["metadata"]["name"]))
        if not values or pod["metadata"].get("deletionTimestamp"):
            return
        permitted, automatic = self._assignment(pod)
        wrong, reasons = [], []
        if permitted.networks or permitted.families:
            addresses = [ipaddress.ip_address(address_of(value)) for value in values]
            wrong, reasons = staleness.outside(addresses, permitted)
        for value in values:
            reason = self._unselected(pod, value) if family_of(value) in automatic else None
            if reason:
                wrong.append(address_of(value))
                reasons.append(f"{address_of(value)} {reason}")
        if reasons:
            identity = _identity_of_pod(pod)
            message = f"pod {identity['namespace']}/{identity['pod']}: {'; '.join(reasons)}"
            yield Finding("stale", message, {**identity, "addresses": wrong, "reasons": reasons})

    def _assignment(self, pod):
        """(staleness.Allowed, the families in which the pools' selectors decide) for a pod."""
        namespace = self._world.namespaces.get(pod["metadata"]["namespace"])
        own, inherited = _annotations(pod), _annotations(namespace) if namespace else {}
        key = tuple(own.get(each) for each in _KEYS), tuple(inherited.get(each) for each in _KEYS)
        if key not in self._allowed:
            permitted = staleness.allowed(self._world.pools, own, inherited)
            self._allowed[key] = permitted, _automatic(own, inherited)
        return self._allowed[key]

    def _unselected(self, pod, value):
        """Why the pool that an address is from does not serve the pod unasked; None when it does.

        A disabled pool is a finding of its own, and so is an address of no pool. Of a node or a namespace that is not
        known nothing can be said.
        """
        pool = self._world.pool_at(value)
        node = self._world.nodes.get(pod["spec"].get("nodeName"))
        namespace = self._world.namespaces.get(pod["metadata"]["namespace"])
        if pool is None or not pool.enabled or node is None or namespace is None:
            return None
        key = pool.name, node["metadata"]["name"], namespace["metadata"]["name"]
        if key not in self._reasons:
            labels = [each["metadata"].get("labels") or {} for each in (node, namespace)]
            self._reasons[key] = pool.why_not_usable() or pool.why_not_automatic(*labels)
        reason = self._reasons[key]
        return f"is from {pool.name}: {reason}" if reason else None


_KEYS = tuple(assignments.KEYS.values())


def _annotations(obj):
    """The annotations of an object that assign pools or addresses."""
    annotations = obj["metadata"].get("annotations") or {}
    return {key: annotations[key] for key in _KEYS if annotations.get(key)}


def _automatic(own, inherited):
    """The families in which no annotation names a pool. A malformed one names something that nobody knows."""
    if assignments.KEYS["ip_addrs"] in own:
        return ()
    view = assignments.view({**inherited, **own}, assignments.NAMESPACE_OPTIONS)
    return tuple(family for option, family in assignments.POOL_OPTIONS.items() if not view[option])


def _invalid_assignments(world):
    """Annotations with which no pod would start: one finding for each namespace, and for each owner of pods."""
    known = {}
    for name, namespace in world.namespaces.items():
        for message in _problems(known, f"namespace {name}", namespace, world.pools, assignments.NAMESPACE_OPTIONS):
            yield Finding("assignment_invalid", message, {"namespace": name})
    seen = set()
    for pod in world.pods.values():
        if in_use.is_finished(pod) or in_use.is_host_networked(pod) or not _annotations(pod):
            continue
        identity = _identity_of_pod(pod)
        owner, annotations = identity["owner"], tuple(sorted(_annotations(pod).items()))
        group = identity["namespace"], str(owner or identity["pod"]), annotations
        if group in seen:
            continue
        seen.add(group)
        subject = f"pod {identity['namespace']}/{identity['pod']}"
        for message in _problems(known, subject, pod, world.pools, assignments.WORKLOAD_OPTIONS):
            yield Finding("assignment_invalid", message, identity)


def _problems(known, subject, obj, pools, options):
    """Texts of what is wrong with the assignment of an object. `known`: those of equal assignments."""
    annotations = _annotations(obj)
    if not annotations:
        return []
    key = tuple(sorted(annotations.items())), options
    if key not in known:
        view = assignments.view(annotations, options)
        readable = {option: value for option, value in view.items() if isinstance(value, list)}
        unreadable = assignments.malformed({}, annotations, options)
        malformed = [f"annotation {name} is {text!r}, {what}" for name, text, what in unreadable]
        refused = [problem.message for problem in assignments.reference_problems("", readable, pools)]
        known[key] = malformed + refused + _unplaced(view.get("ip_addrs"), pools)
    return [f"{subject}: {text}" for text in known[key]]


def _unplaced(addresses, pools):
    """Fixed addresses that no enabled pool has."""
    if not isinstance(addresses, list):
        return []
    networks = [pool.network for pool in pools.values() if pool.enabled]
    fixed = map(ipaddress.ip_address, addresses)
    return [
        f"{address} lies in no enabled pool"
        for address in fixed
        if not any(network.version == address.version and address in network for network in networks)
    ]
