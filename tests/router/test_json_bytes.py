"""Splitting and joining keep values byte for byte, with and without lone surrogates."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidRequest
from router.providers.json_bytes import (
    DEPTH_MAX,
    VALUES_MAX,
    check_shape,
    decode_value,
    encode_string,
    join_array,
    join_object,
    split_array,
    split_object,
    whole_text,
)

_ANY_TEXT = st.text(st.characters(codec=None), max_size=8)  # lone surrogates included
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | _ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_ANY_TEXT, inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(_ANY_TEXT, _VALUES, max_size=5), st.sampled_from([None, 0, 3]))
def test_an_object_survives_splitting_and_joining(value: dict[str, object], indent: int | None) -> None:
    """Members keep their order and their bytes; a lone surrogate in one does not harm the others."""
    text = json.dumps(value, indent=indent).encode()
    members = split_object(text)

    assert list(members) == list(value)
    assert all(part in text for part in members.values())
    assert {name: decode_value(part) for name, part in members.items()} == value
    assert json.loads(join_object(members)) == value


@given(st.lists(_VALUES, max_size=5), st.sampled_from([None, 0, 3]))
def test_an_array_survives_splitting_and_joining(value: list[object], indent: int | None) -> None:
    """The same for elements."""
    text = json.dumps(value, indent=indent).encode()
    elements = split_array(text)

    assert all(part in text for part in elements)
    assert json.loads(join_array(elements)) == value


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[1]",
        b'"text"',
        b'{"a":1',
        b'{"a":1}x',
        b'{"a":NaN}',
        b'{"a":"\\ud800"',
        b'{"a":"\\ud800"}x',
        b'{"a":"\\ud800",}',
        b'{"a":"\\ud800","b":NaN}',
        b'{"a" "\\ud800"}',
        b'{"a":01}',
    ],
)
def test_what_is_no_object_is_refused(text: bytes) -> None:
    """Both ways of reading are equally strict."""
    with pytest.raises(ValueError, match=r".+"):
        split_object(text)


def test_depth_is_counted_outside_of_strings() -> None:
    """Brackets and escaped quotes inside texts do not count; the limit itself is allowed."""
    check_shape(b"[" * DEPTH_MAX + b"]" * DEPTH_MAX)
    check_shape(b'["' + b"[{" * 1000 + b'\\"[[\\\\"]')
    with pytest.raises(InvalidRequest):
        check_shape(b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1))
    with pytest.raises(InvalidRequest):
        check_shape(b'{"a":' * 100_000)


def test_a_million_values_are_too_many() -> None:
    """A small body must not become gigabytes of objects."""
    with pytest.raises(InvalidRequest):
        check_shape(b"[" + b"1," * (VALUES_MAX + 1) + b"1]")
    check_shape(b'["' + b"," * (VALUES_MAX + 1) + b'"]')


def test_surrogate_halves_are_joined_or_replaced() -> None:
    """A character split over two pieces becomes whole; half of one becomes U+FFFD."""
    assert whole_text("\ud83d" + "\ude42") == "🙂"
    assert whole_text("a\ud83db") == "a\ufffdb"
    assert encode_string("\ud83d") == '"\ufffd"'.encode()


def test_integers_of_any_length_are_read() -> None:
    """Python gives up at 4 300 digits; JSON sets no limit, and neither may be a crash."""
    digits = b"9" * 5_000

    assert decode_value(digits) == float("inf")
    assert decode_value(b"-" + digits) == -float("inf")
    assert split_object(b'{"\\ud800":' + digits + b"}") == {"\ud800": digits}
