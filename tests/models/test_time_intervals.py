"""Times that questions speak of."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.time_intervals import INTERVALS_MAX, QUESTION_CHARACTERS_MAX, TimeInterval, time_intervals
from tests.models.time_cases import CASES, NOW_MS, SILENT, ZONE, expected_ms

DAY_MS = 86_400_000
ZONES = [ZoneInfo(name) for name in ("UTC", "Europe/Berlin", "America/Havana", "Asia/Kathmandu", "Pacific/Apia")]
PHRASES = st.sampled_from([*CASES, *SILENT])


def asked(question: str, now_ms: int = NOW_MS, zone: ZoneInfo = ZONE) -> tuple[TimeInterval, ...]:
    return time_intervals(question, now_ms=now_ms, tz=zone)


def likeliest(intervals: tuple[TimeInterval, ...]) -> list[tuple[int, int]]:
    """The ends of the readings of each expression that no other reading of it outweighs."""
    weights: dict[int, float] = {}
    for interval in intervals:
        weights.setdefault(interval.first, interval.weight)
    return [(each.start_ms, each.end_ms) for each in intervals if each.weight == weights[each.first]]


@pytest.mark.parametrize("question", CASES)
def test_expression_means(question: str) -> None:
    assert likeliest(asked(question)) == [expected_ms(interval) for interval in CASES[question]]


@pytest.mark.parametrize("question", SILENT)
def test_what_only_looks_like_a_time_gives_nothing(question: str) -> None:
    assert asked(question) == ()


@pytest.mark.parametrize("question", CASES)
def test_case_and_spacing_of_most_questions_do_not_matter(question: str) -> None:
    """Small letters are how people type; only "last May" needs its capital."""
    if "last May" not in question:
        assert likeliest(asked(question.lower().replace(" ", "\n"))) == likeliest(asked(question))


def test_what_has_no_year_may_be_of_an_earlier_one_at_half_the_weight() -> None:
    found = asked("What did I do in May?")

    assert [interval.weight for interval in found] == [1.0, 0.5, 0.25, 0.125]
    assert [datetime.fromtimestamp(interval.start_ms / 1000, ZONE).year for interval in found] == [
        2024,
        2023,
        2022,
        2021,
    ]


def test_offsets_are_those_of_the_expression() -> None:
    question = "İ asked: what did we eat on 7 May 2023?"
    (interval,) = asked(question)

    assert question[interval.first : interval.last] == "7 May 2023"


@pytest.mark.parametrize(
    ("question", "weight"),
    [("yesterday", 1.0), ("in 2022", 1.0), ("two weeks ago", 0.8), ("since 2022", 0.5), ("on 7/5/2023", 0.5),
     ("a few days ago", 0.5), ("recently", 0.3)],
)  # fmt: skip
def test_weight_says_how_sharp_an_expression_is(question: str, weight: float) -> None:
    assert asked(question)[0].weight == weight


def test_what_was_before_a_date_may_have_been_told_on_it() -> None:
    before, told = asked("What did John do the week before August 3, 2023?")

    assert (before.weight, told.weight) == (1.0, 0.5)
    assert before.end_ms == told.start_ms


@pytest.mark.parametrize(("day", "hours"), [("2024-03-31", 23), ("2024-10-27", 25)])
def test_a_day_on_which_clocks_change_has_its_own_length(day: str, hours: int) -> None:
    (interval,) = asked(f"on {day}")

    assert interval.end_ms - interval.start_ms == hours * 3_600_000


def test_hours_are_elapsed_time_when_clocks_change() -> None:
    """At 03:30 in summer time, half an hour after the clocks went from 2 to 3, two hours ago it was half past 0."""
    now_ms = round(datetime(2024, 3, 31, 3, 30, tzinfo=ZONE).timestamp() * 1000)
    (interval,) = asked("two hours ago", now_ms)

    assert (interval.start_ms, interval.end_ms) == (now_ms - 9_000_000, now_ms - 5_400_000)


def test_yesterday_depends_on_where_one_asks() -> None:
    assert len({asked("yesterday", zone=zone)[0].start_ms for zone in ZONES}) > 2


def test_a_day_that_a_country_skipped_is_no_interval() -> None:
    """Samoa went from the 29th to the 31st of December 2011."""
    assert asked("on 2011-12-30", zone=ZoneInfo("Pacific/Apia")) == ()


@given(st.lists(PHRASES, max_size=6), st.integers(-(10**15), 10**15), st.sampled_from(ZONES))
def test_intervals_are_ordered_and_not_empty_at_any_time_anywhere(
    questions: list[str], now_ms: int, zone: ZoneInfo
) -> None:
    question = " ".join(questions)
    found = asked(question, now_ms, zone)

    assert len(found) <= INTERVALS_MAX
    assert all(each.start_ms < each.end_ms and 0 < each.weight <= 1 for each in found)
    assert all(0 <= each.first < each.last <= len(question) for each in found)
    assert [each.first for each in found] == sorted(each.first for each in found)


@given(
    st.sampled_from(["yesterday", "last night", "this morning", "3 days ago", "two weeks ago", "over the past 3 days"]),
    st.integers(-4_000, 4_000),
)
def test_when_it_is_asked_days_later_relative_expressions_move_by_as_many(question: str, days: int) -> None:
    for zone in (ZoneInfo("UTC"), ZoneInfo("Asia/Kathmandu")):
        before, after = asked(question, NOW_MS, zone), asked(question, NOW_MS + days * DAY_MS, zone)
        assert [(each.start_ms + days * DAY_MS, each.end_ms + days * DAY_MS) for each in before] == [
            (each.start_ms, each.end_ms) for each in after
        ]


@given(st.sampled_from(["last week", "last Friday", "the weekend", "on Monday"]), st.integers(-500, 500))
def test_when_it_is_asked_weeks_later_weekdays_move_by_as_many(question: str, weeks: int) -> None:
    (before,), (after,) = asked(question, zone=ZONES[0]), asked(question, NOW_MS + weeks * 7 * DAY_MS, ZONES[0])

    assert after.start_ms - before.start_ms == weeks * 7 * DAY_MS


@given(st.integers(0, 4_000), st.sampled_from(ZONES))
def test_yesterday_ends_where_today_begins(days: int, zone: ZoneInfo) -> None:
    now_ms = NOW_MS - days * DAY_MS
    (yesterday,), (today,) = asked("yesterday", now_ms, zone), asked("today", now_ms, zone)

    assert yesterday.end_ms == today.start_ms <= now_ms < today.end_ms


@given(st.dates(datetime(1950, 1, 1).date(), datetime(2090, 1, 1).date()), st.sampled_from(["%d %B %Y", "%B %d, %Y"]))
def test_a_written_date_is_its_day(date: datetime, form: str) -> None:
    (interval,) = asked(f"What happened on {date.strftime(form)}?", zone=ZONES[0])
    start = datetime(date.year, date.month, date.day, tzinfo=ZONES[0])

    assert interval.start_ms == round(start.timestamp() * 1000)
    assert interval.end_ms == round((start + timedelta(days=1)).timestamp() * 1000)


@given(st.text())
def test_any_text_is_read(question: str) -> None:
    assert all(each.start_ms < each.end_ms for each in asked(question))


@pytest.mark.parametrize("shape", ["last ", "between 5 and ", "1/", "the ", "20", "a few ", " ", "May 7 - ", "2023-"])
def test_a_long_question_is_read_to_a_limit(shape: str) -> None:
    found = asked(shape * 100_000)

    assert all(each.last <= QUESTION_CHARACTERS_MAX for each in found)
