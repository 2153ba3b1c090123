"""The writing connection: full disks, failing disks, commits in doubt, and erasure that waits for readers."""

from __future__ import annotations

import os
import threading
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest

from actors.store.committer import Committer
from actors.store.connections import close, open_writer
from actors.store.tickets import Batch, Ticket
from models.errors import StorageFull, StoreUnavailable
from tests.actors.store.jobs import SETTINGS, Gate, bodies, insert, open_committer
from tests.fakes.disk import FaultyDisk


async def test_a_full_disk_acknowledges_nobody_and_heals(committer: Committer, path: Path) -> None:
    def limit(batch: Batch, *, pages: int) -> None:
        batch.connection.execute(f"PRAGMA max_page_count = {pages:d}").fetchall()

    def fill(batch: Batch) -> None:
        batch.connection.execute("INSERT INTO inbox VALUES (?, 1, zeroblob(1000000))", (batch.next_row_id(),))

    await committer.run(Ticket(insert("before")))
    await committer.run(Ticket(partial(limit, pages=30)))
    gate = Gate()
    committer.submit_nowait(Ticket(gate.work))
    gate.wait_entered()
    neighbour = committer.submit_nowait(Ticket(insert("neighbour")))
    big = committer.submit_nowait(Ticket(fill))
    gate.open()
    for ticket in (big, neighbour):
        with pytest.raises(StorageFull):
            await ticket.wait()
    assert bodies(path) == ["before"]
    await committer.run(Ticket(partial(limit, pages=1_000_000)))
    await committer.run(Ticket(insert("after")))
    assert bodies(path) == ["before", "after"]


async def test_a_failed_sync_is_tried_once_more_on_a_fresh_handle(path: Path) -> None:
    disk = FaultyDisk("one-failure")
    async with open_committer(partial(disk.connect, path), settings=SETTINGS) as committer:
        await committer.run(Ticket(insert("before")))
        disk.syncs_to_fail = 1
        await committer.run(Ticket(insert("during")))
        assert disk.failed_syncs == 1
        assert len(disk.opened) == 2
        await committer.run(Ticket(insert("after")))
    assert bodies(path) == ["before", "during", "after"]


async def test_a_disk_that_keeps_failing_acknowledges_nobody(path: Path) -> None:
    disk = FaultyDisk("failures")
    async with open_committer(partial(disk.connect, path), settings=SETTINGS) as committer:
        await committer.run(Ticket(insert("before")))
        disk.syncs_to_fail = 1_000
        ticket = committer.submit_nowait(Ticket(insert("lost")))
        with pytest.raises(StoreUnavailable):
            await ticket.wait()
        assert not ticket.durable
        assert disk.failed_syncs >= 2
        disk.syncs_to_fail = 0
        await committer.run(Ticket(insert("after")))
    found = bodies(path)
    assert found[0] == "before"
    assert found[-1] == "after"
    assert found.count("lost") <= 1  # a commit in doubt may have reached the disk, but never twice


class LyingConnection(apsw.Connection):
    """Reports a failure for a COMMIT that took effect."""

    lies = 0

    def execute(self, statements: str, *args: Any, **options: Any) -> apsw.Cursor:
        cursor = super().execute(statements, *args, **options)
        if statements == "COMMIT" and LyingConnection.lies:
            LyingConnection.lies -= 1
            raise apsw.IOError("the commit took effect all the same")
        return cursor


async def test_a_commit_that_took_effect_in_spite_of_its_error_is_not_done_twice(path: Path) -> None:
    def connect() -> apsw.Connection:
        connection = LyingConnection(str(path))
        connection.execute("PRAGMA journal_mode=WAL").fetchall()
        return connection

    async with open_committer(connect, settings=SETTINGS) as committer:
        await committer.run(Ticket(insert("before")))
        LyingConnection.lies = 1
        ticket = committer.submit_nowait(Ticket(insert("once")))
        await ticket.wait()
        await committer.run(Ticket(insert("after")))
    assert bodies(path) == ["before", "once", "after"]


async def test_erasure_waits_for_readers_to_leave_the_wal(committer: Committer, path: Path) -> None:
    await committer.run(Ticket(insert("a")))
    reader = holding_reader(path)
    await committer.run(Ticket(insert("b")))
    leaving = threading.Timer(0.2, reader.execute, ("COMMIT",))
    leaving.start()
    await committer.run(Ticket(insert("c"), after_commit=lambda _: committer.truncate_wal()))
    assert path.with_name("shard.db-wal").stat().st_size == 0
    leaving.join()
    reader.close()


async def test_erasure_that_a_reader_outlasts_stays_owed_and_is_made_up_for(
    committer: Committer, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("actors.store.writer.BUSY_TIMEOUT_MS", 20)
    await committer.run(Ticket(insert("a")))
    reader = holding_reader(path)
    await committer.run(Ticket(insert("b"), after_commit=lambda _: committer.truncate_wal()))
    assert committer.statistics()["truncate_owed"]
    assert "still holds what was erased" in caplog.text
    reader.execute("COMMIT")
    for text in "cd":  # the thread makes up for it after the first of these commits, before the second
        await committer.run(Ticket(insert(text)))
    assert not committer.statistics()["truncate_owed"]
    reader.close()


async def test_an_emptied_wal_is_synced_before_an_erasure_is_told(
    committer: Committer, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite only truncates it: without a sync a power cut brings the erased bytes back."""
    synced: list[int] = []
    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        if len(synced) == 2:
            raise OSError(5, "a failing disk")
        real_fsync(descriptor)

    monkeypatch.setattr("actors.store.writer.os.fsync", fsync)
    await committer.run(Ticket(insert("a"), after_commit=lambda _: committer.truncate_wal()))
    assert synced == [path.with_name("shard.db-wal").stat().st_ino]
    await committer.run(Ticket(insert("b"), after_commit=lambda _: committer.truncate_wal()))
    assert "cannot be synced" in caplog.text
    assert "still holds what was erased" in caplog.text
    for text in "cd":  # the thread makes up for it after the first of these commits, before the second
        await committer.run(Ticket(insert(text)))
    assert not committer.truncate_owed
    assert len(synced) == 3


def holding_reader(path: Path) -> apsw.Connection:
    """A connection in the middle of a read transaction."""
    reader = apsw.Connection(str(path))
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM inbox").fetchall()
    return reader


def test_a_new_file_is_for_its_owner_alone(path: Path) -> None:
    """Its WAL too, wherever the data directory lies: names of keys and accounts are not sealed."""
    new = path.with_name("new.db")
    connection = open_writer(new)
    try:
        connection.execute("CREATE TABLE t (x)")
        files = list(new.parent.glob("new.db*"))
        assert len(files) > 1
        assert [file.stat().st_mode & 0o077 for file in files] == [0] * len(files)
    finally:
        close(connection)
