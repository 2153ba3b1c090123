"""Which memories of a vault have no vectors yet, and which of their texts are to be embedded next.

Owns the order, and that each text is handed out once. Knows nothing of models or vectors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from models.memory import Memory
from models.text import embedding_text

TextsToEmbed = list[tuple[int, list[str]]]
"""Memories by seq, each with the texts of its chunks."""


class Unembedded:
    """Memories by seq."""

    __slots__ = ("_queue", "seqs")

    def __init__(self) -> None:
        self._queue: deque[int] = deque()
        self.seqs: set[int] = set()
        """All of them, handed out or not."""

    def add(self, seq: int) -> None:
        """This memory has no vectors yet."""
        self._queue.append(seq)
        self.seqs.add(seq)

    def take(self, memory_of: Callable[[int], Memory], *, chunks_max: int) -> TextsToEmbed:
        """Memories to embed next, of about `chunks_max` chunks together, at least one; handed out once."""
        batch: TextsToEmbed = []
        chunks = 0
        while self._queue and chunks < chunks_max:
            seq = self._queue.popleft()
            if seq in self.seqs:
                memory = memory_of(seq)
                batch.append((seq, [embedding_text(memory.role, text) for text in memory.chunk_texts()]))
                chunks += len(memory.spans)
        return batch
