"""The mailbox protocol of a vault: what may be asked of it, and what it answers.

Messages are pure data, passed by reference inside the process; each could equally be written to a log or made up by a
fuzzer. Requests are imperatives (`Recall`), replies are facts (`Recalled`). Channels and deadlines belong to the
envelope (`actors.mailbox`), never to a message.
"""

from __future__ import annotations

from typing import Any

import msgspec

from models.memory import Exchange, InboxRow, Memory
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
        chunks_max: at most this many chunks.
        now_ms: the time of the request.
        intervals: times that the question speaks of; memories told then are preferred.
        explain: say of each hit what placed it.
    """

    text: str
    vector: bytes
    scope: Scope
    chunks_max: int
    now_ms: int
    intervals: tuple[TimeInterval, ...] = ()
    explain: bool = False


class Search(VaultMessage, frozen=True):
    """Find memories, best first, one item a memory, without a cut-off. Reply: `Found`."""

    text: str
    vector: bytes
    scope: Scope
    limit: int
    now_ms: int
    intervals: tuple[TimeInterval, ...] = ()
    explain: bool = False


class Sift(VaultMessage, frozen=True):
    """Which messages of this exchange does the vault not know yet? Changes nothing. Reply: `Sifted`."""

    exchange: Exchange


class Apply(VaultMessage, frozen=True):
    """These inbox rows are durable: take them into memory. Rows taken already are skipped. Reply: `Applied`."""

    rows: tuple[InboxRow, ...]


class Embedded(VaultMessage, frozen=True):
    """Embeddings that the vault's own child task computed. Reply: None.

    Attributes:
        vectors: by memory seq, float16 little-endian bytes, one row a chunk; b"" where embedding failed for good.
    """

    vectors: dict[int, bytes]


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


class Built(VaultMessage, frozen=True):
    """A segment of the index, built by the vault's own child task. Reply: None.

    Attributes:
        segment: an `actors.segments.Segment`, or None when the build came to nothing.
    """

    segment: Any


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
    """Positions within `Exchange.messages` that the vault does not know."""

    unknown: tuple[int, ...]


class Applied(msgspec.Struct, frozen=True):
    """What became of the rows of one `Apply`."""

    stored: int
    duplicates: int
    chunks: int


class Forgotten(msgspec.Struct, frozen=True):
    """How many memories were deleted."""

    count: int


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
        index: sizes of the vector index; `built` of `building` rows while a segment is being built.
    """

    memories: int = 0
    chunks: int = 0
    pending: int = 0
    sessions: int = 0
    duplicates: int = 0
    tokens: int = 0
    oldest_ms: int | None = None
    newest_ms: int | None = None
    created_ms: int = 0
    bytes_in_memory: int = 0
    index: dict[str, int] = {}


Reply = Recalled | Found | Sifted | Applied | Forgotten | Paged | VaultStats | None
AnyMessage = Recall | Search | Sift | Apply | Embedded | Forget | Stats | Page | Built | Barrier


def describe(message: Any) -> str:
    """A message's name for logs: never its content."""
    return type(message).__name__
