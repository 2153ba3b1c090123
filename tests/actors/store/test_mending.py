"""Mending: what can be repaired is, nothing that opens is touched, and an accepted loss lets the rest go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.store.counter import read_counter
from actors.store.doctor import verify
from actors.store.mending import Loss, accept_loss, repair
from actors.store.sqlite import open_store
from models.errors import SetupError
from tests.actors.store.harm import SETTINGS, captured, query
from tests.actors.store.samples import MODEL, new_account, new_vault, remembered, stored, texts_of
from tests.actors.store.test_counter import crashed_with_a_short_wal
from tests.actors.store.test_doctor import HARMS, prepared, said

NOW_MS = 1_800_000_000_000
REPAIRABLE = ["embedding", "no counter", "orphans", "loose embedding", "no ledger", "undone erasure", "rotation"]


@pytest.mark.parametrize("harm", REPAIRABLE)
async def test_what_is_called_repairable_is_repaired(tmp_path: Path, harm: str) -> None:
    vault = await prepared(tmp_path)
    HARMS[harm][0](tmp_path, vault)
    report = verify(tmp_path)
    assert report.repairable, said(report)
    repair(tmp_path, now_ms=NOW_MS)
    report = verify(tmp_path)
    assert report.findings == (), said(report)


async def test_repairing_a_healthy_directory_does_nothing(tmp_path: Path) -> None:
    await prepared(tmp_path)
    rows = [
        ("meta.db", "SELECT * FROM vault_key ORDER BY vault"),
        ("shard-00.db", "SELECT * FROM memory ORDER BY id"),
        ("shard-00.db", "SELECT * FROM embedding ORDER BY id"),
        ("shard-01.db", "SELECT * FROM inbox ORDER BY id"),
    ]
    before = [query(tmp_path / name, statement) for name, statement in rows]
    assert repair(tmp_path, now_ms=NOW_MS) == []
    assert [query(tmp_path / name, statement) for name, statement in rows] == before


async def test_a_repair_says_what_it_did_and_keeps_what_it_cannot_mend(tmp_path: Path) -> None:
    vault = await prepared(tmp_path)
    for harm in ("memory", "inbox", "embedding"):
        HARMS[harm][0](tmp_path, vault)
    assert repair(tmp_path, now_ms=NOW_MS) == [
        "Removed 100 damaged embeddings, which are computed again from shard-00.db."
    ]
    assert query(tmp_path / "shard-00.db", "SELECT count(*) FROM memory WHERE id >> 32 = ?", vault.number) == [(100,)]
    async with open_store(tmp_path, settings=SETTINGS) as store:
        image = await store.load_vault(vault, model_id=MODEL)
        assert (len(image.memories), len(image.vectors)) == (99, 0)


async def test_a_damaged_shard_is_left_alone_by_a_repair(tmp_path: Path) -> None:
    copy, _, _ = await crashed_with_a_short_wal(tmp_path, "shard-00.db")
    before = captured(copy)
    (sentence,) = repair(copy, now_ms=NOW_MS)
    assert sentence.startswith("Left shard-00.db alone")
    after = captured(copy)
    assert all(after[name] == before[name] for name in before if name.startswith("shard-00"))


async def test_repairs_need_the_directory_for_themselves(tmp_path: Path) -> None:
    await prepared(tmp_path)
    async with open_store(tmp_path, settings=SETTINGS):
        with pytest.raises(SetupError, match="in use"):
            repair(tmp_path, now_ms=NOW_MS)
        with pytest.raises(SetupError, match="in use"):
            accept_loss(tmp_path, now_ms=NOW_MS)
    with pytest.raises(SetupError, match="no data directory"):
        repair(tmp_path / "elsewhere", now_ms=NOW_MS)


async def test_an_accepted_loss_lets_a_shard_serve_what_is_left(tmp_path: Path) -> None:
    copy, first, second = await crashed_with_a_short_wal(tmp_path, "shard-00.db")
    wanted = read_counter(copy / "hwm" / "shard-00")
    assert wanted == 6
    (copy / "snap").mkdir()
    (loss,) = accept_loss(copy, now_ms=NOW_MS)
    assert loss.name == "shard-00.db"
    assert 1 <= loss.commits < 6
    assert not (copy / "snap").exists(), "an index may know of what is lost"
    assert accept_loss(copy, now_ms=NOW_MS) == []
    async with open_store(copy, settings=SETTINGS) as store:
        assert store.statistics()["shards_damaged"] == 0
        _, inbox = await texts_of(store, first)
        assert inbox == [f"first {number}" for number in range(6 - loss.commits)]
        assert len((await texts_of(store, second))[1]) == 6
        (row,) = await stored(store, first, "new")
        assert row.row_id >> 20 > wanted, "row ids go on where they were"
    assert verify(copy).healthy


async def test_an_accepted_loss_of_meta_db_gives_no_number_out_twice(tmp_path: Path) -> None:
    copy, first, _ = await crashed_with_a_short_wal(tmp_path, "meta.db")
    async with open_store(tmp_path / "data", settings=SETTINGS) as store:
        late = await new_vault(store, "mk_late")
    ((highest,),) = query(copy / "shard-00.db", "SELECT max(vault) FROM inbox")
    (loss,) = accept_loss(copy, now_ms=NOW_MS)
    assert (loss.name, loss.moved_to) == ("meta.db", "")
    async with open_store(copy, settings=SETTINGS) as store:
        assert len((await texts_of(store, first))[1]) == 6
        assert isinstance(highest, int)
        assert (await new_vault(store, "mk_new")).number > highest
    assert late.number > 0


@pytest.mark.parametrize("harm", ["missing", "garbage"])
async def test_a_shard_that_is_gone_begins_anew_and_what_is_there_is_kept(tmp_path: Path, harm: str) -> None:
    async with open_store(tmp_path, settings=SETTINGS) as store:
        await new_account(store)
        vault = await new_vault(store, "mk_a")
        await remembered(store, vault, "a")
    path = tmp_path / f"shard-{vault.shard:02d}.db"
    commits = read_counter(tmp_path / "hwm" / path.stem)
    path.unlink()
    if harm == "garbage":
        path.write_bytes(b"garbage " * 1000)
    moved_to = f"{path.name}.damaged-{NOW_MS}" if harm == "garbage" else ""
    assert accept_loss(tmp_path, now_ms=NOW_MS) == [Loss(name=path.name, commits=commits or 0, moved_to=moved_to)]
    if moved_to:
        assert (tmp_path / moved_to).read_bytes() == b"garbage " * 1000
    async with open_store(tmp_path, settings=SETTINGS) as store:
        assert await texts_of(store, vault) == ([], [])
        await remembered(store, vault, "b")
    assert verify(tmp_path).healthy


@pytest.mark.parametrize("harm", ["missing", "garbage"])
async def test_nothing_goes_on_without_meta_db(tmp_path: Path, harm: str) -> None:
    await prepared(tmp_path)
    (tmp_path / "meta.db").unlink()
    if harm == "garbage":
        (tmp_path / "meta.db").write_bytes(b"garbage " * 1000)
    with pytest.raises(SetupError):
        accept_loss(tmp_path, now_ms=NOW_MS)
