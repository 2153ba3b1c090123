"""The store on PostgreSQL: one database for the directory and all partitions, a few committer threads, readers.

Owns the lifetimes: what `open_postgres_store` opens, it closes in the reverse order, and closing commits what was
accepted. The data directory holds the server key and caches only. Must never acknowledge a row before PostgreSQL has
committed it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import trio

from actors.store.caches import CALLS_MAX, VaultCaches
from actors.store.clock import wall_clock_ms
from actors.store.committer import Committer, running
from actors.store.database import ConnectionFailed, StatementFailed
from actors.store.directory import SqlDirectory
from actors.store.foreign_changes import ForeignChanges, MakeWatch
from actors.store.keyring import KeyRing
from actors.store.ledger import Erasure
from actors.store.ownership import Ownership
from actors.store.postgres.connection import WRITER_IDLE_IN_TRANSACTION_S, PostgresConnection, open_connection
from actors.store.postgres.fences import DirectoryFence, Fence, PartFence
from actors.store.postgres.overseer import open_overseer
from actors.store.postgres.ownership import SoleOwnership
from actors.store.postgres.readers import PATIENCE_S as READING_PATIENCE_S
from actors.store.postgres.readers import PostgresReaders
from actors.store.postgres.schema import PreparedDatabase, prepare_database
from actors.store.postgres.vault_changes import VaultChanges
from actors.store.postgres.vault_logs import VaultLogs
from actors.store.postgres.writer import PATIENCE_S as WRITING_PATIENCE_S
from actors.store.postgres.writer import PostgresWriter
from actors.store.restoring import SNAPSHOT_FOLDER
from actors.store.rotation import server_key_path
from actors.store.seal import ServerKey
from actors.store.unfinished import refuse_unfinished
from actors.store.vault_rows import shredded_vaults
from actors.store.watch import DirectoryWatch, last_change
from models.errors import NotFound, SettingError, SetupError
from models.ids import VaultRef
from models.store_settings import StoreSettings

T = TypeVar("T")

ERASED_IN = ("vault_key", "provider_secret")
"""Tables whose old row versions hold wrapped keys that were overwritten."""

_FORGOTTEN_WRITERS = "DELETE FROM directory_writer WHERE at < now() - interval '1 day'"

_log = logging.getLogger(__name__)


class NoLedger:
    """What `MetaJobs` notes erasures in: nothing, for the database is what no restore of a file can undo."""

    __slots__ = ()

    owed: tuple[Erasure, ...] = ()

    def append(self, erasures: Sequence[Erasure]) -> None:
        """The transaction has written them already."""


class PostgresStore(VaultCaches, VaultLogs, VaultChanges, ForeignChanges, SqlDirectory):
    """Implements `actors.store.protocol.Store`."""

    __slots__ = (
        "_committers",
        "_models",
        "_ownership",
        "_parts",
        "_rows_damaged",
        "_snapshot_calls",
        "_snapshots",
    )

    def __init__(
        self,
        data_dir: Path,
        directory: Committer,
        committers: Sequence[Committer],
        readers: PostgresReaders,
        *,
        ownership: Ownership,
        parts: int,
        server_key: ServerKey,
        keyring: KeyRing,
        watch: MakeWatch,
        settings: StoreSettings,
        now_ms: Callable[[], int],
    ) -> None:
        super().__init__(
            directory,
            readers,
            server_key=server_key,
            keyring=keyring,
            ledger=NoLedger(),
            key_cache_max=settings.key_cache_max,
            now_ms=now_ms,
        )
        self._committers = tuple(committers)
        self._ownership = ownership
        self._parts = parts
        self._models: dict[str, int] = {}
        self._rows_damaged = 0
        self._snapshots = data_dir / SNAPSHOT_FOLDER
        self._snapshot_calls = trio.CapacityLimiter(CALLS_MAX)
        self._begin_to_watch(watch)

    @property
    def parts(self) -> int:
        """How many partitions the database has."""
        return self._parts

    def _committer(self, vault: VaultRef) -> Committer:
        """The committer of a vault's partition.

        Raises:
            NotFound: there is no such partition.
            NotOwner: another node has it.
        """
        if not 0 <= vault.shard < self._parts:
            raise NotFound(f"Vault {vault.number} does not exist: there is no partition {vault.shard}.")
        self._ownership.epoch_nowait(vault.shard)
        return self._committers[vault.shard % len(self._committers)]

    def _owned_parts(self) -> Sequence[int]:
        return sorted(self._ownership.owned_nowait())

    async def _read_vault(self, vault: VaultRef, read: Callable[[PostgresConnection], T]) -> T:
        """Read rows of a vault. Every node may: what it reads is of one moment, which may be past.

        Raises:
            NotFound: there is no such partition.
            StoreUnavailable: PostgreSQL cannot be read.
        """
        if not 0 <= vault.shard < self._parts:
            raise NotFound(f"Vault {vault.number} does not exist: there is no partition {vault.shard}.")
        return await self._meta_readers.run(read)

    def _shards_for_new_vaults(self) -> Sequence[int]:
        return range(self._parts)

    def statistics(self) -> dict[str, Any]:
        """Counters of every committer, what waits now, and all that an operator should be woken for."""
        alarms = ("shards_damaged", "rows_damaged_in_scrub", "erasures_owed", "ballast_bytes")
        return {
            "meta": self._meta.statistics(),
            "shards": [committer.statistics() for committer in self._committers],
            **dict.fromkeys(alarms, 0),
            "rows_damaged_on_load": self._rows_damaged,
            "disk_full": False,
        }

    async def resume_purges(self, parts: Collection[int] | None = None) -> None:
        """Go on where a crash or a stop interrupted the removal of shredded vaults.

        Args:
            parts: only these partitions; the cluster asks for one that it has just taken.
        """
        for vault in await self._read_meta(shredded_vaults):
            if parts is None or vault.shard in parts:
                self._purge_nowait(vault)

    def refuse_new_work(self) -> None:
        """From now on calls that write raise `ShuttingDown`; what was accepted is still committed."""
        for committer in self._committers:
            committer.refuse_new_jobs()


@asynccontextmanager
async def open_postgres_store(
    data_dir: Path,
    *,
    settings: StoreSettings,
    ownership: Ownership | None = None,
    server_key_file: Path | None = None,
    server_key: bytes | None = None,
    now_ms: Callable[[], int] = wall_clock_ms,
) -> AsyncIterator[PostgresStore]:
    """The store of one database. Leaving commits what was accepted and closes the connections.

    Args:
        data_dir: of this node, for the server key and caches; made if it is missing.
        settings: `url`, and limits; the partition count of an existing database stays what it was.
        ownership: who owns which partition; without it this node takes all of them.
        server_key_file: the server key's file, by default `server.key` in the data directory.
        server_key: the key itself, instead of a file.
        now_ms: the clock for rows that the store makes on its own account.

    Raises:
        SetupError: psycopg is missing, the database cannot be reached, is newer than this version or was sealed by
            another server key; or the directory cannot be written.
    """
    if not settings.url:
        raise SettingError("store.url is empty.", hint="Such as postgresql://name@host/name.")
    connect = partial(open_connection, settings.url.reveal())
    connect_to_write = partial(connect, idle_in_transaction_s=WRITER_IDLE_IN_TRANSACTION_S)
    owner = SoleOwnership() if ownership is None else ownership

    key_file, given_key = server_key_path(data_dir, server_key_file), server_key or settings.server_key_bytes()
    sole = owner if isinstance(owner, SoleOwnership) else None
    prepare = partial(_prepare, connect, data_dir, settings.parts, key_file, given_key, now_ms(), sole)
    ready, changes = await trio.to_thread.run_sync(prepare)
    async with AsyncExitStack() as stack:
        overseer = await stack.enter_async_context(open_overseer())
        reading = overseer.watching(connect, patience_s=READING_PATIENCE_S)
        writing = overseer.watching(connect_to_write, patience_s=WRITING_PATIENCE_S)
        readers = PostgresReaders(reading, trio.CapacityLimiter(settings.reader_threads))
        stack.callback(readers.close)

        keyring = KeyRing(ready.server_key, reading, entries_max=settings.data_key_cache_max)
        stack.callback(keyring.close)  # after the committers, whose last jobs need it

        def committer(name: str, fence: Fence, *vacuumed: str) -> Committer:
            return Committer(name, PostgresWriter(name, writing, fence, vacuumed=vacuumed), settings=settings)

        directory = await stack.enter_async_context(running(committer("directory", DirectoryFence(), *ERASED_IN)))
        committers = [
            await stack.enter_async_context(running(committer(f"parts {number}", PartFence(owner))))
            for number in range(min(settings.writer_threads, ready.parts))
        ]
        store = PostgresStore(
            data_dir,
            directory,
            committers,
            readers,
            ownership=owner,
            parts=ready.parts,
            server_key=ready.server_key,
            keyring=keyring,
            watch=lambda on_change: DirectoryWatch(reading, on_change, seen=changes),
            settings=settings,
            now_ms=now_ms,
        )
        stack.callback(store.refuse_new_work)
        store.watch.start()
        stack.push_async_callback(store.watch.stop)
        await store.resume_purges()
        yield store


def _prepare(
    connect: Callable[[], PostgresConnection],
    data_dir: Path,
    parts: int,
    server_key_file: Path,
    server_key: bytes | None,
    now_ms: int,
    sole: SoleOwnership | None,
) -> tuple[PreparedDatabase, int]:
    """Make directory and database ready; also the number of the last change of what nodes keep in memory. Blocks.

    Raises:
        SetupError: one of them cannot be used.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"The data directory {data_dir} cannot be written: {error.strerror}.") from error
    try:
        with closing(connect()) as connection:
            ready = prepare_database(
                connection, parts=parts, server_key_file=server_key_file, server_key=server_key, now_ms=now_ms
            )
            refuse_unfinished(connection)
            connection.execute(_FORGOTTEN_WRITERS)
            if sole is not None:
                sole.take_all(connection)
            changes = last_change(connection)
    except ConnectionFailed as error:
        raise SetupError(
            f"PostgreSQL cannot be reached: {error}.", hint="Is store.url right, and may this user write there?"
        ) from error
    except StatementFailed as error:
        raise SetupError(f"The database cannot be prepared: {error}.") from error
    return ready, changes
