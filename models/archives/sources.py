"""The files of an upload: single ones, those of a directory, and those inside of zip and gzip files.

Owns which files are read, and the limits that keep a small file from becoming an endless one. Names inside of a zip
file are shown and compared, never used as paths: nothing is unpacked. Must never follow a symbolic link out of a
directory, and never hold a file in memory.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from models.archives.entries import ArchiveError, Bad, Passed
from models.errors import SetupError
from models.sizes import GIB, MIB

ZIP_HEADS = (b"PK\x03\x04", b"PK\x05\x06")
GZIP_HEAD = b"\x1f\x8b"
BUFFER_BYTES = MIB
UNIX_MODE_SHIFT = 16
"""Of a member's external attributes, where a zip file made on Unix has the mode."""

_ENCRYPTED = 0x1  # bit 0 of the general purpose flags (APPNOTE 4.4.4)

# conversations.json, conversations-000.json: of ChatGPT and Claude. The others are Claude's.
_CONVERSATIONS = re.compile(r"(.*/)?conversations(-\d+)?\.json")
_OF_AN_EXPORT = re.compile(r"(.*/)?((conversations(-\d+)?|memories|projects)\.json|(memories|projects)/[^/]+\.json)")
_READ = (".jsonl", ".ndjson", ".json", ".md", ".markdown", ".txt", ".text")
_PACKED = (".zip", ".gz")


Opening = Callable[[], AbstractContextManager[BinaryIO]]


class ArchiveLimits(msgspec.Struct, frozen=True):
    """How large packed files may become.

    Attributes:
        free_bytes: what any member may have, however well it is packed.
        ratio_max: above that, so many bytes for each packed one. JSON of conversations packs 5 to 20 times.
        total_bytes_max: of all members of one file together.
        members_max: of one zip file.
    """

    free_bytes: int = 64 * MIB
    ratio_max: int = 200
    total_bytes_max: int = 64 * GIB
    members_max: int = 100_000


class Source:
    """One file to read.

    Attributes:
        name: to be shown; of a member, behind the name of its archive.
        modified_ms: when it was last changed, or None.
        asked: named by the user, not found in a directory or an archive.
    """

    __slots__ = ("_open", "asked", "modified_ms", "name")

    def __init__(self, name: str, opening: Opening, *, modified_ms: int | None, asked: bool) -> None:
        self.name = name
        self.modified_ms = modified_ms
        self.asked = asked
        self._open = opening

    @contextmanager
    def open(self) -> Iterator[io.BufferedReader[Any]]:
        """Its bytes, unpacked.

        Raises:
            ArchiveError: it is damaged or becomes too large, also while it is read.
        """
        with ExitStack() as opened:
            with in_words():
                file = opened.enter_context(self._open())
            yield opened.enter_context(io.BufferedReader(_Steady(file), BUFFER_BYTES))


@contextmanager
def in_words() -> Iterator[None]:
    """What can go wrong with a packed or unreadable file, as an `ArchiveError`."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, gzip.BadGzipFile, EOFError) as error:
        raise ArchiveError("the packed file is damaged or cut.") from error
    except RuntimeError as error:  # zipfile: a password, or a method of packing that it does not know
        raise ArchiveError("it is packed in a way that cannot be read.") from error
    except OSError as error:
        raise ArchiveError(f"cannot be read: {error.strerror or type(error).__name__}.") from error


def sources_of(
    paths: Iterable[tuple[Path, str]], *, limits: ArchiveLimits | None = None
) -> Iterator[Source | Passed | Bad]:
    """The files to read, in a fixed order. A source is to be read before the next one is asked for.

    Args:
        paths: files or directories, each with the name to show.

    Raises:
        SetupError: one of them does not exist or cannot be read.
    """
    limits = limits or ArchiveLimits()
    for path, name in paths:
        if path.is_dir():
            yield from _of_directory(path, name, limits)
            continue
        try:
            path.open("rb").close()
        except OSError as error:
            raise SetupError(f"{name}: cannot be read: {error.strerror}.") from error
        yield from _of_file(path, name, limits, asked=True)


# --- directories ---


def _of_directory(root: Path, name: str, limits: ArchiveLimits) -> Iterator[Source | Passed | Bad]:
    for where, folders, files in os.walk(root, followlinks=False):
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        listed = [file for file in sorted(files) if not file.startswith(".")]
        chosen = _chosen(listed, packed=True)
        for file in listed:
            path = Path(where, file)
            shown = str(Path(name, path.relative_to(root)))
            if path.is_symlink() or not path.is_file():
                yield Passed("symbolic_link" if path.is_symlink() else "no_file", shown)
            elif file in chosen:
                yield from _of_file(path, shown, limits, asked=False)
            else:
                yield Passed("other_file", shown)


def _chosen(names: Iterable[str], *, packed: bool) -> set[str]:
    """Of the files of one directory or archive, those to read.

    Where there are conversations of an export, nothing else than what belongs to it: such exports also hold what the
    user once attached, and lists of files.
    """
    listed = list(names)
    if any(_CONVERSATIONS.fullmatch(name) for name in listed):
        return {name for name in listed if _OF_AN_EXPORT.fullmatch(name) or (packed and name.endswith(_PACKED))}
    suffixes = (*_READ, *_PACKED) if packed else _READ
    return {name for name in listed if name.lower().endswith(suffixes)}


# --- files ---


def _of_file(path: Path, name: str, limits: ArchiveLimits, *, asked: bool) -> Iterator[Source | Passed | Bad]:
    try:
        with in_words():
            with path.open("rb") as file:
                head = file.read(4)
            status = path.stat()
            if head in ZIP_HEADS:
                yield from _of_zip(path, name, limits)
                return
    except ArchiveError as error:
        yield Bad(error.message, name)
        return
    modified_ms = status.st_mtime_ns // 1_000_000
    if head[:2] == GZIP_HEAD:
        bytes_max = min(limits.total_bytes_max, max(limits.free_bytes, limits.ratio_max * status.st_size))
        opening: Opening = partial(_gzip, path, bytes_max)
        yield Source(name.removesuffix(".gz"), opening, modified_ms=modified_ms, asked=asked)
    else:
        yield Source(name, partial(_plain, path), modified_ms=modified_ms, asked=asked)


def _plain(path: Path) -> BinaryIO:
    return path.open("rb")


@contextmanager
def _gzip(path: Path, bytes_max: int) -> Iterator[BinaryIO]:
    with gzip.open(path, "rb") as file:
        yield _Bounded(file, bytes_max)  # type: ignore[misc]  # it has all of BinaryIO that is used, but not its type


def _of_zip(path: Path, name: str, limits: ArchiveLimits) -> Iterator[Source | Passed | Bad]:
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist() if not member.is_dir()}
        if len(members) > limits.members_max:
            raise ArchiveError(f"it has more than {limits.members_max} files.")
        chosen = _chosen(members, packed=False)
        _check_members([member for inner, member in members.items() if inner in chosen], limits)
        for inner in sorted(members):
            shown = f"{name}: {_printable(inner)}"
            member = members[inner]
            if stat.S_ISLNK(member.external_attr >> UNIX_MODE_SHIFT):
                yield Passed("symbolic_link", shown)
            elif inner in chosen:
                opening = cast(Opening, partial(archive.open, member))  # it reads bytes as long as nobody asks to write
                yield Source(shown, opening, modified_ms=_changed_ms(member), asked=False)
            else:
                yield Passed("other_file", shown)


def _check_members(members: list[zipfile.ZipInfo], limits: ArchiveLimits) -> None:
    """Refuse what is encrypted, and what would become far larger than it is.

    The sizes are those that the archive states; zipfile reads no more of a member than that.
    """
    for member in members:
        shown = _printable(member.filename)
        if member.flag_bits & _ENCRYPTED:
            raise ArchiveError(f"{shown} is encrypted; unpack it with its password first.")
        if member.file_size > max(limits.free_bytes, limits.ratio_max * member.compress_size):
            raise ArchiveError(f"{shown} would unpack to {member.file_size} bytes, far more than is sound.")
    total = sum(member.file_size for member in members)
    if total > limits.total_bytes_max:
        raise ArchiveError(f"it would unpack to {total} bytes; {limits.total_bytes_max} are allowed.")


def _changed_ms(member: zipfile.ZipInfo) -> int | None:
    try:
        return int(datetime(*member.date_time, tzinfo=UTC).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


def _printable(name: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in name)[:200]


# --- streams ---


class _Steady(io.RawIOBase):
    """A stream whose errors while it is read are `ArchiveError`s, whatever packs it."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # what BufferedReader passes
        with in_words():
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Bounded:
    """A stream that ends in an error once more than so many bytes came out of it."""

    def __init__(self, file: gzip.GzipFile, bytes_max: int) -> None:
        self._file = file
        self._left = bytes_max

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ArchiveError("it unpacks to far more than is sound.")
        return data
