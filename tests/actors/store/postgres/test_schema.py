"""Versions whose tables differ: the newer changes them only where no older one runs, and shuts out what comes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from actors.store.migrations import Migration
from actors.store.postgres.connection import PostgresConnection, open_connection
from actors.store.postgres.schema import POSTGRES_MIGRATIONS, migrate, refuse_newer
from actors.store.postgres.store import open_postgres_store
from models.accounts import OPERATOR
from models.errors import NotOwner, SetupError, StoreUnavailable
from tests.actors.store.conftest import on_postgres
from tests.actors.store.samples import accept, new_account, new_vault, stored, texts_of

NEWER = (*POSTGRES_MIGRATIONS, Migration(len(POSTGRES_MIGRATIONS) + 1, "CREATE TABLE newer (number bigint)"))


@pytest.fixture
def connection(postgres_url: str) -> Iterator[PostgresConnection]:
    opened = open_connection(postgres_url)
    yield opened
    opened.close()


@pytest.fixture
def current(connection: PostgresConnection) -> PostgresConnection:
    """To a database as this version makes it, with one partition, which the node `old` owns."""
    migrate(connection, POSTGRES_MIGRATIONS, now_ms=1)
    connection.execute("INSERT INTO part (part, owner, epoch) VALUES (0, 'old', 5)")
    return connection


def join(connection: PostgresConnection, seconds: float) -> None:
    """Let a node live for so long."""
    lease = "clock_timestamp() + ? * interval '1 second'"
    connection.execute(
        f"INSERT INTO node (node_id, incarnation, addr, expires_at) VALUES ('old', 1, 'a:1', {lease})", (seconds,)
    )


def parts(connection: PostgresConnection) -> list[tuple[Any, ...]]:
    return connection.execute("SELECT owner, epoch FROM part").fetchall()


def test_tables_are_not_changed_under_a_node_that_lives(
    current: PostgresConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.store.postgres.schema._LEASE_LEFT_S_MAX", 0.0)
    monkeypatch.setattr("actors.store.postgres.schema._LEASE_MARGIN_S", 0.0)
    join(current, 3600)
    with pytest.raises(SetupError, match="other servers run on it: old"):
        migrate(current, NEWER, now_ms=2)
    refuse_newer(current)
    assert parts(current) == [("old", 5)]
    migrate(current, POSTGRES_MIGRATIONS, now_ms=2)


def test_the_end_of_a_lease_that_nobody_renews_is_waited_for(current: PostgresConnection) -> None:
    """What its node had under way is fenced off: it may only be frozen."""
    join(current, 0.3)
    migrate(current, NEWER, now_ms=2)
    assert parts(current) == [(None, 6)]
    with pytest.raises(SetupError, match=f"has schema {len(NEWER)}; this version knows {len(POSTGRES_MIGRATIONS)}"):
        refuse_newer(current)


def test_a_node_that_joins_at_the_last_moment_stops_the_change(
    current: PostgresConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([[], [("late", 3.0)]])
    monkeypatch.setattr("actors.store.postgres.schema._living", lambda connection: next(looks))
    with pytest.raises(SetupError, match="other servers run on it: late"):
        migrate(current, NEWER, now_ms=2)
    assert not current.in_transaction
    refuse_newer(current)
    assert parts(current) == [("old", 5)]


def test_no_node_joins_while_the_tables_are_changed(current: PostgresConnection, postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as joining:
        joining.execute("SET lock_timeout = '50ms'")
        joining.commit()

        def join_meanwhile() -> None:
            with pytest.raises(psycopg.errors.LockNotAvailable):
                joining.execute("INSERT INTO node VALUES ('late', 1, 'b:1', '', '', 1, false, false, now())")

        class Noting(PostgresConnection):
            """Lets a node try while the step is under way."""

            def run_script(self, script: str) -> None:
                join_meanwhile()
                super().run_script(script)

        migrate(Noting(current._connection), NEWER, now_ms=2)
    assert parts(current) == [(None, 6)]


async def test_an_older_version_that_was_frozen_meanwhile_writes_nothing(postgres_url: str, tmp_path: Path) -> None:
    """It neither starts, nor stores, nor changes a key; what it reads is there still."""
    settings = on_postgres(postgres_url)
    async with open_postgres_store(tmp_path, settings=settings) as old:
        principal = await new_account(old)
        await stored(old, principal.vault, "before")
        connection = open_connection(postgres_url)
        migrate(connection, NEWER, now_ms=2)
        connection.close()
        with pytest.raises(NotOwner):
            await accept(old, principal.vault, "late").wait_durable()
        with pytest.raises(StoreUnavailable, match="newer version"):
            await new_vault(old, "mk_late")
        with pytest.raises(StoreUnavailable, match="newer version"):
            await old.put_provider_key(1, "openai", "sk-late", now_ms=3, by=OPERATOR)
        assert await texts_of(old, principal.vault) == ([], ["before"])
        assert [key.number for key in await old.list_keys(1)] == [principal.key_number]
    with pytest.raises(SetupError, match=f"has schema {len(NEWER)}"):
        async with open_postgres_store(tmp_path, settings=settings):
            pass
