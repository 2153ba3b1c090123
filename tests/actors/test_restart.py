"""When something that failed may be tried again."""

from __future__ import annotations

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from actors.restart import RETRY_LAST_S, RestartPolicy, retry_delays


def test_three_crashes_within_the_window_are_allowed_and_the_fourth_is_not() -> None:
    policy = RestartPolicy(restarts_max=3, window_s=5)
    assert [policy.may_restart(now_s) for now_s in (0.0, 1.0, 2.0, 3.0)] == [True, True, True, False]


def test_crashes_older_than_the_window_do_not_count() -> None:
    policy = RestartPolicy(restarts_max=1, window_s=5)
    assert [policy.may_restart(now_s) for now_s in (0.0, 5.1, 10.2, 15.3)] == [True] * 4


def test_after_a_reset_counting_begins_anew() -> None:
    policy = RestartPolicy(restarts_max=1, window_s=5)
    assert policy.may_restart(0)
    assert not policy.may_restart(0)
    policy.reset()
    assert policy.may_restart(0)


def test_no_restart_at_all_when_none_is_allowed() -> None:
    assert not RestartPolicy(restarts_max=0, window_s=5).may_restart(0)


@given(
    st.lists(st.floats(min_value=0, max_value=20), max_size=40).map(sorted),
    st.integers(min_value=0, max_value=4),
)
def test_a_restart_is_allowed_exactly_if_the_window_holds_few_enough_crashes(times: list[float], most: int) -> None:
    policy = RestartPolicy(restarts_max=most, window_s=5)
    for place, now_s in enumerate(times):
        recent = sum(now_s - 5 <= earlier for earlier in times[: place + 1])
        assert policy.may_restart(now_s) is (recent <= most)


def test_delays_double_up_to_a_limit() -> None:
    delays = list(islice(retry_delays(), 12))
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == RETRY_LAST_S
    assert delays == sorted(delays)
