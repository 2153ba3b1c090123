"""Damaged rows: left out, counted, logged without content, set aside if they are in the inbox, and never deleted."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.store.damage import ROW_IDS_LOGGED_MAX, DamagedRows, log_damaged_rows
from actors.store.sqlite import open_store
from models.ids import VaultRef
from tests.actors.store.harm import SETTINGS, captured, change, query
from tests.actors.store.samples import MODEL, memory, new_account, remembered, step, stored, texts_of


async def prepared(data_dir: Path, *, memories: int = 3, inbox: int = 3) -> tuple[VaultRef, Path]:
    """A vault with memories m1.. and inbox rows i1.., and its shard's file."""
    async with open_store(data_dir, settings=SETTINGS) as store:
        vault = (await new_account(store)).vault
        await remembered(store, vault, *(f"m{number}" for number in range(1, memories + 1)))
        await stored(store, vault, *(f"i{number}" for number in range(1, inbox + 1)))
    return vault, data_dir / f"shard-{vault.shard:02d}.db"


async def test_a_damaged_memory_is_left_out_and_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    vault, shard = await prepared(tmp_path)
    row_id = vault.number << 32 | 2
    assert change(shard, "UPDATE memory SET body = flip(body) WHERE id = ?", row_id) == 1
    async with open_store(tmp_path, settings=SETTINGS) as store:
        for times in (1, 2):
            image = await store.load_vault(vault, model_id=MODEL)
            assert [found.content for found in image.memories] == ["m1", "m3"]
            assert (image.damaged, image.next_seq) == (1, 4)
            assert store.statistics()["rows_damaged_on_load"] == times
        assert f"vault {vault.number}: 1 damaged memory rows, left out: {row_id}" in caplog.text
        assert "m2" not in caplog.text
        rows = tuple(row.row_id for row in image.inbox)
        await store.materialise(vault, step(rows, memory(4, "i"), next_seq=5))  # the vault goes on
        assert (await texts_of(store, vault))[0] == ["m1", "m3", "i"]
    assert query(shard, "SELECT count(*) FROM memory WHERE id = ?", row_id) == [(1,)]


async def test_a_damaged_inbox_row_is_set_aside_for_good(tmp_path: Path) -> None:
    vault, shard = await prepared(tmp_path)
    ((row_id, body),) = query(shard, "SELECT id, body FROM inbox ORDER BY id LIMIT 1 OFFSET 1")
    assert isinstance(row_id, int)
    change(shard, "UPDATE inbox SET body = flip(body) WHERE id = ?", row_id)
    ((damaged_body,),) = query(shard, "SELECT body FROM inbox WHERE id = ?", row_id)
    assert damaged_body != body
    async with open_store(tmp_path, settings=SETTINGS) as store:
        image = await store.load_vault(vault, model_id=MODEL)
        assert ([row.exchange.messages[0].content for row in image.inbox], image.damaged) == (["i1", "i3"], 1)
        assert query(shard, "SELECT id, vault, body FROM damaged_inbox") == [(row_id, vault.number, damaged_body)]
        assert query(shard, "SELECT count(*) FROM inbox") == [(2,)]
        assert (await store.load_vault(vault, model_id=MODEL)).damaged == 0
        rows = tuple(row.row_id for row in image.inbox)
        await store.materialise(vault, step(rows, memory(4, "i"), next_seq=5))
        assert await store.vaults_with_inbox() == []
    assert query(shard, "SELECT count(*) FROM damaged_inbox") == [(1,)]


async def test_a_shredded_vault_takes_its_damaged_inbox_rows_with_it(tmp_path: Path) -> None:
    vault, shard = await prepared(tmp_path)
    change(shard, "UPDATE inbox SET body = flip(body)")
    async with open_store(tmp_path, settings=SETTINGS) as store:
        await store.load_vault(vault, model_id=MODEL)
        assert query(shard, "SELECT count(*) FROM damaged_inbox") == [(3,)]
        await store.replace_vault(vault)
        while query(tmp_path / "meta.db", "SELECT state FROM vault WHERE number = ?", vault.number) != [(2,)]:
            await store.has_account()
    assert query(shard, "SELECT count(*) FROM damaged_inbox") == [(0,)]


async def test_a_damaged_embedding_is_computed_again(tmp_path: Path) -> None:
    vault, shard = await prepared(tmp_path, inbox=0)
    change(shard, "UPDATE embedding SET body = flip(body) WHERE id = ?", vault.number << 32 | 2)
    async with open_store(tmp_path, settings=SETTINGS) as store:
        image = await store.load_vault(vault, model_id=MODEL)
        assert (sorted(image.vectors), len(image.memories)) == ([1, 3], 3)
        again = step((), next_seq=4)
        await store.materialise(vault, type(again)((), (), {2: image.vectors[1]}, MODEL, 4))
        image = await store.load_vault(vault, model_id=MODEL)
        assert (sorted(image.vectors), image.damaged) == ([1, 2, 3], 0)


async def test_a_damaged_width_of_a_model_mends_itself(tmp_path: Path) -> None:
    vault, shard = await prepared(tmp_path, inbox=0)
    change(shard, "UPDATE model SET dims = 3")
    async with open_store(tmp_path, settings=SETTINGS) as store:
        assert (await store.load_vault(vault, model_id=MODEL)).damaged == 3
        await store.materialise(vault, step((), memory(4, "m4"), next_seq=5))
        image = await store.load_vault(vault, model_id=MODEL)
        assert (image.damaged, len(image.vectors)) == (0, 4)


async def test_a_seq_is_not_taken_twice_when_the_vaults_counter_is_damaged(tmp_path: Path) -> None:
    vault, shard = await prepared(tmp_path)
    change(shard, "UPDATE vault_state SET next_seq = 1")
    async with open_store(tmp_path, settings=SETTINGS) as store:
        assert (await store.load_vault(vault, model_id=MODEL)).next_seq == 4


async def test_a_whole_vault_has_no_damage(tmp_path: Path) -> None:
    vault, _ = await prepared(tmp_path)
    async with open_store(tmp_path, settings=SETTINGS) as store:
        assert (await store.load_vault(vault, model_id=MODEL)).damaged == 0
        assert store.statistics()["rows_damaged_on_load"] == 0
    assert all(b"m1" not in content for content in captured(tmp_path).values())


def test_a_log_line_names_a_few_rows_and_how_many_there_are(caplog: pytest.LogCaptureFixture) -> None:
    log_damaged_rows(7, DamagedRows(memories=tuple(range(1000, 1100))))
    assert "100 damaged memory rows" in caplog.text
    assert caplog.text.count("10") < ROW_IDS_LOGGED_MAX + 5
    assert "1050" not in caplog.text
