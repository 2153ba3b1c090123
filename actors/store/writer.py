"""The writing connection of one database: transactions, checkpoints, and a fresh handle after a failure.

Lives in one committer thread and knows nothing of Trio. A failed COMMIT acknowledges nobody, and the handle
that it failed on is never used again: after a failed fsync the kernel may call pages clean that never reached
the disk (https://lwn.net/Articles/752063/). Must never acknowledge a commit into a file that is no longer in its
place, nor go on with a database that is behind its commit counter.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apsw

from actors.store.ballast import DiskSpace
from actors.store.connections import BUSY_TIMEOUT_MS, close, close_untouched
from actors.store.counter import CommitCounter
from actors.store.damage import behind_its_counter
from actors.store.database import SQLITE_FAILURES, one_row
from actors.store.migrations import schema_version
from actors.store.tickets import Batch, Outcome, Ticket
from models.errors import MemoryRouterError, ShardDamaged, StorageFull, StoreUnavailable

NO_ROOM_BYTES = 256 * 1024
"""Free room below which an I/O error counts as a full disk: SQLite reports some of these as I/O errors."""
SHRINK_PAGES = 256
"""Pages that one step of giving room back to the disk moves: a few milliseconds, about a megabyte of WAL."""

_log = logging.getLogger(__name__)


class Writer:
    """One file's writing connection, opened when first needed. All methods block; one thread only.

    Attributes:
        damage: why this file must not be served, once it is known; every job gets it.
        truncate_owed: whether the WAL must be emptied because it holds what was erased.
        wal_bytes: size of the WAL's live part after the last commit.
    """

    __slots__ = (
        "_attempt",
        "_commits",
        "_connection",
        "_counter",
        "_name",
        "_open_connection",
        "_opened_files",
        "_page_bytes",
        "_space",
        "damage",
        "truncate_owed",
        "wal_bytes",
    )

    def __init__(
        self,
        name: str,
        open_connection: Callable[[], apsw.Connection],
        *,
        counter: CommitCounter | None = None,
        space: DiskSpace | None = None,
        damage: ShardDamaged | None = None,
        truncate_owed: bool = False,
    ) -> None:
        self._name = name
        self._open_connection = open_connection
        self._counter = counter
        self._space = space
        self._connection: apsw.Connection | None = None
        self._opened_files: dict[str, tuple[int, int]] = {}
        self._commits = 0
        self._attempt: tuple[int, list[Outcome]] = (-1, [])
        self._page_bytes = 0
        self.damage = damage
        self.truncate_owed = truncate_owed
        self.wal_bytes = 0

    def groups(self, tickets: list[Ticket[Any]]) -> list[list[Ticket[Any]]]:
        """All of them in one transaction."""
        return [tickets] if tickets else []

    def commit(self, tickets: Sequence[Ticket[Any]]) -> list[Outcome]:
        """Run all jobs in one transaction; each outcome is durable or had no effect.

        A failed commit is tried once more on a fresh handle. Should that handle fail as well, a transaction
        whose COMMIT was in doubt may still turn out stored after a restart; it was acknowledged to nobody.
        On a full disk the jobs that grow fail, and the others get the ballast's room.
        """
        try:
            if self._space is None or not self._space.refuses_growth():
                try:
                    return self._transact_twice(tickets)
                except apsw.FullError:
                    _log.error("%s: the disk is full", self._name)
                    self._make_room()
            return self._commit_without_growth(tickets)
        except ShardDamaged as damage:
            return all_failed(tickets, damage)

    def _commit_without_growth(self, tickets: Sequence[Ticket[Any]]) -> list[Outcome]:
        others = [ticket for ticket in tickets if not ticket.grows]
        full = StorageFull("The disk is full; nothing was stored.")
        try:
            outcomes = iter(self._transact_twice(others) if others else ())
        except apsw.FullError:
            return all_failed(tickets, full)
        return [Outcome(None, full) if ticket.grows else next(outcomes) for ticket in tickets]

    def _make_room(self) -> None:
        """Give up the ballast, and turn the WAL's room into free room while that is still possible."""
        if self._space is not None:
            self._space.release()
            self.checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def _transact_twice(self, tickets: Sequence[Ticket[Any]]) -> list[Outcome]:
        """Commit, on a failure once more on a fresh handle.

        Raises:
            apsw.FullError: there is no room; nothing is committed.
            ShardDamaged: the file must not be served.
        """
        try:
            return self._transact(tickets)
        except apsw.FullError:
            raise
        except apsw.Error as error:
            self._failed("commit failed, reopening", error)
        try:
            return self._commit_again(tickets)
        except apsw.FullError:
            raise
        except apsw.Error as error:
            self._failed("commit failed again", error)
            return all_failed(tickets, StoreUnavailable("The store cannot commit right now."))

    def _failed(self, what: str, error: apsw.Error) -> None:
        """Drop the handle.

        Raises:
            apsw.FullError: the error came of a full disk.
        """
        _log.error("%s: %s: %s", self._name, what, type(error).__name__)
        self.discard_connection()
        out_of_room = self._space is not None and self._space.free_bytes() < NO_ROOM_BYTES
        if out_of_room and isinstance(error, apsw.IOError | apsw.CantOpenError):
            raise apsw.FullError("no room") from error

    def _commit_again(self, tickets: Sequence[Ticket[Any]]) -> list[Outcome]:
        connection = self.connected()
        number, outcomes = self._attempt
        if not self._took_effect(connection, number):
            return self._transact(tickets)
        # The COMMIT that reported a failure took effect. Copying it into the database and syncing that makes
        # it last.
        self._copy_wal(connection, apsw.SQLITE_CHECKPOINT_TRUNCATE, busy_timeout_ms=BUSY_TIMEOUT_MS)
        self._note_durable()
        return outcomes

    # What differs where other processes write the same file: `actors.store.shared_writer`.

    def _be_patient(self, connection: apsw.Connection, timeout_ms: int) -> None:
        """Let what the connection does from now on wait for others so long."""
        connection.set_busy_timeout(timeout_ms)

    def _took_effect(self, _connection: apsw.Connection, number: int) -> bool:
        """Whether the commit of this number, which reported a failure, is there."""
        return self._commits == number

    def _next_number(self, _connection: apsw.Connection) -> int:
        """The number of the commit that has just begun."""
        return self._commits + 1

    def _put_number(self, connection: apsw.Connection, number: int) -> None:
        """Write it into the transaction."""
        connection.execute("UPDATE commit_counter SET commits = ?", (number,))

    def _copy_wal(self, connection: apsw.Connection, mode: int, *, busy_timeout_ms: int) -> None:
        """Copy the WAL into the database.

        Raises:
            apsw.BusyError: somebody reads it for longer than that.
        """
        self._be_patient(connection, busy_timeout_ms)
        try:
            connection.wal_checkpoint(mode=mode)
        finally:
            self._be_patient(connection, BUSY_TIMEOUT_MS)

    def _transact(self, tickets: Sequence[Ticket[Any]]) -> list[Outcome]:
        """One transaction for all jobs.

        Raises:
            apsw.Error: nothing is committed, as far as this handle knows.
            ShardDamaged: the file must not be served.
        """
        self._attempt = (-1, [])
        connection = self.connected()
        try:
            connection.execute("BEGIN IMMEDIATE")
            batch = Batch(connection, self._next_number(connection))
            outcomes = [self._run(ticket, batch) for ticket in tickets]
            if all(outcome.error is not None for outcome in outcomes):
                connection.execute("ROLLBACK")
                return outcomes
            self._put_number(connection, batch.number)
            self._attempt = (batch.number, outcomes)
            connection.execute("COMMIT")
        except apsw.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self._commits = batch.number
        self._note_durable()
        return outcomes

    def _note_durable(self) -> None:
        """After a commit, before anybody is told: it must be in the files that a restart will find.

        Raises:
            apsw.IOError: it is not; the commit went into a file that has no name any more.
        """
        if self._opened_files != _identities(self._opened_files):
            raise apsw.IOError("the file, or its WAL, was removed or replaced")
        if self._counter is not None:
            self._counter.note(self._commits)

    def _run(self, ticket: Ticket[Any], batch: Batch) -> Outcome:
        """Run one job in a savepoint of its own."""
        connection = batch.connection
        connection.execute("SAVEPOINT job")
        try:
            result = ticket.work(batch)
        except SQLITE_FAILURES:
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

    def _has_synced_wal(self, connection: apsw.Connection) -> bool:
        """SQLite does not sync what it truncates: a power cut could bring the erased bytes back."""
        try:
            descriptor = os.open(connection.filename_wal, os.O_RDWR | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            _log.error("%s: the emptied WAL cannot be synced: %s", self._name, error.strerror)
            return False
        return True

    def checkpoint(self, mode: int, *, busy_timeout_ms: int = 0) -> None:
        """Copy the WAL into the database. A failure costs nothing durable; the next call tries again."""
        if self._space is None or not self._space.full:
            self._checkpoint(mode, busy_timeout_ms=busy_timeout_ms)
            return
        with self._space.one_checkpoint_at_a_time:  # each needs room first, and then gives its WAL's room back
            self._checkpoint(mode, busy_timeout_ms=busy_timeout_ms)

    def _checkpoint(self, mode: int, *, busy_timeout_ms: int) -> None:
        try:
            connection = self.connected()
            if not self._has_room(connection):
                return
            self._copy_wal(connection, mode, busy_timeout_ms=busy_timeout_ms)
        except (apsw.BusyError, apsw.LockedError):
            return  # a reader holds the WAL
        except apsw.FullError:
            _log.error("%s: the disk is too full for a checkpoint", self._name)
            if self._space is not None:
                self._space.release()
            return
        except ShardDamaged:
            return
        except apsw.Error as error:
            _log.error("%s: checkpoint failed: %s", self._name, type(error).__name__)
            self.discard_connection()
            return
        if mode == apsw.SQLITE_CHECKPOINT_TRUNCATE:
            self.wal_bytes = 0
            self.truncate_owed = self.truncate_owed and not self._has_synced_wal(connection)

    def _has_room(self, connection: apsw.Connection) -> bool:
        """Whether a checkpoint fits. On a full disk one that does not would eat the room of the deletes, and fail."""
        if self._space is None or not self._space.full:
            return True
        (pages,) = one_row(connection, "PRAGMA page_count")
        growth_bytes = pages * self._page_bytes - os.stat(connection.filename).st_size
        return bool(growth_bytes <= 0 or growth_bytes + NO_ROOM_BYTES <= self._space.free_bytes())

    def give_room_back(self) -> bool:
        """On a full disk return free pages to it, a step at a time; True when there are more."""
        try:
            connection = self.connected()
            pages = int(one_row(connection, "PRAGMA freelist_count")[0])
            if pages:
                connection.execute(f"PRAGMA incremental_vacuum({SHRINK_PAGES:d})").fetchall()
        except (apsw.FullError, ShardDamaged):
            return False  # a checkpoint has to come first
        except apsw.Error as error:
            _log.error("%s: giving room back failed: %s", self._name, type(error).__name__)
            return False
        return pages > SHRINK_PAGES

    def connected(self) -> apsw.Connection:
        """The connection; a new one is checked first: a known schema, and no commit missing.

        Raises:
            apsw.Error: the file cannot be opened or read.
            ShardDamaged: the file lost commits that were durable.
        """
        if self.damage is not None:
            raise copy.copy(self.damage)
        if self._connection is None:
            connection = self._open_connection()
            try:
                self._check(connection)
            except (apsw.Error, OSError, ShardDamaged) as error:
                close_untouched(connection)
                if isinstance(error, OSError):
                    raise apsw.CantOpenError("the file vanished") from error
                raise
            self._connection = connection
        return self._connection

    def _check(self, connection: apsw.Connection) -> None:
        if schema_version(connection) < 1:
            raise apsw.CorruptError("the schema is gone")
        (self._commits,) = one_row(connection, "SELECT commits FROM commit_counter")
        if self._counter is not None and self._commits < self._counter.commits:
            self.damage = behind_its_counter(self._name, found=self._commits, wanted=self._counter.commits)
            raise self.damage
        (self._page_bytes,) = one_row(connection, "PRAGMA page_size")
        connection.set_wal_hook(self._note_wal)
        names = [name for name in (connection.filename, connection.filename_wal) if Path(name).exists()]
        self._opened_files = _identities(names)

    def _note_wal(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        self.wal_bytes = pages * self._page_bytes
        return apsw.SQLITE_OK

    def discard_connection(self) -> None:
        """Drop a handle that failed; it may not write any more, not even while it closes."""
        connection, self._connection = self._connection, None
        if connection is not None:
            close_untouched(connection)

    def close(self) -> None:
        """Empty the WAL and close the file."""
        self.checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE, busy_timeout_ms=BUSY_TIMEOUT_MS)
        if self._connection is not None:
            close(self._connection)
            self._connection = None
        if self._counter is not None:
            self._counter.close()


def _identities(names: Sequence[str] | dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Device and inode behind each name; (0, 0) where there is no file."""
    found = {}
    for name in names:
        try:
            status = os.stat(name)
            found[name] = (status.st_dev, status.st_ino)
        except OSError:
            found[name] = (0, 0)
    return found


def all_failed(tickets: Sequence[Ticket[Any]], error: MemoryRouterError) -> list[Outcome]:
    """The same failure for every job of a batch."""
    return [Outcome(None, error)] * len(tickets)
