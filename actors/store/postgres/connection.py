"""One connection to PostgreSQL with the few methods that the stores' SQL needs, and its failures by neutral names.

Owns what every session sets, the translation of `?` and `?1` to `$1`, and the types: whole numbers go as bigint, bytes
as bytea, both in binary. psycopg is imported when the first connection is opened. Must never set a statement timeout:
one that ends a COMMIT ends only the wait for the standby, and the rows stay.
"""

from __future__ import annotations

import functools
import os
import re
import socket
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

from actors.store.database import ConnectionFailed, StatementFailed
from actors.store.postgres.failures import neutral_errors
from models.errors import SetupError

if TYPE_CHECKING:
    import psycopg

BATCH_ROWS = 512
"""Rows that `PostgresConnection.batches` gives at a time."""
CONNECT_TIMEOUT_S = 5
DEAD_PEER_MS = 10_000
"""How long bytes may stay unacknowledged before the connection counts as dead, at both ends."""
IDLE_IN_TRANSACTION_S = 60.0
"""For readers: an open snapshot keeps the server from removing what was deleted since."""
WRITER_IDLE_IN_TRANSACTION_S = 2.0
"""For writers: a frozen node must not hold the lock on its partition's row, which a takeover waits for."""

_PREPARED_MAX = 512
_NEEDS_BIGINT = 1 << 40
_DEFAULTS: dict[str, str | int] = {
    "application_name": "memoryrouter",
    "connect_timeout": CONNECT_TIMEOUT_S,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": DEAD_PEER_MS,
    "target_session_attrs": "read-write",
}
_PLACEHOLDER = re.compile(r"\?(\d*)|'[^']*'|--[^\n]*|\bLIKE\b")
_PLAIN = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "VACUUM", "SET ")
_WRITES = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE", "COPY"})


@functools.lru_cache(maxsize=1024)
def translated(statement: str) -> str:
    """The statement with `$n` in place of `?` and `?n`; a bare `?` is one more than the largest before it.

    LIKE becomes ILIKE: SQLite's is blind to the case of ASCII letters, and so is that under the collation "C".
    """
    last = 0

    def place(match: re.Match[str]) -> str:
        nonlocal last
        if not match[0].startswith("?"):
            return "ILIKE" if match[0] == "LIKE" else match[0]
        number = int(match[1]) if match[1] else last + 1
        last = max(last, number)
        return f"${number:d}"

    return _PLACEHOLDER.sub(place, statement)


class FoundRows:
    """What a statement found; empty for one that finds nothing."""

    __slots__ = ("_rows",)

    def __init__(self, rows: list[Any]) -> None:
        self._rows = rows

    def fetchall(self) -> list[Any]:
        """All rows that are left, as tuples."""
        rows, self._rows = self._rows, []
        return rows

    def __iter__(self) -> Iterator[Any]:
        """The same one by one."""
        return iter(self.fetchall())


class PostgresConnection:
    """Implements `actors.store.database.Connection`. BEGIN, COMMIT and ROLLBACK are statements, as in SQLite.

    Attributes:
        interrupted: whether it was broken from this side (`interrupt`).
        patience_s: how long it may wait for the server, where somebody watches that (`actors.store.postgres.overseer`).
        waits_since_s: since when it waits for the server, on the monotonic clock; None while it does not.

    Raises:
        ConstraintViolated: a constraint refuses a row.
        DatabaseFull: the server's disk is full.
        ConnectionFailed: the connection or the server failed; this object can only be closed.
        StatementFailed: anything else. The transaction can only be rolled back, to a savepoint or whole.
    """

    __slots__ = (
        "_changes",
        "_column_types",
        "_connection",
        "_cursor",
        "_total_changes",
        "_warned",
        "interrupted",
        "patience_s",
        "waits_since_s",
    )

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self.interrupted = False
        self.patience_s = float("inf")
        self.waits_since_s: float | None = None
        self._warned = False
        connection.add_notice_handler(self._note_notice)
        self._cursor = connection.cursor(binary=True)
        self._changes = 0
        self._total_changes = 0
        self._column_types: dict[tuple[str, tuple[str, ...]], list[int]] = {}

    @property
    def in_transaction(self) -> bool:
        """Whether a BEGIN waits for its COMMIT or ROLLBACK; false on a connection that is lost."""
        from psycopg.pq import TransactionStatus

        return self._connection.info.transaction_status in (
            TransactionStatus.ACTIVE,
            TransactionStatus.INTRANS,
            TransactionStatus.INERROR,
        )

    @property
    def backend(self) -> int:
        """The process of the server that serves this connection."""
        return self._connection.info.backend_pid

    @property
    def closed(self) -> bool:
        """Whether it is closed or lost."""
        return self._connection.closed

    def execute(self, statement: str, bindings: Sequence[Any] = ()) -> FoundRows:
        """Run one statement; all that it finds is here when this returns."""
        cursor = self._cursor
        with self._waiting():
            if not bindings and statement.startswith(_PLAIN):
                self._connection.execute(statement, prepare=False)  # one message instead of five
                self._changes = 0
                return FoundRows([])
            cursor.execute(translated(statement), bindings or None)
            self._note_changes(cursor)
            return FoundRows(cursor.fetchall() if cursor.description is not None else [])

    def run_script(self, script: str) -> None:
        """Run several statements without bindings."""
        with self._waiting():
            self._connection.execute(script)

    def commit(self) -> None:
        """COMMIT; what it wrote is durable when this returns.

        Raises:
            StatementFailed: an earlier statement had failed, so the server rolled back.
            ConnectionFailed: nobody knows. Also when the server was told not to wait for its standby any longer: the
                rows are there then, but a fail-over would lose them.
        """
        self._warned = False
        with self._waiting():
            cursor = self._connection.execute("COMMIT", prepare=False)
        if self._warned:
            raise ConnectionFailed("the commit came with a warning")
        if cursor.statusmessage != "COMMIT":
            raise StatementFailed("the transaction had failed before its COMMIT")

    def _note_notice(self, notice: psycopg.errors.Diagnostic) -> None:
        self._warned |= notice.severity_nonlocalized == "WARNING"

    def executemany(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each of these rows, in one pipeline; `changes` is of all of them."""
        self._changes = 0
        if not rows:
            return
        cursor = self._cursor
        with self._waiting():
            cursor.executemany(translated(statement), rows)
            self._note_changes(cursor)

    def copy_rows(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Insert rows by COPY, in binary. Table and columns are the caller's constants."""
        self._changes = 0
        if not rows:
            return
        names = ", ".join(columns)
        with self._waiting():
            types = self._types(table, tuple(columns))
            with self._cursor.copy(f"COPY {table} ({names}) FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(types)
                for row in rows:
                    copy.write_row(row)
            self._changes = len(rows)
            self._total_changes += len(rows)

    def batches(self, statement: str, bindings: Sequence[Any] = ()) -> Generator[list[Any], None, None]:
        """What a statement finds in lists of at most `BATCH_ROWS`, while the server sends it.

        The connection can do nothing else until the last one was taken or the iterator is closed.
        """
        rows: list[Any] = []
        cursor = self._connection.cursor(binary=True)
        with self._waiting():
            stream = cast(
                Generator[Any, None, None], cursor.stream(translated(statement), bindings or None, size=BATCH_ROWS)
            )
            with closing(cursor), closing(stream):
                for row in stream:
                    rows.append(row)
                    if len(rows) == BATCH_ROWS:
                        self.waits_since_s = None
                        yield rows
                        rows, self.waits_since_s = [], time.monotonic()
                self.waits_since_s = None
                if rows:
                    yield rows

    def changes(self) -> int:
        """Rows that the last statement inserted, changed or deleted."""
        return self._changes

    def total_changes(self) -> int:
        """The same, of all statements of this connection."""
        return self._total_changes

    def close(self) -> None:
        """Close it. What is open is rolled back by the server; a failure says nothing new."""
        import psycopg

        with suppress(psycopg.Error, OSError):
            self._connection.close()

    def interrupt(self) -> None:
        """Break the connection from any thread: what waits for the server ends with ConnectionFailed.

        The server is not told, so that a COMMIT which waits for its standby is not cut short there.
        """
        self.interrupted = True
        with (
            suppress(OSError, ConnectionFailed),
            neutral_errors(),
            socket.socket(fileno=os.dup(self._connection.fileno())) as shared,
        ):
            shared.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """While the server is asked something."""
        self.waits_since_s = time.monotonic()
        try:
            with neutral_errors():
                yield
        finally:
            self.waits_since_s = None

    def _note_changes(self, cursor: psycopg.Cursor[Any]) -> None:
        verb = (cursor.statusmessage or "").partition(" ")[0]
        self._changes = max(0, cursor.rowcount) if verb in _WRITES else 0
        self._total_changes += self._changes

    def _types(self, table: str, columns: tuple[str, ...]) -> list[int]:
        types = self._column_types.get((table, columns))
        if types is None:
            self._cursor.execute(f"SELECT {', '.join(columns)} FROM {table} LIMIT 0")
            types = [column.type_code for column in self._cursor.description or ()]
            self._column_types[table, columns] = types
        return types


def open_connection(
    url: str, *, idle_in_transaction_s: float = IDLE_IN_TRANSACTION_S, connect_timeout_s: int = CONNECT_TIMEOUT_S
) -> PostgresConnection:
    """A connection to the server that takes writes. Blocks, at most `connect_timeout_s` for each of the URL's hosts.

    Args:
        url: libpq's URL or its key-value form; what it says of the defaults here wins.
        idle_in_transaction_s: after how long without a statement the server ends an open transaction.

    Raises:
        ConnectionFailed: the server cannot be reached or refuses.
        SetupError: psycopg is not installed, or the URL is none.
    """
    psycopg = _psycopg()
    try:
        given = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        raise SetupError("store.url is not a PostgreSQL URL.", hint="Such as postgresql://name@host/name.") from error
    options = _options(idle_in_transaction_s)
    given = {
        **_DEFAULTS,
        "connect_timeout": connect_timeout_s,
        **given,
        "options": f"{given.get('options') or ''} {options}".strip(),
    }
    with neutral_errors():
        connection = psycopg.Connection.connect(
            psycopg.conninfo.make_conninfo("", **given),
            autocommit=True,
            prepare_threshold=2,
            cursor_factory=psycopg.RawCursor,
            context=_adapters(),
        )
        connection.prepared_max = _PREPARED_MAX
    return PostgresConnection(connection)


def _options(idle_in_transaction_s: float) -> str:
    settings = {
        "idle_in_transaction_session_timeout": f"{idle_in_transaction_s * 1000:.0f}",
        "statement_timeout": "0",
        "default_transaction_isolation": "read\\ committed",
        "tcp_keepalives_idle": "5",
        "tcp_keepalives_interval": "2",
        "tcp_keepalives_count": "3",
        "tcp_user_timeout": str(DEAD_PEER_MS),
        "TimeZone": "UTC",
    }
    return " ".join(f"-c {name}={value}" for name, value in settings.items())


def _psycopg() -> Any:
    try:
        import psycopg
        import psycopg.conninfo
    except ImportError as error:
        raise SetupError(
            "PostgreSQL needs psycopg, which is not installed.",
            hint="Install it with: pip install 'memoryrouter[postgres]'",
        ) from error
    return psycopg


@functools.cache
def _adapters() -> Any:
    """psycopg's types, but whole numbers are always bigint, in lists too: one prepared statement for all of them."""
    import psycopg
    from psycopg.types.array import ListBinaryDumper
    from psycopg.types.numeric import Int8BinaryDumper

    class ListDumper(ListBinaryDumper):
        """psycopg takes the smallest type that holds the first list, and keeps it for lists that it does not hold."""

        def _find_list_element(self, L: list[Any], format: Any) -> Any:  # noqa: N803 - psycopg's names
            found = super()._find_list_element(L, format)
            return _NEEDS_BIGINT if type(found) is int else found

    adapters = psycopg.adapt.AdaptersMap(psycopg.adapters)
    adapters.register_dumper(int, Int8BinaryDumper)
    adapters.register_dumper(list, ListDumper)

    class Context:
        """What psycopg asks for its adapters."""

        connection = None

        def __init__(self) -> None:
            self.adapters = adapters

    return Context()
