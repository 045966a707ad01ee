# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""The annotations of one object that say which addresses its pods get: what they mean, what they should mean, and
whether that can be honoured.

A *wanted* assignment maps options (`ipv4_pools`, `ipv6_pools`, `families`, `ip_addrs`) to lists. An empty list takes
the annotation away, and an option that is not in it is left alone.
"""

from __future__ import annotations

import ipaddress
import json

from .._core.assignment import FAMILIES, AssignmentError, parse_names
from .._core.names import ADDRESSES_ANNOTATION, FAMILIES_ANNOTATION, POOLS_ANNOTATIONS
from .._core.pool import Pool
from . import pool_checks, pool_view
from .operation import Problem

POOL_OPTIONS = {"ipv4_pools": 4, "ipv6_pools": 6}
KEYS = {
    **{option: POOLS_ANNOTATIONS[family] for option, family in POOL_OPTIONS.items()},
    "families": FAMILIES_ANNOTATION,
    "ip_addrs": ADDRESSES_ANNOTATION,
}
# Calico reads ipAddrs of a pod only.
NAMESPACE_OPTIONS = ("ipv4_pools", "ipv6_pools", "families")
WORKLOAD_OPTIONS = (*NAMESPACE_OPTIONS, "ip_addrs")


def wanted(item, absent, options):
    """The wanted assignment of an item of `namespaces` or `workloads`, out of those `options` that its kind knows.

    Values are in canonical form as far as they are valid.
    """
    if absent:
        return {option: [] for option in options}
    return {option: _canonical(option, item[option]) for option in options if item.get(option) is not None}


def readable(pools):
    """Pools by name out of IPPool objects by name; those that cannot be read are left out."""
    found = {}
    for name, obj in pools.items():
        try:
            found[name] = Pool.from_object(obj)
        except ValueError:
            continue
    return found


def with_declared(pools, declared):
    """IPPool objects by name, as they are once the pools of the option `declared_pools` are what they shall be.

    One without a CIDR cannot be created: it counts only if it exists. A pool that is being deleted stays so.
    """
    merged = dict(pools)
    for item in declared:
        if item.get("cidr"):
            existing = pools.get(item["name"], {"metadata": {"name": item["name"]}})
            merged[item["name"]] = {**_enabled(existing), "spec": pool_view.spec(pool_view.declared(item))}
    return merged


def _enabled(pool):
    """Without the condition that says no more than that the pool is disabled: that is to be declared anew."""
    conditions = (pool.get("status") or {}).get("conditions") or ()
    kept = [each for each in conditions if each.get("reason") != "PoolDisabled"]
    return {**pool, "status": {**(pool.get("status") or {}), "conditions": kept}}


def look_up(entry, pools):
    """The pool that an entry means, by CIDR or by name as in Calico; None when there is none."""
    try:
        network = ipaddress.ip_network(entry)
    except ValueError:
        return pools.get(entry)
    return next((pool for pool in pools.values() if pool.network == network), None)


def reference_problems(subject, assignment, pools):
    """Entries of a wanted assignment that no pool can honour. Fixed addresses have rules of their own: `fixed`."""
    for option, family in POOL_OPTIONS.items():
        for entry in assignment.get(option, ()):
            reason = _why_not(entry, family, pools)
            if reason:
                yield Problem(subject, option, entry, f"pool {entry!r} {reason}")
    for name in assignment.get("families", ()):
        if not any(pool.family == FAMILIES[name] and not pool.why_not_usable() for pool in pools.values()):
            yield Problem(subject, "families", name, f"no enabled pool of {name} exists")


def with_cause(problems, served):
    """Problems, and before those with pools what they come from in a cluster in which no pools are `served`."""
    caused = not served and any(each.option in KEYS for each in problems)
    return [pool_checks.NOT_SERVED, *problems] if caused else problems


def contradictions(subject, seen):
    """Warnings about options that have no effect beside others. `seen`: a `view` of all annotations as they will be."""
    given = {option: value for option, value in seen.items() if value and isinstance(value, list)}
    fixed = given.pop("ip_addrs", None)
    if fixed:
        others = " and ".join(given)
        return [f"{subject}: ip_addrs is {fixed}: beside it, {others} of the pods have no effect"] if given else []
    names = given.get("families")
    return [
        f"{subject}: {option} {given[option]} is not used: families is {names}"
        for option, family in POOL_OPTIONS.items()
        if names and option in given and family not in {FAMILIES[name] for name in names}
    ]


def view(annotations, options):
    """What the annotations say, by option: a list, None where absent, the raw text where it is malformed."""
    return {option: _read(annotations, option) for option in options}


def changes(assignment, annotations):
    """Annotations to write, {key: value}; the value None takes one away. Nothing when the meaning is right already."""
    written = {}
    for option, entries in assignment.items():
        stored = _read(annotations, option)
        if entries and stored != entries:
            written[KEYS[option]] = json.dumps(entries, separators=(",", ":"), ensure_ascii=False)
        elif not entries and stored is not None:
            written[KEYS[option]] = None
    return written


def changed(annotations, written):
    """The annotations after `changes` were written."""
    merged = {**annotations, **written}
    return {key: value for key, value in merged.items() if value is not None}


def malformed(assignment, annotations, options):
    """(key, text, what is wrong) of the annotations that an assignment leaves alone and that cannot be read."""
    for option in options:
        text = _read(annotations, option)
        if option not in assignment and isinstance(text, str):
            yield KEYS[option], text, _MALFORMED.get(option, "which is not a JSON list of strings")


def malformed_warnings(subject, assignment, annotations, options):
    """What is wrong with annotations that are left alone: no pod would start with them."""
    found = malformed(assignment, annotations, options)
    return [f"{subject}: annotation {key} is {text!r}, {what}" for key, text, what in found]


_MALFORMED = {
    "families": "which is not a JSON list of IPv4, IPv6 or both",
    "ip_addrs": "which is not a JSON list of addresses, one at most of each family",
}


def _read(annotations, option):
    text = annotations.get(KEYS[option])
    if not text:
        return None  # Calico takes an empty value as absent
    try:
        value = _canonical(option, parse_names(text, ""))
    except AssignmentError:
        return text
    return text if option in _VALID and not _VALID[option](value) else value


def _canonical(option, entries):
    """Entries in the form in which they are compared and written. The order of pools and of addresses counts."""
    if option == "families":
        return sorted(set(entries))
    return [_address_text(entry) for entry in entries] if option == "ip_addrs" else list(entries)


def _address_text(entry):
    try:
        return str(ipaddress.ip_address(entry))
    except ValueError:
        return entry


def _are_families(names):
    return bool(names) and all(name in FAMILIES for name in names)


def _are_addresses(entries):
    try:
        versions = [ipaddress.ip_address(entry).version for entry in entries]
    except ValueError:
        return False
    return bool(versions) and len(set(versions)) == len(versions)


_VALID = {"families": _are_families, "ip_addrs": _are_addresses}


def _why_not(entry, family, pools):
    pool = look_up(entry, pools)
    if pool is not None and pool.family == family:
        reason = pool.why_not_usable()
        return f"cannot be used: {reason}" if reason else None
    existing = ", ".join(sorted(name for name, each in pools.items() if each.family == family)) or "none"
    if pool is None:
        return f"does not exist; pools of IPv{family}: {existing}"
    return f"is IPv{pool.family} ({pool.cidr}); pools of IPv{family}: {existing}"
