"""Erasures and their ledger: written before the answer, made equal at the start, and never undone by an older file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from actors.store.ledger import key_id, read_ledger
from actors.store.sqlite import open_store
from models.errors import NotFound, StoreUnavailable
from models.ids import hash_key
from tests.actors.store.harm import SETTINGS, query
from tests.actors.store.samples import (
    new_account,
    new_vault,
    remembered,
    revoke,
    texts_of,
)

NOW_MS = 1_800_000_000_000


async def test_a_shredding_and_a_revocation_are_in_the_ledger_when_they_are_answered(tmp_path: Path) -> None:
    ledger = tmp_path / "erasure.log"
    async with open_store(tmp_path, settings=SETTINGS, now_ms=lambda: NOW_MS) as store:
        await new_account(store)
        vault = await new_vault(store, "mk_a")
        await store.replace_vault(vault)
        assert list(read_ledger(ledger).vaults) == [(vault.number, 2000)]
        assert query(tmp_path / "meta.db", "SELECT * FROM erasure") == [(vault.number, NOW_MS)]
        key = await store.find_key(hash_key("mk_a"))
        assert key is not None
        await revoke(store, key, now_ms=5)
        assert list(read_ledger(ledger).keys) == [key_id(hash_key("mk_a"))]
        with pytest.raises(NotFound):
            await revoke(store, key, now_ms=6)
        await store.replace_account_key(1, key_hash=hash_key("mk_new"), shown="mk_new", created_ms=7)
        assert set(read_ledger(ledger).keys) == {key_id(hash_key("mk_a")), key_id(hash_key("mk_account"))}
        assert store.statistics()["erasures_owed"] == 0
    assert ledger.read_bytes().count(b"\n") == 3


async def test_an_erasure_without_its_ledger_line_is_not_confirmed(tmp_path: Path) -> None:
    ledger = tmp_path / "erasure.log"
    async with open_store(tmp_path, settings=SETTINGS) as store:
        await new_account(store)
        vault = await new_vault(store, "mk_a")
        await remembered(store, vault, "a")
        ledger.mkdir()
        with pytest.raises(StoreUnavailable, match="ledger could not be written"):
            await store.replace_vault(vault)
        assert store.statistics()["erasures_owed"] == 1
        assert await texts_of(store, vault) == ([], [])  # erased it is
        key = await store.find_key(hash_key("mk_a"))
        assert key is not None
        with pytest.raises(StoreUnavailable):
            await revoke(store, key, now_ms=5)
        ledger.rmdir()
        await store.replace_vault(key.vault)
        assert store.statistics()["erasures_owed"] == 0
    found = read_ledger(ledger)
    assert {number for number, _ in found.vaults} == {vault.number, key.vault.number}
    assert len(found.keys) == 1


async def test_an_erasure_that_only_the_database_knows_goes_into_the_ledger_at_the_start(tmp_path: Path) -> None:
    async with open_store(tmp_path, settings=SETTINGS) as store:
        await new_account(store)
        vault = await new_vault(store, "mk_a")
        await store.replace_vault(vault)
    ledger = tmp_path / "erasure.log"
    before = read_ledger(ledger)
    ledger.unlink()  # as a crash between the commit and the ledger leaves it
    async with open_store(tmp_path, settings=SETTINGS):
        pass
    assert read_ledger(ledger) == before
    size_bytes = ledger.stat().st_size
    async with open_store(tmp_path, settings=SETTINGS):
        pass
    assert ledger.stat().st_size == size_bytes, "and only once"


async def test_an_older_meta_db_does_not_bring_back_what_was_erased(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data_dir = tmp_path / "data"
    async with open_store(data_dir, settings=SETTINGS) as store:
        await new_account(store)
        vault, other = await new_vault(store, "mk_a"), await new_vault(store, "mk_b")
        await remembered(store, vault, "erased")
        await remembered(store, other, "kept")
    shutil.copy(data_dir / "meta.db", tmp_path / "older.db")
    async with open_store(data_dir, settings=SETTINGS) as store:
        await store.replace_vault(vault)
        later = await new_vault(store, "mk_later")
        await store.replace_vault(later)
        key = await store.find_key(hash_key("mk_b"))
        assert key is not None
        await revoke(store, key, now_ms=9)
    shutil.copy(tmp_path / "older.db", data_dir / "meta.db")  # by hand, without `restore`
    (data_dir / "hwm" / "meta").unlink()
    async with open_store(data_dir, settings=SETTINGS) as store:
        assert "meta.db is older than the erasure ledger: 1 vaults were shredded and 1 keys revoked" in caplog.text
        assert await texts_of(store, vault) == ([], [])
        found = await store.find_key(hash_key("mk_a"))
        assert found is not None
        assert found.vault != vault
        assert await store.find_key(hash_key("mk_b")) is None
        assert await texts_of(store, other) == (["kept"], [])
        assert (await new_vault(store, "mk_new")).number > later.number, "numbers are never given out twice"
