# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""What stands in the way of the node plugin in a cluster: rights that its installer lacks, pools that do not fit."""

from __future__ import annotations

from . import assignments, holders, ranges

ERROR, WARNING = "error", "warning"


def _finding(severity, check, message):
    return {"severity": severity, "check": check, "message": message}


def unreachable(message):
    """The finding that there is no answer to anything."""
    return _finding(ERROR, "api_server", message)


def refused(message, unknown_user):
    """The finding that the API server refuses to answer what is asked, and whether for not knowing who asks."""
    remedy = (
        "take a kubeconfig with credentials that it accepts" if unknown_user else "nothing more is known of the cluster"
    )
    return _finding(ERROR, "api_server", f"{message}: {remedy}")


def denied(rights):
    """A finding on all the `rights` together, dicts with verb, group, resource and namespace, that were denied."""
    texts = [_right(**each) for each in rights]
    if texts:
        message = f"the API server does not let this user {', '.join(texts)}: take a kubeconfig of one who may"
        yield _finding(ERROR, "access", message)


def _right(verb, group, resource, namespace):
    place = f" in namespace {namespace}" if namespace else ""
    return f"{verb} {resource}{'.' if group else ''}{group}{place}"


def findings(pools, pod_cidrs, families, named):
    """Findings on pools. `pools` are IPPools by name; `pod_cidrs` (CIDRs, who says so, may there be more) or None.

    `families` are those of which pods get an address each, 4 and 6; `named` the pools, by name or CIDR, that pods draw
    from without an assignment of theirs.
    """
    readable = assignments.readable(pools)
    for family in families:
        if not any(pool.family == family and not pool.why_not_usable() for pool in readable.values()):
            message = f"no IPv{family} pool is there and enabled: pods wait until ip_pools has declared one"
            yield _finding(WARNING, "pools", message)
    meant = {name: assignments.look_up(name, readable) for name in named}
    unknown = [name for name, pool in meant.items() if pool is None]
    if unknown:
        message = f"the CNI configuration will name {holders.some(unknown)}, but no pool is called so or has that CIDR"
        yield _finding(WARNING, "pools", message)
    for name, pool in meant.items():
        if pool and pool.why_not_usable():
            message = f"the CNI configuration will name {name}, which gives pods no address: {pool.why_not_usable()}"
            yield _finding(WARNING, "pools", message)
    yield from _outside(readable, pod_cidrs)


def _outside(pools, pod_cidrs):
    cidrs, source, partial = pod_cidrs or ((), None, True)
    if partial:
        yield _finding(WARNING, "pod_cidrs", "the cluster does not say what its pod CIDRs are; pools were not compared")
        return
    covered = ranges.parse(cidrs)[0]
    for name, pool in sorted(pools.items()):
        if pool.is_for_services or not ranges.has_family(covered, pool.family):
            continue
        if not ranges.lies_in(pool.network, covered):
            message = f"pool {name} ({pool.cidr}) does not lie in the pod CIDRs {holders.some(cidrs)}, from {source}"
            yield _finding(WARNING, "pod_cidrs", message)
