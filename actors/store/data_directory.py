"""The files of a data directory: who may use it, what they are called, and how each is made ready before use.

Owns the LOCK file, the settings that are fixed at the first start (shard count, server key id), and the decision which
files may be served. Must never touch a data directory that another process holds, and never write to a file that lost
commits: what is left of it may be all that can be saved.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import msgspec

from actors.store.connections import BUSY_TIMEOUT_MS, close_untouched, writing
from actors.store.counter import counter_path, read_counter, write_counter
from actors.store.damage import behind_its_counter, missing, unreadable
from actors.store.database import one_row
from actors.store.erasing import reconcile
from actors.store.ledger import LEDGER_FILE
from actors.store.migrations import META_MIGRATIONS, SHARD_MIGRATIONS, Migration, migrate, schema_version
from actors.store.progress import Report, unreported
from actors.store.restoring import finish_restore
from actors.store.rotation import Rotation, exchange_server_key, resolve_server_key, server_key_path
from actors.store.seal import ServerKey, sync_directory
from actors.store.unfinished import refuse_unfinished
from actors.usage_shares import hand_out
from models.errors import SetupError, ShardDamaged

LOCK_FILE = "LOCK"
META_FILE = "meta.db"

ROOM_LEAST_BYTES = 64 * 1024
"""SQLite's shared memory takes 32 KiB beside each open file, also to read it."""


class Prepared(msgspec.Struct, frozen=True):
    """A data directory that is ready to be served.

    Attributes:
        shards: how many shard files it has.
        server_key: the key that opens it.
        damages: why shards must not be served, by shard.
        changes: the number of the last change of what workers keep in memory, where several share the directory.
    """

    shards: int
    server_key: ServerKey
    damages: dict[int, ShardDamaged]
    changes: int = 0


def shard_path(data_dir: Path, shard: int) -> Path:
    """The file of one shard."""
    return data_dir / f"shard-{shard:02d}.db"


def lock_data_directory(data_dir: Path) -> int:
    """Make the directory if it is missing and take its lock; the descriptor holds it until it is closed.

    Raises:
        SetupError: another process uses the directory, or it cannot be written.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(data_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SetupError(f"The data directory {data_dir} cannot be written: {error.strerror}.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise SetupError(
            f"The data directory {data_dir} is in use by another process.",
            hint="Stop it, or choose another directory with --data-dir.",
        ) from error
    return descriptor


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Hold the lock of a data directory that exists.

    Raises:
        SetupError: there is none, or another process uses it.
    """
    if not data_dir.is_dir():
        raise SetupError(f"There is no data directory {data_dir}.")
    descriptor = lock_data_directory(data_dir)
    try:
        yield
    finally:
        os.close(descriptor)


def prepare(
    data_dir: Path,
    *,
    shards: int,
    server_key_file: Path | None,
    server_key: bytes | None,
    now_ms: Callable[[], int],
    workers: int = 1,
) -> Prepared:
    """Bring every file to the newest schema, and finish what a crash interrupted. Blocks.

    Args:
        workers: how many processes will share the directory.

    Raises:
        SetupError: meta.db cannot be opened or lost commits, a file is newer than this version, or everything was
            sealed by another server key.
    """
    try:
        finish_restore(data_dir)
        meta_path = data_dir / META_FILE
        damage = find_damage(meta_path, must_exist=False)
        if damage is not None:  # without it nobody can be let in, so there is nothing to serve
            raise SetupError(damage.message, hint=damage.hint)
        with prepared(meta_path, META_MIGRATIONS, now_ms=now_ms()) as meta:
            refuse_unfinished(meta)
            key = resolve_server_key(meta, server_key_path(data_dir, server_key_file), server_key)
            meta.execute("INSERT OR IGNORE INTO setting VALUES ('shards', ?)", (shards,))
            count = shard_count(meta)
            was_made = one_row(meta, "SELECT 1 FROM account LIMIT 1") is not None  # after the shards were
            reconcile(meta, data_dir / LEDGER_FILE, server_key=key, shards=range(count), now_ms=now_ms())
        damages: dict[int, ShardDamaged] = {}
        for shard in range(count):
            path = shard_path(data_dir, shard)
            damage = find_damage(path, must_exist=was_made)
            if damage is not None:
                damages[shard] = damage
                continue
            with prepared(path, SHARD_MIGRATIONS, now_ms=now_ms()):
                pass
        hand_out(data_dir, workers)
        sync_directory(data_dir)
    except (apsw.Error, OSError) as error:
        raise SetupError(f"The data directory {data_dir} cannot be opened: {error}.") from error
    return Prepared(shards=count, server_key=key, damages=damages)


def find_damage(path: Path, *, must_exist: bool) -> ShardDamaged | None:
    """Why a database must not be served, or None. Leaves the file as it is, and logs. Blocks.

    Raises:
        apsw.Error, OSError: it cannot be opened for another reason than its content.
    """
    wanted = read_counter(counter_path(path))
    if not path.exists():
        return missing(path.name) if must_exist or wanted else None
    connection = open_untouched(path)
    try:
        found = commits_of(connection)
    except (apsw.CorruptError, apsw.NotADBError, apsw.IOError, apsw.SQLError) as error:
        if _is_full(path.parent):  # reading needs room too, for SQLite's shared memory: the file may be whole
            raise OSError(errno.ENOSPC, "the disk is full; make room and start again") from error
        return unreadable(path.name, error)
    finally:
        close_untouched(connection)
    if wanted is not None and found < wanted:
        return behind_its_counter(path.name, found=found, wanted=wanted)
    return None


def _is_full(folder: Path) -> bool:
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize < ROOM_LEAST_BYTES


def open_untouched(path: Path) -> apsw.Connection:
    """A connection to look at a file that may be damaged: nothing of it changes, not even when this closes."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    connection.execute("PRAGMA query_only=ON").fetchall()
    return connection


def commits_of(connection: apsw.Connection) -> int:
    """The database's own commit counter; 0 before the first migration.

    Raises:
        apsw.Error: it cannot be read.
    """
    if schema_version(connection) == 0 and one_row(connection, "SELECT 1 FROM sqlite_schema LIMIT 1") is None:
        return 0
    return int(one_row(connection, "SELECT commits FROM commit_counter")[0])


@contextmanager
def prepared(path: Path, migrations: Sequence[Migration], *, now_ms: int) -> Iterator[apsw.Connection]:
    """A file at the newest schema. Leaving sets its counter, and empties its WAL: a cut shredding is complete then."""
    with writing(path, may_create=True) as connection:
        migrate(connection, migrations, now_ms=now_ms)
        yield connection
        commits = commits_of(connection)
    if read_counter(counter_path(path)) != commits:
        write_counter(counter_path(path), commits)


def shard_count(meta: apsw.Connection) -> int:
    """How many shards the directory was made with."""
    return int(_setting(meta, "shards"))


def _setting(meta: apsw.Connection, name: str) -> Any:
    """What the directory was made with, or None."""
    row = one_row(meta, "SELECT value FROM setting WHERE name = ?", (name,))
    return None if row is None else row[0]


def rotate_server_key(
    data_dir: Path,
    *,
    now_ms: int,
    server_key_file: Path | None = None,
    server_key: bytes | None = None,
    new_server_key: bytes | None = None,
    report: Report = unreported,
) -> Rotation:
    """Exchange the server key of a data directory that nobody uses. Blocks.

    A crash at any point leaves a directory that opens: see `actors.store.rotation`. Backups made before can only be
    restored with the old key.

    Args:
        data_dir: the directory.
        now_ms: the time, for migrations that are due.
        server_key_file: the key's file, if it is not in the data directory.
        server_key: the old key, if it is not in a file.
        new_server_key: the new key, if it shall not be in a file. Without it a new one is made, in the file.
        report: told of how many vaults the keys are exchanged, and how many vaults there are.

    Raises:
        SetupError: the directory is in use or damaged, or the old key is not the right one.
    """
    with locked(data_dir):
        meta_path = data_dir / META_FILE
        try:
            finish_restore(data_dir)
            damage = find_damage(meta_path, must_exist=True)
            if damage is not None:
                raise SetupError(damage.message, hint=damage.hint)
            with prepared(meta_path, META_MIGRATIONS, now_ms=now_ms) as meta:
                path = server_key_path(data_dir, server_key_file)
                rotation = exchange_server_key(meta, path, given=server_key, new_secret=new_server_key, report=report)
            sync_directory(data_dir)  # the WAL is gone for good, and the old wrapped keys with it
            return rotation
        except (apsw.Error, OSError) as error:
            raise SetupError(f"The server key could not be exchanged: {error}.") from error
