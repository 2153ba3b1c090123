"""The dense leg of a vault of any size: an exact tail, and sealed segments once the vault is large.

Owns which chunk is where, when a segment is built, merged or rebuilt, and the stable labels by which a snapshot's rows
find their chunks again. Must never build anything itself: `plan` says what to build, a worker thread runs the job,
`install` takes the result in. Between the two the tail keeps answering for these chunks, exactly.

Everything here happens in the vault's turn, except what a `BuildJob` reads: blocks of the tail, which are copied before
the turn changes them, and sealed segments (see `actors.segments`). So there is no lock.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from actors.holdings import Holding
from actors.index import DenseMatch
from actors.segments import NOWHERE, ORDINAL_BITS, ROWS_MAX, BuildJob, Chunks, Labels, Segment
from actors.vector_tail import Floats, Moments, Tail

THRESHOLD = 16_384
"""Vectors up to which a vault has no segments; also how many a tail gathers before it is sealed."""

DEAD_SHARE_MAX = 0.25
"""A segment with more tombstones is rebuilt: hnswlib walks over them, and they hold memory."""

CANDIDATES_LEAST = 200
"""Of one segment. Each is asked for twice its share: what is alike was often said at the same time."""

_RETRY_ROWS = 1_024  # vectors to come before a build that failed is tried again


def labels_of(chunks: NDArray[np.integer], *, chunk_memory: NDArray[np.int32], seqs: NDArray[np.integer]) -> Labels:
    """The stable labels of chunks: the seq of the memory and the chunk's ordinal within it.

    Args:
        chunk_memory: per chunk, the position of its memory; never decreases.
        seqs: per position, the seq; rises.
    """
    memories = chunk_memory[chunks]
    ordinals = chunks - np.searchsorted(chunk_memory, memories)
    return np.asarray(seqs[memories].astype(np.uint64) << np.uint64(ORDINAL_BITS) | ordinals.astype(np.uint64))


def chunks_of(
    labels: Labels,
    *,
    chunk_memory: NDArray[np.int32],
    seqs: NDArray[np.integer],
    alive: NDArray[np.bool_],
) -> Chunks:
    """The chunks with these labels, or `NOWHERE` where the memory is gone: the other way round.

    Args:
        alive: per position, whether the memory still exists.
    """
    if not len(seqs):
        return np.full(len(labels), NOWHERE, np.int32)
    wanted = labels >> np.uint64(ORDINAL_BITS)
    positions = np.minimum(np.searchsorted(seqs.astype(np.uint64), wanted), len(seqs) - 1)
    known = np.asarray(seqs[positions].astype(np.uint64) == wanted) & alive[positions]
    ordinals = (labels & np.uint64((1 << ORDINAL_BITS) - 1)).astype(np.int64)
    chunks = np.searchsorted(chunk_memory, positions) + ordinals
    known &= chunks < np.searchsorted(chunk_memory, positions, side="right")
    return np.where(known, chunks, NOWHERE).astype(np.int32)


class SegmentedIndex:
    """A `VectorIndex` of any size. Up to the threshold it is the exact one, as small and as fast.

    Args:
        dims: length of a vector.
        model_id: the model that made the vectors; part of every snapshot.
        threshold: vectors up to which there are no segments; 0 has whatever there is sealed.
        segment_rows_max: rows of one segment.
    """

    __slots__ = (
        "_dims",
        "_job",
        "_mends",
        "_model_id",
        "_next_number",
        "_retry_at",
        "_rows_max",
        "_segments",
        "_tail",
        "_threshold",
        "_touched",
    )

    def __init__(
        self, dims: int, *, model_id: str, threshold: int = THRESHOLD, segment_rows_max: int = ROWS_MAX
    ) -> None:
        self._dims = dims
        self._model_id = model_id
        self._threshold = threshold
        self._rows_max = segment_rows_max
        self._tail = Tail(dims)
        self._segments: list[Segment] = []
        self._job: BuildJob | None = None
        self._touched: list[NDArray[np.integer]] = []  # chunks that changed since the job was planned
        self._next_number = 1
        self._mends = False  # build segments with any tombstone anew
        self._retry_at = 0

    def __len__(self) -> int:
        """The number of chunks, with or without vector."""
        return self._tail.count

    @property
    def nbytes(self) -> int:
        """The memory held, in bytes, without that of a build under way."""
        return self._tail.nbytes + sum(segment.nbytes for segment in self._segments)

    def holdings(self) -> list[Holding]:
        """What takes time to be freed."""
        return [self._segments, *self._tail.holdings()]

    @property
    def vectors(self) -> int:
        """Chunks with vectors."""
        return self._tail.vectors + self._sealed

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The sealed segments: what to save, and what to keep on the disk."""
        return tuple(self._segments)

    @property
    def _sealed(self) -> int:
        return sum(segment.live for segment in self._segments)

    def covers(self, chunks: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which chunks have their vector in a segment, so that it need not be put."""
        covered = np.zeros(len(chunks), np.bool_)
        for segment in self._segments:
            covered |= segment.rows_of(chunks) != NOWHERE
        return covered

    def statistics(self) -> dict[str, int]:
        """Sizes, and how far a build is: `built` of `building` rows."""
        return {
            "tail": self._tail.vectors,
            "sealed": self._sealed,
            "segments": len(self._segments),
            "building": self._job.rows if self._job else 0,
            "built": self._job.done if self._job else 0,
        }

    # Changing.

    def grow(self, chunks: int) -> None:
        """Make room for this many chunks in all; new ones have no vector. Never shrinks."""
        self._tail.count = max(self._tail.count, chunks)

    def put(self, chunks: NDArray[np.integer], vectors: ArrayLike) -> None:
        """Set the vectors of chunks, normalised rows of shape (len(chunks), dims).

        Raises:
            IndexError: a chunk is beyond `len(self)`.
            ValueError: the shapes do not fit.
        """
        rows = np.asarray(vectors, np.float32)
        if rows.shape != (len(chunks), self._dims):
            raise ValueError(f"vectors have shape {rows.shape}, not ({len(chunks)}, {self._dims})")
        if not len(chunks):
            return
        if not 0 <= int(chunks.min()) <= int(chunks.max()) < len(self):
            raise IndexError("chunk number out of range")
        self._unseal(chunks)
        self._tail.put(chunks, rows)

    def remove(self, chunk: int) -> None:
        """Forget the vector of a chunk of a deleted memory; removing it again changes nothing.

        Its segment is not clean any more; a graph cannot forget, so the segment is built anew: see `mend`.

        Raises:
            IndexError: the chunk is beyond `len(self)`.
        """
        if not 0 <= chunk < len(self):
            raise IndexError(chunk)
        if self._segments or self._job is not None:
            self._unseal(np.array([chunk]))
        self._tail.discard(chunk)

    def _unseal(self, chunks: NDArray[np.integer]) -> None:
        """Chunks change: no segment answers for them any more, neither now nor once the job is installed."""
        if self._job is not None:
            self._touched.append(chunks)
        lowest, highest = int(chunks.min()), int(chunks.max())
        near = [s for s in self._segments if s.chunk_range[0] <= highest and lowest <= s.chunk_range[1]]
        changed = [segment for segment in near if segment.bury(segment.rows_of(chunks))]
        if changed or self._job is not None:
            self._mends = False  # more may come
        if any(not segment.live for segment in changed):
            self._segments = [segment for segment in self._segments if segment.live]

    def holding(self, chunks: NDArray[np.integer]) -> list[Segment]:
        """The segments that hold vectors of any of these chunks."""
        return [segment for segment in self._segments if (segment.rows_of(chunks) != NOWHERE).any()]

    def mend(self) -> None:
        """Nothing was removed for a while: from now on `plan` has segments built anew that have any tombstone, until
        there is none, or more is removed."""
        self._mends = True

    # Reading.

    def match(self, query: Floats, *, candidates: int) -> DenseMatch:
        """The cosine of every chunk of the tail and of at least `CANDIDATES_LEAST` of the best of each segment (twice
        its share of `candidates`, at most all of them), NaN elsewhere. Shape of the query: (dims,)."""
        if query.shape != (self._dims,):
            raise ValueError(f"the query has shape {query.shape}, not ({self._dims},)")
        scores = self._tail.scores(query)
        if not self._segments:
            return DenseMatch(scores=scores)
        moments = [self._tail.moments(scores)]
        each = min(candidates, max(2 * candidates // len(self._segments), CANDIDATES_LEAST))
        complete = True
        for segment in self._segments:
            chunks, found = segment.query(query, candidates=each)
            scores[chunks] = found
            complete &= len(chunks) == segment.live
            moments.append(segment.moments(query))
        return DenseMatch(scores=scores, background=None if complete else _background(moments))

    def match_within(self, query: Floats, chunks: NDArray[np.integer]) -> DenseMatch:
        """The cosine of every chunk of the tail and of these (rising) of the segments; complete, as far as these go."""
        match = DenseMatch(scores=self._tail.scores(query))
        self.fill(match, query, chunks)
        return match

    def fill(self, match: DenseMatch, query: Floats, chunks: NDArray[np.integer]) -> None:
        """Add the cosines of these chunks (rising) to a match of the same query, where it did not reach them."""
        chunks = chunks[np.isnan(match.scores[chunks])]
        for segment in self._segments:
            lowest, highest = segment.chunk_range
            inside = chunks[slice(*np.searchsorted(chunks, (lowest, highest + 1)))]
            rows = segment.rows_of(inside)
            here = rows != NOWHERE
            match.scores[inside[here]] = segment.scores(query, rows[here])

    # Building.

    def plan(self, labels_of: Callable[[NDArray[np.int64]], Labels]) -> BuildJob | None:
        """What should be built now, if anything: run it in a thread, then `install` the segment or `abandon`.

        Copies no vector. One job at a time; None while there is one.

        Args:
            labels_of: the stable labels of chunks.
        """
        if self._job is not None or self.vectors < self._retry_at:
            return None
        chunks = self._tail.chunks() if self._tail.vectors > self._tail_max else np.zeros(0, np.int64)
        worn = max(self._segments, key=lambda segment: segment.dead_share, default=None)
        if len(chunks):
            merged = self._small_segments(min(len(chunks), self._rows_max), [])
        elif worn is not None and worn.dead_share > (0.0 if self._mends else DEAD_SHARE_MAX):
            merged = self._small_segments(0, [worn])
        else:
            return None
        chunks = chunks[: self._rows_max - sum(segment.live for segment in merged)]
        kept = [np.flatnonzero(segment.chunks != NOWHERE) for segment in merged]
        self._job = BuildJob(
            [segment.batches(rows) for segment, rows in zip(merged, kept, strict=True)] + [self._tail.share(chunks)],
            model_id=self._model_id,
            dims=self._dims,
            labels=np.concatenate([s.labels[rows] for s, rows in zip(merged, kept, strict=True)] + [labels_of(chunks)]),
            chunks=np.concatenate([s.chunks[rows] for s, rows in zip(merged, kept, strict=True)] + [chunks]),
            merged=merged,
        )
        return self._job

    @property
    def _tail_max(self) -> int:
        """Vectors that the tail may hold. With a threshold of 0 as many as are sealed: then each is built into a
        segment a few times, not once for each that comes."""
        return self._threshold or min(THRESHOLD, self._sealed)

    def _small_segments(self, fresh: int, chosen: list[Segment]) -> list[Segment]:
        """Segments to merge with `fresh` rows of the tail, at least half of which have to fit in.

        Those that are not much larger than what has come together so far: so a vector moves a few times, not each time.
        """
        rows = sum(segment.live for segment in chosen)
        for segment in sorted(self._segments, key=lambda segment: segment.live):
            if segment in chosen or segment.live > 2 * (fresh + rows):
                continue
            if rows + segment.live + (fresh + 1) // 2 > self._rows_max:
                break
            chosen.append(segment)
            rows += segment.live
        return chosen

    def expects(self, segment: Segment) -> bool:
        """Whether this is what came of the plan."""
        return self._job is not None and segment.labels is self._job.labels

    def install(self, segment: Segment) -> None:
        """Take in what the job has built, in place of what it was built from; what changed meanwhile stays as it is."""
        job, self._job = self._job, None
        assert job is not None, "there was a plan"
        assert segment.labels is job.labels, "and this is what came of it"
        self._tail.unshare()
        self._segments = [other for other in self._segments if other not in job.merged]
        if self._touched:
            segment.bury(segment.rows_of(np.concatenate(self._touched)))
        self._touched.clear()
        segment.number = self._next_number
        self._take(segment)

    def abandon(self) -> None:
        """The job was cancelled or failed: forget it, and plan none until some more vectors have come."""
        if self._job is not None:
            self._job.cancel()
            self._retry_at = self.vectors + _RETRY_ROWS
        self._job = None
        self._tail.unshare()
        self._touched.clear()

    def adopt(self, segment: Segment, chunks: Chunks) -> None:
        """Take in a segment from a snapshot, the newest first.

        Chunks that another segment covers are left to that one; those that the tail knows move to the segment.

        Args:
            chunks: per row, the chunk with its label, or `NOWHERE`.
        """
        if (segment.dims, segment.model_id) != (self._dims, self._model_id):
            raise ValueError("the segment is of another model")
        segment.place(np.where(chunks < len(self), chunks, NOWHERE).astype(np.int32))
        self._take(segment)

    def _take(self, segment: Segment) -> None:
        self._next_number = max(self._next_number, segment.number + 1)
        alive = np.flatnonzero(segment.chunks != NOWHERE)
        for other in self._segments:
            segment.bury(alive[other.rows_of(segment.chunks[alive]) != NOWHERE])
        if segment.live:
            self._segments.append(segment)
            self._tail.remove(segment.chunks[segment.chunks != NOWHERE])


def _background(moments: list[Moments]) -> tuple[float, float]:
    """Mean and standard deviation over all parts."""
    count = sum(part.count for part in moments)
    mean = sum(part.count * part.mean for part in moments) / count
    square = sum(part.count * part.square for part in moments) / count
    return mean, max(square - mean * mean, 0.0) ** 0.5
