"""Which memories of a vault are meant: what lists, deletions by filter, undo and retention choose by.

Pure data and pure questions about one memory. What columns can answer for all memories at once is asked of those
(`actors.selecting`); `MemoryFilter.test` asks about the rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec

from models.memory import Memory, Role, Source

Test = Callable[[Memory], bool]


class MemoryFilter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Conditions that all have to hold. Times are epoch milliseconds; ranges are half-open.

    Attributes:
        session_id: only this session's.
        sessionless: only memories without a session.
        request_id: only what this request brought.
        since_ms, until_ms: when it was said: from the first on, before the second.
        stored_since_ms, stored_before_ms: when it was stored, likewise.
        metadata: keys with their values as text.
        words: only memories that hold all of these words.
        flagged: whether they look planted (`models.screening`).
    """

    session_id: str | None = None
    sessionless: bool = False
    role: Role | None = None
    source: Source | None = None
    model: str | None = None
    request_id: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    stored_since_ms: int | None = None
    stored_before_ms: int | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    words: str | None = None
    flagged: bool | None = None

    @property
    def looks_inside(self) -> bool:
        """Whether `test` asks anything."""
        return bool(self._questions())

    def test(self) -> Test:
        """Whether a memory fulfils what no column knows: who, where from, when stored, metadata. Made once for many."""
        questions = self._questions()
        if len(questions) == 1:
            return questions[0]
        return lambda memory: all(question(memory) for question in questions)

    def _questions(self) -> list[Test]:
        questions: list[Test] = []
        if self.role is not None:
            questions.append(lambda memory: memory.role == self.role)
        if self.source is not None:
            questions.append(lambda memory: memory.source == self.source)
        if self.model is not None:
            questions.append(lambda memory: memory.model == self.model)
        if self.request_id is not None:
            questions.append(lambda memory: memory.request_id == self.request_id)
        if (since_ms := self.stored_since_ms) is not None:
            questions.append(lambda memory: memory.stored_ms >= since_ms)
        if (before_ms := self.stored_before_ms) is not None:
            questions.append(lambda memory: memory.stored_ms < before_ms)
        if self.flagged is not None:
            questions.append(lambda memory: (memory.flags > 0) == self.flagged)
        return questions + [_metadata_test(key, wanted) for key, wanted in self.metadata]

    def admits(self, memory: Memory) -> bool:
        """Whether a memory fulfils all but the words."""
        return (
            self.test()(memory)
            and self.session_id in (None, memory.session_id)
            and not (self.sessionless and memory.session_id is not None)
            and (self.since_ms is None or memory.timestamp_ms >= self.since_ms)
            and (self.until_ms is None or memory.timestamp_ms < self.until_ms)
        )


def _metadata_test(key: str, wanted: str) -> Test:
    """Whether a memory's metadata has this key with what the text says: itself, a number, true, false or null."""
    number = _number(wanted)
    literals = {"true": True, "false": False, "null": None}

    def has(memory: Memory) -> bool:
        if memory.metadata is None or key not in memory.metadata:
            return False
        value = memory.metadata[key]
        if isinstance(value, str):
            return value == wanted
        if isinstance(value, bool) or value is None:
            return wanted in literals and value is literals[wanted]
        return number is not None and isinstance(value, int | float) and value == number

    return has


def _number(text: str) -> int | float | None:
    """What a text says as a JSON number, so that 3, 3.0 and 3e0 are one."""
    try:
        number = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return number if isinstance(number, int | float) and not isinstance(number, bool) else None
