"""The writing connection of some partitions, or of the directory: fenced transactions, and what a lost one came to.

Lives in one committer thread and knows nothing of Trio. A COMMIT that got no answer is in doubt: the transaction is
settled on a new connection, behind the same fence, before anyone is told anything, and if it had happened, a write of
its own follows it first: its synchronous commit covers the earlier one, whose wait for the standby may have been cut
short. A statement that gets no answer is given up after a while, as if the connection had been lost: who waits is told,
and the queue goes on. Must never acknowledge what is not committed, nor commit behind another owner's back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from actors.store.database import ConnectionFailed, DatabaseFull, StatementFailed, all_rows
from actors.store.postgres.connection import PostgresConnection
from actors.store.postgres.fences import Fence
from actors.store.postgres.inserts import PostgresBatch
from actors.store.tickets import Outcome, Ticket
from actors.store.writer import all_failed
from models.errors import MemoryRouterError, NotOwner, ShardDamaged, StorageFull, StoreUnavailable

DOUBT_S = 20.0
"""How long a transaction in doubt is held back, to find out what became of it, before its waiters are told that nobody
knows: a restart of PostgreSQL takes seconds."""
PAUSE_S = 0.1
"""Between two attempts to find out."""
PATIENCE_S = 10.0
"""How long a statement, a COMMIT among them, may get no answer. Twice as long each time, until one succeeds: the server
may still wait for a standby on behalf of those that were given up."""
PATIENCE_S_MAX = 60.0
PATIENCE_IN_DOUBT_S_MIN = 1.0
PATIENCE_OF_VACUUM_S = 300.0
LOCK_TIMEOUT_S = 8.0
"""How long the server lets a writer wait for a lock: shorter than `PATIENCE_S`, so that nothing is left there of one
that was given up. Locks are held for a moment, unless somebody's COMMIT waits for a standby."""
VACUUM_INTERVAL_S = 1.0
"""Least time between two clean-ups of a writer that never rests."""

_NOTHING, _MUCH = 0, 1 << 40

_log = logging.getLogger(__name__)


class JobFailed(Exception):
    """A job failed by itself: the transaction begins again, each job in a savepoint of its own."""


class Attempt:
    """A transaction whose COMMIT was sent.

    Attributes:
        number: of its commit.
        outcomes: what its waiters get if it happened.
        happened: whether that is known.
    """

    __slots__ = ("happened", "number", "outcomes")

    def __init__(self, number: int, outcomes: list[Outcome], *, happened: bool = False) -> None:
        self.number = number
        self.outcomes = outcomes
        self.happened = happened


class PostgresWriter:
    """Implements `actors.store.transactions.TransactionWriter`. All methods block; one thread only.

    Attributes:
        damage: always None: PostgreSQL itself refuses what it finds damaged.
        truncate_owed: always False: the write-ahead log is the server's.
        wal_bytes: more than nothing while tables with overwritten keys wait for their VACUUM.
    """

    __slots__ = (
        "_attempt",
        "_connection",
        "_fence",
        "_in_doubt_since_s",
        "_name",
        "_open_connection",
        "_patience_s",
        "_vacuumed",
        "_vacuumed_s",
        "damage",
        "truncate_owed",
        "wal_bytes",
    )

    def __init__(
        self,
        name: str,
        open_connection: Callable[[], PostgresConnection],
        fence: Fence,
        *,
        vacuumed: Sequence[str] = (),
    ) -> None:
        self._name = name
        self._open_connection = open_connection
        self._fence = fence
        self._vacuumed = tuple(vacuumed)
        self._vacuumed_s = 0.0
        self._connection: PostgresConnection | None = None
        self._patience_s = PATIENCE_S
        self._in_doubt_since_s: float | None = None
        self._attempt: Attempt | None = None
        self.damage: ShardDamaged | None = None
        self.truncate_owed = False
        self.wal_bytes = _NOTHING

    def groups(self, tickets: list[Ticket[Any]]) -> list[list[Ticket[Any]]]:
        """The jobs of each partition: one transaction never touches two."""
        by_part: dict[int, list[Ticket[Any]]] = {}
        for ticket in tickets:
            by_part.setdefault(ticket.part, []).append(ticket)
        return list(by_part.values())

    def commit(self, tickets: Sequence[Ticket[Any]]) -> list[Outcome]:
        """Run all jobs of one partition in one transaction; each outcome is durable or had no effect.

        A transaction that fails with its connection is tried once more on a fresh one; one in doubt for `DOUBT_S`.
        """
        self._attempt = self._in_doubt_since_s = None
        for attempts in range(1, 1 << 30):
            try:
                return self._transact(tickets)
            except (NotOwner, StoreUnavailable) as error:  # by the fence
                self._roll_back()
                return all_failed(tickets, error if self._attempt is None else _unknown())
            except DatabaseFull:
                _log.error("%s: the disk of PostgreSQL is full", self._name)
                self.discard_connection()
                if self._attempt is None:
                    return all_failed(tickets, StorageFull("The disk is full; nothing was stored."))
            except ConnectionFailed as error:
                _log.warning("%s: a transaction failed: %s; connecting again", self._name, error)
                self.discard_connection()
            if self._attempt is None:
                if attempts > 1:
                    break
            elif self._in_doubt_since_s is None:
                self._in_doubt_since_s = time.monotonic()
            elif self._doubt_remaining_s() <= 0:
                _log.critical("%s: a commit got no answer, and cannot be looked up", self._name)
                return all_failed(tickets, _unknown())
            elif attempts > 1:
                time.sleep(PAUSE_S)
        return all_failed(tickets, StoreUnavailable("The store cannot commit right now."))

    def _transact(self, tickets: Sequence[Ticket[Any]]) -> list[Outcome]:
        """One transaction for all jobs, or, if one fails by itself, another one with savepoints.

        Raises:
            ConnectionFailed: it is not committed, or `_attempt` says that nobody knows.
            NotOwner: nothing is committed.
        """
        self.connected().patience_s = min(self._patience_s, max(PATIENCE_IN_DOUBT_S_MIN, self._doubt_remaining_s()))
        try:
            return self._attempt_transaction(tickets, self._run_at_once)
        except JobFailed:
            self._roll_back()
        return self._attempt_transaction(tickets, self._run_each)

    def _doubt_remaining_s(self) -> float:
        """How much longer a transaction in doubt is held back."""
        if self._in_doubt_since_s is None:
            return float("inf")
        return self._in_doubt_since_s + DOUBT_S - time.monotonic()

    def _attempt_transaction(
        self, tickets: Sequence[Ticket[Any]], run: Callable[[Sequence[Ticket[Any]], PostgresBatch], list[Outcome]]
    ) -> list[Outcome]:
        connection = self.connected()
        doubtful = self._attempt
        connection.execute("BEGIN")
        if doubtful is not None and doubtful.happened:
            number = self._fence.enter(connection, tickets[0].part).number
            outcomes = doubtful.outcomes
        else:
            entered = self._fence.enter(
                connection, tickets[0].part, doubtful=None if doubtful is None else doubtful.number
            )
            number = entered.number
            if doubtful is not None and entered.doubtful_happened:
                doubtful.happened = True
                outcomes = doubtful.outcomes
            else:
                self._attempt = None
                outcomes = run(tickets, PostgresBatch(connection, number))
                if all(outcome.error is not None for outcome in outcomes):
                    connection.execute("ROLLBACK")
                    return outcomes
                self._attempt = Attempt(number, outcomes)
        connection.commit()
        self._attempt = None
        self._patience_s = PATIENCE_S
        return outcomes

    def _run_at_once(self, tickets: Sequence[Ticket[Any]], batch: PostgresBatch) -> list[Outcome]:
        """All jobs one after the other, without savepoints.

        Raises:
            JobFailed: one failed, and it is not the only one.
        """
        outcomes: list[Outcome] = []
        for ticket in tickets:
            try:
                outcomes.append(Outcome(ticket.work(batch), None))
            except ConnectionFailed:
                raise
            except Exception as error:  # the edge: a job's own failure is its waiter's, not its neighbours'
                if len(tickets) > 1:
                    raise JobFailed from error
                return [self._failed(error)]
        try:
            batch.flush()
        except ConnectionFailed:
            raise
        except StatementFailed as error:
            raise JobFailed from error
        return outcomes

    def _run_each(self, tickets: Sequence[Ticket[Any]], batch: PostgresBatch) -> list[Outcome]:
        """Each job in a savepoint of its own."""
        connection = batch.connection
        outcomes: list[Outcome] = []
        for ticket in tickets:
            connection.execute("SAVEPOINT job")
            try:
                outcome = Outcome(ticket.work(batch), None)
                batch.flush()
                outcomes.append(outcome)
            except ConnectionFailed:
                raise
            except Exception as error:  # the edge: as above
                batch.discard()
                connection.execute("ROLLBACK TO job")
                outcomes.append(self._failed(error))
            connection.execute("RELEASE job")
        return outcomes

    def _failed(self, error: Exception) -> Outcome:
        if isinstance(error, MemoryRouterError):
            return Outcome(None, error)
        _log.error("%s: a job failed: %s %s", self._name, type(error).__name__, _code(error))
        return Outcome(None, StoreUnavailable("The store could not do this."))

    def _roll_back(self) -> None:
        if self._connection is not None and self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except StatementFailed:
                self.discard_connection()

    def connected(self) -> PostgresConnection:
        """The connection, opened when first needed.

        Raises:
            ConnectionFailed: there is none.
        """
        if self._connection is None:
            connection = self._open_connection()
            try:
                connection.execute(f"SET lock_timeout = {LOCK_TIMEOUT_S * 1000:.0f}")
                if all_rows(connection, "SHOW synchronous_commit") == [("off",)]:  # it would answer before the disk
                    connection.execute("SET synchronous_commit = on")
            except StatementFailed:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def truncate_or_owe(self) -> None:
        """Keys were overwritten: clear their old versions away in the next quiet moment."""
        rested = time.monotonic() - self._vacuumed_s > VACUUM_INTERVAL_S
        self.wal_bytes = _MUCH if rested else max(1, self.wal_bytes)

    def checkpoint(self, mode: int, *, busy_timeout_ms: int = 0) -> None:
        """VACUUM the tables whose old row versions hold wrapped keys. A failure is tried again."""
        if self.wal_bytes == _NOTHING:
            return
        try:
            self.connected().patience_s = PATIENCE_OF_VACUUM_S
            for table in self._vacuumed:
                self.connected().execute(f"VACUUM {table}")
        except StatementFailed as error:
            _log.warning("%s: clearing away what was erased failed: %s", self._name, error)
            self.discard_connection()
            self.wal_bytes = 1  # tried again after a rest
            return
        self._vacuumed_s = time.monotonic()
        self.wal_bytes = _NOTHING

    def give_room_back(self) -> bool:
        """The server's disk is its own business."""
        return False

    def discard_connection(self) -> None:
        """Drop a connection that failed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            if connection.interrupted:
                self._patience_s = min(2 * self._patience_s, PATIENCE_S_MAX)

    def close(self) -> None:
        """Close the connection."""
        with suppress(StatementFailed):
            self.checkpoint(0)
        self.discard_connection()


def _unknown() -> StoreUnavailable:
    return StoreUnavailable(
        "PostgreSQL did not confirm this, so it may or may not be stored.", hint="Look before you send it again."
    )


def _code(error: Exception) -> str:
    return str(error) if isinstance(error, StatementFailed) else ""
