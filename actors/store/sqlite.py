"""The store on SQLite: a few shard files and meta.db, one committer thread each, readers beside them.

Owns the lifetimes: what `open_store` opens, it closes in the reverse order, and closing commits what was
accepted. Must never acknowledge a row before its transaction is synced.
"""

from __future__ import annotations

import copy
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import msgspec
import trio

from actors.store import shard as sql
from actors.store.backup import Manifest, back_up
from actors.store.ballast import DiskSpace
from actors.store.caches import CALLS_MAX, VaultCaches
from actors.store.committer import Committer, open_committer
from actors.store.connections import Readers, open_reader, open_writer
from actors.store.counter import CommitCounter, counter_path
from actors.store.damage import DamagedRows, log_damaged_rows
from actors.store.data_directory import META_FILE, lock_data_directory, prepare, shard_path
from actors.store.directory import SqlDirectory
from actors.store.embedder_rows import VaultEmbedders
from actors.store.keyring import KeyRing
from actors.store.ledger import LEDGER_FILE, LedgerFile
from actors.store.memory_changes import MemoryChanges
from actors.store.protocol import Commit, Materialisation, StoreSize, VaultImage
from actors.store.restoring import SNAPSHOT_FOLDER
from actors.store.scrub import Scrub
from actors.store.seal import ServerKey
from actors.store.snapshots import remove_snapshots
from actors.store.tickets import Batch, Chore, Ticket
from actors.store.vault_bodies import Loaded, empty_vault, encode_exchange
from actors.store.vault_rows import count_vaults, shredded_vaults
from models.errors import MemoryRouterError, NotFound, ShardDamaged, StoreUnavailable
from models.ids import VaultNumber, VaultRef
from models.memory import Exchange, InboxRow
from models.messages import Page, Paged
from models.store_settings import StoreSettings

ROW_OVERHEAD_BYTES = 256
"""What a waiting row holds beside its body, for the queue's limit in bytes."""

_log = logging.getLogger(__name__)


class Database(msgspec.Struct, frozen=True):
    """One file: who writes it and who reads it."""

    committer: Committer
    readers: Readers

    @property
    def damage(self) -> ShardDamaged | None:
        """Why it must not be served, if so."""
        return self.committer.damage


def wall_clock_ms() -> int:
    """Milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


class SqliteStore(VaultCaches, VaultEmbedders, MemoryChanges, SqlDirectory):
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
        """Live vaults that have committed but unmaterialised rows."""
        shredded = set(await self._meta_readers.run(shredded_vaults))
        found = []
        for shard, database in enumerate(self._databases):
            if database.damage is not None:
                continue
            numbers = await database.readers.run(sql.vaults_with_inbox)
            found += [VaultRef(number=VaultNumber(number), shard=shard) for number in numbers]
        return [vault for vault in found if vault not in shredded]

    def statistics(self) -> dict[str, Any]:
        """Counters of every file, what waits now, and all that an operator should be woken for."""
        shards = [database.committer.statistics() for database in self._databases]
        return {
            "meta": self._meta.statistics(),
            "shards": shards,
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

    async def vault_sizes(self, vaults: Sequence[VaultRef]) -> dict[int, tuple[int, int]]:
        """Memories and bytes by vault number; see the protocol."""
        by_shard: dict[int, list[int]] = {}
        for vault in vaults:
            by_shard.setdefault(vault.shard, []).append(vault.number)
        sizes: dict[int, tuple[int, int]] = {}
        for shard, numbers in by_shard.items():
            if self._databases[shard].damage is not None:
                continue
            with suppress(StoreUnavailable):  # logged; what cannot be read is left out
                sizes |= await self._databases[shard].readers.run(partial(sql.vault_sizes, vault_numbers=numbers))
        return sizes

    async def _held_together(self, shard: int, numbers: str) -> tuple[int, int]:
        """Memories and bytes of these vaults of one shard; none where it cannot be read."""
        if not 0 <= shard < len(self._databases) or self._databases[shard].damage is not None:
            return 0, 0
        try:
            return await self._databases[shard].readers.run(partial(sql.held_together, vault_numbers=numbers))
        except StoreUnavailable:
            return 0, 0

    async def size(self) -> StoreSize:
        """How much there is in all; see the protocol."""
        memories = content_bytes = 0
        for database in self._databases:
            if database.damage is None:
                with suppress(StoreUnavailable):
                    found = await database.readers.run(sql.size)
                    memories, content_bytes = memories + found[0], content_bytes + found[1]
        return StoreSize(await self._meta_readers.run(count_vaults), memories, content_bytes)

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
        if self._databases[vault.shard].damage is not None:
            return  # its key is gone; its rows go after the file has been mended
        chore = Chore(
            f"purge of vault {vault.number}",
            partial(self._purge_slice, vault),
            partial(self._note_purged_nowait, vault.number),
        )
        self._databases[vault.shard].committer.add_chore_nowait(chore)

    def _purge_slice(self, vault: VaultRef, batch: Batch) -> bool:
        """A slice of what an erased vault left behind: rows first, then the files of its caches."""
        if not sql.purge_slice(batch, vault.number):
            return False
        try:
            remove_snapshots(self._snapshots, vault.number)
        except StoreUnavailable as error:  # unreadable without the vault's key, so a nuisance and no leak
            _log.warning("snapshots_not_removed", extra={"vault": vault.number, "reason": error.message})
        return True

    async def resume_purges(self) -> None:
        """Go on where a crash or a stop interrupted the removal of shredded vaults."""
        for vault in await self._meta_readers.run(shredded_vaults):
            self._purge_nowait(vault)

    def refuse_new_work(self) -> None:
        """From now on calls that write raise `ShuttingDown`; what was accepted is still committed."""
        for database in self._databases:
            database.committer.refuse_new_jobs()


@asynccontextmanager
async def open_store(
    data_dir: Path,
    *,
    settings: StoreSettings,
    server_key_file: Path | None = None,
    server_key: bytes | None = None,
    now_ms: Callable[[], int] = wall_clock_ms,
) -> AsyncIterator[SqliteStore]:
    """The store of one data directory. Leaving commits what was accepted and closes the files.

    Args:
        data_dir: made if it is missing.
        settings: limits; the shard count of an existing directory stays what it was.
        server_key_file: the server key's file, by default `server.key` in the data directory.
        server_key: the key itself, instead of a file.
        now_ms: the clock for rows that the store makes on its own account.

    Raises:
        SetupError: the directory is in use or unwritable, a file is newer than this version, or the server
            key is missing, too widely readable or the wrong one.
    """
    async with AsyncExitStack() as stack:
        lock = await trio.to_thread.run_sync(lock_data_directory, data_dir)
        stack.callback(os.close, lock)
        opening = partial(
            prepare,
            data_dir,
            shards=settings.shards,
            server_key_file=server_key_file,
            server_key=server_key or settings.server_key_bytes(),
            now_ms=now_ms,
        )
        ready = await trio.to_thread.run_sync(opening)
        space = DiskSpace(data_dir, ballast_bytes=settings.ballast_bytes)
        await trio.to_thread.run_sync(space.prepare)
        stack.callback(space.close)
        limiter = trio.CapacityLimiter(settings.reader_threads)
        open_file = partial(_open_database, limiter=limiter, space=space, settings=settings)
        meta = await stack.enter_async_context(open_file(data_dir / META_FILE))
        keyring = KeyRing(
            ready.server_key, partial(open_reader, data_dir / META_FILE), entries_max=settings.data_key_cache_max
        )
        stack.callback(keyring.close)
        shards = []
        for shard in range(ready.shards):
            path = shard_path(data_dir, shard)
            scrub = _scrub(path, keyring, settings=settings)
            opened = open_file(path, damage=ready.damages.get(shard), idle_work=scrub)
            shards.append(await stack.enter_async_context(opened))
        store = SqliteStore(
            data_dir,
            meta,
            shards,
            server_key=ready.server_key,
            keyring=keyring,
            space=space,
            settings=settings,
            now_ms=now_ms,
        )
        stack.callback(store.refuse_new_work)
        await store.resume_purges()
        yield store


def _scrub(path: Path, keyring: KeyRing, *, settings: StoreSettings) -> Scrub | None:
    if not settings.scrub_interval_s:
        return None
    return Scrub(path.stem, partial(open_reader, path), keyring.peek, interval_s=settings.scrub_interval_s)


@asynccontextmanager
async def _open_database(
    path: Path,
    *,
    limiter: trio.CapacityLimiter,
    space: DiskSpace,
    settings: StoreSettings,
    damage: ShardDamaged | None = None,
    idle_work: Scrub | None = None,
) -> AsyncIterator[Database]:
    readers = Readers(path, limiter)
    async with open_committer(
        path.stem,
        partial(open_writer, path, may_create=False),
        settings=settings,
        counter=None if damage is not None else CommitCounter(counter_path(path)),
        space=space,
        damage=damage,
        idle_work=None if damage is not None else idle_work,
    ) as committer:
        try:
            yield Database(committer=committer, readers=readers)
        finally:
            readers.close()  # first, so that the committer can empty the WAL
