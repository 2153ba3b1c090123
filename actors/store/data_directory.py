"""The files of a data directory: who may use it, what they are called, and how each is made ready before use.

Owns the LOCK file and the settings that are fixed at the first start (shard count, server key id). Must never
touch a data directory that another process holds.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from actors.store.connections import one_row, open_writer
from actors.store.migrations import META_MIGRATIONS, SHARD_MIGRATIONS, Migration, migrate
from actors.store.seal import SERVER_KEY_FILE, ServerKey, load_server_key, sync_directory
from models.errors import SetupError

LOCK_FILE = "LOCK"
META_FILE = "meta.db"


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


def prepare(
    data_dir: Path,
    *,
    shards: int,
    server_key_file: Path | None,
    server_key: bytes | None,
    now_ms: Callable[[], int],
) -> tuple[int, ServerKey]:
    """Bring every file to the newest schema; the shard count and the server key of the directory. Blocks.

    Raises:
        SetupError: a file cannot be opened, is newer than this version, or was sealed by another server key.
    """
    try:
        with _prepared(data_dir / META_FILE, META_MIGRATIONS, now_ms=now_ms()) as meta:
            key = _server_key(meta, server_key_file or data_dir / SERVER_KEY_FILE, server_key)
            meta.execute("INSERT OR IGNORE INTO setting VALUES ('shards', ?)", (shards,))
            count = _setting(meta, "shards")
        for shard in range(count):
            with _prepared(shard_path(data_dir, shard), SHARD_MIGRATIONS, now_ms=now_ms()):
                pass
        sync_directory(data_dir)
    except (apsw.Error, OSError) as error:
        raise SetupError(f"The data directory {data_dir} cannot be opened: {error}.") from error
    return count, key


@contextmanager
def _prepared(path: Path, migrations: Sequence[Migration], *, now_ms: int) -> Iterator[apsw.Connection]:
    """A file at the newest schema. Leaving empties its WAL, so that a cut shredding is complete."""
    connection = open_writer(path)
    try:
        migrate(connection, migrations, now_ms=now_ms)
        yield connection
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    finally:
        connection.close(True)


def _server_key(meta: apsw.Connection, path: Path, given: bytes | None) -> ServerKey:
    """The server key, which must be the one that wrapped the keys in `meta`; before the first of them, any will do."""
    wrapped = one_row(meta, "SELECT 1 FROM vault_key LIMIT 1") is not None
    key = ServerKey(given) if given is not None else load_server_key(path, may_create=not wrapped)
    if not wrapped:
        meta.execute("INSERT OR REPLACE INTO setting VALUES ('server_key_id', ?)", (key.key_id,))
    elif _setting(meta, "server_key_id") != key.key_id:
        raise SetupError(
            "The server key is not the one that sealed this data directory.",
            hint="Put the right key back; without it nothing that is stored can be read.",
        )
    return key


def _setting(meta: apsw.Connection, name: str) -> Any:
    """What the directory was made with, or None."""
    row = one_row(meta, "SELECT value FROM setting WHERE name = ?", (name,))
    return None if row is None else row[0]
