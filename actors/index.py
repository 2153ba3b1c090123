"""The dense leg of recall: how near the meaning of each chunk is to a question.

Owns the vectors of one vault, in memory. Must never embed anything nor wait. It is a cache: vectors are
stored beside the memories, and the index is filled from there when a vault is loaded.
"""

from __future__ import annotations

from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

_BLOCK_ROWS = 2048
"""Rows of a full block. Growth adds blocks and copies at most one: no slice of work waits for a large
copy."""

_FIRST_ROWS = 16  # of a new vault; its only block then doubles until it is full


class DenseMatch(msgspec.Struct, frozen=True, eq=False):
    """How near the chunks of a vault are to a question.

    Attributes:
        scores: float32 per chunk: cosine similarity; NaN where it is not known, because the chunk has no
            vector (yet) or an approximate search did not reach it.
        background: mean and standard deviation of the similarity over the whole vault, from an index that
            scored only its best candidates; None where `scores` is complete and says so itself.
    """

    scores: NDArray[np.float32]
    background: tuple[float, float] | None = None


class VectorIndex(Protocol):
    """What a vault needs of an index of vectors. Chunks are numbered as in the lexicon.

    An exact index scores every chunk. An approximate one scores about `candidates` of the best, leaves NaN
    elsewhere and gives the background (of a fixed sample) that ranking needs to tell an outstanding score
    from a usual one.
    """

    @property
    def nbytes(self) -> int:
        """The memory held, in bytes."""
        ...

    def __len__(self) -> int:
        """The number of chunks, with or without vector."""
        ...

    def grow(self, chunks: int) -> None:
        """Make room for this many chunks in all; new ones have no vector."""
        ...

    def put(self, chunks: NDArray[np.integer], vectors: ArrayLike) -> None:
        """Set the vectors of chunks, normalised rows of shape (len(chunks), dims)."""
        ...

    def remove(self, chunk: int) -> None:
        """Forget the vector of a chunk."""
        ...

    def match(self, query: NDArray[np.float32], *, candidates: int) -> DenseMatch:
        """Score chunks against a normalised query of shape (dims,)."""
        ...


class ExactIndex:
    """Scores every chunk, by one matrix product per block.

    float32 rows: float16 would halve the memory, but has to be widened before each product; for 10 000 x 384
    on one core that took 6.6 ms instead of 0.5 ms.

    A chunk without vector is a row of NaN; the product carries it through to the score.
    """

    __slots__ = ("_blocks", "_count", "_dims")

    def __init__(self, dims: int) -> None:
        self._dims = dims
        self._blocks: list[NDArray[np.float32]] = []
        self._count = 0

    def __len__(self) -> int:
        """The number of chunks, with or without vector."""
        return self._count

    @property
    def nbytes(self) -> int:
        """The memory held, in bytes."""
        return sum(block.nbytes for block in self._blocks)

    def grow(self, chunks: int) -> None:
        """Make room for this many chunks in all; new ones have no vector. Never shrinks."""
        if chunks <= self._count:
            return
        if self._count < _BLOCK_ROWS:
            self._grow_first(min(chunks, _BLOCK_ROWS))
        while len(self._blocks) * _BLOCK_ROWS < chunks:
            self._blocks.append(self._unknown(_BLOCK_ROWS))
        self._count = chunks

    def put(self, chunks: NDArray[np.integer], vectors: ArrayLike) -> None:
        """Set the vectors of chunks, normalised rows of shape (len(chunks), dims).

        Raises:
            IndexError: a chunk is beyond `len(self)`.
            ValueError: the shapes do not fit.
        """
        rows = np.asarray(vectors, np.float32)
        if rows.shape != (len(chunks), self._dims):
            raise ValueError(f"vectors have shape {rows.shape}, not ({len(chunks)}, {self._dims})")
        if len(chunks) and not 0 <= int(chunks.min()) <= int(chunks.max()) < self._count:
            raise IndexError("chunk number out of range")
        for block in np.unique(chunks // _BLOCK_ROWS):
            inside = chunks // _BLOCK_ROWS == block
            self._blocks[int(block)][chunks[inside] % _BLOCK_ROWS] = rows[inside]

    def remove(self, chunk: int) -> None:
        """Forget the vector of a chunk; removing it again changes nothing.

        Raises:
            IndexError: the chunk is beyond `len(self)`.
        """
        if not 0 <= chunk < self._count:
            raise IndexError(chunk)
        self._blocks[chunk // _BLOCK_ROWS][chunk % _BLOCK_ROWS] = np.nan

    def scores(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cosine similarity of each chunk to a normalised query, float32 of shape (len(self),), NaN without
        vector."""
        result = np.empty(len(self._blocks) * _BLOCK_ROWS, np.float32)
        for number, block in enumerate(self._blocks):
            start = number * _BLOCK_ROWS
            np.matmul(block, query, out=result[start : start + len(block)])
        return result[: self._count]

    def match(self, query: NDArray[np.float32], *, candidates: int) -> DenseMatch:
        """All scores, complete."""
        return DenseMatch(scores=self.scores(query))

    def _grow_first(self, chunks: int) -> None:
        """Let the only block hold this many rows, doubling it as needed."""
        rows = len(self._blocks[0]) if self._blocks else 0
        if chunks <= rows:
            return
        wanted = max(rows, _FIRST_ROWS)
        while wanted < chunks:
            wanted *= 2
        grown = self._unknown(min(wanted, _BLOCK_ROWS))
        if rows:
            grown[:rows] = self._blocks[0]
        self._blocks[:1] = [grown]

    def _unknown(self, rows: int) -> NDArray[np.float32]:
        """A block of rows without vectors."""
        return np.full((rows, self._dims), np.nan, np.float32)
