"""The store on PostgreSQL beyond the conformance suite: ownership, outages, other nodes, what it refuses to open."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from actors.store.postgres.ownership import SoleOwnership
from actors.store.postgres.store import PostgresStore, open_postgres_store
from models.accounts import OPERATOR
from models.errors import NotFound, NotOwner, SetupError, ShuttingDown, StoreUnavailable
from models.ids import Principal, VaultRef, hash_key
from models.provider_settings import Secret
from models.store_settings import StoreSettings
from tests.actors.store.conftest import on_postgres
from tests.actors.store.samples import MODEL, accept, new_account, new_vault, remembered, revoke, stored, texts_of
from tests.patience import wait_until
from tests.postgres import PARTS, running_postgres


async def polled(store: PostgresStore) -> None:
    """Until the store has looked for changes of other nodes once more, from beginning to end."""
    polls = store.watch.polls
    await wait_until(lambda: store.watch.polls >= polls + 2)


async def test_a_stale_epoch_writes_nothing_and_loses_nothing(prepared_url: str, tmp_path: Path) -> None:
    settings, ownership = on_postgres(prepared_url), SoleOwnership()
    async with open_postgres_store(tmp_path, settings=settings, ownership=ownership) as old:
        vault = (await new_account(old)).vault
        await stored(old, vault, "acknowledged")
        async with open_postgres_store(tmp_path, settings=settings) as new:
            failures: list[str] = []
            commit = old.accept_nowait(vault, [], lambda rows: None, on_failed=lambda: failures.append("failed"))
            with pytest.raises(NotOwner):
                await commit.wait_durable()
            assert failures == ["failed"]
            with pytest.raises(NotOwner):
                accept(old, vault, "too late")
            assert not old._owned_parts() or vault.shard not in old._owned_parts()
            await stored(new, vault, "by the new owner")
            assert await texts_of(new, vault) == ([], ["acknowledged", "by the new owner"])


async def test_vaults_are_spread_over_all_partitions(prepared_url: str, tmp_path: Path) -> None:
    async with open_postgres_store(tmp_path, settings=on_postgres(prepared_url)) as store:
        await new_account(store)
        vaults = [await new_vault(store, f"mk_{number}") for number in range(4)]
        assert {vault.shard for vault in vaults} == set(range(PARTS))
        assert all(vault.shard == vault.number % PARTS for vault in vaults)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["stopped", "killed"])
async def test_an_outage_refuses_and_ends_by_itself(tmp_path: Path, how: signal.Signals) -> None:
    with running_postgres() as server:
        settings = on_postgres(server.create_database())
        async with open_postgres_store(tmp_path, settings=settings) as store:
            principal = await new_account(store)
            assert await store.find_key(hash_key("mk_account")) == principal
            await stored(store, principal.vault, "before")
            server.stop(how)
            for _ in range(2):
                with pytest.raises(StoreUnavailable):
                    await accept(store, principal.vault, "meanwhile").wait_durable()
                with pytest.raises(StoreUnavailable):
                    await store.load_vault(principal.vault, model_id=MODEL)
                with pytest.raises(StoreUnavailable):
                    await new_vault(store, "mk_user")
            assert await store.find_key(hash_key("mk_account")) == principal, "it is known here"
            server.start()
            await stored(store, principal.vault, "after")
            assert await texts_of(store, principal.vault) == ([], ["before", "after"])
            await new_vault(store, "mk_user")
            await polled(store)


async def test_connections_that_the_server_ended_are_replaced_unnoticed(prepared_url: str, tmp_path: Path) -> None:
    async with open_postgres_store(tmp_path, settings=on_postgres(prepared_url)) as store:
        vault = (await new_account(store)).vault
        await stored(store, vault, "one")
        for _ in range(2):
            with psycopg.connect(prepared_url, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            assert await texts_of(store, vault) == ([], ["one"])
            assert await store.find_key(hash_key("mk_account"))
            assert await store.find_key(hash_key("mk_unknown")) is None
        await stored(store, vault, "two")


async def test_another_nodes_revocation_is_seen(prepared_url: str, tmp_path: Path) -> None:
    settings = on_postgres(prepared_url)
    async with open_postgres_store(tmp_path, settings=settings) as here:
        await new_account(here)
        user = await user_key(here)
        async with open_postgres_store(tmp_path, settings=settings) as there:
            assert await there.find_key(hash_key("mk_user")) == user
            await revoke(here, user, now_ms=3000)
            assert await here.find_key(hash_key("mk_user")) is None
            await polled(there)
            assert await there.find_key(hash_key("mk_user")) is None


async def test_another_nodes_new_key_is_seen_where_it_was_unknown(prepared_url: str, tmp_path: Path) -> None:
    settings = on_postgres(prepared_url)
    async with (
        open_postgres_store(tmp_path, settings=settings) as here,
        open_postgres_store(tmp_path, settings=settings) as there,
    ):
        await new_account(here)
        assert await there.find_key(hash_key("mk_user")) is None
        user = await user_key(here)
        await polled(there)
        assert await there.find_key(hash_key("mk_user")) == user


async def test_another_nodes_erasure_closes_the_vault_here(prepared_url: str, tmp_path: Path) -> None:
    settings = on_postgres(prepared_url)
    async with open_postgres_store(tmp_path, settings=settings) as here:
        vault = (await new_account(here)).vault
        await remembered(here, vault, "secret")
        async with open_postgres_store(tmp_path, settings=settings) as there:
            assert (await there.load_vault(vault, model_id=MODEL)).memories
            assert await there.load_imprint(vault) is None
            await there.put_provider_key(1, "openai", "sk-old", now_ms=1, by=OPERATOR)
            assert await here.find_provider_key(1, "openai")
            await here.replace_vault(vault)
            await there.delete_provider_key(1, "openai", now_ms=2, by=OPERATOR)
            await polled(there)
            await polled(here)
            assert not (await there.load_vault(vault, model_id=MODEL)).memories
            with pytest.raises(NotFound):  # what it seals files by, too
                await there.load_imprint(vault)
            assert await here.find_provider_key(1, "openai") is None


async def test_the_owner_removes_what_another_node_has_shredded(prepared_url: str, tmp_path: Path) -> None:
    settings = on_postgres(prepared_url)
    async with open_postgres_store(tmp_path, settings=settings) as other:
        vault = (await new_account(other)).vault
        async with open_postgres_store(tmp_path, settings=settings) as owner:
            await remembered(owner, vault, "secret")
            told: list[VaultRef] = []
            owner.call_on_shredded(told.append)
            with pytest.raises(NotOwner):  # it learns that it owns nothing any more
                await other.set_aside(vault, [])
            await other.replace_vault(vault)
            await wait_until(lambda: rows_of(prepared_url, vault.number) == 0)
            await polled(owner)
            assert told == [vault]


async def test_ones_own_changes_do_not_empty_the_caches(prepared_url: str, tmp_path: Path) -> None:
    async with open_postgres_store(tmp_path, settings=on_postgres(prepared_url)) as store:
        await new_account(store)
        await store.find_key(hash_key("mk_account"))
        await polled(store)
        before = store._generation
        await new_vault(store, "mk_user")
        await polled(store)
        assert store._generation == before + 1, "by the new key itself"


async def test_the_shredded_key_is_overwritten_and_its_rows_go(prepared_url: str, tmp_path: Path) -> None:
    async with open_postgres_store(tmp_path, settings=on_postgres(prepared_url)) as store:
        vault = (await new_account(store)).vault
        await remembered(store, vault, "secret")
        await store.replace_vault(vault)
        await wait_until(lambda: rows_of(prepared_url, vault.number) == 0)
        with psycopg.connect(prepared_url) as connection:
            wrapped = connection.execute("SELECT wrapped FROM vault_key WHERE vault = %s", (vault.number,)).fetchone()
            assert wrapped == (bytes(60),)


async def test_closing_commits_what_was_accepted(prepared_url: str, tmp_path: Path) -> None:
    settings = on_postgres(prepared_url)
    async with open_postgres_store(tmp_path, settings=settings) as store:
        vault = (await new_account(store)).vault
        accept(store, vault, "last")
        store.refuse_new_work()
        with pytest.raises(ShuttingDown):
            accept(store, vault, "refused")
    async with open_postgres_store(tmp_path, settings=settings) as store:
        assert await texts_of(store, vault) == ([], ["last"])
        assert await store.vaults_with_inbox() == [vault]


async def test_another_server_key_is_refused(prepared_url: str, tmp_path: Path) -> None:
    settings = on_postgres(prepared_url)
    async with open_postgres_store(tmp_path, settings=settings, server_key=b"a" * 32):
        pass
    with pytest.raises(SetupError, match="server key is not the one"):
        async with open_postgres_store(tmp_path, settings=settings, server_key=b"b" * 32):
            pass
    with pytest.raises(SetupError, match=r"server\.key is missing"):
        async with open_postgres_store(tmp_path, settings=settings):
            pass


async def test_a_newer_schema_is_refused(postgres_url: str, tmp_path: Path) -> None:
    settings = on_postgres(postgres_url)
    async with open_postgres_store(tmp_path, settings=settings):
        pass
    with psycopg.connect(postgres_url) as connection:
        connection.execute("INSERT INTO migration VALUES (1000, 0, 'x')")
    with pytest.raises(SetupError, match="has schema 1000"):
        async with open_postgres_store(tmp_path, settings=settings):
            pass


async def test_an_edited_migration_is_refused(postgres_url: str, tmp_path: Path) -> None:
    settings = on_postgres(postgres_url)
    async with open_postgres_store(tmp_path, settings=settings):
        pass
    with psycopg.connect(postgres_url) as connection:
        connection.execute("UPDATE migration SET checksum = 'x' WHERE id = 2")
    with pytest.raises(SetupError, match="Migration 2"):
        async with open_postgres_store(tmp_path, settings=settings):
            pass


async def test_the_number_of_partitions_is_fixed_at_the_first_start(postgres_url: str, tmp_path: Path) -> None:
    for parts in (3, 5):
        settings = StoreSettings(kind="postgres", url=Secret(postgres_url), parts=parts)
        async with open_postgres_store(tmp_path, settings=settings) as store:
            assert store.parts == 3


async def test_a_server_that_is_not_there_is_a_setup_error_without_the_password(tmp_path: Path) -> None:
    settings = StoreSettings(kind="postgres", url=Secret("postgresql://name:geheim@127.0.0.1:1/none"))
    with pytest.raises(SetupError) as caught:
        async with open_postgres_store(tmp_path, settings=settings):
            pass
    assert "geheim" not in f"{caught.value} {caught.value.hint}"


async def test_without_psycopg_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    settings = StoreSettings(kind="postgres", url=Secret("postgresql://name@127.0.0.1:1/none"))
    with pytest.raises(SetupError) as caught:
        async with open_postgres_store(tmp_path, settings=settings):
            pass
    assert "memoryrouter[postgres]" in caught.value.hint


def test_psycopg_is_not_imported_before_it_is_needed() -> None:
    program = "import sys, actors.store.postgres.store; sys.exit('psycopg' in sys.modules)"
    root = Path(__file__).parents[4]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, check=False
    )
    assert done.returncode == 0


def rows_of(url: str, vault_number: int) -> int:
    """How many memories are in the table."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM memory WHERE id >> 32 = %s", (vault_number,)).fetchone()
    return int(row[0]) if row else 0


async def user_key(store: PostgresStore) -> Principal:
    """A user key of account 1."""
    return await store.create_key(1, name="user", key_hash=hash_key("mk_user"), shown="mk_user", created_ms=2000)
