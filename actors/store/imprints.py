"""The imprint of a large vault on the disk: `<directory>/<two digits>/<vault>/imprint`, beside the vault's segments.

Owns the format of this file and when it is there. It is a cache of what the memories say (see `actors.imprint`): a bad
or missing one costs time, never a memory. Must never write a word of it unsealed. Synchronous: for worker threads, one
call at a time for one vault.

A header in clear (magic, format, bytes), then pieces of 1 MiB, each sealed with the vault's data key (AES-256-GCM) and
bound to the vault, to its place and to the size of the whole.
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from actors.store.seal import SEALED_OVERHEAD_BYTES, DataKey, Table, sync_directory
from actors.store.segment_files import cut, write_all
from actors.store.snapshots import NO_ROOM, home_of, make_directories
from models.errors import CorruptRow, StorageFull, StoreUnavailable

FORMAT = 1
NAME = "imprint"

SYNC_PIECES = 16
"""Pieces that are synced at once. Nobody can give up a sync, and one of 200 MB takes seconds, which commits share."""

_MAGIC = b"MRIMPRT\n"
_HEADER = struct.Struct(">8sHQ")  # magic, format, bytes of what is sealed
_DRAFT = "imprint.new"

# A piece is sealed like a row of memories, which it is made of: its place is the row, and the size of the whole is the
# qualifier, which rows of memories do not have. The top bit keeps the two apart.
_TABLE = Table.MEMORY
_IMPRINT_BIT = 1 << 63

_log = logging.getLogger(__name__)


class _Refused(Exception):
    """A file does not hold what it should; the text says why."""


def save_imprint(
    directory: Path,
    data_key: DataKey,
    vault_number: int,
    parts: Sequence[memoryview],
    *,
    between: Callable[[], None] = lambda: None,
) -> None:
    """Replace the imprint of a vault, durably and as a whole.

    Args:
        between: called after each piece; with an error of it the one before stays.

    Raises:
        StorageFull: the disk is full; the one before is still there.
        StoreUnavailable: the file cannot be written.
    """
    home = home_of(directory, vault_number)
    size = sum(len(part) for part in parts)
    try:
        make_directories(directory, home)
        draft = home / _DRAFT
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb", buffering=0) as file:
                write_all(file, _HEADER.pack(_MAGIC, FORMAT, size))
                for place, piece in enumerate(_pieces_of(parts, size), 1):
                    write_all(file, data_key.seal(_TABLE, place - 1, piece, qualifier=_IMPRINT_BIT | size))
                    if place % SYNC_PIECES == 0:
                        os.fsync(file.fileno())
                    between()
                os.fsync(file.fileno())
            draft.rename(home / NAME)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        sync_directory(home)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise StorageFull("The disk is too full for the imprint of a vault.") from error
        raise StoreUnavailable(f"The imprint of a vault cannot be written: {error.strerror}.") from error


def _pieces_of(parts: Sequence[memoryview], size: int) -> Iterator[bytes]:
    """All parts after one another, cut anew."""
    views = iter(parts)
    view = memoryview(b"")
    for _, length in cut(size):
        piece = bytearray()
        while len(piece) < length:
            if not view:
                view = next(views)
            taken = view[: length - len(piece)]
            piece += taken
            view = view[len(taken) :]
        yield bytes(piece)


def load_imprint(directory: Path, data_key: DataKey, vault_number: int) -> bytearray | None:
    """The verified imprint of a vault, or None. A file that is not usable is removed, and logged."""
    home = home_of(directory, vault_number)
    try:
        with (home / NAME).open("rb") as file:
            return _read(file, data_key)
    except FileNotFoundError:
        return None
    except (_Refused, CorruptRow, OSError, MemoryError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error) or type(error).__name__
        _log.warning("imprint_unusable", extra={"vault": vault_number, "reason": reason})
        with contextlib.suppress(OSError):
            (home / NAME).unlink()
        return None


def _read(file: BinaryIO, data_key: DataKey) -> bytearray:
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise _Refused("shorter than its header")
    magic, version, size = _HEADER.unpack(header)
    if magic != _MAGIC:
        raise _Refused("not an imprint")
    if version != FORMAT:
        raise _Refused(f"of format {version}")
    file_bytes = os.fstat(file.fileno()).st_size
    if size > file_bytes or file_bytes != _HEADER.size + size + len(cut(size)) * SEALED_OVERHEAD_BYTES:
        raise _Refused("of another size than its header says")
    sealed = ((place, file.read(length + SEALED_OVERHEAD_BYTES)) for place, (_, length) in enumerate(cut(size)))
    data = bytearray()
    for _, piece in data_key.unseal_rows(_TABLE, sealed, qualifier=_IMPRINT_BIT | size):
        data += piece
    return data


def remove_imprint(directory: Path, vault_number: int) -> None:
    """Remove the imprint of a vault, overwritten as SQLite does with what is deleted; none at all is fine.

    Raises:
        StoreUnavailable: it cannot be removed.
    """
    home = home_of(directory, vault_number)
    try:
        for path in (home / NAME, home / _DRAFT):
            if path.exists():
                with contextlib.suppress(OSError):  # worth a try, and no reason to leave the file there
                    _overwrite(path)
                with contextlib.suppress(FileNotFoundError):  # the purge of an erased vault removes it too
                    path.unlink()
                    sync_directory(home)
    except OSError as error:
        raise StoreUnavailable(f"The imprint of a vault cannot be removed: {error.strerror}.") from error


def _overwrite(path: Path) -> None:
    with path.open("r+b", buffering=0) as file:
        for _, length in cut(os.fstat(file.fileno()).st_size):
            write_all(file, bytes(length))
        os.fsync(file.fileno())
