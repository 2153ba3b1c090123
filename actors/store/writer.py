"""The writing connection of one database: transactions, checkpoints, and a fresh handle after a failure.

Lives in one committer thread and knows nothing of Trio. A failed COMMIT acknowledges nobody, and the handle
that it failed on is never used again: after a failed fsync the kernel may call pages clean that never reached
the disk (https://lwn.net/Articles/752063/).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import apsw

from actors.store.connections import BUSY_TIMEOUT_MS, one_row
from actors.store.migrations import schema_version
from actors.store.tickets import Batch, Outcome, Ticket
from models.errors import MemoryRouterError, StorageFull, StoreUnavailable

_DATABASE_FAILURES = (  # these say something about the file; any other error is the job's own
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

_log = logging.getLogger(__name__)


class Writer:
    """One file's writing connection, opened when first needed. All methods block; one thread only.

    Attributes:
        truncate_owed: whether the WAL must be emptied because it holds what was erased.
        wal_bytes: size of the WAL's live part after the last commit.
    """

    __slots__ = (
        "_attempt",
        "_commits",
        "_connection",
        "_name",
        "_open_connection",
        "_page_bytes",
        "truncate_owed",
        "wal_bytes",
    )

    def __init__(self, name: str, open_connection: Callable[[], apsw.Connection]) -> None:
        self._name = name
        self._open_connection = open_connection
        self._connection: apsw.Connection | None = None
        self._commits = 0
        self._attempt: tuple[int, list[Outcome]] = (-1, [])
        self._page_bytes = 0
        self.truncate_owed = False
        self.wal_bytes = 0

    def commit(self, tickets: Sequence[Ticket[Any]]) -> list[Outcome]:
        """Run all jobs in one transaction; each outcome is durable or had no effect.

        A failed commit is tried once more on a fresh handle. Should that handle fail as well, a transaction
        whose COMMIT was in doubt may still turn out stored after a restart; it was acknowledged to nobody.
        """
        try:
            return self._transact(tickets)
        except apsw.FullError:
            return self._full(tickets)
        except apsw.Error as error:
            _log.error("%s: commit failed: %s; reopening", self._name, type(error).__name__)
            self.discard_connection()
        try:
            return self._commit_again(tickets)
        except apsw.FullError:
            return self._full(tickets)
        except apsw.Error as error:
            _log.error("%s: commit failed again: %s", self._name, type(error).__name__)
            self.discard_connection()
            return all_failed(tickets, StoreUnavailable("The store cannot commit right now."))

    def _commit_again(self, tickets: Sequence[Ticket[Any]]) -> list[Outcome]:
        connection = self.connected()
        number, outcomes = self._attempt
        if self._commits != number:
            return self._transact(tickets)
        # The COMMIT that reported a failure took effect. Copying it into the database and syncing that makes
        # it last.
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        return outcomes

    def _full(self, tickets: Sequence[Ticket[Any]]) -> list[Outcome]:
        _log.error("%s: the disk is full; %d jobs were not stored", self._name, len(tickets))
        return all_failed(tickets, StorageFull("The disk is full; nothing was stored."))

    def _transact(self, tickets: Sequence[Ticket[Any]]) -> list[Outcome]:
        """One transaction for all jobs.

        Raises:
            apsw.Error: nothing is committed, as far as this handle knows.
        """
        self._attempt = (-1, [])
        connection = self.connected()
        try:
            connection.execute("BEGIN IMMEDIATE")
            batch = Batch(connection, self._commits + 1)
            outcomes = [self._run(ticket, batch) for ticket in tickets]
            if all(outcome.error is not None for outcome in outcomes):
                connection.execute("ROLLBACK")
                return outcomes
            connection.execute("UPDATE commit_counter SET commits = ?", (batch.number,))
            self._attempt = (batch.number, outcomes)
            connection.execute("COMMIT")
        except apsw.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self._commits = batch.number
        return outcomes

    def _run(self, ticket: Ticket[Any], batch: Batch) -> Outcome:
        """Run one job in a savepoint of its own."""
        connection = batch.connection
        connection.execute("SAVEPOINT job")
        try:
            result = ticket.work(batch)
        except _DATABASE_FAILURES:
            raise
        except Exception as error:  # the edge: a job's own failure is its waiter's, not its neighbours'
            connection.execute("ROLLBACK TO job")
            connection.execute("RELEASE job")
            if isinstance(error, MemoryRouterError):
                return Outcome(None, error)
            _log.error("%s: a job failed: %s", self._name, type(error).__name__)
            return Outcome(None, StoreUnavailable("The store could not do this."))
        connection.execute("RELEASE job")
        return Outcome(result, None)

    def truncate_or_owe(self) -> None:
        """Empty the WAL now, or, while readers hold it for too long, leave `truncate_owed` set."""
        self.truncate_owed = True
        self.checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE, busy_timeout_ms=BUSY_TIMEOUT_MS)
        if self.truncate_owed:
            _log.critical("%s: the WAL still holds what was erased; trying again every second", self._name)

    def checkpoint(self, mode: int, *, busy_timeout_ms: int = 0) -> None:
        """Copy the WAL into the database. A failure costs nothing durable; the next call tries again."""
        try:
            connection = self.connected()
            connection.set_busy_timeout(busy_timeout_ms)
            try:
                connection.wal_checkpoint(mode=mode)
            finally:
                connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        except (apsw.BusyError, apsw.LockedError):
            return  # a reader holds the WAL
        except apsw.Error as error:
            _log.error("%s: checkpoint failed: %s", self._name, type(error).__name__)
            self.discard_connection()
            return
        if mode == apsw.SQLITE_CHECKPOINT_TRUNCATE:
            self.wal_bytes = 0
            self.truncate_owed = False

    def connected(self) -> apsw.Connection:
        """The connection; a new one is checked first: a known schema, and a commit counter that can be read.

        Raises:
            apsw.Error: the file cannot be opened or read.
        """
        if self._connection is None:
            connection = self._open_connection()
            try:
                if schema_version(connection) < 1:
                    raise apsw.CorruptError("the schema is gone")
                (self._commits,) = one_row(connection, "SELECT commits FROM commit_counter")
                (self._page_bytes,) = one_row(connection, "PRAGMA page_size")
                connection.set_wal_hook(self._note_wal)
            except apsw.Error:
                connection.close(True)
                raise
            self._connection = connection
        return self._connection

    def _note_wal(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        self.wal_bytes = pages * self._page_bytes
        return apsw.SQLITE_OK

    def discard_connection(self) -> None:
        """Drop a handle that failed; it may not write any more, not even while it closes."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            connection.close(True)

    def close(self) -> None:
        """Empty the WAL and close the file."""
        self.checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE, busy_timeout_ms=BUSY_TIMEOUT_MS)
        if self._connection is not None:
            self._connection.close(True)
            self._connection = None


def all_failed(tickets: Sequence[Ticket[Any]], error: MemoryRouterError) -> list[Outcome]:
    """The same failure for every job of a batch."""
    return [Outcome(None, error)] * len(tickets)
