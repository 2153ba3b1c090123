"""The connection to PostgreSQL: placeholders, types, counts of changes, errors by neutral names."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from actors.store.database import ConnectionFailed, ConstraintViolated, StatementFailed
from actors.store.postgres.connection import PostgresConnection, open_connection, translated
from models.errors import SetupError
from tests.postgres import PostgresServer, running_postgres


@pytest.fixture
def connection(postgres_url: str) -> Iterator[PostgresConnection]:
    opened = open_connection(postgres_url)
    opened.execute("CREATE TABLE thing(number bigint PRIMARY KEY, name text, body bytea)")
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("statement", "wanted"),
    [
        ("SELECT ?, ?", "SELECT $1, $2"),
        ("SELECT ?2, ?1, ?", "SELECT $2, $1, $3"),
        ("SELECT '?', ? -- why?\n, ?", "SELECT '?', $1 -- why?\n, $2"),
    ],
)
def test_placeholders_are_translated_but_not_in_texts_and_comments(statement: str, wanted: str) -> None:
    assert translated(statement) == wanted


def test_what_is_written_is_read(connection: PostgresConnection) -> None:
    rows = [(1, "one", b"\x00\xff"), (1 << 62, None, b"")]
    connection.executemany("INSERT INTO thing VALUES (?, ?, ?)", rows)
    assert connection.changes() == 2
    assert connection.execute("SELECT * FROM thing ORDER BY number").fetchall() == rows
    assert connection.changes() == 0
    assert connection.total_changes() == 2


def test_lists_of_small_numbers_may_come_before_lists_of_large_ones(connection: PostgresConnection) -> None:
    connection.executemany("INSERT INTO thing VALUES (?)", [(1,), (70_000,), (1 << 40,)])
    statement = "SELECT number FROM thing WHERE number = ANY(?) ORDER BY number"
    for numbers in ([1], [1], [1], [70_000], [1, 1 << 40], []):
        assert connection.execute(statement, (numbers,)).fetchall() == [(number,) for number in numbers]
    assert connection.execute("SELECT ? || '{b}'::text[]", (["a"],)).fetchall() == [(["a", "b"],)]


def test_copy_writes_rows_in_binary(connection: PostgresConnection) -> None:
    rows = [(number, "name", bytes([number])) for number in range(100)]
    connection.copy_rows("thing", ("number", "name", "body"), rows)
    assert connection.changes() == 100
    assert connection.execute("SELECT * FROM thing ORDER BY number").fetchall() == rows


def test_batches_come_whole_and_in_order(connection: PostgresConnection) -> None:
    connection.copy_rows("thing", ("number",), [(number,) for number in range(1200)])
    found = list(connection.batches("SELECT number FROM thing WHERE number >= ? ORDER BY number", (0,)))
    assert [len(rows) for rows in found] == [512, 512, 176]
    assert connection.execute("SELECT 1").fetchall() == [(1,)]


def test_batches_may_be_left_early(connection: PostgresConnection) -> None:
    connection.copy_rows("thing", ("number",), [(number,) for number in range(1200)])
    batches = connection.batches("SELECT number FROM thing ORDER BY number")
    next(batches)
    batches.close()
    assert connection.execute("SELECT 1").fetchall() == [(1,)]


def test_a_taken_key_is_a_violated_constraint_and_a_savepoint_survives_it(connection: PostgresConnection) -> None:
    connection.execute("BEGIN")
    connection.execute("INSERT INTO thing(number) VALUES (1)")
    connection.execute("SAVEPOINT job")
    with pytest.raises(ConstraintViolated):
        connection.execute("INSERT INTO thing(number) VALUES (1)")
    assert connection.in_transaction
    connection.execute("ROLLBACK TO job")
    connection.execute("COMMIT")
    assert not connection.in_transaction
    assert connection.execute("SELECT count(*) FROM thing").fetchall() == [(1,)]


def test_an_error_tells_its_code_and_no_value(connection: PostgresConnection) -> None:
    with pytest.raises(StatementFailed) as caught:
        connection.execute("SELECT secret_text_here")
    assert "secret" not in str(caught.value)


def test_a_connection_that_the_server_ends_has_failed(
    connection: PostgresConnection, postgres_server: PostgresServer
) -> None:
    connection.execute("BEGIN")
    with psycopg.connect(postgres_server.url()) as other:
        other.execute("SELECT pg_terminate_backend(%s, 10000)", (connection.backend,))
    with pytest.raises(ConnectionFailed):
        connection.execute("SELECT 1")
    assert connection.closed
    assert not connection.in_transaction


def test_nobody_listening_is_a_failed_connection() -> None:
    with pytest.raises(ConnectionFailed):
        open_connection("postgresql://postgres@127.0.0.1:1/nothing")


def test_a_url_that_is_none_is_refused_without_showing_it() -> None:
    with pytest.raises(SetupError) as caught:
        open_connection("password=geheim nonsense")
    assert "geheim" not in str(caught.value)


def test_the_session_has_no_statement_timeout_and_ends_idle_transactions(postgres_url: str) -> None:
    connection = open_connection(postgres_url, idle_in_transaction_s=2.0)
    names = ("statement_timeout", "idle_in_transaction_session_timeout", "application_name")
    assert [connection.execute(f"SHOW {name}").fetchall()[0][0] for name in names] == ["0", "2s", "memoryrouter"]
    connection.close()


def test_a_commit_whose_wait_for_the_standby_is_cut_short_is_in_doubt() -> None:
    """The server answers it as committed, with a warning: a fail-over would lose it."""
    with running_postgres(synchronous_standby_names="nobody") as server:
        connection = open_connection(server.url())
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE thing()")
        with ThreadPoolExecutor(1) as threads, psycopg.connect(server.url(), autocommit=True) as other:
            commit = threads.submit(connection.commit)
            while not commit.done():
                other.execute(
                    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = %s AND wait_event = 'SyncRep'",
                    (connection.backend,),
                )
            with pytest.raises(ConnectionFailed):
                commit.result()
        connection.close()
