# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether what was decoded from JSON or TOML has the types that its reader expects.

A schema is a type; or a list with the schema of each item; or, of an object, a dict with the schemas of the keys that
are looked at, each of which may be missing or null; or {str: schema of each value} for an object with keys of any name.
"""

from __future__ import annotations

from types import NoneType
from typing import Any

_NAMES = {list: "array", dict: "object", NoneType: "null"}


def check(value: Any, schema: Any, place: str = "$") -> None:
    """ValueError with the place of a value of another type, and what is expected there."""
    expected = schema if isinstance(schema, type) else type(schema)
    found = type(value)
    # Not isinstance: in Python a bool is an int.
    if found is not expected:
        raise ValueError(f"expected {_name(expected)}, got {_name(found)} at {place}")
    if expected is list:
        for number, item in enumerate(value):
            check(item, *schema, f"{place}[{number}]")
    elif expected is dict:
        _check_keys(value, schema, place)


def _check_keys(obj: dict, schema: dict, place: str) -> None:
    if str in schema:
        for key, value in obj.items():
            check(value, schema[str], f"{place}.{key}")
        return
    for key, inner in schema.items():
        if obj.get(key) is not None:
            check(obj[key], inner, f"{place}.{key}")


def _name(kind: type) -> str:
    return _NAMES.get(kind, kind.__name__)
