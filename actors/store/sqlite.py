"""The store on SQLite: a few shard files and meta.db, one committer thread each, readers beside them.

Owns the lifetimes: what `open_store` opens, it closes in the reverse order, and closing commits what was
accepted. Must never acknowledge a row before its transaction is synced.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import msgspec
import trio

from actors.store import shard as sql
from actors.store.committer import Committer, open_committer
from actors.store.connections import Readers, all_rows, open_reader, open_writer
from actors.store.data_directory import META_FILE, lock_data_directory, prepare, shard_path
from actors.store.directory import SqliteDirectory
from actors.store.keyring import KeyRing
from actors.store.protocol import Commit, Materialisation, VaultImage
from actors.store.seal import ServerKey
from actors.store.tickets import Batch, Chore, Ticket
from models.errors import NotFound
from models.ids import VaultNumber, VaultRef
from models.memory import Exchange, InboxRow
from models.store_settings import StoreSettings

ROW_OVERHEAD_BYTES = 256
"""What a waiting row holds beside its body, for the queue's limit in bytes."""


class Database(msgspec.Struct, frozen=True):
    """One file: who writes it and who reads it."""

    committer: Committer
    readers: Readers


def wall_clock_ms() -> int:
    """Milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


class SqliteStore(SqliteDirectory):
    """Implements `actors.store.protocol.Store`: the directory, and the vaults' logs in their shards."""

    __slots__ = ("_databases",)

    def __init__(
        self,
        meta: Database,
        shards: Sequence[Database],
        *,
        server_key: ServerKey,
        keyring: KeyRing,
        settings: StoreSettings,
        now_ms: Callable[[], int],
    ) -> None:
        super().__init__(
            meta.committer,
            meta.readers,
            server_key=server_key,
            keyring=keyring,
            shards=len(shards),
            key_cache_max=settings.key_cache_max,
            now_ms=now_ms,
        )
        self._databases = tuple(shards)

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
        bodies = [sql.encode_exchange(exchange) for exchange in accepted]  # here: the caller's dicts may change

        def work(batch: Batch) -> list[InboxRow]:
            data_key = self._keyring.find(vault).data_key
            return sql.append_inbox(batch, data_key, vault.number, accepted, bodies)

        size_bytes = sum(map(len, bodies)) + ROW_OVERHEAD_BYTES * len(bodies)
        ticket = Ticket(work, rows=len(bodies), size_bytes=size_bytes, on_durable=on_durable, on_failed=on_failed)
        return self._shard(vault).committer.submit_nowait(ticket)

    async def load_vault(self, vault: VaultRef, *, model_id: str) -> VaultImage:
        """Read one vault as of one moment; see the protocol."""

        def read(connection: apsw.Connection) -> VaultImage:
            try:
                found = self._keyring.find(vault)
            except NotFound:
                return VaultImage(created_ms=0, memories=[], vectors={}, inbox=[], next_seq=1)
            return sql.load(connection, found, vault.number, model_id=model_id)

        return await self._shard(vault).readers.run(read)

    async def materialise(self, vault: VaultRef, step: Materialisation) -> None:
        """Turn inbox rows into memories and embeddings, in one transaction; see the protocol."""

        def work(batch: Batch) -> None:
            sql.materialise(batch, self._keyring.find(vault).data_key, vault.number, step)

        rows = len(step.row_ids) + len(step.memories) + len(step.vectors)
        await self._shard(vault).committer.run(Ticket(work, rows=rows))

    async def delete_memories(self, vault: VaultRef, seqs: Sequence[int]) -> None:
        """Delete these memories and their embeddings for good; see the protocol."""
        doomed = tuple(seqs)

        def work(batch: Batch) -> None:
            self._keyring.find(vault)
            sql.delete_memories(batch, vault.number, doomed)

        await self._shard(vault).committer.run(Ticket(work, rows=len(doomed)))

    async def vaults_with_inbox(self) -> list[VaultRef]:
        """Live vaults that have committed but unmaterialised rows."""
        shredded = set(await self._meta_readers.run(_shredded_vaults))
        found = []
        for shard, database in enumerate(self._databases):
            numbers = await database.readers.run(sql.vaults_with_inbox)
            found += [VaultRef(number=VaultNumber(number), shard=shard) for number in numbers]
        return [vault for vault in found if vault not in shredded]

    def statistics(self) -> dict[str, Any]:
        """Counters of every file, and what waits now."""
        return {
            "meta": self._meta.statistics(),
            "shards": [database.committer.statistics() for database in self._databases],
        }

    def _shard(self, vault: VaultRef) -> Database:
        if not 0 <= vault.shard < len(self._databases):
            raise NotFound(f"Vault {vault.number} does not exist: there is no shard {vault.shard}.")
        return self._databases[vault.shard]

    def _purge_nowait(self, vault: VaultRef) -> None:
        chore = Chore(
            f"purge of vault {vault.number}",
            lambda batch: sql.purge_slice(batch, vault.number),
            partial(self._note_purged_nowait, vault.number),
        )
        self._shard(vault).committer.add_chore_nowait(chore)

    async def resume_purges(self) -> None:
        """Go on where a crash or a stop interrupted the removal of shredded vaults."""
        for vault in await self._meta_readers.run(_shredded_vaults):
            self._purge_nowait(vault)

    def refuse_new_work(self) -> None:
        """From now on calls that write raise `ShuttingDown`; what was accepted is still committed."""
        for database in self._databases:
            database.committer.refuse_new_jobs()


def _shredded_vaults(connection: apsw.Connection) -> list[VaultRef]:
    rows = all_rows(connection, "SELECT number, shard FROM vault WHERE state = 1")
    return [VaultRef(number=VaultNumber(number), shard=shard) for number, shard in rows]


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
            server_key=server_key,
            now_ms=now_ms,
        )
        shard_count, key = await trio.to_thread.run_sync(opening)
        limiter = trio.CapacityLimiter(settings.reader_threads)
        meta = await stack.enter_async_context(_open_database(data_dir / META_FILE, limiter, settings=settings))
        connection = await trio.to_thread.run_sync(open_reader, data_dir / META_FILE)
        keyring = KeyRing(key, connection, entries_max=settings.data_key_cache_max)
        stack.callback(keyring.close)
        shards = [
            await stack.enter_async_context(_open_database(shard_path(data_dir, shard), limiter, settings=settings))
            for shard in range(shard_count)
        ]
        store = SqliteStore(meta, shards, server_key=key, keyring=keyring, settings=settings, now_ms=now_ms)
        stack.callback(store.refuse_new_work)
        await store.resume_purges()
        yield store


@asynccontextmanager
async def _open_database(
    path: Path, limiter: trio.CapacityLimiter, *, settings: StoreSettings
) -> AsyncIterator[Database]:
    readers = Readers(path, limiter)
    async with open_committer(path.stem, partial(open_writer, path), settings=settings) as committer:
        try:
            yield Database(committer=committer, readers=readers)
        finally:
            readers.close()  # first, so that the committer can empty the WAL
