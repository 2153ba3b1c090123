"""The background scrub finds what nobody asked for, a little at a time, and names no content."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio

from actors.store.connections import open_reader
from actors.store.keyring import KeyRing
from actors.store.scrub import SLICE_ROWS, Scrub
from actors.store.seal import load_server_key
from actors.store.sqlite import SqliteStore, open_store
from models.ids import VaultRef
from tests.actors.store.harm import SETTINGS, change
from tests.actors.store.samples import new_account, new_vault, remembered, stored
from tests.patience import PATIENCE_S

QUICK = msgspec.structs.replace(SETTINGS, shards=1, scrub_interval_s=0.001)


async def prepared(data_dir: Path, *, memories: int) -> tuple[VaultRef, Path]:
    """A vault with memories and one inbox row, in a directory with one shard."""
    settings = msgspec.structs.replace(QUICK, scrub_interval_s=0)
    async with open_store(data_dir, settings=settings) as store:
        vault = (await new_account(store)).vault
        await remembered(store, vault, *(f"secret {number}" for number in range(memories)))
        await stored(store, vault, "secret in the inbox")
    return vault, data_dir / "shard-00.db"


async def passes(store: SqliteStore, number: int) -> None:
    """Wait until the scrub has been through so often."""
    with trio.fail_after(PATIENCE_S):
        while store.statistics()["shards"][0]["scrub_passes"] < number:
            await trio.lowlevel.checkpoint()


async def test_a_pass_reads_every_sealed_row_and_then_begins_again(tmp_path: Path) -> None:
    await prepared(tmp_path, memories=2 * SLICE_ROWS + 1)
    async with open_store(tmp_path, settings=QUICK) as store:
        await passes(store, 1)
        statistics = store.statistics()["shards"][0]
        assert statistics["scrub_rows"] >= 2 * (2 * SLICE_ROWS + 1) + 1
        assert statistics["scrub_damaged_rows"] == 0
        await passes(store, 2)


async def test_every_kind_of_damaged_row_is_counted_and_logged_without_content(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    vault, shard = await prepared(tmp_path, memories=100)
    damaged = vault.number << 32 | 90
    for table in ("memory", "embedding"):
        change(shard, f"UPDATE {table} SET body = flip(body) WHERE id = ?", damaged)
    change(shard, "UPDATE inbox SET body = flip(body)")
    async with open_store(tmp_path, settings=QUICK) as store:
        await passes(store, 1)
        statistics = store.statistics()
        assert statistics["shards"][0]["scrub_damaged_rows"] == 3
        assert statistics["rows_damaged_in_scrub"] == 3
    assert f"row {damaged} of memory in vault {vault.number} is damaged" in caplog.text
    assert f"row {damaged} of embedding in vault {vault.number} is damaged" in caplog.text
    assert "secret" not in caplog.text


async def test_rows_of_shredded_vaults_are_no_damage(tmp_path: Path) -> None:
    async with open_store(tmp_path, settings=QUICK) as store:
        await new_account(store)
        for number in range(3):
            vault = await new_vault(store, f"mk_{number}")
            await remembered(store, vault, *map(str, range(300)))
            await store.replace_vault(vault)
        await passes(store, store.statistics()["shards"][0]["scrub_passes"] + 2)
        assert store.statistics()["rows_damaged_in_scrub"] == 0


async def test_the_scrub_goes_on_beside_a_steady_load(tmp_path: Path) -> None:
    vault, _ = await prepared(tmp_path, memories=10)
    async with open_store(tmp_path, settings=QUICK) as store:
        with trio.fail_after(PATIENCE_S):
            while store.statistics()["shards"][0]["scrub_passes"] < 1:
                await stored(store, vault, "a")


async def test_no_interval_no_scrub(tmp_path: Path) -> None:
    vault, _ = await prepared(tmp_path, memories=1)
    async with open_store(tmp_path, settings=SETTINGS) as store:
        await stored(store, vault, "a")
        assert "scrub_rows" not in store.statistics()["shards"][0]
        assert store.statistics()["rows_damaged_in_scrub"] == 0


async def test_a_vault_whose_key_is_damaged_stops_no_pass(tmp_path: Path) -> None:
    vault, shard = await prepared(tmp_path, memories=3 * SLICE_ROWS)
    change(tmp_path / "meta.db", "UPDATE vault_key SET wrapped = flip(wrapped) WHERE vault = ?", vault.number)
    scrub = make_scrub(tmp_path, shard, interval_s=0.0)
    for _ in range(20):
        scrub.do_slice()
    assert scrub.statistics()["scrub_passes"] >= 1
    scrub.close()


async def test_the_pace_spreads_a_pass_over_its_interval(tmp_path: Path) -> None:
    _, shard = await prepared(tmp_path, memories=5 * SLICE_ROWS)
    scrub = make_scrub(tmp_path, shard, interval_s=86_400.0)
    assert scrub.due_s > time.monotonic() + 30
    for number in (1, 2):
        pauses_s = []
        while scrub.statistics()["scrub_passes"] < number:
            before_s = time.monotonic()
            scrub.do_slice()
            pauses_s.append(scrub.due_s - before_s)
    scrub.close()
    assert 10 < len(pauses_s) < 16
    assert 86_400 / 2 < sum(pauses_s[:-1]) < 86_400


def make_scrub(data_dir: Path, shard: Path, *, interval_s: float) -> Scrub:
    """A scrub without a committer."""
    key = load_server_key(data_dir / "server.key", may_create=False)
    keyring = KeyRing(key, partial(open_reader, data_dir / "meta.db"), entries_max=1)
    return Scrub("shard-00", partial(open_reader, shard), keyring.peek, interval_s=interval_s)
