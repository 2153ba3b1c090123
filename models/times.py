"""Times for people, "2 days ago" and "Wed, Jun 3, 9:14 AM", and for programs.

Owns the wording of times in contexts and answers. Must never read the clock or the locale: both would make the same
call answer differently. Absurd times are clamped, never refused: a memory with a broken time is still a memory.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from models.errors import InvalidRequest

_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Two days inside what datetime can hold, so that no time zone pushes a clamped time over the edge.
_EARLIEST_MS = int((datetime(1, 1, 3, tzinfo=UTC) - _EPOCH).total_seconds()) * 1000
_LATEST_MS = int((datetime(9999, 12, 29, tzinfo=UTC) - _EPOCH).total_seconds()) * 1000

DAY_MS = 86_400_000

LOCAL_TIMES_MAX = 2_048
"""Times whose place in a zone is remembered: each is asked for three times in one context, and again in the next."""

_JUST_NOW_S = 45
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400
_DAYS_IN_DAYS, _DAYS_IN_WEEKS, _DAYS_IN_MONTHS = 14, 60, 350  # from here on the next coarser unit is used
_MONTH_DAYS, _YEAR_DAYS = 30.4375, 365.25


def format_time(timestamp_ms: int) -> str:
    """A time as the API writes it: ISO 8601, UTC, milliseconds, `Z`."""
    when = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time_zone(name: str) -> tzinfo:
    """The time zone of an IANA name such as `Europe/Berlin`; `UTC` needs no time zone data.

    Raises:
        InvalidRequest: no such zone.
    """
    if name.upper() in {"UTC", "Z", "GMT"}:
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown; a path, not a name; a folder of the zone database
        raise InvalidRequest(
            "Unknown time zone.", field="timezone", hint="Use an IANA name such as Europe/Berlin."
        ) from None


@lru_cache(maxsize=LOCAL_TIMES_MAX)
def local_time(timestamp_ms: int, tz: tzinfo) -> datetime:
    """The time in a zone, clamped to the years 1 to 9999."""
    return (_EPOCH + timedelta(milliseconds=_clamped(timestamp_ms))).astimezone(tz)


def _clamped(timestamp_ms: int) -> int:
    return min(max(timestamp_ms, _EARLIEST_MS), _LATEST_MS)


def relative_time(timestamp_ms: int, now_ms: int, tz: tzinfo) -> str:
    """How long ago, in the words of a person: "just now", "5 hours ago", "yesterday", "3 weeks ago", "in 2
    days".

    Up to a day it is the elapsed time that counts, above it the calendar of the zone.
    """
    # Elapsed time is taken in UTC: Python subtracts two times of one zone by their clock faces, across DST
    # too.
    elapsed_s = (_clamped(now_ms) - _clamped(timestamp_ms)) / 1000
    is_past, elapsed_s = elapsed_s >= 0, abs(elapsed_s)
    if elapsed_s < _JUST_NOW_S:
        return "just now"
    if elapsed_s < _HOUR_S:
        return _phrase(max(1, round(elapsed_s / _MINUTE_S)), "minute", is_past=is_past)
    if elapsed_s < _DAY_S:
        return _phrase(int(elapsed_s // _HOUR_S), "hour", is_past=is_past)
    days = (local_time(now_ms, tz).date() - local_time(timestamp_ms, tz).date()).days
    return _in_days(abs(days), is_past=is_past)


def absolute_time(timestamp_ms: int, now_ms: int, tz: tzinfo) -> str:
    """ "Wed, Jun 3, 9:14 AM", with the year where it is not the present one: "Mon, Jun 3, 2024, 9:14 AM"."""
    return _date_and_time(timestamp_ms, local_time(now_ms, tz).year, tz)


@lru_cache(maxsize=LOCAL_TIMES_MAX)
def _date_and_time(timestamp_ms: int, present_year: int, tz: tzinfo) -> str:
    then = local_time(timestamp_ms, tz)
    year = "" if then.year == present_year else f" {then.year},"
    half = "AM" if then.hour < 12 else "PM"
    day = f"{_WEEKDAYS[then.weekday()]}, {_MONTHS[then.month - 1]} {then.day}"
    return f"{day},{year} {then.hour % 12 or 12}:{then.minute:02d} {half}"


def _in_days(days: int, *, is_past: bool) -> str:
    """The phrase for a distance of one day or more."""
    if days <= 1:
        return "yesterday" if is_past else "tomorrow"
    if days < _DAYS_IN_DAYS:
        return _phrase(days, "day", is_past=is_past)
    if days < _DAYS_IN_WEEKS:
        return _phrase(days // 7, "week", is_past=is_past)
    if days < _DAYS_IN_MONTHS:
        return _phrase(round(days / _MONTH_DAYS), "month", is_past=is_past)
    return _phrase(max(1, int((days + _MONTH_DAYS / 2) / _YEAR_DAYS)), "year", is_past=is_past)


def _phrase(count: int, unit: str, *, is_past: bool) -> str:
    """ "3 weeks ago" or "in 3 weeks"."""
    amount = f"{count} {unit}" if count == 1 else f"{count} {unit}s"
    return f"{amount} ago" if is_past else f"in {amount}"
