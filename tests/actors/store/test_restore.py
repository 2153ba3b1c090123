"""Restore: everything comes back but what was erased since, in one step, and only over what was confirmed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from actors.store.backup import BackedUpFile, verify_backup
from actors.store.doctor import verify
from actors.store.ledger import read_ledger
from actors.store.restore import restore
from actors.store.restoring import NAMES_FILE, finish_restore
from actors.store.sqlite import open_store
from models.errors import SetupError
from models.ids import VaultRef, hash_key
from tests.actors.store.harm import SETTINGS, captured, flip, query
from tests.actors.store.samples import (
    new_account,
    new_vault,
    remembered,
    revoke,
    stored,
    texts_of,
)
from tests.actors.store.test_backup import write_manifest

NOW_MS = 1_800_000_000_000


class Backup:
    """A data directory, its backup, and what was in it then."""

    def __init__(self, root: Path) -> None:
        self.data_dir, self.dir = root / "data", root / "backup"
        self.vaults: dict[str, VaultRef] = {}

    async def make(self) -> None:
        """Three keys, each with a memory and an inbox row."""
        async with open_store(self.data_dir, settings=SETTINGS) as store:
            await new_account(store)
            for key in ("mk_a", "mk_b", "mk_c"):
                self.vaults[key] = vault = await new_vault(store, key)
                await remembered(store, vault, f"memory of {key}")
                await stored(store, vault, f"inbox of {key}")
            await store.back_up(self.dir)

    async def check(self, data_dir: Path, *keys: str) -> None:
        """These keys find their memories again, and the doctor finds nothing."""
        async with open_store(data_dir, settings=SETTINGS) as store:
            for key in keys:
                found = await store.find_key(hash_key(key))
                assert found is not None
                assert await texts_of(store, found.vault) == ([f"memory of {key}"], [f"inbox of {key}"])
                await stored(store, found.vault, f"inbox of {key}, later")
        report = verify(data_dir)
        assert report.findings == ()


@pytest.fixture
async def backup(tmp_path: Path) -> Backup:
    made = Backup(tmp_path)
    await made.make()
    return made


def with_key(backup: Backup, name: str) -> Path:
    """A new data directory that holds only the server key."""
    target = backup.data_dir.with_name(name)
    target.mkdir()
    shutil.copy(backup.data_dir / "server.key", target)
    return target


async def test_a_backup_comes_back_in_an_empty_directory(backup: Backup) -> None:
    target = with_key(backup, "new")
    restored = restore(backup.dir, target, now_ms=NOW_MS)
    assert (restored.vaults, restored.vaults_erased, restored.keys_revoked, restored.orphans) == (4, 0, 0, 0)
    assert {"restore.partial", "restore.ready"}.isdisjoint(captured(target))
    await backup.check(target, "mk_a", "mk_b", "mk_c")


async def test_what_was_erased_since_stays_erased(backup: Backup) -> None:
    async with open_store(backup.data_dir, settings=SETTINGS) as store:
        await store.replace_vault(backup.vaults["mk_a"])
        key = await store.find_key(hash_key("mk_b"))
        assert key is not None
        await revoke(store, key, now_ms=NOW_MS)
    ledger = read_ledger(backup.data_dir / "erasure.log")
    restored = restore(backup.dir, backup.data_dir, now_ms=NOW_MS, replace=True)
    assert (restored.vaults_erased, restored.keys_revoked) == (1, 1)
    assert read_ledger(backup.data_dir / "erasure.log") == ledger
    async with open_store(backup.data_dir, settings=SETTINGS) as store:
        assert await store.find_key(hash_key("mk_b")) is None
        key = await store.find_key(hash_key("mk_a"))
        assert key is not None
        assert key.vault.number > max(vault.number for vault in backup.vaults.values())
        assert await texts_of(store, key.vault) == ([], [])
        assert await texts_of(store, backup.vaults["mk_a"]) == ([], [])
        while query(backup.data_dir / "meta.db", "SELECT count(*) FROM vault WHERE state = 1") != [(0,)]:
            await store.has_account()
    await backup.check(backup.data_dir, "mk_c")


async def test_an_erasure_known_only_to_the_backups_ledger_is_honoured_elsewhere(backup: Backup) -> None:
    """What is erased while shards are copied is in the ledger, which is copied last, but not in the copied meta.db."""
    async with open_store(backup.data_dir, settings=SETTINGS) as store:
        await store.replace_vault(backup.vaults["mk_a"])
        again = backup.dir.with_name("again")
        manifest = await store.back_up(again)
    shutil.copy(backup.dir / "meta.db", again / "meta.db")
    files = tuple(file for file in manifest.files if file.name != "meta.db")
    older = next(file for file in verify_files(backup.dir) if file.name == "meta.db")
    write_manifest(again, type(manifest)(1, "", 1, manifest.server_key_id, 2, (older, *files)))
    restored = restore(again, with_key(backup, "new"), now_ms=NOW_MS)
    assert restored.vaults_erased == 1


def verify_files(backup_dir: Path) -> tuple[BackedUpFile, ...]:
    """What the manifest of a backup names."""
    return verify_backup(backup_dir).files


async def test_rows_of_vaults_that_came_during_the_backup_are_removed(backup: Backup) -> None:
    """meta.db is copied first, so a shard may know a vault that it does not."""
    async with open_store(backup.data_dir, settings=SETTINGS) as store:
        late = await new_vault(store, "mk_late")
        await remembered(store, late, *map(str, range(300)))
        later = await store.back_up(backup.dir.with_name("later"))
    files = {file.name: file for file in later.files} | {"meta.db": verify_files(backup.dir)[0]}
    shutil.copy(backup.dir / "meta.db", backup.dir.with_name("later") / "meta.db")
    write_manifest(backup.dir.with_name("later"), type(later)(1, "", 1, later.server_key_id, 2, tuple(files.values())))
    target = with_key(backup, "new")
    assert restore(backup.dir.with_name("later"), target, now_ms=NOW_MS).orphans == 601
    async with open_store(target, settings=SETTINGS) as store:
        assert (await new_vault(store, "mk_next")).number > late.number
    await backup.check(target, "mk_a", "mk_b", "mk_c")


async def test_numbers_given_out_after_the_backup_are_not_given_out_again(backup: Backup) -> None:
    async with open_store(backup.data_dir, settings=SETTINGS) as store:
        numbers = [(await new_vault(store, f"mk_{number}")).number for number in range(5)]
    restore(backup.dir, backup.data_dir, now_ms=NOW_MS, replace=True)
    async with open_store(backup.data_dir, settings=SETTINGS) as store:
        assert (await new_vault(store, "mk_new")).number > max(numbers)


async def test_a_directory_with_data_is_replaced_only_when_that_is_confirmed(backup: Backup) -> None:
    before = captured(backup.data_dir)
    with pytest.raises(SetupError, match="not empty"):
        restore(backup.dir, backup.data_dir, now_ms=NOW_MS)
    assert captured(backup.data_dir) == before
    (backup.data_dir / "snap" / "01").mkdir(parents=True)
    (backup.data_dir / "snap" / "01" / "segment").touch()
    (backup.data_dir / "shard-02.db").write_bytes(b"of another time")
    restore(backup.dir, backup.data_dir, now_ms=NOW_MS, replace=True)
    assert not (backup.data_dir / "snap").exists()
    assert not (backup.data_dir / "shard-02.db").exists()
    await backup.check(backup.data_dir, "mk_a", "mk_b", "mk_c")


async def test_a_directory_in_use_is_not_touched(backup: Backup) -> None:
    async with open_store(backup.data_dir, settings=SETTINGS):
        with pytest.raises(SetupError, match="in use"):
            restore(backup.dir, backup.data_dir, now_ms=NOW_MS, replace=True)


@pytest.mark.parametrize("name", ["meta.db", "shard-01.db", "erasure.log", "manifest.json"])
async def test_a_damaged_backup_changes_nothing(backup: Backup, name: str) -> None:
    path = backup.dir / name
    if path.stat().st_size:
        flip(path, path.stat().st_size // 2)
    else:
        path.write_bytes(b"x")
    before = captured(backup.data_dir)
    with pytest.raises(SetupError):
        restore(backup.dir, backup.data_dir, now_ms=NOW_MS, replace=True)
    assert captured(backup.data_dir) == before


async def test_a_backup_opens_only_with_its_own_server_key(backup: Backup) -> None:
    target = backup.data_dir.with_name("new")
    with pytest.raises(SetupError, match="no server key"):
        restore(backup.dir, target, now_ms=NOW_MS)
    (target / "server.key").write_bytes(bytes(32))
    (target / "server.key").chmod(0o600)
    with pytest.raises(SetupError, match="another server key"):
        restore(backup.dir, target, now_ms=NOW_MS)
    assert sorted(captured(target)) == ["LOCK", "server.key"]
    old_key = (backup.data_dir / "server.key").read_bytes()
    restore(backup.dir, target, now_ms=NOW_MS, backup_server_key=old_key)  # under the new key from now on
    await backup.check(target, "mk_a", "mk_b", "mk_c")
    assert (target / "server.key").read_bytes() == bytes(32)


async def test_a_restore_with_the_key_elsewhere(backup: Backup) -> None:
    key = (backup.data_dir / "server.key").read_bytes()
    target = backup.data_dir.with_name("new")
    restore(backup.dir, target, now_ms=NOW_MS, server_key=key)
    assert not (target / "server.key").exists()
    async with open_store(target, settings=SETTINGS, server_key=key) as store:
        assert await store.find_key(hash_key("mk_a")) is not None


async def test_an_interrupted_restore_is_finished_or_forgotten(backup: Backup) -> None:
    """Before it is decided it means nothing; afterwards the next start finishes it, from any point of it."""
    target = with_key(backup, "whole")
    restore(backup.dir, target, now_ms=NOW_MS)
    files = captured(target)
    names = [name for name in files if name.endswith((".db", ".log"))]
    for moved in range(len(names) + 1):
        data_dir = backup.data_dir.with_name(f"interrupted {moved}")
        shutil.copytree(backup.data_dir, data_dir)
        (data_dir / "shard-01.db-wal").write_bytes(b"a WAL of the old database")
        (data_dir / "restore.partial").mkdir()
        ready = data_dir / "restore.ready"
        ready.mkdir()
        for place, name in enumerate(names):
            (ready / name if place >= moved else data_dir / name).write_bytes(files[name])
        (ready / NAMES_FILE).write_bytes(b"[%s]" % b",".join(b'"%s"' % name.encode() for name in names))
        assert finish_restore(data_dir)
        assert not finish_restore(data_dir)
        assert not (data_dir / "restore.partial").exists()
        found = captured(data_dir)
        assert {name: found.get(name) for name in names} == {name: files[name] for name in names}
        assert "shard-01.db-wal" not in found
        await backup.check(data_dir, "mk_a", "mk_b", "mk_c")


async def test_a_restored_directory_does_not_refuse_to_serve_for_its_old_counters(backup: Backup) -> None:
    async with open_store(backup.data_dir, settings=SETTINGS) as store:
        for number in range(20):
            await stored(store, backup.vaults["mk_a"], str(number))
    restore(backup.dir, backup.data_dir, now_ms=NOW_MS, replace=True)
    await backup.check(backup.data_dir, "mk_a")


async def test_the_key_of_an_erased_vault_is_in_no_file_after_a_restore(backup: Backup) -> None:
    ((wrapped,),) = query(
        backup.data_dir / "meta.db", "SELECT wrapped FROM vault_key WHERE vault = ?", backup.vaults["mk_a"].number
    )
    assert isinstance(wrapped, bytes)
    async with open_store(backup.data_dir, settings=SETTINGS) as store:
        await store.replace_vault(backup.vaults["mk_a"])
    restore(backup.dir, backup.data_dir, now_ms=NOW_MS, replace=True)
    assert not [name for name, content in captured(backup.data_dir).items() if wrapped in content]
    assert os.listdir(backup.dir)
