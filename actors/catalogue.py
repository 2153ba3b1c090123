"""The records of a vault and the arrays that ranking reads: which chunk belongs to which memory, who is beside whom.

Owns numbering: a memory has a *position* (0, 1, 2 ... in the order of storing), a chunk has a number, a session has a
number. Positions and numbers are never reused; deleted ones are marked. Must never look at words or vectors.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from actors.ranking import VaultArrays
from actors.segmented_index import chunks_of, labels_of
from actors.segments import Labels
from models.memory import Memory
from models.messages import Scope
from models.text import content_hash, normalised

NOBODY = -1
"""Stands in `previous` and `following` where a session begins or ends."""

_FIRST_CAPACITY = 16


def text_digest(content: str) -> bytes:
    """16 bytes that texts share which differ only in case, punctuation and spacing."""
    return content_hash(normalised(content))


class Count(msgspec.Struct, frozen=True):
    """A vault or a session in numbers."""

    memories: int = 0
    chunks: int = 0
    tokens: int = 0
    oldest_ms: int | None = None
    newest_ms: int | None = None


class CatalogueCopy(msgspec.Struct, frozen=True, eq=False):
    """A catalogue as of one moment: by position, the memories that live and the numbers of their texts' digests."""

    memories: list[Memory | None]
    text_numbers: NDArray[np.int32]
    text_digests: list[bytes]

    def living(self) -> tuple[list[Memory], list[bytes]]:
        """The memories in the order of storing, and each one's `text_digest`. May run in a thread."""
        pairs = zip(self.memories, self.text_numbers.tolist(), strict=True)
        living = [(memory, self.text_digests[number]) for memory, number in pairs if memory is not None]
        return [memory for memory, _ in living], [digest for _, digest in living]


class _Column:
    """A numpy array that grows by doubling."""

    __slots__ = ("_array", "_length")

    def __init__(self, dtype: type) -> None:
        self._array: NDArray[Any] = np.zeros(_FIRST_CAPACITY, dtype=dtype)
        self._length = 0

    @classmethod
    def of(cls, values: Any, dtype: type) -> _Column:
        column = cls(dtype)
        column._length = len(values)
        column._array = np.zeros(max(len(values), _FIRST_CAPACITY), dtype)
        column._array[: len(values)] = values
        return column

    def append(self, value: int) -> None:
        if self._length == len(self._array):
            self._array = np.concatenate([self._array, np.zeros_like(self._array)])
        self._array[self._length] = value
        self._length += 1

    def __setitem__(self, position: int, value: int) -> None:
        self._array[position] = value

    @property
    def view(self) -> NDArray[Any]:
        return self._array[: self._length]


class _Session:
    """The memories of one session in the order of time: (timestamp_ms, position)."""

    __slots__ = ("chunks", "number", "order", "tokens")

    def __init__(self, number: int) -> None:
        self.number = number
        self.order: list[tuple[int, int]] = []
        self.chunks = 0
        self.tokens = 0

    def beside(self, timestamp_ms: int, position: int) -> tuple[int, int]:
        """The positions before and after a place in the order, whether or not it is taken."""
        place = bisect_left(self.order, (timestamp_ms, position))
        taken = place < len(self.order) and self.order[place] == (timestamp_ms, position)
        after = place + taken
        before = self.order[place - 1][1] if place else NOBODY
        return before, self.order[after][1] if after < len(self.order) else NOBODY


class Catalogue:
    """Memories by seq and by position, in columns."""

    def __init__(self) -> None:
        self._positions: dict[int, int] = {}  # by seq
        self._by_position: list[Memory | None] = []
        self._sessions: dict[str | None, _Session] = {None: _Session(0)}
        self._numbers_given = 1
        self._chunks = 0
        self._tokens = 0
        self._chunk_memory = _Column(np.int32)
        self._first_chunk = _Column(np.int32)
        self._session = _Column(np.int32)
        self._previous = _Column(np.int32)
        self._following = _Column(np.int32)
        self._characters = _Column(np.int32)
        self._text_number = _Column(np.int32)
        self._text_numbers: dict[bytes, int] = {}  # by digest of the normalised text
        self._small_talk = _Column(np.bool_)
        self._alive = _Column(np.bool_)
        self._timestamp_ms = _Column(np.int64)
        self._seq = _Column(np.int64)

    def add(self, memory: Memory) -> None:
        """Give a memory its position and its chunks their numbers."""
        assert memory.seq not in self._positions, "a seq is used once"
        position = len(self._by_position)
        session = self._session_of(memory.session_id)
        self._positions[memory.seq] = position
        self._by_position.append(memory)
        self._first_chunk.append(len(self._chunk_memory.view))
        for _ in memory.spans:
            self._chunk_memory.append(position)
        self._session.append(session.number)
        self._characters.append(len(memory.content))
        self._text_number.append(self._number_of_text(memory.content))
        self._small_talk.append(memory.small_talk)
        self._alive.append(1)
        self._seq.append(memory.seq)
        self._timestamp_ms.append(memory.timestamp_ms)
        before, after = session.beside(memory.timestamp_ms, position)
        self._previous.append(before)
        self._following.append(after)
        self._link(before, position)
        self._link(position, after)
        insort(session.order, (memory.timestamp_ms, position))
        self._count(session, memory, 1)

    @classmethod
    def of(cls, memories: Sequence[Memory], text_digests: Sequence[bytes]) -> Catalogue:
        """A catalogue of these memories, as if they had been added one after the other. May run in a thread.

        Args:
            text_digests: per memory, `text_digest` of its content.
        """
        catalogue = cls()
        count = len(memories)
        chunks = np.array([len(memory.spans) for memory in memories], np.int64)
        times = np.array([memory.timestamp_ms for memory in memories], np.int64)
        seqs = [memory.seq for memory in memories]
        numbers = catalogue._text_numbers
        catalogue._positions = dict(zip(seqs, range(count), strict=True))
        assert len(catalogue._positions) == count, "a seq is used once"
        catalogue._by_position = list(memories)
        catalogue._chunk_memory = _Column.of(np.repeat(np.arange(count), chunks), np.int32)
        catalogue._first_chunk = _Column.of(np.cumsum(chunks) - chunks, np.int32)
        catalogue._characters = _Column.of([len(memory.content) for memory in memories], np.int32)
        catalogue._text_number = _Column.of(
            [numbers.setdefault(digest, len(numbers)) for digest in text_digests], np.int32
        )
        catalogue._small_talk = _Column.of([memory.small_talk for memory in memories], np.bool_)
        catalogue._alive = _Column.of(np.ones(count), np.bool_)
        catalogue._timestamp_ms = _Column.of(times, np.int64)
        catalogue._seq = _Column.of(seqs, np.int64)
        catalogue._chunks = int(chunks.sum())
        catalogue._order_sessions(memories, times)
        return catalogue

    def _order_sessions(self, memories: Sequence[Memory], times: NDArray[np.int64]) -> None:
        """Which session each memory is of, and who is beside whom."""
        count = len(memories)
        sessions = [self._session_of(memory.session_id) for memory in memories]
        for session, memory in zip(sessions, memories, strict=True):
            session.chunks += len(memory.spans)
            session.tokens += memory.tokens
            self._tokens += memory.tokens
        numbers = np.array([session.number for session in sessions], np.int64)
        order = np.lexsort((times, numbers))  # stable: at the same time the order of storing counts
        before = np.full(count, NOBODY)
        after = np.full(count, NOBODY)
        beside = np.flatnonzero(numbers[order][1:] == numbers[order][:-1])
        before[order[beside + 1]] = order[beside]
        after[order[beside]] = order[beside + 1]
        self._session = _Column.of(numbers, np.int32)
        self._previous = _Column.of(before, np.int32)
        self._following = _Column.of(after, np.int32)
        for position, time in zip(order.tolist(), times[order].tolist(), strict=True):
            sessions[position].order.append((time, position))

    def remove(self, seq: int) -> None:
        """Forget a memory; its neighbours become neighbours of each other."""
        position = self._positions.pop(seq)
        memory = self.at(position)
        session = self._sessions[memory.session_id]
        self._link(*session.beside(memory.timestamp_ms, position))
        session.order.pop(bisect_left(session.order, (memory.timestamp_ms, position)))
        self._by_position[position] = None
        self._alive[position] = 0
        self._count(session, memory, -1)
        if not session.order and memory.session_id is not None:
            del self._sessions[memory.session_id]

    def _number_of_text(self, content: str) -> int:
        return self._text_numbers.setdefault(text_digest(content), len(self._text_numbers))

    def _session_of(self, session_id: str | None) -> _Session:
        session = self._sessions.get(session_id)
        if session is None:
            session = self._sessions[session_id] = _Session(self._numbers_given)
            self._numbers_given += 1
        return session

    def _link(self, before: int, after: int) -> None:
        if before != NOBODY:
            self._following[before] = after
        if after != NOBODY:
            self._previous[after] = before

    def _count(self, session: _Session, memory: Memory, sign: int) -> None:
        session.chunks += sign * len(memory.spans)
        session.tokens += sign * memory.tokens
        self._chunks += sign * len(memory.spans)
        self._tokens += sign * memory.tokens

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def placed(self) -> int:
        """Positions given: the memories ever added."""
        return len(self._by_position)

    def memory(self, seq: int) -> Memory:
        """The memory with this seq."""
        return self.at(self._positions[seq])

    def at(self, position: int) -> Memory:
        """The live memory at this position."""
        memory = self._by_position[position]
        assert memory is not None, "ranking leaves deleted memories out"
        return memory

    def chunks_of(self, seq: int) -> NDArray[np.int64]:
        """The chunk numbers of a memory."""
        first = self.first_chunk(seq)
        return np.arange(first, first + len(self.memory(seq).spans))

    def chunks_of_all(self, seqs: Collection[int]) -> NDArray[np.int64]:
        """The chunk numbers of several memories, one after the other."""
        positions = np.array([self._positions[seq] for seq in seqs], np.int64)
        counts = np.array([len(self.at(position).spans) for position in positions.tolist()], np.int64)
        ends = np.cumsum(counts)
        shifts = self._first_chunk.view[positions] - (ends - counts)
        return np.asarray(np.arange(counts.sum()) + np.repeat(shifts, counts), np.int64)

    def first_chunk(self, seq: int) -> int:
        """The number of a memory's first chunk."""
        return int(self._first_chunk.view[self._positions[seq]])

    def session_number(self, session_id: str | None) -> int | None:
        """The number of a session, or None when nothing was stored under it."""
        session = self._sessions.get(session_id)
        return session.number if session is not None else None

    def session_seqs(self, session_id: str | None) -> list[int]:
        """The seqs of a session's memories, oldest first."""
        session = self._sessions.get(session_id)
        return [self.at(position).seq for _, position in session.order] if session is not None else []

    @property
    def sessions(self) -> int:
        """Sessions with an id."""
        return len(self._sessions) - 1

    def count(self, session_id: str | None) -> Count:
        """One session's numbers, or the whole vault's for None."""
        if session_id is None:
            times = self._timestamp_ms.view[self._alive.view]
            ends = (int(times.min()), int(times.max())) if len(times) else (None, None)
            return Count(len(self._positions), self._chunks, self._tokens, *ends)
        session = self._sessions.get(session_id)
        if session is None:
            return Count()
        ends = session.order[0][0], session.order[-1][0]
        return Count(len(session.order), session.chunks, session.tokens, *ends)

    def eligible(self, scope: Scope, *, small_talk: bool) -> NDArray[np.bool_]:
        """Per memory, whether a read with this scope may return it.

        Args:
            small_talk: whether memories that carry nothing may be returned too.
        """
        alive: NDArray[np.bool_] = self._alive.view.copy()
        if not small_talk:
            alive &= ~self._small_talk.view
        if scope.sessionless_only:
            alive &= self._session.view == 0
        elif scope.session_id is not None and not scope.whole_vault:
            number = self.session_number(scope.session_id)
            alive &= self._session.view == (NOBODY if number is None else number)
        return alive

    def copy(self) -> CatalogueCopy:
        """All of it that cannot be made again quickly, for a thread. A few ms for 100 000 memories."""
        return CatalogueCopy(
            memories=self._by_position.copy(),
            text_numbers=self._text_number.view.copy(),
            text_digests=list(self._text_numbers),  # in the order of their numbers
        )

    def labels_of(self, chunks: NDArray[np.int64]) -> Labels:
        """Names of chunks that outlive this incarnation of the vault: seq and place within the memory."""
        return labels_of(chunks, chunk_memory=self._chunk_memory.view, seqs=self._seq.view)

    def chunks_with(self, labels: Labels) -> NDArray[np.int32]:
        """The present numbers of chunks by their labels; `actors.segments.NOWHERE` for those that are deleted."""
        return chunks_of(labels, chunk_memory=self._chunk_memory.view, seqs=self._seq.view, alive=self._alive.view)

    def arrays(self) -> VaultArrays:
        """The columns that ranking reads, as views that are valid until the next change."""
        return VaultArrays(
            chunk_memory=self._chunk_memory.view,
            previous=self._previous.view,
            next=self._following.view,
            session=self._session.view,
            characters=self._characters.view,
            text_number=self._text_number.view,
            timestamp_ms=self._timestamp_ms.view,
        )
