"""The split of long JSON: the same values as a parser finds, whatever the pieces that the file comes in."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.archives.entries import ArchiveError
from models.archives.json_values import CHUNK_BYTES, decode_json, json_values

SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(alphabet='ab"\\[]{},: \n\u00e9\u2028')
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
)
OBJECTS = st.dictionaries(st.text(max_size=4), VALUES, max_size=4)


class Dripping:
    """A stream that gives a few bytes at a time, however many are asked for."""

    def __init__(self, data: bytes, step: int) -> None:
        self._file = io.BytesIO(data)
        self._step = step

    def read(self, size: int, /) -> bytes:
        return self._file.read(min(size, self._step))


def split(data: bytes, *, step: int = CHUNK_BYTES, value_bytes_max: int = CHUNK_BYTES) -> list[Any]:
    """The values, decoded."""
    return [decode_json(value) for value in json_values(Dripping(data, step), value_bytes_max=value_bytes_max)]


@settings(max_examples=30)
@given(st.lists(OBJECTS, max_size=5), st.integers(1, 7), st.sampled_from([None, 1]), st.booleans())
def test_an_array_is_split_into_its_objects(listed: list[Any], step: int, indent: int | None, ascii_only: bool) -> None:
    data = json.dumps(listed, indent=indent, ensure_ascii=ascii_only).encode()

    assert split(data, step=step) == listed


@settings(max_examples=30)
@given(st.lists(OBJECTS, min_size=1, max_size=5), st.integers(1, 7), st.sampled_from([" ", "\n", ""]))
def test_objects_one_behind_the_other_are_split(listed: list[Any], step: int, between: str) -> None:
    assert split(between.join(map(json.dumps, listed)).encode(), step=step) == listed


@settings(max_examples=30)
@given(st.binary(max_size=60), st.integers(1, 9))
def test_any_bytes_end_in_values_or_in_a_named_error(data: bytes, step: int) -> None:
    try:
        pieces = list(json_values(Dripping(data, step)))
    except ArchiveError:
        return
    assert sum(map(len, pieces)) <= len(data)


def test_what_stands_between_values_comes_out_too() -> None:
    """A number in the array is a mistake that somebody should hear of, not one that is passed over."""
    pieces = list(json_values(io.BytesIO(b'[{"a": 1}, 17, "x", {"b": 2}] tail')))

    assert pieces == [b'{"a": 1}', b'17, "x"', b'{"b": 2}', b"tail"]


@pytest.mark.parametrize("data", [b'[{"a": 1}, {"b": ', b'[{"a": "no end', b"[", b'{"a": [1, 2'])
def test_a_file_that_is_cut_says_so(data: bytes) -> None:
    with pytest.raises(ArchiveError, match="ends in the middle"):
        list(json_values(io.BytesIO(data)))


def test_a_value_that_is_too_long_is_refused_before_it_is_read_whole() -> None:
    endless = io.BytesIO(b'[{"a": "' + b"x" * 100_000)

    with pytest.raises(ArchiveError, match="longer than 1000 bytes"):
        list(json_values(Dripping(endless.getvalue(), 500), value_bytes_max=1_000))
    with pytest.raises(ArchiveError, match="longer than 1000 bytes"):
        list(json_values(Dripping(b"{" * 100_000, 500), value_bytes_max=1_000))


def test_a_byte_order_mark_is_passed_over() -> None:
    assert split(b'\xef\xbb\xbf[{"a": 1}]') == [{"a": 1}]


def test_lone_surrogates_are_read_and_deep_nesting_is_an_error() -> None:
    assert decode_json(b'{"a": "\\ud83d"}') == {"a": "\ud83d"}
    with pytest.raises(ValueError, match=r"deep|JSON"):
        decode_json(b"[" * 200_000 + b"]" * 200_000)
    with pytest.raises(ValueError, match="not valid JSON"):
        decode_json(b'{"a": NaN')
