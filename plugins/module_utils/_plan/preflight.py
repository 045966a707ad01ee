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
    """A finding on all the `rights` together, dicts with verb, group and resource, that were denied."""
    texts = [f"{each['verb']} {each['resource']}{'.' if each['group'] else ''}{each['group']}" for each in rights]
    if texts:
        message = f"the API server does not let this user {', '.join(texts)}: take a kubeconfig of one who may"
        yield _finding(ERROR, "access", message)


def findings(pools, pod_cidrs, families, named):
    """Findings on pools. `pools` are IPPools by name; `pod_cidrs` (CIDRs, who says so, may there be more) or None.

    `families` are those of which pods get an address each, 4 and 6; `named` the pools, by name or CIDR, that pods draw
    from without an assignment of theirs.
    """
    readable = assignments.readable(pools)
    for family in families:
        if not any(pool.family == family and pool.enabled for pool in readable.values()):
            message = f"no IPv{family} pool is there and enabled: pods wait until ip_pools has declared one"
            yield _finding(WARNING, "pools", message)
    known = {*readable, *(str(pool.network) for pool in readable.values())}
    unknown = [name for name in named if name not in known]
    if unknown:
        message = f"the CNI configuration will name {holders.some(unknown)}, but no pool is called so or has that CIDR"
        yield _finding(WARNING, "pools", message)
    yield from _outside(readable, pod_cidrs)


def _outside(pools, pod_cidrs):
    cidrs, source, partial = pod_cidrs or ((), None, True)
    if partial:
        yield _finding(WARNING, "pod_cidrs", "the cluster does not say what its pod CIDRs are; pools were not compared")
        return
    covered = ranges.parse(cidrs)[0]
    for name, pool in sorted(pools.items()):
        if ranges.has_family(covered, pool.family) and not ranges.lies_in(pool.network, covered):
            message = f"pool {name} ({pool.cidr}) does not lie in the pod CIDRs {holders.some(cidrs)}, from {source}"
            yield _finding(WARNING, "pod_cidrs", message)
