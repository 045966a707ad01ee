# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Calico's selector language, as used by `nodeSelector` and `namespaceSelector` of a pool.

    selector   = or
    or         = and { "||" and }
    and        = term { "&&" term }
    term       = "!" term | "(" or ")" | "all()" | "has(" label ")" | label test
    test       = ("==" | "!=" | "contains" | "starts with" | "ends with") string | ["not"] "in" "{" string, ... "}"

An empty selector matches everything. `!=` and `not in` are true for a missing label. `global()` is refused, as Calico's
validation of pools does.
"""

from __future__ import annotations

import re
from functools import lru_cache

_TOKENS = re.compile(
    r"""[ \t]*(?:
        (?P<string>'[^']*'|"[^"]*")
      | (?P<call>(?:all|global)\([ \t]*\))
      | (?P<has>has\([ \t]*(?P<has_label>[A-Za-z0-9_./-]+)[ \t]*\))
      | (?P<operator>==|!=|&&|\|\||[!(){},])
      | (?P<phrase>not[ \t]+in\b|starts[ \t]+with\b|ends[ \t]+with\b)
      | (?P<word>[A-Za-z0-9_./-]+)
    )""",
    re.VERBOSE,
)


DEPTH = 100  # of negations and parentheses in each other: neither parsing nor matching exhausts Python's stack


class SelectorError(ValueError):
    """A selector that cannot be parsed. The text names the selector and the position (characters from 0)."""


@lru_cache(maxsize=1024)  # pools have few distinct selectors, and each pod start asks for all of them
def parse(text):
    """Parse a selector into a predicate over labels: `parse("rack == '1'")({"rack": "1"})` is True.

    None and the empty string match everything. SelectorError when the text is no selector.
    """
    return _Parser(text or "").parse()


class _Parser:
    def __init__(self, text):
        self._text = text
        self._tokens = list(self._tokenize())
        self._next = self._depth = 0

    def parse(self):
        if self._kind() == "end":
            return _match_all
        predicate = self._or()
        if self._kind() != "end":
            raise self._error("expected '&&', '||' or the end")
        return predicate

    def _tokenize(self):
        text, position = self._text.rstrip(" \t"), 0
        while position < len(text):
            match = _TOKENS.match(text, position)
            if match is None:
                raise SelectorError(f"selector {text!r}: nothing valid starts at position {position}")
            yield match.lastgroup if match.lastgroup != "has_label" else "has", match, match.start(match.lastgroup)
            position = match.end()
        yield "end", None, len(text)

    def _or(self):
        terms = [self._and()]
        while self._accept("operator", "||"):
            terms.append(self._and())
        return terms[0] if len(terms) == 1 else lambda labels: any(term(labels) for term in terms)

    def _and(self):
        terms = [self._term()]
        while self._accept("operator", "&&"):
            terms.append(self._term())
        return terms[0] if len(terms) == 1 else lambda labels: all(term(labels) for term in terms)

    def _term(self):
        if self._accept("operator", "!"):
            negated = self._nested(self._term)
            return lambda labels: not negated(labels)
        if self._accept("operator", "("):
            predicate = self._nested(self._or)
            self._expect("operator", ")")
            return predicate
        kind, match, _position = self._tokens[self._next]
        if kind == "call":
            if match["call"].startswith("global"):
                raise self._error("global() is not allowed here")
            self._next += 1
            return _match_all
        if kind == "has":
            self._next += 1
            wanted = match["has_label"]
            return lambda labels: wanted in labels
        return self._label_test()

    def _nested(self, parse):
        self._depth += 1
        if self._depth > DEPTH:
            raise self._error(f"more than {DEPTH} negations and parentheses lie in each other")
        predicate = parse()
        self._depth -= 1
        return predicate

    def _label_test(self):
        label = self._expect("word", what="a label name, has(), all(), '!' or '('")
        if self._accept("operator", "=="):
            value = self._string()
            return lambda labels: labels.get(label) == value
        if self._accept("operator", "!="):
            value = self._string()
            return lambda labels: labels.get(label) != value
        if self._accept("word", "in"):
            values = self._set()
            return lambda labels: labels.get(label) in values
        if self._accept("word", "contains"):
            value = self._string()
            return lambda labels: value in labels.get(label, ())
        phrase = " ".join((self._accept("phrase") or "").split())
        if phrase == "not in":
            values = self._set()
            return lambda labels: labels.get(label) not in values
        if phrase == "starts with":
            value = self._string()
            return lambda labels: label in labels and labels[label].startswith(value)
        if phrase == "ends with":
            value = self._string()
            return lambda labels: label in labels and labels[label].endswith(value)
        raise self._error("expected '==', '!=', 'in', 'not in', 'contains', 'starts with' or 'ends with'")

    def _set(self):
        self._expect("operator", "{")
        values = set()
        if self._accept("operator", "}"):
            return values
        values.add(self._string())
        while self._accept("operator", ","):
            values.add(self._string())
        self._expect("operator", "}")
        return values

    def _string(self):
        return self._expect("string", what="a quoted string")[1:-1]

    def _kind(self):
        return self._tokens[self._next][0]

    def _accept(self, kind, text=None):
        found, match, _position = self._tokens[self._next]
        if found != kind or (text is not None and match[kind] != text):
            return None
        self._next += 1
        return match[kind]

    def _expect(self, kind, text=None, what=None):
        token = self._accept(kind, text)
        if token is None:
            raise self._error(f"expected {what or repr(text)}")
        return token

    def _error(self, message):
        return SelectorError(f"selector {self._text!r}: {message} at position {self._tokens[self._next][2]}")


def _match_all(labels):
    return True
