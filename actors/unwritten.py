"""What a vault has and the store does not: rows of the log that became memories, and vectors that came since.

Owns which steps are due (`Materialisation`) and their order, which is that of the log. Knows nothing of words, nor of
where anything is written.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from actors.store.protocol import Materialisation, Vectors
from models.memory import InboxRow, Memory


class Unwritten:
    """Rows, memories and vectors on their way to the store."""

    __slots__ = ("_memories", "_row_open", "_rows", "_vectors", "last_row_id")

    def __init__(self) -> None:
        self._rows: dict[int, list[int]] = {}  # inbox row -> seqs of what it became, in order; until materialised
        self._memories: dict[int, Memory] = {}
        self._vectors: Vectors = {}  # of memories that the store does not hold with their vectors yet
        self._row_open: int | None = None
        self.last_row_id = 0

    def begin_row(self, row: InboxRow) -> None:
        """A row is being taken in."""
        assert self._row_open is None, "one row at a time"
        assert row.row_id > self.last_row_id, "rows come in the order of the log"
        self._row_open = row.row_id
        self._rows[row.row_id] = []

    def add(self, row: InboxRow, memory: Memory) -> None:
        """The open row became this memory, among others."""
        self._rows[row.row_id].append(memory.seq)
        self._memories[memory.seq] = memory

    def end_row(self, row: InboxRow) -> None:
        """The open row is taken in."""
        assert self._row_open == row.row_id
        self._row_open = None
        self.last_row_id = row.row_id

    def put_vectors(self, seq: int, vectors: NDArray[np.float16]) -> None:
        """A memory's vectors have come."""
        self._vectors[seq] = vectors

    def drop(self, seq: int) -> None:
        """A memory is deleted, here and in the store."""
        self._memories.pop(seq, None)
        self._vectors.pop(seq, None)

    def take_step(
        self, model_id: str, *, unembedded: Collection[int], next_seq: int, unfinished: bool
    ) -> Materialisation | None:
        """What can be written now: rows whose memories are all embedded, in the order of the log.

        Args:
            model_id: the model of all vectors.
            unembedded: memories without vectors yet.
            next_seq: the seq that the vault gives next.
            unfinished: also rows that still wait for vectors; those follow in a later step.

        Returns:
            A step to write, handed out once, or None.
        """
        rows = []
        memories: list[Memory] = []
        for row_id, seqs in self._rows.items():
            waiting = row_id == self._row_open or any(seq in unembedded for seq in seqs)
            if waiting and not (unfinished and row_id != self._row_open):
                break
            rows.append(row_id)
            memories.extend(self._memories.pop(seq) for seq in seqs if seq in self._memories)
        for row_id in rows:
            del self._rows[row_id]
        vectors = {seq: rows_ for seq, rows_ in self._vectors.items() if seq not in self._memories}
        for seq in vectors:
            del self._vectors[seq]
        if not rows and not vectors:
            return None
        return Materialisation(
            row_ids=tuple(rows),
            memories=tuple(memories),
            vectors=vectors,
            model_id=model_id,
            next_seq=min(self._memories, default=next_seq),
        )
