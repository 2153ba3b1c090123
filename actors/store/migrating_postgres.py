"""A PostgreSQL database as one end of a move: the SQL of `actors.store.migrating_ends.End` for its tables.

Owns the check, in every transaction, that the partitions are still taken. One transaction never touches two of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from actors.store import migrating_ends as ends
from actors.store.database import Connection
from actors.store.migrating_ends import EXTRA, OWN_IDS, Row, VaultSize, VaultState, columns_of, range_of
from actors.store.postgres.connection import PostgresConnection
from actors.store.vault_bodies import row_range
from models.errors import SetupError
from models.ids import VaultRef


class PostgresEnd:
    """A database whose partitions are taken, so that no node writes; see `End`."""

    def __init__(self, name: str, connection: PostgresConnection, *, partitions: int, owner: str) -> None:
        self.name = name
        self.directory: Connection = connection
        self.partitions = partitions
        self._connection = connection
        self._owner = owner

    def models(self, partition: int) -> dict[int, tuple[str, int]]:
        """See `End`. All partitions have the same."""
        rows = self._connection.execute("SELECT number, id, dims FROM model ORDER BY number").fetchall()
        return {number: (model_id, dims) for number, model_id, dims in rows}

    def state(self, vault: VaultRef) -> VaultState | None:
        """See `End`."""
        row = self._one(vault, "SELECT next_seq, embedder, moves FROM vault_state WHERE part = ? AND vault = ?")
        return None if row is None else VaultState(*row)

    def size(self, vault: VaultRef) -> VaultSize:
        """See `End`."""
        row = self._one(vault, "SELECT memories, content_bytes FROM vault_state WHERE part = ? AND vault = ?")
        return VaultSize(0, 0) if row is None else VaultSize(*row)

    def rows(self, table: str, vault: VaultRef, *, after: int = 0) -> Iterator[list[Row]]:
        """See `End`."""

        def read(after: int) -> list[Row]:
            condition, bindings = range_of(table, vault, after)
            found = self._connection.execute(
                f"SELECT {columns_of(table)} FROM {table} WHERE part = ? AND {condition} "
                f"ORDER BY id LIMIT {ends.ROWS_A_BATCH:d}",
                (vault.shard, *bindings),
            ).fetchall()
            return [Row(*row) for row in found]

        return ends.in_batches(read, after)

    def last_id(self, table: str, vault: VaultRef) -> int:
        """See `End`."""
        condition, bindings = range_of(table, vault, 0)
        statement = f"SELECT max(id) FROM {table} WHERE part = ? AND {condition}"
        ((largest,),) = self._connection.execute(statement, (vault.shard, *bindings)).fetchall()
        return largest or 0

    def commits(self) -> int:
        """See `End`."""
        ((commits,),) = self._connection.execute("SELECT max(commits) FROM part").fetchall()
        return int(commits)

    def fingerprint(self) -> list[int]:
        """See `End`."""
        ((directory,),) = self._connection.execute("SELECT commits FROM directory_state").fetchall()
        rows = self._connection.execute("SELECT commits FROM part ORDER BY part").fetchall()
        return [directory, *(commits for (commits,) in rows)]

    def add_models(self, models: dict[int, tuple[str, int]]) -> None:
        """See `End`."""
        self._connection.executemany(
            "INSERT INTO model(number, id, dims) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            [(number, model_id, dims) for number, (model_id, dims) in models.items()],
        )

    def taken_ids(self, table: str, vault: VaultRef, ids: Sequence[int]) -> bool:
        """See `End`. Ids of the inbox are unique in their vault only."""
        return False

    def free_id(self, vault: VaultRef) -> int:
        """See `End`."""
        raise AssertionError("no id is taken")

    def begin(self, vault: VaultRef) -> None:
        """See `End`.

        Raises:
            SetupError: a server has taken the partition.
        """
        self._connection.execute("BEGIN")
        self._check_owned(vault.shard)

    def _check_owned(self, part: int) -> None:
        statement = "SELECT 1 FROM part WHERE part = ? AND owner = ? FOR UPDATE"
        if not self._connection.execute(statement, (part, self._owner)).fetchall():
            self._connection.execute("ROLLBACK")
            raise SetupError("A server has begun to use the database; nothing more is moved.", hint="Stop it.")

    def clear(self, table: str, vault: VaultRef) -> None:
        """See `End`."""
        self._connection.execute(f"DELETE FROM {table} WHERE part = ? AND vault = ?", (vault.shard, vault.number))

    def write(self, table: str, vault: VaultRef, rows: Sequence[Row]) -> None:
        """See `End`."""
        columns = ["part", "id", "body"]
        values: list[tuple[Any, ...]] = [(vault.shard, row.id, row.body) for row in rows]
        if table not in OWN_IDS:
            columns.append("vault")
            values = [(*value, vault.number) for value in values]
        extra = EXTRA[table]
        if extra is not None:
            columns.append(extra)
            values = [(*value, row.extra) for value, row in zip(values, rows, strict=True)]
        self._connection.copy_rows(table, columns, values)

    def finish_vault(self, vault: VaultRef, state: VaultState | None) -> None:
        """See `End`."""
        low, high = row_range(vault.number)
        if state is not None:
            self._connection.execute(
                "INSERT INTO vault_state(part, vault, next_seq, embedder, moves, memories, content_bytes) "
                "SELECT ?1, ?2, ?3, ?4, ?5, count(*), coalesce(sum(octet_length(body)), 0) FROM memory "
                "WHERE part = ?1 AND id BETWEEN ?6 AND ?7 ON CONFLICT (part, vault) DO UPDATE SET "
                "next_seq = excluded.next_seq, embedder = excluded.embedder, moves = excluded.moves, "
                "memories = excluded.memories, content_bytes = excluded.content_bytes",
                (vault.shard, vault.number, *state, low, high),
            )

    def commit(self, vault: VaultRef) -> None:
        """See `End`."""
        self._connection.execute("COMMIT")

    def set_commits(self, commits: int) -> None:
        """See `End`."""
        for part in range(self.partitions):
            self._connection.execute("UPDATE part SET commits = greatest(commits, ?) WHERE part = ?", (commits, part))

    def memories(self) -> int:
        """See `End`."""
        statement = "SELECT CAST(coalesce(sum(memories), 0) AS bigint) FROM vault_state"
        ((memories,),) = self._connection.execute(statement).fetchall()
        return int(memories)

    def in_order(self, statement: str) -> Iterator[list[Any]]:
        """See `End`."""
        return self._connection.batches(statement)

    def keep(self, name: str, value: str | None) -> None:
        """See `End`."""
        if value is None:
            self._connection.execute("DELETE FROM setting WHERE name = ?", (name,))
        else:
            self._connection.execute(
                "INSERT INTO setting(name, value) VALUES (?, ?) "
                "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                (name, value),
            )

    def kept(self, name: str) -> str | None:
        """See `End`."""
        rows = self._connection.execute("SELECT value FROM setting WHERE name = ?", (name,)).fetchall()
        return rows[0][0] if rows else None

    def numbers(self) -> dict[str, int]:
        """See `End`."""
        return dict(self._connection.execute("SELECT name, number FROM last_number").fetchall())

    def set_numbers(self, numbers: dict[str, int]) -> None:
        """See `End`."""
        for table, number in numbers.items():
            self._connection.execute(
                "UPDATE last_number SET number = greatest(number, ?) WHERE name = ?", (number, table)
            )

    def _one(self, vault: VaultRef, statement: str) -> Any:
        rows = self._connection.execute(statement, (vault.shard, vault.number)).fetchall()
        return rows[0] if rows else None
