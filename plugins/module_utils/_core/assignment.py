# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Which pools a pod may draw from, and why.

Source: Calico's documentation "Restrict a pod to use an IP address in a specific range" and its CNI plugin. For each
annotation by itself the pod's value wins over the namespace's, which wins over the plugin's configuration, and the
winner replaces the others. Over all of them wins what the runtime asks for (CNI conventions: capability `ipRanges`).
Without any, every enabled pool with assignmentMode Automatic serves whose selectors match node and namespace. A pool
asked for by name is used whatever its selectors and assignmentMode say.
"""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import dataclass, field

from .names import ADDRESSES_ANNOTATION, FAMILIES_ANNOTATION, POOLS_ANNOTATIONS, STICKY_ANNOTATION

FAMILIES = {"IPv4": 4, "IPv6": 6}
LONGEST_STICKY_SECONDS = 24 * 3600
_DURATION = re.compile(r"(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?")


class AssignmentError(Exception):
    """No pool can serve the pod. The text names the pod, what asked for which pool, and why each was refused."""


class NoPool(AssignmentError):
    """What is asked for is in order, but of the pools that there are now none gives the pod an address."""


@dataclass(frozen=True)
class Subject:
    """A pod as pool choice sees it.

    `configured` holds the plugin configuration's pool list of each family, `asked` those that the runtime asks for.
    """

    namespace: str
    name: str
    node: str
    pod_annotations: dict = field(default_factory=dict)
    namespace_annotations: dict = field(default_factory=dict)
    namespace_labels: dict = field(default_factory=dict)
    node_labels: dict = field(default_factory=dict)
    configured: dict = field(default_factory=dict)
    asked: dict = field(default_factory=dict)

    def __str__(self):
        return f"pod {self.namespace}/{self.name}"

    def annotation(self, key):
        """The winning (value, where it stands) of an annotation. An empty value counts as absent, as in Calico."""
        if self.pod_annotations.get(key):
            return self.pod_annotations[key], f"annotation {key} of {self}"
        if self.namespace_annotations.get(key):
            return self.namespace_annotations[key], f"annotation {key} of namespace {self.namespace}"
        return None, None


@dataclass(frozen=True)
class Choice:
    """The pools to try, in this order; what asked for them; (pool name, reason) of those that were not taken."""

    pools: tuple
    source: str
    refused: tuple = ()


def parse_names(value, where):
    """The pool names or CIDRs of an annotation's value, a JSON list of strings; `null` is an empty list.

    `where` is named by the AssignmentError that anything else raises.
    """
    try:
        names = json.loads(value)
    except ValueError as error:
        raise AssignmentError(
            f"{where} is not JSON: {value!r} ({error}); a JSON list is expected, such as '[\"pool\"]'"
        ) from None
    if names is None:
        return []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise AssignmentError(f"{where} is not a JSON list of strings: {value!r}; write for example '[\"pool\"]'")
    return names


def parse_addresses(texts, where):
    """The canonical texts of addresses that are asked for, the IPv4 one first; at most one of each family.

    AssignmentError, which names `where`, when one is none, or when there are two of a family.
    """
    found = {}
    for text in texts:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            raise AssignmentError(f"{where}: {text!r} is no IP address") from None
        if address.version in found:
            raise AssignmentError(f"{where} has more than one IPv{address.version} address: {', '.join(texts)}")
        found[address.version] = str(address)
    return [address for _version, address in sorted(found.items())]


def addresses(subject):
    """The very addresses that the pod's annotation asks for, the IPv4 one first; [] without it.

    For Calico it makes pools and families meaningless, and counts on a pod only.
    """
    value = subject.pod_annotations.get(ADDRESSES_ANNOTATION)
    if not value:
        return []
    where = f"{subject}: annotation {ADDRESSES_ANNOTATION}"
    found = parse_addresses(parse_names(value, where), where)
    if not found:
        raise AssignmentError(f"{where} is {value!r}; it must list at least one address, or be left out")
    return found


def families(subject, default):
    """The address families, from 4 and 6, that the pod gets: its annotation, its namespace's, else `default`."""
    value, where = subject.annotation(FAMILIES_ANNOTATION)
    if value is None:
        return tuple(default)
    names = parse_names(value, where)
    unknown = [name for name in names if name not in FAMILIES]
    if unknown or not names:
        raise AssignmentError(f"{subject}: {where} is {value!r}; it must list IPv4, IPv6 or both")
    return tuple(sorted({FAMILIES[name] for name in names}))


def sticky_seconds(subject):
    """For how many seconds the pod's freed address is kept for a pod of the same name: its annotation, else 0.

    The value is a duration as Go writes it, in hours, minutes and seconds. AssignmentError when it is none, or when it
    is longer than LONGEST_STICKY_SECONDS.
    """
    value = subject.pod_annotations.get(STICKY_ANNOTATION)
    if not value:
        return 0
    match = _DURATION.fullmatch(value)
    hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    total = hours * 3600 + minutes * 60 + seconds
    if not 0 < total <= LONGEST_STICKY_SECONDS:
        raise AssignmentError(
            f"{subject}: annotation {STICKY_ANNOTATION} is {value!r}; a time of at most 24h is expected, such as 90s,"
            " 10m or 1h30m"
        )
    return total


def choose(family, subject, pools):
    """The Choice of pools for `subject` in one family (4 or 6), out of all `pools` of the cluster.

    AssignmentError when there is none; its text names every candidate with the reason.
    """
    key = POOLS_ANNOTATIONS[family]
    value, where = subject.annotation(key)
    if subject.asked.get(family):
        names, where = subject.asked[family], "capability ipRanges"
    elif value is not None:
        names = parse_names(value, f"{subject}: {where}")
    else:
        names, where = subject.configured.get(family) or [], "the plugin's configuration"
    own = [pool for pool in pools if pool.family == family]
    if names:
        return _requested(subject, where, names, pools, own)
    return _automatic(family, subject, own)


def _requested(subject, where, names, pools, own):
    wanted = []
    for name in names:
        pool = _look_up(name, pools)
        if pool is None:
            raise NoPool(f"{subject}: {where} names pool {name!r}, which does not exist; {_existing(own, name)}")
        if pool not in own:
            what = f"IPv{pool.family} ({pool.cidr})"
            raise AssignmentError(f"{subject}: {where} names pool {name!r}, which is {what}; {_existing(own, name)}")
        if not pool.enabled:
            raise NoPool(f"{subject}: {where} names pool {name!r}, but {pool.why_not_usable()}")
        if pool not in wanted:
            wanted.append(pool)
    refused = tuple((pool.name, pool.why_not_usable()) for pool in wanted if pool.why_not_usable())
    usable = tuple(pool for pool in wanted if not pool.why_not_usable())
    if not usable:
        raise NoPool(f"{subject}: {where} names no usable pool: {_reasons(refused)}")
    return Choice(usable, where, refused)


def _automatic(family, subject, own):
    usable, refused = [], []
    for pool in own:
        reason = pool.why_not_usable() or pool.why_not_automatic(subject.node_labels, subject.namespace_labels)
        if reason:
            refused.append((pool.name, reason))
        else:
            usable.append(pool)
    if not usable:
        reasons = _reasons(refused) if refused else f"there is no IPv{family} pool at all"
        raise NoPool(f"{subject}: no IPv{family} pool serves it on node {subject.node}: {reasons}")
    return Choice(tuple(usable), "selectors of the pool", tuple(refused))


def _look_up(name, pools):
    """A pool by CIDR when the entry is one, else by name: Calico tries them in this order."""
    try:
        network = ipaddress.ip_network(name)
    except ValueError:
        return next((pool for pool in pools if pool.name == name), None)
    return next((pool for pool in pools if pool.network == network), None)


def _existing(own, asked):
    """What there is, with CIDRs where one was asked for."""
    names = ", ".join(sorted(f"{pool.name} ({pool.cidr})" if "/" in asked else pool.name for pool in own))
    return f"pools of this family: {names}" if names else "there is no pool of this family"


def _reasons(refused):
    return "; ".join(f"{name}: {reason}" for name, reason in refused)
