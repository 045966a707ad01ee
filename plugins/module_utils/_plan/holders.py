# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Who holds the addresses of a stored block. Source: IPAMBlock of Calico 3.29 to 3.33."""

from __future__ import annotations

from .address_index import address_of
from .allocations import allocations

_SHOWN = 5  # what a message names before it only counts


def uses(block):
    """Of each address in use a dict: `address`, and `namespace`, `pod` and `handle` of its holder, None where unknown.

    An address that rests after its release counts as used; one that Windows keeps for itself is nobody's.
    """
    for each in allocations([block]):
        if not each.is_reserved_for_windows:
            yield {
                "address": address_of(each.value),
                "namespace": each.owner.get("namespace"),
                "pod": each.owner.get("pod"),
                "handle": each.handle,
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
