"""Times that a question speaks of: "last week", "in May", "two months ago", "since June", "on 7 May 2023".

Owns the English time expressions and which interval each means; a new one is a line in a table and a rule. Must never
read the clock: the time and the zone of the request come in. Must never see a memory: who ranks decides what an
interval is worth, and that is a preference, never a filter, since a question says when a thing happened and a memory
says when it was told.

An expression counts only where it cannot well be anything else: a bare "may", "march" or "fall" needs a word such as
"in" before it, "Friday" an "on" or a "last", and what is of the future ("tomorrow", "next week") gives nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo

import msgspec

from models.time_expressions import periods
from models.time_periods import (
    AMBIGUOUS_WEIGHT,
    COUNTS,
    OPEN_WEIGHT,
    ROUNDED_WEIGHT,
    SLACK_DAYS,
    Clock,
    Period,
    Span,
    around,
    calendar_unit,
    shifted,
    weekday_before,
)
from models.times import local_time

QUESTION_CHARACTERS_MAX = 4_000
"""Of a longer question only the beginning is read: it bounds the time, and what is longer is no question."""

INTERVALS_MAX = 16

YEARS_MAX = 4
"""Where no year is said, so many occurrences are given, each earlier one with half the weight."""

_YEARS_TRIED = 12  # the 29th of February comes every fourth year, or eighth


class TimeInterval(msgspec.Struct, frozen=True):
    """One reading of one time expression.

    Attributes:
        start_ms: epoch milliseconds, the first that belongs to it.
        end_ms: epoch milliseconds, the first that no longer does.
        weight: 0 < weight <= 1: how surely and how sharply the expression means this. 1.0 for "yesterday", "7 May
            2023", "in 2022" and the latest of several Mays; half of it for each May before; 0.8 for "two weeks ago",
            which people round; 0.5 for each reading of 7/5/2023, for the date in "the week before 3 August", for what
            is open on a side, and for a vague count; 0.3 for "recently".
        first: offset in the question of the expression's first character. Readings of one expression share both.
        last: offset behind its last character.
    """

    start_ms: int
    end_ms: int
    weight: float
    first: int
    last: int


def time_intervals(question: str, *, now_ms: int, tz: tzinfo) -> tuple[TimeInterval, ...]:
    """The times that a question speaks of, in the order of their expressions; the likeliest reading of each first.

    Weeks begin on Monday and seasons are those of the northern half of the Earth. Calendar units (days, weeks, months)
    are those of the zone, with days of 23 and 25 hours where clocks change; hours and minutes are elapsed time.
    7/5/2023 is read both ways, July first; 7.5.2023 is a day in May.

    Args:
        now_ms: when it is asked, epoch milliseconds.
        tz: where it is asked.
    """
    text = question[:QUESTION_CHARACTERS_MAX]
    lowered = text.lower()
    if len(lowered) != len(text):  # a few letters of other scripts grow, and offsets would no longer fit
        lowered = "".join(letter.lower() if letter.isascii() else letter for letter in text)
    lowered = lowered.translate(_PLAIN)
    clock = Clock(now=local_time(now_ms, tz).replace(tzinfo=None), now_ms=now_ms, tz=tz)
    found: list[TimeInterval] = []
    for period in _counting(list(_placed(text, lowered, clock)), lowered, clock):
        for (start, end), weight in _readings(period):
            start_ms, end_ms = _epoch_ms(start, tz), _epoch_ms(end, tz)
            if start_ms < end_ms:
                found.append(TimeInterval(start_ms, end_ms, weight, period.first, period.last))
    return tuple(found[:INTERVALS_MAX])


_PLAIN = str.maketrans({"\u2019": "'", "\n": " ", "\t": " ", "\u00a0": " "})

# Words before an expression: a part of it, then what it is the measure of. Each ends where the expression begins.
_PART = re.compile(
    r"\b(?P<part>early|mid|late|beginning|start|middle|end|(?:first|second) half"
    r"|(?:first|second|third|fourth|last) week)(?: of)?(?: the| in)?[ -]\Z"
)
_PART_SHARES = {
    "early": (0, 1 / 3), "beginning": (0, 1 / 3), "start": (0, 1 / 3), "mid": (1 / 3, 2 / 3), "middle": (1 / 3, 2 / 3),
    "late": (2 / 3, 1), "end": (2 / 3, 1), "first half": (0, 1 / 2), "second half": (1 / 2, 1),
}  # fmt: skip
_LEAD = re.compile(
    r"""
      (?:^|[\s(,;:])
      (?: (?: (?P<count>\d{1,3}|an?|one|two|three|four|five|six)\ (?P<units>day|week|month|year)s?
            | (?:the|last)\ (?P<unit>day|week|month|year|weekend|(?:mon|tues|wednes|thurs|fri|satur|sun)day) )
          \ (?P<side>before|prior\ to|after|following|of)
        | (?P<word>since|after|following|before|prior\ to|until|till|up\ to|by|in|on|at|during|over|for|from|between
            |through|throughout|around|of|within|to|every|each|next) )
      (?:\ the)?\ \Z
    """,
    re.VERBOSE,
)
_LEAD_CHARACTERS = 48  # more than the longest of both together
_JOIN = re.compile(r"(?: (?P<word>and|to|until|till|through|or) |\s?[-\u2013\u2014]\s?)(?:the |in |on )?")
_OPEN = {"since", "after", "following", "before", "prior to", "until", "till", "up to", "by"}
_RANGE = {"between", "from"}
_NEVER = {"every", "each", "next"}
_EARLIEST = datetime(1, 1, 3)


def _placed(text: str, lowered: str, clock: Clock) -> Iterator[Period]:
    """The periods of a text with the words before them taken in. One that lacks the word it needs keeps its `leads`:
    it may still be the second half of a range."""
    for period in periods(text, lowered, clock):
        before = lowered[max(0, period.first - _LEAD_CHARACTERS) : period.first]
        part = _PART.search(before)
        if part is not None and period.span[1] - period.span[0] > timedelta(days=20):
            before = before[: part.start()]
            _narrow(period, part["part"])
        lead = _LEAD.search(before)
        if lead is not None and lead["side"] and (lead["side"] != "of" or lead["unit"] == "week"):
            period.offset = (lead["count"] or "", lead["units"] or lead["unit"], lead["side"])
            period.leads = None
        elif lead is not None:
            period.word = lead["word"] or "in"  # the month of May
        if period.leads is not None and period.word in period.leads:
            period.leads = None
        yield period


def _narrow(period: Period, part: str) -> None:
    """ "early", "the end of", "the second week of"."""

    def of(span: Span) -> Span:
        start, end = span
        if part.endswith("week"):
            start = (
                end - timedelta(days=7) if part == "last week" else start + timedelta(days=7 * _WEEKS.index(part[:-5]))
            )
            return start, start + timedelta(days=7)
        days = (end - start).days
        first, last = _PART_SHARES[part]
        return start + timedelta(days=round(days * first)), start + timedelta(days=round(days * last))

    of_year = period.of_year
    period.span, period.leads = of(period.span), None
    if of_year is not None:
        period.of_year = lambda year: of(of_year(year))


_WEEKS = ("first", "second", "third", "fourth")


def _counting(placed: list[Period], lowered: str, clock: Clock) -> Iterator[Period]:
    """The periods that count, ranges made one: "between May and July", "from Monday to Wednesday"; "in June or July"
    gives both."""
    position = 0
    while position < len(placed):
        period = placed[position]
        position += 1
        following = placed[position] if position < len(placed) else None
        join = _JOIN.fullmatch(lowered, period.last, following.first) if following else None
        if following and join:
            if period.word in _RANGE or (period.leads is None and join["word"] not in {"and", "or"}):
                period = _range(period, following)
                position += 1
            elif period.leads is None:
                following.leads = None
        if period.leads is None and period.word not in _NEVER:
            try:
                yield _applied(period, clock)
            except (ValueError, OverflowError):  # a week before the year 1
                continue


def _range(left: Period, right: Period) -> Period:
    """From the start of one period to the end of another; a year that one of them lacks is the other's."""
    of_left, of_right, span = left.of_year, right.of_year, right.span
    if of_right is not None and of_left is None:
        span = of_right(left.span[0].year)
        if span[0] < left.span[0]:
            span = of_right(left.span[0].year + 1)

    def from_left(end: Span) -> Span:
        if of_left is None:
            return left.span[0], end[1]
        start = of_left(end[0].year)[0]
        return (start if start <= end[0] else of_left(end[0].year - 1)[0]), end[1]

    of_year = (lambda year: from_left(of_right(year))) if of_left and of_right else None
    return Period(from_left(span), of_year=of_year, year=right.year, first=left.first, last=right.last)


def _applied(period: Period, clock: Clock) -> Period:
    """A period with what the words before it make of it: "two weeks before", "since"."""
    other = None
    if period.offset:
        span, weight = _offset(period.span, *period.offset)
        other = period.span  # "the week before 3 August" is often told on that very day
    elif period.word in _OPEN:
        (start, end), weight = period.span, OPEN_WEIGHT
        span = {
            "since": (start, clock.tomorrow),
            "after": (end, clock.tomorrow),
            "following": (end, clock.tomorrow),
            "before": (_EARLIEST, start),
            "prior to": (_EARLIEST, start),
        }.get(period.word, (_EARLIEST, end))
    else:
        return period
    return Period(span, weight, other=other, first=period.first, last=period.last)


def _offset(span: Span, count: str, unit: str, side: str) -> tuple[Span, float]:
    """ "the week before" is the seven days up to it, "a week before" is about seven days earlier."""
    start, end = span
    sign = -1 if side in {"before", "prior to"} else 1
    if side == "of":
        return calendar_unit(start, "week"), 1.0
    if unit not in SLACK_DAYS:  # a weekday or a weekend
        name = "saturday" if unit == "weekend" else unit
        day = weekday_before(start, name) if sign < 0 else weekday_before(end + timedelta(days=7), name)
        return (day, day + timedelta(days=2 if unit == "weekend" else 1)), 1.0
    if not count:
        return ((shifted(start, -1, unit), start) if sign < 0 else (end, shifted(end, 1, unit))), 1.0
    number = int(count) if count.isdecimal() else COUNTS[count]
    return around(shifted(start, sign * number, unit), unit), 1.0 if unit == "day" else ROUNDED_WEIGHT


def _readings(period: Period) -> Iterator[tuple[Span, float]]:
    """The spans that a period may mean, likeliest first, with their weights."""
    yield period.span, period.weight
    if period.other:
        yield period.other, AMBIGUOUS_WEIGHT
    if period.of_year is None:
        return
    weight, found = period.weight, 1
    for year in range(period.year - 1, max(period.year - _YEARS_TRIED, 1), -1):
        if found == YEARS_MAX:
            return
        try:
            span = period.of_year(year)
        except ValueError:  # no 29th of February
            continue
        weight, found = weight / 2, found + 1
        yield span, weight


def _epoch_ms(moment: datetime, tz: tzinfo) -> int:
    """Epoch milliseconds of a clock face. One that the clocks skip counts as the moment when they do."""
    return (moment.replace(tzinfo=UTC if moment == _EARLIEST else tz) - _EPOCH) // timedelta(milliseconds=1)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
