"""The writing connection of a file that other processes write, too: meta.db, where several workers serve.

SQLite lets one of them write at a time and the others wait. What this adds: shorter pauses of those; the number of a
commit is read within its transaction, since the last one may have been another's; each writer notes its own last number
beside it, so that a COMMIT that failed is found under those of others; and a checkpoint waits for another's, which
SQLite does not do. Must never take another's commit for its own.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep

import apsw

from actors.store.ballast import DiskSpace
from actors.store.connections import BUSY_TIMEOUT_MS
from actors.store.counter import CommitCounter
from actors.store.database import one_row
from actors.store.writer import Writer

PAUSE_S = 0.001
"""Between two attempts at what another process keeps from being done: a fraction of a commit. SQLite's own pauses grow
to 100 ms, by which a process that has waited comes ever later than those that have not."""

_NOTE = """INSERT INTO directory_writer VALUES (?, ?) ON CONFLICT(name) DO UPDATE SET commits = excluded.commits"""


class SharedWriter(Writer):
    """See `Writer`."""

    __slots__ = ("_writer_name",)

    def __init__(
        self,
        name: str,
        open_connection: Callable[[], apsw.Connection],
        *,
        writer_name: str,
        counter: CommitCounter,
        space: DiskSpace,
    ) -> None:
        """`writer_name` is this process's own among those that write the file."""
        # An emptied WAL is owed from the start: a predecessor may have been killed between erasing and emptying it.
        super().__init__(name, open_connection, counter=counter, space=space, truncate_owed=True)
        self._writer_name = writer_name

    def _check(self, connection: apsw.Connection) -> None:
        super()._check(connection)
        self._be_patient(connection, BUSY_TIMEOUT_MS)

    def _be_patient(self, connection: apsw.Connection, timeout_ms: int) -> None:
        until_s = 0.0

        def keep_trying(attempts: int) -> bool:
            nonlocal until_s
            if not attempts:
                until_s = monotonic() + timeout_ms / 1000
            if monotonic() >= until_s:
                return False
            sleep(PAUSE_S)
            return True

        connection.set_busy_handler(keep_trying)

    def _took_effect(self, connection: apsw.Connection, number: int) -> bool:
        row = one_row(connection, "SELECT commits FROM directory_writer WHERE name = ?", (self._writer_name,))
        return row is not None and row[0] == number

    def _next_number(self, connection: apsw.Connection) -> int:
        (commits,) = one_row(connection, "SELECT commits FROM commit_counter")
        return int(commits) + 1

    def _put_number(self, connection: apsw.Connection, number: int) -> None:
        super()._put_number(connection, number)
        connection.execute(_NOTE, (self._writer_name, number))

    def _copy_wal(self, connection: apsw.Connection, mode: int, *, busy_timeout_ms: int) -> None:
        until_s = monotonic() + busy_timeout_ms / 1000
        while True:
            left_ms = max(0, round((until_s - monotonic()) * 1000))
            try:
                return super()._copy_wal(connection, mode, busy_timeout_ms=left_ms)
            except apsw.BusyError:  # at once, if another process does the same
                if monotonic() >= until_s:
                    raise
            sleep(PAUSE_S)
