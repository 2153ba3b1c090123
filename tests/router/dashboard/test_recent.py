"""Figures of the last minutes and hours: counts, percentiles, and that all of it is bounded."""

from __future__ import annotations

import random

import msgspec
import pytest

from router.dashboard.recent import (
    ACCOUNTS_MAX,
    HOURS_KEPT,
    MINUTES_KEPT,
    AccountFigures,
    Answered,
    Kind,
    Latencies,
    RecentFigures,
    Told,
    ToldSpan,
)

BEGIN_S = 1_000_000 * 60.0  # the first second of a minute


def answered(milliseconds: float, status: int = 200, provider: str = "", kind: Kind = "all") -> Answered:
    return Answered(status=status, took_ms={"all": milliseconds, kind: milliseconds}, provider=provider)


@pytest.mark.parametrize("percent", [1, 50, 95, 99, 100])
def test_percentiles_are_within_five_percent(percent: int) -> None:
    """Of durations over six orders of magnitude."""
    dice = random.Random(percent)
    durations = sorted(10 ** dice.uniform(-1.5, 4.5) for _ in range(3_000))
    latencies = Latencies()
    for duration in durations:
        latencies.add(duration)
    exact = durations[-(-len(durations) * percent // 100) - 1]
    assert latencies.percentile(percent) == pytest.approx(exact, rel=0.05, abs=0.006)


def test_without_durations_there_is_no_percentile_and_nonsense_is_a_short_one() -> None:
    latencies = Latencies()
    assert latencies.body() == {"p50": None, "p95": None, "p99": None}
    latencies.add(-5)
    assert latencies.percentile(50) == pytest.approx(0.01, abs=0.005)


def test_what_is_slow_now_is_not_hidden_by_what_was_fast_before() -> None:
    """Percentiles forget after some minutes; the series and the sums do not."""
    figures = AccountFigures()
    for second in range(600):
        figures.add(answered(1, kind="recall"), now_s=BEGIN_S + second)
    now_s = BEGIN_S + 1200
    figures.add(answered(1000), now_s=now_s)
    found = figures.latencies(now_s)
    assert found["all"].percentile(50) == pytest.approx(1000, rel=0.05)
    assert found["recall"].percentile(50) is None
    assert figures.requests == sum(span.requests for span in figures.minutes(now_s)) == 601
    assert [span.requests for span in figures.minutes(now_s)][-21:] == [60] * 10 + [0] * 10 + [1]
    assert sum(span.requests for span in figures.hours(now_s)) == 601


def test_the_series_have_every_minute_and_hour_and_no_more() -> None:
    figures = AccountFigures()
    for hour in range(30):
        figures.add(answered(1, status=500), now_s=BEGIN_S + hour * 3600)
    now_s = BEGIN_S + 29 * 3600
    minutes, hours = list(figures.minutes(now_s)), list(figures.hours(now_s))
    assert (len(minutes), len(hours)) == (MINUTES_KEPT, HOURS_KEPT)
    assert [span.number for span in minutes] == list(range(minutes[0].number, minutes[0].number + MINUTES_KEPT))
    assert ([span.errors for span in hours], minutes[-1].errors, sum(span.errors for span in minutes)) == (
        [1] * 24,
        1,
        1,
    )


def test_requests_a_second_are_of_the_last_whole_seconds() -> None:
    figures = AccountFigures()
    for second in range(30):
        for _ in range(4):
            figures.add(answered(1), now_s=BEGIN_S + second)
    assert figures.per_second(BEGIN_S + 30) == 4
    assert figures.per_second(BEGIN_S + 35) == 2
    assert figures.per_second(BEGIN_S + 60) == 0


def test_a_clock_that_is_set_back_breaks_nothing() -> None:
    figures = AccountFigures()
    for now_s in (BEGIN_S + 7200, BEGIN_S, BEGIN_S + 7200):
        figures.add(answered(1), now_s=now_s)
    assert figures.requests == sum(span.requests for span in figures.minutes(BEGIN_S + 7200)) == 3


def test_a_provider_fails_by_what_it_answers_not_by_what_it_was_asked() -> None:
    figures = AccountFigures()
    seen = []
    for status in (200, 400, 404, 429, 401, 502, 200):
        figures.add(answered(1, status=status, provider="openai"), now_s=BEGIN_S)
        seen.append(figures.providers["openai"].failing)
    met = figures.providers["openai"]
    assert seen == [False, False, False, True, True, True, False]
    assert (met.requests, met.errors, met.last_error_status, met.last_used_ms) == (7, 3, 502, int(BEGIN_S * 1000))


def test_old_minutes_keep_only_what_the_series_show() -> None:
    """A busy account costs the same after an hour as after a day."""
    figures = AccountFigures()
    for minute in range(300):
        figures.add(answered(1, kind="recall"), now_s=BEGIN_S + minute * 60)
    kept = [sorted(span.latencies) for span in figures.minutes(BEGIN_S + 299 * 60)]
    assert kept[0] == ["all"]
    assert kept[-1] == ["all", "recall"]
    assert sum("recall" in kinds for kinds in kept) <= 9


def test_accounts_are_apart_and_bounded() -> None:
    recent = RecentFigures(now_ms=lambda: int(BEGIN_S * 1000))
    recent.add(1, answered(1))
    assert (recent.of(1).requests, recent.of(2).requests) == (1, 0)
    for account in range(2, ACCOUNTS_MAX + 2):
        recent.add(account, answered(1))
    assert recent.of(1).requests == 0


def test_what_several_workers_counted_is_together_what_one_would_have_counted() -> None:
    """Counts, both series, percentiles, requests a second, and whose word on a provider is the last."""
    one, workers = AccountFigures(), [AccountFigures() for _ in range(3)]
    random_ = random.Random(7)
    now_s = 1_000_000.0
    for number in range(2_000):
        now_s += random_.choice((0.01, 0.3, 1.0, 40.0))
        took_ms: dict[Kind, float] = {"all": random_.uniform(1, 900), "recall": random_.uniform(1, 90)}
        answered = Answered(status=random_.choice((200, 200, 404, 503)), took_ms=took_ms, provider="openai")
        for figures in (one, random_.choice(workers)):
            figures.add(answered, now_s=now_s)
            figures.tokens["input"] += number
    told = [msgspec.msgpack.decode(msgspec.msgpack.encode(worker.told()), type=Told) for worker in workers]
    together = AccountFigures.together(told)
    assert (together.requests, together.errors, together.tokens) == (one.requests, one.errors, one.tokens)
    assert together.per_second(now_s) == one.per_second(now_s)
    assert together.providers == one.providers
    assert [ToldSpan.of(span) for span in together.hours(now_s)] == [ToldSpan.of(span) for span in one.hours(now_s)]
    pairs = zip(together.minutes(now_s), one.minutes(now_s), strict=True)
    assert all((ours.requests, ours.errors) == (theirs.requests, theirs.errors) for ours, theirs in pairs)
    ours, theirs = together.latencies(now_s), one.latencies(now_s)
    assert {kind: found.body() for kind, found in ours.items()} == {
        kind: found.body() for kind, found in theirs.items()
    }
