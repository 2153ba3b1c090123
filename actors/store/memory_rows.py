"""The bodies of memory rows: how a memory is laid out in msgpack, before it is sealed and after it is opened.

Owns that layout. It stands on the disks of every release since schema 3, so its fields and numbers keep their places:
new fields come last and have a default. Up to schema 2 a body was a map that names its fields; such rows are read for
ever, and never rewritten. Must never touch a database or a key.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import msgspec

from models.memory import Memory, Role, Source
from models.screening import flags_of

ROLES: Final[dict[int, Role]] = {0: "user", 1: "assistant"}
SOURCES: Final[dict[int, Source]] = {0: "proxy", 1: "ingest", 2: "upload", 3: "import"}

WHOLE_TEXTS_MAX = 4096
"""Lengths of texts whose spans are shared by all memories of one chunk: 0.15 kB for each that needs none of its own."""

Spans = tuple[tuple[int, int], ...]

_ROLE_NUMBERS = {role: number for number, role in ROLES.items()}
_SOURCE_NUMBERS = {source: number for number, source in SOURCES.items()}


class MemoryRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A `Memory` as an array, without the names of its fields: a 500-byte memory takes 525 bytes instead of 604.

    Attributes:
        before_ms: how long before it was stored it was said, which takes one byte if that was at once.
        role: its number in `ROLES`.
        source: its number in `SOURCES`.
        spans: None for the one chunk that is the whole text, which most memories have.
        flags: None in rows from before there was screening: their texts are looked at when they are read.
    """

    seq: int
    content: str
    stored_ms: int
    before_ms: int
    role: int
    source: int
    tokens: int
    spans: Spans | None
    timestamp_given: bool
    small_talk: bool
    session_id: str | None = None
    model: str | None = None
    external_id: str | None = None
    metadata: dict[str, Any] | None = None
    request_id: str | None = None
    first_seq: int | None = None
    key_number: int = 0
    flags: int | None = None


_encode = msgspec.msgpack.Encoder().encode
_rows = msgspec.msgpack.Decoder(MemoryRow)
_named = msgspec.msgpack.Decoder(Memory)


@lru_cache(maxsize=WHOLE_TEXTS_MAX)
def _whole_text(characters: int) -> Spans:
    """The spans of a text that is one chunk."""
    return ((0, characters),)


def encode_memory(memory: Memory) -> bytes:
    """The body of a memory's row, not sealed yet."""
    return _encode(
        MemoryRow(
            memory.seq,
            memory.content,
            memory.stored_ms,
            memory.stored_ms - memory.timestamp_ms,
            _ROLE_NUMBERS[memory.role],
            _SOURCE_NUMBERS[memory.source],
            memory.tokens,
            None if memory.spans == ((0, len(memory.content)),) else memory.spans,
            memory.timestamp_given,
            memory.small_talk,
            memory.session_id,
            memory.model,
            memory.external_id,
            memory.metadata,
            memory.request_id,
            memory.first_seq,
            memory.key_number,
            memory.flags,
        )
    )


def decode_memory(body: bytes) -> Memory:
    """The memory of an opened row, whichever release wrote it.

    Raises:
        ValueError: this is no memory (msgspec's errors are ValueErrors, too).
    """
    if b"\x80" <= body[:1] < b"\x90" or body[:1] == b"\xde":  # how msgpack begins a map, and no array
        named = _named.decode(body)
        return msgspec.structs.replace(named, flags=flags_of(named.content))
    row = _rows.decode(body)
    role, source = ROLES.get(row.role), SOURCES.get(row.source)
    if role is None or source is None:
        raise ValueError("No memory has this role or source.")
    return Memory(
        row.seq,
        role,
        row.content,
        row.stored_ms - row.before_ms,
        row.stored_ms,
        source,
        row.tokens,
        _whole_text(len(row.content)) if row.spans is None else row.spans,
        row.timestamp_given,
        row.session_id,
        row.model,
        row.external_id,
        row.metadata,
        row.request_id,
        row.small_talk,
        row.first_seq,
        row.key_number,
        flags_of(row.content) if row.flags is None else row.flags,
    )
