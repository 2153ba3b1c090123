"""Backups: online, consistent, without the server key, and refused when anything is amiss."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
import trio

from actors.store.backup import Manifest, _manifest_bytes, back_up, read_manifest, verify_backup
from actors.store.migrations import META_MIGRATIONS
from actors.store.sqlite import open_store
from models.errors import SetupError, ShardDamaged
from models.version import VERSION
from tests.actors.store.harm import SETTINGS, captured, flip, query
from tests.actors.store.samples import MODEL, new_account, new_vault, remembered, stored

NOW_MS = 1_800_000_000_000


async def backed_up(data_dir: Path, target: Path) -> Manifest:
    """A directory with a few things in it, and its backup."""
    async with open_store(data_dir, settings=SETTINGS, now_ms=lambda: NOW_MS) as store:
        await new_account(store)
        for number in range(3):
            vault = await new_vault(store, f"mk_{number}")
            await remembered(store, vault, f"m{number}")
            await stored(store, vault, f"i{number}")
        await store.replace_vault(vault)
        return await store.back_up(target)


async def test_a_backup_holds_databases_ledger_and_manifest_and_no_key(tmp_path: Path) -> None:
    manifest = await backed_up(tmp_path / "data", tmp_path / "backup")
    files = captured(tmp_path / "backup")
    assert sorted(files) == ["erasure.log", "manifest.json", "meta.db", "shard-00.db", "shard-01.db"]
    server_key = (tmp_path / "data" / "server.key").read_bytes()
    assert all(server_key not in content for content in files.values())
    assert verify_backup(tmp_path / "backup") == manifest == read_manifest(tmp_path / "backup")
    assert (manifest.version, manifest.created_ms, manifest.shards) == (VERSION, NOW_MS, 2)
    described = {file.name: file for file in manifest.files}
    assert described["meta.db"].schema == len(META_MIGRATIONS)
    assert described["meta.db"].commits >= 5
    assert query(tmp_path / "backup" / "shard-01.db", "SELECT commits FROM commit_counter") == [
        (described["shard-01.db"].commits,)
    ]
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "backup").iterdir()} == {0o600}
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o700


async def test_a_directory_that_nobody_uses_is_backed_up_too(tmp_path: Path) -> None:
    first = await backed_up(tmp_path / "data", tmp_path / "first")
    second = back_up(tmp_path / "data", tmp_path / "second", now_ms=NOW_MS)
    assert [file.name for file in second.files] == [file.name for file in first.files]
    assert verify_backup(tmp_path / "second") == second


async def test_a_backup_under_load_is_one_moment_of_each_file(tmp_path: Path) -> None:
    """Row by row, what a writer does at the same time is in a backup wholly or not at all."""
    async with open_store(tmp_path / "data", settings=SETTINGS) as store:
        vault = (await new_account(store)).vault
        async with trio.open_nursery() as nursery:

            async def write() -> None:
                for number in range(100_000):
                    await remembered(store, vault, f"{number} a", f"{number} b")

            nursery.start_soon(write)
            while (await store.load_vault(vault, model_id=MODEL)).next_seq < 20:
                pass
            for number in range(4):
                await store.back_up(tmp_path / f"backup {number}")
            nursery.cancel_scope.cancel()
    counts = []
    for number in range(4):
        shard = tmp_path / f"backup {number}" / f"shard-{vault.shard:02d}.db"
        ((memories,),) = query(shard, "SELECT count(*) FROM memory")
        ((embeddings,),) = query(shard, "SELECT count(*) FROM embedding")
        assert isinstance(memories, int)
        assert memories == embeddings
        assert memories % 2 == 0
        counts.append(memories)
    assert counts == sorted(counts)
    assert counts[0] >= 18


async def test_a_target_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    async with open_store(tmp_path / "data", settings=SETTINGS) as store:
        (tmp_path / "backup").mkdir()
        (tmp_path / "backup" / "something").touch()
        with pytest.raises(SetupError, match="not empty"):
            await store.back_up(tmp_path / "backup")
    with pytest.raises(SetupError, match="no data directory"):
        back_up(tmp_path / "elsewhere", tmp_path / "new", now_ms=1)
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="failed"):
        back_up(tmp_path / "data", tmp_path / "file" / "backup", now_ms=1)


async def test_a_shard_that_lost_commits_is_not_backed_up_as_whole(tmp_path: Path) -> None:
    async with open_store(tmp_path / "data", settings=SETTINGS) as store:
        await stored(store, (await new_account(store)).vault, "a")
    (tmp_path / "data" / "shard-00.db").unlink()
    with pytest.raises(ShardDamaged):
        back_up(tmp_path / "data", tmp_path / "backup", now_ms=1)
    assert list((tmp_path / "backup").iterdir()) == []  # it takes no room, and is not in the way of the next one


async def test_every_changed_file_is_noticed(tmp_path: Path) -> None:
    await backed_up(tmp_path / "data", tmp_path / "backup")
    for path in sorted((tmp_path / "backup").iterdir()):
        whole = path.read_bytes()
        for harm in ("flip", "cut", "grow", "gone"):
            if harm == "flip":
                flip(path, len(whole) // 2)
            elif harm == "gone":
                path.unlink()
            else:
                path.write_bytes(whole[:-1] if harm == "cut" and whole else whole + b"\0")
            if path.name == "manifest.json" and harm == "cut":
                path.write_bytes(whole[:-10])  # its last byte is only a line's end
            with pytest.raises(SetupError):
                verify_backup(tmp_path / "backup")
            path.write_bytes(whole)
    verify_backup(tmp_path / "backup")


async def test_a_manifest_of_a_newer_format_or_with_strange_names_is_refused(tmp_path: Path) -> None:
    manifest = await backed_up(tmp_path / "data", tmp_path / "backup")
    for changed, message in (
        (msgspec.structs.replace(manifest, format=2), "format 2"),
        (msgspec.structs.replace(manifest, files=manifest.files[:-1]), "does not name"),
        (
            msgspec.structs.replace(
                manifest, files=(msgspec.structs.replace(manifest.files[0], name="../x"), *manifest.files[1:])
            ),
            "does not name",
        ),
    ):
        write_manifest(tmp_path / "backup", changed)
        with pytest.raises(SetupError, match=message):
            verify_backup(tmp_path / "backup")


def write_manifest(backup_dir: Path, manifest: Manifest) -> None:
    """A manifest with a right checksum."""
    (backup_dir / "manifest.json").write_bytes(_manifest_bytes(manifest))


async def test_a_backup_into_a_path_with_strange_characters_works(tmp_path: Path) -> None:
    manifest = await backed_up(tmp_path / "data", tmp_path / "a ?b%20#c")
    assert verify_backup(tmp_path / "a ?b%20#c") == manifest
    assert os.listdir(tmp_path / "a ?b%20#c")
