"""The records of a vault and the arrays that ranking reads: which chunk belongs to which memory, who is beside whom.

Owns numbering: a memory has a *position* (0, 1, 2 ... in the order of storing), a chunk has a number, a session has a
number. Positions and numbers are never reused; deleted ones are marked. Must never look at words or vectors.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from actors.columns import Column, items
from actors.holdings import Holding
from actors.layout import LayoutCache
from actors.ranking_inputs import VaultArrays
from actors.same_texts import SameTexts
from actors.segmented_index import chunks_of, labels_of
from actors.segments import Labels
from actors.selecting import Selectable
from actors.session_order import NOBODY, SessionOrder
from actors.showings import Showings
from models.memory import Memory
from models.messages import Scope


class Count(msgspec.Struct, frozen=True):
    """A vault or a session in numbers."""

    memories: int = 0
    chunks: int = 0
    tokens: int = 0
    oldest_ms: int | None = None
    newest_ms: int | None = None
    flagged: int = 0


class CatalogueCopy(msgspec.Struct, frozen=True, eq=False):
    """A catalogue as of one moment: by position, the memories that live and the numbers of their texts' digests."""

    memories: list[Memory | None]
    text_numbers: NDArray[np.int32]
    text_digests: list[bytes]

    def living(self) -> tuple[list[Memory], list[bytes]]:
        """The memories in the order of storing, and each one's `text_digest`. May run in a thread."""
        pairs = zip(self.memories, items(self.text_numbers), strict=True)
        digests = [self.text_digests[number] for memory, number in pairs if memory is not None]
        return [memory for memory in self.memories if memory is not None], digests


class Catalogue:
    """Memories by seq and by position, in columns."""

    def __init__(self) -> None:
        self._positions: dict[int, int] = {}  # by seq
        self._by_position: list[Memory | None] = []
        self._sessions: dict[str | None, SessionOrder] = {None: SessionOrder(0)}
        self._numbers_given = 1
        self._chunks = 0
        self._tokens = 0
        self._chunk_memory = Column(np.int32)
        self._first_chunk = Column(np.int32)
        self._session = Column(np.int32)
        self._previous = Column(np.int32)
        self._following = Column(np.int32)
        self._characters = Column(np.int32)
        self._texts = SameTexts()
        self._small_talk = Column(np.bool_)
        self._alive = Column(np.bool_)
        self._timestamp_ms = Column(np.int64)
        self._seq = Column(np.int64)
        self._showings = Showings()
        self._layouts = LayoutCache()
        self._flagged: set[int] = set()  # positions of those that look planted: few, if any
        self._changed: dict[int, int] = {}  # by number, the seq of a memory whose text was changed

    def add(self, memory: Memory) -> None:
        """Give a memory its position and its chunks their numbers."""
        assert memory.seq not in self._positions, "a seq is used once"
        position = len(self._by_position)
        self._positions[memory.seq] = position
        self._by_position.append(memory)
        if memory.first_seq is not None:
            self._changed[memory.first_seq] = memory.seq
        self._first_chunk.append(len(self._chunk_memory.view))
        for _ in memory.spans:
            self._chunk_memory.append(position)
        self._characters.append(len(memory.content))
        self._texts.add(memory.content)
        self._small_talk.append(memory.small_talk)
        if memory.flags:
            self._flagged.add(position)
        self._alive.append(1)
        self._seq.append(memory.seq)
        self._showings.grow(position + 1)
        for column in (self._session, self._timestamp_ms, self._previous, self._following):
            column.append(0)
        self._put_in(position, memory)

    @classmethod
    def of(cls, memories: Sequence[Memory], text_digests: Iterable[bytes]) -> Catalogue:
        """A catalogue of these memories, as if they had been added one after the other. May run in a thread.

        Makes no more lists as long as this one: the garbage collector looks at each of their entries up to three times,
        with the interpreter to itself, which takes 0.1 s a list of a million.

        Args:
            text_digests: per memory, `text_digest` of its content.
        """
        catalogue = cls()
        count = len(memories)
        chunks = np.fromiter((len(memory.spans) for memory in memories), np.int64, count)
        times = np.fromiter((memory.timestamp_ms for memory in memories), np.int64, count)
        seqs = np.fromiter((memory.seq for memory in memories), np.int64, count)
        for position, seq in enumerate(items(seqs)):
            catalogue._positions[seq] = position
        assert len(catalogue._positions) == count, "a seq is used once"
        catalogue._by_position = list(memories)
        catalogue._chunk_memory = Column.of(np.repeat(np.arange(count), chunks), np.int32)
        catalogue._first_chunk = Column.of(np.cumsum(chunks) - chunks, np.int32)
        characters = (len(memory.content) for memory in memories)
        catalogue._characters = Column.of(np.fromiter(characters, np.int32, count), np.int32)
        catalogue._texts = SameTexts.of(text_digests, count=count)
        small_talk = (memory.small_talk for memory in memories)
        catalogue._small_talk = Column.of(np.fromiter(small_talk, np.bool_, count), np.bool_)
        catalogue._alive = Column.of(np.ones(count), np.bool_)
        catalogue._timestamp_ms = Column.of(times, np.int64)
        catalogue._seq = Column.of(seqs, np.int64)
        catalogue._showings.grow(count)
        catalogue._flagged = {position for position, memory in enumerate(memories) if memory.flags}
        catalogue._changed = {memory.number: memory.seq for memory in memories if memory.first_seq is not None}
        catalogue._chunks = int(chunks.sum())
        catalogue._order_sessions(memories, times)
        return catalogue

    def _order_sessions(self, memories: Sequence[Memory], times: NDArray[np.int64]) -> None:
        """Which session each memory is of, and who is beside whom."""
        count = len(memories)
        numbers = np.empty(count, np.int64)
        for position, memory in enumerate(memories):
            session = self._session_of(memory.session_id)
            session.chunks += len(memory.spans)
            session.tokens += memory.tokens
            self._tokens += memory.tokens
            numbers[position] = session.number
        order = np.lexsort((times, numbers))  # stable: at the same time the order of storing counts
        before = np.full(count, NOBODY)
        after = np.full(count, NOBODY)
        beside = np.flatnonzero(numbers[order][1:] == numbers[order][:-1])
        before[order[beside + 1]] = order[beside]
        after[order[beside]] = order[beside + 1]
        self._session = Column.of(numbers, np.int32)
        self._previous = Column.of(before, np.int32)
        self._following = Column.of(after, np.int32)
        for position, time in zip(items(order), items(times[order]), strict=True):
            self._sessions[memories[position].session_id].order.append((time, position))

    def remove(self, seq: int) -> None:
        """Forget a memory; its neighbours become neighbours of each other."""
        position = self._positions.pop(seq)
        memory = self.at(position)
        self._take_out(position, memory)
        self._by_position[position] = None
        self._flagged.discard(position)
        self._alive[position] = 0
        if memory.first_seq is not None:
            del self._changed[memory.first_seq]

    def replace(self, memory: Memory) -> None:
        """Put a memory in the place of the one with its seq, which has the same text: it may be of another time or
        session."""
        position = self._positions[memory.seq]
        self._take_out(position, self.at(position))
        self._by_position[position] = memory
        self._put_in(position, memory)

    def _put_in(self, position: int, memory: Memory) -> None:
        """Where a memory stands in time and among others."""
        session = self._session_of(memory.session_id)
        self._session[position] = session.number
        self._timestamp_ms[position] = memory.timestamp_ms
        before, after = session.beside(memory.timestamp_ms, position)
        self._previous[position] = before
        self._following[position] = after
        self._link(before, position)
        self._link(position, after)
        session.put(memory.timestamp_ms, position)
        self._count(session, memory, 1)

    def _take_out(self, position: int, memory: Memory) -> None:
        """The same backwards; a session ends with its last memory."""
        session = self._sessions[memory.session_id]
        self._link(*session.beside(memory.timestamp_ms, position))
        session.remove(memory.timestamp_ms, position)
        self._count(session, memory, -1)
        if not session.order and memory.session_id is not None:
            del self._sessions[memory.session_id]

    def _session_of(self, session_id: str | None) -> SessionOrder:
        session = self._sessions.get(session_id)
        if session is None:
            session = self._sessions[session_id] = SessionOrder(self._numbers_given)
            self._numbers_given += 1
        return session

    def _link(self, before: int, after: int) -> None:
        if before != NOBODY:
            self._following[before] = after
        if after != NOBODY:
            self._previous[after] = before

    def _count(self, session: SessionOrder, memory: Memory, sign: int) -> None:
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

    def find(self, number: int) -> Memory | None:
        """The memory with this number, if there is one."""
        position = self._positions.get(self._changed.get(number, number))
        memory = None if position is None else self.at(position)
        return memory if memory is not None and memory.number == number else None

    def alike(self, content: str) -> list[Memory]:
        """The memories whose texts differ from this at most in case, punctuation and spacing, in their order."""
        return [self.at(int(place)) for place in np.flatnonzero(self._alive.view & self._texts.same_as(content))]

    def alike_any(self, memories: Iterable[Memory]) -> list[Memory]:
        """The memories that are alike any of these, which may be deleted, in their order."""
        same = self._texts.same_as_any(memory.content for memory in memories)
        return [self.at(int(place)) for place in np.flatnonzero(self._alive.view & same)]

    def beside(self, positions: NDArray[np.integer]) -> Iterator[tuple[Memory | None, Memory | None]]:
        """What was said before and after each of these memories in its session; None for nothing, and for what carries
        nothing."""
        steps = (column.view[positions].tolist() for column in (self._previous, self._following))
        for before, after in zip(*steps, strict=True):
            yield self._carrying(before), self._carrying(after)

    def _carrying(self, position: int) -> Memory | None:
        memory = None if position == NOBODY else self.at(position)
        return None if memory is None or memory.small_talk or not memory.spans else memory

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

    def first_chunks(self, positions: NDArray[np.integer]) -> NDArray[np.int32]:
        """The number of the first chunk of each of these memories."""
        first: NDArray[np.int32] = self._first_chunk.view[positions]
        return first

    def session_number(self, session_id: str | None) -> int | None:
        """The number of a session, or None when nothing was stored under it."""
        session = self._sessions.get(session_id)
        return session.number if session is not None else None

    def sessions_of(self, only: str | None) -> Mapping[str | None, SessionOrder]:
        """All sessions by their ids, or only this one; the memories without a session stand under None."""
        if only is None:
            return self._sessions
        return {only: self._sessions[only]} if only in self._sessions else {}

    def seq_at(self, position: int) -> int:
        """The seq of the live memory at this position."""
        return self.at(position).seq

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
            return Count(len(self._positions), self._chunks, self._tokens, ends[0], ends[1], len(self._flagged))
        session = self._sessions.get(session_id)
        if session is None:
            return Count()
        ends = session.order[0][0], session.order[-1][0]
        flagged = sum(self.at(position).session_id == session_id for position in self._flagged)
        return Count(len(session.order), session.chunks, session.tokens, ends[0], ends[1], flagged)

    def eligible(self, scope: Scope, *, small_talk: bool, flagged: bool = True) -> NDArray[np.bool_]:
        """Per memory, whether a read with this scope may return it.

        Args:
            small_talk: whether memories that carry nothing may be returned too.
            flagged: whether those that look planted may.
        """
        alive: NDArray[np.bool_] = self._alive.view.copy()
        if not small_talk:
            alive &= ~self._small_talk.view
        if not flagged:
            alive[list(self._flagged)] = False
        if scope.sessionless_only:
            alive &= self._session.view == 0
        elif scope.session_id is not None and not scope.whole_vault:
            number = self.session_number(scope.session_id)
            alive &= self._session.view == (NOBODY if number is None else number)
        return alive

    def shown(self, positions: NDArray[np.integer]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """What the memories at these positions show; see `Showings.of`."""
        return self._showings.of(positions, self._by_position)

    def speakers(self) -> list[str]:
        """The names of the speakers met so far, by number; "" stands for none."""
        return self._showings.speakers()

    def copy(self) -> CatalogueCopy:
        """All of it that cannot be made again quickly, for a thread. A few ms for 100 000 memories."""
        return CatalogueCopy(
            memories=self._by_position.copy(),
            text_numbers=self._texts.view.copy(),
            text_digests=self._texts.digests,
        )

    def holdings(self) -> list[Holding]:
        """What takes time to be freed."""
        orders = [session.order for session in self._sessions.values()]
        return [self._by_position, self._positions, *self._texts.holdings(), *orders, self._sessions]

    def labels_of(self, chunks: NDArray[np.int64]) -> Labels:
        """Names of chunks that outlive this incarnation of the vault: seq and place within the memory."""
        return labels_of(chunks, chunk_memory=self._chunk_memory.view, seqs=self._seq.view)

    def chunks_with(self, labels: Labels) -> NDArray[np.int32]:
        """The present numbers of chunks by their labels; `actors.segments.NOWHERE` for those that are deleted."""
        return chunks_of(labels, chunk_memory=self._chunk_memory.view, seqs=self._seq.view, alive=self._alive.view)

    def selectable(self) -> Selectable:
        """The columns that selecting reads, as views that are valid until the next change."""
        numbers = self._seq.view
        if self._changed:
            numbers = numbers.copy()
            numbers[[self._positions[seq] for seq in self._changed.values()]] = list(self._changed)
        return Selectable(
            alive=self._alive.view,
            session=self._session.view,
            timestamp_ms=self._timestamp_ms.view,
            seq=self._seq.view,
            number=numbers,
            chunk_memory=self._chunk_memory.view,
        )

    def arrays(self) -> VaultArrays:
        """The columns that ranking reads, as views that are valid until the next change."""
        return VaultArrays(
            chunk_memory=self._chunk_memory.view,
            previous=self._previous.view,
            next=self._following.view,
            session=self._session.view,
            characters=self._characters.view,
            text_number=self._texts.view,
            timestamp_ms=self._timestamp_ms.view,
            layouts=self._layouts,
        )
