"""Whether neighbours tell of each other."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from actors.cohesion import LOOKED_AT_MAX, PAIRS_MIN, cohesion, looked_at

MANY = 400
RANDOM = np.random.default_rng(1)
NOISE = RANDOM.standard_normal(MANY).astype(np.float32)
TOPICS = np.repeat(RANDOM.standard_normal(MANY // 10), 10).astype(np.float32)
TURNS = np.where(np.arange(MANY) % 2, TOPICS, -TOPICS).astype(np.float32)
NOTHING = np.zeros(MANY, np.float32)


def previous(count: int) -> NDArray[np.int32]:
    return np.arange(count, dtype=np.int32) - 1


def every(count: int) -> NDArray[np.bool_]:
    return np.ones(count, np.bool_)


def test_turns_about_the_same_belong_together() -> None:
    assert cohesion((NOISE, TOPICS), previous(MANY), every(MANY)) == 1
    assert cohesion((TOPICS, NOISE), previous(MANY), every(MANY)) == 1


def test_speakers_take_turns() -> None:
    """Where only one of two speakers matches, memories are like the one before the last."""
    assert cohesion((NOISE, TURNS), previous(MANY), every(MANY)) == 1


def test_notes_in_any_order_do_not_belong_together() -> None:
    assert cohesion((NOISE, NOISE[::-1].copy()), previous(MANY), every(MANY)) < 0.3


def test_what_lies_between_counts_in_part() -> None:
    half = NOISE + 0.6 * TOPICS
    assert 0 < cohesion((half, half), previous(MANY), every(MANY)) < 1


@pytest.mark.parametrize("count", [0, 1, PAIRS_MIN])
def test_few_memories_tell_nothing_and_neighbours_count(count: int) -> None:
    assert cohesion((NOISE[:count], NOISE[:count]), previous(count), every(count)) == 1


def test_a_question_that_matches_nothing_tells_nothing() -> None:
    assert cohesion((NOTHING, NOTHING), previous(MANY), every(MANY)) == 1


def test_only_what_may_be_returned_counts_and_no_more_than_the_newest() -> None:
    eligible = np.arange(3 * LOOKED_AT_MAX) % 2 == 0
    memories = looked_at(eligible)
    assert len(memories) == LOOKED_AT_MAX
    assert memories[-1] == 3 * LOOKED_AT_MAX - 2
    assert (memories % 2 == 0).all()
