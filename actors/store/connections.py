"""SQLite connections: how the writer and the readers of one file are opened, and the threads that read.

Owns the pragmas. Only the writer checkpoints. Must never hand one connection to two threads at a time, and
never use a SQLite below 3.51.3: earlier ones can corrupt a WAL that two connections checkpoint
(https://sqlite.org/wal.html).
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import apsw
import trio

from actors.store.database import SQLITE_FAILURES
from models.errors import StoreUnavailable

T = TypeVar("T")

BUSY_TIMEOUT_MS = 5000
BATCH_ROWS = 512
_WRITER_PRAGMAS = (  # in this order: page size and vacuum mode count only before the first table
    "page_size=4096",
    "auto_vacuum=INCREMENTAL",
    "journal_mode=WAL",
    "synchronous=FULL",
    "wal_autocheckpoint=0",
    "journal_size_limit=67108864",
    "secure_delete=ON",
    "foreign_keys=ON",
    "temp_store=MEMORY",
    "cache_size=-65536",
    "mmap_size=0",
    "trusted_schema=OFF",
    "cell_size_check=ON",
)
_MACOS_PRAGMAS = ("fullfsync=ON", "checkpoint_fullfsync=ON")  # there, fsync alone does not reach the platter
_READER_PRAGMAS = (
    "query_only=ON",
    "temp_store=MEMORY",
    "mmap_size=0",
    "trusted_schema=OFF",
    "cell_size_check=ON",
)

_log = logging.getLogger(__name__)


def open_writer(path: Path, *, may_create: bool = True) -> apsw.Connection:
    """The one writing connection of a file. Blocks.

    Args:
        path: the file.
        may_create: whether a missing file is made. A file that vanished under a running store must not be.
    """
    flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if may_create else 0)
    if may_create:
        # SQLite would let everybody read it, and gives its WAL the same rights. A file that is there is never opened
        # beside SQLite: closing it would end this process's locks on it. What cannot be made SQLite says in its way.
        with suppress(OSError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    connection = apsw.Connection(str(path), flags=flags)
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        for pragma in _WRITER_PRAGMAS + (_MACOS_PRAGMAS if sys.platform == "darwin" else ()):
            connection.execute(f"PRAGMA {pragma}").fetchall()
    except apsw.Error:
        close_untouched(connection)
        raise
    return connection


def close_untouched(connection: apsw.Connection) -> None:
    """Close a connection without the checkpoint that SQLite does for the last one: the file stays as it is."""
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    close(connection)


def close(connection: apsw.Connection) -> None:
    """Close a connection. What fails on the way, such as removing the WAL, costs nothing that the next start misses."""
    name = Path(connection.filename).name
    try:
        connection.close(True)
    except apsw.Error as error:
        _log.error("closing %s failed: %s", name, type(error).__name__)


def open_reader(path: Path) -> apsw.Connection:
    """A connection that can only read and leaves the WAL alone when it closes. Blocks."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    for pragma in _READER_PRAGMAS:
        connection.execute(f"PRAGMA {pragma}").fetchall()
    return connection


def batches(connection: apsw.Connection, statement: str, bindings: tuple[Any, ...] = ()) -> Iterator[list[Any]]:
    """Every row of a statement in lists of at most `BATCH_ROWS`, for what is too much to be held at once.

    10 000 sealed rows in one list take twice the time to open: they leave the cache meanwhile, and the garbage
    collector looks at them again and again.
    """
    cursor = connection.execute(statement, bindings)
    try:
        while rows := list(islice(cursor, BATCH_ROWS)):
            yield rows
    finally:
        cursor.close(True)  # also after an error: an open cursor keeps its connection's read transaction alive


@contextmanager
def writing(path: Path, *, may_create: bool = False) -> Iterator[apsw.Connection]:
    """The writing connection for a short job. Leaving copies the WAL into the file, an error leaves it alone.

    After a failed sync the same handle must not sync again, which SQLite would do while it closes the last connection.
    """
    connection = open_writer(path, may_create=may_create)
    try:
        yield connection
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    except BaseException:
        close_untouched(connection)
        raise
    close(connection)


class Readers:
    """Reading connections of one file, each lent to one worker thread at a time.

    The limiter is shared by all files of a store: it bounds the threads, and so the connections of each file.
    """

    __slots__ = ("_closed", "_idle", "_limiter", "_lock", "_path")

    def __init__(self, path: Path, limiter: trio.CapacityLimiter) -> None:
        self._path = path
        self._limiter = limiter
        self._lock = threading.Lock()
        self._idle: list[apsw.Connection] = []
        self._closed = False

    async def run(self, read: Callable[[apsw.Connection], T]) -> T:
        """Run `read` in a reader thread, in one read transaction: all it sees is of one moment.

        A read that fails on the file is done once more on a fresh connection, so `read` must not have effects.
        A cancelled caller leaves at once; the thread finishes by itself and keeps its place in the limiter until then.

        Raises:
            StoreUnavailable: SQLite cannot read the file.
        """
        return await trio.to_thread.run_sync(self._run, read, limiter=self._limiter, abandon_on_cancel=True)

    def _run(self, read: Callable[[apsw.Connection], T]) -> T:
        try:
            try:
                return self._read(read)
            except SQLITE_FAILURES as error:
                _log.error("reading %s failed: %s; reopening", self._path.name, type(error).__name__)
                self._close_idle()  # whatever happened to the file, they opened it before
                return self._read(read)
        except apsw.Error as error:
            _log.error("reading %s failed: %s", self._path.name, type(error).__name__)
            raise StoreUnavailable("The store cannot be read right now.") from error

    def _read(self, read: Callable[[apsw.Connection], T]) -> T:
        connection = self._borrow()
        try:
            connection.execute("BEGIN")
            try:
                answer = read(connection)
            finally:
                if connection.in_transaction:
                    connection.execute("COMMIT")
        except apsw.Error:
            close(connection)
            raise
        except BaseException:
            self._give_back(connection)
            raise
        self._give_back(connection)
        return answer

    def _borrow(self) -> apsw.Connection:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return open_reader(self._path)

    def _give_back(self, connection: apsw.Connection) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return
        close(connection)

    def _close_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            close(connection)

    def close(self) -> None:
        """Close what is idle now; what is lent closes when its thread is done. Blocks."""
        with self._lock:
            self._closed = True
        self._close_idle()
