# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Which pools a pod would draw from, which of them gives it its address, and why not the others.

The rules of pool choice (`assignment`), and of what pools have left (`room`), asked beforehand.
"""

from __future__ import annotations

import ipaddress

from . import assignment, room
from .names import ADDRESSES_ANNOTATION, FAMILIES_ANNOTATION
from .pool import pool_of

_DEFAULT_FAMILIES = "the default families"


def explain(subject, default, pools, view):
    """The answer for a Subject: families, and of each the pools that would be tried and why the others would not.

    `default` are the families (4, 6) of a pod for which nothing says otherwise, `pools` all Pools of the cluster,
    `view` is the View of the pod's node. The keys are `families` and `families_source`; `ipv4` and `ipv6`, None for a
    family that the pod does not get, else `pools`, `source`, `pool` (which gives the address), `room` (what each of the
    pools has left, a Room as a dict), `refused` (`name`, `reason`) and `error`; `error`, where no family can be told.
    """
    if subject.pod_annotations.get(ADDRESSES_ANNOTATION):
        return _fixed(subject, pools, view)
    _value, where = subject.annotation(FAMILIES_ANNOTATION)
    answer = {"families_source": where or _DEFAULT_FAMILIES, "families": [], "ipv4": None, "ipv6": None, "error": None}
    try:
        families = assignment.families(subject, default)
    except assignment.AssignmentError as error:
        return {**answer, "error": str(error)}
    answer["families"] = [name for name, family in assignment.FAMILIES.items() if family in families]
    for family in families:
        answer[f"ipv{family}"] = _choice(family, subject, pools, view)
    return answer


def _choice(family, subject, pools, view):
    try:
        choice = assignment.choose(family, subject, pools)
    except assignment.AssignmentError as error:
        return {"pools": [], "source": None, "pool": None, "room": [], "refused": [], "error": str(error)}
    chosen = [pool.name for pool in choice.pools]
    reasons = dict(choice.refused)
    for pool in pools:
        if pool.family == family and pool.name not in chosen:
            reasons.setdefault(pool.name, f"{choice.source} does not name it")
    refused = [{"name": name, "reason": reason} for name, reason in sorted(reasons.items())]
    return {"pools": chosen, "source": choice.source, **_given(subject, choice.pools, view), "refused": refused}


def _given(subject, pools, view):
    """`pool`, `room` and `error` of a choice."""
    found = room.rooms(pools, view)
    pool, error = next((each.name for each in found if each.reason is None), None), None
    if pool is None:
        reasons = "; ".join(f"{each.name}: {each.reason}" for each in found)
        error = f"{subject}: none of its pools has an address left for node {view.node}: {reasons}"
    return {"pool": pool, "room": [each._asdict() for each in found], "error": error}


def _fixed(subject, pools, view):
    """The answer for a pod with the annotation ipAddrs, which makes pools and families meaningless."""
    source = f"annotation {ADDRESSES_ANNOTATION} of {subject}"
    answer = {"families_source": source, "families": [], "ipv4": None, "ipv6": None, "error": None}
    try:
        addresses = assignment.addresses(subject)
    except assignment.AssignmentError as error:
        return {**answer, "error": str(error)}
    for text in addresses:
        version = ipaddress.ip_address(text).version
        answer["families"].append(f"IPv{version}")
        asked = {"source": f"{source}: {text}", "room": [], "refused": []}
        answer[f"ipv{version}"] = {**asked, **_pool_of(text, subject, pools, view)}
    return answer


def _pool_of(text, subject, pools, view):
    """The pool that one particular address comes from, or why it comes from none."""
    pool = pool_of(text, pools)
    if pool is None:
        return {"pools": [], "pool": None, "error": f"{text} lies in no pool"}
    place = f"{text} lies in pool {pool.name}, but"
    if pool.why_not_usable():
        return {"pools": [], "pool": None, "error": f"{place} {pool.why_not_usable()}"}
    reason, holder = room.why_not(text, pool, view), view.holders.get(text)
    if reason is None and holder not in (None, str(subject)):
        reason = f"{holder} holds it"
    return {
        "pools": [pool.name],
        "pool": None if reason else pool.name,
        "error": f"{place} {reason}" if reason else None,
    }


def addresses_asked_for(subject):
    """The very addresses that a Subject asks for, as far as they can be read."""
    try:
        return assignment.addresses(subject)
    except assignment.AssignmentError:
        return []
