# SPDX-License-Identifier: Apache-2.0
"""Kubernetes' label selectors."""

from __future__ import annotations

import pytest
from ansible_collections.podnet.ipam.plugins.module_utils._plan.labels import matcher

LABELS = {"team": "payments", "tier": "2", "example.com/rack": "b-1"}


@pytest.mark.parametrize(
    "selector",
    [
        "team=payments",
        "team==payments",
        "team = payments , tier=2",
        "team!=shop",
        "absent!=anything",
        "team in (payments,shop)",
        "team notin (shop)",
        "absent notin (a, b),team",
        "example.com/rack",
        "!absent",
        "! absent",
    ],
)
def test_a_selector_that_matches(selector):
    assert matcher([selector])(LABELS)


@pytest.mark.parametrize(
    "selector",
    ["team=shop", "team!=payments", "team in (shop)", "team notin (payments,shop)", "absent", "!team", "absent in (a)"],
)
def test_a_selector_that_does_not_match(selector):
    assert not matcher([selector])(LABELS)


def test_all_of_several_selectors_have_to_match_and_none_matches_everything():
    assert matcher(["team=payments", "tier in (1,2)"])(LABELS)
    assert not matcher(["team=payments", "tier=1"])(LABELS)
    assert matcher([])({})


@pytest.mark.parametrize(
    "selector", ["", " ", "team=a b", "team in a", "=x", "team payments", "a=b,,c=d", "team in (a", "has(x)"]
)
def test_a_text_that_is_no_selector_is_named(selector):
    with pytest.raises(ValueError, match="is no label selector"):
        matcher([selector])
