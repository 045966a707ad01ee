# SPDX-License-Identifier: Apache-2.0
"""A workload's label selector means the same to the API server, as text, and to the modules."""

from __future__ import annotations

from ansible_collections.podnet.ipam.plugins.module_utils._kube import resources
from ansible_collections.podnet.ipam.plugins.module_utils._plan import labels
from hypothesis import given
from hypothesis import strategies as st

KEYS, VALUES = st.sampled_from(["app", "tier", "example.com/rack"]), st.sampled_from(["a", "b", "c-1"])
TERMS = st.one_of(
    st.fixed_dictionaries({"key": KEYS, "operator": st.sampled_from(["Exists", "DoesNotExist"])}),
    st.fixed_dictionaries(
        {
            "key": KEYS,
            "operator": st.sampled_from(["In", "NotIn"]),
            "values": st.lists(VALUES, min_size=1, unique=True),
        }
    ),
)
SELECTORS = st.fixed_dictionaries(
    {}, optional={"matchLabels": st.dictionaries(KEYS, VALUES), "matchExpressions": st.lists(TERMS, max_size=3)}
)


@given(SELECTORS, st.dictionaries(KEYS, VALUES))
def test_the_text_of_a_selector_selects_what_the_selector_does(selector, own):
    text = resources.selector_text(selector)
    assert resources.selects(selector, own) == labels.matcher([text] if text else [])(own)
