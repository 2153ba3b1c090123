"""One vault: everything one end user's memory consists of, in memory, synchronous and deterministic.

Owns the records, the postings, the vectors, and which messages are known. No Trio, no clock, no disk: the actor brings
rows from the log and times from the messages, and takes away steps for the store. Applying the same rows in the same
order gives the same vault, which is what makes replay after a crash safe.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from actors.analysis import Analysis
from actors.catalogue import Catalogue
from actors.describing import describing
from actors.holdings import Holding
from actors.identity import Identity, KnownMessages, identity
from actors.imprint import ImprintSource, Restored
from actors.index import DenseMatch
from actors.lexicon import Lexicon
from actors.ranking import Ranked, explanation, is_relevant
from actors.ranking_inputs import RankQuery, VaultArrays
from actors.segmented_index import THRESHOLD, SegmentedIndex
from actors.segments import BuildJob, Segment
from actors.shortlist import rank_vault
from actors.store.protocol import Materialisation, Vectors
from models.memory import LOCAL_RECALL_MODEL, Exchange, InboxRow, Memory, Message
from models.messages import Found, Hit, Recall, Recalled, Search, Sifted, VaultStats
from models.text import embedding_text
from models.traits import wants_of
from models.words import terms

MEMORY_BYTES = 900
"""A memory's records beside its text, terms and vectors: measured by `bench/vault_memory.py`, rounded up."""

PURGE_TERMS_MAX = 500
"""Terms that one slice of a purge looks at: about 2 ms."""


TextsToEmbed = list[tuple[int, list[str]]]
"""Memories by seq, each with the texts of its chunks."""


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
    ) -> None:
        self._relevance_min = relevance_min
        self._known = KnownMessages(repeat_window_ms=repeat_window_ms)
        self._catalogue = Catalogue()
        self._lexicon = Lexicon()
        self._index = SegmentedIndex(dims, model_id=model_id, threshold=hnsw_threshold)
        self._vectors: Vectors = {}  # of memories that the store does not hold with their vectors yet
        self._to_embed: deque[int] = deque()
        self._unembedded: set[int] = set()
        self._rows: dict[int, list[int]] = {}  # inbox row -> seqs of what it became, in order; until materialised
        self._unwritten: dict[int, Memory] = {}
        self._row_open: int | None = None
        self._created_ms = 0
        self._next_seq = 1
        self._text_bytes = 0
        self.last_row_id = 0
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
        assert self._row_open is None, "one row at a time"
        assert row.row_id > self.last_row_id, "rows come in the order of the log"
        self._row_open = row.row_id
        self._rows[row.row_id] = []
        new = [row.exchange.messages[position] for position in self._unknown(row.exchange)]
        self.duplicates += len(row.exchange.messages) - len(new)
        return new

    def add(self, row: InboxRow, message: Message, analysis: Analysis) -> Memory:
        """Make a memory of a new message of the open row."""
        exchange = row.exchange
        echo = exchange.model == LOCAL_RECALL_MODEL and message.role == "assistant"
        memory = Memory(
            seq=self._next_seq,
            role=message.role,
            content=message.content,
            timestamp_ms=exchange.accepted_ms if message.timestamp_ms is None else message.timestamp_ms,
            timestamp_given=message.timestamp_ms is not None,
            stored_ms=exchange.accepted_ms,
            source=exchange.source,
            tokens=analysis.tokens,
            spans=() if echo else analysis.spans,  # it quotes memories: recalling it would only repeat them
            session_id=message.session_id,
            model=exchange.model,
            external_id=message.external_id,
            metadata=message.metadata,
            request_id=exchange.request_id,
            small_talk=analysis.small_talk,
        )
        self._next_seq += 1
        self._place(memory, () if echo else analysis.chunk_terms)
        self._rows[row.row_id].append(memory.seq)
        self._unwritten[memory.seq] = memory
        if memory.spans:
            self.await_embedding(memory.seq)
        return memory

    def end_row(self, row: InboxRow) -> None:
        """The open row is taken in."""
        assert self._row_open == row.row_id
        self._row_open = None
        self.last_row_id = row.row_id

    def sift(self, exchange: Exchange) -> Sifted:
        """Which messages of this exchange would be stored now."""
        return Sifted(unknown=tuple(self._unknown(exchange)))

    def _unknown(self, exchange: Exchange) -> list[int]:
        unknown = []
        new: set[Identity] = set()
        for position, message in enumerate(exchange.messages):
            twin = identity(message)
            known = self._known.knows(message, source=exchange.source, accepted_ms=exchange.accepted_ms)
            if not known and twin not in new:
                unknown.append(position)
                new.add(twin)
        return unknown

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
        self._to_embed.append(seq)
        self._unembedded.add(seq)

    def next_to_embed(self, *, chunks_max: int) -> TextsToEmbed:
        """Memories to embed next, of about `chunks_max` chunks together, at least one; handed out once."""
        batch: TextsToEmbed = []
        chunks = 0
        while self._to_embed and chunks < chunks_max:
            seq = self._to_embed.popleft()
            if seq in self._unembedded:
                memory = self._catalogue.memory(seq)
                batch.append((seq, [embedding_text(memory.role, text) for text in memory.chunk_texts()]))
                chunks += len(memory.spans)
        return batch

    def attach(self, seq: int, vectors: NDArray[np.float16]) -> None:
        """A memory's vectors have come; none at all if it could not be embedded. Deleted memories are passed over."""
        if seq not in self._unembedded:
            return
        self._unembedded.discard(seq)
        if len(vectors):
            self._index.put(self._catalogue.chunks_of(seq), vectors)
            self._vectors[seq] = vectors

    @property
    def pending(self) -> int:
        """Memories without vectors yet."""
        return len(self._unembedded)

    # Steps for the store.

    def take_step(self, model_id: str, *, unfinished: bool = False) -> Materialisation | None:
        """What can be written now: rows whose memories are all embedded, in the order of the log.

        Args:
            unfinished: also rows that still wait for vectors; those follow in a later step.

        Returns:
            A step to write, handed out once, or None.
        """
        rows = []
        memories: list[Memory] = []
        for row_id, seqs in self._rows.items():
            waiting = row_id == self._row_open or any(seq in self._unembedded for seq in seqs)
            if waiting and not (unfinished and row_id != self._row_open):
                break
            rows.append(row_id)
            memories.extend(self._unwritten.pop(seq) for seq in seqs if seq in self._unwritten)
        for row_id in rows:
            del self._rows[row_id]
        vectors = {seq: rows_ for seq, rows_ in self._vectors.items() if seq not in self._unwritten}
        for seq in vectors:
            del self._vectors[seq]
        if not rows and not vectors:
            return None
        return Materialisation(
            row_ids=tuple(rows),
            memories=tuple(memories),
            vectors=vectors,
            model_id=model_id,
            next_seq=min(self._unwritten, default=self._next_seq),
        )

    # Reading.

    def recall(self, query: Recall) -> Recalled:
        """Chunks worth putting into a context, best first; none at all when no memory is relevant."""
        ranked = self._rank(query, limit=query.chunks_max, small_talk=False)
        relevant = is_relevant(ranked, least=self._relevance_min)
        hits = (self._hit(ranked, int(place)) for place in np.flatnonzero(relevant))
        return Recalled(hits=tuple(self._with_neighbours(hit) for hit in hits))

    def search(self, query: Search) -> Found:
        """Memories, best first, up to the limit."""
        ranked = self._rank(query, limit=query.limit, small_talk=True)
        return Found(hits=tuple(self._hit(ranked, place) for place in range(len(ranked))))

    def _rank(self, query: Recall | Search, *, limit: int, small_talk: bool) -> Ranked:
        vector = np.frombuffer(query.vector, dtype="<f4")
        asked, arrays = self.question(query, limit=limit, small_talk=small_talk)
        return rank_vault(asked, arrays, self._index, vector)

    def question(self, query: Recall | Search, *, limit: int, small_talk: bool) -> tuple[RankQuery, VaultArrays]:
        """The question as it meets this vault, without its dense leg, and the vault as ranking sees it."""
        scope = query.scope
        prefers = scope.whole_vault and scope.session_id is not None
        match = self._lexicon.match(terms(query.text))
        asked = RankQuery(
            lexical=match,
            dense=None,
            eligible=self._catalogue.eligible(scope, small_talk=small_talk),
            limit=limit,
            preferred_session=self._catalogue.session_number(scope.session_id) if prefers else None,
            wants=wants_of(query.text),
            describe=describing(self._catalogue, match),
            intervals=query.intervals,
            explain=query.explain,
        )
        return asked, self._catalogue.arrays()

    def nearness(self, vector: NDArray[np.float32]) -> DenseMatch:
        """How near every chunk is to a normalised vector, for benches; `rank_vault` looks at fewer."""
        return self._index.match(vector, candidates=max(1, self.chunks))

    def _hit(self, ranked: Ranked, place: int) -> Hit:
        memory = self._catalogue.at(int(ranked.memories[place]))
        start, end = memory.spans[int(ranked.chunks[place]) - self._catalogue.first_chunk(memory.seq)]
        return Hit(
            memory=memory,
            matched=memory.content[start:end],
            score=float(ranked.scores[place]),
            explanation=explanation(ranked, place) if ranked.explained else None,
        )

    def _with_neighbours(self, hit: Hit) -> Hit:
        before, after = self._catalogue.beside(hit.memory.seq)
        return msgspec.structs.replace(hit, before=before, after=after)

    def stats(self, session_id: str | None) -> VaultStats:
        """The vault, or one session of it, in numbers."""
        counted = self._catalogue.count(session_id)
        return VaultStats(
            memories=counted.memories,
            chunks=counted.chunks,
            pending=len(self._unembedded) if session_id is None else self._pending_in(session_id),
            sessions=self._catalogue.sessions if session_id is None else int(counted.memories > 0),
            duplicates=self.duplicates,
            tokens=counted.tokens,
            oldest_ms=counted.oldest_ms,
            newest_ms=counted.newest_ms,
            created_ms=self._created_ms,
            bytes_in_memory=self.nbytes,
            index=self._index.statistics(),
        )

    def _pending_in(self, session_id: str) -> int:
        return sum(self._catalogue.memory(seq).session_id == session_id for seq in self._unembedded)

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

    def plan_build(self) -> BuildJob | None:
        """What should be built into a segment now, if anything; handed out once."""
        return self._index.plan(self._catalogue.labels_of)

    def install(self, segment: Segment | None) -> None:
        """Take in what was built, or that nothing came of it."""
        if segment is None:
            self._index.abandon()
        else:
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

    def forget(self, seq: int) -> None:
        """Drop a memory that the store has deleted."""
        memory = self._catalogue.memory(seq)
        for chunk in self._catalogue.chunks_of(seq):
            self._lexicon.remove(int(chunk))
            self._index.remove(int(chunk))
        self._catalogue.remove(seq)
        self._known.remove(memory)
        self._unembedded.discard(seq)
        self._unwritten.pop(seq, None)
        self._vectors.pop(seq, None)
        self._text_bytes -= len(memory.content) + MEMORY_BYTES
