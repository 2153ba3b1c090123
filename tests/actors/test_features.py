"""What speaks for a memory as an answer."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from actors.features import FEATURES, TOLD_WITHIN_MS
from actors.layout import SELF_CONTAINED_CHARACTERS
from actors.lexicon import LexicalMatch
from actors.ranking import candidates
from actors.ranking_inputs import Described, RankQuery, VaultArrays
from models.time_intervals import TimeInterval
from models.traits import (
    ASKS,
    ASKS_NUMBER,
    ASKS_PREFERENCE,
    ASKS_WHEN,
    ENDS_ASKING,
    PREFERS,
    TELLS_NUMBER,
    TELLS_TIME,
)

LONG = 4 * SELF_CONTAINED_CHARACTERS


def vault(count: int, characters: Sequence[int] | None = None) -> VaultArrays:
    """Memories of one chunk each, all in one session."""
    numbers = np.arange(count, dtype=np.int32)
    return VaultArrays(
        chunk_memory=numbers,
        previous=numbers - 1,
        next=np.where(numbers == count - 1, -1, numbers + 1).astype(np.int32),
        session=np.zeros(count, np.int32),
        characters=np.array([100] * count if characters is None else characters, np.int32),
        text_number=numbers,
        timestamp_ms=numbers.astype(np.int64) * TOLD_WITHIN_MS,
    )


def question(
    lexical: Sequence[float],
    *,
    held: Sequence[int] | None = None,
    weights: Sequence[float] = (),
    traits: Sequence[int] | None = None,
    speakers: Sequence[int] | None = None,
    exact: Sequence[float] | None = None,
) -> RankQuery:
    """A question by what its words find in each memory."""
    count = len(lexical)

    def describe(memories: NDArray[np.integer]) -> Described:
        return Described(
            traits=np.array([0] * count if traits is None else traits, np.uint8)[memories],
            speaker_terms=np.array([0] * count if speakers is None else speakers, np.uint64)[memories],
            exact=None if exact is None else np.array(exact, np.float32)[memories],
        )

    return RankQuery(
        lexical=LexicalMatch(
            scores=np.array(lexical, np.float32),
            coverage=np.zeros(count, np.float32),
            held=None if held is None else np.array(held, np.uint64),
            terms=tuple(f"term{place}" for place in range(len(weights))),
            weights=np.array(weights, np.float32),
        ),
        dense=None,
        eligible=np.ones(count, np.bool_),
        limit=10,
        describe=describe,
    )


def feature(name: str, query: RankQuery, arrays: VaultArrays) -> list[float]:
    """One feature of every memory of a vault, in the order of storing."""
    found = candidates(query, arrays)
    assert found is not None
    column = found.features[:, FEATURES.index(name)]
    return [float(column[place]) for place in np.argsort(found.memories)]


def test_a_question_that_matches_speaks_for_what_was_said_next() -> None:
    asks = question([0, 5, 0, 0], traits=[0, ASKS | ENDS_ASKING, 0, 0])
    before, itself, after, later = feature("answers", asks, vault(4))
    assert after > 0
    assert before == itself == later == 0
    assert feature("answers", question([0, 5, 0, 0]), vault(4)) == [0, 0, 0, 0]


def test_the_longer_a_text_the_less_a_question_before_it_says() -> None:
    asks = question([0, 5, 0, 0], traits=[0, ENDS_ASKING, 0, 0])
    brief, long = (feature("answers", asks, vault(4, [100, 100, size, 100]))[2] for size in (100, LONG))
    assert long == pytest.approx(brief / 4)


def test_words_may_stand_in_two_memories_on_each_side() -> None:
    asks = question([0, 0, 0, 0, 0, 0], held=[1, 0, 2, 0, 0, 0], weights=[3, 1])
    assert feature("coverage", asks, vault(6)) == [1, 1, 1, 0.25, 0.25, 0]


def test_names_of_speakers_are_left_out_of_the_words() -> None:
    asks = question([0, 0, 0, 0], held=[1, 1, 1, 3], weights=[3, 1], speakers=[1, 1, 1, 1])
    assert feature("coverage", asks, vault(4)) == [0, 1, 1, 1]


def test_who_speaks_counts_where_the_question_names_them() -> None:
    asks = question([0, 0, 0], traits=[0, ENDS_ASKING, 0], speakers=[1, 1, 0])
    assert feature("speaker", asks, vault(3)) == [1, 0, 0]


@pytest.mark.parametrize(
    ("name", "wants", "trait"),
    [
        ("time", ASKS_WHEN, TELLS_TIME),
        ("number", ASKS_NUMBER, TELLS_NUMBER),
        ("prefers", ASKS_PREFERENCE, PREFERS),
    ],
)
def test_what_is_asked_for_is_told(name: str, wants: int, trait: int) -> None:
    asks = question([0, 0], traits=[trait, ASKS])
    assert feature(name, asks, vault(2)) == [0, 0]
    assert feature(name, msgspec.structs.replace(asks, wants=wants), vault(2)) == [1, 0]


def test_what_is_wanted_word_for_word_is_there() -> None:
    assert feature("exact", question([0, 0, 0], exact=[1, 0.5, 0]), vault(3)) == [1, 0.5, 0]
    assert feature("exact", question([0, 0, 0]), vault(3)) == [0, 0, 0]


@pytest.mark.parametrize(("cohesion", "around"), [(1.0, 1.0), (0.5, 0.5), (0.0, 0.0)])
def test_neighbours_count_as_far_as_they_tell_of_each_other(cohesion: float, around: float) -> None:
    """What holds nothing itself gets that share of what stands around it: words, the question before, and support."""
    asks = question([0, 5, 0, 0], held=[0, 1, 0, 0], weights=[1], traits=[0, ENDS_ASKING, 0, 0])
    asks = msgspec.structs.replace(asks, cohesion=cohesion)
    full = msgspec.structs.replace(asks, cohesion=1.0)
    assert feature("coverage", asks, vault(4))[2] == around
    for name in ("before", "answers"):
        whole = feature(name, full, vault(4))[2]
        assert whole != 0
        assert feature(name, asks, vault(4))[2] == pytest.approx(around * whole)
    assert (feature("base", asks, vault(4))[2] > feature("base", asks, vault(4))[3]) == (around > 0)


def test_memories_told_in_the_time_of_the_question_or_soon_after_stand_out() -> None:
    week = TimeInterval(start_ms=TOLD_WITHIN_MS, end_ms=TOLD_WITHIN_MS + 1, weight=0.8, first=0, last=1)
    asks = msgspec.structs.replace(question([0, 0, 0, 0]), intervals=(week,))
    assert feature("told", asks, vault(4)) == pytest.approx([0, 0.8, 0.4, 0])


def test_candidates_share_a_place_where_they_match_alike() -> None:
    assert feature("place", question([5, 1, 1, 0]), vault(4)) == pytest.approx([1 / 3, 1 / 4, 1 / 4, 1 / 6])


def test_nobody_need_be_able_to_tell_of_texts() -> None:
    asks = msgspec.structs.replace(question([5, 0]), describe=None)
    assert feature("answers", asks, vault(2)) == [0, 0]
