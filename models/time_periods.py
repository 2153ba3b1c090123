"""Periods of the calendar: the month that a day lies in, a Friday before it, what comes every year.

Owns the arithmetic of days and the tables of what has a name. Must never see text. All times here are clock faces of
the request's zone, without a zone, so that a day is a day when clocks change.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo

import msgspec

from models.times import local_time

Span = tuple[datetime, datetime]
OfYear = Callable[[int], Span]

ROUNDED_WEIGHT = 0.8  # "two weeks ago"
AMBIGUOUS_WEIGHT = 0.5  # each reading of 7/5/2023
OPEN_WEIGHT = 0.5  # "since June", "before 2020": says little about any one moment within
LOOSE_WEIGHT = 0.5  # "a few days ago", "the other day"
VAGUE_WEIGHT = 0.3  # "recently"

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
SEASONS = {"spring": 3, "summer": 6, "autumn": 9, "fall": 9, "winter": 12}  # first month of three
PARTS_OF_DAY = {"morning": (5, 12), "afternoon": (12, 18), "evening": (18, 24), "night": (18, 30)}  # hours
FEASTS = {
    "christmas": (12, 24, 3), "xmas": (12, 24, 3), "new year's eve": (12, 31, 1), "new year's day": (1, 1, 1),
    "new year's": (12, 31, 2), "halloween": (10, 31, 1), "valentine's day": (2, 14, 1),
    "independence day": (7, 4, 1), "thanksgiving": (11, 0, 4), "easter": (3, 0, 4),
}  # fmt: skip
"""First month, first day (0: it moves), days."""
COUNTS = {
    "a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
    "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "couple": 2,
}  # fmt: skip
VAGUE_COUNTS = {"few": (2, 5), "some": (2, 6), "several": (3, 7), "many": (4, 12), "": (2, 8)}
HALVES = {"hour": (30, "minute"), "day": (12, "hour"), "month": (2, "week"), "year": (6, "month")}
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
SLACK_DAYS = {"day": 0, "week": 3, "month": 15, "year": 182}  # "two weeks ago" may be three days off
ELAPSED_MS = {"minute": (60_000, 600_000), "hour": (3_600_000, 1_800_000)}  # length, and slack of "two hours ago"
RECENT_DAYS = {"recently": 30, "lately": 30, "these days": 30, "the other day": 14}

_ANY = frozenset(
    (
        "since",
        "prior to",
        "following",
        "up to",
        "after",
        "before",
        "until",
        "till",
        "during",
        "around",
        "over",
        "between",
    )
)
IN = _ANY | {"in", "through", "throughout", "within"}
"""Words before a bare month or season without which it may be a name or a verb."""
ON = _ANY | {"on", "by", "from", "to"}
AT = _ANY | {"at", "for", "on", "by", "from"}
OF_YEARS = IN | {"by", "of", "from", "to"}


class Clock(msgspec.Struct, frozen=True):
    """When and where it is asked; `now` is `now_ms` on the clock there."""

    now: datetime
    now_ms: int
    tz: tzinfo

    @property
    def today(self) -> datetime:
        """The midnight before now."""
        return self.now.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)

    @property
    def tomorrow(self) -> datetime:
        """The midnight after now."""
        return self.today + timedelta(days=1)

    def elapsed(self, milliseconds: int) -> datetime:
        """The clock face so long before now, by elapsed time; `fold` tells which of two equal ones it is."""
        return local_time(self.now_ms - milliseconds, self.tz).replace(tzinfo=None)


class Period(msgspec.Struct):
    """What an expression means.

    Attributes:
        span: from, up to but without.
        of_year: its span in a year, where none is said; `span` is that of `year`, the likeliest.
        leads: words, one of which has to stand before it; None where it counts by itself.
        other: another span that may be meant as well, with `AMBIGUOUS_WEIGHT`.
        first, last, word, offset: where it stands and what stands before it, filled in by the caller.
    """

    span: Span
    weight: float = 1.0
    of_year: OfYear | None = None
    year: int = 0
    leads: frozenset[str] | None = None
    other: Span | None = None
    first: int = 0
    last: int = 0
    word: str = ""
    offset: tuple[str, str, str] | None = None


def shifted(moment: datetime, count: int, unit: str) -> datetime:
    """A day so many days, weeks, months or years later; the 31st becomes the last day of a shorter month."""
    if unit in {"day", "week"}:
        return moment + timedelta(days=count * (7 if unit == "week" else 1))
    months = moment.year * 12 + moment.month - 1 + count * {"month": 1, "quarter": 3, "year": 12}[unit]
    first = moment.replace(year=months // 12, month=months % 12 + 1, day=1)
    following = (first + timedelta(days=31)).replace(day=1)
    return min(first + timedelta(days=moment.day - 1), following - timedelta(days=1))


def calendar_unit(day: datetime, unit: str) -> Span:
    """The week (from Monday), month, quarter or year that a day lies in."""
    if unit == "week":
        start = day - timedelta(days=day.weekday())
    elif unit == "year":
        start = day.replace(month=1, day=1)
    else:
        start = day.replace(day=1, month=day.month if unit == "month" else (day.month - 1) // 3 * 3 + 1)
    return start, shifted(start, 1, unit)


def around(day: datetime, unit: str) -> Span:
    """The days that "two weeks before" some day may mean, where `day` is just two weeks before."""
    slack = timedelta(days=SLACK_DAYS[unit])
    return day - slack, day + slack + timedelta(days=1)


def weekday_before(day: datetime, name: str) -> datetime:
    """The last such weekday before a day."""
    return day - timedelta(days=(day.weekday() - WEEKDAYS.index(name[:3]) - 1) % 7 + 1)


def yearly(
    of_year: OfYear, year: str | None, clock: Clock, which: str | None, leads: frozenset[str] | None
) -> Period | None:
    """What comes every year: in the year that is said; else the last that has begun; with "last", the last that is
    over; with "this", the present one or this year's."""
    if year:
        return Period(of_year(int(year)))
    for candidate in range(clock.now.year, clock.now.year - 9, -1):
        try:
            start, end = of_year(candidate)
        except ValueError:  # no 29th of February
            continue
        if which == "last" and end <= clock.today:
            return Period((start, end))
        if which == "this" and (candidate == clock.now.year or start <= clock.now < end):
            return Period((start, end))
        if which is None and start <= clock.now:
            return Period((start, end), of_year=of_year, year=candidate, leads=leads)
    return None


def part_of_day(day: datetime, part: str | None) -> Span:
    """A day, or its morning; a night goes on until six."""
    first, last = PARTS_OF_DAY[part] if part else (0, 24)
    return day + timedelta(hours=first), day + timedelta(hours=last)


def feast(name: str, year: int) -> Span:
    """The days of a feast; of Thanksgiving those until Sunday, of Easter Friday to Monday."""
    month, day, days = FEASTS[name]
    start = datetime(year, month, day or 1)
    if name == "thanksgiving":  # the fourth Thursday of November
        start += timedelta(days=(3 - start.weekday()) % 7 + 21)
    elif name == "easter":
        start = _easter(year) - timedelta(days=2)
    return start, start + timedelta(days=days)


def _easter(year: int) -> datetime:
    """Easter Sunday of the Gregorian calendar: Gauss's method with Lichtenberg's corrections (1997)."""
    century, golden = year // 100, year % 19
    skipped_leap_days = (3 * century + 3) // 4
    moon = (19 * golden + 15 + skipped_leap_days - (8 * century + 13) // 25) % 30
    full_moon = 21 + moon - (moon + golden // 11) // 29  # days of March from here on
    first_sunday = 7 - (year + year // 4 + 2 - skipped_leap_days) % 7
    sunday = full_moon + 7 - (full_moon - first_sunday) % 7
    return datetime(year, 3, 1) + timedelta(days=sunday - 1)
