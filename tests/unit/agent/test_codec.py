# SPDX-License-Identifier: Apache-2.0
"""What the agent reads and writes as JSON is the same with msgspec and without."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.codecs import FORMS, load

CODECS = [load(form) for form in FORMS]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
# What the agent writes. Numbers of any size, as the API server's have 64 bits.
written = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)
documents = st.recursive(
    written | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)
# Pieces of which documents and near misses are made.
pieces = st.sampled_from(
    [*'[]{},:"-.0123eE\\u \n\t/', "dc00", "d800", "null", "true", "NaN", "Infinity", "1e400", '"a"', '"\\ud83d\\ude00"']
)


@pytest.fixture(params=FORMS)
def codec(request):
    return CODECS[FORMS.index(request.param)]


def outcome(codec, data):
    """What a document says, 1 and 1.0 told apart; or that it is refused."""
    try:
        return repr(codec.decode(data))
    except (ValueError, RecursionError):
        return "refused"


@given(written)
def test_both_forms_write_the_same_bytes_and_read_back_what_was_written(obj):
    with_msgspec, without = (codec.encode(obj) for codec in CODECS)
    assert with_msgspec == without
    assert [codec.decode(without) for codec in CODECS] == [obj, obj]


@given(documents, st.booleans())
def test_both_forms_read_the_same_out_of_what_others_write(obj, escaped):
    data = json.dumps(obj, ensure_ascii=escaped, indent=1).encode()
    assert [outcome(codec, data) for codec in CODECS] == [repr(obj), repr(obj)]


@given(st.lists(pieces, max_size=8).map("".join).map(str.encode) | st.binary(max_size=8))
def test_both_forms_refuse_the_same_documents(data):
    with_msgspec, without = (outcome(codec, data) for codec in CODECS)
    assert with_msgspec == without


@pytest.mark.parametrize(
    "data",
    (
        b"",
        b"{",
        b"[1,]",
        b"NaN",
        b"[-Infinity]",
        b"1e400",
        b'"\xff"',
        b"\xef\xbb\xbf1",
        '"text"'.encode("utf-16"),
        rb'"\ud800"',
        rb'{"\uDC00": 1}',
        b"[" * 100_000,
    ),
)
def test_what_is_no_json_is_refused(codec, data):
    with pytest.raises((ValueError, RecursionError)):
        codec.decode(data)


@given(st.lists(documents, max_size=4), st.dictionaries(texts, written, max_size=3))
def test_a_page_is_split_into_its_items_and_its_metadata(items, metadata):
    data = json.dumps({"kind": "List", "metadata": metadata, "items": items}).encode()
    for codec in CODECS:
        split, found = codec.split_page(data)
        assert [repr(codec.decode_item(item)) for item in split] == list(map(repr, items))
        assert found == metadata


@pytest.mark.parametrize(
    "data",
    (b"[]", b"{}", b'{"items": []}', b'{"items": {}, "metadata": {}}', b'{"items": [], "metadata": null}', b"<html>"),
)
def test_what_is_no_page_is_refused(codec, data):
    with pytest.raises(ValueError):
        codec.split_page(data)


def test_half_a_character_is_not_written(codec):
    with pytest.raises(ValueError):
        codec.encode({"key": "\ud800"})
