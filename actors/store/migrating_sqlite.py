"""A data directory as one end of a move: the SQL of `actors.store.migrating_ends.End` for meta.db and shard files.

Owns the checkpoints on the way: a WAL must not grow as large as the store. Must never write into a file that it was not
given open.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import apsw

from actors.store import migrating_ends as ends
from actors.store.connections import batches
from actors.store.database import Connection, all_rows, one_row
from actors.store.erasing import reserve_numbers
from actors.store.migrating_ends import EXTRA, OWN_IDS, Row, VaultSize, VaultState, columns_of, range_of
from actors.store.tickets import PLACE_BITS
from models.ids import VaultRef

WAL_BYTES_MAX = 16 * 1024 * 1024
"""Written into a shard file between two checkpoints."""

_LARGEST_ID = "SELECT max(coalesce((SELECT max(id) FROM inbox), 0), coalesce((SELECT max(id) FROM damaged_inbox), 0))"


class SqliteEnd:
    """A data directory whose files are open for writing; see `End`."""

    def __init__(self, name: str, meta: apsw.Connection, shards: Sequence[apsw.Connection]) -> None:
        self.name = name
        self.directory: Connection = meta
        self.partitions = len(shards)
        self._shards = tuple(shards)
        self._meta = meta
        self._written_bytes = 0

    def models(self, partition: int) -> dict[int, tuple[str, int]]:
        """See `End`."""
        rows = all_rows(self._shards[partition], "SELECT number, id, dims FROM model ORDER BY number")
        return {number: (model_id, dims) for number, model_id, dims in rows}

    def state(self, vault: VaultRef) -> VaultState | None:
        """See `End`."""
        row = self._one(vault, "SELECT next_seq, embedder, moves FROM vault_state WHERE vault = ?", vault.number)
        return None if row is None else VaultState(*row)

    def size(self, vault: VaultRef) -> VaultSize:
        """See `End`."""
        row = self._one(vault, "SELECT memories, content_bytes FROM vault_state WHERE vault = ?", vault.number)
        return VaultSize(0, 0) if row is None else VaultSize(*row)

    def rows(self, table: str, vault: VaultRef, *, after: int = 0) -> Iterator[list[Row]]:
        """See `End`."""

        def read(after: int) -> list[Row]:
            condition, bindings = range_of(table, vault, after)
            statement = (
                f"SELECT {columns_of(table)} FROM {table} WHERE {condition} ORDER BY id LIMIT {ends.ROWS_A_BATCH:d}"
            )
            return [Row(*row) for row in all_rows(self._shards[vault.shard], statement, bindings)]

        return ends.in_batches(read, after)

    def last_id(self, table: str, vault: VaultRef) -> int:
        """See `End`."""
        condition, bindings = range_of(table, vault, 0)
        row = self._one(vault, f"SELECT max(id) FROM {table} WHERE {condition}", *bindings)
        return int(row[0] or 0)

    def commits(self) -> int:
        """See `End`."""
        return max(int(one_row(shard, "SELECT commits FROM commit_counter")[0]) for shard in self._shards)

    def fingerprint(self) -> list[int]:
        """See `End`."""
        files = (self._meta, *self._shards)
        return [int(one_row(file, "SELECT commits FROM commit_counter")[0]) for file in files]

    def add_models(self, models: dict[int, tuple[str, int]]) -> None:
        """See `End`."""
        rows = [(number, model_id, dims) for number, (model_id, dims) in models.items()]
        for shard in self._shards:
            with shard:
                shard.executemany("INSERT INTO model(number, id, dims) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", rows)

    def taken_ids(self, table: str, vault: VaultRef, ids: Sequence[int]) -> bool:
        """See `End`. In a shard file ids of the inbox are unique."""
        statement = f"SELECT 1 FROM {table} WHERE id = ? AND vault <> ?"
        return any(self._one(vault, statement, row_id, vault.number) is not None for row_id in ids)

    def free_id(self, vault: VaultRef) -> int:
        """See `End`."""
        return int(self._one(vault, _LARGEST_ID)[0]) + 1

    def begin(self, vault: VaultRef) -> None:
        """See `End`."""
        self._shards[vault.shard].execute("BEGIN IMMEDIATE")

    def clear(self, table: str, vault: VaultRef) -> None:
        """See `End`."""
        self._shards[vault.shard].execute(f"DELETE FROM {table} WHERE vault = ?", (vault.number,))

    def write(self, table: str, vault: VaultRef, rows: Sequence[Row]) -> None:
        """See `End`."""
        columns, values = ["id", "body"], [(row.id, row.body) for row in rows]
        placed: list[tuple[Any, ...]] = list(values)
        if table not in OWN_IDS:
            columns.append("vault")
            placed = [(*value, vault.number) for value in placed]
        extra = EXTRA[table]
        if extra is not None:
            columns.append(extra)
            placed = [(*value, row.extra) for value, row in zip(placed, rows, strict=True)]
        marks = ", ".join("?" * len(columns))
        self._shards[vault.shard].executemany(f"INSERT INTO {table}({', '.join(columns)}) VALUES ({marks})", placed)
        self._written_bytes += sum(len(row.body) for row in rows)

    def finish_vault(self, vault: VaultRef, state: VaultState | None) -> None:
        """See `End`. The triggers have counted."""
        if state is not None:
            self._shards[vault.shard].execute(
                "INSERT INTO vault_state(vault, next_seq, embedder, moves) VALUES (?, ?, ?, ?) ON CONFLICT(vault) "
                "DO UPDATE SET next_seq = excluded.next_seq, embedder = excluded.embedder, moves = excluded.moves",
                (vault.number, *state),
            )

    def commit(self, vault: VaultRef) -> None:
        """See `End`."""
        shard = self._shards[vault.shard]
        shard.execute("COMMIT")
        if self._written_bytes >= WAL_BYTES_MAX:
            self._written_bytes = 0
            shard.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)

    def set_commits(self, commits: int) -> None:
        """See `End`."""
        for shard in self._shards:
            with shard:
                largest = int(one_row(shard, _LARGEST_ID)[0]) >> PLACE_BITS
                shard.execute("UPDATE commit_counter SET commits = max(commits, ?, ?)", (commits, largest))

    def memories(self) -> int:
        """See `End`."""
        statement = "SELECT coalesce(sum(memories), 0) FROM vault_state"
        return sum(int(one_row(shard, statement)[0]) for shard in self._shards)

    def in_order(self, statement: str) -> Iterator[list[Any]]:
        """See `End`."""
        return batches(self._meta, statement)

    def keep(self, name: str, value: str | None) -> None:
        """See `End`."""
        if value is None:
            self._meta.execute("DELETE FROM setting WHERE name = ?", (name,))
        else:
            self._meta.execute("INSERT OR REPLACE INTO setting VALUES (?, ?)", (name, value))

    def kept(self, name: str) -> str | None:
        """See `End`."""
        row = one_row(self._meta, "SELECT value FROM setting WHERE name = ?", (name,))
        return None if row is None else str(row[0])

    def numbers(self) -> dict[str, int]:
        """See `End`."""
        return dict(all_rows(self._meta, "SELECT name, seq FROM sqlite_sequence"))

    def set_numbers(self, numbers: dict[str, int]) -> None:
        """See `End`."""
        for table, number in numbers.items():
            reserve_numbers(self._meta, table, number)

    def _one(self, vault: VaultRef, statement: str, *bindings: int) -> Any:
        return one_row(self._shards[vault.shard], statement, bindings)
