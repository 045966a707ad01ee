# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Handles, the index from a holder to the blocks with its addresses, against what the blocks say."""

from __future__ import annotations

import re

from .._core.names import cidr_name, handle_name, is_deleted
from .finding import Finding
from .world import canonical

_OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


def findings(world):
    """Findings about handles."""
    taken = {each["metadata"]["name"]: each for each in world.observed.handles}
    for handle in world.observed.handles:
        held = world.holdings.get(handle["spec"].get("handleID"))
        found = _count(handle, held) if held else _leaked(handle)
        if found and not world.is_young(handle):
            yield found
    for identity, held in world.holdings.items():
        if identity not in world.handles:
            yield _missing(identity, held, taken)


def _leaked(handle):
    spec, name = handle["spec"], handle["metadata"]["name"]
    cidrs = sorted(spec.get("block") or {})
    state = "it is marked as deleted, but still there" if is_deleted(handle) else "no block has an address of it"
    looks = (("IPAMHandle", None, name), *(("IPAMBlock", None, cidr_name(canonical(cidr))) for cidr in cidrs))
    message = f"handle {spec.get('handleID')}: {state}"
    objects = {"handle": spec.get("handleID"), "blocks": cidrs}
    return Finding("leaked_handle", message, objects, problem=True, subject=handle, looks=looks)


def _count(handle, held):
    if is_deleted(handle):
        return None
    stored = {canonical(cidr): count for cidr, count in (handle["spec"].get("block") or {}).items()}
    actual = {canonical(cidr): count for cidr, count in held.items()}
    if stored == actual:
        return None
    identity, name = handle["spec"]["handleID"], handle["metadata"]["name"]
    message = f"handle {identity} counts {_counts(stored)}, but the blocks have {_counts(actual)}"
    blocks = (("IPAMBlock", None, cidr_name(cidr)) for cidr in sorted({*stored, *actual}))
    objects = {"handle": identity, "blocks": sorted({*stored, *actual})}
    return Finding("handle_count", message, objects, subject=handle, looks=(("IPAMHandle", None, name), *blocks))


def _counts(blocks):
    return ", ".join(f"{count} in {cidr}" for cidr, count in sorted(blocks.items())) or "none"


def _missing(identity, held, taken):
    name, cidrs = handle_name(identity), sorted(map(canonical, held))
    other, hindrance = taken.get(name), None
    if other is not None and not is_deleted(other):
        hindrance = f"IPAMHandle {name} is there for handle {other['spec'].get('handleID')}"
    elif not _OBJECT_NAME.fullmatch(name):
        hindrance = f"{name!r} cannot be the name of an object"
    looks = (("IPAMHandle", None, name), *(("IPAMBlock", None, cidr_name(cidr)) for cidr in cidrs))
    message = f"handle {identity} has addresses in {', '.join(cidrs)}, but there is no IPAMHandle {name}"
    objects = {"handle": identity, "blocks": cidrs}
    return Finding("missing_handle", message, objects, subject=identity, looks=looks, hindrance=hindrance)
