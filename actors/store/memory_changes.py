"""Memories of the SQLite store that are deleted or changed: rows, the write-ahead log, and the erasure ledger.

Owns what makes a deletion final: the row is overwritten (`secure_delete`), the WAL that held it is emptied, and the
ledger says so to a later restore of an older backup. Must never leave half of a change. See `actors.store.protocol` for
what each method promises.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import apsw

from actors.store import shard as sql
from actors.store.database import all_rows, one_row
from actors.store.keyring import KeyRing
from actors.store.ledger import DeletedMemories, Ledger
from actors.store.memory_rows import decode_memory
from actors.store.meta_jobs import ErasureLog
from actors.store.seal import DataKey, ServerKey, Table
from actors.store.tickets import Batch, Ticket
from actors.store.vault_bodies import SEQ_BITS, SEQ_MASK
from models.errors import CorruptRow
from models.ids import VaultRef
from models.memory import Memory

if TYPE_CHECKING:
    from actors.store.databases import Database

_log = logging.getLogger(__name__)


def ranges_of(seqs: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """The same numbers as ranges, first and last included."""
    ranges: list[tuple[int, int]] = []
    for seq in sorted(set(seqs)):
        if ranges and seq == ranges[-1][1] + 1:
            ranges[-1] = ranges[-1][0], seq
        else:
            ranges.append((seq, seq))
    return tuple(ranges)


class MemoryChanges:
    """A part of `SqliteStore`, which has the attributes."""

    __slots__ = ()

    _keyring: KeyRing
    _ledger: ErasureLog
    _now_ms: Callable[[], int]

    def _shard(self, vault: VaultRef) -> Database:
        raise AssertionError("the store has the shards")

    async def delete_memories(self, vault: VaultRef, seqs: Sequence[int]) -> None:
        """Delete these memories and their embeddings for good; see the protocol."""
        doomed = tuple(seqs)
        committer = self._shard(vault).committer

        def work(batch: Batch) -> DeletedMemories:
            created_ms = self._keyring.find(vault).created_ms
            sql.delete_memories(batch, vault.number, doomed)
            return DeletedMemories(
                vault=vault.number, created_ms=created_ms, deleted_ms=self._now_ms(), seqs=ranges_of(doomed)
            )

        def after_commit(deleted: DeletedMemories) -> None:
            committer.try_to_empty_wal()
            with suppress(OSError):  # logged, and owed
                self._ledger.append([deleted])

        await committer.run(Ticket(work, rows=len(doomed), after_commit=after_commit))

    async def put_memory(self, vault: VaultRef, memory: Memory) -> None:
        """Write a memory in the place of the one with its seq; see the protocol."""
        committer = self._shard(vault).committer

        def work(batch: Batch) -> None:
            sql.put_memory(batch, self._keyring.find(vault).data_key, vault.number, memory)

        await committer.run(Ticket(work, after_commit=lambda _: committer.try_to_empty_wal()))

    async def rewrite_memory(self, vault: VaultRef, seq: int, memory: Memory) -> None:
        """Delete a memory and store another one in its place, in one transaction; see the protocol."""
        committer = self._shard(vault).committer

        def work(batch: Batch) -> None:
            sql.rewrite_memory(batch, self._keyring.find(vault).data_key, vault.number, seq, memory)

        await committer.run(Ticket(work, after_commit=lambda _: committer.try_to_empty_wal()))


def delete_again(
    connection: apsw.Connection, meta: apsw.Connection, ledger: Ledger, *, shard: int, server_key: ServerKey
) -> int:
    """Delete from a restored shard what the ledger knows to be deleted.

    A seq may have been given to another memory after an earlier restore: one that was stored after the deletion stays.

    Args:
        connection: of the shard, not in a transaction.
        meta: of meta.db.

    Returns:
        How many memories that were.
    """
    count = 0
    for entry in ledger.memories:
        data_key = _data_key(meta, entry, shard=shard, server_key=server_key)
        if data_key is None:
            continue
        seqs = list(_stored_before(connection, data_key, entry))
        with connection:
            sql.delete_memories(Batch(connection, 0), entry.vault, seqs)
        count += len(seqs)
    return count


def _data_key(meta: apsw.Connection, entry: DeletedMemories, *, shard: int, server_key: ServerKey) -> DataKey | None:
    """The key of the entry's vault, if it is live and in this shard."""
    row = one_row(
        meta,
        "SELECT wrapped FROM vault JOIN vault_key ON vault_key.vault = vault.number "
        "WHERE number = ? AND created_ms = ? AND shard = ? AND state = 0",
        (entry.vault, entry.created_ms, shard),
    )
    return None if row is None else server_key.unwrap_data_key(entry.vault, row[0])


def _stored_before(connection: apsw.Connection, data_key: DataKey, entry: DeletedMemories) -> Iterator[int]:
    for first, last in entry.seqs:
        bounds = entry.vault << SEQ_BITS | first, entry.vault << SEQ_BITS | last
        rows = all_rows(connection, "SELECT id, body FROM memory WHERE id BETWEEN ? AND ?", bounds)
        for row in rows:
            try:
                ((_, body),) = data_key.unseal_rows(Table.MEMORY, [row])
                memory = decode_memory(body)
            except (CorruptRow, ValueError):
                _log.warning("vault %d: a damaged memory is deleted again with its neighbours", entry.vault)
                yield row[0] & SEQ_MASK
                continue
            if memory.stored_ms <= entry.deleted_ms:
                yield memory.seq
