"""Rows on their way into PostgreSQL: which statement brings how many, and the transaction that gathers them.

Owns the order of columns of the vaults' tables. Must never send rows of the inbox one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain
from typing import Any

from actors.store.postgres.connection import PostgresConnection
from actors.store.tickets import Batch

COPY_ROWS_LEAST = 16
"""Rows from which COPY costs less than one INSERT of all of them, each number of which is a statement of its own."""

_COLUMNS = {
    "inbox": ("part", "vault", "id", "body"),
    "memory": ("part", "id", "body"),
    "embedding": ("part", "model", "id", "body"),
}
IDS = "ANY(CAST(? AS bigint[]))"
"""One of the numbers of an `array_of`."""


def array_of(numbers: Iterable[int]) -> str:
    """Numbers as PostgreSQL reads an array: psycopg would send every list in the type that its first one needed."""
    return f"{{{','.join(map(str, numbers))}}}"


def insert(connection: PostgresConnection, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows, whose columns are in the order of the table's entry above.

    Raises:
        ConstraintViolated: one is there already.
    """
    if len(rows) >= COPY_ROWS_LEAST:
        connection.copy_rows(table, _COLUMNS[table], rows)
    elif rows:
        connection.execute(_insert_statement(table, len(rows)), list(chain.from_iterable(rows)))


@cache
def _insert_statement(table: str, rows: int) -> str:
    marks = f"({', '.join('?' * len(_COLUMNS[table]))})"
    return f"INSERT INTO {table}({', '.join(_COLUMNS[table])}) VALUES {', '.join([marks] * rows)}"


class PostgresBatch(Batch):
    """A transaction whose jobs' inbox rows are sent together: one by one they would take ten times as long."""

    __slots__ = ("_waiting",)

    def __init__(self, connection: PostgresConnection, number: int) -> None:
        super().__init__(connection, number)
        self._waiting: list[tuple[Any, ...]] = []

    def append(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Let rows of the inbox be inserted by `flush`. Nothing looks for them before the commit."""
        self._waiting += rows

    def flush(self) -> None:
        """Insert what waits: before the COMMIT, and before a savepoint is released.

        Raises:
            StatementFailed: nothing of it is inserted; it does not wait any more.
        """
        rows, self._waiting = self._waiting, []
        insert(self.connection, "inbox", rows)

    def discard(self) -> None:
        """Forget what waits: its job failed."""
        self._waiting.clear()
