"""Group commit: one thread that writes one database, and the queue in front of it.

Jobs of all vaults wait in one queue; the thread takes all that wait (up to a row cap) into one transaction
and one fsync, then tells Trio's thread once for the whole batch. Must never block Trio's thread, and never
wake a waiter from its own.

Why a thread of our own: a queue and `run_sync_soon` carry about six times as many operations a second as one
worker thread a call.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

import apsw
import trio

from actors.store.ballast import DiskSpace
from actors.store.tickets import Chore, Outcome, Ticket
from actors.store.transactions import TransactionWriter
from actors.store.writer import all_failed
from models.distributions import STEP_SECONDS, Distribution
from models.errors import NotOwner, Overloaded, ShardDamaged, ShuttingDown, StoreUnavailable, TooLarge
from models.store_settings import StoreSettings

T = TypeVar("T")

AWAITED_JOBS_MAX = 64
"""Jobs of `Committer.run` that may be under way; more wait their turn outside the queue."""
WALS_IN_A_BALLAST = 4
"""A WAL is copied before it outgrows this part of the ballast: on a full disk the copy needs as much room again."""
IDLE_S = 1.0
"""Quiet time after which the WAL is emptied, and the pause before owed work is tried again."""
CLOSE_TIMEOUT_S = 30.0
"""How long closing waits for the thread to commit what is queued, in real time whatever Trio's clock is."""

_log = logging.getLogger(__name__)


class IdleWork(Protocol):
    """Work that needs no transaction and is done between group commits, in the committer's thread.

    Attributes:
        due_s: when the next slice is due, on the monotonic clock.
    """

    due_s: float

    def do_slice(self) -> None:
        """Do a few milliseconds of it, and set `due_s`."""

    def statistics(self) -> dict[str, Any]:
        """Counters since the start. Called in Trio's thread."""

    def close(self) -> None:
        """Give up what it holds."""


class Committer:
    """The writer of one file as Trio's thread sees it."""

    __slots__ = (
        "_bytes_waiting",
        "_chores",
        "_chores_due_s",
        "_closing",
        "_commit_seconds",
        "_counters",
        "_idle_work",
        "_name",
        "_queue",
        "_room_to_give",
        "_rows_waiting",
        "_settings",
        "_space",
        "_stopping",
        "_thread",
        "_token",
        "_turns",
        "_wait_seconds",
        "_wal_bytes_max",
        "_writer",
    )

    def __init__(
        self,
        name: str,
        writer: TransactionWriter,
        *,
        settings: StoreSettings,
        space: DiskSpace | None = None,
        idle_work: IdleWork | None = None,
    ) -> None:
        self._name = name
        self._writer = writer
        self._settings = settings
        self._wal_bytes_max = settings.checkpoint_wal_bytes
        if settings.ballast_bytes:
            self._wal_bytes_max = min(self._wal_bytes_max, settings.ballast_bytes // WALS_IN_A_BALLAST)
        self._space = space
        self._idle_work = idle_work
        self._token = trio.lowlevel.current_trio_token()
        self._queue: SimpleQueue[Ticket[Any] | Chore | None] = SimpleQueue()
        self._turns = trio.CapacityLimiter(AWAITED_JOBS_MAX)
        self._thread = threading.Thread(target=self._run, name=f"committer {name}", daemon=True)
        # Trio's thread only:
        self._closing = False
        self._rows_waiting = 0
        self._bytes_waiting = 0
        self._counters = {"rows": 0, "bytes": 0, "commits": 0, "batches": 0, "failures": 0}
        self._commit_seconds = Distribution(STEP_SECONDS)
        self._wait_seconds = Distribution(STEP_SECONDS)
        # The committer's thread only:
        self._chores: deque[Chore] = deque()
        self._chores_due_s = 0.0
        self._stopping = False
        self._room_to_give = False

    @property
    def damage(self) -> ShardDamaged | None:
        """Why the file must not be served, once that is known. Any thread may ask."""
        return self._writer.damage

    @property
    def truncate_owed(self) -> bool:
        """Whether the WAL still holds what was erased. Any thread may ask."""
        return self._writer.truncate_owed

    def submit_nowait(self, ticket: Ticket[T]) -> Ticket[T]:
        """Queue a job within the limits of the queue.

        Raises:
            Overloaded: the queue is full; nothing was queued.
            TooLarge: the job is over the limits by itself, so that a retry is pointless.
            ShuttingDown: the committer is closing.
        """
        rows_max, bytes_max = self._settings.queue_rows_max, self._settings.queue_bytes_max
        if ticket.rows > rows_max or ticket.size_bytes > bytes_max:
            raise TooLarge(f"One call may store at most {rows_max} exchanges of {bytes_max} bytes together.")
        if self._rows_waiting + ticket.rows > rows_max or self._bytes_waiting + ticket.size_bytes > bytes_max:
            raise Overloaded("Too much is waiting to be stored.", hint="Retry shortly.")
        self.put_nowait(ticket)
        ticket.limited = True
        self._rows_waiting += ticket.rows
        self._bytes_waiting += ticket.size_bytes
        return ticket

    def put_nowait(self, ticket: Ticket[T]) -> Ticket[T]:
        """Queue a job of the store itself, which the limits must not refuse.

        Raises:
            ShuttingDown: the committer is closing.
        """
        if self._closing:
            raise ShuttingDown("The store is closing.")
        ticket.queued_s = time.perf_counter()
        self._queue.put(ticket)
        return ticket

    async def run(self, ticket: Ticket[T]) -> T:
        """Queue a job, wait for its result and raise as `Ticket.wait` does; `AWAITED_JOBS_MAX` at a time."""
        async with self._turns:
            return await self.put_nowait(ticket).wait()

    def add_chore_nowait(self, chore: Chore) -> None:
        """Do background work between group commits. Closing the committer abandons what is unfinished."""
        if not self._closing:
            self._queue.put(chore)

    def truncate_wal(self) -> None:
        """Empty the WAL. For `Ticket.after_commit`, in the committer's thread: before anyone is told."""
        self._writer.truncate_or_owe()

    def try_to_empty_wal(self) -> None:
        """Empty the WAL, as above, unless somebody reads it; then that is tried again, but nobody waits for it."""
        if self._writer.wal_bytes or self._writer.truncate_owed:
            self._writer.truncate_owed = True
            self._writer.checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def statistics(self) -> dict[str, Any]:
        """Counters and times since the start, what waits now, and whether the WAL still holds what was erased."""
        return {
            "queue_rows": self._rows_waiting,
            "queue_bytes": self._bytes_waiting,
            **self._counters,
            "commit_seconds": self._commit_seconds,
            "wait_seconds": self._wait_seconds,
            "wal_bytes": self._writer.wal_bytes,
            "truncate_owed": self._writer.truncate_owed,
            "damaged": self._writer.damage is not None,
            **(self._idle_work.statistics() if self._idle_work else {}),
        }

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def refuse_new_jobs(self) -> None:
        """From now on jobs raise `ShuttingDown`."""
        self._closing = True

    def end_nowait(self) -> None:
        """Refuse new jobs, and let the thread end after what is queued."""
        self._closing = True
        self._queue.put(None)

    async def wait_ended(self) -> None:
        """Wait until the thread has ended, at most `CLOSE_TIMEOUT_S`; cancellation does not cut it short."""
        with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):  # the join has the same limit in real time
            await trio.to_thread.run_sync(self._thread.join, CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            _log.error("%s: still committing after %.0f s; left behind", self._name, CLOSE_TIMEOUT_S)

    def _deliver(self, tickets: list[Ticket[Any]], outcomes: list[Outcome], began_s: float, took_s: float) -> None:
        """Settle a whole batch. Nothing may escape: an exception here would end the Trio run."""
        self._counters["batches"] += 1
        self._commit_seconds.observe(took_s)
        for ticket, outcome in zip(tickets, outcomes, strict=True):
            if ticket.queued_s:
                self._wait_seconds.observe(began_s - ticket.queued_s)
            if ticket.limited:
                self._rows_waiting -= ticket.rows
                self._bytes_waiting -= ticket.size_bytes
            ticket.settle(outcome)
            if outcome.error is not None:
                self._counters["failures"] += 1
                if ticket.on_failed is not None:
                    _guarded(self._name, ticket.on_failed)
                continue
            self._counters["commits"] += 1
            self._counters["rows"] += ticket.rows
            self._counters["bytes"] += ticket.size_bytes
            if ticket.on_durable is not None:
                _guarded(self._name, ticket.on_durable, outcome.result)

    # From here on: the committer's thread.

    def _run(self) -> None:
        while not self._stopping:
            tickets = self._gather()
            for group in self._writer.groups(tickets):
                self._commit(group)
            if self._writer.wal_bytes >= self._wal_bytes_max:
                self._writer.checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)
            if self._chores and time.monotonic() >= self._chores_due_s:
                self._do_chore()
            elif not tickets or self._writer.truncate_owed:
                self._empty_wal()
            if self._space is not None and self._space.full:
                self._give_room_back(self._space)
            if self._idle_work is not None and time.monotonic() >= self._idle_work.due_s:
                self._idle_work.do_slice()
        if self._idle_work is not None:
            self._idle_work.close()
        self._writer.close()

    def _empty_wal(self) -> None:
        if self._writer.wal_bytes or self._writer.truncate_owed:
            self._writer.checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def _give_room_back(self, space: DiskSpace) -> None:
        """Return what was deleted to a full disk, a step at a time, until that is enough."""
        self._room_to_give = self._writer.damage is None and self._writer.give_room_back()
        self._empty_wal()
        self._room_to_give &= space.refuses_growth()

    def _gather(self) -> list[Ticket[Any]]:
        """All that waits, up to the row cap. Blocks while nothing is to do; empty after a quiet `IDLE_S`."""
        tickets: list[Ticket[Any]] = []
        rows = 0
        try:
            item = self._queue.get(timeout=self._patience_s())
            while item is not None:
                if isinstance(item, Chore):
                    self._chores.append(item)
                else:
                    tickets.append(item)
                    rows += max(1, item.rows)
                if rows >= self._settings.batch_rows_max:
                    return tickets
                item = self._queue.get_nowait()
            self._stopping = True  # None is the last item there is
        except Empty:
            pass
        return tickets

    def _patience_s(self) -> float | None:
        """How long to wait for jobs before there is something else to do; None is for ever."""
        if self._chores:
            return max(0.0, self._chores_due_s - time.monotonic())
        if self._room_to_give:
            return 0.0
        restless = (
            self._writer.wal_bytes or self._writer.truncate_owed or (self._space is not None and self._space.full)
        )
        patience_s = IDLE_S if restless else None
        if self._idle_work is None:
            return patience_s
        until_due_s = max(0.0, self._idle_work.due_s - time.monotonic())
        return until_due_s if patience_s is None else min(patience_s, until_due_s)

    def _commit(self, tickets: list[Ticket[Any]]) -> list[Outcome]:
        started_s = time.perf_counter()
        try:
            outcomes = self._writer.commit(tickets)
        except Exception as error:  # the edge: whatever it was, the thread lives and every waiter is told
            _log.error("%s: a batch failed: %s", self._name, type(error).__name__)
            self._writer.discard_connection()
            outcomes = all_failed(tickets, StoreUnavailable("The store cannot commit right now."))
        for ticket, outcome in zip(tickets, outcomes, strict=True):
            if ticket.after_commit is not None and outcome.error is None:
                _guarded(self._name, ticket.after_commit, outcome.result)
        took_s = time.perf_counter() - started_s
        try:
            self._token.run_sync_soon(self._deliver, tickets, outcomes, started_s, took_s)
        except trio.RunFinishedError:
            _log.warning("%s: nobody is left to hear of a batch of %d jobs", self._name, len(tickets))
        return outcomes

    def _do_chore(self) -> None:
        """One slice, in a transaction of its own, so that its failure is nobody else's."""
        chore = self._chores[0]
        ticket = Ticket(chore.slice, rows=0, part=chore.part)
        ticket.on_durable = lambda finished: chore.on_finished() if finished else None
        (outcome,) = self._commit([ticket])
        if isinstance(outcome.error, NotOwner):
            self._chores.popleft()  # the new owner does it
        elif outcome.error is not None:
            _log.error("%s: %s failed, will be tried again: %s", self._name, chore.name, outcome.error.code)
            self._chores_due_s = time.monotonic() + IDLE_S
        elif outcome.result:
            self._chores.popleft()


def _guarded(name: str, callback: Callable[..., object], *result: Any) -> None:
    """Call a callback whose failure must not reach its neighbours."""
    try:
        callback(*result)
    except Exception as error:  # the edge: what is durable stays so whatever the callback does
        _log.error("%s: a callback failed: %s", name, type(error).__name__)


@asynccontextmanager
async def running(committer: Committer) -> AsyncIterator[Committer]:
    """A committer while its thread runs. Leaving commits what is queued."""
    committer.start()
    try:
        yield committer
    finally:
        committer.end_nowait()
        await committer.wait_ended()
