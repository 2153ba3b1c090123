"""One vault: everything one end user's memory consists of, in memory, synchronous and deterministic.

Owns the records, the postings, the vectors, and which messages are known. No Trio, no clock, no disk: the actor brings
rows from the log and times from the messages, and takes away steps for the store. Applying the same rows in the same
order gives the same vault, which is what makes replay after a crash safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import numpy as np
from numpy.typing import NDArray

from actors.analysis import Analysis, memory_of
from actors.catalogue import Catalogue
from actors.holdings import Holding
from actors.identity import KnownMessages
from actors.imprint import ImprintSource, Restored
from actors.index import DenseMatch
from actors.lexicon import Lexicon
from actors.ranking_inputs import RankQuery, VaultArrays
from actors.segmented_index import THRESHOLD, SegmentedIndex
from actors.segments import BuildJob, Segment
from actors.selecting import Selection, candidates
from actors.session_listing import list_sessions
from actors.store.protocol import Materialisation, Vectors
from actors.unembedded import TextsToEmbed, Unembedded
from actors.unwritten import Unwritten
from actors.vault_reading import VaultReader
from models.memory import InboxRow, Memory, Message
from models.messages import Found, ListedSessions, ListSessions, Recall, Recalled, Search, Sift, Sifted, VaultStats
from models.selection import MemoryFilter
from models.words import terms

MEMORY_BYTES = 900
"""A memory's records beside its text, terms and vectors: measured by `bench/vault_memory.py`, rounded up."""

PURGE_TERMS_MAX = 500
"""Terms that one slice of a purge looks at: about 2 ms."""


_incarnations = count(1)


class Vault:
    """The state of one vault. Every method runs to its end without yielding."""

    def __init__(
        self,
        *,
        dims: int,
        repeat_window_ms: int,
        relevance_min: float,
        model_id: str = "",
        hnsw_threshold: int = THRESHOLD,
        screens: bool = False,
    ) -> None:
        self._known = KnownMessages(repeat_window_ms=repeat_window_ms)
        self._catalogue = Catalogue()
        self._lexicon = Lexicon()
        self._index = SegmentedIndex(dims, model_id=model_id, threshold=hnsw_threshold)
        self._reader = VaultReader(
            self._catalogue,
            self._lexicon,
            self._index,
            model_id=model_id,
            relevance_min=relevance_min,
            screens=screens,
        )
        self._unembedded = Unembedded()
        self._unwritten = Unwritten()
        self._created_ms = 0
        self._next_seq = 1
        self._text_bytes = 0
        self._forgotten = (
            next(_incarnations) << 32
        )  # so that the count of an earlier incarnation is never taken for this one's
        self.duplicates = 0

    # Taking in: hydration first, then rows of the log.

    def begin(self, *, created_ms: int, next_seq: int) -> None:
        """Start from what the store says."""
        self._created_ms = created_ms
        self._next_seq = next_seq

    def take_over(self, first: Restored) -> None:
        """Begin with the store's first memories as an imprint gives them, in place of `load` for each."""
        assert not self.chunks, "a vault begins once"
        self._catalogue, self._lexicon, self._known = first.catalogue, first.lexicon, first.known
        self._reader = self._reader.of(first.catalogue, first.lexicon)
        self._index.grow(len(self._lexicon))
        self._text_bytes = first.characters + first.count * MEMORY_BYTES

    def imprint_source(self) -> ImprintSource:
        """A copy of what the imprint of this vault is made of."""
        return ImprintSource(catalogue=self._catalogue.copy(), lexicon=self._lexicon.copy())

    @property
    def placed(self) -> int:
        """Memories ever placed in this incarnation, deleted ones included."""
        return self._catalogue.placed

    def load(self, memory: Memory, *, embedded: bool) -> None:
        """Take in a memory that the store holds; its vectors follow (`fill`) if it has all, else it awaits them."""
        self._place(memory, tuple(tuple(terms(text)) for text in memory.chunk_texts()))
        if memory.spans and not embedded:
            self.await_embedding(memory.seq)

    def wants(self, seq: int, rows: int) -> bool:
        """Whether so many vectors are all that this memory has chunks for."""
        return len(self._catalogue.memory(seq).spans) == rows

    def adopt(self, segment: Segment) -> None:
        """Take in a segment of the index from a snapshot, the newest first, before `fill`."""
        self._index.adopt(segment, self._catalogue.chunks_with(segment.labels))

    def fill(self, vectors: Vectors) -> None:
        """Put vectors from the store, as far as no segment has them."""
        if vectors:
            chunks = self._catalogue.chunks_of_all(vectors)
            missing = ~self._index.covers(chunks)
            if missing.any():
                self._index.put(chunks[missing], np.concatenate(list(vectors.values()))[missing])

    def begin_row(self, row: InboxRow) -> list[Message]:
        """Begin a row of the log: which of its messages are new, in order."""
        self._unwritten.begin_row(row)
        new = [row.exchange.messages[position] for position in self._known.unknown(row.exchange)]
        self.duplicates += len(row.exchange.messages) - len(new)
        return new

    def add(self, row: InboxRow, message: Message, analysis: Analysis) -> Memory:
        """Make a memory of a new message of the open row."""
        memory = memory_of(message, row.exchange, analysis, seq=self._next_seq)
        self._next_seq += 1
        self._place(memory, analysis.chunk_terms if memory.spans else ())
        self._unwritten.add(row, memory)
        if memory.spans:
            self.await_embedding(memory.seq)
        return memory

    def end_row(self, row: InboxRow) -> None:
        """The open row is taken in."""
        self._unwritten.end_row(row)

    @property
    def last_row_id(self) -> int:
        """The last row of the log that was taken in; 0 for none."""
        return self._unwritten.last_row_id

    def sift(self, asked: Sift) -> Sifted:
        """Which messages of an exchange would be stored now."""
        if asked.forgotten == self._forgotten:
            self.duplicates += asked.left_out
        return Sifted(unknown=tuple(self._known.unknown(asked.exchange)), forgotten=self._forgotten)

    def _place(self, memory: Memory, chunk_terms: Sequence[Sequence[str]]) -> None:
        self._catalogue.add(memory)
        for chunk_term_list in chunk_terms:
            self._lexicon.add(chunk_term_list)
        self._index.grow(len(self._lexicon))
        self._known.add(memory)
        self._text_bytes += len(memory.content) + MEMORY_BYTES

    # Embedding.

    def await_embedding(self, seq: int) -> None:
        """This memory has no vectors yet."""
        self._unembedded.add(seq)

    def next_to_embed(self, *, chunks_max: int) -> TextsToEmbed:
        """Memories to embed next, of about `chunks_max` chunks together, at least one; handed out once."""
        return self._unembedded.take(self._catalogue.memory, chunks_max=chunks_max)

    def attach(self, seq: int, vectors: NDArray[np.float16]) -> None:
        """A memory's vectors have come; none at all if it could not be embedded. Deleted memories are passed over."""
        if seq not in self._unembedded.seqs:
            return
        self._unembedded.seqs.discard(seq)
        if len(vectors):
            self._index.put(self._catalogue.chunks_of(seq), vectors)
            self._unwritten.put_vectors(seq, vectors)

    @property
    def pending(self) -> int:
        """Memories without vectors yet."""
        return len(self._unembedded.seqs)

    # Steps for the store.

    def take_step(self, model_id: str, *, unfinished: bool = False) -> Materialisation | None:
        """What can be written now: rows whose memories are all embedded, in the order of the log.

        Args:
            unfinished: also rows that still wait for vectors; those follow in a later step.

        Returns:
            A step to write, handed out once, or None.
        """
        return self._unwritten.take_step(
            model_id, unembedded=self._unembedded.seqs, next_seq=self._next_seq, unfinished=unfinished
        )

    # Reading.

    def recall(self, query: Recall) -> Recalled:
        """Chunks worth putting into a context, best first; none at all when no memory is relevant."""
        return self._reader.recall(query)

    def search(self, query: Search) -> Found:
        """Memories, best first, up to the limit."""
        return self._reader.search(query)

    def question(self, query: Recall | Search, *, limit: int, small_talk: bool) -> tuple[RankQuery, VaultArrays]:
        """The question as it meets this vault, for benches and tests; see `VaultReader.question`."""
        return self._reader.question(query, limit=limit, small_talk=small_talk)

    def nearness(self, vector: NDArray[np.float32]) -> DenseMatch:
        """How near every chunk is to a normalised vector, for benches; `rank_vault` looks at fewer."""
        return self._index.match(vector, candidates=max(1, self.chunks))

    def stats(self, session_id: str | None) -> VaultStats:
        """The vault, or one session of it, in numbers."""
        counted = self._catalogue.count(session_id)
        return VaultStats(
            memories=counted.memories,
            chunks=counted.chunks,
            pending=len(self._unembedded.seqs) if session_id is None else self._pending_in(session_id),
            sessions=self._catalogue.sessions if session_id is None else int(counted.memories > 0),
            duplicates=self.duplicates,
            tokens=counted.tokens,
            oldest_ms=counted.oldest_ms,
            newest_ms=counted.newest_ms,
            flagged=counted.flagged,
            created_ms=self._created_ms,
            bytes_in_memory=self.nbytes,
            index=self._index.statistics(),
        )

    def _pending_in(self, session_id: str) -> int:
        return sum(self._catalogue.memory(seq).session_id == session_id for seq in self._unembedded.seqs)

    @property
    def memories(self) -> int:
        """Memories held."""
        return len(self._catalogue)

    @property
    def chunks(self) -> int:
        """Chunks ever placed, deleted ones included."""
        return len(self._lexicon)

    @property
    def nbytes(self) -> int:
        """About how much memory the vault takes."""
        return self._text_bytes + self._lexicon.nbytes + self._index.nbytes

    def holdings(self) -> list[Holding]:
        """What takes time to be freed; without it the vault is of no use any more."""
        parts = (self._catalogue, self._lexicon, self._known, self._index)
        return [holding for part in parts for holding in part.holdings()]

    # The index of a large vault is built in parts, beside the turns.

    def mend(self) -> None:
        """Nothing was deleted for a while: `plan_build` may have it built anew without what was."""
        self._index.mend()

    def plan_build(self) -> BuildJob | None:
        """What should be built into a segment now, if anything; handed out once."""
        return self._index.plan(self._catalogue.labels_of)

    def install(self, segment: Segment | None) -> None:
        """Take in what was built, or that nothing came of it."""
        if segment is None:
            self._index.abandon()
        elif self._index.expects(segment):  # else an earlier incarnation had it built
            self._index.install(segment)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments of the index: what to keep on the disk."""
        return self._index.segments

    # Deleting.

    def purge(self) -> bool:
        """Drop words that only deleted memories held, a slice of them; True when none are left."""
        return self._lexicon.purge(PURGE_TERMS_MAX)

    def session_seqs(self, session_id: str) -> list[int]:
        """The memories of one session."""
        return self._catalogue.session_seqs(session_id)

    def indexed_in(self, seqs: Sequence[int]) -> list[Segment]:
        """The segments of the index that hold vectors of any of these memories."""
        return self._index.holding(self._catalogue.chunks_of_all(seqs))

    def forget(self, seq: int) -> Memory:
        """Drop a memory that the store has deleted, and return it. `know_again` has to follow."""
        self._forgotten += 1
        memory = self._catalogue.memory(seq)
        for chunk in self._catalogue.chunks_of(seq):
            self._lexicon.remove(int(chunk))
            self._index.remove(int(chunk))
        self._catalogue.remove(seq)
        self._known.remove(memory)
        self._unembedded.seqs.discard(seq)
        self._unwritten.drop(seq)
        self._text_bytes -= len(memory.content) + MEMORY_BYTES
        return memory

    def know_again(self, gone: Sequence[Memory]) -> None:
        """What is left of the memories with the words of these is known as before."""
        for memory in self._catalogue.alike_any(gone):
            self._known.add(memory)

    # Single memories.

    def find(self, number: int) -> Memory | None:
        """The memory with this public number, if there is one."""
        return self._catalogue.find(number)

    def twin(self, message: Message) -> Memory | None:
        """The newest memory that makes this message a known one, as far as times do not say otherwise."""
        if message.external_id is not None:
            seq = self._known.named(message.external_id)
            return None if seq is None else self._catalogue.memory(seq)
        who = message.session_id, message.role, message.content
        alike = self._catalogue.alike(message.content)
        same = [one for one in alike if (one.session_id, one.role, one.content) == who]
        twins = [one for one in same if message.timestamp_ms in (None, one.timestamp_ms)]
        return max(twins, key=lambda one: (one.stored_ms, one.seq), default=None)

    def is_pending(self, seq: int) -> bool:
        """Whether a memory awaits its vectors."""
        return seq in self._unembedded.seqs

    def selection(self, wanted: MemoryFilter) -> Selection:
        """What a filter means, as far as columns can tell; valid until the next change."""
        session = self._catalogue.session_number(wanted.session_id)
        columns = self._catalogue.selectable()
        chosen = candidates(columns, self._lexicon, wanted, session_number=session)
        return Selection(columns=columns, chosen=chosen, wanted=wanted, at=self._catalogue.at)

    def list_sessions(self, wanted: ListSessions) -> ListedSessions:
        """A page of the sessions, see `ListSessions`."""
        return list_sessions(self._catalogue.sessions_of(wanted.only), wanted, seq_at=self._catalogue.seq_at)

    def replace(self, memory: Memory) -> None:
        """Put a memory in the place of the one with its seq and its text, as the store has done."""
        before = self._catalogue.memory(memory.seq)
        self._catalogue.replace(memory)
        self._known.remove(before)
        self.know_again([before])

    def take_seq(self) -> int:
        """A seq for a memory whose text is changed: the highest there is."""
        self._next_seq += 1
        return self.last_seq

    @property
    def last_seq(self) -> int:
        """The highest seq that was given."""
        return self._next_seq - 1

    def place(self, memory: Memory, analysis: Analysis) -> None:
        """Take in a memory that the store holds without vectors, in place of one with another text."""
        self._place(memory, analysis.chunk_terms)
        if memory.spans:
            self.await_embedding(memory.seq)
