"""The store on SQLite: a few shard files and meta.db, one committer thread each, readers beside them.

Owns the lifetimes: what `open_store` opens, it closes in the reverse order, and closing commits what was
accepted. Must never acknowledge a row before its transaction is synced.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import trio

from actors.store import shard as sql
from actors.store.backup import Manifest, back_up
from actors.store.ballast import DiskSpace
from actors.store.caches import CALLS_MAX, VaultCaches
from actors.store.clock import wall_clock_ms
from actors.store.connections import open_reader
from actors.store.damage import DamagedRows, log_damaged_rows
from actors.store.data_directory import META_FILE, Prepared, lock_data_directory, prepare, shard_path
from actors.store.databases import Database, Opener
from actors.store.directory import SqlDirectory
from actors.store.embedder_rows import VaultEmbedders
from actors.store.foreign_changes import ForeignChanges, MakeWatch
from actors.store.keyring import KeyRing
from actors.store.ledger import LEDGER_FILE, LedgerFile
from actors.store.memory_changes import MemoryChanges
from actors.store.protocol import Commit, Materialisation, VaultImage
from actors.store.restoring import SNAPSHOT_FOLDER
from actors.store.seal import ServerKey
from actors.store.shared_ballast import SharedDiskSpace
from actors.store.sizes import VaultSizes
from actors.store.snapshots import remove_snapshots
from actors.store.tickets import Batch, Chore, Ticket
from actors.store.vault_bodies import Loaded, empty_vault, encode_exchange
from actors.store.vault_rows import shredded_vaults
from actors.store.watch import DirectoryWatch
from actors.store.worker_files import locked_share, look_at_share, nobody_works
from models.errors import MemoryRouterError, NotFound, StoreUnavailable
from models.ids import VaultNumber, VaultRef
from models.memory import Exchange, InboxRow
from models.messages import Page, Paged
from models.store_settings import StoreSettings

if TYPE_CHECKING:
    from actors.cluster.workers import Share

ROW_OVERHEAD_BYTES = 256
"""What a waiting row holds beside its body, for the queue's limit in bytes."""

_log = logging.getLogger(__name__)


class SqliteStore(VaultCaches, VaultEmbedders, MemoryChanges, VaultSizes, ForeignChanges, SqlDirectory):
    """Implements `actors.store.protocol.Store`: the directory, and the vaults' logs in their shards."""

    __slots__ = ("_data_dir", "_databases", "_rows_damaged", "_snapshot_calls", "_snapshots", "_space")

    def __init__(
        self,
        data_dir: Path,
        meta: Database,
        shards: Sequence[Database],
        *,
        server_key: ServerKey,
        keyring: KeyRing,
        space: DiskSpace,
        watch: MakeWatch | None,
        settings: StoreSettings,
        now_ms: Callable[[], int],
    ) -> None:
        super().__init__(
            meta.committer,
            meta.readers,
            server_key=server_key,
            keyring=keyring,
            ledger=LedgerFile(data_dir / LEDGER_FILE),
            key_cache_max=settings.key_cache_max,
            now_ms=now_ms,
        )
        self._data_dir = data_dir
        self._databases = tuple(shards)
        self._snapshots = data_dir / SNAPSHOT_FOLDER
        self._snapshot_calls = trio.CapacityLimiter(CALLS_MAX)
        self._space = space
        self._rows_damaged = 0
        self._begin_to_watch(watch)

    @property
    def parts(self) -> int:
        """How many shards the directory has."""
        return len(self._databases)

    def accept_nowait(
        self,
        vault: VaultRef,
        exchanges: Sequence[Exchange],
        on_durable: Callable[[list[InboxRow]], None],
        *,
        on_failed: Callable[[], None] | None = None,
    ) -> Commit:
        """Queue exchanges for the next group commit; see the protocol."""
        accepted = tuple(exchanges)
        bodies = [encode_exchange(exchange) for exchange in accepted]  # here: the caller's dicts may change

        def work(batch: Batch) -> list[InboxRow]:
            data_key = self._keyring.find(vault).data_key
            return sql.append_inbox(batch, data_key, vault.number, accepted, bodies)

        size_bytes = sum(map(len, bodies)) + ROW_OVERHEAD_BYTES * len(bodies)
        ticket = Ticket(
            work, rows=len(bodies), size_bytes=size_bytes, grows=True, on_durable=on_durable, on_failed=on_failed
        )
        return self._shard(vault).committer.submit_nowait(ticket)

    async def load_vault(self, vault: VaultRef, *, model_id: str) -> VaultImage:
        """Read one vault as of one moment; see the protocol."""

        def read(connection: apsw.Connection) -> Loaded:
            try:
                found = self._keyring.find(vault)
            except NotFound:
                return empty_vault()
            return sql.load(connection, found, vault.number, model_id=model_id)

        loaded = await self._shard(vault).readers.run(read)
        if loaded.damaged.count:
            await self._note_damaged_rows(vault, loaded.damaged)
        return loaded.image

    async def _note_damaged_rows(self, vault: VaultRef, damaged: DamagedRows) -> None:
        """Log and count rows that do not open, and set inbox rows aside, so that nobody waits for them."""
        log_damaged_rows(vault.number, damaged)
        self._rows_damaged += damaged.count
        if not damaged.inbox:
            return

        try:
            await self.set_aside(vault, damaged.inbox)
        except MemoryRouterError as error:  # they stay where they are until the next load
            _log.error("vault %d: damaged inbox rows were not set aside: %s", vault.number, error.code)

    async def set_aside(self, vault: VaultRef, row_ids: Sequence[int]) -> None:
        """Take inbox rows out of the way; see the protocol."""
        doomed = tuple(row_ids)

        def work(batch: Batch) -> None:
            sql.set_aside(batch, vault.number, doomed, now_ms=self._now_ms())

        await self._shard(vault).committer.run(Ticket(work, rows=len(doomed)))

    async def materialise(self, vault: VaultRef, step: Materialisation) -> None:
        """Turn inbox rows into memories and embeddings, in one transaction; see the protocol."""

        def work(batch: Batch) -> None:
            sql.materialise(batch, self._keyring.find(vault).data_key, vault.number, step)

        rows = len(step.row_ids) + len(step.memories) + len(step.vectors)
        await self._shard(vault).committer.run(Ticket(work, rows=rows))

    async def load_page(self, vault: VaultRef, page: Page, *, model_id: str) -> Paged:
        """Read memories in order; see the protocol."""

        def read(connection: apsw.Connection) -> Paged:
            return sql.load_page(connection, self._keyring.find(vault), vault.number, page, model_id=model_id)

        return await self._shard(vault).readers.run(read)

    async def vaults_with_inbox(self) -> list[VaultRef]:
        """Live vaults of this process that have committed but unmaterialised rows."""
        shredded = set(await self._meta_readers.run(shredded_vaults))
        found = []
        for shard, database in enumerate(self._databases):
            if not database.is_own or database.damage is not None:
                continue
            numbers = await database.readers.run(sql.vaults_with_inbox)
            found += [VaultRef(number=VaultNumber(number), shard=shard) for number in numbers]
        return [vault for vault in found if vault not in shredded]

    def statistics(self) -> dict[str, Any]:
        """Counters of every file that is written here, what waits now, and all that an operator should be woken for."""
        own = {shard: database for shard, database in enumerate(self._databases) if database.is_own}
        shards = [database.committer.statistics() for database in own.values()]
        return {
            "meta": self._meta.statistics(),
            "shards": shards,
            "shard_numbers": list(own),
            "shards_damaged": sum(shard["damaged"] for shard in shards),
            "rows_damaged_on_load": self._rows_damaged,
            "rows_damaged_in_scrub": sum(shard.get("scrub_damaged_rows", 0) for shard in shards),
            "erasures_owed": len(self._ledger.owed),
            "disk_free_bytes": self._space.free_bytes(),
            **self._space.statistics(),
        }

    async def back_up(self, target_dir: Path) -> Manifest:
        """Copy everything but the server key into an empty directory, while the store goes on.

        Raises:
            SetupError: the target is not empty, or cannot be written.
            ShardDamaged: a file must not be served, and so not copied either.
        """
        return await trio.to_thread.run_sync(partial(back_up, self._data_dir, target_dir, now_ms=self._now_ms()))

    def _shard(self, vault: VaultRef) -> Database:
        """The database of a vault.

        Raises:
            NotFound: there is none of this number.
            ShardDamaged: it must not be served.
        """
        if not 0 <= vault.shard < len(self._databases):
            raise NotFound(f"Vault {vault.number} does not exist: there is no shard {vault.shard}.")
        database = self._databases[vault.shard]
        if database.damage is not None:
            raise copy.copy(database.damage)
        return database

    def _shards_for_new_vaults(self) -> Sequence[int]:
        serving = [shard for shard, database in enumerate(self._databases) if database.damage is None]
        return serving or range(len(self._databases))

    def _purge_nowait(self, vault: VaultRef) -> None:
        database = self._databases[vault.shard]
        if not database.is_own:
            return  # the worker that owns it sees that its key is gone
        if database.damage is not None:
            return  # its key is gone; its rows go after the file has been mended
        chore = Chore(
            f"purge of vault {vault.number}",
            partial(self._purge_slice, vault),
            partial(self._note_purged_nowait, vault.number),
        )
        database.committer.add_chore_nowait(chore)

    def _purge_slice(self, vault: VaultRef, batch: Batch) -> bool:
        """A slice of what an erased vault left behind: rows first, then the files of its caches."""
        if not sql.purge_slice(batch, vault.number):
            return False
        try:
            remove_snapshots(self._snapshots, vault.number)
        except StoreUnavailable as error:  # unreadable without the vault's key, so a nuisance and no leak
            _log.warning("snapshots_not_removed", extra={"vault": vault.number, "reason": error.message})
        return True

    async def resume_purges(self, parts: Collection[int] | None = None) -> None:
        """Go on where a crash or a stop interrupted the removal of shredded vaults.

        Args:
            parts: only in these shards.
        """
        for vault in await self._meta_readers.run(shredded_vaults):
            if parts is None or vault.shard in parts:
                self._purge_nowait(vault)

    def refuse_new_work(self) -> None:
        """From now on calls that write raise `ShuttingDown`; what was accepted is still committed."""
        for database in self._databases:
            if database.is_own:
                database.committer.refuse_new_jobs()


@asynccontextmanager
async def open_store(
    data_dir: Path,
    *,
    settings: StoreSettings,
    server_key_file: Path | None = None,
    server_key: bytes | None = None,
    now_ms: Callable[[], int] = wall_clock_ms,
    share: Share | None = None,
) -> AsyncIterator[SqliteStore]:
    """The store of one data directory. Leaving commits what was accepted and closes the files.

    Args:
        data_dir: made if it is missing.
        settings: limits; the shard count of an existing directory stays what it was.
        server_key_file: the server key's file, by default `server.key` in the data directory.
        server_key: the key itself, instead of a file.
        now_ms: the clock for rows that the store makes on its own account.
        share: of this process, if several share the directory, which `actors.store.worker_files` has made ready.

    Raises:
        SetupError: the directory is in use or unwritable, a file is newer than this version, or the server
            key is missing, too widely readable or the wrong one.
    """
    key = server_key or settings.server_key_bytes()
    meta_path = data_dir / META_FILE
    async with AsyncExitStack() as stack:
        if share is None:
            opening = _opened_alone(data_dir, settings, server_key_file, key, now_ms)
        else:
            opening = _opened_as_worker(data_dir, settings, server_key_file, key, share)
        ready, opener = await stack.enter_async_context(opening)
        meta = await stack.enter_async_context(opener.open_meta(meta_path))
        reading = partial(open_reader, meta_path)
        keyring = KeyRing(ready.server_key, reading, entries_max=settings.data_key_cache_max)
        stack.callback(keyring.close)
        shards = []
        for shard in range(ready.shards):
            path = shard_path(data_dir, shard)
            if share is None or share.owns(shard):
                opened = opener.open_shard(path, keyring, damage=ready.damages.get(shard))
            else:
                opened = opener.open_foreign_shard(path)
            shards.append(await stack.enter_async_context(opened))
        store = SqliteStore(
            data_dir,
            meta,
            shards,
            server_key=ready.server_key,
            keyring=keyring,
            space=opener.space,
            watch=None if share is None else partial(DirectoryWatch, reading, seen=ready.changes),
            settings=settings,
            now_ms=now_ms,
        )
        stack.callback(store.refuse_new_work)
        if share is not None:
            store.watch.start()
            stack.push_async_callback(store.watch.stop)
        await store.resume_purges()
        yield store


@asynccontextmanager
async def _opened_alone(
    data_dir: Path,
    settings: StoreSettings,
    server_key_file: Path | None,
    server_key: bytes | None,
    now_ms: Callable[[], int],
) -> AsyncIterator[tuple[Prepared, Opener]]:
    """Lock the directory, and make everything in it ready."""
    async with AsyncExitStack() as stack:
        lock = await trio.to_thread.run_sync(lock_data_directory, data_dir)
        stack.callback(os.close, lock)
        opening = partial(
            prepare,
            data_dir,
            shards=settings.shards,
            server_key_file=server_key_file,
            server_key=server_key,
            now_ms=now_ms,
        )
        ready = await trio.to_thread.run_sync(opening)
        space = DiskSpace(data_dir, ballast_bytes=settings.ballast_bytes)
        await trio.to_thread.run_sync(space.prepare)
        stack.callback(space.close)
        limiter = trio.CapacityLimiter(settings.reader_threads)
        yield ready, Opener(limiter=limiter, space=space, settings=settings)


@asynccontextmanager
async def _opened_as_worker(
    data_dir: Path, settings: StoreSettings, server_key_file: Path | None, server_key: bytes | None, share: Share
) -> AsyncIterator[tuple[Prepared, Opener]]:
    """Lock a worker's share of the directory, and look at it."""
    async with AsyncExitStack() as stack:
        is_last = partial(nobody_works, data_dir, share.count)
        space = SharedDiskSpace(data_dir, ballast_bytes=settings.ballast_bytes, is_last=is_last)
        stack.callback(space.close)  # after the lock is given up: so the last one sees that nobody else holds one
        await stack.enter_async_context(locked_share(data_dir, share))
        looking = partial(look_at_share, data_dir, share, server_key_file=server_key_file, server_key=server_key)
        ready = await trio.to_thread.run_sync(looking)
        await trio.to_thread.run_sync(space.prepare)
        limiter = trio.CapacityLimiter(settings.reader_threads)
        worker = f"worker-{share.index}"
        yield ready, Opener(limiter=limiter, space=space, settings=settings, worker=worker)
