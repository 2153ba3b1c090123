"""Migrations: each runs once, in order, whole or not at all; a newer or a foreign schema is refused."""

from __future__ import annotations

import apsw
import pytest

from actors.store.database import all_rows
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


def open_keys(connection: apsw.Connection) -> dict[int, int]:
    """By vault: how many of its keys are neither revoked nor rotated, as the vault says."""
    return dict(all_rows(connection, "SELECT number, open_keys FROM vault"))


def add_key(connection: apsw.Connection, vault: int, **columns: int) -> int:
    """A key of a vault, in a state; its number."""
    names, values = "".join(f", {name}" for name in columns), tuple(columns.values())
    connection.execute(
        "INSERT INTO key(account, vault, kind, name, shown, hash, created_ms"
        f"{names}) VALUES (1, ?, 'user', 'n', 's', randomblob(32), 1{', ?' * len(columns)})",
        (vault, *values),
    )
    return connection.last_insert_rowid()


def test_schema_4_counts_the_open_keys_of_every_vault_and_goes_on_counting(connection: apsw.Connection) -> None:
    migrate(connection, META_MIGRATIONS[:3], now_ms=10)
    connection.execute("INSERT INTO account(created_ms) VALUES (1)")
    connection.execute(
        "INSERT INTO vault(account, shard, created_ms) VALUES (1, 0, 1), (1, 0, 1), (1, 1, 1), (1, 1, 1)"
    )
    first = add_key(connection, 1)
    add_key(connection, 1, disabled_ms=5)
    add_key(connection, 1, revoked_ms=5)
    add_key(connection, 2, rotated_to=first, expires_ms=9)
    add_key(connection, 3, expires_ms=9)
    migrate(connection, META_MIGRATIONS[:4], now_ms=20)
    assert open_keys(connection) == {1: 2, 2: 0, 3: 1, 4: 0}
    new = add_key(connection, 4)
    add_key(connection, 4, revoked_ms=5)
    assert open_keys(connection)[4] == 1
    connection.execute("UPDATE key SET vault = 2 WHERE vault IN (1, 4)")
    assert open_keys(connection) == {1: 0, 2: 3, 3: 1, 4: 0}
    connection.execute("UPDATE key SET rotated_to = ? WHERE number = ?", (new, first))
    connection.execute("UPDATE key SET revoked_ms = 7")
    assert open_keys(connection) == {1: 0, 2: 0, 3: 0, 4: 0}
    connection.execute("UPDATE key SET revoked_ms = NULL, vault = 1 WHERE number = ?", (new,))
    connection.execute("UPDATE key SET name = 'm', disabled_ms = 8, expires_ms = 9, last_used_ms = 3")
    assert open_keys(connection) == {1: 1, 2: 0, 3: 0, 4: 0}


def test_schema_4_takes_no_index_away_without_another_that_begins_as_it_did(connection: apsw.Connection) -> None:
    migrate(connection, META_MIGRATIONS[:3], now_ms=10)
    before = columns_of_indexes(connection)
    migrate(connection, META_MIGRATIONS[:4], now_ms=20)
    after = columns_of_indexes(connection)
    assert set(before) - set(after) == {"key_account", "audit_account"}
    for table, name in (("key", "key_listed"), ("audit", "audit_listed")):
        assert after[name][:2] == [*before[f"{table}_account"], "number"], "the number stood behind the account unsaid"


def columns_of_indexes(connection: apsw.Connection) -> dict[str, list[str]]:
    """Every index that a migration made, with the columns it is over."""
    names = all_rows(connection, "SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL")
    return {
        name: [column for (column,) in all_rows(connection, "SELECT name FROM pragma_index_info(?)", (name,))]
        for (name,) in names
    }
