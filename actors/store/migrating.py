"""Moving a whole store: from a data directory to a PostgreSQL database, or back.

Owns what must hold before (nobody uses either of them, the target is empty or the unfinished copy of this very source,
the server key is the same), the order (vaults, then the directory, then everything compared, then the mark taken away),
and the mark of an unfinished target, with which no server starts. Rows are copied as they are sealed. Must never change
the source.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import apsw
import msgspec

from actors.store.connections import writing
from actors.store.data_directory import (
    META_FILE,
    lock_data_directory,
    locked,
    prepare,
    prepared,
    shard_count,
    shard_path,
)
from actors.store.database import DATABASE_ERRORS, one_row
from actors.store.migrating_directory import compare_directory, copy_directory
from actors.store.migrating_ends import End
from actors.store.migrating_postgres import PostgresEnd
from actors.store.migrating_sqlite import SqliteEnd
from actors.store.migrating_vaults import Moved, VaultMover, vault_pairs
from actors.store.migrations import META_MIGRATIONS, SHARD_MIGRATIONS
from actors.store.postgres.connection import open_connection
from actors.store.postgres.ownership import SoleOwnership
from actors.store.postgres.schema import prepare_database
from actors.store.progress import Report, unreported
from actors.store.rotation import resolve_server_key, server_key_path
from actors.store.seal import ServerKey, load_server_key, sync_directory
from actors.store.unfinished import UNFINISHED, refuse_unfinished
from models.errors import SetupError

URL_BEGINNINGS = ("postgresql://", "postgres://")


class Keys(msgspec.Struct, frozen=True):
    """Where the server key is.

    Attributes:
        file: its file, if it is not `server.key` in the data directory.
        secret: the key itself, if it is in no file.
    """

    file: Path | None = None
    secret: bytes | None = None

    def path(self, data_dir: Path) -> Path:
        """The file, for a data directory."""
        return server_key_path(data_dir, self.file)

    def load(self, data_dir: Path) -> ServerKey:
        """The key, which must be there.

        Raises:
            SetupError: it is not, or cannot be used.
        """
        if self.secret is not None:
            return ServerKey(self.secret)
        return load_server_key(self.path(data_dir), may_create=False)


class Watcher(msgspec.Struct, frozen=True):
    """Whom a move tells how far it is.

    Attributes:
        copied: memories that are copied, and how many there are.
        compared: the same, of those that were compared.
        note: gets a sentence that whoever waits should read.
    """

    copied: Report = unreported
    compared: Report = unreported
    note: Callable[[str], object] = len


class Migrated(msgspec.Struct, frozen=True):
    """What was moved, all of it compared."""

    vaults: int
    rows: dict[str, int]
    directory: dict[str, int]
    sealed_anew: int
    resumed: bool


class _Mark(msgspec.Struct, frozen=True):
    """What the target keeps while it is not finished.

    Attributes:
        source: which store, and that nobody has written into it since.
        vaults: how many are complete.
    """

    source: str
    vaults: int


def is_url(place: str) -> bool:
    """Whether a place is a database and not a directory."""
    return place.startswith(URL_BEGINNINGS)


def migrate_store(
    source: str, target: str, *, keys: Keys, shards: int, parts: int, now_ms: int, watcher: Watcher | None = None
) -> Migrated:
    """Copy the store at `source` to `target`, and compare all of it. Blocks.

    Killed at any point, it goes on where it was when it is called again, as long as nobody used the source since.

    Args:
        source: a data directory, or the URL of a database.
        target: the other kind: empty, or what an earlier call left.
        keys: the server key, which stays what it is. A file `server.key` is looked for in the data directory, whichever
            end that is.
        shards: of a new data directory.
        parts: partitions of a new database.
        now_ms: the time.
        watcher: whom to tell how far it is.

    Raises:
        SetupError: one of the ends is in use or cannot be opened, the target is another store's, the key does not fit,
            or the copy differs from its source.
    """
    if is_url(source) == is_url(target):
        raise SetupError("One of both must be a data directory, and the other the URL of a PostgreSQL database.")
    data_dir = Path(target if is_url(source) else source)
    watcher = watcher or Watcher()
    try:
        with ExitStack() as stack:
            if is_url(source):
                server_key = keys.load(data_dir)
                there = stack.enter_context(_database(source, keys, data_dir, parts=None, now_ms=now_ms))
                here = stack.enter_context(_new_directory(data_dir, keys, shards=shards, now_ms=now_ms))
                return _move(there, here, server_key, watcher)
            here, server_key = stack.enter_context(_old_directory(data_dir, keys, now_ms=now_ms))
            there = stack.enter_context(_database(target, keys, data_dir, parts=parts, now_ms=now_ms))
            return _move(here, there, server_key, watcher)
    except (*DATABASE_ERRORS, OSError) as error:
        raise SetupError(f"The store could not be moved: {type(error).__name__}: {error}.", hint=_GO_ON) from error


_GO_ON = "When the cause is mended, the same command goes on where it was."


def _move(source: End, target: End, server_key: ServerKey, watcher: Watcher) -> Migrated:
    fingerprint = _fingerprint(source, server_key)
    mark = _begin(target, fingerprint)
    pairs = vault_pairs(source, target)
    if mark.vaults >= 0:
        watcher.note(f"going on: {mark.vaults} of {len(pairs)} vaults are in {target.name} already")

    def keep(done: int) -> None:
        target.keep(UNFINISHED, _encoded(_Mark(source=fingerprint, vaults=done)))

    mover = VaultMover(source, target, server_key=server_key, resumed=mark.vaults >= 0)
    mover.copy(pairs, start=max(0, mark.vaults), report=watcher.copied, on_commit=keep)
    copy_directory(source, target)
    target.set_commits(source.commits() + 1)
    moved: Moved = mover.verify(pairs, report=watcher.compared)
    directory = compare_directory(source, target)
    if _fingerprint(source, server_key) != fingerprint:
        raise SetupError(f"{source.name} was used meanwhile.", hint="Empty the target and begin again.")
    target.keep(UNFINISHED, None)
    return Migrated(
        vaults=moved.vaults,
        rows=moved.rows,
        directory=directory,
        sealed_anew=moved.sealed_anew,
        resumed=mark.vaults >= 0,
    )


def _begin(target: End, fingerprint: str) -> _Mark:
    """The mark of an earlier call, or a new one, which says -1.

    Raises:
        SetupError: the target is neither empty nor the unfinished copy of this source.
    """
    found = target.kept(UNFINISHED)
    if found is not None:
        mark = msgspec.json.decode(found, type=_Mark)
        if mark.source != fingerprint:
            raise SetupError(
                f"{target.name} is the unfinished copy of another store, or its source was used since.",
                hint="Empty the target and begin again.",
            )
        return mark
    if one_row(target.directory, "SELECT 1 FROM account LIMIT 1") is not None:
        raise SetupError(f"{target.name} is not empty.", hint="Choose an empty database, or a new directory.")
    target.keep(UNFINISHED, _encoded(_Mark(source=fingerprint, vaults=0)))
    return _Mark(source=fingerprint, vaults=-1)


def _encoded(mark: _Mark) -> str:
    return msgspec.json.encode(mark).decode()


def _fingerprint(source: End, server_key: ServerKey) -> str:
    """Another one as soon as anything is written."""
    numbers = ",".join(map(str, source.fingerprint()))
    return hashlib.sha256(server_key.key_id + numbers.encode()).hexdigest()


@contextmanager
def _old_directory(data_dir: Path, keys: Keys, *, now_ms: int) -> Iterator[tuple[End, ServerKey]]:
    """A data directory that is there, as a source."""
    with locked(data_dir), ExitStack() as stack:
        if not (data_dir / META_FILE).exists():
            raise SetupError(f"{data_dir} is no data directory: it has no {META_FILE}.")
        ready = prepare(data_dir, shards=1, server_key_file=keys.file, server_key=keys.secret, now_ms=lambda: now_ms)
        for damage in ready.damages.values():
            raise SetupError(damage.message, hint=damage.hint)
        meta = stack.enter_context(writing(data_dir / META_FILE))
        shards = [stack.enter_context(writing(shard_path(data_dir, shard))) for shard in range(ready.shards)]
        yield SqliteEnd(str(data_dir), meta, shards), ready.server_key


@contextmanager
def _new_directory(data_dir: Path, keys: Keys, *, shards: int, now_ms: int) -> Iterator[End]:
    """A data directory that is new, or that an earlier call left, as a target."""
    lock = lock_data_directory(data_dir)
    try:
        with ExitStack() as stack:
            meta = stack.enter_context(prepared(data_dir / META_FILE, META_MIGRATIONS, now_ms=now_ms))
            resolve_server_key(meta, keys.path(data_dir), keys.secret)
            meta.execute("INSERT OR IGNORE INTO setting VALUES ('shards', ?)", (shards,))
            files: list[apsw.Connection] = [
                stack.enter_context(prepared(shard_path(data_dir, shard), SHARD_MIGRATIONS, now_ms=now_ms))
                for shard in range(shard_count(meta))
            ]
            yield SqliteEnd(str(data_dir), meta, files)
        sync_directory(data_dir)
    finally:
        os.close(lock)


@contextmanager
def _database(url: str, keys: Keys, data_dir: Path, *, parts: int | None, now_ms: int) -> Iterator[End]:
    """A database without live nodes, whose partitions are taken as long as this lasts.

    Args:
        url: where it is.
        keys: the server key, which must be there, and be the one that sealed it.
        data_dir: the other end.
        parts: of a new database; None for a source, which must be there.
        now_ms: the time, for migrations that are due.
    """
    connection = open_connection(url)
    try:
        if parts is None and one_row(connection, "SELECT to_regclass('part')")[0] is None:
            raise SetupError("There is no store in the database.")
        ready = prepare_database(
            connection,
            parts=parts or 1,
            server_key_file=keys.path(data_dir),
            server_key=keys.secret,
            now_ms=now_ms,
        )
        if parts is None:
            refuse_unfinished(connection)
        (nodes,) = one_row(connection, "SELECT count(*) FROM node WHERE expires_at > clock_timestamp()")
        if nodes:
            raise SetupError(f"{nodes} running servers use the database.", hint="Stop them first.")
        ownership = SoleOwnership()
        ownership.take_all(connection)
        yield PostgresEnd("the database", connection, partitions=ready.parts, owner=ownership.owner)
        for part in range(ready.parts):
            connection.execute("UPDATE part SET owner = NULL WHERE part = ? AND owner = ?", (part, ownership.owner))
    finally:
        connection.close()
