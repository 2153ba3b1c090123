"""The mailbox protocol of a vault: what may be asked of it, and what it answers.

Messages are pure data, passed by reference inside the process; each could equally be written to a log or made up by a
fuzzer. Requests are imperatives (`Recall`), replies are facts (`Recalled`). Channels and deadlines belong to the
envelope (`actors.mailbox`), never to a message.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from models.memory import Exchange, InboxRow, Memory, Message, Role, SessionSummary, Source
from models.selection import MemoryFilter
from models.time_intervals import TimeInterval


class VaultMessage(msgspec.Struct, frozen=True, tag=True):
    """Base of everything a vault's mailbox carries."""


class Scope(msgspec.Struct, frozen=True):
    """Which memories a read may see (design section 7).

    Attributes:
        session_id: the session of the request, or None.
        whole_vault: see the whole vault although a session is given, and prefer that session.
        sessionless_only: see only memories without a session (`sessions.isolation = "strict"`, no session given).
    """

    session_id: str | None = None
    whole_vault: bool = False
    sessionless_only: bool = False


class Recall(VaultMessage, frozen=True):
    """Find the chunks worth putting into a context, best first, after the relevance cut-off. Reply: `Recalled`.

    Attributes:
        text: the question, as words.
        vector: the question's embedding, float32 little-endian bytes, or b"" to search by words alone.
        model_id: the model that made the vector; where it is not the vault's, words alone decide. None: the vault's.
        chunks_max: at most this many chunks.
        now_ms: the time of the request.
        intervals: times that the question speaks of; memories told then are preferred.
        explain: say of each hit what placed it.
        meaning: what the vector is of, where a memory of the same words would have the same; None: it would not.
    """

    text: str
    vector: bytes
    scope: Scope
    chunks_max: int
    now_ms: int
    intervals: tuple[TimeInterval, ...] = ()
    explain: bool = False
    model_id: str | None = None
    meaning: str | None = None


class Search(VaultMessage, frozen=True):
    """Find memories, best first, one item a memory, without a cut-off. Reply: `Found`."""

    text: str
    vector: bytes
    scope: Scope
    limit: int
    now_ms: int
    intervals: tuple[TimeInterval, ...] = ()
    explain: bool = False
    model_id: str | None = None


class Sift(VaultMessage, frozen=True):
    """Which messages of this exchange does the vault not know yet? Reply: `Sifted`. Changes nothing but a count:
    `left_out` messages that were not stored, as earlier answers had it, are duplicates if `forgotten` is as it was."""

    exchange: Exchange
    left_out: int = 0
    forgotten: int = 0


class Apply(VaultMessage, frozen=True):
    """These inbox rows are durable: take them into memory. Rows taken already are skipped. Reply: `Applied`."""

    rows: tuple[InboxRow, ...]


class Embedded(VaultMessage, frozen=True):
    """Embeddings that the vault's own child task computed. Reply: None.

    Attributes:
        vectors: by memory seq, float16 little-endian bytes, one row a chunk; b"" where embedding failed for good.
        model_id: the model that made them. They may come late, when the vault has moved to another one.
    """

    vectors: dict[int, bytes]
    model_id: str


class Forget(VaultMessage, frozen=True):
    """Delete the memories of one session, for good. Reply: `Forgotten`."""

    session_id: str


class Stats(VaultMessage, frozen=True):
    """Count the vault, or one session of it. Reply: `VaultStats`."""

    session_id: str | None = None


class Page(VaultMessage, frozen=True):
    """Read memories in the order of their seqs, for an export. Reply: `Paged`.

    Attributes:
        after_seq: begin behind this one.
        session_id: only this session's, or None for all.
        vectors: with their embeddings, as far as there are any.
    """

    after_seq: int
    limit: int
    session_id: str | None = None
    vectors: bool = True


class ListMemories(VaultMessage, frozen=True):
    """Read memories in the order of time: when they were said, and at the same time in the order of storing.

    Reply: `Listed`. It looks at a bounded number of memories, so a page may be short, or empty, and not the last.

    Attributes:
        descending: the newest first.
        after: begin behind this place, which an earlier page ended with.
    """

    wanted: MemoryFilter
    limit: int
    descending: bool = True
    after: tuple[int, int] | None = None


class ListSessions(VaultMessage, frozen=True):
    """Which sessions there are, the one with the newest memory first. Reply: `ListedSessions`.

    Attributes:
        only: this session alone, if it is there.
        after: begin behind this place, which an earlier page ended with.
    """

    limit: int
    only: str | None = None
    after: tuple[int, int] | None = None


class GetMemory(VaultMessage, frozen=True):
    """Read one memory. Reply: `Listed` with it.

    Attributes:
        number: of its public id.
        within: what it has to fulfil, else it is not found.
    """

    number: int
    within: MemoryFilter = MemoryFilter()


class FindTwin(VaultMessage, frozen=True):
    """Which memory does the vault hold that makes this message a known one? Reply: `Listed` with it, or with none."""

    message: Message
    source: Source
    accepted_ms: int


class MemoryChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is to be changed of a memory; what is unset stays."""

    content: str | UnsetType = UNSET
    role: Role | UnsetType = UNSET
    timestamp_ms: int | UnsetType = UNSET
    session_id: str | UnsetType | None = UNSET
    metadata: dict[str, Any] | UnsetType | None = UNSET


class ChangeMemory(VaultMessage, frozen=True):
    """Change one memory. Reply: `Listed` with it as it is now.

    Attributes:
        number, within: as in `GetMemory`.
        now_ms: a changed text counts as stored now.
    """

    number: int
    change: MemoryChange
    now_ms: int
    within: MemoryFilter = MemoryFilter()


class ForgetMemory(VaultMessage, frozen=True):
    """Delete one memory, for good. Reply: `Forgotten`, with a count of 0 when there is no such memory."""

    number: int
    within: MemoryFilter = MemoryFilter()


class ForgetMatching(VaultMessage, frozen=True):
    """Delete a bounded number of the memories that fulfil a filter, for good, in the order of storing. Reply:
    `ForgottenPart`, which says how to ask for the next ones.

    Attributes:
        counts_only: delete none, only say how many there are.
        after_seq: begin behind this one.
        last_seq: end with this one, or None: with the last that there is now.
    """

    wanted: MemoryFilter
    counts_only: bool = False
    after_seq: int = 0
    last_seq: int | None = None


class Mend(VaultMessage, frozen=True):
    """Nothing was deleted for a while: build what holds vectors of deleted memories anew. Reply: None."""


class Built(VaultMessage, frozen=True):
    """A segment of the index, built by the vault's own child task. Reply: None.

    Attributes:
        segment: an `actors.segments.Segment`, or None when the build came to nothing.
    """

    segment: Any


class Rehydrate(VaultMessage, frozen=True):
    """Begin anew from the store, with the embedder that the vault uses now; what waits, waits for it. Reply: None."""


class Barrier(VaultMessage, frozen=True):
    """Everything sent before this has been handled. Reply: None."""


class Explanation(msgspec.Struct, frozen=True):
    """Why a memory stands where it stands: its score before calibration is the sum of feature times weight.

    Attributes:
        features: what was measured of it, by name (`actors.features`).
        weights: what each is worth, in log-odds per unit.
        relevance: the probability that it answers the question, 0 to 1.
        rank: its place, from 1.
    """

    features: dict[str, float]
    weights: dict[str, float]
    relevance: float
    rank: int


class Hit(msgspec.Struct, frozen=True):
    """One memory that was found, with the chunk that scored best.

    Attributes:
        matched: the text of that chunk.
        score: 0 to 1.
        before, after: in a recall, what was said just before and after it in its session, if it says anything.
        explanation: what placed it, where that was asked for.
    """

    memory: Memory
    matched: str
    score: float
    before: Memory | None = None
    after: Memory | None = None
    explanation: Explanation | None = None


class Recalled(msgspec.Struct, frozen=True):
    """Chunks for a context, best first; empty when nothing is relevant."""

    hits: tuple[Hit, ...]


class Found(msgspec.Struct, frozen=True):
    """Memories, best first."""

    hits: tuple[Hit, ...]


class Sifted(msgspec.Struct, frozen=True):
    """Positions within `Exchange.messages` that the vault does not know, and how many memories it has forgotten so far:
    while that stays the same, what it knew it knows."""

    unknown: tuple[int, ...]
    forgotten: int = 0


class Applied(msgspec.Struct, frozen=True):
    """What became of the rows of one `Apply`."""

    stored: int
    duplicates: int
    chunks: int
    flagged: int = 0


class Forgotten(msgspec.Struct, frozen=True):
    """How many memories were deleted."""

    count: int


class ForgottenPart(msgspec.Struct, frozen=True):
    """How many memories were deleted, or would be.

    Attributes:
        after_seq: where to go on, or None when there are no more.
        last_seq: where the whole deletion ends: what comes meanwhile is not part of it.
    """

    count: int
    after_seq: int | None
    last_seq: int


class Listed(msgspec.Struct, frozen=True):
    """Memories in the order that was asked for.

    Attributes:
        pending: seqs of those that are not embedded yet.
        after: the place to go on from, or None when there are no more.
    """

    memories: tuple[Memory, ...]
    pending: frozenset[int] = frozenset()
    after: tuple[int, int] | None = None


class ListedSessions(msgspec.Struct, frozen=True):
    """Sessions, the newest first; `after` is the place to go on from, or None when there are no more."""

    sessions: tuple[SessionSummary, ...]
    after: tuple[int, int] | None = None


class Paged(msgspec.Struct, frozen=True):
    """Memories in order; fewer than asked for when there are no more.

    Attributes:
        vectors: by seq, float16 little-endian, one row a chunk.
    """

    memories: tuple[Memory, ...]
    vectors: dict[int, bytes]


class VaultStats(msgspec.Struct, frozen=True):
    """A vault in numbers.

    Attributes:
        pending: memories stored but not embedded yet; they are found by their words.
        embedder: the name of the embedder that the vault uses.
        model_id, dims: of its model; "" and 0 before that is open.
        index: sizes of the vector index; `built` of `building` rows while a segment is being built.
    """

    memories: int = 0
    chunks: int = 0
    pending: int = 0
    sessions: int = 0
    duplicates: int = 0
    flagged: int = 0
    tokens: int = 0
    oldest_ms: int | None = None
    newest_ms: int | None = None
    created_ms: int = 0
    bytes_in_memory: int = 0
    index: dict[str, int] = {}
    embedder: str = ""
    model_id: str = ""
    dims: int = 0


Lists = Listed | ListedSessions | Paged
Reply = Recalled | Found | Sifted | Applied | Forgotten | ForgottenPart | Lists | VaultStats | None
AboutMemories = ListMemories | ListSessions | GetMemory | FindTwin | ChangeMemory | ForgetMemory | ForgetMatching | Mend
"""What is asked about single memories; `actors.single_memories` answers."""

AnyMessage = (
    Rehydrate | Recall | Search | Sift | Apply | Embedded | Forget | Stats | Page | Built | Barrier | AboutMemories
)


def describe(message: Any) -> str:
    """A message's name for logs: never its content."""
    return type(message).__name__
