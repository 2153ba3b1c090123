"""The choice of what the dense leg scores: ranking must not see the difference from scoring everything."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from actors.dense_leg import SCORED_MAX, dense_match, surroundings
from actors.index import DenseMatch
from actors.lexicon import LexicalMatch
from actors.ranking import RankQuery, VaultArrays, rank
from actors.segmented_index import SegmentedIndex
from actors.segments import Labels

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


def ranked(dense: DenseMatch, lexical: Floats, eligible: NDArray[np.bool_]) -> list[int]:
    match = LexicalMatch(scores=lexical, coverage=np.minimum(lexical, np.float32(1)))
    found = rank(RankQuery(lexical=match, dense=dense, eligible=eligible, limit=10), arrays())
    return [int(memory) for memory in found.memories]


def overlap(index: SegmentedIndex, eligible: NDArray[np.bool_], seed: int) -> float:
    """How much of the first ten is that of an exact search."""
    query, lexical = unit_vectors(1, seed=1_000 + seed)[0], words(seed)
    dense = dense_match(index, query, lexical=lexical, eligible=eligible, arrays=arrays())
    exact = DenseMatch(scores=unit_vectors(CHUNKS) @ query)
    return len(set(ranked(dense, lexical, eligible)) & set(ranked(exact, lexical, eligible))) / 10


def test_the_ranking_of_the_whole_vault_is_that_of_an_exact_search(index: SegmentedIndex) -> None:
    eligible = np.ones(MEMORIES, np.bool_)
    assert CHUNKS > SCORED_MAX
    assert np.mean([overlap(index, eligible, seed) for seed in range(20)]) >= 0.98


def test_a_scope_among_which_none_of_the_best_are_is_ranked_like_by_an_exact_search(index: SegmentedIndex) -> None:
    eligible = np.zeros(MEMORIES, np.bool_)
    eligible[100:150] = True
    assert np.mean([overlap(index, eligible, seed) for seed in range(20)]) >= 0.98


def test_without_segments_everything_is_scored() -> None:
    index = SegmentedIndex(DIMS, model_id="m")
    index.grow(CHUNKS)
    index.put(np.arange(500), unit_vectors(500))
    query = unit_vectors(1, seed=1)[0]
    everyone = np.ones(MEMORIES, np.bool_)
    match = dense_match(index, query, lexical=words(0), eligible=everyone, arrays=arrays())
    assert match.background is None
    assert np.isfinite(match.scores[:500]).all()


def test_a_vault_without_anything_to_read_answers(index: SegmentedIndex) -> None:
    query = unit_vectors(1)[0]
    nobody = np.zeros(MEMORIES, np.bool_)
    match = dense_match(index, query, lexical=words(0), eligible=nobody, arrays=arrays())
    assert match.background is None


def test_surroundings_are_all_chunks_of_two_memories_on_each_side_within_the_session() -> None:
    assert surroundings(np.array([21]), arrays()).tolist() == list(range(16, 26))
    assert surroundings(np.array([0, 99]), arrays()).tolist() == [*range(6), *range(94, 100)]
    assert surroundings(np.zeros(0, np.int64), arrays()).tolist() == []
