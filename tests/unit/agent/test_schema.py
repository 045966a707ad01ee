# SPDX-License-Identifier: Apache-2.0
"""Values of other types than a reader expects are found, with their place."""

from __future__ import annotations

import pytest
from podnet_ipam.agent.schema import check

SCHEMA = {"name": str, "size": int, "on": bool, "list": [str], "map": {str: str}, "inner": {"items": [{"x": int}]}}


@pytest.mark.parametrize(
    "value",
    (
        {},
        {"name": None, "list": None, "map": None, "inner": None},
        {"name": "a", "size": 1, "on": False, "list": ["a", ""], "map": {"any": "a"}, "inner": {"items": [{"x": 1}]}},
        {"unknown": object()},
        {"inner": {"items": [{}]}},
    ),
)
def test_what_has_the_types_or_is_missing_is_taken(value):
    check(value, SCHEMA)


@pytest.mark.parametrize(
    ("value", "message"),
    (
        ([], "expected object, got array at $"),
        ({"name": 1}, "expected str, got int at $.name"),
        ({"size": True}, "expected int, got bool at $.size"),
        ({"size": 1.0}, "expected int, got float at $.size"),
        ({"on": 1}, "expected bool, got int at $.on"),
        ({"list": "a"}, "expected array, got str at $.list"),
        ({"list": ["a", None]}, "expected str, got null at $.list[1]"),
        ({"map": {"a": "b", "key": {}}}, "expected str, got object at $.map.key"),
        ({"inner": {"items": [{"x": 1}, {"x": "1"}]}}, "expected int, got str at $.inner.items[1].x"),
    ),
)
def test_another_type_is_named_with_its_place(value, message):
    with pytest.raises(ValueError) as refused:
        check(value, SCHEMA)
    assert str(refused.value) == message
