"""What others change in the directory, seen within a quarter of a second: a thread that looks at one number.

Others are the nodes on the same database, or the workers on the same data directory. Every transaction that outdates
what they keep in memory (live keys, providers' keys, data keys) raises `directory_state.changes` in the same commit.
Must look on a connection of its own, so that no other work delays it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress

import trio

from actors.store.database import DATABASE_ERRORS, Connection, one_row

POLL_S = 0.25
STOP_TIMEOUT_S = 15.0

_CHANGES = "SELECT changes FROM directory_state WHERE one = 1"
_RAISE = "UPDATE directory_state SET changes = changes + 1 WHERE one = 1 RETURNING changes"

_log = logging.getLogger(__name__)


def last_change(connection: Connection) -> int:
    """The number of the last change of what others may keep in memory."""
    (changes,) = one_row(connection, _CHANGES)
    return int(changes)


def raise_change(connection: Connection) -> int:
    """Tell the others, by this transaction, that what they keep is outdated; the number of the change."""
    (changes,) = one_row(connection, _RAISE)
    return int(changes)


class DirectoryWatch:
    """Calls `on_change` when somebody else has changed something. Own changes it is told of by `note_own`.

    Attributes:
        polls: how often it has looked since the start.
    """

    __slots__ = ("_lock", "_on_change", "_open_connection", "_own", "_seen", "_stop", "_thread", "polls")

    def __init__(
        self,
        open_connection: Callable[[], Connection],
        on_change: Callable[[Connection], None],
        *,
        seen: int,
    ) -> None:
        """`on_change` is called in the watching thread. `seen` is the number before which nothing was read."""
        self._open_connection = open_connection
        self._on_change = on_change
        self._seen = seen
        self._lock = threading.Lock()
        self._own: set[int] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="directory watch", daemon=True)
        self.polls = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def note_own(self, change: int) -> None:
        """This change is ours, and what it outdates is dropped by whoever made it. Any thread, after the commit."""
        with self._lock:
            if change > self._seen:
                self._own.add(change)

    async def stop(self) -> None:
        """End the thread, and wait for it."""
        self._stop.set()
        with trio.move_on_after(STOP_TIMEOUT_S, shield=True):  # the join has the same limit in real time
            await trio.to_thread.run_sync(self._thread.join, STOP_TIMEOUT_S)

    def _run(self) -> None:
        connection: Connection | None = None
        missed = False
        while not self._stop.wait(POLL_S):
            try:
                if connection is None:
                    connection = self._open_connection()
                if self._is_foreign(last_change(connection)) or missed:
                    self._on_change(connection)
                missed = False
            except DATABASE_ERRORS as error:
                if connection is not None:
                    _log.warning("changes of others cannot be seen: %s", error)
                    with suppress(*DATABASE_ERRORS):
                        connection.close()
                connection, missed = None, True
                continue
            self.polls += 1
        if connection is not None:
            connection.close()

    def _is_foreign(self, changes: int) -> bool:
        """Whether somebody else made one of the changes up to this one. One of ours that is not noted yet counts as
        another's: then too much is forgotten, never too little."""
        with self._lock:
            foreign = changes < self._seen or any(
                number not in self._own for number in range(self._seen + 1, changes + 1)
            )
            self._seen = changes
            self._own = {number for number in self._own if number > changes}
            return foreign
