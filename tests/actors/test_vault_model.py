"""A vault against a plain list: whatever is done in whatever order, nothing is lost, doubled or misplaced.

The machine plays the actor and the store: it commits rows, lets the vault take them in, attaches vectors in any order,
writes or loses steps, forgets sessions and single memories, changes some, and loads the vault anew from what the steps
have written. The oracle is a list of dicts with the rules of design section 6 spelled out the slow way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from actors.analysis import analyse
from actors.store.protocol import Materialisation, Vectors
from actors.vault import Vault
from models.memory import Exchange, InboxRow, Memory, Message, Source
from models.messages import Scope, Search, Sift
from models.selection import MemoryFilter
from models.text import normalised
from tests.actors.house import NOW_MS
from tests.fakes.embedding import HashEmbedding

ENCODER = HashEmbedding(dims=8)
WINDOW_MS = 1_000
CHUNK_TOKENS = 8
LONG = "The first part is about rivers. The second part is about mountains. The third part is about the sea."
TEXTS = ["alpha", "Alpha!", "ok", LONG]
SESSIONS = [None, "s", "t"]

# Few different messages: what matters is what happens when the same one comes again.
messages = st.builds(
    Message,
    role=st.sampled_from(["user", "user", "user", "assistant"]),
    content=st.sampled_from(TEXTS),
    timestamp_ms=st.sampled_from([None, None, None, 1, 2]),
    session_id=st.sampled_from(["s", "s", "t", None]),
    external_id=st.sampled_from([None, None, None, None, "x"]),
    final=st.booleans(),
)


class Oracle:
    """What should be remembered, as a list."""

    def __init__(self) -> None:
        self.memories: list[dict[str, Any]] = []
        self.next_seq = 1

    def take(self, exchange: Exchange) -> None:
        fresh: list[Message] = []
        for message in exchange.messages:
            if not (self._known(message, exchange) or any(self._same(message, other) for other in fresh)):
                fresh.append(message)
        for message in fresh:
            given_ms = message.timestamp_ms
            self.memories.append(
                {
                    "seq": self.next_seq,
                    "number": self.next_seq,
                    "who": (message.session_id, message.role, message.content),
                    "id": message.external_id,
                    "given_ms": given_ms,
                    "timestamp_ms": exchange.accepted_ms if given_ms is None else given_ms,
                    "stored_ms": exchange.accepted_ms,
                }
            )
            self.next_seq += 1

    def _known(self, message: Message, exchange: Exchange) -> bool:
        if message.external_id is not None:
            return any(memory["id"] == message.external_id for memory in self.memories)
        who = (message.session_id, message.role, message.content)
        same = [memory for memory in self.memories if memory["who"] == who]
        if message.timestamp_ms is not None:
            return any(memory["given_ms"] == message.timestamp_ms for memory in same)
        if exchange.source == "upload":
            return any(memory["given_ms"] is None for memory in same)
        if not message.final:
            return bool(same)
        return any(exchange.accepted_ms - memory["stored_ms"] < WINDOW_MS for memory in same)

    @staticmethod
    def _same(one: Message, other: Message) -> bool:
        if one.external_id is not None or other.external_id is not None:
            return one.external_id == other.external_id
        return (one.session_id, one.role, one.content, one.timestamp_ms) == (
            other.session_id, other.role, other.content, other.timestamp_ms,
        )  # fmt: skip

    def of(self, seq: int) -> dict[str, Any]:
        (found,) = [memory for memory in self.memories if memory["seq"] == seq]
        return found

    def forget(self, session_id: str) -> None:
        self.memories = [memory for memory in self.memories if memory["who"][0] != session_id]


class Disk:
    """A store that checks what a real one would refuse."""

    def __init__(self) -> None:
        self.inbox: dict[int, InboxRow] = {}
        self.memories: dict[int, Memory] = {}
        self.vectors: Vectors = {}
        self.next_seq = 1

    def write(self, step: Materialisation) -> None:
        assert step.row_ids == tuple(sorted(self.inbox))[: len(step.row_ids)], "rows leave in the order of the log"
        for row_id in step.row_ids:
            del self.inbox[row_id]
        for memory in step.memories:
            assert memory.seq not in self.memories, "a seq is written once"
            assert memory.seq >= self.next_seq, "a seq is never reused"
            self.memories[memory.seq] = memory
        for seq, rows in step.vectors.items():
            assert seq in self.memories, "vectors belong to a written memory"
            assert len(rows) == len(self.memories[seq].spans)
            self.vectors[seq] = rows
        self.next_seq = max(self.next_seq, step.next_seq)

    def rewrite(self, seq: int, memory: Memory) -> None:
        assert memory.seq >= self.next_seq, "a seq is never reused"
        self.delete([seq])
        self.memories[memory.seq] = memory
        self.next_seq = memory.seq + 1

    def delete(self, seqs: list[int]) -> None:
        for seq in seqs:
            self.memories.pop(seq, None)
            self.vectors.pop(seq, None)


class VaultMachine(RuleBasedStateMachine):
    """One vault, its log and its disk."""

    @initialize()
    def begin(self) -> None:
        self.now_ms = NOW_MS
        self.rows = 0
        self.disk = Disk()
        self.oracle = Oracle()
        self.untaken: list[InboxRow] = []
        self.being_embedded: list[tuple[int, list[str]]] = []
        self.vault = self._empty_vault()

    def _empty_vault(self) -> Vault:
        vault = Vault(dims=8, repeat_window_ms=WINDOW_MS, relevance_min=0.2)
        vault.begin(created_ms=NOW_MS, next_seq=self.disk.next_seq)
        return vault

    def _take(self, row: InboxRow) -> None:
        for message in self.vault.begin_row(row):
            self.vault.add(row, message, analyse(message, ENCODER, CHUNK_TOKENS))
        self.vault.end_row(row)

    @rule(
        contents=st.lists(messages, min_size=1, max_size=4),
        source=st.sampled_from(["proxy", "upload"]),
        pause_ms=st.sampled_from([0, 1, WINDOW_MS - 1, WINDOW_MS, -WINDOW_MS]),
        told=st.sampled_from([True, True, True, False]),
    )
    def commit(self, contents: list[Message], source: Source, pause_ms: int, told: bool) -> None:
        """A row becomes durable; the vault hears of it at once or later."""
        self.now_ms += pause_ms
        self.rows += 1
        row = InboxRow(self.rows, Exchange(messages=tuple(contents), source=source, accepted_ms=self.now_ms))
        self.disk.inbox[row.row_id] = row
        self.untaken.append(row)
        while told and self.untaken:
            self.apply()

    @precondition(lambda self: self.untaken)
    @rule()
    def apply(self) -> None:
        row = self.untaken.pop(0)
        before, duplicates = len(self.oracle.memories), self.vault.duplicates
        unknown = self.vault.sift(Sift(row.exchange)).unknown
        self._take(row)
        self.oracle.take(row.exchange)
        new = len(self.oracle.memories) - before
        assert len(unknown) == new, "sifting says what taking in does"
        assert self.vault.duplicates - duplicates == len(row.exchange.messages) - new

    @rule(
        chunks_max=st.integers(1, 5),
        places=st.lists(st.integers(0, 9), max_size=5),
        works=st.sampled_from([True, True, True, False]),
    )
    def embed(self, chunks_max: int, places: list[int], works: bool) -> None:
        """Texts are handed out; vectors come in any order, and none at all where the model fails."""
        self.being_embedded += self.vault.next_to_embed(chunks_max=chunks_max)
        for place in places:
            if self.being_embedded:
                seq, texts = self.being_embedded.pop(place % len(self.being_embedded))
                self.vault.attach(seq, ENCODER.encode(texts if works else []).astype(np.float16))

    @rule(unfinished=st.booleans())
    def write_step(self, unfinished: bool) -> None:
        step = self.vault.take_step("m", unfinished=unfinished)
        if step is not None:
            self.disk.write(step)

    @rule()
    def lose_step_and_crash(self) -> None:
        """The actor ends between taking a step and writing it."""
        self.vault.take_step("m", unfinished=True)
        self.reload()

    @rule(session_id=st.sampled_from(["s", "t"]))
    def forget(self, session_id: str) -> None:
        """As the actor does it: everything taken in is written first, then deleted."""
        self.write_step(unfinished=True)
        seqs = self.vault.session_seqs(session_id)
        self.disk.delete(seqs)
        self.vault.know_again([self.vault.forget(seq) for seq in seqs])
        self.oracle.forget(session_id)

    @precondition(lambda self: self.oracle.memories)
    @rule(data=st.data())
    def forget_one(self, data: st.DataObject) -> None:
        seq = data.draw(st.sampled_from(self._seqs()))
        self.write_step(unfinished=True)
        self.disk.delete([seq])
        self.vault.know_again([self.vault.forget(seq)])
        self.oracle.memories.remove(self.oracle.of(seq))

    @precondition(lambda self: self.oracle.memories)
    @rule(data=st.data(), content=st.sampled_from(TEXTS))
    def rewrite(self, data: st.DataObject, content: str) -> None:
        """Another text in the place of one: another seq, the same number."""
        seq = data.draw(st.sampled_from(self._seqs()))
        one = self.oracle.of(seq)
        self.write_step(unfinished=True)
        analysis = analyse(Message(role="user", content=content), ENCODER, CHUNK_TOKENS)
        after = replace(
            self.disk.memories[seq], seq=self.vault.take_seq(), first_seq=one["number"], content=content,
            stored_ms=self.now_ms, spans=analysis.spans, tokens=analysis.tokens, small_talk=analysis.small_talk,
        )  # fmt: skip
        self.disk.rewrite(seq, after)
        gone = self.vault.forget(seq)
        self.vault.place(after, analysis)
        self.vault.know_again([gone])
        session, role, _ = one["who"]
        one |= {"seq": after.seq, "who": (session, role, content), "stored_ms": self.now_ms}
        self.oracle.next_seq = after.seq + 1

    @precondition(lambda self: self.oracle.memories)
    @rule(data=st.data(), session_id=st.sampled_from(SESSIONS), timestamp_ms=st.sampled_from([1, 2]))
    def move(self, data: st.DataObject, session_id: str | None, timestamp_ms: int) -> None:
        """To another session and time, with the same words and vectors."""
        seq = data.draw(st.sampled_from(self._seqs()))
        self.write_step(unfinished=True)
        before = self.disk.memories[seq]
        after = replace(before, session_id=session_id, timestamp_ms=timestamp_ms, timestamp_given=True)
        self.disk.memories[seq] = after
        self.vault.replace(after)
        one = self.oracle.of(seq)
        one |= {"who": (session_id, *one["who"][1:]), "timestamp_ms": timestamp_ms, "given_ms": timestamp_ms}

    def _seqs(self) -> list[int]:
        return [memory["seq"] for memory in self.oracle.memories]

    @rule()
    def reload(self) -> None:
        """A new incarnation: memories first, then all rows of the log that became none yet."""
        for row in self.untaken:
            self.oracle.take(row.exchange)
        self.untaken = []
        self.being_embedded = []
        self.vault = self._empty_vault()
        for seq in sorted(self.disk.memories):
            memory, rows = self.disk.memories[seq], self.disk.vectors.get(seq)
            whole = rows is not None and len(rows) == len(memory.spans)
            self.vault.load(memory, embedded=whole)
            if rows is not None and whole:
                self.vault.fill({seq: rows})
        for row_id in sorted(self.disk.inbox):
            self._take(self.disk.inbox[row_id])

    @invariant()
    def it_holds_exactly_what_the_oracle_holds(self) -> None:
        assert self._by_seq(self._all_memories()) == self._expected()

    def _all_memories(self) -> list[Memory]:
        seqs = [seq for session in SESSIONS for seq in self.vault._catalogue.session_seqs(session)]
        assert len(seqs) == len(set(seqs)) == self.vault.memories
        return [self.vault._catalogue.memory(seq) for seq in seqs]

    def _expected(self) -> dict[int, tuple[object, ...]]:
        return {
            one["seq"]: (one["who"], one["id"], one["timestamp_ms"], one["stored_ms"], one["given_ms"] is not None)
            for one in self.oracle.memories
        }

    @staticmethod
    def _by_seq(memories: list[Memory]) -> dict[int, tuple[object, ...]]:
        return {
            one.seq: (
                (one.session_id, one.role, one.content),
                one.external_id,
                one.timestamp_ms,
                one.stored_ms,
                one.timestamp_given,
            )
            for one in memories
        }

    @invariant()
    def memories_are_found_by_number_and_in_the_order_of_time(self) -> None:
        for one in self.oracle.memories:
            found = self.vault.find(one["number"])
            assert found is not None
            assert found.seq == one["seq"]
        dead = set(range(1, self.oracle.next_seq + 1)) - {one["number"] for one in self.oracle.memories}
        assert all(self.vault.find(number) is None for number in dead)
        selection = self.vault.selection(MemoryFilter(words="alpha"))
        places = [selection.place(int(at)) for at in selection.by_time(descending=True, after=None, most=1_000)]
        alphas = [one for one in self.oracle.memories if one["who"][2].lower().startswith("alpha")]
        assert places == sorted(((one["timestamp_ms"], one["number"]) for one in alphas), reverse=True)

    @invariant()
    def every_reader_finds_by_words_what_is_in_its_scope(self) -> None:
        alpha = ENCODER.encode(["alpha"])[0].tobytes()
        for scope, vector in (
            (Scope(), alpha),
            (Scope(session_id="s"), b""),
            (Scope(session_id="t", whole_vault=True), b""),
            (Scope(sessionless_only=True), alpha),
        ):
            newest: dict[str, int] = {}
            for one in self.oracle.memories:
                session, _, content = one["who"]
                if scope.sessionless_only and session is not None:
                    continue
                if scope.session_id is not None and not scope.whole_vault and session != scope.session_id:
                    continue
                text = normalised(content)
                newest[text] = max(newest.get(text, 0), one["timestamp_ms"])
            query = Search(text="alpha rivers", vector=vector, scope=scope, limit=99, now_ms=self.now_ms)
            hits = self.vault.search(query).hits
            found = {normalised(hit.memory.content): hit.memory.timestamp_ms for hit in hits}
            assert len(found) == len(hits), "identical texts are shown once"
            assert found == newest

    @invariant()
    def words_vectors_and_records_agree(self) -> None:
        vault = self.vault
        assert len(vault._lexicon) == len(vault._index) == len(vault._catalogue.arrays().chunk_memory)
        with_vector = np.isfinite(vault._index.match(np.ones(8, np.float32), candidates=1).scores)
        waiting = {seq for seq, _ in self.being_embedded}
        for memory in self._all_memories():
            chunks = vault._catalogue.chunks_of(memory.seq)
            assert len(set(with_vector[chunks].tolist())) <= 1, "a memory has all of its vectors or none"
            if memory.seq in waiting:
                assert not with_vector[chunks].any()
        assert with_vector.sum() <= vault.stats(None).chunks

    @invariant()
    def the_numbers_are_right(self) -> None:
        stats = self.vault.stats(None)
        memories = self._all_memories()
        assert stats.memories == len(self.oracle.memories)
        assert stats.chunks == sum(len(one.spans) for one in memories)
        assert stats.tokens == sum(one.tokens for one in memories)
        assert stats.sessions == len({one.session_id for one in memories} - {None})
        assert 0 <= stats.pending <= stats.memories

    def teardown(self) -> None:
        """In the end everything is on the disk, once."""
        if not hasattr(self, "vault"):
            return
        self.reload()
        while batch := self.vault.next_to_embed(chunks_max=4):
            for seq, texts in batch:
                self.vault.attach(seq, ENCODER.encode(texts).astype(np.float16))
        self.write_step(unfinished=False)
        assert self.disk.inbox == {}
        assert self._by_seq(list(self.disk.memories.values())) == self._expected()
        assert sorted(self.disk.vectors) == sorted(seq for seq, one in self.disk.memories.items() if one.spans)
        assert self.vault.pending == 0


VaultMachine.TestCase.settings = settings(stateful_step_count=40)  # the number of examples is the profile's
TestVaultModel = VaultMachine.TestCase
