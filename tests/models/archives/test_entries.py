"""Times, ids and titles of foreign files."""

from __future__ import annotations

import math

import pytest

from models.archives.entries import name_within, time_ms, title_of, upload_line


@pytest.mark.parametrize(
    ("written", "milliseconds"),
    [
        (1_700_000_000.25, 1_700_000_000_250),
        (1_700_000_000, 1_700_000_000_000),
        (1_700_000_000_123, 1_700_000_000_123),
        ("2025-01-02T03:04:05.678901Z", 1_735_787_045_679),
        ("2025-01-02T03:04:05+02:00", 1_735_779_845_000),
        ("2025-01-02 03:04:05", 1_735_787_045_000),
        ("2025-01-02", 1_735_776_000_000),
        (" 2025-01-02 ", 1_735_776_000_000),
    ],
)
def test_times_are_read_as_exports_write_them(written: object, milliseconds: int) -> None:
    assert time_ms(written) == milliseconds


@pytest.mark.parametrize(
    "written",
    [
        None,
        True,
        0,
        -5,
        math.nan,
        math.inf,
        10**30,
        10**400,
        1e300,
        "",
        "yesterday",
        "1969-12-31",
        [],
        {},
        "9999-12-31T23:59:59.9999-10:00",
    ],
)
def test_what_is_no_time_is_none(written: object) -> None:
    assert time_ms(written) is None


def test_ids_carry_where_they_come_from() -> None:
    assert name_within("chatgpt", "abc") == "chatgpt:abc"
    assert name_within("mem0", 17) == "mem0:17"
    nothing: list[object] = [None, "", " ", True, 1.5, [], "y" * 300]
    assert {name_within("x", value) for value in nothing} == {None}


def test_titles_are_bounded_texts() -> None:
    assert title_of("  A talk ") == "A talk"
    assert title_of("x" * 1_000) == "x" * 200
    nothing: list[object] = [None, "", " ", 5, {}]
    assert {title_of(value) for value in nothing} == {None}


def test_a_line_leaves_out_what_is_not_known() -> None:
    assert upload_line("user", "Hi", timestamp_ms=None, title=None) == {"role": "user", "content": "Hi"}
    assert upload_line("user", "Hi", timestamp_ms=5, session_id="s", external_id="i", title="T") == {
        "role": "user",
        "content": "Hi",
        "timestamp": 5,
        "session_id": "s",
        "id": "i",
        "metadata": {"title": "T"},
    }
