# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

LABELS = {"rack": "1", "zone": "eu-west", "kubernetes.io/os": "linux"}


@pytest.mark.parametrize(
    "text",
    (
        "",
        "all()",
        "rack == '1'",
        'rack == "1"',
        "rack != '2'",
        "missing != '2'",
        "rack in {'1', '2'}",
        "rack not in {'2'}",
        "missing not in {'2'}",
        "zone contains '-w'",
        "zone starts with 'eu'",
        "zone ends  with 'west'",
        "has(kubernetes.io/os)",
        "!has(missing)",
        "rack == '2' || zone == 'eu-west'",
        "rack == '1' && !(zone == 'us')",
        "rack == '2' && has(missing) || has(rack)",
        "\thas( rack )  ",
    ),
)
def test_a_selector_that_matches(core, text):
    assert core.selector.parse(text)(LABELS)


@pytest.mark.parametrize(
    "text",
    (
        "!all()",
        "rack == '2'",
        "missing == ''",
        "rack != '1'",
        "rack in {}",
        "missing contains ''",
        "missing starts with ''",
        "has(missing)",
        "rack == '1' && zone == 'us'",
        "rack == '2' && (has(missing) || has(rack))",
    ),
)
def test_a_selector_that_does_not_match(core, text):
    assert not core.selector.parse(text)(LABELS)


@pytest.mark.parametrize(
    ("text", "message"),
    (
        ("rack = '1'", "nothing valid starts at position 4"),
        ("rack == 1", "expected a quoted string at position 8"),
        ("rack", "expected '==', '!=', 'in', 'not in', 'contains', 'starts with' or 'ends with' at position 4"),
        ("rack == '1' &&", "expected a label name, has(), all(), '!' or '(' at position 14"),
        ("(rack == '1'", "expected ')' at position 12"),
        ("rack == '1' zone == '2'", "expected '&&', '||' or the end at position 12"),
        ("rack in {'1'", "expected '}' at position 12"),
        ("global()", "global() is not allowed here at position 0"),
    ),
)
def test_what_is_no_selector_is_named_with_the_place(core, text, message):
    with pytest.raises(core.selector.SelectorError) as caught:
        core.selector.parse(text)
    assert text in str(caught.value) and message in str(caught.value)


@pytest.mark.parametrize("opening, closing", (("!", ""), ("(", ")")))
def test_a_selector_that_nests_too_deeply_is_refused_like_any_other_that_is_none(core, opening, closing):
    core.selector.parse(100 * opening + "all()" + 100 * closing)({})
    with pytest.raises(core.selector.SelectorError, match="more than 100 negations and parentheses"):
        core.selector.parse(10_000 * opening + "all()" + 10_000 * closing)
