"""Cursors, and which part of a list a request asks for."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidRequest
from router.paging import PAGE_DEFAULT, PageOf, decode_place, encode_cursor, page_body, read_page


@given(st.integers(0, 2**53 - 1), st.integers(1, 2**32 - 1))
def test_a_place_comes_back_as_it_was(timestamp_ms: int, number: int) -> None:
    """Its cursor needs no quoting in a query."""
    cursor = encode_cursor(timestamp_ms, number)
    assert decode_place(cursor) == (timestamp_ms, number)
    assert "=" not in cursor


@given(st.text(max_size=30))
def test_any_text_is_a_cursor_or_refused(text: str) -> None:
    """Of either kind; never another error."""
    with suppress(InvalidRequest):
        assert decode_place(text) is None or text
    with suppress(InvalidRequest):
        assert read_page({"cursor": text}).cursor is None or text


def test_no_cursor_is_the_beginning() -> None:
    """Neither is an empty one."""
    assert decode_place(None) is decode_place("") is None
    assert read_page({}) == PageOf(limit=PAGE_DEFAULT, cursor=None)


def test_cursors_of_the_two_kinds_do_not_pass_for_each_other() -> None:
    """A place in time is no number of a key."""
    with pytest.raises(InvalidRequest):
        read_page({"cursor": encode_cursor(5, 6)})
    with pytest.raises(InvalidRequest):
        decode_place(encode_cursor(5))


def test_only_a_full_page_names_the_next_one() -> None:
    """By its last entry."""
    page = read_page({"limit": "2"})
    full = page_body("keys", [{"id": "key_1"}, {"id": "key_4"}], page, last=4)

    assert full["data"] == full["keys"]
    assert read_page({"cursor": full["next_cursor"]}).cursor == 4
    assert page_body("keys", [{"id": "key_1"}], page, last=1)["next_cursor"] is None
    assert page_body("keys", [], page, last=None)["next_cursor"] is None
