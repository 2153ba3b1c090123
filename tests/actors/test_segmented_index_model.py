"""The index of a vault against the exact index: every operation in any order, restarts with snapshots included."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.typing import NDArray

from actors.index import ExactIndex
from actors.segmented_index import SegmentedIndex, chunks_of, labels_of
from actors.segments import BuildJob, Labels, Segment
from actors.store.seal import DataKey
from actors.store.snapshots import load_segments, prune_segments, save_segment
from tests.actors.test_segmented_index import DIMS, MODEL, QUERY, sealed, unit_vectors

KEY = DataKey(bytes(32), vault_number=7)


class AgainstTheExactIndex(RuleBasedStateMachine):
    """Tiny segments, and few different vectors, so that equal ones come up."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name)

    def teardown(self) -> None:
        self.directory.cleanup()

    @initialize(threshold=st.sampled_from([0, 4, 8]))
    def start(self, threshold: int) -> None:
        self.threshold = threshold
        self.seqs: list[int] = []  # per memory; as in a catalogue, positions are given anew at a restart
        self.alive: list[bool] = []
        self.chunk_memory: list[int] = []
        self.vectors: dict[int, NDArray[np.float32]] = {}  # by chunk
        self.next_seq = 1
        self.job: BuildJob | None = None
        self.segment: Segment | None = None
        self.open()
        for seed in range(3):
            self.remember(chunks=5, seed=seed, embedded=True)

    def open(self) -> None:
        self.exact = ExactIndex(DIMS)
        self.index = SegmentedIndex(DIMS, model_id=MODEL, threshold=self.threshold, segment_rows_max=32)
        self.grow()

    def grow(self) -> None:
        self.exact.grow(len(self.chunk_memory))
        self.index.grow(len(self.chunk_memory))

    def put(self, chunks: list[int], rows: NDArray[np.float32]) -> None:
        self.exact.put(np.array(chunks), rows)
        self.index.put(np.array(chunks), rows)
        self.vectors.update(zip(chunks, rows, strict=True))

    def labels_of(self, chunks: NDArray[np.integer]) -> Labels:
        memory, seqs = np.array(self.chunk_memory, np.int32), np.array(self.seqs, np.int64)
        return labels_of(chunks, chunk_memory=memory, seqs=seqs)

    def living(self) -> list[int]:
        return [chunk for chunk, memory in enumerate(self.chunk_memory) if self.alive[memory]]

    @rule(chunks=st.integers(1, 9), seed=st.integers(0, 40), embedded=st.booleans())
    def remember(self, chunks: int, seed: int, embedded: bool) -> None:
        first = len(self.chunk_memory)
        self.seqs.append(self.next_seq)
        self.alive.append(True)
        self.chunk_memory += [len(self.seqs) - 1] * chunks
        self.next_seq += 1
        self.grow()
        if embedded:  # few seeds: equal vectors come up
            self.put(list(range(first, first + chunks)), unit_vectors(chunks, seed))

    @precondition(lambda self: self.living())
    @rule(data=st.data(), seed=st.integers(0, 40))
    def embed_again(self, data: st.DataObject, seed: int) -> None:
        self.put([data.draw(st.sampled_from(self.living()))], unit_vectors(1, seed))

    @precondition(lambda self: any(self.alive))
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        memory = data.draw(st.sampled_from([place for place, alive in enumerate(self.alive) if alive]))
        self.alive[memory] = False
        for chunk in np.flatnonzero(np.array(self.chunk_memory) == memory).tolist():
            self.exact.remove(chunk)
            self.index.remove(chunk)
            self.vectors.pop(chunk, None)

    @precondition(lambda self: self.job is None)
    @rule()
    def plan(self) -> None:
        self.job = self.index.plan(self.labels_of)

    @precondition(lambda self: self.job is not None and self.segment is None)
    @rule()
    def run(self) -> None:
        assert self.job is not None
        self.segment = self.job.run()
        assert self.segment is not None

    @precondition(lambda self: self.segment is not None)
    @rule()
    def install(self) -> None:
        assert self.segment is not None
        self.index.install(self.segment)
        self.job = self.segment = None

    @precondition(lambda self: self.job is None)
    @rule()
    def seal(self) -> None:
        sealed(self.index, self.labels_of)

    @precondition(lambda self: self.job is not None)
    @rule(really=st.sampled_from([False, False, False, True]))  # none is planned for long afterwards
    def abandon(self, really: bool) -> None:
        if really:
            self.index.abandon()
            self.job = self.segment = None

    @rule()
    def save(self) -> None:
        clean = [segment for segment in self.index.segments if segment.clean]
        for segment in clean:
            if not segment.saved:
                save_segment(self.path, KEY, 7, segment)
                segment.saved = True
        prune_segments(self.path, 7, keep={segment.number for segment in clean})

    @rule()
    def mend(self) -> None:
        self.index.mend()

    @rule(before=st.booleans())
    def restart(self, before: bool) -> None:
        """Deleted memories leave no gap; vectors are put before the segments are adopted, or where none covers them.
        What is not clean any more is pruned first."""
        self.save()
        living = self.living()
        kept = sorted({self.chunk_memory[chunk] for chunk in living})
        self.chunk_memory = [kept.index(self.chunk_memory[chunk]) for chunk in living]
        self.seqs = [self.seqs[memory] for memory in kept]
        self.alive = [True] * len(kept)
        vectors = {new: self.vectors[old] for new, old in enumerate(living) if old in self.vectors}
        self.vectors, self.job, self.segment = vectors, None, None
        self.open()
        chunks = np.array(sorted(vectors), np.int64)
        rows = np.array([vectors[chunk] for chunk in chunks.tolist()], np.float32).reshape(-1, DIMS)
        self.exact.put(chunks, rows)
        if before:
            self.index.put(chunks, rows)
        self.adopt_all()
        if not before:
            missing = ~self.index.covers(chunks)
            self.index.put(chunks[missing], rows[missing])

    def adopt_all(self) -> None:
        loaded = load_segments(self.path, KEY, 7, model_id=MODEL, dims=DIMS)
        assert loaded.unusable == ()
        memory, seqs = np.array(self.chunk_memory, np.int32), np.array(self.seqs, np.int64)
        for segment in loaded.segments:
            chunks = chunks_of(segment.labels, chunk_memory=memory, seqs=seqs, alive=np.array(self.alive, np.bool_))
            self.index.adopt(segment, chunks)

    @invariant()
    def all_is_found(self) -> None:
        if not hasattr(self, "index"):
            return
        exact, match = self.exact.scores(QUERY), self.index.match(QUERY, candidates=10_000)
        np.testing.assert_allclose(match.scores, exact, atol=1e-6)
        assert match.background is None
        assert self.index.vectors == len(self.vectors)

    @invariant()
    def few_are_the_best(self) -> None:
        if not hasattr(self, "index"):
            return
        exact, match = self.exact.scores(QUERY), self.index.match(QUERY, candidates=2)
        has = ~np.isnan(match.scores)
        np.testing.assert_allclose(match.scores[has], exact[has], atol=1e-6)
        population = exact[~np.isnan(exact)]
        if match.background is None:
            assert has.sum() == len(population)
        else:
            assert match.background == pytest.approx((population.mean(), population.std()), abs=5e-3)
        best = np.sort(population)[::-1][:2]
        np.testing.assert_allclose(np.sort(match.scores[has])[::-1][: len(best)], best, atol=1e-6)


TestAgainstTheExactIndex = AgainstTheExactIndex.TestCase
