"""The latest questions to a vault, with their vectors: what is asked in a chat is remembered a moment later.

Owns the few that are kept. A chat's question comes back as the user's message of its exchange, word for word; its
vector is known then, and the model need not read it again: that took 3 ms of a core, just when the next question came.
Each is handed out once.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from models.memory import Memory
from models.messages import Recall
from models.text import embedding_text

QUESTIONS_MAX = 16
"""Chats of one vault that may be under way between their question and their exchange, the latest."""

CHARACTERS_MAX = 1_000
"""Longer questions are several chunks when they are remembered; a shorter one takes 2 kB with its vector."""


class RecentQuestions:
    """Vectors by the text that they are of."""

    __slots__ = ("_vectors",)

    def __init__(self) -> None:
        self._vectors: OrderedDict[str, NDArray[np.float16]] = OrderedDict()

    def note(self, question: Recall, *, model_id: str) -> None:
        """This was asked. Passed over is what was not embedded, by this model and as memories are, and what is long."""
        if question.meaning is None or question.model_id != model_id or not question.vector:
            return
        if len(question.meaning) > CHARACTERS_MAX:
            return
        self._vectors[question.meaning] = np.frombuffer(question.vector, dtype="<f4").astype("<f2")
        self._vectors.move_to_end(question.meaning)
        if len(self._vectors) > QUESTIONS_MAX:
            self._vectors.popitem(last=False)

    def clear(self) -> None:
        """Something may have been deleted: no word of it may stay behind here."""
        self._vectors.clear()

    def take(self, memory: Memory) -> NDArray[np.float16] | None:
        """The vectors of a memory that was asked as a question, of shape (1, dims), if it is of one chunk."""
        if not self._vectors or len(memory.spans) != 1:
            return None
        row = self._vectors.pop(embedding_text(memory.role, memory.chunk_texts()[0]), None)
        return None if row is None else row[None]
