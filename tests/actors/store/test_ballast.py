"""A full disk: accepts fail, reads and deletes go on with the ballast's room, and nothing needs a restart."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from actors.store import ballast
from actors.store.ballast import DiskSpace
from actors.store.sqlite import SqliteStore, open_store
from actors.store.tickets import Batch, Ticket
from models.errors import MemoryRouterError, StorageFull
from models.ids import VaultRef, hash_key
from models.store_settings import StoreSettings
from tests.actors.store.samples import (
    MODEL,
    accept,
    memory,
    new_account,
    new_vault,
    remembered,
    step,
    stored,
    texts_of,
)
from tests.patience import PATIENCE_S

KIB = 1024
SETTINGS = StoreSettings(shards=1, ballast_bytes=512 * KIB, scrub_interval_s=0)
TEXT = "x" * 20_000


@pytest.fixture(autouse=True)
def quick_rechecks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the disk more often than a second, so that these tests need not wait."""
    monkeypatch.setattr(ballast, "RECHECK_S", 0.01)


def blocks(path: Path) -> int:
    """Bytes that a file really takes."""
    return path.stat().st_blocks * 512


async def test_the_ballast_stands_while_a_store_is_open(tmp_path: Path) -> None:
    path = tmp_path / "ballast"
    async with open_store(tmp_path, settings=SETTINGS) as store:
        assert blocks(path) >= 512 * KIB
        assert store.statistics()["ballast_bytes"] == 512 * KIB
    assert not path.exists()
    async with open_store(tmp_path, settings=StoreSettings(shards=1, ballast_bytes=0)) as store:
        assert not path.exists()
        assert store.statistics()["ballast_bytes"] == 0


async def test_a_ballast_that_finds_no_room_does_not_stop_the_start(tmp_path: Path) -> None:
    settings = StoreSettings(shards=1, ballast_bytes=2**60)
    async with open_store(tmp_path, settings=settings) as store:
        await stored(store, (await new_account(store)).vault, "a")
        assert store.statistics()["ballast_bytes"] == 0


def test_a_released_ballast_comes_back_with_the_room_and_stays_until_then(tmp_path: Path) -> None:
    space = DiskSpace(tmp_path, ballast_bytes=512 * KIB)
    space.prepare()
    space.release()
    space.release()
    assert space.statistics() == {"disk_full": True, "ballast_bytes": 0}
    assert (tmp_path / "ballast").stat().st_size == 0
    while space.refuses_growth():
        pass
    assert space.statistics() == {"disk_full": False, "ballast_bytes": 512 * KIB}


def test_a_disk_that_was_full_when_the_last_store_ended_is_looked_at_first(tmp_path: Path) -> None:
    (tmp_path / "ballast").touch()
    space = DiskSpace(tmp_path, ballast_bytes=2**60)
    space.prepare()
    assert space.full
    assert space.refuses_growth()
    space.close()
    assert (tmp_path / "ballast").exists()
    roomy = DiskSpace(tmp_path, ballast_bytes=512 * KIB)
    roomy.prepare()
    assert not roomy.full


async def limit(store: SqliteStore, pages: int) -> None:
    """Let the shard's database be full at so many pages."""

    def work(batch: Batch) -> None:
        batch.connection.execute(f"PRAGMA max_page_count = {pages:d}").fetchall()

    await store._databases[0].committer.run(Ticket(work))


async def fill(store: SqliteStore, vault: VaultRef) -> list[str]:
    """Accept until the disk is full; what was acknowledged."""
    acknowledged: list[str] = []
    for number in range(1000):
        text = f"{number} {TEXT}"
        try:
            await stored(store, vault, text)
        except StorageFull:
            return acknowledged
        acknowledged.append(text)
    raise AssertionError("the disk never filled up")


async def test_a_full_database_takes_deletes_and_then_memories_again(tmp_path: Path) -> None:
    """Without root: SQLite's own limit stands in for the disk's."""
    async with open_store(tmp_path, settings=SETTINGS) as store:
        await new_account(store)
        vault, other = await new_vault(store, "mk_a"), await new_vault(store, "mk_b")
        await remembered(store, vault, "kept", *(f"{number} {TEXT}" for number in range(4)))
        await limit(store, 60)
        acknowledged = await fill(store, other)
        assert (await texts_of(store, other))[1] == acknowledged
        await store.delete_memories(vault, [2, 3, 4, 5])
        assert (await texts_of(store, vault))[0] == ["kept"]
        await limit(store, 10_000)
        with trio.fail_after(PATIENCE_S):
            await eventually_stored(store, vault, "again")
        assert await texts_of(store, vault) == (["kept"], ["again"])


async def eventually_stored(store: SqliteStore, vault: VaultRef, text: str) -> None:
    """Accept until the store has noticed that there is room."""
    while True:
        try:
            await accept(store, vault, text).wait_durable()
        except StorageFull:
            continue
        return


async def test_one_commit_on_a_full_disk_refuses_only_what_grows(tmp_path: Path) -> None:
    async with open_store(tmp_path, settings=SETTINGS) as store:
        vault = (await new_account(store)).vault
        await remembered(store, vault, *(f"{number} {TEXT}" for number in range(4)))
        await limit(store, 30)
        outcomes: dict[str, str] = {}

        async def attempt(name: str, action: Callable[[], Awaitable[object]]) -> None:
            try:
                await action()
                outcomes[name] = "done"
            except MemoryRouterError as error:
                outcomes[name] = error.code

        async with trio.open_nursery() as nursery:  # all in one batch, most likely; the outcome is the same in any case
            nursery.start_soon(attempt, "accept", partial(stored, store, vault, *[TEXT] * 8))
            nursery.start_soon(attempt, "delete", partial(store.delete_memories, vault, [1]))
        assert outcomes == {"accept": "storage_full", "delete": "done"}


async def test_a_full_tmpfs(tmpfs: Path) -> None:
    """Fill a real disk, read, delete, materialise and shred on it, make room, and lose nothing."""
    async with open_store(tmpfs / "data", settings=SETTINGS) as store:
        await new_account(store)
        vault, doomed = await new_vault(store, "mk_a"), await new_vault(store, "mk_b")
        await remembered(store, doomed, *(f"{number} {TEXT}" for number in range(20)))
        early = await stored(store, vault, "early")
        acknowledged = await fill(store, vault)
        assert store.statistics()["disk_full"]
        assert store.statistics()["ballast_bytes"] == 0
        with pytest.raises(StorageFull):
            await stored(store, vault, "no room")
        with pytest.raises(StorageFull):
            await new_vault(store, "mk_c")
        assert (await texts_of(store, vault))[1] == ["early", *acknowledged]
        await store.materialise(vault, step((early[0].row_id,), memory(1, "early"), next_seq=2))
        await store.delete_memories(doomed, [1, 2, 3])
        await store.replace_vault(doomed)
        with trio.fail_after(PATIENCE_S):
            await eventually_stored(store, vault, "after the purge")
        assert not store.statistics()["disk_full"]
    async with open_store(tmpfs / "data", settings=SETTINGS) as store:
        memories, inbox = await texts_of(store, vault)
        assert (memories, inbox) == (["early"], [*acknowledged, "after the purge"])


async def test_a_tmpfs_that_somebody_else_fills_and_frees(tmpfs: Path) -> None:
    async with open_store(tmpfs / "data", settings=SETTINGS) as store:
        vault = (await new_account(store)).vault
        await stored(store, vault, "before")
        hog = tmpfs / "hog"
        with pytest.raises(OSError, match="No space"):
            hog.write_bytes(bytes(8192 * KIB))
        acknowledged = await fill(store, vault)
        assert await store.find_key(hash_key("mk_account")) is not None
        hog.unlink()
        with trio.fail_after(PATIENCE_S):
            await eventually_stored(store, vault, "after")
        assert (await store.load_vault(vault, model_id=MODEL)).damaged == 0
        assert (await texts_of(store, vault))[1] == ["before", *acknowledged, "after"]
