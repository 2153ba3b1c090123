"""The index of a vault: an exact tail and sealed segments, checked against the exact index."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from actors.index import ExactIndex, VectorIndex
from actors.segmented_index import SegmentedIndex, chunks_of, labels_of
from actors.segments import NOWHERE, BuildJob, Labels, Segment

DIMS = 8
MODEL = "test-model@1"


def unit_vectors(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Random rows of length 1, as the store keeps them."""
    rows = np.random.default_rng(seed).normal(size=(count, DIMS))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(unit.astype(np.float16), np.float32)


QUERY = unit_vectors(1, seed=99)[0]


def plain_labels(chunks: NDArray[np.integer]) -> Labels:
    """Each chunk is a memory of its own."""
    return chunks.astype(np.uint64) + np.uint64(1) << np.uint64(20)


def filled(count: int, *, threshold: int = 100, segment_rows_max: int = 400) -> SegmentedIndex:
    """An index in which every chunk has a vector and nothing is sealed."""
    index = SegmentedIndex(DIMS, model_id=MODEL, threshold=threshold, segment_rows_max=segment_rows_max)
    index.grow(count)
    index.put(np.arange(count), unit_vectors(count))
    return index


def planned(index: SegmentedIndex) -> BuildJob:
    job = index.plan(plain_labels)
    assert job is not None
    return job


def built(job: BuildJob) -> Segment:
    segment = job.run()
    assert segment is not None
    return segment


def sealed(index: SegmentedIndex, labels: Callable[[NDArray[np.integer]], Labels] = plain_labels) -> SegmentedIndex:
    """The same index, once nothing is left to build."""
    while (job := index.plan(labels)) is not None:
        index.install(built(job))
    return index


def known(index: SegmentedIndex, *, candidates: int = 10_000) -> set[int]:
    """The chunks that have a score."""
    return set(np.flatnonzero(~np.isnan(index.match(QUERY, candidates=candidates).scores)).tolist())


# Below the threshold.


def test_it_is_a_vector_index() -> None:
    index: VectorIndex = filled(3)
    assert index.match(QUERY, candidates=1).background is None


def test_a_small_vault_is_the_exact_index() -> None:
    exact, index = ExactIndex(DIMS), filled(100)
    exact.grow(100)
    exact.put(np.arange(100), unit_vectors(100))
    assert index.plan(plain_labels) is None
    np.testing.assert_array_equal(index.match(QUERY, candidates=1).scores, exact.scores(QUERY))
    assert index.nbytes <= exact.nbytes + 128
    assert SegmentedIndex(DIMS, model_id=MODEL).nbytes == 0


def test_a_threshold_of_zero_seals_the_first_vector() -> None:
    index = sealed(filled(1, threshold=0))
    assert [len(segment) for segment in index.segments] == [1]
    assert known(index) == {0}


def test_with_a_threshold_of_zero_a_vector_is_built_in_a_few_times_at_most() -> None:
    index, work = SegmentedIndex(DIMS, model_id=MODEL, threshold=0, segment_rows_max=5_000), 0
    for count in range(1, 1_001):
        index.grow(count)
        index.put(np.array([count - 1]), unit_vectors(1, seed=count))
        if (job := index.plan(plain_labels)) is not None:
            index.install(built(job))
            work += job.rows
    assert work <= 3_000
    assert len(index.segments) <= 2


@pytest.mark.parametrize("number", [-1, 3])
def test_a_chunk_beyond_the_end_is_refused(number: int) -> None:
    index = filled(3)
    with pytest.raises(IndexError):
        index.put(np.array([number]), unit_vectors(1))
    with pytest.raises(IndexError):
        index.remove(number)


def test_vectors_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        filled(2).put(np.array([0]), np.zeros((1, DIMS + 1), np.float32))
    with pytest.raises(ValueError, match="shape"):
        filled(2).match(np.zeros(DIMS + 1, np.float32), candidates=1)


def test_a_vector_that_is_not_finite_is_none() -> None:
    index = filled(3)
    index.put(np.array([1]), np.full((1, DIMS), np.inf))
    assert known(index) == {0, 2}


# Above it.


def test_every_chunk_is_found_wherever_it_is() -> None:
    index = sealed(filled(5_000))
    scores = index.match(QUERY, candidates=10_000).scores
    np.testing.assert_allclose(scores, unit_vectors(5_000) @ QUERY, atol=1e-6)
    assert index.vectors == 5_000
    assert all(len(segment) <= 400 for segment in index.segments)


def test_few_candidates_are_the_best_and_come_with_the_background() -> None:
    index, exact = sealed(filled(5_000, segment_rows_max=3_000)), unit_vectors(5_000) @ QUERY
    match = index.match(QUERY, candidates=300)
    best = np.argsort(-exact)[:100]
    assert np.isnan(match.scores).any()
    np.testing.assert_allclose(match.scores[best], exact[best], atol=1e-6)
    assert match.background == pytest.approx((exact.mean(), exact.std()), abs=0.03)


def test_what_a_match_did_not_reach_can_be_filled_in() -> None:
    index, exact = sealed(filled(5_000)), unit_vectors(5_000) @ QUERY
    index.remove(7)
    match, chunks = index.match(QUERY, candidates=3), np.arange(0, 5_000, 7)
    before = match.scores.copy()
    index.fill(match, QUERY, chunks)
    assert np.isnan(match.scores[7])
    chunks = chunks[chunks != 7]
    np.testing.assert_allclose(match.scores[chunks], exact[chunks], atol=0.01)
    others = np.setdiff1d(np.arange(5_000), chunks)
    np.testing.assert_array_equal(match.scores[others], before[others])


def test_a_match_within_some_chunks_is_complete_for_these() -> None:
    index, exact = sealed(filled(5_000)), unit_vectors(5_000) @ QUERY
    chunks = np.arange(10, 5_000, 10)
    match = index.match_within(QUERY, chunks)
    assert match.background is None
    np.testing.assert_allclose(match.scores[chunks], exact[chunks], atol=0.01)
    assert np.isnan(match.scores).sum() > 4_000


def test_a_sealed_tail_gives_its_memory_back() -> None:
    index = filled(5_000)
    before = index.nbytes
    sealed(index)
    assert index.statistics()["tail"] <= 100
    assert index.nbytes - sum(segment.nbytes for segment in index.segments) < before / 2


def test_planning_copies_no_vector_and_the_job_sees_the_moment_of_the_plan() -> None:
    index = filled(300)
    job = planned(index)
    index.put(np.array([5]), unit_vectors(1, seed=3))
    index.remove(6)
    segment = built(job)
    vectors = np.concatenate(list(segment.batches(np.arange(len(segment)))))
    np.testing.assert_array_equal(vectors, unit_vectors(300)[segment.chunks])


def test_what_changes_during_a_build_stays_changed() -> None:
    index = filled(300)
    job = planned(index)
    index.put(np.array([5]), unit_vectors(1, seed=3))
    index.remove(6)
    segment = built(job)
    assert known(index) == set(range(300)) - {6}
    index.install(segment)
    scores = index.match(QUERY, candidates=10_000).scores
    assert scores[5] == pytest.approx(float(unit_vectors(1, seed=3)[0] @ QUERY), abs=1e-6)
    assert known(index) == set(range(300)) - {6}
    assert segment.live == 298


def test_there_is_one_job_at_a_time() -> None:
    index = filled(5_000)
    planned(index)
    assert index.plan(plain_labels) is None


def test_only_what_came_of_its_own_plan_is_expected() -> None:
    """A vault may begin anew while a build of its earlier incarnation is under way."""
    index, again = filled(150), filled(150)
    segment = built(planned(index))
    assert index.expects(segment)
    assert not again.expects(segment)
    planned(again)
    assert not again.expects(segment)
    index.install(segment)
    assert not index.expects(segment)


def test_an_abandoned_job_is_planned_again_once_more_vectors_have_come() -> None:
    index = filled(300)
    job = planned(index)
    index.abandon()
    assert job.run() is None
    assert index.plan(plain_labels) is None
    index.grow(1_400)
    index.put(np.arange(300, 1_400), unit_vectors(1_100, seed=1))
    assert known(sealed(index)) == set(range(1_400))


def test_a_segment_with_many_tombstones_is_rebuilt() -> None:
    index = sealed(filled(300))
    for chunk in range(0, 300, 3):
        index.remove(chunk)
    assert index.segments[0].dead_share > 0.25
    sealed(index)
    assert [segment.dead_share for segment in index.segments] == [0]
    assert known(index) == {chunk for chunk in range(300) if chunk % 3}


def test_a_segment_without_life_is_dropped() -> None:
    index = sealed(filled(300))
    for chunk in range(300):
        index.remove(chunk)
    assert index.segments == ()
    assert index.match(QUERY, candidates=10).background is None


def test_small_segments_are_merged() -> None:
    index, work = SegmentedIndex(DIMS, model_id=MODEL, threshold=100, segment_rows_max=1_000), 0
    for count in range(100, 8_001, 100):
        index.grow(count)
        index.put(np.arange(count - 100, count), unit_vectors(100, seed=count))
        while (job := index.plan(plain_labels)) is not None:
            index.install(built(job))
            work += job.rows
    assert len(index.segments) <= 11
    assert work <= 5 * 8_000
    assert known(index) == set(range(8_000))


def test_a_segment_is_not_clean_when_a_row_gets_another_vector_or_loses_its_memory() -> None:
    """Its graph still has the vector, so it must not be on the disk."""
    replaced, removed = sealed(filled(300)), sealed(filled(300))
    assert replaced.segments[0].clean
    replaced.put(np.array([5]), unit_vectors(1, seed=5))
    assert not replaced.segments[0].clean
    assert removed.segments[0].clean
    removed.remove(5)
    assert not removed.segments[0].clean


def test_mending_builds_what_is_not_clean_once_and_only_after_deletions_have_ended() -> None:
    index = sealed(filled(300))
    index.remove(5)
    assert index.plan(plain_labels) is None
    index.mend()
    index.remove(6)
    assert index.plan(plain_labels) is None, "more may come"
    index.mend()
    job = index.plan(plain_labels)
    assert job is not None
    assert job.rows == 298
    index.remove(7)
    index.install(built(job))
    assert not index.segments[0].clean, "it was built with what was deleted meanwhile"
    assert index.plan(plain_labels) is None
    index.mend()
    while (job := index.plan(plain_labels)) is not None:
        index.install(built(job))
    assert all(segment.clean for segment in index.segments)
    assert known(index) == set(range(300)) - {5, 6, 7}


def test_the_segments_that_hold_a_chunk_are_told() -> None:
    index = sealed(filled(300))
    (segment,) = index.segments
    assert index.holding(np.array([5, 299])) == [segment]
    index.remove(5)
    assert index.holding(np.array([5])) == []


# Labels.


def test_labels_find_their_chunks_again() -> None:
    """Memories 3, 4 and 9 have 2, 1 and 3 chunks; after the next hydration 4 is gone and the numbers are others."""
    labels = labels_of(np.arange(6), chunk_memory=np.array([0, 0, 1, 2, 2, 2], np.int32), seqs=np.array([3, 4, 9]))
    assert (labels & np.uint64(0xFFFFF)).tolist() == [0, 1, 0, 0, 1, 2]
    found = chunks_of(
        labels, chunk_memory=np.array([0, 0, 1, 1, 1], np.int32), seqs=np.array([3, 9]), alive=np.array([True, True])
    )
    assert found.tolist() == [0, 1, NOWHERE, 2, 3, 4]


def test_a_label_whose_memory_is_gone_or_shorter_now_has_no_chunk() -> None:
    labels = np.array([3 << 20, 3 << 20 | 1, 4 << 20, 2**64 - 1], np.uint64)
    of = {"chunk_memory": np.array([0, 1], np.int32), "seqs": np.array([3, 4])}
    assert chunks_of(labels, **of, alive=np.array([True, False])).tolist() == [0, NOWHERE, NOWHERE, NOWHERE]
    empty = np.zeros(0, np.int32)
    assert chunks_of(labels, chunk_memory=empty, seqs=empty, alive=empty.astype(np.bool_)).tolist() == [NOWHERE] * 4


def test_adopting_spares_the_putting() -> None:
    segment = built(planned(filled(300)))
    index = SegmentedIndex(DIMS, model_id=MODEL, threshold=100)
    index.grow(300)
    index.adopt(segment, np.arange(300, dtype=np.int32))
    assert index.covers(np.array([0, 299])).all()
    assert index.statistics() == {"tail": 0, "sealed": 300, "segments": 1, "building": 0, "built": 0}
    np.testing.assert_allclose(index.match(QUERY, candidates=300).scores, unit_vectors(300) @ QUERY, atol=1e-6)


def test_two_segments_never_answer_for_the_same_chunk() -> None:
    index = filled(300)
    job = planned(index)
    other = built(planned(filled(200)))
    index.adopt(other, np.arange(200, dtype=np.int32))
    index.install(built(job))
    assert [segment.live for segment in index.segments] == [200, 100]
    assert index.segments[0].number != index.segments[1].number
    assert known(index) == set(range(300))


def test_a_segment_of_another_model_is_refused() -> None:
    segment = built(planned(filled(300)))
    with pytest.raises(ValueError, match="model"):
        SegmentedIndex(DIMS, model_id="other").adopt(segment, np.arange(300, dtype=np.int32))
