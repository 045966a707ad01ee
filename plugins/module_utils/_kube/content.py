# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""What a write makes of an object, and whether an object is what was written."""

from __future__ import annotations


def merged(obj, patch):
    """`obj` after the JSON merge patch `patch` (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(obj) if isinstance(obj, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def contains(stored, written):
    """Whether `stored` is what was `written`, as the API server changes it: defaults are added, and items at the end of
    lists, such as the volume of a pod's token; what is empty or false goes.
    """
    if isinstance(written, dict) and isinstance(stored, dict):
        return all(contains(stored.get(key), value) for key, value in written.items())
    if isinstance(written, list) and isinstance(stored, list):
        return len(stored) >= len(written) and all(map(contains, stored, written))
    return stored == written or not (stored or written)
