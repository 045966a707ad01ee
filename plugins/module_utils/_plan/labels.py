# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Kubernetes' label selectors, as kubectl's `--selector` and kubernetes.core's `label_selectors` spell them.

Not to be confused with Calico's selector language, which is in `_core.selector`.
"""

from __future__ import annotations

import re

_KEY = r"(?P<key>[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?)"
_VALUE = r"[-A-Za-z0-9_.]*"
_TERMS = (
    (re.compile(rf"{_KEY}\s*(?:==|=)\s*(?P<value>{_VALUE})"), lambda labels, key, wanted: labels.get(key) == wanted[0]),
    (re.compile(rf"{_KEY}\s*!=\s*(?P<value>{_VALUE})"), lambda labels, key, wanted: labels.get(key) != wanted[0]),
    (
        re.compile(rf"{_KEY}\s+in\s*\((?P<value>[^()]*)\)"),
        lambda labels, key, wanted: key in labels and labels[key] in wanted,
    ),
    (re.compile(rf"{_KEY}\s+notin\s*\((?P<value>[^()]*)\)"), lambda labels, key, wanted: labels.get(key) not in wanted),
    (re.compile(rf"!\s*{_KEY}"), lambda labels, key, _wanted: key not in labels),
    (re.compile(_KEY), lambda labels, key, _wanted: key in labels),
)
_COMMA_OUTSIDE_OF_PARENTHESES = re.compile(r",(?![^()]*\))")


def matcher(selectors):
    """A predicate over a dict of labels: whether all of `selectors` (texts, each with terms joined by commas) match.

    No selectors at all match everything. As in Kubernetes, `!=` and `notin` are true of a missing label. Other than
    there, an empty text is no selector: a variable without a value must not stand for everything.
    ValueError, naming the text, when one is no label selector.
    """
    terms = [
        _term(text.strip(), selector)
        for selector in selectors
        for text in _COMMA_OUTSIDE_OF_PARENTHESES.split(selector)
    ]
    return lambda labels: all(term(labels) for term in terms)


def _term(text, selector):
    for pattern, test in _TERMS:
        found = pattern.fullmatch(text)
        if found:
            key, wanted = found["key"], [value.strip() for value in found.groupdict().get("value", "").split(",")]
            return lambda labels: test(labels, key, wanted)
    raise ValueError(
        f"{selector!r} is no label selector: {text!r} is none of 'key=value', 'key!=value', 'key in (a,b)',"
        " 'key notin (a,b)', 'key' and '!key'"
    )
