"""A disk that fails: readers are reopened, a read-only disk is read, and no handle syncs again after a failed sync."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import apsw
import pytest

from actors.store.sqlite import SqliteStore, open_store
from models.errors import StoreUnavailable
from models.ids import VaultRef, hash_key
from tests.actors.store.harm import SETTINGS
from tests.actors.store.samples import new_account, new_vault, remembered, stored, texts_of
from tests.fakes.disk import FaultyDisk


@pytest.fixture
def disk() -> Iterator[FaultyDisk]:
    """The disk under every store of the test."""
    disk = FaultyDisk("faulty", default=True)
    yield disk
    disk.unregister()


@pytest.fixture
async def store(disk: FaultyDisk, tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """A store on it, which ends on a healthy disk."""
    async with open_store(tmp_path, settings=SETTINGS) as opened:
        yield opened
        disk.heal()


@pytest.fixture
async def vault(store: SqliteStore) -> VaultRef:
    """A vault with one memory."""
    vault = (await new_account(store)).vault
    await remembered(store, vault, "a")
    return vault


async def test_a_read_that_fails_is_done_once_more_on_a_fresh_connection(
    store: SqliteStore, vault: VaultRef, disk: FaultyDisk
) -> None:
    assert await texts_of(store, vault) == (["a"], [])
    await stored(store, vault, "b")  # the connection has to read again
    disk.reads_to_fail = 1
    assert await texts_of(store, vault) == (["a"], ["b"])
    assert disk.reads_to_fail == 0


async def test_reads_that_go_on_failing_are_an_error_until_the_disk_is_well(
    store: SqliteStore, vault: VaultRef, disk: FaultyDisk
) -> None:
    await stored(store, vault, "b")
    disk.reads_to_fail = 10_000
    with pytest.raises(StoreUnavailable):
        await texts_of(store, vault)
    disk.heal()
    assert await texts_of(store, vault) == (["a"], ["b"])


async def test_a_key_that_cannot_be_read_is_read_once_more(store: SqliteStore, disk: FaultyDisk) -> None:
    await new_account(store)
    fresh = await new_vault(store, "mk_fresh")
    disk.reads_to_fail = 1
    await stored(store, fresh, "a")
    assert disk.reads_to_fail == 0
    assert await store.find_key(hash_key("mk_fresh")) is not None


async def test_a_disk_that_turned_read_only_is_read_and_written_again_when_it_can_be(
    store: SqliteStore, vault: VaultRef, disk: FaultyDisk
) -> None:
    disk.read_only = True
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await stored(store, vault, "refused")
    assert await texts_of(store, vault) == (["a"], [])
    disk.heal()
    await stored(store, vault, "b")
    assert await texts_of(store, vault) == (["a"], ["b"])


@pytest.mark.parametrize("syncs", [1, 2, 5])
async def test_no_handle_is_used_again_after_a_failed_sync(
    store: SqliteStore, vault: VaultRef, disk: FaultyDisk, syncs: int
) -> None:
    disk.syncs_to_fail = syncs
    acknowledged = []
    for number in range(8):
        try:
            await stored(store, vault, str(number))
        except StoreUnavailable:
            continue
        acknowledged.append(str(number))
    assert disk.failed_syncs == syncs
    assert disk.used_after_failure == 0
    _, inbox = await texts_of(store, vault)
    assert set(acknowledged) <= set(inbox)
    assert len(inbox) == len(set(inbox))
    assert acknowledged


def test_the_fake_disk_notices_a_handle_that_syncs_again(disk: FaultyDisk, tmp_path: Path) -> None:
    """Proof of the detector: SQLite itself would try again on the same handle."""
    connection = disk.connect(tmp_path / "a.db")
    connection.execute("CREATE TABLE t(a)")
    disk.syncs_to_fail = 1
    with pytest.raises(apsw.IOError):
        connection.execute("INSERT INTO t VALUES (1)")
    connection.execute("INSERT INTO t VALUES (2)")
    assert disk.used_after_failure
    connection.close(True)
