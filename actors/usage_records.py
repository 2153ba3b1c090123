"""The format of the usage journal's files, on bytes.

A file is a header (magic, the journal's id, the file's number, a checksum) and records, each with a mark, its length
and a checksum that also covers the header, so that no record passes in another file. Owns nothing, does no I/O. A
file's end may be torn by a power cut and its middle damaged by a bad disk: what is whole is read, the rest measured.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence

import msgspec

from models.usage import DAY_MINUTES, MINUTE_MS, UsageCount

RECORD_BYTES_MAX = 65_535
ROWS_A_RECORD = 4_096
JOURNAL_ID_BYTES = 16

_MAGIC = b"MRUSAGE1"
_MARK = b"\xa5\x55"
_HEADER = struct.Struct(f"<8s{JOURNAL_ID_BYTES}sQ")
_CHECKSUM = struct.Struct("<I")
_PREFIX = struct.Struct("<2sHI")
HEADER_BYTES = _HEADER.size + _CHECKSUM.size

Row = tuple[int, int]
"""An inbox row: its shard, its number."""


class Counted(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """What one request adds, or one inbox row that became memories.

    Attributes:
        minute: whole minutes since the Unix epoch; of the request's end, or of the row's acceptance.
        latency_us: microseconds, so that short requests do not vanish.
        row: the inbox row whose memories are counted; no other record may count it.
    """

    key_number: int
    account_number: int
    minute: int
    model: str = ""
    requests: int = 0
    errors: int = 0
    memories_stored: int = 0
    tokens_retrieved: int = 0
    tokens_injected: int = 0
    tokens_billed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    latency_us: int = 0
    row: Row | None = None


class Carried(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """Inbox rows that earlier files have counted and that may still be in the inbox."""

    rows: tuple[Row, ...]


Record = Counted | Carried

_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Record)


class Header(msgspec.Struct, frozen=True):
    """Which file this is.

    Attributes:
        journal: id of the run that wrote it, as hexadecimal digits.
        number: of the file within that run, from 1.
    """

    journal: str
    number: int

    def encode(self) -> bytes:
        """As it stands at the front of the file."""
        packed = _HEADER.pack(_MAGIC, bytes.fromhex(self.journal), self.number)
        return packed + _CHECKSUM.pack(zlib.crc32(packed))


def header_of(data: bytes) -> Header | None:
    """The header of a file, None if there is none or it is damaged."""
    if len(data) < HEADER_BYTES:
        return None
    packed = data[: _HEADER.size]
    magic, journal, number = _HEADER.unpack(packed)
    if magic != _MAGIC or _CHECKSUM.unpack_from(data, _HEADER.size)[0] != zlib.crc32(packed):
        return None
    return Header(journal=journal.hex(), number=number)


def seed_of(header: bytes) -> int:
    """What the checksums of a file's records begin with."""
    return zlib.crc32(header[: _HEADER.size])  # with its own checksum the sum would be the same for every header


def encode_record(record: Record, seed: int) -> bytes:
    """One record as it stands in a file."""
    body = _encode(record)
    assert len(body) <= RECORD_BYTES_MAX
    return _PREFIX.pack(_MARK, len(body), zlib.crc32(body, seed)) + body


def encode_rows(rows: Sequence[Row], seed: int) -> bytes:
    """Rows that a new file carries on, in as many records as they take."""
    slices = (rows[start : start + ROWS_A_RECORD] for start in range(0, len(rows), ROWS_A_RECORD))
    return b"".join(encode_record(Carried(tuple(part)), seed) for part in slices)


class Scanned(msgspec.Struct, frozen=True):
    """What a file holds.

    Attributes:
        damaged_bytes: between whole records, that are none.
        torn_bytes: behind the last whole record.
    """

    records: list[Record]
    damaged_bytes: int
    torn_bytes: int


def scan(data: bytes) -> Scanned:
    """Read every whole record behind the header, in order, and measure what is none."""
    seed = seed_of(data[:HEADER_BYTES])
    records: list[Record] = []
    damaged_bytes = 0
    end = at = HEADER_BYTES
    while (at := data.find(_MARK, at)) >= 0:
        found = _record_at(data, at, seed)
        if found is None:
            at += 1
            continue
        record, behind = found
        records.append(record)
        damaged_bytes += at - end
        at = end = behind
    return Scanned(records, damaged_bytes, len(data) - end)


def _record_at(data: bytes, at: int, seed: int) -> tuple[Record, int] | None:
    if at + _PREFIX.size > len(data):
        return None
    _, length, checksum = _PREFIX.unpack_from(data, at)
    start = at + _PREFIX.size
    body = data[start : start + length]
    if len(body) < length or zlib.crc32(body, seed) != checksum:
        return None
    try:
        return _decoder.decode(body), start + length
    except msgspec.MsgspecError:
        return None


class Totals:
    """Records added up by key, day and model; when each key was last used; which rows were counted.

    Attributes:
        last_used: milliseconds since the epoch, by key number; whole minutes.
        rows: the inbox rows among the records.
    """

    __slots__ = ("_sums", "last_used", "rows")

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._sums: dict[tuple[int, int, int, str], list[int]] = {}
        self.last_used: dict[int, int] = {}
        self.rows: set[Row] = set()
        for record in records:
            self.add(record)

    def __bool__(self) -> bool:
        """Whether anything was counted."""
        return bool(self._sums)

    def add(self, record: Record) -> None:
        """Take a record in."""
        if isinstance(record, Carried):
            self.rows.update(record.rows)
            return
        if record.row is not None:
            self.rows.add(record.row)
        key = (record.key_number, record.account_number, record.minute // DAY_MINUTES, record.model)
        sums = self._sums.get(key)
        if sums is None:
            sums = self._sums[key] = [0] * 9
        sums[0] += record.requests
        sums[1] += record.errors
        sums[2] += record.memories_stored
        sums[3] += record.tokens_retrieved
        sums[4] += record.tokens_injected
        sums[5] += record.tokens_billed
        sums[6] += record.input_tokens
        sums[7] += record.output_tokens
        sums[8] += record.latency_us
        used_ms = record.minute * MINUTE_MS
        if self.last_used.get(record.key_number, 0) < used_ms:
            self.last_used[record.key_number] = used_ms

    def counts(self) -> list[UsageCount]:
        """The sums."""
        return [
            UsageCount(
                key_number=key_number,
                account_number=account_number,
                day=day,
                model=model,
                requests=sums[0],
                errors=sums[1],
                memories_stored=sums[2],
                tokens_retrieved=sums[3],
                tokens_injected=sums[4],
                tokens_billed=sums[5],
                input_tokens=sums[6],
                output_tokens=sums[7],
                latency_ms_sum=(sums[8] + 500) // 1000,
            )
            for (key_number, account_number, day, model), sums in self._sums.items()
        ]
