"""The files of `export` and `import`: written so that a cut one never looks whole, read twice so that nothing of a
damaged one is sent.

Owns the split of a long export into bodies that a server takes, each an export of its own.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from models.errors import SetupError, StoreUnavailable
from models.exports import ExportedMemory, ExportEnd, ExportError, PartsReader, PartWriter

BODY_BYTES = 4 * 1024 * 1024
"""Of one request of an import: far below `server.body_max_bytes`, and a second or so of work for a server."""

BODY_MEMORIES_MAX = 2_000
_ERROR_LINE = b'{"error"'


class Selection(msgspec.Struct, frozen=True):
    """What of a vault is exported."""

    after: int = 0
    session_id: str | None = None
    vectors: bool = True


class ExportFile:
    """Takes an export in as it arrives, verifies it line by line, and writes whole lines only.

    Attributes:
        count: memories written.
        total: how many there are, as the first header says; None before that.
    """

    def __init__(self, target: BinaryIO) -> None:
        self.count = 0
        self.total: int | None = None
        self._target = target
        self._reader = PartsReader()
        self._rest = b""

    @property
    def last_seq(self) -> int:
        """What has been received up to here: where to go on."""
        return self._reader.last_seq

    @property
    def whole(self) -> bool:
        """Whether the last part has its end."""
        return self._reader.header is not None and not self._reader.inside and not self._rest

    def resume(self, written: BinaryIO) -> None:
        """Go on behind what an interrupted export wrote: its whole lines count, what follows them is cut off."""
        end = 0
        for line in written:
            if not line.endswith(b"\n"):
                break
            try:
                self._note(line)
            except ExportError:
                break
            end += len(line)
        written.truncate(end)
        written.seek(end)
        self.close_part()

    def feed(self, data: bytes) -> None:
        """Take a piece of the export.

        Raises:
            StoreUnavailable: the server had to end it.
            ExportError: it is not an export.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(_ERROR_LINE):
                raise StoreUnavailable("The server could not read on.")
            self._note(line + b"\n")
            self._target.write(line + b"\n")

    def close_part(self) -> None:
        """The connection broke: drop a half line, and end the open part with what there is of it."""
        self._rest = b""
        if self._reader.inside:
            line = self._reader.closing_line()
            self._note(line)
            self._target.write(line)

    def _note(self, line: bytes) -> None:
        value = self._reader.read(line)
        self.count += isinstance(value, ExportedMemory)
        if self.total is None and self._reader.header is not None:
            self.total = self._reader.header.count


def part_path(path: Path) -> Path:
    """Where an export is written until it is whole."""
    return path.with_name(f"{path.name}.part")


def open_part(path: Path, *, resume: bool) -> BinaryIO:
    """The file to write an export of `path` into, readable for its owner only, and locked: two would mix their lines.

    Raises:
        SetupError: it cannot be written, or another export writes it.
    """
    part = part_path(path)
    try:
        file = os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")
    except OSError as error:
        raise SetupError(f"{part}: cannot be written: {error.strerror}.") from error
    if not _is_ours(file, part):
        file.close()
        raise SetupError(f"{part}: another export is writing it.")
    if not resume:
        file.truncate()
    return file


def _is_ours(file: BinaryIO, part: Path) -> bool:
    """Whether nobody else writes it, from here on until it is closed, and it has not got its name meanwhile."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        pass
    try:
        return os.path.samestat(os.fstat(file.fileno()), part.stat())
    except FileNotFoundError:
        return False


def put_in_place(path: Path, written: BinaryIO) -> None:
    """The export is whole: give it its name."""
    written.flush()
    os.fsync(written.fileno())
    os.replace(part_path(path), path)


def verify_file(file: BinaryIO) -> int:
    """How many memories an export has; it is at its beginning again afterwards.

    Raises:
        ExportError: it is damaged or cut; the message names the line.
    """
    reader = PartsReader()
    count = sum(isinstance(reader.read(line), ExportedMemory) for line in file)
    reader.finish()
    file.seek(0)
    return count


def bodies_of(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """An export as several smaller ones: the number of memories in each, and its bytes."""
    reader, writer = PartsReader(), PartWriter()
    pieces: list[bytes] = []
    size_bytes = 0
    for line in file:
        value = reader.read(line)
        if not isinstance(value, ExportedMemory):
            full = isinstance(value, ExportEnd)
        else:
            if not pieces and reader.header is not None:
                writer = PartWriter()
                pieces.append(writer.header(msgspec.structs.replace(reader.header, after=value.seq - 1)))
            pieces.append(writer.take(value.seq, line))
            size_bytes += len(line)
            full = writer.count >= BODY_MEMORIES_MAX or size_bytes >= BODY_BYTES
        if full and pieces:
            yield writer.count, b"".join([*pieces, writer.end()])
            pieces, size_bytes = [], 0
