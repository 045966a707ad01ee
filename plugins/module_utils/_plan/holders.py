# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Who holds the addresses of a stored block. Source: IPAMBlock of Calico 3.29 to 3.33."""

from __future__ import annotations

from . import ranges

_WINDOWS_RESERVED = "windows-reserved-ipam-handle"  # no address of anybody: such a block counts as empty
_SHOWN = 5  # what a message names before it only counts


def is_deleted(obj):
    """Whether a block or an affinity is soft-deleted. Understands both forms of `deleted`, a boolean and a string."""
    return obj["spec"].get("deleted") in (True, "true")


def network_of(obj):
    """The `ipaddress` network of a pool, a block or an affinity, or None."""
    return ranges.network(obj["spec"].get("cidr"))


def uses(block):
    """Of each address in use a dict: `address`, and `namespace`, `pod` and `handle` of its holder, None where unknown.

    An address that rests after its release counts as used.
    """
    network = network_of(block)
    if network is None or is_deleted(block):
        return
    attributes = block["spec"].get("attributes") or []
    for ordinal, index in enumerate(block["spec"].get("allocations") or ()):
        if index is None:
            continue
        attribute = attributes[index] if 0 <= index < len(attributes) else {}
        if attribute.get("handle_id") == _WINDOWS_RESERVED:
            continue
        owner = attribute.get("secondary") or {}
        yield {
            "address": str(network.network_address + ordinal),
            "namespace": owner.get("namespace"),
            "pod": owner.get("pod"),
            "handle": attribute.get("handle_id"),
        }


def holder(use):
    """The holder of an address in use as messages name it."""
    if use["pod"]:
        return f"pod {use['namespace']}/{use['pod']}"
    return f"handle {use['handle']}" if use["handle"] else f"an unknown holder ({use['address']})"


def counted(addresses):
    """How many addresses there are, as messages say it."""
    return "1 address" if len(addresses) == 1 else f"{len(addresses)} addresses"


def some(texts):
    """The first few of the texts, and how many more there are; each counts once."""
    texts = list(dict.fromkeys(texts))
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more
