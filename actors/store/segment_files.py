"""One sealed index segment in one file: how it is written, read and shredded.

Owns the format. Everything is verified before hnswlib sees a byte of it. Must never write a vector to the disk
unsealed, nor know which files there are: that is the business of `actors.store.snapshots`.

A file is a header in clear (magic, format version, segment, generation, bytes of the two parts), a key of its own,
sealed with the vault's data key, and then both parts, each cut into pieces of 1 MiB, each piece sealed with the file's
key (AES-256-GCM) and bound to vault, segment, generation and place. The first part is a manifest with the row labels,
the second hnswlib's own file. When a memory is deleted, the files that hold its vectors are shredded: overwriting their
keys takes a millisecond, overwriting all of them would take seconds.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
import xxhash

from actors.segments import EF_CONSTRUCTION, GONE, LINKS, NOWHERE, ORDINAL_BITS, Segment, load_segment
from actors.store.seal import KEY_BYTES, SEALED_OVERHEAD_BYTES, WRAPPED_KEY_BYTES, DataKey, Table, sync_directory
from models.errors import CorruptRow

FORMAT = 2
DRAFT_SUFFIX = ".new"
"""Of a file that is being written; what a crash leaves of it is no file of a segment."""

_MAGIC = b"MRSEGMT\n"
_HEADER = struct.Struct(">8sHIQQQ")  # magic, format, segment, generation, bytes of the first part and of the second
_KEY_PLACE = (1 << 32) - 1  # among the pieces, where none stands
_PIECE_BYTES = 1 << 20

# A piece is sealed like a row of embeddings, which it is made of: its segment and place are the row, and its generation
# is the qualifier. The qualifier of an embedding is the small number of a model; the top bit keeps the two apart.
_TABLE = Table.EMBEDDING
_SNAPSHOT_BIT = 1 << 63


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file says of its segment, sealed with it.

    Attributes:
        sequence: the highest seq among its memories.
        payload_xxh3: xxh3-128 of hnswlib's file.
    """

    model_id: str
    dims: int
    rows: int
    links: int
    ef_construction: int
    sequence: int
    payload_bytes: int
    payload_xxh3: bytes


class Refused(Exception):
    """A file does not hold what it should; the text says why."""


# Writing.


def write_segment(
    home: Path, data_key: DataKey, vault_number: int, segment: Segment, generation: int, payload: int
) -> None:
    """Write a segment's file beside, sync, rename: the name stands for a whole file or for none.

    Args:
        payload: descriptor of hnswlib's file.

    Raises:
        OSError: it cannot be written; nothing of it is left.
    """
    secret = os.urandom(KEY_BYTES)
    file_key = DataKey(secret, vault_number=vault_number)
    head = _head(segment, payload)
    payload_bytes = os.fstat(payload).st_size
    path = home / f"{segment.number}.{generation}"
    draft = path.with_name(path.name + DRAFT_SUFFIX)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb", buffering=0) as file:
            write_all(file, _HEADER.pack(_MAGIC, FORMAT, segment.number, generation, len(head), payload_bytes))
            write_all(file, _seal(data_key, segment.number, generation, _KEY_PLACE, secret))
            pieces = cut(len(head)) + cut(payload_bytes)
            for place, (start, size) in enumerate(pieces):
                of_head = place < len(cut(len(head)))
                piece = head[start : start + size] if of_head else os.pread(payload, size, start)
                write_all(file, _seal(file_key, segment.number, generation, place, piece))
            os.fsync(file.fileno())
        draft.rename(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_directory(home)


def _seal(data_key: DataKey, segment: int, generation: int, place: int, piece: bytes) -> bytes:
    return data_key.seal(_TABLE, _row_id(segment, place), piece, qualifier=_SNAPSHOT_BIT | generation)


def _row_id(segment: int, place: int) -> int:
    return segment << 32 | place


def cut(size: int) -> list[tuple[int, int]]:
    """Start and size of each piece of a part."""
    return [(start, min(_PIECE_BYTES, size - start)) for start in range(0, size, _PIECE_BYTES)]


def write_all(file: BinaryIO, data: bytes) -> None:
    """All of it: an unbuffered write may stop early."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _head(segment: Segment, payload: int) -> bytes:
    """The manifest and the columns. Read after the payload was taken: what has died in between is dead here too."""
    checksum = xxhash.xxh3_128()
    size = os.fstat(payload).st_size
    for start, length in cut(size):
        checksum.update(os.pread(payload, length, start))
    labels = np.where(segment.chunks == NOWHERE, GONE, segment.labels)
    alive = labels[labels != GONE]
    manifest = msgspec.msgpack.encode(
        Manifest(
            model_id=segment.model_id,
            dims=segment.dims,
            rows=len(segment),
            links=LINKS,
            ef_construction=EF_CONSTRUCTION,
            sequence=int(alive.max()) >> ORDINAL_BITS if len(alive) else 0,
            payload_bytes=size,
            payload_xxh3=checksum.digest(),
        )
    )
    columns = labels.astype("<u8").tobytes() + segment.nodes.astype("<i4").tobytes()
    return struct.pack(">I", len(manifest)) + manifest + columns


# Reading.


def read_segment(
    path: Path, data_key: DataKey, vault_number: int, number: int, generation: int, *, model_id: str, dims: int
) -> tuple[int, Segment]:
    """The sequence and the segment of one file.

    Raises:
        Refused: it does not hold what it should.
        OSError, MemoryError: it cannot be read.
    """
    with path.open("rb") as file:
        head_bytes, payload_bytes = _read_header(file, number, generation)
        file_key = _read_key(file, data_key, vault_number, number, generation)
        parts = _unsealed(file, file_key, number, generation, cut(head_bytes) + cut(payload_bytes))
        head = b"".join(next(parts) for _ in cut(head_bytes))
        return _read_parts(head, parts, number, payload_bytes, model_id=model_id, dims=dims)


def _read_parts(
    head: bytes, payload_pieces: Iterator[bytes], number: int, payload_bytes: int, *, model_id: str, dims: int
) -> tuple[int, Segment]:
    """The sequence and the segment of one file."""
    manifest, columns = _split_head(head)
    _check(manifest, columns, payload_bytes, model_id=model_id, dims=dims)
    labels = np.frombuffer(columns, "<u8", manifest.rows).astype(np.uint64)
    nodes = np.frombuffer(columns, "<i4", manifest.rows, 8 * manifest.rows).astype(np.int32)
    descriptor = os.memfd_create("segment", os.MFD_CLOEXEC)
    try:
        checksum = xxhash.xxh3_128()
        with open(descriptor, "wb", buffering=0, closefd=False) as payload:
            for piece in payload_pieces:
                checksum.update(piece)
                write_all(payload, piece)
        if checksum.digest() != manifest.payload_xxh3:
            raise Refused("its payload fails its checksum")
        segment = load_segment(
            descriptor, model_id=model_id, dims=dims, labels=labels, nodes=nodes, links=manifest.links
        )
    except ValueError as error:
        raise Refused(f"hnswlib refuses it: {error}") from error
    finally:
        os.close(descriptor)
    segment.number = number
    segment.saved = True
    return manifest.sequence, segment


def _read_key(file: BinaryIO, data_key: DataKey, vault_number: int, number: int, generation: int) -> DataKey:
    """The file's own key, behind its header."""
    rows = [(_row_id(number, _KEY_PLACE), file.read(WRAPPED_KEY_BYTES))]
    try:
        ((_, secret),) = data_key.unseal_rows(_TABLE, rows, qualifier=_SNAPSHOT_BIT | generation)
        return DataKey(secret, vault_number=vault_number)
    except (CorruptRow, ValueError) as error:
        raise Refused("its key fails its checksum, or is not of this vault, segment or generation") from error


def _read_header(file: BinaryIO, number: int, generation: int) -> tuple[int, int]:
    """The sizes of both parts, which the size of the file confirms."""
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise Refused("shorter than its header")
    magic, version, named, generation_named, head_bytes, payload_bytes = _HEADER.unpack(header)
    if magic != _MAGIC:
        raise Refused("not a snapshot of a segment")
    if version != FORMAT:
        raise Refused(f"of format {version}")
    if (named, generation_named) != (number, generation):
        raise Refused("of another name")
    size = os.fstat(file.fileno()).st_size
    if max(head_bytes, payload_bytes) > size:
        raise Refused("of another size than its header says")
    pieces = len(cut(head_bytes)) + len(cut(payload_bytes))
    overhead_bytes = _HEADER.size + WRAPPED_KEY_BYTES + pieces * SEALED_OVERHEAD_BYTES
    if size != overhead_bytes + head_bytes + payload_bytes:
        raise Refused("of another size than its header says")
    return head_bytes, payload_bytes


def _unsealed(
    file: BinaryIO, data_key: DataKey, number: int, generation: int, pieces: list[tuple[int, int]]
) -> Iterator[bytes]:
    """The pieces of both parts, in order."""
    rows = ((_row_id(number, place), file.read(size + SEALED_OVERHEAD_BYTES)) for place, (_, size) in enumerate(pieces))
    try:
        for _, piece in data_key.unseal_rows(_TABLE, rows, qualifier=_SNAPSHOT_BIT | generation):
            yield piece
    except CorruptRow as error:
        raise Refused("a piece fails its checksum, or is not of this vault, segment or generation") from error


def _split_head(head: bytes) -> tuple[Manifest, bytes]:
    try:
        (size,) = struct.unpack_from(">I", head)
        return msgspec.msgpack.decode(head[4 : 4 + size], type=Manifest), head[4 + size :]
    except (struct.error, msgspec.MsgspecError) as error:
        raise Refused("its manifest cannot be read") from error


def _check(manifest: Manifest, columns: bytes, payload_bytes: int, *, model_id: str, dims: int) -> None:
    if manifest.model_id != model_id:
        raise Refused("of another model")
    if manifest.dims != dims:
        raise Refused(f"of {manifest.dims} dimensions")
    if manifest.payload_bytes != payload_bytes or manifest.rows < 1 or len(columns) != 12 * manifest.rows:
        raise Refused("its parts are not of the sizes that its manifest says")


# Removing.


def shred(path: Path) -> None:
    """Destroy a file's key, durably, then unlink it."""
    with contextlib.suppress(OSError), path.open("r+b", buffering=0) as file:  # no reason to leave the file there
        file.seek(_HEADER.size)
        write_all(file, bytes(WRAPPED_KEY_BYTES))
        os.fsync(file.fileno())
    path.unlink(missing_ok=True)
