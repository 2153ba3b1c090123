"""One sealed segment of a vault's vectors: an HNSW graph (hnswlib), built once, queried, and replaced as a whole.

Owns everything that hnswlib has to be protected from. Must never add to a graph that answers queries, never resize one,
and never let hnswlib see bytes that were not verified: it crashes on them.

Concurrency, without a lock: a `BuildJob` works on a graph of its own in a worker thread; queries and tombstones of a
finished segment happen in the vault's turn only; a thread that saves or copies a segment only reads, and hnswlib holds
the GIL while it writes its file and while it marks a deletion, so that the two cannot meet.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from actors.vector_codes import Codes
from actors.vector_tail import Floats, Moments, moments_of

Chunks = NDArray[np.int32]
Labels = NDArray[np.uint64]

ROWS_MAX = 32_768
"""Rows of one segment. hnswlib holds the GIL while it loads: 110 to 160 ms for 65 536 rows of 384, half of it here. Two
of these also find more than one of twice the size does in the same time (recall@10 0.997 instead of 0.989)."""

LINKS = 16
"""M. Sentences are so clustered that pruning leaves half of a row's 32 links unused: M = 32 gains nothing."""

EF_CONSTRUCTION = 200
"""100 builds in half the time, with recall@10 0.975 instead of 0.994 at ef 500; 400 takes twice the time."""

EF_LEAST = 400
"""ef of a query for few candidates: recall@10 0.99 at 0.7 ms for 32 768 rows."""

SAMPLE_ROWS = 1_024
"""Rows whose mean and deviation stand for a segment's: the mean is then known to 3 % of the deviation."""

NOWHERE = -1
"""In place of a chunk number: the row is a tombstone."""

GONE = np.uint64(2**64 - 1)
"""In place of the label of a tombstone in a snapshot; no memory has it."""

ORDINAL_BITS = 20
"""Of a label, for the chunk's place within its memory; the seq of the memory stands above them."""

_SEED = 20_261_121
_BATCH_ROWS = 256  # of one call into hnswlib: about 0.1 s, after which a cancelled build ends
_GRAPH_BYTES = 2_650_000  # of an empty graph: 65 536 mutexes, whatever its size
_ROW_BYTES = 160  # of a row beside what the file holds: look-up table, mutex, level, and our own columns
_FILE_HEADER = struct.Struct("<6Q")  # level-0 offset, capacity, count, bytes of an element, label offset, vector offset
_FILE_HEADER_BYTES = 96

_log = logging.getLogger(__name__)


class Segment:
    """Vectors that are sealed, rows numbered from 0. Rows with the same vector share one node of the graph.

    They have to: a few hundred equal vectors (the same "thanks!", over and over) link to each other only, and cut the
    graph into islands. Three groups of 1 000 among 31 092 rows brought recall@10 down to 0.48.

    Attributes:
        number: its number within the vault's index, given when it is installed.
        labels: per row, the stable label of its chunk.
        chunks: per row, the chunk's number in this incarnation of the vault, or `NOWHERE`.
        chunk_range: no chunk lies below the first or above the second.
        saved: whether a snapshot of it is durable.
    """

    __slots__ = (
        "_codes",
        "_file_bytes",
        "_graph",
        "_live_nodes",
        "_node_live",
        "_nodes",
        "_order",
        "_rows_by_node",
        "_sample",
        "_sample_rows",
        "_scanned",
        "_sorted_chunks",
        "_starts",
        "chunk_range",
        "chunks",
        "dims",
        "labels",
        "live",
        "model_id",
        "number",
        "saved",
    )

    def __init__(self, graph: Any, *, model_id: str, labels: Labels, nodes: NDArray[np.int32], codes: Codes) -> None:
        self._graph = graph
        self.dims: int = graph.dim
        self.model_id = model_id
        self.labels = labels
        self._nodes = nodes
        self._codes = codes
        self._sample_rows = _sample_rows(len(labels))
        self._rows_by_node = np.argsort(nodes, kind="stable").astype(np.int32)
        self._starts = np.searchsorted(nodes[self._rows_by_node], np.arange(graph.element_count + 1)).astype(np.int32)
        self._scanned = False
        self._file_bytes: int = graph.index_file_size()  # hnswlib counts it anew each time, row by row
        self.number = 0
        self.saved = False
        self.place(np.full(len(labels), NOWHERE, np.int32))

    def __len__(self) -> int:
        """Rows, tombstones included."""
        return len(self.labels)

    @property
    def nbytes(self) -> int:
        """The memory held, in bytes."""
        return _GRAPH_BYTES + self._file_bytes + self._codes.nbytes + _ROW_BYTES * len(self)

    @property
    def clean(self) -> bool:
        """Whether each vector that it holds belongs to a chunk. Only then it may be on the disk: tombstones are of
        memories that were deleted, and their vectors are still in the graph."""
        return self.live == len(self)

    @property
    def dead_share(self) -> float:
        """Tombstones among the rows."""
        return 1 - self.live / len(self)

    @property
    def nodes(self) -> NDArray[np.int32]:
        """Per row, the node that holds its vector."""
        return self._nodes

    # Which chunk is where.

    def place(self, chunks: Chunks) -> None:
        """Say which chunk each row belongs to; rows that are `NOWHERE` become tombstones for good.

        Once, before the first query: a tombstone cannot be raised again.
        """
        self.chunks = np.array(chunks, np.int32)
        self._order = np.argsort(self.chunks, kind="stable").astype(np.int32)
        self._sorted_chunks = self.chunks[self._order]
        self.chunk_range = max(0, int(self._sorted_chunks[0])), int(self._sorted_chunks[-1])
        alive = self.chunks != NOWHERE
        self.live = int(np.count_nonzero(alive))
        self._node_live = np.bincount(self._nodes[alive], minlength=len(self._starts) - 1).astype(np.int32)
        self._live_nodes = int(np.count_nonzero(self._node_live))
        if self.live:
            self._hide(np.flatnonzero(self._node_live == 0))

    def rows_of(self, chunks: NDArray[np.integer]) -> Chunks:
        """Per chunk, its row, or `NOWHERE` where it has none here (any more)."""
        if not len(chunks) or chunks.max() < self._sorted_chunks[0] or chunks.min() > self._sorted_chunks[-1]:
            return np.full(len(chunks), NOWHERE, np.int32)
        chunks = chunks.astype(np.int32)  # else the look-up would widen all of ours
        places = np.minimum(np.searchsorted(self._sorted_chunks, chunks), len(self) - 1)
        rows = self._order[places]
        return np.where((self.chunks[rows] == chunks) & (chunks != NOWHERE), rows, NOWHERE).astype(np.int32)

    def bury(self, rows: NDArray[np.integer]) -> int:
        """Make tombstones of rows; those that are `NOWHERE` or are tombstones already are passed over.

        Returns:
            How many were alive.
        """
        rows = rows[rows != NOWHERE]
        rows = np.unique(rows[self.chunks[rows] != NOWHERE])
        if not len(rows):
            return 0
        self.chunks[rows] = NOWHERE
        self.live -= len(rows)
        np.subtract.at(self._node_live, self._nodes[rows], 1)
        nodes = np.unique(self._nodes[rows])
        dead = nodes[self._node_live[nodes] == 0]
        self._live_nodes -= len(dead)
        self._hide(dead)
        return len(rows)

    def _hide(self, nodes: NDArray[np.integer]) -> None:
        for node in nodes.tolist():
            with suppress(RuntimeError):  # the file said so already
                self._graph.mark_deleted(node)

    # Reading.

    def query(self, vector: Floats, *, candidates: int) -> tuple[Chunks, Floats]:
        """The chunks whose vectors are nearest to a normalised one, with their cosines, in no order.

        At least `candidates` if there are as many. Where the graph fails, all there are, from then on: see `scores`.
        """
        wanted = min(candidates, self._live_nodes)
        if not wanted:
            return np.zeros(0, np.int32), np.zeros(0, np.float32)
        if not self._scanned:
            try:
                self._graph.set_ef(max(EF_LEAST, wanted))
                nodes, distances = self._graph.knn_query(vector, k=wanted, num_threads=1)
                return self._spread(nodes[0].astype(np.int64), 1 - distances[0])
            except RuntimeError:  # fewer than `wanted` nodes can be reached, and there is no telling how many
                _log.warning("index_segment_scanned", extra={"segment": self.number, "rows": len(self)})
                self._scanned = True
        rows = np.flatnonzero(self.chunks != NOWHERE)
        return self.chunks[rows], self.scores(vector, rows)

    def scores(self, vector: Floats, rows: NDArray[np.integer]) -> Floats:
        """The cosines of rows with a normalised vector, from their 8-bit codes: off by 0.0002, at most by 0.002."""
        return self._codes.scores(vector, self._nodes[rows])

    def _spread(self, nodes: NDArray[np.int64], scores: Floats) -> tuple[Chunks, Floats]:
        """From nodes to the chunks of all their rows."""
        counts = self._starts[nodes + 1] - self._starts[nodes]
        first = np.repeat(self._starts[nodes] - (np.cumsum(counts) - counts), counts)
        chunks = self.chunks[self._rows_by_node[first + np.arange(len(first))]]
        alive = chunks != NOWHERE
        return chunks[alive], np.repeat(scores, counts)[alive]

    def moments(self, vector: Floats) -> Moments:
        """How similar the whole segment is to a normalised vector, by its sample."""
        alive = self._sample_rows[self.chunks[self._sample_rows] != NOWHERE]
        return moments_of(self.live, self.scores(vector, alive if len(alive) else self._sample_rows))

    # Copying out.

    @contextmanager
    def open_payload(self) -> Iterator[int]:
        """The graph as hnswlib's file, in a file in memory: nothing of it touches a disk unsealed.

        Yields:
            Its descriptor.

        Raises:
            OSError: there is no memory for it. hnswlib itself would not have noticed.
        """
        descriptor = os.memfd_create("segment", os.MFD_CLOEXEC)
        try:
            self._graph.save_index(f"/proc/self/fd/{descriptor}")
            if os.fstat(descriptor).st_size != self._file_bytes:
                raise OSError(errno.ENOMEM, "no memory for a copy of a segment")
            yield descriptor
        finally:
            os.close(descriptor)

    def vectors(self) -> Floats:
        """The vector of each node, read-only. A copy through a file in memory: `get_items` makes Python floats of them,
        which takes a hundred times as long, all of it with the GIL.

        Raises:
            OSError: there is no memory for it.
        """
        with self.open_payload() as descriptor:
            return _mapped_vectors(descriptor, self.dims)

    def batches(self, rows: NDArray[np.integer]) -> Iterator[Floats]:
        """The vectors of rows, in their order. For a thread; needs the memory of a copy of the segment meanwhile."""
        vectors = self.vectors()
        for start in range(0, len(rows), _BATCH_ROWS):
            yield vectors[self._nodes[rows[start : start + _BATCH_ROWS]]]


def _mapped_vectors(descriptor: int, dims: int) -> Floats:
    """The vectors within hnswlib's file, by node: nodes were added in the order of their numbers."""
    mapped = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)
    _, _, count, stride, _, offset = _FILE_HEADER.unpack_from(mapped)
    return np.ndarray((count, dims), np.float32, mapped, _FILE_HEADER_BYTES + offset, (stride, 4))


def _open_graph(dims: int) -> Any:
    import hnswlib  # late: most processes have no vault that is large enough

    graph = hnswlib.Index(space="ip", dim=dims)
    graph.set_num_threads(1)  # neither this nor ef is part of a saved graph; each query sets its ef
    return graph


def load_segment(
    descriptor: int, *, model_id: str, dims: int, labels: Labels, nodes: NDArray[np.int32], links: int
) -> Segment:
    """A segment from what `open_payload` gave. All of it must have been verified: damaged bytes crash the process.

    Holds the GIL for about 2 ms per 1 000 rows.

    Raises:
        ValueError: it is not a graph of this shape, or there is no memory for it.
    """
    count = int(nodes.max()) + 1
    header = os.pread(descriptor, _FILE_HEADER.size, 0)
    if len(header) < _FILE_HEADER.size or len(nodes) != len(labels):
        raise ValueError("shorter than its header")
    _, _, held, stride, _, offset = _FILE_HEADER.unpack(header)
    if (held, offset, stride) != (count, 8 * links + 4, 8 * links + 4 + 4 * dims + 8):
        raise ValueError("not a graph of this shape")
    graph = _open_graph(dims)
    try:
        graph.load_index(f"/proc/self/fd/{descriptor}", max_elements=count)
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    if graph.index_file_size() != os.fstat(descriptor).st_size:
        raise ValueError("not a graph of this size")
    codes = Codes(count, dims)
    vectors = _mapped_vectors(descriptor, dims)
    for start in range(0, count, _BATCH_ROWS):
        codes.put(start, vectors[start : start + _BATCH_ROWS])
    return Segment(graph, model_id=model_id, labels=labels, nodes=nodes, codes=codes)


def _sample_rows(rows: int) -> Chunks:
    """Which rows stand for the segment; always the same."""
    chosen = np.random.default_rng(_SEED).choice(rows, min(rows, SAMPLE_ROWS), replace=False)
    return np.sort(chosen).astype(np.int32)


class BuildJob:
    """The building of one segment, away from everything that answers: `run` it in a worker thread.

    Attributes:
        rows: how many vectors it will hold.
        done: how many are in; may be read at any time.
    """

    __slots__ = ("_cancelled", "_dims", "_model_id", "_sources", "chunks", "done", "labels", "merged", "rows")

    def __init__(
        self,
        sources: Sequence[Iterable[Floats]],
        *,
        model_id: str,
        dims: int,
        labels: Labels,
        chunks: Chunks,
        merged: Sequence[Segment],
    ) -> None:
        self._sources = sources
        self._model_id = model_id
        self._dims = dims
        self._cancelled = False
        self.labels = labels
        self.chunks = chunks
        self.merged = merged
        self.rows = len(labels)
        self.done = 0

    def cancel(self) -> None:
        """Have `run` end within about 0.1 s."""
        self._cancelled = True

    def run(self) -> Segment | None:
        """Build the segment. Takes about 0.25 ms a row, nearly all of it without the GIL.

        Returns:
            The segment to install, or None: it was cancelled, or there is not the memory for it (which is logged).
        """
        try:
            return self._build()
        except (MemoryError, OSError, RuntimeError) as error:
            _log.error("index_build_failed", extra={"rows": self.rows, "error": f"{type(error).__name__}: {error}"})
            return None

    def _build(self) -> Segment | None:
        graph = _open_graph(self._dims)
        graph.init_index(max_elements=self.rows, M=LINKS, ef_construction=EF_CONSTRUCTION, random_seed=_SEED)
        twins: dict[bytes, int] = {}
        nodes = np.empty(self.rows, np.int32)
        codes = Codes(self.rows, self._dims)
        for batch in chain.from_iterable(self._sources):
            if self._cancelled:
                return None
            known, start, stop = len(twins), self.done, self.done + len(batch)
            keys = map(xxhash.xxh3_128_digest, batch.astype(np.float16))
            nodes[start:stop] = [twins.setdefault(key, len(twins)) for key in keys]
            numbers, first = np.unique(nodes[start:stop], return_index=True)
            fresh = numbers >= known
            graph.add_items(batch[first[fresh]], numbers[fresh], num_threads=1)
            codes.put(known, batch[first[fresh]])
            self.done = stop
        segment = Segment(graph, model_id=self._model_id, labels=self.labels, nodes=nodes, codes=codes)
        segment.place(self.chunks)
        return segment
