"""Exchanging the server key: everything opens by the new one, nothing by the old, and a crash leaves one that works."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path

import apsw
import msgspec
import pytest

from actors.store.data_directory import rotate_server_key
from actors.store.rotation import new_key_path
from actors.store.seal import write_key_file
from actors.store.sqlite import open_store
from models.errors import SetupError
from models.ids import VaultRef
from models.provider_settings import Secret
from tests.actors.store.harm import SETTINGS, captured, change, query
from tests.actors.store.samples import new_account, new_vault, remembered, stored, texts_of
from tests.fakes.disk import FaultyDisk

NOW_MS = 1_800_000_000_000
NEW_KEY = bytes(range(32))


async def prepared(data_dir: Path, *, server_key: bytes | None = None) -> list[VaultRef]:
    """A few vaults, one of them shredded."""
    async with open_store(data_dir, settings=SETTINGS, server_key=server_key) as store:
        vaults = [(await new_account(store)).vault]
        vaults += [await new_vault(store, f"mk_{number}") for number in range(5)]
        for vault in vaults:
            await remembered(store, vault, "a")
            await stored(store, vault, "b")
        await store.replace_vault(vaults.pop())
    return vaults


async def opens(data_dir: Path, vaults: list[VaultRef], *, server_key: bytes | None = None) -> None:
    """Everything is there."""
    async with open_store(data_dir, settings=SETTINGS, server_key=server_key) as store:
        for vault in vaults:
            assert await texts_of(store, vault) == (["a"], ["b"])


async def test_after_a_rotation_only_the_new_key_opens_anything(tmp_path: Path) -> None:
    vaults = await prepared(tmp_path)
    old_key = (tmp_path / "server.key").read_bytes()
    old_wrapped = [wrapped for (wrapped,) in query(tmp_path / "meta.db", "SELECT wrapped FROM vault_key")]
    rotation = rotate_server_key(tmp_path, now_ms=NOW_MS)
    assert (rotation.vaults, rotation.damaged) == (6, ())
    assert (tmp_path / "server.key").read_bytes() != old_key
    assert (tmp_path / "server.key").stat().st_mode & 0o777 == 0o600
    files = captured(tmp_path)
    assert sorted(name for name in files if "key" in name) == ["server.key"]
    for wrapped in old_wrapped:
        assert isinstance(wrapped, bytes)
        if any(wrapped):  # zeros are a shredded vault's
            assert not [name for name, content in files.items() if wrapped in content]
    with pytest.raises(SetupError, match="not the one"):
        await opens(tmp_path, vaults, server_key=old_key)
    await opens(tmp_path, vaults)


async def test_a_damaged_wrapped_key_does_not_stop_a_rotation(tmp_path: Path) -> None:
    vaults = await prepared(tmp_path)
    change(tmp_path / "meta.db", "UPDATE vault_key SET wrapped = flip(wrapped) WHERE vault = ?", vaults[0].number)
    assert rotate_server_key(tmp_path, now_ms=NOW_MS).damaged == (vaults[0].number,)
    await opens(tmp_path, vaults[1:])


async def test_a_key_may_move_out_of_its_file_and_back_in(tmp_path: Path) -> None:
    vaults = await prepared(tmp_path)
    rotate_server_key(tmp_path, now_ms=NOW_MS, new_server_key=NEW_KEY)
    assert not (tmp_path / "server.key").exists()
    await opens(tmp_path, vaults, server_key=NEW_KEY)
    rotate_server_key(tmp_path, now_ms=NOW_MS, server_key=NEW_KEY)
    await opens(tmp_path, vaults)


async def test_a_key_file_elsewhere_is_exchanged_there(tmp_path: Path) -> None:
    key_file = tmp_path / "elsewhere.key"
    async with open_store(tmp_path / "data", settings=SETTINGS, server_key_file=key_file) as store:
        await new_account(store)
    old = key_file.read_bytes()
    rotate_server_key(tmp_path / "data", now_ms=NOW_MS, server_key_file=key_file)
    assert key_file.read_bytes() != old
    assert not (tmp_path / "data" / "server.key").exists()
    async with open_store(tmp_path / "data", settings=SETTINGS, server_key_file=key_file):
        pass


async def test_the_wrong_key_and_a_directory_in_use_are_refused(tmp_path: Path) -> None:
    vaults = await prepared(tmp_path)
    with pytest.raises(SetupError, match="not the one"):
        rotate_server_key(tmp_path, now_ms=NOW_MS, server_key=NEW_KEY)
    async with open_store(tmp_path, settings=SETTINGS):
        with pytest.raises(SetupError, match="in use"):
            rotate_server_key(tmp_path, now_ms=NOW_MS)
    with pytest.raises(SetupError, match="no data directory"):
        rotate_server_key(tmp_path / "elsewhere", now_ms=NOW_MS)
    await opens(tmp_path, vaults)


@pytest.mark.parametrize("committed", [False, True])
async def test_of_two_key_files_the_one_that_opens_stays(tmp_path: Path, committed: bool) -> None:
    """The two states that a crash can leave: before the transaction, and after it but before the rename."""
    vaults = await prepared(tmp_path)
    key, waiting = tmp_path / "server.key", new_key_path(tmp_path / "server.key")
    old_key = key.read_bytes()
    if committed:
        rotate_server_key(tmp_path, now_ms=NOW_MS)
        key.rename(waiting)
        write_key_file(key, old_key)
    else:
        write_key_file(waiting, NEW_KEY)
    right = waiting.read_bytes() if committed else old_key
    await opens(tmp_path, vaults)
    assert key.read_bytes() == right
    assert not waiting.exists()


async def test_a_rotation_may_be_repeated_after_one_that_ended_early(tmp_path: Path) -> None:
    vaults = await prepared(tmp_path)
    write_key_file(new_key_path(tmp_path / "server.key"), NEW_KEY)
    rotate_server_key(tmp_path, now_ms=NOW_MS)
    assert (tmp_path / "server.key").read_bytes() != NEW_KEY
    await opens(tmp_path, vaults)


@pytest.fixture
def disk() -> Iterator[FaultyDisk]:
    """The disk under everything."""
    disk = FaultyDisk("rotation", default=True)
    yield disk
    disk.unregister()


async def test_a_disk_that_fails_at_any_operation_of_a_rotation_leaves_a_key_that_opens(
    tmp_path: Path, disk: FaultyDisk
) -> None:
    vaults = await prepared(tmp_path / "data")
    shutil.copytree(tmp_path / "data", tmp_path / "counted")
    disk.operations = 0
    rotate_server_key(tmp_path / "counted", now_ms=NOW_MS)
    total = disk.operations
    assert total > 5
    for number in range(1, total + 1):
        data_dir = tmp_path / f"run {number}"
        shutil.copytree(tmp_path / "data", data_dir)
        disk.fail_at(number, "failed")
        try:
            rotate_server_key(data_dir, now_ms=NOW_MS)
        except SetupError:
            assert number < total
        disk.heal()
        await opens(data_dir, vaults)
        assert sorted(name for name in captured(data_dir) if "key" in name) == ["server.key"]


async def test_the_key_may_come_from_the_settings(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(SETTINGS, server_key=Secret(base64.b64encode(NEW_KEY).decode()))
    async with open_store(tmp_path, settings=settings) as store:
        vault = (await new_account(store)).vault
        await stored(store, vault, "a")
    assert not (tmp_path / "server.key").exists()
    async with open_store(tmp_path, settings=SETTINGS, server_key=NEW_KEY) as store:
        assert await texts_of(store, vault) == ([], ["a"])


def test_a_rotation_of_something_else_is_refused(tmp_path: Path) -> None:
    apsw.Connection(str(tmp_path / "other.db")).close()
    with pytest.raises(SetupError, match="missing"):
        rotate_server_key(tmp_path, now_ms=NOW_MS)
