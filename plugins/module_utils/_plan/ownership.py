# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Whose an object is: ours by a label, or another controller's; and the labels that a declaration gives it.

What this collection creates carries the label `app.kubernetes.io/managed-by: podnet.ipam`. Purging considers these
objects, or those that match label selectors if there are any.
"""

from __future__ import annotations

import re

from .._core.names import OBJECT_NAME, OWNER, OWNER_LABEL
from . import labels, ranges
from .operation import Problem

MARK = OWNER_LABEL, OWNER
_LABEL_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL_KEY = re.compile(rf"((?=[^/]{{1,253}}/){OBJECT_NAME.pattern}/)?{_LABEL_NAME}")
_LABEL_VALUE = re.compile(rf"({_LABEL_NAME})?")


def is_owned(obj):
    """Whether the collection created, or took over, this object."""
    return labels_of(obj).get(OWNER_LABEL) == OWNER


def labels_of(obj):
    return obj["metadata"].get("labels") or {}


def other_owner(pool, installation=None):
    """Who else owns an IPPool, as a text; None when nobody does, or when it is ours.

    Known by the controller among its ownerReferences, by its label, or because the Calico operator's `Installation`,
    which reverts others' changes, lists it.
    """
    return None if is_owned(pool) else visible_owner(pool) or _operator(pool, installation)


def is_of_nobody(pool):
    """Whether the object itself names no owner, so that only the Installation can tell."""
    return not is_owned(pool) and not visible_owner(pool)


def visible_owner(pool):
    """The other owner as far as the object itself says."""
    if is_owned(pool):
        return None
    for reference in pool["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            return f"{reference['kind']} {reference['name']} (its ownerReferences say so)"
    manager = labels_of(pool).get(OWNER_LABEL)
    return f"{manager} (its label {OWNER_LABEL} says so)" if manager else None


def _operator(pool, installation):
    network = (((installation or {}).get("spec") or {}).get("calicoNetwork")) or {}
    name, cidr = pool["metadata"]["name"], ranges.network(pool["spec"].get("cidr"))
    for listed in network.get("ipPools") or ():
        if listed.get("name") == name or (cidr and ranges.network(listed.get("cidr")) == cidr):
            return "the Calico operator (its Installation default lists it)"
    return None


def is_leaving(obj):
    """Whether it is being deleted already, but held by a finalizer: Calico's on a pool waits for the last block."""
    return bool(obj["metadata"].get("deletionTimestamp"))


def removed(wanted, listed, objects):
    """Names of the objects (by name) that a declaration of those in `listed` removes, sorted.

    `wanted` says how: `absent`, `purge`, `label_selectors`. What is being deleted already is gone for good.
    """
    if wanted.absent:
        names = sorted(listed & set(objects))
    else:
        names = purged(objects, listed, wanted.label_selectors) if wanted.purge else []
    return [name for name in names if not is_leaving(objects[name])]


def purged(objects, listed, label_selectors):
    """Names of the objects (by name) that a purge removes: not in `listed`, and ours or matching the selectors."""
    selectors = [f"{OWNER_LABEL}={OWNER}"] if label_selectors is None else label_selectors
    try:
        matches = labels.matcher(selectors)
    except ValueError:
        return []  # `selector_problems` names it
    return sorted(name for name, obj in objects.items() if name not in listed and matches(labels_of(obj)))


def selector_problems(label_selectors):
    """Texts of option `label_selectors` that are no label selectors."""
    for selector in label_selectors or ():
        try:
            labels.matcher([selector])
        except ValueError as error:
            yield Problem("option label_selectors", "label_selectors", selector, str(error))


def label_texts(declared):
    """The labels of a declaration as texts. What has no value stays None, for `label_problems` to name it."""
    return {key: None if value is None else str(value) for key, value in (declared or {}).items()}


def label_problems(subject, declared):
    """What is wrong with the labels that a declaration gives an object."""
    for key, value in sorted(declared.items()):
        if key == OWNER_LABEL and value != OWNER:
            message = f"{key} is how this collection knows its own objects; leave it out"
            yield Problem(subject, "labels", value, message)
        if not _LABEL_KEY.fullmatch(key):
            yield Problem(subject, "labels", key, f"{key!r} is no label name")
        if value is None:
            yield Problem(subject, "labels", key, f"label {key} has no value; '' is an empty one")
        elif not _LABEL_VALUE.fullmatch(value):
            message = f"{value!r} is no value for label {key}: up to 63 letters, digits, '-', '_' and '.' are allowed"
            yield Problem(subject, "labels", value, message)


def creation_labels(declared):
    """The labels of an object to create."""
    return {**declared, OWNER_LABEL: OWNER}


def label_changes(before, after):
    """What a patch of labels has to contain; others than the declared ones are left alone."""
    return {key: value for key, value in after.items() if before.get(key) != value}
