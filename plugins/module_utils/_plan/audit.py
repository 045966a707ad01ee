# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""An audit: everything in which pods, pools, assignments, blocks, claims and handles contradict each other.

Source of what is in use and of what counts as a problem: `calicoctl ipam check` of Calico 3.29 to 3.33.
"""

from __future__ import annotations

from collections import Counter

from . import audit_blocks, audit_handles, audit_pods, holders, network_checks, ranges, repair
from .finding import CHECKS, Finding, in_order
from .operation import Plan
from .world import COLLECTIONS, world


class Audit:
    """What is found in a cluster as it was `observed`. What is younger than `grace` seconds is not judged.

    `again`: the keys of the objects that were read a second time; None before that. A block that was may have addresses
    by then of pods that the list of pods did not have: what needs a second look and did not get it is not found.
    """

    def __init__(self, observed, grace, again=None):
        self._observed, self._grace = observed, grace
        self.world = world(observed, grace)
        parts = (audit_pods.findings, audit_blocks.findings, audit_handles.findings, _outside_of_pod_cidrs, _of_others)
        found = (finding for part in parts for finding in part(self.world))
        self.findings = in_order(finding for finding in found if again is None or _looks(finding) <= again)

    @property
    def looks(self):
        """The objects to read again before anything is reported, {(kind, namespace, name)}.

        What was read first may not fit what was read last, when pods came or went meanwhile.
        """
        return {look for finding in self.findings for look in _looks(finding)}

    def released(self, wanted):
        """The addresses that a repair of the parts `wanted` releases, {(address, handle)}."""
        leaked = (each for each in self.findings if each.check == "leaked" and each.is_repaired(wanted))
        return {(each.objects["address"], each.objects["handle"]) for each in leaked}

    def seen_again(self, latest):
        """The Audit of the cluster with the `latest` objects, {(kind, namespace, name): object or None}."""
        observed = self._observed.seen_again(latest)
        return self if observed is self._observed else Audit(observed, self._grace, latest.keys())

    def repaired(self, first, wanted, done):
        """Of each finding of the `first` Audit of a run, whether it was repaired, when this is the last one.

        `done`: the operations of all rounds. What is found no more may also have gone by itself.
        """
        last = {each.identity: each for each in self.findings}
        written = {(each.kind, each.namespace, each.name) for each in done}
        for finding in first.findings:
            again = last.get(finding.identity)
            yield finding.is_repaired(wanted) and (
                again.is_repaired(wanted) if again else not written.isdisjoint(finding.looks)
            )

    def plan(self, wanted):
        """The Plan that repairs the parts `wanted` (of `finding.REPAIRS`); its results are the report."""
        outcome = Plan(results=_report(self.world, self.findings, wanted))
        repair.add_to(outcome, self.world, [finding for finding in self.findings if finding.is_repaired(wanted)])
        return outcome


def _looks(finding):
    return {look for look in finding.looks if look[0] in COLLECTIONS.values()}


def _report(seen, found, wanted):
    counts = Counter(finding.check for finding in found)
    return {
        "findings": [finding.describe(wanted) for finding in found],
        "summary": {check: counts[check] for check in CHECKS},
        "clean": not found,
        "calicoctl_problems": calicoctl_problems(seen),
        "examined": {
            "pools": len(seen.observed.pools),
            "namespaces": len(seen.observed.namespaces),
            "nodes": len(seen.observed.nodes),
            "pods": len(seen.observed.pods),
            "blocks": len(seen.blocks),
            "addresses": len(seen.allocated),
            "handles": len(seen.handles),
        },
    }


def calicoctl_problems(seen):
    """How many problems `calicoctl ipam check` would count at this moment. It takes no account of age."""
    used = {value for value, users in seen.users.items() if any(user.seen_by_calicoctl for user in users)}
    kept = {
        value
        for value, allocated in seen.allocated.items()
        if any(each.is_cooling or each.is_reserved_for_windows for each in allocated)
    }
    leaked = seen.allocated.keys() - used - kept
    not_allocated = used - seen.allocated.keys()
    leaked_handles = [each for each in seen.observed.handles if each["spec"].get("handleID") not in seen.holdings]
    return len(leaked) + len(not_allocated) + len(leaked_handles) + len(audit_blocks.invalid(seen))


def _outside_of_pod_cidrs(seen):
    cidrs = seen.observed.pod_cidrs
    if not cidrs:
        return
    covered = ranges.parse(cidrs)[0]
    for name, pool in seen.pools.items():
        if pool.is_for_services or not ranges.has_family(covered, pool.family):
            continue
        if not ranges.lies_in(pool.network, covered):
            message = f"pool {name} ({pool.cidr}) does not lie in the cluster's pod CIDRs ({holders.some(cidrs)})"
            yield Finding("pool_outside", message, {"pool": name, "cidr": pool.cidr})


def _of_others(seen):
    """Pools where services or nodes have their addresses."""
    views = [({"name": name, "cidr": str(pool.cidr)}, pool.network) for name, pool in seen.pools.items()]
    network = network_checks.Network(nodes=seen.observed.nodes, service_cidrs=seen.observed.service_cidrs)
    checks = {"pool_services": network_checks.meeting_services, "pool_nodes": network_checks.holding_nodes}
    for check, judge in checks.items():
        for problem in judge(views, network)[0]:
            name = problem.subject.removeprefix("pool ")
            yield Finding(check, f"{problem.subject}: {problem.message}", {"pool": name, "cidr": problem.value})
