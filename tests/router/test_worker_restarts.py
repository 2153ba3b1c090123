"""A worker that dies again and again is left alone for longer each time, up to some seconds."""

from __future__ import annotations

from router.worker_restarts import PAUSE_S, PAUSE_S_MAX, STEADY_S, Restarts


def test_each_quick_death_doubles_the_pause_up_to_its_limit() -> None:
    restarts, pauses = Restarts(), []
    for death in range(10):
        restarts.started(float(death))
        pauses.append(restarts.died(death + 0.5))
    assert pauses[:4] == [PAUSE_S, 2 * PAUSE_S, 4 * PAUSE_S, 8 * PAUSE_S]
    assert pauses[-1] == PAUSE_S_MAX
    assert pauses == sorted(pauses)
    assert restarts.count == 10


def test_a_life_that_was_long_enough_makes_the_next_death_the_first() -> None:
    restarts = Restarts()
    for death in range(5):
        restarts.started(float(death))
        restarts.died(death + 0.5)
    restarts.started(10.0)
    assert restarts.died(10.0 + STEADY_S) == PAUSE_S
    restarts.started(100.0)
    assert restarts.died(100.0) == 2 * PAUSE_S
