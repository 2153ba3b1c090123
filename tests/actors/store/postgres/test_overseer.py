"""A server that takes connections and never answers hangs nobody, and nothing is stored twice or lost by giving up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import psycopg
import pytest
import trio

from actors.store.postgres import overseer, readers, writer
from actors.store.postgres.connection import PostgresConnection
from actors.store.postgres.store import PostgresStore, open_postgres_store
from models.errors import StoreUnavailable
from models.ids import VaultRef, hash_key
from models.provider_settings import Secret
from tests.actors.store.conftest import on_postgres
from tests.actors.store.postgres.test_store import polled
from tests.actors.store.samples import MODEL, accept, new_account, new_vault, stored, texts_of
from tests.campaigns.cluster.line import Line, open_line
from tests.patience import PATIENCE_S
from tests.postgres import PostgresServer, running_postgres

SHORT_S = 1.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overseer, "POLL_S", 0.02)
    monkeypatch.setattr(readers, "PATIENCE_S", SHORT_S)
    monkeypatch.setattr(writer, "PATIENCE_S", SHORT_S)
    monkeypatch.setattr("actors.store.postgres.store.READING_PATIENCE_S", SHORT_S)
    monkeypatch.setattr("actors.store.postgres.store.WRITING_PATIENCE_S", SHORT_S)


@pytest.fixture
async def line(postgres_server: PostgresServer) -> AsyncIterator[Line]:
    async with open_line(postgres_server.port) as opened:
        yield opened


@pytest.fixture
async def store(line: Line, prepared_url: str, tmp_path: Path) -> AsyncIterator[PostgresStore]:
    name = prepared_url.rpartition("/")[2]
    url = Secret(f"postgresql://postgres@127.0.0.1:{line.port}/{name}?connect_timeout=2")
    settings = msgspec.structs.replace(on_postgres(prepared_url), url=url)
    async with open_postgres_store(tmp_path, settings=settings) as opened:
        yield opened


@pytest.fixture
def server_without_standby() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


async def refused(store: PostgresStore, vault: VaultRef) -> None:
    """Whoever asks is told that it cannot be done, all at the same time."""

    async def write() -> None:
        with pytest.raises(StoreUnavailable):
            await accept(store, vault, "meanwhile").wait_durable()

    async def read() -> None:
        with pytest.raises(StoreUnavailable):
            await store.load_vault(vault, model_id=MODEL)

    async def change() -> None:
        with pytest.raises(StoreUnavailable):
            await new_vault(store, "mk_user")

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as asking:
            for ask in (write, read, change):
                asking.start_soon(ask)


async def test_a_line_that_swallows_everything_hangs_nobody(store: PostgresStore, line: Line) -> None:
    """Its connections stay open all the time: whoever waits on one of them would wait for ever."""
    vault = (await new_account(store)).vault
    await stored(store, vault, "before")
    line.silent = True
    await refused(store, vault)
    line.silent = False  # what was lost does not come back
    with trio.fail_after(PATIENCE_S):
        await stored(store, vault, "after")
        assert await texts_of(store, vault) == ([], ["before", "after"])
        await new_vault(store, "mk_user")
        await polled(store)


async def test_a_slow_read_is_begun_again_with_more_patience(store: PostgresStore) -> None:
    """It is given up once, on a connection that may be dead; a server that takes another one is alive."""
    vault = (await new_account(store)).vault
    await stored(store, vault, "before")
    asked: list[int] = []

    def slow(connection: object) -> str:
        asked.append(1)
        assert isinstance(connection, PostgresConnection)
        ((text,),) = connection.execute("SELECT 'read' FROM pg_sleep(?::float8)", (SHORT_S * 1.5,)).fetchall()
        return str(text)

    assert await store._meta_readers.run(slow) == "read"
    assert len(asked) == 2


async def test_a_commit_that_no_standby_confirms_is_given_up_and_never_cut_short(
    server_without_standby: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits is told that nobody knows; what was given up happens once, when a standby is not waited for."""
    monkeypatch.setattr(writer, "DOUBT_S", SHORT_S)
    monkeypatch.setattr(writer, "PATIENCE_IN_DOUBT_S_MIN", SHORT_S)
    url = server_without_standby.create_database()
    async with open_postgres_store(tmp_path, settings=on_postgres(url)) as store:
        vault = (await new_account(store)).vault
        await stored(store, vault, "before")
        configure(server_without_standby, "SET synchronous_standby_names = 'nobody'")
        with trio.fail_after(PATIENCE_S):
            with pytest.raises(StoreUnavailable, match="may or may not be stored"):
                await accept(store, vault, "in doubt").wait_durable()
            assert await store.find_key(hash_key("mk_account")), "reading goes on"
        with psycopg.connect(url) as connection:
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            assert connection.execute(waiting).fetchone() == (1,)
        configure(server_without_standby, "RESET synchronous_standby_names")
        with trio.fail_after(PATIENCE_S):
            await stored(store, vault, "after")
            assert await texts_of(store, vault) == ([], ["before", "in doubt", "after"])


def configure(server: PostgresServer, what: str) -> None:
    """ALTER SYSTEM, in force when this returns."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("SET synchronous_commit = local")
        connection.execute(f"ALTER SYSTEM {what}")
        connection.execute("SELECT pg_reload_conf()")
        while connection.execute("SHOW synchronous_standby_names").fetchone() != (
            ("nobody",) if "nobody" in what else ("",)
        ):
            pass
