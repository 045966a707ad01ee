# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Pools: from the declared and the observed ones to the writes that make them equal.

The order of writes never passes through a state that Calico would refuse: pools are removed before others are created
in their range. Removal follows Calico's own: the pool is disabled, so that nothing new comes from it; then its empty
blocks go, each under compare-and-swap, so that an address assigned meanwhile stops it; then the pool.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from . import pool_view
from .operation import Operation, Plan, Problem
from .pool_checks import declaration_problems, removal_problems


@dataclass(frozen=True)
class Desired:
    """`pools` are views in the order in which they were declared. With `absent`, only their names count.

    `pod_cidrs` are those that the user gave: None to take the cluster's, empty to leave the check out.
    """

    pools: tuple
    absent: bool = False
    purge: bool = False
    pod_cidrs: tuple | None = None

    @property
    def asks_for_pod_cidrs(self):
        """Whether the cluster has to be asked for its pod CIDRs."""
        return self.pod_cidrs is None and not self.absent


@dataclass(frozen=True)
class Observed:
    """`served`: whether the cluster has IP pools at all. `pools` maps names to IPPool objects.

    `blocks` and `affinities` are needed only where `touches_blocks` says so.
    `pod_cidrs` are the cluster's as far as they are known; None when the user gave them.
    """

    pools: dict
    served: bool = True
    blocks: tuple = ()
    affinities: tuple = ()
    pod_cidrs: tuple | None = None


def desired(options):
    """The Desired of module options."""
    absent = options["state"] == "absent"
    views = tuple(pool_view.declared(pool) for pool in options["pools"])
    pod_cidrs = options["pod_cidrs"]
    return Desired(views, absent, bool(options["purge"]), None if pod_cidrs is None else tuple(pod_cidrs))


def removed(wanted, pools):
    """Names of the existing pools that are to go, sorted."""
    listed = {view["name"] for view in wanted.pools}
    if wanted.absent:
        return sorted(listed & set(pools))
    if not wanted.purge:
        return []
    return sorted(name for name, pool in pools.items() if pool_view.is_owned(pool) and name not in listed)


def touches_blocks(wanted, pools):
    """Whether planning has to know the blocks: when a pool goes, or a new one may find blocks in its range."""
    creates = not wanted.absent and any(view["name"] not in pools for view in wanted.pools)
    return creates or bool(removed(wanted, pools))


_NOT_SERVED = Problem(
    "the cluster",
    "pools",
    None,
    "it serves IPPool neither in crd.projectcalico.org/v1 nor in projectcalico.org/v3: install Calico first, or the"
    " node plugin of this collection with role podnet.ipam.cni_ipam",
)


def plan(wanted, observed):
    """The Plan that makes the observed pools the desired ones."""
    outcome = Plan()
    if not observed.served and not wanted.absent:
        outcome.problems.append(_NOT_SERVED)
        return outcome
    gone = removed(wanted, observed.pools)
    outcome.problems += removal_problems([observed.pools[name] for name in gone], observed.blocks)
    if not wanted.absent:
        problems, warnings = declaration_problems(wanted, observed, gone)
        outcome.problems += problems
        outcome.warnings += warnings
    _views(wanted, observed, gone, outcome)
    if not outcome.problems:
        outcome.operations += _removals(gone, observed)
        if not wanted.absent:
            outcome.operations += _writes(wanted, observed)
    return outcome


def _views(wanted, observed, gone, outcome):
    for name in gone:
        outcome.before[name] = _without_owner(pool_view.stored(observed.pools[name]))
        outcome.after[name] = None
    for view in wanted.pools if not wanted.absent else ():
        name = view["name"]
        existing = observed.pools.get(name)
        outcome.before[name] = pool_view.stored(existing, view["labels"]) if existing else None
        outcome.after[name] = view


def _without_owner(view):
    labels = {key: value for key, value in view["labels"].items() if key != pool_view.OWNER_LABEL}
    return {**view, "labels": labels}


def _writes(wanted, observed):
    updates, creations = [], []
    for view in sorted(wanted.pools, key=lambda each: each["name"]):
        existing = observed.pools.get(view["name"])
        if existing is None:
            labels = {**view["labels"], pool_view.OWNER_LABEL: pool_view.OWNER}
            body = {"spec": pool_view.spec(view), "labels": labels}
            creations.append(Operation("create", "IPPool", view["name"], body=body))
            continue
        before = pool_view.stored(existing, view["labels"])
        body = {"spec": pool_view.spec_changes(before, view), "labels": pool_view.label_changes(before, view)}
        if body["spec"] or body["labels"]:
            updates.append(Operation("patch", "IPPool", view["name"], body=body, observed=existing))
    return [*updates, *creations]


def _removals(gone, observed):
    pools = [observed.pools[name] for name in gone]
    disables = [_disable(pool) for pool in pools if not pool["spec"].get("disabled")]
    networks = [network for network in (_network(pool["spec"].get("cidr")) for pool in pools) if network]
    blocks = _within(observed.blocks, networks)
    affinities = _within(observed.affinities, networks)
    pending = [each for each in affinities if each["spec"].get("state") != "pendingDeletion"]
    return [
        *disables,
        *(_operation("patch", affinity, {"spec": {"state": "pendingDeletion"}}) for affinity in pending),
        *(_operation("delete", block) for block in blocks),
        *(_operation("delete", affinity) for affinity in affinities),
        *(_operation("delete", {**pool, "kind": "IPPool"}) for pool in pools),
    ]


def _disable(pool):
    return Operation(
        "patch", "IPPool", pool["metadata"]["name"], body={"spec": {"disabled": True}}, observed=pool, settles=True
    )


def _operation(verb, obj, body=None):
    return Operation(verb, obj["kind"], obj["metadata"]["name"], body=body or {}, observed=obj)


def _within(objects, networks):
    """Those of blocks or affinities that lie in one of the networks, by name."""
    found = []
    for each in objects:
        network = _network(each["spec"].get("cidr"))
        if network and any(network.version == outer.version and network.subnet_of(outer) for outer in networks):
            found.append(each)
    return sorted(found, key=lambda each: each["metadata"]["name"])


def _network(cidr):
    try:
        return ipaddress.ip_network(cidr)
    except (ValueError, TypeError):
        return None
