"""One sealed segment: built, queried, thinned out, copied."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from actors.segments import NOWHERE, BuildJob, Segment, load_segment

DIMS = 16
Floats = NDArray[np.float32]


def unit_vectors(count: int, seed: int = 0) -> Floats:
    """Random rows of length 1, as the store keeps them."""
    rows = np.random.default_rng(seed).normal(size=(count, DIMS))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(unit.astype(np.float16), np.float32)


def job(vectors: Floats, chunks: NDArray[np.integer] | None = None) -> BuildJob:
    """The building of a segment of these vectors, which belong to chunks 0, 1, 2 ... unless said otherwise."""
    return BuildJob(
        [[vectors[start : start + 100] for start in range(0, len(vectors), 100)]],
        model_id="m",
        dims=DIMS,
        labels=np.arange(len(vectors), dtype=np.uint64) << np.uint64(20),
        chunks=np.arange(len(vectors), dtype=np.int32) if chunks is None else chunks.astype(np.int32),
        merged=[],
    )


def built(vectors: Floats, chunks: NDArray[np.integer] | None = None) -> Segment:
    segment = job(vectors, chunks).run()
    assert segment is not None
    return segment


def test_the_nearest_come_back_with_their_cosines() -> None:
    vectors, query = unit_vectors(500), unit_vectors(1, seed=9)[0]
    chunks, scores = built(vectors).query(query, candidates=10)
    exact = vectors @ query
    assert set(chunks.tolist()) == set(np.argsort(-exact)[:10].tolist())
    np.testing.assert_allclose(scores, exact[chunks], atol=1e-6)


def test_rows_are_found_by_their_chunks() -> None:
    segment = built(unit_vectors(5), np.array([40, 10, 20, 50, 30]))
    assert segment.rows_of(np.array([10, 30, 15, 60, 0, -1])).tolist() == [1, 4, NOWHERE, NOWHERE, NOWHERE, NOWHERE]
    assert len(segment.query(unit_vectors(1)[0], candidates=2)[0]) == 2


def test_a_tombstone_never_comes_back() -> None:
    vectors = unit_vectors(300)
    segment = built(vectors)
    assert segment.bury(np.array([7, 7, NOWHERE])) == 1
    assert segment.bury(np.array([7])) == 0
    chunks, _ = segment.query(vectors[7], candidates=300)
    assert set(chunks.tolist()) == set(range(300)) - {7}
    assert (segment.live, segment.rows_of(np.array([7])).tolist()) == (299, [NOWHERE])


def test_tombstones_around_the_question_do_not_hide_what_lives_behind_them() -> None:
    """An over-fetch by their share would find only dead rows here."""
    vectors, query = unit_vectors(2_000), unit_vectors(1, seed=9)[0]
    segment = built(vectors)
    order = np.argsort(-(vectors @ query))
    segment.bury(order[:500])
    chunks, _ = segment.query(query, candidates=10)
    assert len(set(chunks.tolist()) & set(order[500:510].tolist())) >= 9


def test_more_than_there_are_is_all_there_are() -> None:
    segment = built(unit_vectors(3))
    assert len(segment.query(unit_vectors(1)[0], candidates=1_000)[0]) == 3
    segment.bury(np.arange(3))
    assert len(segment.query(unit_vectors(1)[0], candidates=1_000)[0]) == 0


def test_equal_vectors_share_a_node_and_all_come_back() -> None:
    vectors = unit_vectors(3_000)
    for group in range(3):
        vectors[group * 700 : group * 700 + 400] = vectors[group * 700]
    segment = built(vectors)
    found = total = 0
    for query in unit_vectors(40, seed=9):
        exact = vectors @ query
        chunks, scores = segment.query(query, candidates=10)
        np.testing.assert_allclose(scores, exact[chunks], atol=1e-6)
        found += int((np.sort(scores)[::-1][:10] >= np.sort(exact)[-10:][0] - 1e-6).sum())
        total += 10
    assert found >= 0.99 * total
    assert len(np.unique(segment.nodes)) == 3_000 - 3 * 400 + 3


def test_of_equal_vectors_each_can_be_deleted() -> None:
    vectors = np.repeat(unit_vectors(4), 5, axis=0)
    segment = built(vectors)
    segment.bury(np.arange(19))
    chunks, _ = segment.query(vectors[0], candidates=10)
    assert chunks.tolist() == [19]


def test_a_graph_that_fails_is_scanned() -> None:
    """hnswlib raises when it reaches fewer nodes than asked for: here because all but one are hidden from it."""
    vectors, query = unit_vectors(50), unit_vectors(1, seed=9)[0]
    segment = built(vectors)
    for node in range(1, 50):
        segment._graph.mark_deleted(node)
    for _ in range(2):
        chunks, scores = segment.query(query, candidates=5)
        assert set(chunks.tolist()) == set(range(50))
        np.testing.assert_allclose(scores, (vectors @ query)[chunks], atol=0.01)
    segment.bury(np.array([3]))
    assert 3 not in segment.query(query, candidates=5)[0]


def load(descriptor: int, like: Segment) -> Segment:
    return load_segment(descriptor, model_id="m", dims=DIMS, labels=like.labels, nodes=like.nodes, links=16)


def test_the_sample_tells_the_mean_and_the_spread() -> None:
    vectors, query = unit_vectors(3_000), unit_vectors(1, seed=9)[0]
    segment = built(vectors)
    exact = vectors @ query
    moments = segment.moments(query)
    assert moments.count == 3_000
    assert moments.mean == pytest.approx(exact.mean(), abs=0.03)
    assert moments.square == pytest.approx(np.square(exact).mean(), abs=0.01)


def test_single_rows_are_scored_nearly_exactly() -> None:
    vectors, query = unit_vectors(700), unit_vectors(1, seed=9)[0]
    rows = np.random.default_rng(1).permutation(700)[:600]
    np.testing.assert_allclose(built(vectors).scores(query, rows), (vectors @ query)[rows], atol=0.01)


def test_vectors_can_be_copied_out_in_any_order() -> None:
    vectors = np.concatenate([unit_vectors(600), unit_vectors(10)])
    rows = np.array([599, 0, 605, 300])
    np.testing.assert_array_equal(np.concatenate(list(built(vectors).batches(rows))), vectors[rows])


def test_a_loaded_segment_answers_like_the_one_that_was_saved() -> None:
    vectors, query = unit_vectors(500), unit_vectors(1, seed=9)[0]
    segment = built(vectors)
    segment.bury(np.arange(0, 500, 5))
    with segment.open_payload() as descriptor:
        loaded = load(descriptor, segment)
    assert loaded.live == 0
    loaded.place(segment.chunks)
    before, after = segment.query(query, candidates=20), loaded.query(query, candidates=20)
    assert sorted(before[0].tolist()) == sorted(after[0].tolist())
    np.testing.assert_array_equal(loaded.scores(query, np.arange(500)), segment.scores(query, np.arange(500)))
    assert (loaded.live, loaded.moments(query)) == (segment.live, segment.moments(query))


@pytest.mark.parametrize(("labels", "dims", "links"), [(499, DIMS, 16), (500, DIMS + 1, 16), (500, DIMS, 8)])
def test_a_graph_of_another_shape_is_refused(labels: int, dims: int, links: int) -> None:
    segment = built(unit_vectors(500))
    with segment.open_payload() as descriptor, pytest.raises(ValueError, match="not a graph of this shape"):
        load_segment(
            descriptor,
            model_id="m",
            dims=dims,
            labels=segment.labels[:labels],
            nodes=segment.nodes[:labels],
            links=links,
        )


def test_a_build_is_the_same_each_time() -> None:
    payloads = []
    for _ in range(2):
        with built(unit_vectors(300)).open_payload() as descriptor, open(descriptor, "rb", closefd=False) as file:
            payloads.append(file.read())
    assert payloads[0] == payloads[1]


def test_a_cancelled_build_ends_without_a_segment() -> None:
    vectors = unit_vectors(500)
    building = job(vectors)

    def batches() -> Iterator[Floats]:
        yield vectors[:200]
        building.cancel()
        yield vectors[200:]

    building._sources = [batches()]
    assert building.run() is None
    assert building.done == 200


def test_memory_is_counted() -> None:
    segment = built(unit_vectors(1_000))
    with segment.open_payload() as descriptor, open(descriptor, "rb", closefd=False) as file:
        assert segment.nbytes > len(file.read()) + 2_600_000
