"""A connection that breaks at a COMMIT: nothing is lost, nothing is there twice, whoever waits hears the truth."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import psycopg
import pytest

from actors.store.postgres import writer
from actors.store.postgres.store import PostgresStore, open_postgres_store
from models.errors import StoreUnavailable
from models.ids import VaultRef, hash_key
from models.provider_settings import Secret
from tests.actors.store.conftest import on_postgres
from tests.actors.store.postgres.cutting_proxy import AFTER, BEFORE, LATE, CuttingProxy, cutting_proxy
from tests.actors.store.samples import accept, new_account, stored, texts_of
from tests.postgres import PostgresServer

CUTS = [(BEFORE,), (AFTER,), (LATE,), (BEFORE, BEFORE), (AFTER, BEFORE), (AFTER, AFTER), (BEFORE, AFTER), (LATE, AFTER)]


@pytest.fixture
def proxy(postgres_server: PostgresServer) -> Iterator[CuttingProxy]:
    with cutting_proxy(postgres_server.port) as opened:
        yield opened


@pytest.fixture
async def store(proxy: CuttingProxy, prepared_url: str, tmp_path: Path) -> AsyncIterator[PostgresStore]:
    url = Secret(f"postgresql://postgres@127.0.0.1:{proxy.port}/{prepared_url.rpartition('/')[2]}")
    settings = msgspec.structs.replace(on_postgres(prepared_url), url=url)
    async with open_postgres_store(tmp_path, settings=settings) as opened:
        yield opened


@pytest.fixture
async def vault(store: PostgresStore) -> VaultRef:
    return (await new_account(store)).vault


@pytest.mark.parametrize("cuts", CUTS, ids="-".join)
async def test_a_write_into_a_vault_happens_once(
    store: PostgresStore, vault: VaultRef, proxy: CuttingProxy, cuts: tuple[str, ...]
) -> None:
    await stored(store, vault, "before")
    proxy.plan(*cuts)
    rows = await stored(store, vault, "one", "two")
    assert proxy.cuts == len(cuts)
    later = await stored(store, vault, "after")
    assert await texts_of(store, vault) == ([], ["before", "one", "two", "after"])
    assert rows[-1].row_id < later[0].row_id


@pytest.mark.parametrize("cuts", CUTS, ids="-".join)
async def test_a_change_of_the_directory_happens_once(
    store: PostgresStore, vault: VaultRef, proxy: CuttingProxy, cuts: tuple[str, ...]
) -> None:
    proxy.plan(*cuts)
    key_hash = hash_key("mk_user")
    principal = await store.create_key(1, name="user", key_hash=key_hash, shown="mk_user", created_ms=2000)
    assert proxy.cuts == len(cuts)
    assert await store.find_key(key_hash) == principal
    assert [record.number for record in await store.list_keys(1)] == [1, principal.key_number] == [1, 2]
    entries = await store.list_audit(1)
    assert [entry.action for entry in entries].count("key.created") == 2, "the account's and this one"


async def test_a_commit_that_had_happened_is_followed_by_a_write_of_its_own(
    store: PostgresStore, vault: VaultRef, proxy: CuttingProxy, prepared_url: str
) -> None:
    await stored(store, vault, "before")
    before = commits_of(prepared_url, vault)
    proxy.plan(AFTER)
    await stored(store, vault, "one")
    assert commits_of(prepared_url, vault) == before + 2


async def test_a_commit_that_had_not_happened_is_done_under_the_same_number(
    store: PostgresStore, vault: VaultRef, proxy: CuttingProxy, prepared_url: str
) -> None:
    await stored(store, vault, "before")
    before = commits_of(prepared_url, vault)
    proxy.plan(BEFORE)
    await stored(store, vault, "one")
    assert commits_of(prepared_url, vault) == before + 1


async def test_jobs_that_shared_the_lost_transaction_all_happen_once(
    store: PostgresStore, vault: VaultRef, proxy: CuttingProxy
) -> None:
    proxy.plan(AFTER)
    commits = [accept(store, vault, f"text {number}") for number in range(5)]
    for commit in commits:
        await commit.wait_durable()
    assert sorted((await texts_of(store, vault))[1]) == [f"text {number}" for number in range(5)]


@pytest.mark.parametrize("cut", [BEFORE, AFTER])
async def test_who_cannot_be_told_the_truth_in_time_is_told_that_nobody_knows(
    store: PostgresStore, vault: VaultRef, proxy: CuttingProxy, cut: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "DOUBT_S", 0.0)
    await stored(store, vault, "before")
    proxy.plan_outage(cut)
    with pytest.raises(StoreUnavailable, match="may or may not be stored"):
        await accept(store, vault, "in doubt").wait_durable()
    proxy.refuses = proxy.refuses_after_cut = False
    await stored(store, vault, "after")
    assert (await texts_of(store, vault))[1] == ["before", *(["in doubt"] if cut == AFTER else []), "after"]


def commits_of(url: str, vault: VaultRef) -> int:
    """How many transactions the vault's partition has seen."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT commits FROM part WHERE part = %s", (vault.shard,)).fetchone()
    assert row is not None
    return int(row[0])
