"""Backup and restore of a whole data directory.

Owns the layout of a backup: the databases, a copy of the erasure ledger, and a manifest with their checksums, which is
written last, so that a backup without one is none. Must never hold the server key, and never bring back what was erased
after the backup was made.

The order of copying is what makes a restorable set. meta.db first: every vault that it names has at least the rows it
had then, and rows of vaults that came later are orphans without a key, which a restore removes. The ledger last: what
was erased while the shards were being copied is in it, and a restore erases it again.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

import apsw
import msgspec

from actors.store.connections import close_untouched, open_reader
from actors.store.counter import counter_path, read_counter
from actors.store.damage import behind_its_counter, missing
from actors.store.data_directory import META_FILE, commits_of, shard_count, shard_path
from actors.store.database import all_rows, one_row
from actors.store.ledger import LEDGER_FILE, ledger_lines, read_ledger
from actors.store.migrations import schema_version
from actors.store.progress import Report, unreported
from actors.store.rotation import server_key_id
from actors.store.seal import sync_directory
from models.errors import SetupError
from models.version import VERSION

MANIFEST_FILE = "manifest.json"
FORMAT = 1
COPY_PAGES = 2000
"""Pages copied at a time; other threads run in between."""
_READ_BYTES = 1024 * 1024

_log = logging.getLogger(__name__)


class BackedUpFile(msgspec.Struct, frozen=True):
    """One file of a backup.

    Attributes:
        schema: number of the last migration, for databases.
        commits: the database's commit counter.
    """

    name: str
    size_bytes: int
    sha256: str
    schema: int = 0
    commits: int = 0


class Manifest(msgspec.Struct, frozen=True):
    """What a backup holds.

    Attributes:
        format: of the backup.
        version: of the program that made it.
        created_ms: when the copying began: what was acknowledged by then is in it.
        server_key_id: tells which server key opens it, in hex; the key itself is never in a backup.
        shards: how many shard files the directory has.
    """

    format: int
    version: str
    created_ms: int
    server_key_id: str
    shards: int
    files: tuple[BackedUpFile, ...]


def back_up(data_dir: Path, target_dir: Path, *, now_ms: int, report: Report = unreported) -> Manifest:
    """Copy a data directory into an empty one, while a server may use it, in this process or another. Blocks.

    Args:
        report: told how many bytes of the databases are copied, and how many there are.

    Raises:
        SetupError: there is no data directory, or the target is not empty, or one of them cannot be read or written.
        ShardDamaged: a database lost commits, so that a backup would pass that on as whole.
    """
    if not (data_dir / META_FILE).exists():
        raise SetupError(f"There is no data directory {data_dir}.")
    try:
        target_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(target_dir.iterdir()):
            raise SetupError(f"The backup directory {target_dir} is not empty.", hint="Name a new one.")
        with _nothing_left_unless_whole(target_dir):
            manifest = _copy_all(data_dir, target_dir, _Copied(data_dir, report), now_ms=now_ms)
        sync_directory(target_dir.parent)
    except (apsw.Error, OSError) as error:
        raise SetupError(f"The backup to {target_dir} failed: {_reason(error)}.") from error
    files = manifest.files
    _log.info("backed up %d files, %d bytes", len(files), sum(file.size_bytes for file in files))
    return manifest


def _copy_all(data_dir: Path, target_dir: Path, copied: _Copied, *, now_ms: int) -> Manifest:
    """Each file, and at last the manifest that makes a backup of them."""
    files = [_copy_database(data_dir / META_FILE, target_dir, copied)]
    with open_copy(target_dir / META_FILE) as meta:
        shards, key_id = shard_count(meta), server_key_id(meta)
    files += [_copy_database(shard_path(data_dir, shard), target_dir, copied) for shard in range(shards)]
    files.append(_copy_ledger(data_dir / LEDGER_FILE, target_dir))
    manifest = Manifest(
        format=FORMAT,
        version=VERSION,
        created_ms=now_ms,
        server_key_id=(key_id or b"").hex(),
        shards=shards,
        files=tuple(files),
    )
    sync_directory(target_dir)
    write_durably(target_dir / MANIFEST_FILE, _manifest_bytes(manifest))
    return manifest


@contextmanager
def _nothing_left_unless_whole(target_dir: Path) -> Iterator[None]:
    """A directory that was empty is so again after a failure: for the next attempt, and for a disk that is full."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for path in target_dir.iterdir():
                path.unlink()
        raise


def _reason(error: apsw.Error | OSError) -> str:
    """What went wrong; SQLite's own words for a full disk are "not an error" where it copies pages."""
    if isinstance(error, apsw.FullError):
        return os.strerror(errno.ENOSPC)
    return (error.strerror if isinstance(error, OSError) else None) or f"{type(error).__name__}: {error}"


class _Copied:
    """How much of the databases of one backup is copied, in bytes of their files."""

    __slots__ = ("_before", "_report", "_total")

    def __init__(self, data_dir: Path, report: Report) -> None:
        self._report = report
        self._before = 0
        self._total = sum(path.stat().st_size for path in data_dir.glob("*.db"))

    def note(self, size_bytes: int, pages: int, pages_total: int) -> None:
        """So many of the pages of a database with this size are copied."""
        whole = pages >= pages_total
        done = self._before + (size_bytes if whole else size_bytes * pages // pages_total)
        self._before = done if whole else self._before
        self._total = max(self._total, done)  # a server may write meanwhile
        self._report(done, self._total)


def _copy_database(path: Path, target_dir: Path, copied: _Copied) -> BackedUpFile:
    """Copy one database as of one moment. The reading transaction keeps writers from starting the copy anew."""
    if not path.exists():
        raise missing(path.name)
    wanted = read_counter(counter_path(path)) or 0  # before the copy, which then holds at least as much
    copy = target_dir / path.name
    source = open_reader(path)
    try:
        source.execute("BEGIN")
        commits = commits_of(source)
        if commits < wanted:
            raise behind_its_counter(path.name, found=commits, wanted=wanted)
        schema = schema_version(source)
        _copy_pages(source, copy, partial(copied.note, path.stat().st_size))
        source.execute("COMMIT")
    finally:
        close_untouched(source)
    _sync_file(copy)
    with open_copy(copy) as connection:
        (verdict,) = one_row(connection, "PRAGMA quick_check(1)")
    if verdict != "ok":
        raise SetupError(f"The copy of {path.name} is not whole: {verdict}.", hint="Run `memoryrouter doctor`.")
    return describe_file(copy, schema=schema, commits=commits)


def _copy_pages(source: apsw.Connection, copy: Path, report: Report) -> None:
    target = apsw.Connection(str(copy))
    try:
        copy.chmod(0o600)
        for pragma in ("journal_mode=OFF", "synchronous=OFF"):  # a copy that a crash cuts has no manifest
            target.execute(f"PRAGMA {pragma}").fetchall()
        with target.backup("main", source, "main") as copying:
            while not copying.done:
                copying.step(COPY_PAGES)
                report(copying.page_count - copying.remaining, copying.page_count)
    finally:
        close_untouched(target)


def _copy_ledger(path: Path, target_dir: Path) -> BackedUpFile:
    copy = target_dir / LEDGER_FILE
    write_durably(copy, ledger_lines(read_ledger(path).erasures))
    return describe_file(copy)


@contextmanager
def open_copy(path: Path) -> Iterator[apsw.Connection]:
    """A database that nobody else has open, for reading: no WAL and no lock file appear beside it."""
    uri = f"file:{_quoted(path)}?immutable=1"
    connection = apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    try:
        yield connection
    finally:
        connection.close(True)


def _quoted(path: Path) -> str:
    return str(path.resolve()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def describe_file(path: Path, *, schema: int = 0, commits: int = 0) -> BackedUpFile:
    """Size and checksum of a file that nobody writes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for piece in _pieces(file):
            digest.update(piece)
    return BackedUpFile(
        name=path.name,
        size_bytes=path.stat().st_size,
        sha256=digest.hexdigest(),
        schema=schema,
        commits=commits,
    )


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_READ_BYTES):
        yield piece


def _manifest_bytes(manifest: Manifest) -> bytes:
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    return text + b"\n" + hashlib.sha256(text).hexdigest().encode() + b"\n"


def read_manifest(backup_dir: Path) -> Manifest:
    """The manifest of a backup; the line after it is its own checksum.

    Raises:
        SetupError: there is none, it is damaged, or of a newer version.
    """
    try:
        text, _, checksum = (backup_dir / MANIFEST_FILE).read_bytes().strip().rpartition(b"\n")
    except OSError as error:
        raise SetupError(
            f"{backup_dir} is no complete backup: its {MANIFEST_FILE} cannot be read.", hint="Name another one."
        ) from error
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except msgspec.MsgspecError as error:
        raise SetupError(f"The manifest of {backup_dir} is damaged.") from error
    if hashlib.sha256(text).hexdigest().encode() != checksum:
        raise SetupError(f"The manifest of {backup_dir} is damaged.")
    if manifest.format != FORMAT:
        raise SetupError(f"The backup has format {manifest.format}; this version knows {FORMAT}.")
    return manifest


def verify_backup(backup_dir: Path, *, report: Report = unreported) -> Manifest:
    """The manifest of a backup whose files are all there and unchanged. Reads them all. Blocks.

    Args:
        report: told how many bytes are verified, and how many there are.

    Raises:
        SetupError: one is missing or changed.
    """
    manifest = read_manifest(backup_dir)
    names = {META_FILE, LEDGER_FILE, *(shard_path(backup_dir, shard).name for shard in range(manifest.shards))}
    if {file.name for file in manifest.files} != names:
        raise SetupError(f"The manifest of {backup_dir} does not name the files of a data directory.")
    done, total = 0, sum(file.size_bytes for file in manifest.files)
    for file in manifest.files:
        try:
            found = describe_file(backup_dir / file.name, schema=file.schema, commits=file.commits)
        except OSError as error:
            raise SetupError(f"{file.name} of the backup cannot be read: {error.strerror}.") from error
        if found != file:
            raise SetupError(f"{file.name} of the backup is not what its manifest says.", hint="Use another backup.")
        done += file.size_bytes
        report(done, total)
    return manifest


def write_durably(path: Path, content: bytes) -> None:
    """Write a small file so that it is whole or absent, also after a power cut.

    Raises:
        OSError: it cannot be written.
    """
    draft = path.with_name(f"{path.name}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    os.replace(draft, path)
    sync_directory(path.parent)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def known_vaults(meta: apsw.Connection) -> set[int]:
    """Numbers of all vaults that meta.db names, whatever their state."""
    return {number for (number,) in all_rows(meta, "SELECT number FROM vault")}
