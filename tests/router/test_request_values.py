"""Whole numbers, times and switches as requests write them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidRequest
from router.request_values import parse_time, read_flag, read_switch, whole_number

VIENNA = ZoneInfo("Europe/Vienna")


@given(st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none(), st.lists(st.integers(), max_size=2)))
def test_whole_number_takes_numbers_within_bounds_and_refuses_everything_else(value: Any) -> None:
    """Never with another error."""
    try:
        number = whole_number(value, "n", -5, 1000)
    except InvalidRequest:
        return
    assert -5 <= number <= 1000
    assert number == int(value)


@pytest.mark.parametrize(("text", "switch"), [("true", True), ("1", True), ("False", False), ("0", False), ("", None)])
def test_a_switch_of_a_query_is_on_or_off_or_not_there(text: str, switch: bool | None) -> None:
    """In any case; None stands for what nobody said."""
    assert read_switch(text, "flagged") is switch
    assert read_switch(None, "flagged") is None


def test_what_is_neither_on_nor_off_is_refused_by_its_name() -> None:
    """A mistyped dry run must not become a deletion."""
    with pytest.raises(InvalidRequest) as refused:
        read_switch("yse", "dry_run")
    assert refused.value.field == "dry_run"
    with pytest.raises(InvalidRequest) as refused:
        read_flag("true", "dry_run")
    assert refused.value.field == "dry_run"
    assert (read_flag(True, "dry_run"), read_flag(False, "dry_run"), read_flag(None, "dry_run")) == (True, False, False)


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
