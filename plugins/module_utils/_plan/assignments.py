# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""The pool annotations of one object: what they say, what they should say, and whether they can be honoured.

A *wanted* assignment maps the address family (4, 6) to a list of pool names or CIDRs, in the order in which they are to
be tried; an empty list takes the annotation away, and a family that is not in it is left alone.
"""

from __future__ import annotations

import ipaddress
import json

from .._core.assignment import AssignmentError, parse_names
from .._core.names import POOLS_ANNOTATIONS
from .._core.pool import Pool
from .operation import Problem

MALFORMED = "which is not a JSON list of strings"
FAMILY_OPTIONS = {4: "ipv4_pools", 6: "ipv6_pools"}


def wanted(item, absent):
    """The wanted assignment of an item of `namespaces` or `workloads`."""
    if absent:
        return {family: [] for family in FAMILY_OPTIONS}
    return {family: item[option] for family, option in FAMILY_OPTIONS.items() if item.get(option) is not None}


def readable(pools):
    """Pools by name out of IPPool objects by name; those that cannot be read are left out."""
    found = {}
    for name, obj in pools.items():
        try:
            found[name] = Pool.from_object(obj)
        except ValueError:
            continue
    return found


def look_up(entry, pools):
    """The pool that an entry means, by CIDR or by name as in Calico; None when there is none."""
    try:
        network = ipaddress.ip_network(entry)
    except ValueError:
        return pools.get(entry)
    return next((pool for pool in pools.values() if pool.network == network), None)


def reference_problems(subject, assignment, pools):
    """Entries of a wanted assignment that no pool can honour."""
    for family, entries in sorted(assignment.items()):
        for entry in entries:
            reason = _why_not(entry, family, pools)
            if reason:
                yield Problem(subject, FAMILY_OPTIONS[family], entry, f"pool {entry!r} {reason}")


def view(annotations):
    """What the annotations say, by option: a list, None where absent, the raw text where it is malformed."""
    return {option: _read(annotations, family) for family, option in FAMILY_OPTIONS.items()}


def changes(assignment, annotations):
    """Annotations to write, {key: value}; the value None takes one away. Nothing when the meaning is right already."""
    written = {}
    for family, entries in assignment.items():
        key, stored = POOLS_ANNOTATIONS[family], _read(annotations, family)
        if entries and stored != entries:
            written[key] = json.dumps(entries, separators=(",", ":"), ensure_ascii=False)
        elif not entries and stored is not None:
            written[key] = None
    return written


def changed(annotations, written):
    """The annotations after `changes` were written."""
    merged = {**annotations, **written}
    return {key: value for key, value in merged.items() if value is not None}


def malformed(assignment, annotations):
    """(key, text) of the annotations that an assignment leaves alone and that cannot be read."""
    for family, key in POOLS_ANNOTATIONS.items():
        text = _read(annotations, family)
        if family not in assignment and isinstance(text, str):
            yield key, text


def malformed_warnings(subject, assignment, annotations):
    """What is wrong with annotations that are left alone: no pod would start with them."""
    return [f"{subject}: annotation {key} is {text!r}, {MALFORMED}" for key, text in malformed(assignment, annotations)]


def _read(annotations, family):
    text = annotations.get(POOLS_ANNOTATIONS[family])
    if not text:
        return None  # Calico takes an empty value as absent
    try:
        return parse_names(text, "")
    except AssignmentError:
        return text


def _why_not(entry, family, pools):
    pool = look_up(entry, pools)
    existing = ", ".join(sorted(name for name, each in pools.items() if each.family == family)) or "none"
    if pool is None:
        return f"does not exist; pools of IPv{family}: {existing}"
    if pool.family != family:
        return f"is IPv{pool.family} ({pool.cidr}); pools of IPv{family}: {existing}"
    reason = pool.why_not_usable()
    return f"cannot be used: {reason}" if reason else None
