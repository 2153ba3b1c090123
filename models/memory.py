"""What is remembered: messages as they come in, exchanges as the log keeps them, memories as a vault holds them.

Pure data, msgspec Structs: the log, the fuzzers and the tests use the same types. Times are integer milliseconds since
the Unix epoch, UTC, unless a name says otherwise.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from models.ids import Principal

Role = Literal["user", "assistant"]
Source = Literal["proxy", "ingest", "upload", "import"]

_ID_PREFIX = "mem_"
_DIGITS_MAX = 10  # of 32 bits

LOCAL_RECALL_MODEL = "local/recall"
"""The built-in model that answers from the vault. Its replies quote memories, so they are never recalled themselves."""


class ImportedVectors(msgspec.Struct, frozen=True):
    """Embeddings that an export brought along; used if the model is the same, else the text is embedded anew.

    Attributes:
        spans: (start, end) of the chunks that were embedded.
        rows: float16 little-endian, one row a chunk.
    """

    model_id: str
    spans: tuple[tuple[int, int], ...]
    rows: bytes


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message as a client gave it, already cleaned (`models.text.clean`). `content` is never empty.

    Attributes:
        timestamp_ms: the time that the client gave, or None: then the exchange's `accepted_ms` counts.
        external_id: the client's own id; a second message with it changes nothing.
        final: part of the final exchange of a request; the rule of repeats (design section 6) applies to it, while an
            earlier, known message adds nothing however old it is.
    """

    role: Role
    content: str
    timestamp_ms: int | None = None
    session_id: str | None = None
    external_id: str | None = None
    metadata: dict[str, Any] | None = None
    final: bool = False
    embedded: ImportedVectors | None = None


class Exchange(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one request asks to remember: the body of one inbox row. Its commit is the acknowledgement.

    Attributes:
        accepted_ms: when the server took it; the clock of the repeat rule, so that replay decides as the first run did.
        model: the model that answered, for usage and for telling our own replies apart.
        request_id: the id of the request that brought it (undo by request needs it later).
        key_number, account_number: whose request it was, for usage; 0 where that is not known.
    """

    messages: tuple[Message, ...]
    source: Source
    accepted_ms: int
    model: str | None = None
    request_id: str | None = None
    key_number: int = 0
    account_number: int = 0


def charged_to(principal: Principal, exchange: Exchange) -> Exchange:
    """This exchange as this key's: what it brings counts as its usage."""
    return msgspec.structs.replace(exchange, key_number=principal.key_number, account_number=principal.account_number)


class InboxRow(msgspec.Struct, frozen=True):
    """An exchange in the log. Row ids grow in commit order within one shard."""

    row_id: int
    exchange: Exchange


class Memory(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One remembered message. It cannot be part of a cycle, so the collector of garbage need not look at a million:
    that took 0.2 s, again and again, in which nobody was answered.

    Attributes:
        seq: its number within the vault, in the order of storing, from 1.
        timestamp_ms: when it was said: the given time, else `stored_ms`.
        timestamp_given: whether the client gave the time; part of the message's identity.
        tokens: length of the content as the embedding model counts it.
        spans: (start, end) character offsets of its chunks within `content`; empty when it is never recalled.
        small_talk: carries nothing ("ok", "thanks!"): stored and searchable, but never takes a place in a context.
        first_seq: of a memory whose text was changed, the seq that it had when it was stored; its id tells that one. A
            changed text gets a seq of its own, so that no vector and no word of the old one can be taken for its own.
        key_number: of the key that brought it, 0 where that is not known: of two keys of a vault one may have leaked.
        flags: why it looks planted, the sum of 2**place in `models.screening.FLAGS`; 0 where it does not.
    """

    seq: int
    role: Role
    content: str
    timestamp_ms: int
    stored_ms: int
    source: Source
    tokens: int = 0
    spans: tuple[tuple[int, int], ...] = ()
    timestamp_given: bool = False
    session_id: str | None = None
    model: str | None = None
    external_id: str | None = None
    metadata: dict[str, Any] | None = None
    request_id: str | None = None
    small_talk: bool = False
    first_seq: int | None = None
    key_number: int = 0
    flags: int = 0

    @property
    def number(self) -> int:
        """What its public id tells: the same for as long as it exists."""
        return self.seq if self.first_seq is None else self.first_seq

    def chunk_texts(self) -> list[str]:
        """The text of each chunk."""
        return [self.content[start:end] for start, end in self.spans]


class SessionSummary(msgspec.Struct, frozen=True):
    """One session of a vault in numbers; `place` is the newest memory's (timestamp_ms, seq)."""

    session_id: str
    memories: int
    tokens: int
    first_ms: int
    place: tuple[int, int]


def memory_id(memory: Memory) -> str:
    """The public id of a memory within its vault."""
    return f"{_ID_PREFIX}{memory.number}"


def memory_number(public_id: str) -> int | None:
    """What the public id of a memory tells, or None for a text that is no such id."""
    digits = public_id.removeprefix(_ID_PREFIX)
    is_id = public_id.startswith(_ID_PREFIX) and digits.isascii() and digits.isdecimal() and len(digits) <= _DIGITS_MAX
    return int(digits) if is_id else None
