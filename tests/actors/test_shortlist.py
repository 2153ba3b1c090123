"""Ranking a large vault by a shortlist: the answers must be those of a ranking of everything."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from actors import shortlist
from actors.index import DenseMatch
from actors.lexicon import LexicalMatch
from actors.ranking import Ranked, rank
from actors.ranking_inputs import RankQuery, VaultArrays
from actors.segmented_index import SegmentedIndex
from actors.segments import Labels
from actors.shortlist import SCORED_MAX, chunks_of_memories, rank_vault, with_neighbours

DIMS = 16
MEMORIES = 11_000
CHUNKS = 2 * MEMORIES
SESSION = 50  # memories
Floats = NDArray[np.float32]


def unit_vectors(count: int, seed: int = 0) -> Floats:
    """Random rows of length 1."""
    rows = np.random.default_rng(seed).normal(size=(count, DIMS))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def arrays() -> VaultArrays:
    """Memories of two chunks, in sessions of equal length."""
    numbers = np.arange(MEMORIES, dtype=np.int32)
    return VaultArrays(
        chunk_memory=np.repeat(numbers, 2),
        previous=np.where(numbers % SESSION == 0, -1, numbers - 1).astype(np.int32),
        next=np.where(numbers % SESSION == SESSION - 1, -1, numbers + 1).astype(np.int32),
        session=numbers // SESSION,
        characters=np.full(MEMORIES, 100, np.int32),
        text_number=numbers,
        timestamp_ms=numbers.astype(np.int64),
    )


def plain_labels(chunks: NDArray[np.integer]) -> Labels:
    return chunks.astype(np.uint64)


@pytest.fixture(scope="module")
def index() -> SegmentedIndex:
    """A vault of which most is sealed."""
    index = SegmentedIndex(DIMS, model_id="m", threshold=1_000, segment_rows_max=12_000)
    index.grow(CHUNKS)
    index.put(np.arange(CHUNKS), unit_vectors(CHUNKS))
    while (job := index.plan(plain_labels)) is not None:
        segment = job.run()
        assert segment is not None
        index.install(segment)
    return index


def words(seed: int) -> Floats:
    """A few hundred chunks hold some of the words."""
    pick = np.random.default_rng(seed)
    scores = np.zeros(CHUNKS, np.float32)
    scores[pick.choice(CHUNKS, 280, replace=False)] = pick.gamma(2, 3, 280)
    return scores


def asked(lexical: Floats, eligible: NDArray[np.bool_], *, limit: int = 10, preferred: int | None = None) -> RankQuery:
    return RankQuery(
        lexical=LexicalMatch(scores=lexical, coverage=np.minimum(lexical, np.float32(1))),
        dense=None,
        eligible=eligible,
        limit=limit,
        preferred_session=preferred,
    )


def exactly(query: RankQuery, vector: Floats, columns: VaultArrays | None = None) -> Ranked:
    """The ranking of all memories by all their scores."""
    dense = DenseMatch(scores=unit_vectors(CHUNKS) @ vector) if len(vector) else None
    return rank(msgspec.structs.replace(query, dense=dense), columns or arrays())


def overlap(index: SegmentedIndex, query: RankQuery, vector: Floats) -> float:
    """How much of what is wanted is that of an exact search."""
    ours, theirs = rank_vault(query, arrays(), index, vector), exactly(query, vector)
    return len(set(ours.memories.tolist()) & set(theirs.memories.tolist())) / len(theirs)


EVERYONE = np.ones(MEMORIES, np.bool_)
BY_WORDS = np.zeros(0, np.float32)


def vector_of(seed: int) -> Floats:
    return unit_vectors(1, seed=1_000 + seed).reshape(DIMS)


@pytest.mark.parametrize("preferred", [None, 7])
def test_the_ranking_of_the_whole_vault_is_that_of_an_exact_search(
    index: SegmentedIndex, preferred: int | None
) -> None:
    assert CHUNKS > SCORED_MAX
    queries = [asked(words(seed), EVERYONE, preferred=preferred) for seed in range(20)]
    assert np.mean([overlap(index, query, vector_of(seed)) for seed, query in enumerate(queries)]) >= 0.98


def test_scores_and_relevance_are_those_of_an_exact_search(index: SegmentedIndex) -> None:
    query, vector = asked(words(3), EVERYONE), vector_of(3)
    ours, theirs = rank_vault(query, arrays(), index, vector), exactly(query, vector)
    assert ours.memories[0] == theirs.memories[0]
    assert ours.chunks[0] == theirs.chunks[0]
    np.testing.assert_allclose(ours.answerable, theirs.answerable, atol=0.01)
    np.testing.assert_allclose(ours.scores[0], theirs.scores[0], atol=0.01)


def test_a_ranking_by_words_alone_is_that_of_the_whole_vault(index: SegmentedIndex) -> None:
    for seed in range(20):
        query = asked(words(seed), EVERYONE)
        ours, theirs = rank_vault(query, arrays(), index, BY_WORDS), exactly(query, BY_WORDS)
        assert ours.memories.tolist() == theirs.memories.tolist()
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=2e-3)  # the last candidates are not the same


def test_where_nothing_is_found_the_newest_memories_fill_the_answer(index: SegmentedIndex) -> None:
    ours = rank_vault(asked(np.zeros(CHUNKS, np.float32), EVERYONE, limit=50), arrays(), index, BY_WORDS)
    assert ours.memories.tolist() == list(range(MEMORIES - 1, MEMORIES - 51, -1))


@pytest.mark.parametrize("vector", [vector_of(1), BY_WORDS], ids=["both legs", "words"])
def test_a_small_scope_is_ranked_exactly_as_by_an_exact_search(index: SegmentedIndex, vector: Floats) -> None:
    eligible = np.zeros(MEMORIES, np.bool_)
    eligible[[*range(100, 117), *range(120, 150)]] = True
    query = asked(words(1), eligible, limit=60)
    ours, theirs = rank_vault(query, arrays(), index, vector), exactly(query, vector)
    if len(vector):
        assert set(ours.memories.tolist()) == set(theirs.memories.tolist()) == set(np.flatnonzero(eligible).tolist())
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=0.01)  # codes are off by 0.002 at most
    else:
        assert ours.memories.tolist() == theirs.memories.tolist()


def test_more_than_a_context_takes_may_be_wanted(index: SegmentedIndex) -> None:
    query = asked(words(2), EVERYONE, limit=1_000)
    assert len(rank_vault(query, arrays(), index, vector_of(2))) == 1_000
    assert overlap(index, query, vector_of(2)) >= 0.9


def test_of_a_text_that_was_said_often_the_newest_memory_is_returned(index: SegmentedIndex) -> None:
    numbers = np.arange(MEMORIES, dtype=np.int32)
    texts = np.unique(np.where(numbers % 1_000 == 5, 5, numbers), return_inverse=True)[1]
    columns = msgspec.structs.replace(arrays(), text_number=texts.astype(np.int32))
    lexical = np.zeros(CHUNKS, np.float32)
    lexical[2 * 3_005] = 50
    eligible = EVERYONE.copy()
    eligible[10_005] = False
    ours = rank_vault(asked(lexical, eligible, limit=3), columns, index, BY_WORDS)
    assert ours.memories[0] == 9_005


def test_where_repeats_use_up_the_shortlist_all_memories_are_ranked(index: SegmentedIndex) -> None:
    """All but the first hundred memories say the same."""
    numbers = np.arange(MEMORIES, dtype=np.int32)
    columns = msgspec.structs.replace(arrays(), text_number=np.minimum(numbers, 100))
    ours = rank_vault(asked(np.zeros(CHUNKS, np.float32), EVERYONE, limit=60), columns, index, BY_WORDS)
    assert len(ours) == 60


def test_without_segments_everything_is_ranked() -> None:
    index = SegmentedIndex(DIMS, model_id="m")
    index.grow(CHUNKS)
    index.put(np.arange(CHUNKS), unit_vectors(CHUNKS))
    query, vector = asked(words(0), EVERYONE), vector_of(0)
    ours, theirs = rank_vault(query, arrays(), index, vector), exactly(query, vector)
    assert ours.memories.tolist() == theirs.memories.tolist()


def test_only_a_shortlist_is_ranked(index: SegmentedIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = []

    def counting(query: RankQuery, columns: VaultArrays) -> Ranked:
        looked_at.append(len(query.eligible))
        return rank(query, columns)

    monkeypatch.setattr(shortlist, "rank", counting)
    rank_vault(asked(words(4), EVERYONE), arrays(), index, vector_of(4))
    (memories,) = looked_at
    assert memories < MEMORIES / 2


@pytest.mark.parametrize("vector", [vector_of(1), BY_WORDS], ids=["both legs", "words"])
def test_a_vault_without_anything_to_read_answers(index: SegmentedIndex, vector: Floats) -> None:
    nobody = np.zeros(MEMORIES, np.bool_)
    assert len(rank_vault(asked(words(0), nobody), arrays(), index, vector)) == 0


def test_neighbours_are_two_memories_on_each_side_within_the_session() -> None:
    assert with_neighbours(np.array([10]), arrays()).tolist() == [8, 9, 10, 11, 12]
    assert with_neighbours(np.array([0, 49]), arrays()).tolist() == [0, 1, 2, 47, 48, 49]
    assert with_neighbours(np.zeros(0, np.int64), arrays()).tolist() == []


def test_the_chunks_of_memories_rise() -> None:
    chunks, counts = chunks_of_memories(np.array([1, 4]), arrays())
    assert chunks.tolist() == [2, 3, 8, 9]
    assert counts.tolist() == [2, 2]
