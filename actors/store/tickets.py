"""What travels between Trio's thread and a committer thread: jobs, their transaction, their outcomes.

Owns no thread. A `Ticket` is settled in Trio's thread only, so its waiters need no lock.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import trio

from models.errors import MemoryRouterError

T = TypeVar("T")

PLACE_BITS = 20  # QUEUE_ROWS_LIMIT of models.store_settings is 2 ** 20


class Batch:
    """The transaction that a job runs in. Lives in the committer's thread, as long as the transaction.

    Attributes:
        connection: the engine's own, with at least the methods of `actors.store.database.Connection`.
        number: of the commit, which grows within the file or the partition.
    """

    __slots__ = ("_rows", "connection", "number")

    def __init__(self, connection: Any, number: int) -> None:
        self.connection = connection
        self.number = number
        self._rows = 0

    def next_row_id(self) -> int:
        """An id that grows in commit order within the file or partition and is never used twice."""
        place = self._rows
        assert place < 1 << PLACE_BITS, "one commit holds at most 2 ** 20 new rows"
        self._rows += 1
        return self.number << PLACE_BITS | place


class Outcome(NamedTuple):
    """How one job ended: its result, or the error that its waiters get."""

    result: Any
    error: MemoryRouterError | None


class Ticket(Generic[T]):
    """One job and its fate.

    Attributes:
        work: runs in the committer's thread within the transaction; it may run twice (after a failed commit),
            so its only effects are on the batch's connection.
        rows: how many rows it brings, for the limits of queue and batch.
        size_bytes: how many bytes it holds while it waits.
        grows: whether it stores something new; such jobs are refused while the disk is full, all others may use
            the ballast.
        after_commit: called in the committer's thread right after the commit, before anyone is told.
        on_durable: called in Trio's thread before any waiter runs; not called when the job failed.
        on_failed: called likewise, when the job failed.
        part: the partition that it writes into; jobs of different ones do not share a transaction on PostgreSQL.
        queued_s: when it was queued, by `time.perf_counter`; 0 for work that the thread finds by itself.
    """

    __slots__ = (
        "_done",
        "_error",
        "_result",
        "after_commit",
        "grows",
        "limited",
        "on_durable",
        "on_failed",
        "part",
        "queued_s",
        "rows",
        "size_bytes",
        "work",
    )

    def __init__(
        self,
        work: Callable[[Batch], T],
        *,
        rows: int = 1,
        size_bytes: int = 0,
        grows: bool = False,
        after_commit: Callable[[T], None] | None = None,
        on_durable: Callable[[T], None] | None = None,
        on_failed: Callable[[], None] | None = None,
        part: int = 0,
    ) -> None:
        self.work = work
        self.rows = rows
        self.size_bytes = size_bytes
        self.grows = grows
        self.after_commit = after_commit
        self.on_durable = on_durable
        self.on_failed = on_failed
        self.part = part
        self.limited = False
        self.queued_s = 0.0
        self._done = trio.Event()
        self._result: T | None = None
        self._error: MemoryRouterError | None = None

    @property
    def durable(self) -> bool:
        """Whether the job is committed and synced."""
        return self._done.is_set() and self._error is None

    def settle(self, outcome: Outcome) -> None:
        """Fix the fate and wake the waiters. Trio's thread only, once."""
        self._result, self._error = outcome
        self._done.set()

    async def wait(self) -> T:
        """The job's result once it is durable. Cancelling the wait does not cancel the job.

        Raises:
            StorageFull, StoreUnavailable: the commit failed; the job had no effect.
            MemoryRouterError: what `work` raised; the job had no effect.
        """
        await self._done.wait()
        if self._error is not None:
            raise copy.copy(self._error)  # each waiter gets its own: a shared one would collect their tracebacks
        return self._result  # type: ignore[return-value]  # T may include None, so it cannot be asserted

    async def wait_durable(self) -> None:
        """Return once the job is durable; raises as `wait` does."""
        await self.wait()


class Chore:
    """Background work that goes in slices, each a small transaction after one group commit.

    Attributes:
        name: for the log.
        slice: does one bounded step in the committer's thread; True when nothing is left to do.
        on_finished: called in Trio's thread after the last slice is durable.
        part: as of a `Ticket`.
    """

    __slots__ = ("name", "on_finished", "part", "slice")

    def __init__(
        self, name: str, slice_: Callable[[Batch], bool], on_finished: Callable[[], None], *, part: int = 0
    ) -> None:
        self.name = name
        self.slice = slice_
        self.on_finished = on_finished
        self.part = part
