"""When a call is tried again and when a provider is left alone: pure decisions, on a clock made of a number."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import UpstreamSuspended
from router.resilience import BUSY_STATUSES, Breaker, RetryPolicy, asked_pause_s, is_busy

_NOW_S = 1_792_000_000.0  # Wed, 14 Oct 2026 17:46:40 GMT


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def breaker(clock: Clock, failures: int = 3) -> Breaker:
    return Breaker("fake", failures=failures, open_s=10, clock=clock)


def fail(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        with breaker.admitted() as ticket:
            breaker.failed(ticket)


def is_refused(breaker: Breaker) -> bool:
    try:
        with breaker.admitted():
            return False
    except UpstreamSuspended:
        return True


# --- retries ---


@pytest.mark.parametrize(
    ("headers", "pause_s"),
    [
        ([], None),
        ([("Retry-After", "7")], 7.0),
        ([("retry-after", " 0.5 ")], 0.5),
        ([("retry-after", "7"), ("Retry-After-Ms", "1500")], 1.5),
        ([("retry-after", "7"), ("retry-after-ms", "soon")], 7.0),
        ([("retry-after", "-3")], 0.0),
        ([("retry-after", "nan")], None),
        ([("retry-after", "inf")], math.inf),
        ([("retry-after", "Wed, 14 Oct 2026 17:46:43 GMT")], 3.0),
        ([("retry-after", "Wed, 14 Oct 2026 17:46:43 -0000")], 3.0),
        ([("retry-after", "Wed, 14 Oct 2020 17:46:43 GMT")], 0.0),
        ([("retry-after", "later")], None),
        ([("retry-after", "Wed, 99 Oct 2026 17:46:43 GMT")], None),
    ],
)
def test_a_provider_asks_for_a_pause_in_any_of_three_forms(
    headers: list[tuple[str, str]], pause_s: float | None
) -> None:
    assert asked_pause_s(headers, now_s=_NOW_S) == pause_s


@given(st.text(), st.text())
def test_any_text_is_a_pause_or_none(seconds: str, milliseconds: str) -> None:
    pause_s = asked_pause_s([("retry-after", seconds), ("retry-after-ms", milliseconds)], now_s=_NOW_S)

    assert pause_s is None or pause_s >= 0


@given(st.integers(1, 20), st.floats(0, 1), st.none() | st.floats(0, 100))
def test_a_pause_is_within_its_limit_and_never_shorter_than_asked(
    attempts: int, jitter: float, asked_s: float | None
) -> None:
    pause_s = RetryPolicy(retries_max=20, wait_max_s=2).pause_s(attempts, asked_s=asked_s, jitter=jitter)

    assert (pause_s is None) == (asked_s is not None and asked_s > 2)
    assert pause_s is None or (asked_s or 0) <= pause_s <= 2


def test_pauses_grow_and_end_with_the_last_retry() -> None:
    policy = RetryPolicy(retries_max=3, wait_max_s=60)

    assert [policy.pause_s(n, asked_s=None, jitter=1) for n in range(1, 5)] == [0.25, 0.5, 1.0, None]
    assert policy.pause_s(1, asked_s=None, jitter=0) == 0.125


def test_only_busy_answers_are_worth_another_attempt() -> None:
    assert {status for status in range(100, 600) if is_busy(status, [])} == BUSY_STATUSES
    assert {status for status in range(100, 600) if is_busy(status, [("x-should-retry", "true")])} == BUSY_STATUSES
    assert not any(is_busy(status, [("X-Should-Retry", "False")]) for status in range(100, 600))


# --- breaker ---


def test_failures_in_a_row_open_it_and_calls_are_refused_with_the_time_left() -> None:
    clock = Clock()
    door = breaker(clock)
    fail(door, 2)
    assert door.state == "closed"
    fail(door)
    clock.now += 3.5

    with pytest.raises(UpstreamSuspended, match="fake") as caught, door.admitted():
        pass

    assert (door.state, door.openings) == ("open", 1)
    assert (caught.value.status, caught.value.retry_after_s) == (503, 7)


def test_a_success_between_failures_starts_the_count_again() -> None:
    door = breaker(Clock())
    fail(door, 2)
    with door.admitted() as ticket:
        door.succeeded(ticket)
    fail(door, 2)

    assert door.state == "closed"


def test_calls_without_a_verdict_change_nothing() -> None:
    """A cancelled call, or an answer that is about the request only."""
    door = breaker(Clock())
    fail(door, 2)
    with door.admitted():
        pass
    fail(door)

    assert door.state == "open"


def test_half_open_lets_one_call_pass_whose_success_closes_it() -> None:
    clock = Clock()
    door = breaker(clock)
    fail(door, 3)
    clock.now += 10
    states = [door.state]
    with door.admitted() as probe:
        assert is_refused(door)
        door.succeeded(probe)
        assert not is_refused(door)
    states.append(door.state)

    assert states == ["half_open", "closed"]


def test_a_probe_that_fails_opens_it_again_at_once() -> None:
    clock = Clock()
    door = breaker(clock)
    fail(door, 3)
    clock.now += 10
    fail(door)

    assert (door.state, door.openings) == ("open", 2)
    assert is_refused(door)


def test_a_probe_that_is_cancelled_makes_room_for_the_next() -> None:
    clock = Clock()
    door = breaker(clock)
    fail(door, 3)
    clock.now += 10
    with door.admitted():
        pass

    assert not is_refused(door)


def test_a_slow_probe_does_not_keep_others_out_and_its_success_counts() -> None:
    """Models may think for minutes before the headers come."""
    clock = Clock()
    door = breaker(clock)
    fail(door, 3)
    clock.now += 10
    with door.admitted() as slow:
        clock.now += 10
        with door.admitted():
            assert is_refused(door)
            door.succeeded(slow)
            assert not is_refused(door)


def test_verdicts_on_calls_from_before_the_opening_are_old() -> None:
    clock = Clock()
    door = breaker(clock)
    with door.admitted() as early, door.admitted() as other:
        fail(door, 3)
        door.succeeded(early)
        assert door.state == "open"
        clock.now += 10
        door.failed(other)

    assert (door.state, door.openings) == ("half_open", 1)


def test_without_a_limit_it_never_opens() -> None:
    door = breaker(Clock(), failures=0)
    fail(door, 100)

    assert door.state == "closed"
