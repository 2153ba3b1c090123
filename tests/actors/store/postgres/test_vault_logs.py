"""Vaults in the store on PostgreSQL: what is particular to it, beside what every store promises."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from actors.store.postgres.inserts import PostgresBatch
from actors.store.postgres.store import PostgresStore, open_postgres_store
from actors.store.tickets import Batch, Ticket
from models.errors import StoreUnavailable
from models.ids import VaultRef
from tests.actors.store.conftest import on_postgres
from tests.actors.store.samples import MODEL, accept, memory, new_account, new_vault, remembered, step, stored, texts_of


@pytest.fixture
async def store(tmp_path: Path, postgres_url: str) -> AsyncIterator[PostgresStore]:
    async with open_postgres_store(tmp_path, settings=on_postgres(postgres_url)) as opened:
        yield opened


@pytest.fixture
async def vault(store: PostgresStore) -> VaultRef:
    return (await new_account(store)).vault


async def test_a_row_that_is_refused_at_the_end_spoils_none_of_its_neighbours(
    store: PostgresStore, vault: VaultRef
) -> None:
    """Inbox rows are sent together, so the server says no when all jobs have run."""
    (row,) = await stored(store, vault, "a")

    def work(batch: Batch) -> None:
        assert isinstance(batch, PostgresBatch)
        batch.append([(vault.shard, vault.number, row.row_id, b"twice")])

    before = accept(store, vault, "b")
    twice = store._committer(vault).put_nowait(Ticket(work, part=vault.shard))
    after = accept(store, vault, "c")
    await before.wait_durable()
    await after.wait_durable()
    with pytest.raises(StoreUnavailable):
        await twice.wait()
    assert await texts_of(store, vault) == ([], ["a", "b", "c"])


async def test_rows_of_many_jobs_get_ids_in_their_order(store: PostgresStore, vault: VaultRef) -> None:
    rows = [accept(store, vault, f"text {number}") for number in range(9)]
    for commit in rows:
        await commit.wait_durable()
    image = await store.load_vault(vault, model_id=MODEL)
    assert [row.exchange.messages[0].content for row in image.inbox] == [f"text {number}" for number in range(9)]


async def test_a_model_is_registered_once_for_all_partitions(
    store: PostgresStore, vault: VaultRef, postgres_url: str
) -> None:
    other = await new_vault(store, "mk_other")
    assert other.shard != vault.shard
    for each in (vault, other):
        await remembered(store, each, "a")
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT number, id FROM model").fetchall() == [(1, MODEL)]
        assert connection.execute("SELECT DISTINCT model FROM embedding").fetchall() == [(1,)]


async def test_vaults_are_asked_for_by_partition(store: PostgresStore, vault: VaultRef) -> None:
    """For a node that has just taken one."""
    other = await new_vault(store, "mk_other")
    for each in (vault, other):
        await stored(store, each, "a")
        await store.choose_embedder(each, "two")
    assert await store.vaults_with_inbox([vault.shard]) == await store.vaults_moving([vault.shard]) == [vault]
    assert await store.vaults_with_inbox([]) == await store.vaults_moving([]) == []
    assert len(await store.vaults_with_inbox()) == len(await store.vaults_moving()) == 2


async def test_damaged_inbox_rows_are_set_aside_when_they_are_found(
    store: PostgresStore, vault: VaultRef, postgres_url: str
) -> None:
    await stored(store, vault, "a", "b")
    await store.materialise(vault, step((), memory(1, "c"), next_seq=2))
    with psycopg.connect(postgres_url) as connection:
        connection.execute("UPDATE inbox SET body = '\\x00' WHERE id = (SELECT min(id) FROM inbox)")
    image = await store.load_vault(vault, model_id=MODEL)
    assert (image.damaged, len(image.inbox), len(image.memories)) == (1, 1, 1)
    assert store.statistics()["rows_damaged_on_load"] == 1
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT body FROM damaged_inbox").fetchall() == [(b"\x00",)]
        assert connection.execute("SELECT count(*) FROM inbox").fetchone() == (1,)
    assert (await store.load_vault(vault, model_id=MODEL)).damaged == 0
