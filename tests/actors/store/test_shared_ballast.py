"""A full disk that several workers share: all refuse what grows, whoever met it, and all see that it is over."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import trio

from actors.cluster.workers import Share
from actors.store import ballast, shared_ballast
from actors.store.shared_ballast import SharedDiskSpace
from actors.store.sqlite import SqliteStore, open_store
from models.errors import StorageFull
from models.ids import VaultRef
from models.store_settings import StoreSettings
from tests.actors.store.conftest import shared
from tests.actors.store.samples import new_account, new_vault, stored, texts_of
from tests.patience import PATIENCE_S

BYTES = 512 * 1024
SETTINGS = StoreSettings(shards=2, ballast_bytes=BYTES, scrub_interval_s=0)
TEXT = "x" * 20_000


@pytest.fixture(autouse=True)
def quick_rechecks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the disk more often than a second, so that these tests need not wait."""
    for module in (ballast, shared_ballast):
        monkeypatch.setattr(module, "RECHECK_S", 0.01)


@pytest.fixture
def two(tmp_path: Path) -> tuple[SharedDiskSpace, SharedDiskSpace]:
    """Two processes' views of one disk; each is told that it is the last."""
    spaces = tuple(SharedDiskSpace(tmp_path, ballast_bytes=BYTES, is_last=lambda: True) for _ in range(2))
    for space in spaces:
        space.prepare()
    one, other = spaces
    return one, other


def test_whoever_meets_a_full_disk_all_refuse_and_all_go_on(
    two: tuple[SharedDiskSpace, SharedDiskSpace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two
    assert not one.refuses_growth()
    assert other.statistics() == {"disk_full": False, "ballast_bytes": BYTES}
    monkeypatch.setattr(SharedDiskSpace, "free_bytes", lambda _: 0)
    one.release()
    assert (tmp_path / "ballast").stat().st_size == 0
    assert other.refuses_growth()
    assert other.refuses_growth(), "and it does not believe in room that is not there"
    monkeypatch.undo()
    while other.refuses_growth():
        pass
    assert (tmp_path / "ballast").stat().st_size == BYTES
    assert not one.refuses_growth(), "it need not find the room itself"
    assert one.statistics() == other.statistics() == {"disk_full": False, "ballast_bytes": BYTES}


def test_a_half_made_ballast_proves_nothing(two: tuple[SharedDiskSpace, SharedDiskSpace], tmp_path: Path) -> None:
    one, other = two
    one.release()
    assert other.refuses_growth()
    one._recheck_s = other._recheck_s = float("inf")
    (tmp_path / "ballast").write_bytes(bytes(BYTES // 2))
    assert one.refuses_growth()
    assert other.refuses_growth()


def test_a_disk_that_was_full_when_the_last_worker_ended_is_looked_at_first(tmp_path: Path) -> None:
    (tmp_path / "ballast").touch()
    crowded = SharedDiskSpace(tmp_path, ballast_bytes=2**60, is_last=lambda: True)
    crowded.prepare()
    assert crowded.refuses_growth()
    crowded.close()
    assert (tmp_path / "ballast").exists()
    roomy = SharedDiskSpace(tmp_path, ballast_bytes=BYTES, is_last=lambda: True)
    roomy.prepare()
    assert not roomy.refuses_growth()


def test_only_the_last_one_gives_the_ballast_back(tmp_path: Path) -> None:
    for is_last in (False, True):
        space = SharedDiskSpace(tmp_path, ballast_bytes=BYTES, is_last=partial(bool, is_last))
        space.prepare()
        space.close()
        assert (tmp_path / "ballast").exists() is not is_last


def test_without_a_ballast_nothing_is_refused(tmp_path: Path) -> None:
    space = SharedDiskSpace(tmp_path, ballast_bytes=0, is_last=lambda: True)
    space.prepare()
    space.release()
    assert not space.refuses_growth()
    space.close()
    assert list(tmp_path.iterdir()) == []


async def test_two_workers_on_a_full_tmpfs(tmpfs: Path) -> None:
    data_dir = tmpfs / "data"
    with shared(data_dir, settings=SETTINGS):
        async with (
            open_store(data_dir, settings=SETTINGS, share=Share(0, 2)) as first,
            open_store(data_dir, settings=SETTINGS, share=Share(1, 2)) as second,
        ):
            await new_account(first)
            vaults = [await new_vault(first, f"mk_{number}") for number in range(2)]
            one, other = sorted(vaults, key=lambda vault: vault.shard)
            await stored(second, other, "before")
            hog = tmpfs / "hog"
            with pytest.raises(OSError, match="No space"):
                hog.write_bytes(bytes(2 * 4096 * 1024))
            acknowledged = await fill(first, one)
            with pytest.raises(StorageFull):
                await stored(second, other, "a few bytes, for which there is room: the ballast's")
            assert (await texts_of(second, other))[1] == ["before"]
            hog.unlink()
            with trio.fail_after(PATIENCE_S):
                await eventually_stored(second, other, "after")
                await eventually_stored(first, one, "after")
            assert (await texts_of(first, one))[1] == [*acknowledged, "after"]


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


async def eventually_stored(store: SqliteStore, vault: VaultRef, text: str) -> None:
    """Store a text as soon as the disk takes it."""
    while True:
        try:
            await stored(store, vault, text)
        except StorageFull:
            await trio.lowlevel.checkpoint()
        else:
            return
