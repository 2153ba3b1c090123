"""English expressions for times, one rule each: a pattern, and the period of the calendar that it means.

Owns the patterns. Must never look at the words around an expression ("since", "two weeks before"): those are
`models.time_intervals`. A new expression is a word in a table of `models.time_periods`, or a rule here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from models.time_periods import (
    AMBIGUOUS_WEIGHT,
    AT,
    COUNTS,
    ELAPSED_MS,
    FEASTS,
    HALVES,
    IN,
    LOOSE_WEIGHT,
    MONTHS,
    OF_YEARS,
    ON,
    ORDINALS,
    PARTS_OF_DAY,
    RECENT_DAYS,
    ROUNDED_WEIGHT,
    SEASONS,
    VAGUE_COUNTS,
    VAGUE_WEIGHT,
    WEEKDAYS,
    Clock,
    Period,
    Span,
    around,
    calendar_unit,
    feast,
    part_of_day,
    shifted,
    weekday_before,
    yearly,
)

Match = re.Match[str]

_YEAR = r"(?:19|20)\d\d(?!\d)"
_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)\b\.?"
)
_WEEKDAY = r"(?:mon|tues|wednes|thurs|fri|satur|sun)day"
_PART = rf"(?:{'|'.join(PARTS_OF_DAY)})"
_COUNT = rf"(?:\d{{1,3}}|half an?|(?:a )?(?:couple|few)(?: of)?|{'|'.join(COUNTS)}|several|some|many)"
_UNIT = r"(?:minute|hour|day|week|month|year)"
_WHICH = r"(?:last|this past|past|previous|this)"
_WITHIN = r"(?:in|over|within|during|for|throughout)"
_TH = r"(?:st|nd|rd|th)"
_TO = r" ?(?:-|\u2013|to|and|through) ?"
_COUNTED = "steps|words|people|days|hours|minutes|dollars|euros|calories|miles|meters|metres|points|pages|times|lines"


def _which(word: str | None) -> str | None:
    return "last" if word and word != "this" else word


def _amount(count: str, unit: str) -> tuple[int, int, str]:
    """The least and the most that a count means, and of what: "half a year" is six months."""
    words = [word for word in count.split() if word != "of"]
    if words[:1] == ["half"]:
        number, unit = HALVES.get(unit, (1, unit))
        return number, number, unit
    name = words[-1] if words else ""
    low, high = VAGUE_COUNTS.get(name, (0, 0))
    number = int(name) if name.isdecimal() else COUNTS.get(name, 0)
    return (low, high, unit) if high else (number, number, unit)


def _day_rule(match: Match, text: str, clock: Clock) -> Period | None:
    days = {"last": 1, "yesterday": 1}.get(match["day_name"], 0)
    if "before" in match["day_name"]:
        days = 2
    part = "night" if match["day_name"] == "tonight" else match["day_part"]
    return Period(part_of_day(clock.today - timedelta(days=days), part))


def _ago_rule(match: Match, text: str, clock: Clock) -> Period | None:
    low, high, unit = _amount(match["ago_count"] or "", match["ago_unit"])
    weight = LOOSE_WEIGHT if low != high else 1.0 if unit == "day" else ROUNDED_WEIGHT
    if unit in ELAPSED_MS:
        length, slack = ELAPSED_MS[unit]
        return Period((clock.elapsed(high * length + slack), clock.elapsed(low * length - slack)), weight)
    start, end = shifted(clock.today, -high, unit), shifted(clock.today, -low, unit)
    return Period((around(start, unit)[0], around(end, unit)[1]), weight)


def _past_rule(match: Match, text: str, clock: Clock) -> Period | None:
    low, high, unit = _amount(match["past_count"] or "one", match["past_unit"])
    weight = 1.0 if low == high else LOOSE_WEIGHT
    if unit in ELAPSED_MS:
        return Period((clock.elapsed(high * ELAPSED_MS[unit][0]), clock.elapsed(-1)), weight)
    return Period((shifted(clock.today, -high, unit), clock.tomorrow), weight)


def _unit_rule(match: Match, text: str, clock: Clock) -> Period | None:
    if match["unit_before"]:
        return Period(calendar_unit(shifted(clock.today, -2, match["unit_before"]), match["unit_before"]))
    start, end = calendar_unit(clock.today, match["unit_name"])
    if match["unit_which"] != "this":
        return Period(calendar_unit(shifted(start, -1, match["unit_name"]), match["unit_name"]))
    return Period((start, clock.tomorrow if match["unit_so_far"] else end))


def _weekend_rule(match: Match, text: str, clock: Clock) -> Period | None:
    saturday = clock.today + timedelta(days=5 - clock.today.weekday())
    if match["weekend_which"] != "this" and (match["weekend_which"] != "the" or clock.today < saturday):
        saturday -= timedelta(days=7)
    return Period((saturday, saturday + timedelta(days=2)))


def _weekday_rule(match: Match, text: str, clock: Clock) -> Period | None:
    which, part = _which(match["weekday_which"]), match["weekday_part"]
    day = weekday_before(clock.today if which else clock.tomorrow, match["weekday_name"])
    if which == "this":
        day = calendar_unit(clock.today, "week")[0] + timedelta(days=WEEKDAYS.index(match["weekday_name"][:3]))
    return Period(part_of_day(day, part), leads=None if which or part else ON)


def _month_number(name: str) -> int:
    return MONTHS.index(name[:3]) + 1


def _is_lower_verb(group: str, match: Match, text: str) -> bool:
    """Whether a month is written as the verbs "may" and "march" are."""
    return match[group] in {"may", "march", "mar"} and text[match.start(group)].islower()


def _month_rule(match: Match, text: str, clock: Clock) -> Period | None:
    which, month = match["month_which"], _month_number(match["month_name"])
    if which and _is_lower_verb("month_name", match, text):
        return None
    return yearly(lambda year: calendar_unit(datetime(year, month, 1), "month"), match["month_year"], clock, which, IN)


def _day_of_month_rule(match: Match, text: str, clock: Clock) -> Period | None:
    """ "7 May", "the 5th to 7th of May 2023", and "May 5-7, 2023", whose groups have their own names."""
    rule = "date" if match["date_month"] else "dated"
    days = [match[f"{rule}_day"], match[f"{rule}_to"] or match[f"{rule}_day"]]
    first, last = (ORDINALS.index(day) + 1 if day in ORDINALS else int(day) for day in days)
    month = _month_number(match[f"{rule}_month"])
    surely = match[f"{rule}_th"] or not _is_lower_verb(f"{rule}_month", match, text)

    def of_year(year: int) -> Span:
        return datetime(year, month, first), datetime(year, month, last) + timedelta(days=1)

    return yearly(of_year, match[f"{rule}_year"], clock, None, None if surely else ON)


def _nth_rule(match: Match, text: str, clock: Clock) -> Period | None:
    day, month = int(match["nth_day"]), clock.today.replace(day=1)
    if day > clock.today.day:
        month = shifted(month, -1, "month")
    start = month.replace(day=day)
    return Period((start, start + timedelta(days=1)), leads=ON)


def _iso_rule(match: Match, text: str, clock: Clock) -> Period | None:
    start = datetime(int(match["iso_year"]), int(match["iso_month"]), int(match["iso_day"] or 1))
    return Period((start, start + timedelta(days=1)) if match["iso_day"] else calendar_unit(start, "month"))


def _numeric_rule(match: Match, text: str, clock: Clock) -> Period | None:
    """7/5/2023 is read both ways, 7.5.2023 as on the continent that writes it so."""
    year, one, two = (int(match[f"numeric_{name}"]) for name in ("year", "one", "two"))
    orders = [(two, one)] if match["numeric_sign"] == "." else [(one, two), (two, one)]
    starts = list(dict.fromkeys(datetime(year, month, day) for month, day in orders if month <= 12))
    spans = [(start, start + timedelta(days=1)) for start in starts]
    if len(spans) == 2:
        return Period(spans[0], AMBIGUOUS_WEIGHT, other=spans[1])
    return Period(spans[0]) if spans else None


def _year_rule(match: Match, text: str, clock: Clock) -> Period | None:
    first, last = int(match["year_first"]), int(match["year_last"] or match["year_first"])
    return Period((datetime(first, 1, 1), datetime(last + 1, 1, 1)), leads=OF_YEARS)


def _decade_rule(match: Match, text: str, clock: Clock) -> Period | None:
    first = int(match["decade_first"])
    return Period((datetime(first, 1, 1), datetime(first + 10, 1, 1)))


def _quarter_rule(match: Match, text: str, clock: Clock) -> Period | None:
    month = 3 * int(match["quarter_number"]) - 2
    return yearly(
        lambda year: calendar_unit(datetime(year, month, 1), "quarter"), match["quarter_year"], clock, None, IN
    )


def _season_rule(match: Match, text: str, clock: Clock) -> Period | None:
    month = SEASONS[match["season_name"]]

    def of_year(year: int) -> Span:
        start = datetime(year, month, 1)
        return start, shifted(start, 1, "quarter")

    return yearly(of_year, match["season_year"], clock, _which(match["season_which"]), IN)


def _feast_rule(match: Match, text: str, clock: Clock) -> Period | None:
    name = match["feast_name"]
    return yearly(lambda year: feast(name, year), match["feast_year"], clock, _which(match["feast_which"]), AT)


def _vague_rule(match: Match, text: str, clock: Clock) -> Period | None:
    if match["vague_name"] == "just now":
        return Period((clock.elapsed(ELAPSED_MS["hour"][0]), clock.elapsed(-1)))
    days = RECENT_DAYS[match["vague_name"]]
    return Period((clock.today - timedelta(days=days), clock.tomorrow), VAGUE_WEIGHT)


# The groups of a pattern begin with the name of its rule. Of two rules that fit at one place the first is taken.
RULES: dict[str, tuple[str, Callable[[Match, str, Clock], Period | None]]] = {
    "day": (
        rf"(?P<day_name>(?:the )?day before yesterday|yesterday|today|tonight|this(?= {_PART})"
        rf"|last(?= (?:night|evening)))(?: (?P<day_part>{_PART}))?",
        _day_rule,
    ),
    "ago": (
        rf"(?:(?P<ago_count>{_COUNT}) |(?<!many )(?=\w+s ))(?P<ago_unit>{_UNIT})s? (?:ago|back\b(?= ?[?.!,]|$))",
        _ago_rule,
    ),
    "past": (
        rf"(?:(?:{_WITHIN} )?(?:the )?(?:past|last|previous) (?P<past_count>{_COUNT}) "
        rf"|{_WITHIN} the (?:last|previous) |(?:the |this )past )(?P<past_unit>{_UNIT})s?",
        _past_rule,
    ),
    "unit": (
        r"(?:(?P<unit_so_far>earlier )?(?P<unit_which>last|previous|this) (?P<unit_name>week|month|quarter|year)"
        r"|(?P<unit_before>week|month|year) before last)",
        _unit_rule,
    ),
    "weekend": (rf"(?P<weekend_which>the|{_WHICH}) weekend(?! (?:before|after|prior|of))", _weekend_rule),
    "weekday": (
        rf"(?:(?P<weekday_which>{_WHICH}) )?(?P<weekday_name>{_WEEKDAY})\b(?!\.\w|,? (?:the )?(?:\d|{_MONTH})"
        rf"| (?:before|after|prior))(?: (?P<weekday_part>{_PART}))?",
        _weekday_rule,
    ),
    "date": (
        rf"(?:(?P<date_day>\d{{1,2}}|{'|'.join(ORDINALS)})(?P<date_th>{_TH})?"
        rf"(?:{_TO}(?P<date_to>\d{{1,2}}){_TH}?)? (?:of )?(?P<date_month>{_MONTH})(?:,? ?(?P<date_year>{_YEAR}))?"
        rf"|(?P<dated_month>{_MONTH}) (?:the )?(?P<dated_day>\d{{1,2}})(?P<dated_th>{_TH})?"
        rf"(?:{_TO}(?P<dated_to>\d{{1,2}}){_TH}?(?!\d))?(?![\d:%])(?:,? ?(?P<dated_year>{_YEAR}))?)",
        _day_of_month_rule,
    ),
    "month": (
        rf"(?:(?P<month_which>{_WHICH}) )?(?P<month_name>{_MONTH})(?:,? (?:of )?(?P<month_year>{_YEAR}))?",
        _month_rule,
    ),
    "nth": (rf"the (?P<nth_day>\d{{1,2}}){_TH}(?= ?(?:[?.!,;]|$))", _nth_rule),
    "iso": (
        r"(?<![-+])(?P<iso_year>(?:19|20)\d\d)[-/](?P<iso_month>\d\d?)(?:[-/](?P<iso_day>\d\d?))?(?![-\d/])",
        _iso_rule,
    ),
    "numeric": (
        r"(?<![-+])(?P<numeric_one>\d\d?)(?P<numeric_sign>[/.])(?P<numeric_two>\d\d?)(?P=numeric_sign)"
        r"(?P<numeric_year>(?:19|20)\d\d)(?![-\d/])",
        _numeric_rule,
    ),
    "year": (
        rf"(?<![-+])(?P<year_first>{_YEAR})(?: ?[-\u2013] ?(?P<year_last>{_YEAR}))?"
        rf"(?![-.,:/]?\d| ?[%\u20ac$]| (?:{_COUNTED})\b)",
        _year_rule,
    ),
    "decade": (r"the (?P<decade_first>(?:19|20)\d0)s", _decade_rule),
    "quarter": (rf"q(?P<quarter_number>[1-4])(?: (?:of )?(?P<quarter_year>{_YEAR}))?", _quarter_rule),
    "season": (
        rf"(?:(?P<season_which>{_WHICH}) )?(?P<season_name>{'|'.join(SEASONS)})\b"
        rf"(?: (?:of )?(?P<season_year>{_YEAR}))?",
        _season_rule,
    ),
    "feast": (
        rf"(?:(?P<feast_which>{_WHICH}) )?(?P<feast_name>{'|'.join(FEASTS)})(?: (?:of )?(?P<feast_year>{_YEAR}))?",
        _feast_rule,
    ),
    "vague": (rf"(?P<vague_name>{'|'.join(RECENT_DAYS)}|just now)", _vague_rule),
}

_EXPRESSION = re.compile(
    r"(?<![\w.#$\u20ac/'@])(?:"
    + "|".join(f"(?P<{name}>{pattern})" for name, (pattern, _) in RULES.items())
    + r")(?![\w@])"
)


def periods(text: str, lowered: str, clock: Clock) -> Iterator[Period]:
    """The periods of the expressions in a text, in order; `first` and `last` of each are offsets in it.

    Args:
        text: as it was written; tells a month from a verb.
        lowered: the same in small letters, with plain spaces and apostrophes, no longer and no shorter.
    """
    for match in _EXPRESSION.finditer(lowered):
        assert match.lastgroup is not None
        try:
            period = RULES[match.lastgroup][1](match, text, clock)
        except (ValueError, OverflowError):  # the 31st of June; 999 years before the year 1
            continue
        if period is not None:
            period.first, period.last = match.span()
            yield period
