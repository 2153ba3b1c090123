"""Which embedding model each vault of a shard remembers, and the vectors of models that it has left.

Owns the columns `vault_state.embedder` (a name from the configuration; NULL until the vault has a memory or somebody
chose) and `vault_state.moves` (1 from a choice until no vector of another model is left). Must never remove a vector of
the model that the vault remembers. See `actors.store.protocol` for what each method promises.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import apsw

from actors.store.database import all_rows, one_row
from actors.store.keyring import KeyRing
from actors.store.tickets import Batch, Ticket
from models.errors import NotFound
from models.ids import VaultNumber, VaultRef

if TYPE_CHECKING:
    from actors.store.databases import Database

SWEEP_ROWS = 2_048
"""Vectors that one transaction looks at: about 5 ms between two group commits."""


def remembered(connection: apsw.Connection, vault_number: int) -> str | None:
    """The name of the embedder that a vault remembers."""
    row = one_row(connection, "SELECT embedder FROM vault_state WHERE vault = ?", (vault_number,))
    return None if row is None else row[0]


def choose(batch: Batch, vault_number: int, name: str) -> None:
    """Let a vault remember an embedder."""
    batch.connection.execute(
        "INSERT INTO vault_state(vault, next_seq, embedder, moves) VALUES (?, 1, ?, 1) "
        "ON CONFLICT(vault) DO UPDATE SET embedder = excluded.embedder, moves = 1",
        (vault_number, name),
    )


def sweep(
    batch: Batch, vault_number: int, row_range: tuple[int, int], *, name: str, model_id: str
) -> tuple[int, int] | None:
    """Remove what is of another model among the next vectors of a vault that remembers `name`.

    Returns:
        The range of rows that is left to look at, or None at its end.
    """
    connection = batch.connection
    low, high = row_range
    if remembered(connection, vault_number) != name:
        return None  # it moves again, perhaps back to what would be removed
    (model,) = one_row(connection, "SELECT number FROM model WHERE id = ?", (model_id,)) or (0,)
    rows: Sequence[tuple[Any, ...]] = all_rows(
        connection,
        f"SELECT id, model FROM embedding WHERE id BETWEEN ? AND ? ORDER BY id LIMIT {SWEEP_ROWS:d}",
        (low, high),
    )
    connection.executemany("DELETE FROM embedding WHERE id = ?", [(row_id,) for row_id, of in rows if of != model])
    if len(rows) == SWEEP_ROWS:
        return rows[-1][0] + 1, high
    connection.execute("UPDATE vault_state SET moves = 0 WHERE vault = ?", (vault_number,))
    return None


def moving(connection: apsw.Connection) -> list[int]:
    """Numbers of the vaults that are on their way from one model to another."""
    return [number for (number,) in all_rows(connection, "SELECT vault FROM vault_state WHERE moves = 1")]


class VaultEmbedders:
    """A part of `SqliteStore`, which has the attributes."""

    __slots__ = ()

    _databases: tuple[Database, ...]
    _keyring: KeyRing

    if TYPE_CHECKING:

        def _shard(self, vault: VaultRef) -> Database: ...

    async def remembered_embedder(self, vault: VaultRef) -> str | None:
        """Read what the vault remembers; see the protocol."""

        def read(connection: apsw.Connection) -> str | None:
            return remembered(connection, vault.number)

        return await self._shard(vault).readers.run(read)

    async def choose_embedder(self, vault: VaultRef, name: str) -> None:
        """Let the vault remember another embedder; see the protocol."""

        def work(batch: Batch) -> None:
            self._keyring.find(vault)
            choose(batch, vault.number, name)

        await self._shard(vault).committer.run(Ticket(work))

    async def finish_move(self, vault: VaultRef, *, name: str, model_id: str) -> None:
        """Remove vectors of other models, slice by slice; see the protocol."""
        rest: tuple[int, int] | None = (vault.number << 32, vault.number << 32 | 0xFFFFFFFF)
        while rest is not None:
            row_range = rest

            def work(batch: Batch, row_range: tuple[int, int] = row_range) -> tuple[int, int] | None:
                self._keyring.find(vault)
                return sweep(batch, vault.number, row_range, name=name, model_id=model_id)

            rest = await self._shard(vault).committer.run(Ticket(work))

    async def vaults_moving(self) -> list[VaultRef]:
        """Live vaults on their way from one model to another; see the protocol."""
        found = []
        for shard, database in enumerate(self._databases):
            if database.is_own and database.damage is None:
                numbers = await database.readers.run(moving)
                found += [VaultRef(number=VaultNumber(number), shard=shard) for number in numbers]
        return [vault for vault in found if await self._is_live(vault)]

    async def _is_live(self, vault: VaultRef) -> bool:
        def look(_: apsw.Connection) -> bool:
            try:
                self._keyring.find(vault)
            except NotFound:
                return False
            return True

        return await self._shard(vault).readers.run(look)
