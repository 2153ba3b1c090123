"""What the tests of the committer and its writer share: a prepared file, simple jobs, and a job that blocks."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import apsw

from actors.store.committer import Committer, running
from actors.store.connections import open_writer
from actors.store.database import all_rows
from actors.store.migrations import SHARD_MIGRATIONS, migrate
from actors.store.tickets import Batch
from actors.store.writer import Writer
from models.store_settings import StoreSettings
from tests.patience import PATIENCE_S

SETTINGS = StoreSettings(queue_rows_max=300, batch_rows_max=256, checkpoint_wal_bytes=1 << 20)


def new_file(directory: Path) -> Path:
    """A shard file without rows."""
    path = directory / "shard.db"
    connection = open_writer(path)
    migrate(connection, SHARD_MIGRATIONS, now_ms=1)
    connection.close()
    return path


@asynccontextmanager
async def open_committer(
    open_connection: Callable[[], apsw.Connection], *, settings: StoreSettings = SETTINGS
) -> AsyncIterator[Committer]:
    """A running committer of its own, without a counter and without a watch on the disk's room."""
    async with running(Committer("test", Writer("test", open_connection), settings=settings)) as committer:
        yield committer


def insert(text: str, *, vault: int = 1) -> Callable[[Batch], int]:
    """A job that appends one row."""

    def work(batch: Batch) -> int:
        row_id = batch.next_row_id()
        batch.connection.execute("INSERT INTO inbox VALUES (?, ?, ?)", (row_id, vault, text.encode()))
        return row_id

    return work


def bodies(path: Path) -> list[str]:
    """What a fresh connection finds in the file, in row order."""
    connection = apsw.Connection(str(path))
    try:
        return [body.decode() for (body,) in all_rows(connection, "SELECT body FROM inbox ORDER BY id")]
    finally:
        connection.close()


class Gate:
    """A job that keeps the committer's thread busy until it is opened."""

    def __init__(self) -> None:
        self._entered = threading.Event()
        self._opened = threading.Event()

    def work(self, _batch: Batch) -> None:
        """Block until opened."""
        self._entered.set()
        assert self._opened.wait(PATIENCE_S)

    def open(self) -> None:
        """Let the thread go on."""
        self._opened.set()

    def wait_entered(self) -> None:
        """Return once the thread is held: what is submitted from now on goes into its next batch, and all of it."""
        assert self._entered.wait(PATIENCE_S)
