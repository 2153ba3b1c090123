"""The writing connection: neighbours' failures, partitions, lost connections, keys that are cleared away."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import psycopg
import pytest

from actors.store.database import StatementFailed
from actors.store.postgres.connection import PostgresConnection, open_connection
from actors.store.postgres.fences import PartFence
from actors.store.postgres.ownership import SoleOwnership
from actors.store.postgres.writer import PostgresWriter
from actors.store.tickets import Batch, Outcome, Ticket
from models.errors import NotFound, NotOwner, StoreUnavailable


@pytest.fixture
def ownership(prepared_url: str) -> SoleOwnership:
    sole = SoleOwnership()
    connection = open_connection(prepared_url)
    sole.take_all(connection)
    connection.close()
    return sole


@pytest.fixture
def writer(prepared_url: str, ownership: SoleOwnership) -> Iterator[PostgresWriter]:
    opened = PostgresWriter("test", partial(open_connection, prepared_url), PartFence(ownership), vacuumed=["inbox"])
    yield opened
    opened.close()


@pytest.fixture
def connection(prepared_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(prepared_url, autocommit=True) as opened:
        yield opened


def store(text: str, batch: Batch) -> int:
    """A job that stores a row; its id."""
    row_id = batch.next_row_id()
    batch.connection.execute("INSERT INTO inbox VALUES (0, 1, ?, ?)", (row_id, text.encode()))
    return row_id


def storing(text: str, *, part: int = 0) -> Ticket[int]:
    return Ticket(partial(store, text), part=part)


def store_and_fail(error: Exception, batch: Batch) -> None:
    """A job that fails after it has stored a row."""
    store("of a failed job", batch)
    raise error


def bodies(connection: psycopg.Connection[Any]) -> list[bytes]:
    return [body for (body,) in connection.execute("SELECT body FROM inbox ORDER BY id").fetchall()]


def commits(connection: psycopg.Connection[Any]) -> list[int]:
    return [number for (number,) in connection.execute("SELECT commits FROM part ORDER BY part").fetchall()]


@pytest.mark.parametrize("alone", [False, True])
async def test_a_failed_job_leaves_its_neighbours_and_nothing_of_its_own(
    writer: PostgresWriter, connection: psycopg.Connection[Any], alone: bool
) -> None:
    error = NotFound("no such vault")
    failing: Ticket[Any] = Ticket(partial(store_and_fail, error))
    others = [] if alone else [storing("one"), storing("two")]
    outcomes = writer.commit([failing, *others])
    assert outcomes[0] == Outcome(None, error)
    assert [outcome.error for outcome in outcomes[1:]] == [None] * len(others)
    assert bodies(connection) == ([] if alone else [b"one", b"two"])
    assert commits(connection)[0] == (0 if alone else 1)


async def test_a_statement_that_fails_is_its_jobs_own_failure(
    writer: PostgresWriter, connection: psycopg.Connection[Any]
) -> None:
    def work(batch: Batch) -> None:
        batch.connection.execute("SELECT no_such_column")

    tickets: list[Ticket[Any]] = [storing("one"), Ticket(work), storing("two")]
    outcomes = writer.commit(tickets)
    assert [type(outcome.error) for outcome in outcomes] == [type(None), StoreUnavailable, type(None)]
    assert bodies(connection) == [b"one", b"two"]


async def test_row_ids_grow_with_the_commits(writer: PostgresWriter) -> None:
    ids = [outcome.result for _ in range(3) for outcome in writer.commit([storing("one"), storing("two")])]
    assert ids == [1 << 20, 1 << 20 | 1, 2 << 20, 2 << 20 | 1, 3 << 20, 3 << 20 | 1]


async def test_jobs_are_grouped_by_partition_in_their_order(writer: PostgresWriter) -> None:
    tickets: list[Ticket[Any]] = [storing(str(number), part=number % 2) for number in range(4)]
    assert writer.groups(tickets) == [tickets[::2], tickets[1::2]]
    assert writer.groups([]) == []


async def test_a_lost_connection_is_replaced(writer: PostgresWriter, connection: psycopg.Connection[Any]) -> None:
    writer.commit([storing("one")])
    connection.execute("SELECT pg_terminate_backend(%s, 10000)", (writer.connected().backend,))
    (outcome,) = writer.commit([storing("two")])
    assert outcome.error is None
    assert bodies(connection) == [b"one", b"two"]


async def test_a_connection_that_is_lost_amid_the_jobs_stores_them_once(
    writer: PostgresWriter, connection: psycopg.Connection[Any]
) -> None:
    def cut_once(batch: Batch) -> None:
        if not runs:
            connection.execute("SELECT pg_terminate_backend(%s, 10000)", (batch.connection.backend,))
        runs.append(batch.number)

    runs: list[int] = []
    outcomes = writer.commit([storing("one"), Ticket(cut_once), storing("two")])
    assert all(outcome.error is None for outcome in outcomes)
    assert runs == [1, 1]
    assert bodies(connection) == [b"one", b"two"]


async def test_a_partition_that_is_lost_refuses_all_its_jobs(
    writer: PostgresWriter, connection: psycopg.Connection[Any], ownership: SoleOwnership
) -> None:
    connection.execute("UPDATE part SET epoch = epoch + 1 WHERE part = 0")
    outcomes = writer.commit([storing("one"), storing("two")])
    assert [type(outcome.error) for outcome in outcomes] == [NotOwner, NotOwner]
    assert bodies(connection) == []
    with pytest.raises(NotOwner):
        ownership.epoch_nowait(0)


async def test_commits_wait_for_the_disk_whatever_the_database_says(prepared_url: str) -> None:
    url = f"{prepared_url}?options=-c%20synchronous_commit%3Doff"
    writer = PostgresWriter("test", partial(open_connection, url), PartFence(SoleOwnership()))
    assert writer.connected().execute("SHOW synchronous_commit").fetchall() == [("on",)]
    writer.close()


async def test_what_was_erased_is_cleared_away_by_the_next_checkpoint(
    writer: PostgresWriter, connection: psycopg.Connection[Any]
) -> None:
    writer.commit([storing("secret")])
    connection.execute("DELETE FROM inbox")
    assert writer.wal_bytes == 0
    writer.truncate_or_owe()
    assert writer.wal_bytes > 0
    writer.checkpoint(0)
    assert writer.wal_bytes == 0
    assert not writer.truncate_owed
    row = connection.execute("SELECT pg_relation_size('inbox')").fetchone()
    assert row == (0,), "the only row was dead"


def test_a_transaction_that_failed_is_not_reported_as_committed(prepared_url: str) -> None:
    connection: PostgresConnection = open_connection(prepared_url)
    connection.execute("BEGIN")
    with pytest.raises(StatementFailed):
        connection.execute("SELECT no_such_column")
    with pytest.raises(StatementFailed, match="had failed before its COMMIT"):
        connection.commit()
    connection.close()


async def test_a_lock_that_is_not_given_is_not_waited_for_and_nothing_of_the_wait_stays_in_the_server(
    writer: PostgresWriter, prepared_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the COMMIT of one that was given up still waits for a standby there, and holds the row."""
    monkeypatch.setattr("actors.store.postgres.writer.LOCK_TIMEOUT_S", 0.1)
    with psycopg.connect(prepared_url) as other:
        other.execute("UPDATE part SET commits = commits WHERE part = 0")
        (outcome,) = writer.commit([storing("meanwhile")])
        assert isinstance(outcome.error, StoreUnavailable)
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        assert other.execute(waiting).fetchone() == (0,)
    with psycopg.connect(prepared_url) as connection:
        assert writer.commit([storing("after")])[0].error is None
        assert bodies(connection) == [b"after"]
