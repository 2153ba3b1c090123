"""Exact scoring of vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from actors.index import ExactIndex, VectorIndex

DIMS = 8


def unit_vectors(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Random rows of length 1."""
    rows = np.random.default_rng(seed).normal(size=(count, DIMS)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def filled(count: int) -> ExactIndex:
    """An index in which every chunk has a vector."""
    index = ExactIndex(DIMS)
    index.grow(count)
    index.put(np.arange(count), unit_vectors(count))
    return index


def test_it_is_a_vector_index() -> None:
    index: VectorIndex = filled(3)
    assert index.match(unit_vectors(1)[0], candidates=1).background is None


@pytest.mark.parametrize("count", [1, 16, 17, 2047, 2048, 2049, 5000])
def test_scores_are_the_cosines(count: int) -> None:
    query = unit_vectors(1, seed=9)[0]
    np.testing.assert_allclose(filled(count).scores(query), unit_vectors(count) @ query, atol=1e-6)


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=6))
def test_growing_keeps_what_is_there(sizes: list[int]) -> None:
    index, expected = ExactIndex(DIMS), np.full(max(sizes), np.nan, np.float32)
    query = unit_vectors(1, seed=9)[0]
    for number, size in enumerate(sizes):
        index.grow(size)
        last = len(index) - 1
        vector = unit_vectors(1, seed=number)
        index.put(np.array([last]), vector)
        expected[last] = vector[0] @ query
    assert len(index) == max(sizes)
    np.testing.assert_allclose(index.scores(query), expected, atol=1e-6)


def test_a_chunk_without_vector_has_no_score() -> None:
    index = ExactIndex(DIMS)
    index.grow(3)
    index.put(np.array([1]), unit_vectors(1))
    assert np.isnan(index.scores(unit_vectors(1)[0])).tolist() == [True, False, True]


def test_vectors_may_come_in_any_order_and_across_blocks() -> None:
    index, rows = ExactIndex(DIMS), unit_vectors(3)
    index.grow(5000)
    index.put(np.array([4999, 0, 2048]), rows)
    assert index.scores(rows[0])[[4999, 0, 2048]] == pytest.approx(rows @ rows[0], abs=1e-6)


def test_a_removed_chunk_has_no_score() -> None:
    index = filled(3000)
    index.remove(2999)
    index.remove(2999)
    assert np.flatnonzero(np.isnan(index.scores(unit_vectors(1)[0]))).tolist() == [2999]


def test_a_vector_can_be_replaced() -> None:
    index, rows = filled(2), unit_vectors(2, seed=5)
    index.put(np.array([0]), rows[:1])
    assert index.scores(rows[0])[0] == pytest.approx(1, abs=1e-6)


def test_a_chunk_beyond_the_end_is_refused() -> None:
    index = filled(2)
    with pytest.raises(IndexError):
        index.put(np.array([2]), unit_vectors(1))
    with pytest.raises(IndexError):
        index.put(np.array([-1]), unit_vectors(1))
    with pytest.raises(IndexError):
        index.remove(2)


def test_vectors_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        filled(2).put(np.array([0]), np.zeros((1, DIMS + 1), np.float32))


def test_a_small_vault_takes_little_memory() -> None:
    assert ExactIndex(DIMS).nbytes == 0
    assert filled(1).nbytes == 16 * DIMS * 4
    assert filled(5000).nbytes == 3 * 2048 * DIMS * 4


def test_an_empty_index_answers() -> None:
    assert len(ExactIndex(DIMS).scores(unit_vectors(1)[0])) == 0
