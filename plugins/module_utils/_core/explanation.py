# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Which pools a pod would draw from, and why not from the others: the rules of pool choice, asked beforehand."""

from __future__ import annotations

import ipaddress

from . import assignment
from .names import ADDRESSES_ANNOTATION, FAMILIES_ANNOTATION
from .pool import pool_of

_DEFAULT_FAMILIES = "the default families"


def explain(subject, default, pools):
    """The answer for a Subject: families, and of each the pools that would be tried and why the others would not.

    `default` are the families (4, 6) of a pod for which nothing says otherwise, `pools` all Pools of the cluster. The
    keys are `families` and `families_source`; `ipv4` and `ipv6`, None for a family that the pod does not get, else
    `pools`, `source`, `refused` (`name`, `reason`) and `error`; `error`, where no family can be told.
    """
    if subject.pod_annotations.get(ADDRESSES_ANNOTATION):
        return _fixed(subject, pools)
    _value, where = subject.annotation(FAMILIES_ANNOTATION)
    answer = {"families_source": where or _DEFAULT_FAMILIES, "families": [], "ipv4": None, "ipv6": None, "error": None}
    try:
        families = assignment.families(subject, default)
    except assignment.AssignmentError as error:
        return {**answer, "error": str(error)}
    answer["families"] = [name for name, family in assignment.FAMILIES.items() if family in families]
    for family in families:
        answer[f"ipv{family}"] = _choice(family, subject, pools)
    return answer


def _choice(family, subject, pools):
    try:
        choice = assignment.choose(family, subject, pools)
    except assignment.AssignmentError as error:
        return {"pools": [], "source": None, "refused": [], "error": str(error)}
    chosen = [pool.name for pool in choice.pools]
    reasons = dict(choice.refused)
    for pool in pools:
        if pool.family == family and pool.name not in chosen:
            reasons.setdefault(pool.name, f"{choice.source} does not name it")
    refused = [{"name": name, "reason": reason} for name, reason in sorted(reasons.items())]
    return {"pools": chosen, "source": choice.source, "refused": refused, "error": None}


def _fixed(subject, pools):
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
        answer[f"ipv{version}"] = {"source": f"{source}: {text}", "refused": [], **_pool_of(text, pools)}
    return answer


def _pool_of(text, pools):
    """The pool that one particular address comes from, or why it comes from none."""
    pool = pool_of(text, pools)
    if pool is None:
        return {"pools": [], "error": f"{text} lies in no pool"}
    if pool.why_not_usable():
        return {"pools": [], "error": f"{text} lies in pool {pool.name}, but {pool.why_not_usable()}"}
    return {"pools": [pool.name], "error": None}
