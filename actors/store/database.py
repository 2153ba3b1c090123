"""What the SQL of both engines needs of a database: a connection's few methods, and failures by neutral names.

An `apsw.Connection` is a `Connection` as it is; PostgreSQL's is `actors.store.postgres.connection`. SQL that both take
uses `?` and `?1` placeholders. Knows no server and opens nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import apsw

SQLITE_FAILURES = (  # these say something about the file; any other error is the statement's own
    apsw.FullError,
    apsw.IOError,
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.CantOpenError,
    apsw.ReadOnlyError,
    apsw.NoMemError,
    apsw.BusyError,
    apsw.LockedError,
    apsw.ProtocolError,
    apsw.InterruptError,
    apsw.ConnectionClosedError,
)


class Rows(Protocol):
    """What a statement found."""

    def fetchall(self) -> list[Any]:
        """All rows that are left, as tuples."""

    def __iter__(self) -> Iterator[Any]:
        """The same one by one."""


class Connection(Protocol):
    """One connection, used by one thread at a time. Outside of BEGIN and COMMIT each statement is on its own."""

    @property
    def in_transaction(self) -> bool:
        """Whether a BEGIN waits for its COMMIT or ROLLBACK."""

    def execute(self, statement: str, bindings: Sequence[Any] = ()) -> Rows:
        """Run one statement.

        Raises:
            DATABASE_ERRORS: it failed; CONSTRAINT_ERRORS and DATABASE_FAILURES among them say more.
        """

    def executemany(self, statement: str, rows: Sequence[Sequence[Any]]) -> object:
        """Run one statement for each of these rows of bindings."""

    def changes(self) -> int:
        """Rows that the last statement inserted, changed or deleted."""

    def total_changes(self) -> int:
        """The same, of all statements of this connection."""

    def close(self) -> None:
        """Close it."""


class StatementFailed(Exception):
    """PostgreSQL refused a statement."""


class ConstraintViolated(StatementFailed):
    """A row of this key is there already, or a condition of the table does not hold."""


class ConnectionFailed(StatementFailed):
    """The server cannot be reached, ended the connection or cannot go on. What was not committed is undone."""


class DatabaseFull(ConnectionFailed):
    """The server's disk is full."""


CONSTRAINT_ERRORS = (apsw.ConstraintError, ConstraintViolated)
"""A unique or another constraint refuses a row."""
DATABASE_FAILURES = (*SQLITE_FAILURES, ConnectionFailed)
"""These say something about the database; any other error is the statement's own."""
DATABASE_ERRORS = (apsw.Error, StatementFailed)
"""All that a statement can raise."""


def all_rows(connection: Connection, statement: str, bindings: Sequence[Any] = ()) -> list[Any]:
    """Every row of a statement, as tuples.

    A list and no cursor: a cursor that an error leaves open would keep its connection's read transaction
        alive.
    """
    return connection.execute(statement, bindings).fetchall()


def one_row(connection: Connection, statement: str, bindings: Sequence[Any] = ()) -> Any:
    """The first row of a statement as a tuple, or None."""
    rows = all_rows(connection, statement, bindings)
    return rows[0] if rows else None
