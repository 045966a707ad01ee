# Copyright: the podnet.ipam contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter `differences`, which is documented in the YAML file of its name."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ansible.errors import AnsibleFilterError


def differences(diffs):
    if not isinstance(diffs, Mapping):
        raise _error("the input", diffs)
    return [entry for part in diffs for entry in _of_part(str(part), diffs[part])]


def _of_part(part, diff):
    if not isinstance(diff, Mapping):
        raise _error(f"the input.{part}", diff)
    before, after = (_objects(part, diff, side) for side in ("before", "after"))
    for name in sorted({*before, *after}):
        if name not in before:
            yield _entry(part, name, None, None, after[name], "is missing")
        elif name not in after:
            yield _entry(part, name, None, before[name], None, "exists and is not declared")
        else:
            yield from _of_object(part, name, before[name], after[name])


def _of_object(part, name, before, after):
    for field in sorted({*before, *after}):
        old, new = before.get(field), after.get(field)
        if old != new:
            yield _entry(part, name, field, old, new, f"{field} is {_shown(old)}, declared is {_shown(new)}")


def _entry(part, name, field, before, after, text):
    return {
        "part": part,
        "object": name,
        "field": field,
        "before": before,
        "after": after,
        "text": f"{part}: {name}: {text}",
    }


def _objects(part, diff, side):
    """{name: object} of one side of a diff, as plain values."""
    objects = _plain(diff.get(side) or {})
    if not isinstance(objects, dict) or not all(isinstance(each, dict) for each in objects.values()):
        raise _error(f"the input.{part}.{side}", objects)
    return objects


def _plain(value):
    """The value without what ansible-core wraps around it, which templates the content of containers late."""
    if isinstance(value, Mapping):
        return {str(key): _plain(value[key]) for key in value}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value


def _shown(value):
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)


def _error(what, value):
    expected = "diffs by part: a mapping of mappings with before and after, each with objects by name"
    return AnsibleFilterError(f"podnet.ipam.differences: {what}: {value!r} is not {expected}")


class FilterModule:
    """The filter, by name."""

    def filters(self):
        return {"differences": differences}
