"""Migrations: each runs once, in order, whole or not at all; a newer or a foreign schema is refused."""

from __future__ import annotations

import apsw
import pytest

from actors.store.connections import all_rows
from actors.store.migrations import META_MIGRATIONS, SHARD_MIGRATIONS, Migration, migrate, schema_version
from models.errors import SetupError

ONE = Migration(number=1, script="CREATE TABLE a(x); INSERT INTO a VALUES (1);")
TWO = Migration(number=2, script="ALTER TABLE a ADD COLUMN y; UPDATE a SET y = 2;")
BROKEN = Migration(number=2, script="CREATE TABLE b(x); INSERT INTO nowhere VALUES (1);")


@pytest.fixture
def connection() -> apsw.Connection:
    return apsw.Connection(":memory:")


def test_steps_run_once_and_in_order(connection: apsw.Connection) -> None:
    migrate(connection, (ONE,), now_ms=10)
    migrate(connection, (ONE, TWO), now_ms=20)
    migrate(connection, (ONE, TWO), now_ms=30)
    assert all_rows(connection, "SELECT x, y FROM a") == [(1, 2)]
    assert schema_version(connection) == 2
    assert all_rows(connection, "SELECT id, applied_ms, checksum FROM migration") == [
        (1, 10, ONE.checksum),
        (2, 20, TWO.checksum),
    ]


def test_a_step_that_fails_leaves_nothing(connection: apsw.Connection) -> None:
    with pytest.raises(apsw.SQLError):
        migrate(connection, (ONE, BROKEN), now_ms=10)
    assert schema_version(connection) == 1
    assert all_rows(connection, "SELECT name FROM sqlite_schema WHERE name = 'b'") == []
    migrate(connection, (ONE, TWO), now_ms=20)
    assert schema_version(connection) == 2


def test_a_newer_schema_is_refused(connection: apsw.Connection) -> None:
    migrate(connection, (ONE, TWO), now_ms=10)
    with pytest.raises(SetupError, match="schema 2; this version knows 1"):
        migrate(connection, (ONE,), now_ms=20)


def test_an_edited_step_is_refused(connection: apsw.Connection) -> None:
    migrate(connection, (ONE,), now_ms=10)
    edited = Migration(number=1, script=ONE.script + " ")
    with pytest.raises(SetupError, match="Migration 1"):
        migrate(connection, (edited, TWO), now_ms=20)
    assert schema_version(connection) == 1


@pytest.mark.parametrize("migrations", [META_MIGRATIONS, SHARD_MIGRATIONS], ids=["meta", "shard"])
def test_our_steps_are_numbered_without_holes_and_every_table_is_strict(
    connection: apsw.Connection, migrations: tuple[Migration, ...]
) -> None:
    assert [migration.number for migration in migrations] == list(range(1, len(migrations) + 1))
    migrate(connection, migrations, now_ms=1)
    tables = all_rows(connection, "SELECT name, strict FROM pragma_table_list WHERE name NOT LIKE 'sqlite_%'")
    assert tables
    assert all(strict for _, strict in tables)
