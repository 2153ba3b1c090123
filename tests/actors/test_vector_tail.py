"""The scanned part of an index: small blocks hold float16, and nobody can tell by the scores."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from actors.vector_tail import Tail

DIMS = 384


def halves(count: int) -> NDArray[np.float32]:
    """Vectors as the model gives them, of float16's precision, among them values too small to be normal."""
    rows = np.random.default_rng(count).normal(size=(count, DIMS))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[:, :3] = [1e-5, -3e-7, 0.0]
    return rows.astype(np.float16).astype(np.float32)


@pytest.mark.parametrize("count", [1, 100, 512, 513, 2_049])
def test_scores_are_those_of_full_precision(count: int) -> None:
    vectors, query = halves(count), halves(3)[0]
    tail = Tail(DIMS)
    tail.count = count
    tail.put(np.arange(count), vectors)
    np.testing.assert_allclose(tail.scores(query), vectors @ query, rtol=0, atol=1e-6)
    batches = list(tail.share(np.arange(count)))
    np.testing.assert_array_equal(np.concatenate(batches), vectors)
    assert {batch.dtype for batch in batches} == {np.dtype(np.float32)}


def test_a_chunk_without_vector_has_no_score() -> None:
    tail = Tail(DIMS)
    tail.count = 6
    vectors = halves(4)
    vectors[1, 7] = np.inf
    tail.put(np.arange(1, 5), vectors)
    tail.discard(3)
    assert np.flatnonzero(~np.isnan(tail.scores(vectors[0]))).tolist() == [1, 4]


def test_a_hundred_vectors_take_eighty_kilobytes() -> None:
    """Loaded at once there is no slack; one by one there is a quarter."""
    loaded, grown = Tail(DIMS), Tail(DIMS)
    loaded.count = grown.count = 100
    vectors = halves(100)
    loaded.put(np.arange(100), vectors)
    for chunk in range(100):
        grown.put(np.array([chunk]), vectors[chunk : chunk + 1])
    assert loaded.nbytes < 81_000
    assert grown.nbytes < 1.25 * loaded.nbytes
    np.testing.assert_array_equal(loaded.scores(vectors[0]), grown.scores(vectors[0]))
