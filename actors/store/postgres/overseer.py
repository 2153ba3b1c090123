"""A thread that breaks connections on which nothing comes back: a server, or a line, may be silent and stay open.

TCP notices a machine that is gone; it does not notice a server that was stopped in the middle of something, nor a
standby that never confirms. Whoever waits there hears `ConnectionFailed`. Owns no connection: each is watched from
when it is opened until it is closed. Must never tell the server: a COMMIT that waits for its standby would be cut short
there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from actors.store.postgres.connection import PostgresConnection

POLL_S = 0.5
STOP_TIMEOUT_S = 15.0

_log = logging.getLogger(__name__)


class Overseer:
    """Watches the connections that are opened through it.

    Attributes:
        interrupted: how many it has broken since the start.
    """

    __slots__ = ("_lock", "_stop", "_thread", "_watched", "interrupted")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: set[PostgresConnection] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="connection overseer", daemon=True)
        self.interrupted = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def watching(
        self, open_connection: Callable[[], PostgresConnection], *, patience_s: float
    ) -> Callable[[], PostgresConnection]:
        """Opens connections as the given function does, and has them watched.

        Args:
            patience_s: how long a statement may take, or the next of its rows, unless the connection's user changes it.
        """

        def opened() -> PostgresConnection:
            connection = open_connection()
            connection.patience_s = patience_s
            with self._lock:
                self._watched.add(connection)
            return connection

        return opened

    async def stop(self) -> None:
        """End the thread, and wait for it. What is open is not watched any longer."""
        self._stop.set()
        with trio.move_on_after(STOP_TIMEOUT_S, shield=True):  # the join has the same limit in real time
            await trio.to_thread.run_sync(self._thread.join, STOP_TIMEOUT_S)

    def _run(self) -> None:
        while not self._stop.wait(POLL_S):
            self._look(time.monotonic())

    def _look(self, now_s: float) -> None:
        with self._lock:
            self._watched = {connection for connection in self._watched if not connection.closed}
            watched = list(self._watched)
        for connection in watched:
            since_s = connection.waits_since_s
            if since_s is not None and now_s - since_s > connection.patience_s and not connection.interrupted:
                _log.warning("PostgreSQL has not answered for %.0f s; the connection is given up", now_s - since_s)
                connection.interrupt()
                self.interrupted += 1


@asynccontextmanager
async def open_overseer() -> AsyncIterator[Overseer]:
    """One that watches for the length of the block."""
    overseer = Overseer()
    overseer.start()
    try:
        yield overseer
    finally:
        await overseer.stop()
