"""The ranking formula."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.index import DenseMatch
from actors.lexicon import LexicalMatch
from actors.ranking import RELEVANCE_LEAST, Ranked, is_relevant, rank
from actors.ranking_inputs import Described, RankQuery, VaultArrays
from models.time_intervals import TimeInterval
from models.traits import ENDS_ASKING

NAN = float("nan")
MANY = 60


def arrays(
    *,
    chunks: Sequence[int] | None = None,
    sessions: Sequence[int] = (),
    characters: Sequence[int] | None = None,
    texts: Sequence[int] | None = None,
    times: Sequence[int] | None = None,
) -> VaultArrays:
    """A vault of len(sessions) memories; by default one chunk each, all texts different, in order of time."""
    count = len(sessions)
    before = [max((j for j in range(i) if sessions[j] == sessions[i]), default=-1) for i in range(count)]
    after = [min((j for j in range(i + 1, count) if sessions[j] == sessions[i]), default=-1) for i in range(count)]
    return VaultArrays(
        chunk_memory=np.array(range(count) if chunks is None else chunks, np.int32),
        previous=np.array(before, np.int32),
        next=np.array(after, np.int32),
        session=np.array(sessions, np.int32),
        characters=np.array([100] * count if characters is None else characters, np.int32),
        text_number=np.array(range(count) if texts is None else texts, np.int32),
        timestamp_ms=np.array(range(count) if times is None else times, np.int64),
    )


def query(
    lexical: Sequence[float],
    dense: Sequence[float] | None = None,
    *,
    eligible: Sequence[bool] | None = None,
    memories: int | None = None,
    coverage: Sequence[float] | None = None,
    limit: int = 60,
    background: tuple[float, float] | None = None,
    preferred_session: int | None = None,
) -> RankQuery:
    """A question by its scores per chunk."""
    count = len(lexical) if memories is None else memories
    return RankQuery(
        lexical=LexicalMatch(
            scores=np.array(lexical, np.float32),
            coverage=np.array([0.0] * len(lexical) if coverage is None else coverage, np.float32),
        ),
        dense=None if dense is None else DenseMatch(scores=np.array(dense, np.float32), background=background),
        eligible=np.array([True] * count if eligible is None else eligible, np.bool_),
        limit=limit,
        preferred_session=preferred_session,
    )


def order(ranked: Ranked) -> list[int]:
    """The memories, best first."""
    return [int(memory) for memory in ranked.memories]


def apart(count: int) -> VaultArrays:
    """Memories that are alone in their sessions, so that only their own chunks count."""
    return arrays(sessions=range(count))


def test_both_legs_count() -> None:
    assert order(rank(query([3, 0, 0, 0], [0, 0, 0, 0]), apart(4)))[0] == 0
    assert order(rank(query([0, 0, 0, 0], [0, 0.9, 0, 0]), apart(4)))[0] == 1
    assert order(rank(query([3, 0, 2.9, 0], [0, 0.8, 0.7, 0]), apart(4)))[0] == 2


def test_a_memory_counts_by_its_best_chunk() -> None:
    vault = arrays(sessions=[0, 1, 2], chunks=[0, 0, 0, 1, 2])
    ranked = rank(query([0, 5, 0, 4, 0], memories=3), vault)
    assert order(ranked)[:2] == [0, 1]
    assert ranked.chunks.tolist()[:2] == [1, 3]


def test_a_memory_without_chunks_is_never_returned() -> None:
    vault = arrays(sessions=[0, 0, 0], chunks=[0, 2])
    assert sorted(order(rank(query([1, 0], memories=3), vault))) == [0, 2]


def test_what_is_not_eligible_is_neither_returned_nor_of_influence() -> None:
    vault = arrays(sessions=[0, 0, 0, 1, 1, 1])
    ranked = rank(query([0, 9, 0, 0, 1, 0], eligible=[True, False, True, True, True, True]), vault)
    assert order(ranked)[0] == 4
    assert 1 not in order(ranked)


def test_what_stands_around_the_match_comes_before_what_stands_elsewhere() -> None:
    vault = arrays(sessions=[0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    ranked = rank(query([0, 0, 5, 0, 0, 0, 0, 0, 0, 0]), vault)
    assert order(ranked)[0] == 2
    assert set(order(ranked)[1:5]) == {0, 1, 3, 4}


def test_the_turn_after_a_question_that_matches_comes_next() -> None:
    """A question is often answered in the turn after it, which shares no word with it."""
    traits = np.array([0, 0, ENDS_ASKING, 0, 0, 0, 0, 0, 0, 0], np.uint8)
    asked = msgspec.structs.replace(
        query([0, 0, 5, 0, 0, 0, 0, 0, 0, 0]),
        describe=lambda memories: Described(traits[memories], np.zeros(len(memories), np.uint64)),
    )
    assert order(rank(asked, arrays(sessions=[0, 0, 0, 0, 0, 1, 1, 1, 1, 1])))[:2] == [2, 3]


def test_memories_of_the_time_asked_for_are_preferred_and_others_stay() -> None:
    """Time is no filter: the best match by words is still there."""
    asked = msgspec.structs.replace(
        query([2, 1, 1, 0]), intervals=(TimeInterval(start_ms=2, end_ms=3, weight=1.0, first=0, last=4),)
    )
    ranked = rank(asked, apart(4))
    assert order(ranked)[0] == 2
    assert sorted(order(ranked)) == [0, 1, 2, 3]


def test_neighbours_do_not_reach_across_sessions() -> None:
    vault = arrays(sessions=[0, 0, 1, 1])
    ranked = rank(query([0, 5, 0, 0]), vault)
    assert order(ranked)[:2] == [1, 0]


def test_a_long_memory_gets_little_from_its_neighbours() -> None:
    vault = arrays(sessions=[0, 0, 0, 1], characters=[100, 100, 9000, 100])
    assert order(rank(query([0, 5, 0, 0]), vault))[:2] == [1, 0]


def test_a_strong_session_lifts_its_members() -> None:
    vault = arrays(sessions=[0] * 6 + [1] * 6)
    ranked = rank(query([9, 0, 0, 0, 0, 1.0, 1.1, 0, 0, 0, 0, 0]), vault)
    assert order(ranked).index(5) < order(ranked).index(6)


def test_the_preferred_session_comes_first_among_equals() -> None:
    vault = arrays(sessions=[0, 1, 2])
    assert order(rank(query([1, 1, 0], preferred_session=0), vault))[0] == 0
    assert order(rank(query([1, 1, 0], preferred_session=1), vault))[0] == 1


def test_a_chunk_without_vector_is_found_by_its_words() -> None:
    assert order(rank(query([0, 0, 0, 4], [0.2, 0.3, 0.1, NAN]), apart(4)))[0] == 3


def test_without_a_query_vector_words_decide() -> None:
    assert order(rank(query([1, 3, 2]), apart(3))) == [1, 2, 0]


def test_among_equals_the_later_comes_first() -> None:
    assert order(rank(query([0, 0, 0]), apart(3))) == [2, 1, 0]


def test_age_does_not_count() -> None:
    vault = arrays(sessions=[0, 1, 2], times=[0, 10**13, 2 * 10**13])
    assert order(rank(query([3, 2, 1]), vault)) == [0, 1, 2]


def test_of_near_duplicates_the_newest_is_returned_at_the_best_score() -> None:
    vault = arrays(sessions=[0, 1, 2, 3], texts=[7, 1, 7, 3], times=[50, 0, 90, 0])
    ranked = rank(query([9, 5, 0, 1]), vault)
    assert order(ranked) == [2, 1, 3]


def test_a_duplicate_that_is_not_eligible_does_not_replace() -> None:
    vault = arrays(sessions=[0, 1], texts=[0, 0])
    assert order(rank(query([1, 1], eligible=[True, False]), vault)) == [0]


def test_many_duplicates_do_not_use_up_the_limit() -> None:
    vault = arrays(sessions=range(200), texts=[0] * 197 + [1, 2, 3])
    assert sorted(order(rank(query([5] * 197 + [1, 1, 1], limit=4), vault))) == [196, 197, 198, 199]


@pytest.mark.parametrize("limit", [0, 1, 3, 100])
def test_no_more_than_the_limit_is_returned(limit: int) -> None:
    assert len(rank(query([1, 2, 3, 4, 5], limit=limit), apart(5))) == min(limit, 5)


def test_an_empty_vault_gives_nothing_and_is_not_relevant() -> None:
    ranked = rank(query([]), apart(0))
    assert len(ranked) == 0
    assert not is_relevant(ranked).any()


def test_relevance_is_absolute() -> None:
    """The best of a vault that knows nothing of the question is still the best of it, but not relevant."""
    others = [0.0] * (MANY - 1)
    unrelated = rank(query([1, *others], [0.15, *others], coverage=[0.1, *others]), apart(MANY))
    related = rank(query([1, *others], [0.6, *others], coverage=[0.9, *others]), apart(MANY))
    assert unrelated.answerable < RELEVANCE_LEAST < related.answerable
    assert not is_relevant(unrelated).any()
    assert order(related)[0] == 0
    assert is_relevant(related).tolist() == [True] + [False] * (MANY - 1)


def test_words_alone_can_be_relevant() -> None:
    others = [0.0] * (MANY - 1)
    for dense in ([NAN, *[0.1] * (MANY - 1)], None):
        ranked = rank(query([4, *others], dense, coverage=[1.0, *others]), apart(MANY))
        assert order(ranked)[0] == 0
        assert is_relevant(ranked)[0]


def test_the_neighbour_of_a_relevant_memory_may_go_along() -> None:
    vault = arrays(sessions=[0, 0, *range(1, MANY - 1)])
    others = [0.0] * (MANY - 1)
    ranked = rank(query([4, *others], [0.7, *others], coverage=[1.0, *others]), vault)
    kept = [memory for memory, relevant in zip(order(ranked), is_relevant(ranked).tolist(), strict=True) if relevant]
    assert kept == [0, 1]


def test_a_cut_off_of_zero_lets_everything_pass() -> None:
    assert is_relevant(rank(query([0, 0], [0, 0]), apart(2)), least=0).all()


def test_the_background_of_an_approximate_index_tells_what_stands_out() -> None:
    """Only two candidates have a score, both far above what is usual: more than the best match by words."""
    dense = [NAN, 0.80, 0.79, NAN, NAN]
    ranked = rank(query([0.5, 0, 0, 0, 0], dense, background=(0.1, 0.05)), apart(5))
    assert order(ranked)[:2] == [1, 2]
    assert ranked.answerable > RELEVANCE_LEAST


NUMBERS = st.floats(0, 30, width=32)


@given(
    st.lists(
        st.tuples(NUMBERS, st.floats(-1, 1, width=32) | st.just(NAN), st.integers(0, 3), st.booleans()), max_size=40
    ),
    st.integers(1, 50),
)
def test_a_ranking_is_complete_and_orderly(rows: list[tuple[float, float, int, bool]], limit: int) -> None:
    vault = arrays(sessions=[session for _, _, session, _ in rows])
    ranked = rank(
        query(
            [lexical for lexical, _, _, _ in rows],
            [dense for _, dense, _, _ in rows],
            coverage=[lexical / 30 for lexical, _, _, _ in rows],
            eligible=[eligible for _, _, _, eligible in rows],
            limit=limit,
        ),
        vault,
    )
    eligible = [number for number, row in enumerate(rows) if row[3]]
    assert len(ranked) == min(limit, len(eligible))
    assert len(set(order(ranked))) == len(ranked)
    assert set(order(ranked)) <= set(eligible)
    assert ranked.chunks.tolist() == order(ranked)
    assert ((ranked.scores >= 0) & (ranked.scores <= 1)).all()
    assert (ranked.scores <= ranked.answerable).all()
    assert (np.diff(ranked.scores) <= 0).all()


def test_what_was_just_said_wins_by_its_words_over_what_stands_beside_it() -> None:
    """It has no vector yet; its neighbour has one, and even a near one."""
    words = [0.0] * MANY
    words[30] = 6.0
    meaning = [0.1, 0.2] * (MANY // 2)
    meaning[29], meaning[30] = 0.4, NAN

    assert order(rank(query(words, meaning, coverage=[w / 6 for w in words]), arrays(sessions=[0] * MANY)))[0] == 30
