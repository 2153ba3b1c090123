"""Several writers of one file: each knows its own commits among those of the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest

from actors.store import shared_writer
from actors.store.ballast import DiskSpace
from actors.store.connections import open_writer
from actors.store.counter import CommitCounter, counter_path, read_counter
from actors.store.database import one_row
from actors.store.migrations import META_MIGRATIONS, migrate
from actors.store.shared_writer import SharedWriter
from actors.store.tickets import Batch, Outcome, Ticket
from tests.actors.store.harm import query
from tests.patience import PATIENCE_S


@pytest.fixture
def meta(tmp_path: Path) -> Path:
    """A prepared meta.db."""
    path = tmp_path / "meta.db"
    connection = open_writer(path)
    migrate(connection, META_MIGRATIONS, now_ms=1)
    connection.close()
    counter_path(path).parent.mkdir()
    return path


@pytest.fixture
def two(meta: Path) -> Iterator[tuple[SharedWriter, SharedWriter]]:
    """Two writers of it."""
    writers = new_writer(meta, "one"), new_writer(meta, "two")
    yield writers
    for each in writers:
        each.close()


def new_writer(path: Path, name: str, open_connection: Callable[[], apsw.Connection] | None = None) -> SharedWriter:
    """A writer as a worker has one."""
    opening = open_connection or partial(open_writer, path, may_create=False)
    space = DiskSpace(path.parent, ballast_bytes=0)
    return SharedWriter("meta", opening, writer_name=name, counter=CommitCounter(counter_path(path)), space=space)


def note(text: str) -> Ticket[int]:
    """A job that leaves a row; its result is the number of its commit."""

    def work(batch: Batch) -> int:
        batch.connection.execute("INSERT INTO setting VALUES (?, 1)", (text,))
        return batch.number

    return Ticket(work)


def number_of(outcomes: list[Outcome]) -> int:
    """What one `note` became."""
    (outcome,) = outcomes
    assert outcome.error is None
    return int(outcome.result)


def notes(path: Path) -> list[str]:
    """What is there."""
    return [str(name) for (name,) in query(path, "SELECT name FROM setting ORDER BY name")]


async def test_numbers_go_on_over_all_writers(two: tuple[SharedWriter, SharedWriter], meta: Path) -> None:
    one, other = two
    numbers = [number_of(each.commit([note(f"{place}")])) for place, each in enumerate((one, one, other, one, other))]
    assert numbers == [1, 2, 3, 4, 5]
    assert query(meta, "SELECT commits FROM commit_counter") == [(5,)]
    assert read_counter(counter_path(meta)) == 5


class FailingCommit(apsw.Connection):
    """Reports a failure for one COMMIT, before or after it takes effect, and lets another writer commit then."""

    how = ""
    meanwhile: Callable[[], Any]

    def execute(self, statements: str, *args: Any, **options: Any) -> apsw.Cursor:
        how = FailingCommit.how if statements == "COMMIT" else ""
        if not how:
            return super().execute(statements, *args, **options)
        FailingCommit.how = ""
        super().execute("COMMIT" if how == "after" else "ROLLBACK")
        FailingCommit.meanwhile()
        raise apsw.IOError("nobody knows")


@pytest.mark.parametrize("how", ["after", "before"])
async def test_a_commit_in_doubt_is_found_among_those_of_others(meta: Path, how: str) -> None:
    def connect() -> apsw.Connection:
        return FailingCommit(str(meta))

    one, other = new_writer(meta, "one", connect), new_writer(meta, "two")
    other.commit([note("a")])
    one.commit([note("b")])
    FailingCommit.how, FailingCommit.meanwhile = how, lambda: other.commit([note("c")])
    number = number_of(one.commit([note("in doubt")]))
    assert number == (3 if how == "after" else 4), "done once: either then, or again after the other's"
    assert notes(meta) == ["a", "b", "c", "in doubt"]
    for each in (one, other):
        each.close()


async def test_an_erasure_waits_for_anothers_checkpoint(
    two: tuple[SharedWriter, SharedWriter], meta: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two
    one.commit([note("a")])
    reader = apsw.Connection(str(meta))
    reader.execute("BEGIN")
    one_row(reader, "SELECT * FROM commit_counter")
    other.commit([note("b")])
    checkpointing, left, paused = threading.Event(), threading.Event(), threading.Event()
    elsewhere = apsw.Connection(str(meta))
    one_row(elsewhere, "SELECT * FROM commit_counter")  # only now it knows of the WAL

    def keep_trying(_attempts: int) -> bool:
        checkpointing.set()
        left.wait(0.001)
        return True

    elsewhere.set_busy_handler(keep_trying)
    at_it = threading.Thread(target=elsewhere.wal_checkpoint, kwargs={"mode": apsw.SQLITE_CHECKPOINT_TRUNCATE})
    at_it.start()
    assert checkpointing.wait(PATIENCE_S), "it waits for the reader, and nobody else may do one"
    monkeypatch.setattr(shared_writer, "sleep", lambda _s: paused.set())
    erasing = threading.Thread(target=other.truncate_or_owe)
    erasing.start()
    assert paused.wait(PATIENCE_S), "it was refused, and tries again"
    reader.execute("COMMIT")
    left.set()
    for thread in (at_it, erasing):
        thread.join(PATIENCE_S)
    assert not other.truncate_owed
    assert (meta.parent / "meta.db-wal").stat().st_size == 0
    for connection in (reader, elsewhere):
        connection.close()
