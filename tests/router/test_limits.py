"""Token buckets, counts of what is under way, the gates of keys and addresses: bookkeeping by a clock of our own."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import RateLimited
from models.ids import Principal, VaultNumber, VaultRef
from models.key_limits import KeyLimits
from models.limit_settings import LimitSettings
from router.limits import (
    SUSPECT_LOOKUPS_MAX,
    Concurrency,
    FailureGate,
    KeyGate,
    Rate,
    TokenBuckets,
    too_many_requests,
)

GOOD, BAD, WORSE = b"g" * 32, b"b" * 32, b"w" * 32


class Clock:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def principal(number: int = 1, limits: KeyLimits | None = None) -> Principal:
    vault = VaultRef(number=VaultNumber(number), shard=0)
    return Principal(
        key_number=number, account_number=1, kind="user", name="n", vault=vault, limits=limits or KeyLimits()
    )


def settings(**values: int) -> LimitSettings:
    return msgspec.structs.replace(LimitSettings(), **values)


@given(
    rate=st.builds(Rate, per_minute=st.integers(1, 100_000), burst=st.integers(1, 1_000)),
    pauses_s=st.lists(st.floats(0, 120), min_size=1, max_size=200),
)
def test_a_bucket_never_lets_through_more_than_its_burst_and_its_rate(rate: Rate, pauses_s: list[float]) -> None:
    """Over every stretch of time, not only from the beginning."""
    clock = Clock()
    buckets = TokenBuckets(clock=clock, tracked_max=10)
    allowed_at_s = []
    for pause_s in pauses_s:
        clock.now_s += pause_s
        if buckets.take("a", rate).allowed:
            allowed_at_s.append(clock.now_s)
    for first in range(len(allowed_at_s)):
        for last in range(first, len(allowed_at_s)):
            stretch_s = allowed_at_s[last] - allowed_at_s[first]
            assert last - first + 1 <= rate.burst + rate.per_minute / 60 * stretch_s + 1e-3


@given(per_minute=st.integers(1, 100_000), burst=st.integers(1, 100), asked=st.integers(1, 300))
def test_who_waits_as_long_as_told_is_let_in(per_minute: int, burst: int, asked: int) -> None:
    """And nobody is told to wait longer than a token takes."""
    clock = Clock()
    buckets = TokenBuckets(clock=clock, tracked_max=10)
    rate = Rate(per_minute, burst)
    for _ in range(asked):
        allowance = buckets.take("a", rate)
        if not allowance.allowed:
            assert 0 < allowance.next_in_s <= 60 / per_minute * (1 + 1e-6)
            clock.now_s += allowance.next_in_s
            assert buckets.take("a", rate).allowed


def test_a_bucket_says_how_much_is_left_and_when_it_will_be_full() -> None:
    clock = Clock()
    buckets = TokenBuckets(clock=clock, tracked_max=10)
    rate = Rate(per_minute=60, burst=3)

    taken = [buckets.take("a", rate) for _ in range(4)]

    assert [allowance.remaining for allowance in taken] == [2, 1, 0, 0]
    assert [allowance.allowed for allowance in taken] == [True, True, True, False]
    assert taken[2].headers() == {"X-RateLimit-Limit": "3", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "3"}
    assert too_many_requests(taken[3]).retry_after_s == 1
    clock.now_s += 2
    assert buckets.take("a", rate).remaining == 1


def test_buckets_do_not_share_tokens() -> None:
    buckets = TokenBuckets(clock=Clock(), tracked_max=10)
    rate = Rate(per_minute=1, burst=1)
    assert buckets.take("a", rate).allowed
    assert not buckets.take("a", rate).allowed
    assert buckets.take("b", rate).allowed


def test_a_token_that_is_given_back_can_be_taken_again() -> None:
    clock = Clock()
    buckets = TokenBuckets(clock=clock, tracked_max=10)
    rate = Rate(per_minute=1, burst=1)
    for _ in range(5):
        assert buckets.take("a", rate).allowed
        buckets.give_back("a", rate)
    assert len(buckets) == 0
    buckets.give_back("a", rate)  # of a bucket that is full: nothing


def test_a_lowered_burst_holds_at_once_and_does_not_lock_out_for_long() -> None:
    """The account may change a key's limits while its bucket is in use."""
    clock = Clock()
    buckets = TokenBuckets(clock=clock, tracked_max=10)
    for _ in range(100):
        assert buckets.take("a", Rate(per_minute=60, burst=100)).allowed
    refused = buckets.take("a", Rate(per_minute=60, burst=2))
    assert not refused.allowed
    assert refused.next_in_s == pytest.approx(1.0)


def test_a_million_addresses_take_no_more_memory_than_the_bound() -> None:
    """The least recent go first, and buckets that are full again go by themselves."""
    clock = Clock()
    buckets = TokenBuckets(clock=clock, tracked_max=100)
    rate = Rate(per_minute=60, burst=10)
    for number in range(10_000):
        buckets.take(number, rate)
        assert len(buckets) <= 101
    clock.now_s += 60
    for _ in range(200):
        buckets.take("one", Rate(per_minute=60, burst=200))
    assert len(buckets) == 1


def test_what_is_under_way_ends_exactly_once() -> None:
    concurrency = Concurrency()
    first, second = concurrency.enter("a", 2), concurrency.enter("a", 2)
    assert first is not None
    assert second is not None
    assert concurrency.enter("a", 2) is None
    first()
    first()
    assert concurrency.enter("a", 2) is not None
    assert concurrency.enter("a", 2) is None
    assert concurrency.enter("b", 0) is None
    assert len(concurrency) == 1


@given(steps=st.lists(st.integers(-5, 3), max_size=100))
def test_counts_return_to_nothing(steps: list[int]) -> None:
    """Whoever comes and goes in whatever order, twice too: no name stays behind."""
    concurrency = Concurrency()
    leaving = []
    for step in steps:
        if step >= 0:
            leave = concurrency.enter(step, 3)
            if leave is not None:
                leaving.append(leave)
        elif leaving:
            leaving[step % len(leaving)]()
    for leave in leaving:
        leave()
    assert len(concurrency) == 0


def test_without_limits_a_key_costs_nothing() -> None:
    gate = KeyGate(LimitSettings(), clock=Clock())
    assert gate.take(principal()) is None
    assert gate.enter(principal()) is None
    assert gate.statistics() == {"keys_tracked": 0, "keys_busy": 0}


@pytest.mark.parametrize(
    ("general", "own", "expected"),
    [
        ({}, {}, None),
        ({"requests_per_minute": 600}, {}, Rate(600, 60)),
        ({"requests_per_minute": 5}, {}, Rate(5, 1)),
        ({"requests_per_minute": 600, "requests_burst": 7}, {}, Rate(600, 7)),
        ({"requests_per_minute": 600}, {"requests_per_minute": 0}, None),
        ({}, {"requests_per_minute": 50}, Rate(50, 5)),
        ({"requests_per_minute": 600, "requests_burst": 7}, {"requests_per_minute": 60}, Rate(60, 7)),
        ({"requests_per_minute": 600, "requests_burst": 7}, {"requests_burst": 9}, Rate(600, 9)),
    ],
    ids=str,
)
def test_a_keys_own_limits_come_before_the_general_ones(
    general: dict[str, int], own: dict[str, int], expected: Rate | None
) -> None:
    """And a burst that nobody sets is a tenth of a minute's requests."""
    gate = KeyGate(settings(**general), clock=Clock())
    assert gate.rate_of(principal(limits=KeyLimits(**own))) == expected


def test_a_key_has_as_many_requests_under_way_as_it_may() -> None:
    gate = KeyGate(settings(requests_concurrent_max=1), clock=Clock())
    leave = gate.enter(principal(1))
    assert leave is not None
    with pytest.raises(RateLimited, match="1 requests under way"):
        gate.enter(principal(1))
    assert gate.enter(principal(2)) is not None
    assert gate.enter(principal(1, KeyLimits(concurrent_max=0))) is None
    assert gate.enter(principal(1, KeyLimits(concurrent_max=2))) is not None
    leave()


def failures(**values: int) -> FailureGate:
    return FailureGate(settings(**{"failed_auth_per_minute": 60, "failed_auth_burst": 2, **values}), clock=Clock())


def fail(gate: FailureGate, address: str, key_hash: bytes | None = None) -> None:
    with gate.attempt(address, key_hash) as attempt:
        if key_hash is not None:
            attempt.fail()


def succeed(gate: FailureGate, address: str, key_hash: bytes) -> None:
    with gate.attempt(address, key_hash) as attempt:
        attempt.succeed()


def test_an_address_may_fail_so_often() -> None:
    gate = failures()
    fail(gate, "a")
    fail(gate, "a", BAD)
    with pytest.raises(RateLimited) as caught:
        fail(gate, "a")
    assert caught.value.retry_after_s == 1
    assert not caught.value.retry_helps
    with pytest.raises(RateLimited) as caught:
        fail(gate, "a", BAD)
    assert not caught.value.retry_helps
    fail(gate, "b")


def test_success_costs_nothing() -> None:
    gate = failures()
    for number in range(100):
        succeed(gate, "a", number.to_bytes(32))
    fail(gate, "a")
    fail(gate, "a")


def test_a_valid_key_goes_on_from_an_address_whose_failures_are_used_up() -> None:
    """Its neighbour behind the same address must not be able to lock it out, whether it has been seen before or not."""
    gate = failures()
    succeed(gate, "a", GOOD)
    fail(gate, "a", BAD)
    fail(gate, "a", BAD)
    succeed(gate, "a", GOOD)
    succeed(gate, "a", WORSE)
    with pytest.raises(RateLimited):
        fail(gate, "a", BAD)


def test_look_ups_of_addresses_without_failures_left_are_few_at_once() -> None:
    """A flood of well-formed wrong keys reaches the store a few at a time; who finds no place may come again."""
    gate = failures()
    fail(gate, "a")
    fail(gate, "a")
    attempts = [gate.attempt("a", number.to_bytes(32)) for number in range(SUSPECT_LOOKUPS_MAX)]
    with pytest.raises(RateLimited) as caught:
        gate.attempt("a", WORSE)
    assert caught.value.retry_helps
    assert caught.value.retry_after_s == 1
    with attempts[0] as attempt:
        attempt.succeed()
    with gate.attempt("a", WORSE):
        pass


def test_a_proven_key_does_not_stand_in_line_with_the_flood() -> None:
    gate = failures()
    succeed(gate, "a", GOOD)
    fail(gate, "a")
    fail(gate, "a")
    for number in range(SUSPECT_LOOKUPS_MAX):
        gate.attempt("a", number.to_bytes(32))
    succeed(gate, "a", GOOD)


def test_a_key_that_was_valid_once_is_as_any_other_when_it_is_not_any_more() -> None:
    gate = failures()
    succeed(gate, "a", GOOD)
    fail(gate, "a", GOOD)
    fail(gate, "a", GOOD)
    with pytest.raises(RateLimited):
        fail(gate, "a", GOOD)


def test_attempts_at_once_do_not_all_find_the_last_token() -> None:
    gate = failures()
    begun = [gate.attempt("a", number.to_bytes(32)) for number in range(2 + SUSPECT_LOOKUPS_MAX)]
    with pytest.raises(RateLimited):
        gate.attempt("a", BAD)
    refused = 0
    for attempt in begun:
        with attempt:
            try:
                attempt.fail()
            except RateLimited:
                refused += 1
    assert refused == SUSPECT_LOOKUPS_MAX


def test_a_flood_of_addresses_and_keys_takes_no_more_memory_than_the_bound() -> None:
    gate = failures(tracked_max=50)
    for number in range(5_000):
        fail(gate, f"address {number}")
        succeed(gate, "a", number.to_bytes(32))
    tracked = gate.statistics()
    assert tracked["addresses_tracked"] <= 51
    assert tracked["keys_proven"] <= 50


def test_where_failures_are_not_limited_nothing_is_tracked() -> None:
    gate = FailureGate(LimitSettings(), clock=Clock())
    for number in range(100):
        fail(gate, "a", BAD)
        succeed(gate, "a", number.to_bytes(32))
        fail(gate, "a")
    assert not gate.active
    assert gate.statistics() == {"addresses_tracked": 0, "keys_proven": 0}


def test_seconds_to_wait_are_whole_and_at_least_one() -> None:
    """Clients take 0 as no advice at all, and some read no fractions."""
    clock = Clock()
    buckets = TokenBuckets(clock=clock, tracked_max=10)
    rate = Rate(per_minute=60_000, burst=1)
    buckets.take("a", rate)
    assert too_many_requests(buckets.take("a", rate)).retry_after_s == 1
    slow = Rate(per_minute=1, burst=1)
    buckets.take("b", slow)
    assert too_many_requests(buckets.take("b", slow)).retry_after_s == math.ceil(60)
