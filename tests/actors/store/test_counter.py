"""The commit counter: a database that lost commits, or is gone, refuses to serve; its neighbours serve on."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.store.counter import CommitCounter, counter_path, read_counter, write_counter
from actors.store.sqlite import SqliteStore, open_store
from models.errors import SetupError, ShardDamaged, StoreUnavailable
from models.ids import VaultRef
from tests.actors.store.harm import SETTINGS, captured, copy_running, flip, query, shorten_wal
from tests.actors.store.samples import MODEL, accept, new_account, new_vault, remembered, stored, texts_of


def test_a_counter_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = counter_path(tmp_path / "shard-00.db")
    assert path == tmp_path / "hwm" / "shard-00"
    assert read_counter(path) is None
    write_counter(path, 7)
    assert read_counter(path) == 7
    counter = CommitCounter(path)
    counter.note(2**40)
    counter.close()
    assert read_counter(path) == 2**40
    assert path.stat().st_size == 16


def test_a_counter_that_fails_its_checksum_proves_nothing(tmp_path: Path) -> None:
    path = counter_path(tmp_path / "meta.db")
    write_counter(path, 7)
    for offset in range(16):
        flip(path, offset)
        assert read_counter(path) is None
        flip(path, offset)
    path.write_bytes(path.read_bytes()[:9])
    assert read_counter(path) is None


async def two_vaults(store: SqliteStore) -> tuple[VaultRef, VaultRef]:
    """Vaults in shard 0 and in shard 1."""
    vaults = [(await new_account(store)).vault, await new_vault(store, "mk_user")]
    first, second = sorted(vaults, key=lambda vault: vault.shard)
    assert (first.shard, second.shard) == (0, 1)
    return first, second


async def test_the_counter_follows_every_commit(tmp_path: Path) -> None:
    async with open_store(tmp_path, settings=SETTINGS) as store:
        first, _ = await two_vaults(store)
        for number in range(5):
            await stored(store, first, str(number))
            ((commits,),) = query(tmp_path / "shard-00.db", "SELECT commits FROM commit_counter")
            assert read_counter(tmp_path / "hwm" / "shard-00") == commits == number + 1
        assert read_counter(tmp_path / "hwm" / "meta") == 2


async def crashed_with_a_short_wal(tmp_path: Path, name: str) -> tuple[Path, VaultRef, VaultRef]:
    """A directory in which the WAL of one database was damaged after a crash."""
    async with open_store(tmp_path / "data", settings=SETTINGS) as store:
        first, second = await two_vaults(store)
        for number in range(6):
            await stored(store, first, f"first {number}")
            await stored(store, second, f"second {number}")
            await new_vault(store, f"mk_{number}")
        copy = copy_running(tmp_path / "data", tmp_path / "copy")
    shorten_wal(copy / name)
    return copy, first, second


async def test_a_shard_with_a_shortened_wal_refuses_to_serve_and_the_others_serve_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy, first, second = await crashed_with_a_short_wal(tmp_path, "shard-00.db")
    before = captured(copy)
    async with open_store(copy, settings=SETTINGS) as store:
        assert "shard-00.db lost" in caplog.text
        assert any(record.levelname == "CRITICAL" for record in caplog.records)
        with pytest.raises(ShardDamaged) as refusal:
            accept(store, first, "a")
        assert (refusal.value.status, refusal.value.code) == (503, "shard_damaged")
        assert "accept-loss" in refusal.value.hint
        with pytest.raises(ShardDamaged):
            await store.load_vault(first, model_id=MODEL)
        with pytest.raises(ShardDamaged):
            await store.delete_memories(first, [1])
        statistics = store.statistics()
        assert (statistics["shards_damaged"], statistics["shards"][0]["damaged"]) == (1, True)
        await stored(store, second, "more")
        assert len((await texts_of(store, second))[1]) == 7
        assert await store.vaults_with_inbox() == [second]
        for number in range(4):  # new vaults keep away from it
            assert (await new_vault(store, f"mk_new_{number}")).shard == 1
        await store.replace_vault(first)  # erasing needs only meta.db
    after = captured(copy)
    for name in ("shard-00.db", "shard-00.db-wal", "hwm/shard-00"):
        assert after[name] == before[name], f"{name} may be all that can be saved"


async def test_a_shortened_wal_of_meta_db_keeps_the_server_from_starting(tmp_path: Path) -> None:
    copy, _, _ = await crashed_with_a_short_wal(tmp_path, "meta.db")
    wal = (copy / "meta.db-wal").read_bytes()
    with pytest.raises(SetupError, match=r"meta\.db lost \d+ durable commits"):
        async with open_store(copy, settings=SETTINGS):
            pass
    assert (copy / "meta.db-wal").read_bytes() == wal


async def test_a_counter_that_lags_after_a_power_cut_is_set_right(tmp_path: Path) -> None:
    async with open_store(tmp_path, settings=SETTINGS) as store:
        first, _ = await two_vaults(store)
        await stored(store, first, "a", "b")
        await stored(store, first, "c")
    write_counter(tmp_path / "hwm" / "shard-00", 1)
    (tmp_path / "hwm" / "meta").unlink()
    async with open_store(tmp_path, settings=SETTINGS) as store:
        assert (await texts_of(store, first))[1] == ["a", "b", "c"]
        assert read_counter(tmp_path / "hwm" / "shard-00") == 2
        assert read_counter(tmp_path / "hwm" / "meta") == 2


@pytest.mark.parametrize("harm", ["missing", "garbage", "empty"])
async def test_a_shard_that_is_gone_is_not_made_anew(tmp_path: Path, harm: str) -> None:
    async with open_store(tmp_path, settings=SETTINGS) as store:
        first, second = await two_vaults(store)
        await remembered(store, first, "a")
        await remembered(store, second, "b")
    path = tmp_path / "shard-00.db"
    if harm == "missing":
        path.unlink()
        (tmp_path / "hwm" / "shard-00").unlink()
    else:
        path.write_bytes(b"no database " * 1000 if harm == "garbage" else b"")
    async with open_store(tmp_path, settings=SETTINGS) as store:
        with pytest.raises(ShardDamaged):
            await store.load_vault(first, model_id=MODEL)
        assert await texts_of(store, second) == (["b"], [])
    assert path.exists() == (harm != "missing")


async def test_nothing_is_acknowledged_into_a_file_that_was_removed(tmp_path: Path) -> None:
    async with open_store(tmp_path, settings=SETTINGS) as store:
        first, second = await two_vaults(store)
        await stored(store, first, "a")
        path = tmp_path / "shard-00.db"
        path.rename(tmp_path / "moved away")
        with pytest.raises(StoreUnavailable):
            await stored(store, first, "into nothing")
        assert not path.exists()
        await stored(store, second, "b")
        (tmp_path / "moved away").rename(path)
        await stored(store, first, "back again")
    async with open_store(tmp_path, settings=SETTINGS) as store:
        memories, inbox = await texts_of(store, first)
        assert memories == []
        assert [text for text in inbox if text != "into nothing"] == ["a", "back again"]


async def test_nothing_is_acknowledged_into_a_wal_that_was_removed(tmp_path: Path) -> None:
    async with open_store(tmp_path, settings=SETTINGS) as store:
        first, _ = await two_vaults(store)
        await stored(store, first, "a")
        (tmp_path / "shard-00.db-wal").unlink()
        with pytest.raises(StoreUnavailable):
            await stored(store, first, "into nothing")
        with pytest.raises(ShardDamaged):  # what it held is gone, and everybody is told
            await stored(store, first, "b")
        with pytest.raises(ShardDamaged):
            await store.load_vault(first, model_id=MODEL)
        assert store.statistics()["shards_damaged"] == 1


async def test_a_counter_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    path = tmp_path / "hwm" / "shard-00"
    async with open_store(tmp_path, settings=SETTINGS) as store:
        first, _ = await two_vaults(store)
        path.unlink()
        path.mkdir()
        await stored(store, first, "a")
        path.rmdir()
    async with open_store(tmp_path, settings=SETTINGS) as store:
        assert (await texts_of(store, first))[1] == ["a"]
