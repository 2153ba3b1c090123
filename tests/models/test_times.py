"""Times in words."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidRequest
from models.times import absolute_time, parse_time_zone, relative_time

NOW = datetime(2026, 6, 5, 13, 30, tzinfo=UTC)
SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000


def ms(moment: datetime) -> int:
    """Epoch milliseconds."""
    return int(moment.timestamp() * 1000)


NOW_MS = ms(NOW)


@pytest.mark.parametrize(
    ("ago_ms", "words"),
    [
        (0, "just now"),
        (44 * SECOND, "just now"),
        (45 * SECOND, "1 minute ago"),
        (5 * MINUTE, "5 minutes ago"),
        (HOUR, "1 hour ago"),
        (5 * HOUR, "5 hours ago"),
        (23 * HOUR, "23 hours ago"),
        (DAY, "yesterday"),
        (2 * DAY, "2 days ago"),
        (13 * DAY, "13 days ago"),
        (14 * DAY, "2 weeks ago"),
        (59 * DAY, "8 weeks ago"),
        (60 * DAY, "2 months ago"),
        (300 * DAY, "10 months ago"),
        (365 * DAY, "1 year ago"),
        (3 * 366 * DAY, "3 years ago"),
        (-2 * HOUR, "in 2 hours"),
        (-DAY, "tomorrow"),
        (-3 * DAY, "in 3 days"),
    ],
)
def test_relative_time(ago_ms: int, words: str) -> None:
    assert relative_time(NOW_MS - ago_ms, NOW_MS, UTC) == words


def test_days_are_those_of_the_zone() -> None:
    """25 hours before half past midnight is two calendar days ago in Berlin, one in New York."""
    now = ms(datetime(2026, 6, 5, 22, 30, tzinfo=UTC))
    assert relative_time(now - 25 * HOUR, now, ZoneInfo("Europe/Berlin")) == "2 days ago"
    assert relative_time(now - 25 * HOUR, now, ZoneInfo("America/New_York")) == "yesterday"


def test_hours_are_counted_across_a_change_of_the_clock() -> None:
    """On 29 March 2026 Berlin skips an hour: from 01:30 to 03:30 is one hour."""
    now = ms(datetime(2026, 3, 29, 1, 30, tzinfo=UTC))
    assert relative_time(now - HOUR, now, ZoneInfo("Europe/Berlin")) == "1 hour ago"


@pytest.mark.parametrize(
    ("moment", "words"),
    [
        (datetime(2026, 6, 3, 9, 14, tzinfo=UTC), "Wed, Jun 3, 9:14 AM"),
        (datetime(2026, 6, 5, 0, 5, tzinfo=UTC), "Fri, Jun 5, 12:05 AM"),
        (datetime(2026, 6, 5, 12, 0, tzinfo=UTC), "Fri, Jun 5, 12:00 PM"),
        (datetime(2024, 6, 3, 21, 14, tzinfo=UTC), "Mon, Jun 3, 2024, 9:14 PM"),
    ],
)
def test_absolute_time(moment: datetime, words: str) -> None:
    assert absolute_time(ms(moment), NOW_MS, UTC) == words


def test_the_year_is_that_of_the_zone() -> None:
    new_year = ms(datetime(2026, 1, 1, 3, 0, tzinfo=UTC))
    assert absolute_time(new_year, NOW_MS, ZoneInfo("America/New_York")) == "Wed, Dec 31, 2025, 10:00 PM"


@given(
    st.integers(-(2**63), 2**63), st.integers(-(2**63), 2**63), st.sampled_from(["UTC", "Asia/Tokyo", "Pacific/Apia"])
)
def test_no_time_is_too_absurd(timestamp_ms: int, now_ms: int, zone: str) -> None:
    tz = parse_time_zone(zone)
    assert relative_time(timestamp_ms, now_ms, tz)
    assert absolute_time(timestamp_ms, now_ms, tz)


@given(st.integers(0, 4000 * DAY), st.integers(0, 4000 * DAY))
def test_what_is_longer_ago_is_never_said_to_be_nearer(one: int, other: int) -> None:
    units = {
        "just": 0,
        "minute": 60,
        "hour": 3600,
        "yesterday": 86400,
        "day": 86400,
        "week": 604800,
        "month": 2.6e6,
        "year": 3.1e7,
    }

    def size(words: str) -> float:
        parts = words.split()
        return units[parts[0]] if parts[0] in units else int(parts[0]) * units[parts[1].rstrip("s")]

    nearer, farther = sorted((one, other))
    assert size(relative_time(NOW_MS - nearer, NOW_MS, UTC)) <= size(relative_time(NOW_MS - farther, NOW_MS, UTC))


@pytest.mark.parametrize("name", ["UTC", "utc", "Europe/Berlin", "America/Argentina/Buenos_Aires"])
def test_known_time_zones(name: str) -> None:
    assert parse_time_zone(name).utcoffset(NOW) is not None


@pytest.mark.parametrize(
    "name", ["", "Mars/Olympus", "Europe", "../../etc/passwd", "/etc/passwd", "a\0b", "x" * 10_000, "é\ud800"]
)
def test_unknown_time_zones_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="time zone"):
        parse_time_zone(name)
