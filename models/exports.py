"""The export format: one vault as JSON lines that are checked on the way back in.

Owns the lines and their verification, sans-IO. Must never accept a part of an export that is cut, changed or out of
order.

An export is one or more parts, one behind the other. A part is a header line, one line a memory in ascending `seq`, and
an end line::

    {"format":"memoryrouter-export","version":1,"model":...,"dims":384,"count":2,"after":0,"created_at":...,"checksum":...}
    {"seq":1,"role":"user","content":"...","timestamp":1780000000000,"stored":1780000000000,"source":"ingest",...}
    {"seq":4,"id":"m-7","role":"assistant",...,"spans":[[0,31]],"vector":"..."}
    {"end":true,"count":2,"sha256":"..."}

The header's checksum is the SHA-256 (hex) of the header without that field, as compact JSON in the same order. The end
line's is that of all bytes of its part before it, line feeds included. `vector` is the base64 of float16 little-endian
rows, one a span, by the embedding model of the header. Fields that a reader does not know are passed over. A part that
was cut may be closed by an end line behind its last whole memory, and continued by another part.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from models.errors import InvalidRequest
from models.memory import Memory, Role

FORMAT = "memoryrouter-export"
VERSION = 1
CONTENT_TYPE = "application/x-ndjson"
VECTOR_ITEM_BYTES = 2
"""Of one float16."""


class ExportError(InvalidRequest):
    """A line of an export is wrong, or what should follow it is missing."""

    def __init__(self, number: int, problem: str) -> None:
        super().__init__(f"Line {number}: {problem}", hint="Nothing of this import was stored.")


class ExportHeader(msgspec.Struct, frozen=True):
    """The first line of a part.

    Attributes:
        model: id of the embedding model whose vectors follow.
        dims: length of a vector.
        count: memories in the vault, or in the asked session, when the part was begun: for showing progress.
        after: the part holds what is behind this seq.
        created_at: when it was begun, epoch milliseconds.
        session_id: the only session in it, or None for all.
        checksum: see the module.
    """

    format: str
    version: int
    model: str
    dims: int
    count: int
    after: int
    created_at: int
    session_id: str | None
    checksum: str = ""


class ExportedMemory(msgspec.Struct, frozen=True, omit_defaults=True):
    """One memory. Times are epoch milliseconds; `id` is the client's own id; spans are character offsets of chunks."""

    seq: int
    role: Role
    content: str
    timestamp: int
    id: str | None = None
    session_id: str | None = None
    source: str | None = None
    stored: int | None = None
    model: str | None = None
    metadata: dict[str, Any] | None = None
    spans: tuple[tuple[int, int], ...] = ()
    vector: str | None = None


class ExportEnd(msgspec.Struct, frozen=True):
    """The last line of a part: how many memories it has, and the hash of all lines before this one."""

    end: Literal[True]
    count: int
    sha256: str


ExportLine = ExportHeader | ExportedMemory | ExportEnd
_decode_memory = msgspec.json.Decoder(ExportedMemory).decode
_decode_end = msgspec.json.Decoder(ExportEnd).decode


def exported(memory: Memory, vectors: bytes | None) -> ExportedMemory:
    """A memory as its line holds it, with its embedding if that is given and complete."""
    return ExportedMemory(
        seq=memory.seq,
        role=memory.role,
        content=memory.content,
        timestamp=memory.timestamp_ms,
        id=memory.external_id,
        session_id=memory.session_id,
        source=memory.source,
        stored=memory.stored_ms,
        model=memory.model,
        metadata=memory.metadata,
        spans=memory.spans,
        vector=base64.b64encode(vectors).decode() if vectors else None,
    )


class PartWriter:
    """Writes the lines of one part.

    Attributes:
        count: memories written.
        last_seq: of the last one.
    """

    def __init__(self) -> None:
        self.count = 0
        self.last_seq = 0
        self._digest = hashlib.sha256()

    def header(self, header: ExportHeader) -> bytes:
        """The first line."""
        self.last_seq = header.after
        fields = msgspec.to_builtins(header)
        return self._hashed(msgspec.json.encode({**fields, "checksum": header_checksum(fields)}) + b"\n")

    def memory(self, memory: ExportedMemory) -> bytes:
        """The line of one memory."""
        return self.take(memory.seq, msgspec.json.encode(memory) + b"\n")

    def take(self, seq: int, line: bytes) -> bytes:
        """A line that was encoded before, with its line feed."""
        self.count += 1
        self.last_seq = seq
        return self._hashed(line)

    def end(self) -> bytes:
        """The last line."""
        return end_line(self.count, self._digest.hexdigest())

    def _hashed(self, line: bytes) -> bytes:
        self._digest.update(line)
        return line


def end_line(count: int, sha256: str) -> bytes:
    """The last line of a part of so many memories."""
    return msgspec.json.encode(ExportEnd(end=True, count=count, sha256=sha256)) + b"\n"


def header_checksum(fields: dict[str, Any]) -> str:
    """The checksum over a header's other fields."""
    others = {name: value for name, value in fields.items() if name != "checksum"}
    return hashlib.sha256(msgspec.json.encode(others)).hexdigest()


class PartsReader:
    """Reads the lines of an export, part after part, and verifies each.

    Attributes:
        header: of the part that is open, or was last.
        inside: whether a part is open.
        number: of the last line, from 1.
        last_seq: of the last memory, or what its part's header says before the first.
    """

    def __init__(self) -> None:
        self.header: ExportHeader | None = None
        self.inside = False
        self.number = 0
        self.count = 0
        self.last_seq = 0
        self._digest = hashlib.sha256()

    def read(self, line: bytes) -> ExportLine | None:
        """Take one line in, with its line feed; None for a blank line between parts.

        Raises:
            ExportError: it is not what must stand here.
        """
        self.number += 1
        if not self.inside:
            return self._open(line) if line.strip() else None
        if not line.endswith(b"\n"):
            return self._close(line)  # only a last end line may go without
        if line.startswith(b'{"end"'):
            return self._close(line)
        return self._memory(line)

    def finish(self) -> None:
        """There are no more lines.

        Raises:
            ExportError: a part is still open: the export is cut.
        """
        if self.inside:
            raise ExportError(self.number + 1, "the export is cut here; its end line is missing.")
        if self.header is None:
            raise ExportError(1, "the export is empty; its header is missing.")

    def closing_line(self) -> bytes:
        """The end line that would close the open part here."""
        return end_line(self.count, self._digest.hexdigest())

    def _open(self, line: bytes) -> ExportHeader:
        try:
            fields = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            fields = None
        if not isinstance(fields, dict) or fields.get("format") != FORMAT:
            raise ExportError(self.number, f"it must be the header of a {FORMAT}.")
        if fields.get("version") != VERSION:
            raise ExportError(self.number, f"this server reads version {VERSION} of the format.")
        if fields.get("checksum") != header_checksum(fields):
            raise ExportError(self.number, "the header fails its checksum.")
        try:
            self.header = msgspec.convert(fields, ExportHeader)
        except msgspec.ValidationError as error:
            raise ExportError(self.number, f"the header is not valid: {error}.") from None
        self.inside, self.count, self.last_seq = True, 0, self.header.after
        self._digest = hashlib.sha256(line)
        return self.header

    def _memory(self, line: bytes) -> ExportedMemory:
        try:
            memory = _decode_memory(line)
        except msgspec.ValidationError as error:
            raise ExportError(self.number, f"not a valid memory: {error}.") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ExportError(self.number, "not valid JSON.") from None
        if memory.seq <= self.last_seq:
            raise ExportError(self.number, "memories must come in ascending order of seq.")
        self._digest.update(line)
        self.count, self.last_seq = self.count + 1, memory.seq
        return memory

    def _close(self, line: bytes) -> ExportEnd:
        try:
            end = _decode_end(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ExportError(self.number, "the export is cut here, or its end line is damaged.") from None
        if end.count != self.count or end.sha256 != self._digest.hexdigest():
            raise ExportError(self.number, "the lines before this end line are not those that were exported.")
        self.inside = False
        return end


def lines_of(body: bytes) -> Iterator[bytes]:
    """The lines of a body, with their line feeds."""
    start = 0
    while start < len(body):
        end = body.find(b"\n", start) + 1 or len(body)
        yield body[start:end]
        start = end
