# SPDX-License-Identifier: Apache-2.0
"""The judge of concurrent histories finds the guilty, and only them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.linearizability import Event, after, is_linearizable

ADDRESSES = frozenset({"one", "two"})


@pytest.mark.parametrize(
    "history",
    (
        [Event(0, 1, "ADD", "a", "one"), Event(2, 3, "ADD", "a", "one")],
        # The DEL took effect before the ADD, although it was answered after it.
        [Event(0, 1, "ADD", "a", "one"), Event(2, 5, "DEL", "a"), Event(3, 4, "ADD", "b", "one")],
        # Full, and then not: the refused one came first.
        [
            Event(0, 1, "ADD", "a", "one"),
            Event(0, 1, "ADD", "b", "two"),
            Event(2, 9, "ADD", "c", None),
            Event(3, 4, "DEL", "a"),
        ],
    ),
)
def test_what_some_order_explains_is_accepted(history):
    assert is_linearizable(history, ADDRESSES)


@pytest.mark.parametrize(
    "history",
    (
        pytest.param([Event(0, 1, "ADD", "a", "one"), Event(2, 3, "ADD", "b", "one")], id="an address twice"),
        pytest.param([Event(0, 3, "ADD", "a", "one"), Event(1, 2, "ADD", "b", "one")], id="an address twice, at once"),
        pytest.param([Event(0, 1, "ADD", "a", "one"), Event(2, 3, "ADD", "a", "two")], id="another one for the same"),
        pytest.param([Event(0, 1, "ADD", "a", None)], id="refused although there is room"),
        pytest.param([Event(0, 1, "ADD", "a", "three")], id="an address that the node does not have"),
        pytest.param(
            [Event(0, 1, "ADD", "a", "one"), Event(2, 3, "ADD", "b", "one"), Event(4, 5, "DEL", "a")],
            id="given before it was freed",
        ),
        pytest.param(
            [
                Event(0, 1, "ADD", "a", "one"),
                Event(0, 1, "ADD", "b", "two"),
                Event(2, 3, "DEL", "a"),
                Event(4, 5, "ADD", "c", None),
            ],
            id="refused after one was freed",
        ),
    ),
)
def test_what_no_order_explains_is_rejected(history):
    assert not is_linearizable(history, ADDRESSES)


@given(st.randoms(use_true_random=False), st.integers(1, 25))
def test_whatever_was_done_one_after_the_other_is_accepted_however_long_each_took(rolls, length):
    history, held = [], {}
    for moment in range(length):
        event = _legal(rolls, held, moment)
        held = after(held, event, ADDRESSES)
        history.append(event)
    rolls.shuffle(history)
    assert is_linearizable(history, ADDRESSES)


def _legal(rolls: random.Random, held: dict[str, str], moment: float) -> Event:
    """Any request with an answer that is right at `moment`."""
    container = rolls.choice("abc")
    span = moment - rolls.uniform(0, 3), moment + rolls.uniform(0.1, 3)
    if rolls.random() < 0.5:
        return Event(*span, "DEL", container)
    free = sorted(ADDRESSES - set(held.values()))
    return Event(*span, "ADD", container, held.get(container) or (rolls.choice(free) if free else None))
