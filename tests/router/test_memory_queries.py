"""Filters, times, cursors and changes as requests write them."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidRequest
from router.memory_queries import decode_cursor, encode_cursor, parse_time

VIENNA = ZoneInfo("Europe/Vienna")


@given(st.integers(0, 2**53 - 1), st.integers(1, 2**32 - 1))
def test_a_cursor_comes_back_as_the_place_it_was(timestamp_ms: int, number: int) -> None:
    cursor = encode_cursor((timestamp_ms, number))
    assert cursor is not None
    assert decode_cursor(cursor) == (timestamp_ms, number)
    assert "=" not in cursor


@given(st.text(max_size=30))
def test_any_text_is_a_cursor_or_refused(text: str) -> None:
    try:
        place = decode_cursor(text)
    except InvalidRequest:
        return
    assert place is None or len(place) == 2


def test_no_place_is_no_cursor() -> None:
    assert encode_cursor(None) is None
    assert decode_cursor(None) is decode_cursor("") is None


@given(st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)))
def test_a_time_is_the_same_as_text_and_as_milliseconds(when: datetime) -> None:
    milliseconds = parse_time(when.isoformat(), "since", VIENNA)
    assert milliseconds == round(when.timestamp() * 1000)
    assert parse_time(str(milliseconds), "since", VIENNA) == parse_time(milliseconds, "since", VIENNA) == milliseconds


def test_a_time_without_an_offset_is_the_callers() -> None:
    assert parse_time("2026-06-03", "since", VIENNA) == parse_time("2026-06-02T22:00:00Z", "since", UTC)
    assert parse_time("2026-06-03T09:14", "since", VIENNA) == parse_time("2026-06-03T07:14:00z", "since", UTC)


def test_a_plus_that_a_query_has_lost_is_found_again() -> None:
    assert parse_time("2026-06-03T09:14:00 02:00", "since", UTC) == parse_time("2026-06-03T07:14:00Z", "since", UTC)


def test_nothing_was_said_before_1970() -> None:
    assert parse_time("1066-10-14T00:00:00Z", "since", UTC) == 0


@pytest.mark.parametrize("value", ["soon", "2026-13-01", "-1", -1, True, 1.5, [], "9" * 25, 10**18, "²"])
def test_what_is_no_time_is_refused_by_its_name(value: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_time(value, "until", UTC)
    assert refused.value.field == "until"


@given(st.text(max_size=20))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    try:
        milliseconds = parse_time(text, "since", VIENNA)
    except InvalidRequest:
        return
    assert milliseconds is None or milliseconds >= 0
