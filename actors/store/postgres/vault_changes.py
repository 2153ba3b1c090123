"""Memories on PostgreSQL that are deleted or changed, and the embedder that each vault remembers.

Owns no ledger: the deletion is in the database, of which there is one. What was deleted is gone from the tables with
the commit; that dead rows, the write-ahead log, archives and backups hold the sealed body for a while longer is the
operator's to bound (docs/operating.md), and only the vault's own key opens it. A part of
`actors.store.postgres.store`. See `actors.store.protocol` for what each method promises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from actors.store.committer import Committer
from actors.store.embedder_rows import SWEEP_ROWS
from actors.store.keyring import KeyRing
from actors.store.postgres import vault_rows as sql
from actors.store.postgres.connection import PostgresConnection
from actors.store.tickets import Batch, Ticket
from actors.store.vault_bodies import row_range
from models.ids import VaultRef
from models.memory import Memory

T = TypeVar("T")


class VaultChanges:
    """A part of `PostgresStore`, which has the attributes."""

    __slots__ = ()

    _keyring: KeyRing

    if TYPE_CHECKING:

        def _committer(self, vault: VaultRef) -> Committer: ...

        async def _read_vault(self, vault: VaultRef, read: Callable[[PostgresConnection], T]) -> T: ...

    async def delete_memories(self, vault: VaultRef, seqs: Sequence[int]) -> None:
        """Delete these memories and their embeddings; see the protocol."""
        doomed = tuple(seqs)

        def work(batch: Batch) -> None:
            self._keyring.find(vault)
            sql.delete_memories(batch, vault, doomed)

        await self._committer(vault).run(Ticket(work, rows=len(doomed), part=vault.shard))

    async def put_memory(self, vault: VaultRef, memory: Memory) -> None:
        """Write a memory in the place of the one with its seq; see the protocol."""

        def work(batch: Batch) -> None:
            sql.put_memory(batch, self._keyring.find(vault).data_key, vault, memory)

        await self._committer(vault).run(Ticket(work, part=vault.shard))

    async def rewrite_memory(self, vault: VaultRef, seq: int, memory: Memory) -> None:
        """Delete a memory and store another one in its place, in one transaction; see the protocol."""

        def work(batch: Batch) -> None:
            sql.rewrite_memory(batch, self._keyring.find(vault).data_key, vault, seq, memory)

        await self._committer(vault).run(Ticket(work, part=vault.shard))

    async def remembered_embedder(self, vault: VaultRef) -> str | None:
        """Read what the vault remembers; see the protocol."""

        def read(connection: PostgresConnection) -> str | None:
            return sql.remembered(connection, vault)

        return await self._read_vault(vault, read)

    async def choose_embedder(self, vault: VaultRef, name: str) -> None:
        """Let the vault remember another embedder; see the protocol."""

        def work(batch: Batch) -> None:
            self._keyring.find(vault)
            sql.choose(batch, vault, name)

        await self._committer(vault).run(Ticket(work, part=vault.shard))

    async def finish_move(self, vault: VaultRef, *, name: str, model_id: str) -> None:
        """Remove vectors of other models, slice by slice; see the protocol."""
        rest: int | None = row_range(vault.number)[0]
        while rest is not None:
            first = rest

            def work(batch: Batch, first: int = first) -> int | None:
                self._keyring.find(vault)
                return sql.sweep(batch, vault, first, name=name, model_id=model_id, rows_max=SWEEP_ROWS)

            rest = await self._committer(vault).run(Ticket(work, part=vault.shard))
