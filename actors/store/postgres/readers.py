"""The threads that read from PostgreSQL, each with a connection of its own while it reads.

Each read is one transaction with one snapshot: all it sees is of one moment. A statement that gets no answer is given
up after `PATIENCE_S`, and the read begun again on a fresh connection, with more patience: that it could be opened shows
that the server is only slow. Must never hand one connection to two threads at a time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import trio

from actors.store.database import ConnectionFailed, StatementFailed
from actors.store.postgres.connection import PostgresConnection
from models.errors import StoreUnavailable

T = TypeVar("T")

PATIENCE_S = 5.0
"""How long a statement, or the next of its rows, is waited for at first."""
PATIENCE_OF_SLOW_READS_S = 60.0

_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

_log = logging.getLogger(__name__)


class PostgresReaders:
    """Reading connections, at most as many as the limiter lets threads run."""

    __slots__ = ("_closed", "_idle", "_limiter", "_lock", "_open_connection")

    def __init__(self, open_connection: Callable[[], PostgresConnection], limiter: trio.CapacityLimiter) -> None:
        self._open_connection = open_connection
        self._limiter = limiter
        self._lock = threading.Lock()
        self._idle: list[PostgresConnection] = []
        self._closed = False

    async def run(self, read: Callable[[Any], T]) -> T:
        """Run `read` with a connection in a reader thread, in one read transaction.

        A read whose connection fails is done once more on a fresh one, so `read` must not have effects. A server that
        takes no connections any more is given up after `PATIENCE_S` and the time to connect. A cancelled
        caller leaves at once; the thread finishes by itself and keeps its place in the limiter until then.

        Raises:
            StoreUnavailable: PostgreSQL cannot be read.
        """
        return await trio.to_thread.run_sync(partial(self._run, read), limiter=self._limiter, abandon_on_cancel=True)

    def _run(self, read: Callable[[Any], T]) -> T:
        try:
            try:
                return self._read(read, self._borrow(), PATIENCE_S)
            except ConnectionFailed as error:
                _log.warning("reading from PostgreSQL failed: %s; connecting again", error)
                self._close_idle()  # whatever happened to the server, they were opened before
                return self._read(read, self._open_connection(), PATIENCE_OF_SLOW_READS_S)
        except StatementFailed as error:
            _log.error("reading from PostgreSQL failed: %s", error)
            raise StoreUnavailable("The store cannot be read right now.") from error

    def _read(self, read: Callable[[Any], T], connection: PostgresConnection, patience_s: float) -> T:
        connection.patience_s = patience_s
        try:
            connection.execute(_BEGIN)
            try:
                answer = read(connection)
            finally:
                if connection.in_transaction:
                    connection.execute("COMMIT")
        except StatementFailed:
            connection.close()
            raise
        except BaseException:
            self._give_back(connection)
            raise
        self._give_back(connection)
        return answer

    def _borrow(self) -> PostgresConnection:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return self._open_connection()

    def _give_back(self, connection: PostgresConnection) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def _close_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def close(self) -> None:
        """Close what is idle now; what is lent closes when its thread is done. Blocks."""
        with self._lock:
            self._closed = True
        self._close_idle()
