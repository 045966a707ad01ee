# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Fixed addresses: what Calico demands of the annotation `ipAddrs`, and what a workload must be like to start with one.

Only one pod can have an address at a time. A workload that starts a pod before the last one is gone would wait for
itself for ever.
"""

from __future__ import annotations

import ipaddress

from .._core.pool import pool_of
from . import holders
from . import workload_kinds as kinds
from .operation import Problem

OPTION = "ip_addrs"


def blocks(items, pools):
    """The CIDRs of the blocks that the wanted addresses lie in. `pools`: Pools by name."""
    found = set()
    for item in items:
        for address in _parsed(item.get(OPTION) or ())[0]:
            pool = pool_of(str(address), pools.values())
            if pool:
                found.add(pool.block_of(str(address)))
    return found


def value_problems(subject, entries, pools):
    """What is wrong with the addresses themselves."""
    addresses, malformed = _parsed(entries)
    for entry in malformed:
        yield Problem(subject, OPTION, entry, f"{entry!r} is no address, such as 10.244.0.10 or fd00::10")
    for family in (4, 6):
        own = [str(address) for address in addresses if address.version == family]
        if len(own) > 1:
            yield Problem(subject, OPTION, own, f"{' and '.join(own)} are both IPv{family}; a pod has one at most")
    for address in addresses:
        containing = [pool for pool in pools.values() if pool.contains(str(address))]
        if any(not pool.why_not_usable() for pool in containing):
            continue
        known = ", ".join(f"{pool.name} ({pool.cidr})" for pool in _of_family(address, pools)) or "none"
        reason = f"lies in no pool; pools of IPv{address.version}: {known}"
        if containing:
            reason = f"lies in pool {containing[0].name!r}, which cannot be used: {containing[0].why_not_usable()}"
        yield Problem(subject, OPTION, str(address), f"{address} {reason}")


def workload_problems(subject, kind, workload):
    """Why a workload cannot have a fixed address."""
    count = kinds.replicas(kind, workload)
    message = None
    if count is None:
        message = "a DaemonSet has a pod on each node, and only one pod can have an address: assign it to pools instead"
    elif count > 1:
        field = "parallelism" if kind in (kinds.JOB, kinds.CRON_JOB) else "replicas"
        message = f"{field} is {count}, but only one pod can have an address: make it 1, or assign it to pools instead"
    elif kind == kinds.DEPLOYMENT and _surges(workload):
        message = (
            "its strategy is RollingUpdate with a maxSurge other than 0: a new pod would wait for the address of the"
            " old one, which stays until the new one runs. Set the strategy to Recreate, or maxSurge to 0"
        )
    if message:
        yield Problem(subject, OPTION, count, message)


def workload_warnings(subject, kind, workload):
    policy = workload["spec"].get("concurrencyPolicy", "Allow") if kind == kinds.CRON_JOB else None
    if policy == "Allow":
        yield (
            f"{subject}: concurrencyPolicy is Allow: a run that starts before the last one has ended waits for its"
            " address. Forbid or Replace avoids that"
        )


def repeated(wanted):
    """Problems of addresses that several workloads want. `wanted`: (subject, entries) of each."""
    owners = {}
    for subject, entries in wanted:
        for address in _parsed(entries)[0]:
            owners.setdefault(address, []).append(subject)
    for address, subjects in owners.items():
        first = subjects[0]
        for subject in sorted(set(subjects) - {first}):
            yield Problem(subject, OPTION, str(address), f"{address} is also declared for {first}")


def in_use(items, blocks):
    """{address: use} of the wanted addresses that are taken, with `holders.uses` of the blocks that they lie in."""
    wanted = {str(address) for item in items for address in _parsed(item.get(OPTION) or ())[0]}
    return {use["address"]: use for block in blocks for use in holders.uses(block) if use["address"] in wanted}


def pods_of(uses):
    """The (namespace, name) of the pods that have addresses, out of `in_use`."""
    return {(use["namespace"], use["pod"]) for use in uses.values() if use["pod"]}


def held(subject, entries, uses, own, existing):
    """(problems, warnings) of addresses that others have. `uses`: the result of `in_use`; `own` and `existing`: the
    (namespace, name) of the workload's own pods, and of those holders that exist.

    A pod that is gone gives its address back in a moment, or has left it behind: that is no reason to write nothing.
    """
    problems, warnings = [], []
    for address in map(str, _parsed(entries)[0]):
        use = uses.get(address)
        if use is None or (use["namespace"], use["pod"]) in own:
            continue
        if use["pod"] and (use["namespace"], use["pod"]) not in existing:
            warnings.append(
                f"{subject}: {address} is still recorded for {holders.holder(use)}, which does not exist any more. The"
                " new pod waits until it is given back. If that never happens, podnet.ipam.pod_audit finds and frees it"
            )
        elif use["pod"] or use["handle"]:
            problems.append(Problem(subject, OPTION, address, f"{address} is in use by {holders.holder(use)}"))
        else:
            warnings.append(f"{subject}: {address} was released a moment ago: the new pod waits until it may be reused")
    return problems, warnings


def _parsed(entries):
    addresses, malformed = [], []
    for entry in entries:
        try:
            addresses.append(ipaddress.ip_address(entry))
        except ValueError:
            malformed.append(entry)
    return addresses, malformed


def _of_family(address, pools):
    return sorted((pool for pool in pools.values() if pool.family == address.version), key=lambda pool: pool.name)


def _surges(deployment):
    """Whether a Deployment starts new pods before old ones are gone. maxSurge is a number or a percentage."""
    strategy = deployment["spec"].get("strategy") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return False
    surge = (strategy.get("rollingUpdate") or {}).get("maxSurge", "25%")
    return str(surge) not in ("0", "0%")
