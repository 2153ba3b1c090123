"""What this node writes into `part`, and about itself into `node`: taking, giving up, leaving.

Each is one statement and one transaction of one partition, decided by the database alone: what this node has read
before is only a reason to try. They run on a thread and a connection of their own, with a short limit on waiting for
locks: a frozen node may hold one, and the lease must not wait for it. Must never renew the lease.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import trio

from actors.store.database import DATABASE_ERRORS, ConnectionFailed
from actors.store.postgres.connection import PostgresConnection
from models.errors import MemoryRouterError, StoreUnavailable

LOCK_TIMEOUT_MS = 300
JOIN_TIMEOUT_S = 5.0
"""How long stopping waits for the thread; what it does is harmless by then."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


class _Request(Generic[T]):
    """One statement that waits for its turn, and then for its answer to be picked up."""

    __slots__ = ("answered", "error", "result", "work")

    def __init__(self, work: Callable[[PostgresConnection], T]) -> None:
        self.work = work
        self.answered = trio.Event()
        self.result: T | None = None
        self.error: StoreUnavailable | None = None


class Claims:
    """The statements of one node. Its methods run in Trio's thread and raise StoreUnavailable if nothing is certain."""

    def __init__(self, node_id: str, *, connect: Callable[[], PostgresConnection], clock: Callable[[], float]) -> None:
        self._node_id = node_id
        self._connect = connect
        self._clock = clock
        self._token = trio.lowlevel.current_trio_token()
        self._queue: SimpleQueue[_Request[Any] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"claims {node_id}", daemon=True)
        self._connection: PostgresConnection | None = None
        self._ended = False
        self._abandoned = False
        self.working_since_s: float | None = None

    async def take(self, part: int, *, epoch: int, incarnation: int) -> int | None:
        """Become the owner of a partition whose epoch is this one, if it has no living owner; the new epoch, or None.

        A partition that is this incarnation's own may be taken, too: then an answer was lost.
        """
        return await self._ask(lambda connection: _take(connection, part, self._node_id, incarnation, epoch))

    async def give_up(self, part: int, *, epoch: int, incarnation: int) -> None:
        """Own a partition no longer. Nothing may be under way for it in this node."""
        bindings = (part, self._node_id, incarnation, epoch)
        await self._ask(lambda connection: connection.execute(_GIVE_UP, bindings))

    async def announce_leaving(self, incarnation: int) -> None:
        """Let the others' placement go without this node."""
        await self._ask(lambda connection: connection.execute(_LEAVE, (self._node_id, incarnation)))

    async def remove(self, incarnation: int) -> None:
        """Be no member any more. Nobody may renew the lease from now on."""
        await self._ask(lambda connection: connection.execute(_REMOVE, (self._node_id, incarnation)))

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop_nowait(self) -> None:
        """End the thread after what is queued."""
        self._ended = True
        self._queue.put(None)

    def abandon_nowait(self) -> None:
        """End the thread without what is queued: whoever waits for it is told that nothing is certain."""
        self._abandoned = True
        self.stop_nowait()

    def wait_stopped(self) -> None:
        """Wait for the thread's end, or `JOIN_TIMEOUT_S`. Blocks."""
        if self._thread.ident is not None:
            self._thread.join(JOIN_TIMEOUT_S)

    def interrupt(self) -> None:
        """Break the connection of a statement that hangs. Any thread."""
        connection = self._connection
        if connection is not None:
            connection.interrupt()

    async def _ask(self, work: Callable[[PostgresConnection], T]) -> T:
        if self._ended:
            raise StoreUnavailable("The node has left the cluster.")
        request = _Request(work)
        self._queue.put(request)
        await request.answered.wait()
        if request.error is not None:
            raise request.error
        return request.result  # type: ignore[return-value]  # without an error it is what `work` returned

    # From here on: the thread.

    def _run(self) -> None:
        while (request := self._queue.get()) is not None:
            self.working_since_s = self._clock()
            self._answer(request)
            self.working_since_s = None
            try:
                self._token.run_sync_soon(request.answered.set)
            except trio.RunFinishedError:
                break
        self._disconnect()

    def _answer(self, request: _Request[Any]) -> None:
        if self._abandoned:
            request.error = StoreUnavailable("The node has left the cluster.")
            return
        try:
            request.result = self._done(request.work)
        except (*DATABASE_ERRORS, MemoryRouterError) as error:
            _log.info("%s: a claim failed: %s", self._node_id, error)
            request.error = StoreUnavailable("The cluster's database does not answer.")
        except Exception as error:  # the edge: the thread goes on, and whoever asked is told
            _log.error("%s: a claim failed: %s", self._node_id, type(error).__name__)
            request.error = StoreUnavailable("The cluster's database does not answer.")
            self._disconnect()

    def _done(self, work: Callable[[PostgresConnection], T]) -> T:
        """Its result; tried again if a connection that was kept turns out to be broken.

        The first attempt may have been committed: then the second finds nothing to do, since epochs go on.
        """
        was_kept = self._connection is not None
        try:
            return work(self._connected())
        except ConnectionFailed:
            if not was_kept or self._connection is None or not self._connection.closed:
                raise
        return work(self._connected())

    def _connected(self) -> PostgresConnection:
        if self._connection is not None and self._connection.closed:
            self._disconnect()
        if self._connection is None:
            self._connection = self._connect()
            self._connection.execute(f"SET lock_timeout = {LOCK_TIMEOUT_MS}")
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _take(connection: PostgresConnection, part: int, node_id: str, incarnation: int, epoch: int) -> int | None:
    rows = connection.execute(_TAKE, (part, node_id, incarnation, epoch)).fetchall()
    return int(rows[0][0]) if rows else None


# Leases are judged by the time at which the statement began, which is before the moment that its snapshot shows: a
# lease that is over by both was renewed by nobody in time, however long the statement waited for the row. With
# clock_timestamp() an old version of the row could be held against a later clock.
_TAKE = """
UPDATE part SET owner = ?2, incarnation = ?3, epoch = epoch + 1
WHERE part = ?1 AND epoch = ?4
  AND (
    owner IS NULL OR (owner = ?2 AND incarnation = ?3) OR NOT EXISTS (
      SELECT 1 FROM node
      WHERE node.node_id = part.owner AND node.incarnation = part.incarnation
        AND node.expires_at > statement_timestamp()
    )
  )
  AND EXISTS (
    SELECT 1 FROM node
    WHERE node.node_id = ?2 AND node.incarnation = ?3 AND node.expires_at > statement_timestamp()
  )
RETURNING epoch
"""
_GIVE_UP = "UPDATE part SET owner = NULL WHERE part = ?1 AND owner = ?2 AND incarnation = ?3 AND epoch = ?4"
_LEAVE = "UPDATE node SET leaving = true WHERE node_id = ? AND incarnation = ?"
_REMOVE = "DELETE FROM node WHERE node_id = ? AND incarnation = ?"
