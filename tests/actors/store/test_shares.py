"""Several stores on one data directory, each a worker's: who writes what, and what one sees of what another does."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

import apsw
import pytest

from actors.cluster.workers import Share
from actors.store import worker_files
from actors.store.connections import open_reader
from actors.store.counter import counter_path, read_counter
from actors.store.data_directory import commits_of, lock_data_directory
from actors.store.database import all_rows
from actors.store.erasing import shred_vault
from actors.store.ledger import LEDGER_FILE, read_ledger
from actors.store.sqlite import SqliteStore, open_store
from models.accounts import OPERATOR
from models.errors import NotFound, NotOwner, SettingError, SetupError, ShardDamaged
from models.ids import Principal, VaultRef, hash_key
from models.store_settings import StoreSettings
from tests.actors.store.conftest import SETTINGS, shared
from tests.actors.store.harm import query
from tests.actors.store.samples import (
    MODEL,
    accept,
    memory,
    new_account,
    new_vault,
    remembered,
    revoke,
    step,
    stored,
    texts_of,
)
from tests.patience import wait_until

ROOT = Path(__file__).parents[3]


@asynccontextmanager
async def two_workers(data_dir: Path, settings: StoreSettings = SETTINGS) -> AsyncIterator[tuple[SqliteStore, ...]]:
    """Both workers of a directory with two shards."""
    with shared(data_dir, settings=settings):
        async with (
            open_store(data_dir, settings=settings, share=Share(0, 2)) as first,
            open_store(data_dir, settings=settings, share=Share(1, 2)) as second,
        ):
            yield first, second


async def looked(store: SqliteStore) -> None:
    """Until the store has looked for changes of the other once more, from beginning to end."""
    polls = store.watch.polls
    await wait_until(lambda: store.watch.polls >= polls + 2)


async def vaults_of(store: SqliteStore) -> tuple[VaultRef, VaultRef]:
    """An account, and a vault in each shard."""
    await new_account(store)
    found = [await new_vault(store, f"mk_{number}") for number in range(2)]
    first, second = sorted(found, key=lambda vault: vault.shard)
    assert (first.shard, second.shard) == (0, 1)
    return first, second


async def user_key(store: SqliteStore) -> Principal:
    """A user key of account 1."""
    return await store.create_key(1, name="u", key_hash=hash_key("mk_user"), shown="mk_user", created_ms=2000)


def rows_left(data_dir: Path, vault: VaultRef) -> int:
    """Rows of a vault in its shard."""
    connection = open_reader(data_dir / f"shard-{vault.shard:02d}.db")
    try:
        ((count,),) = all_rows(connection, "SELECT count(*) FROM memory WHERE id >> 32 = ?", (vault.number,))
    finally:
        connection.close()
    return int(count)


async def test_each_worker_writes_its_shards_and_reads_all(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as (first, second):
        zero, one = await vaults_of(first)
        await remembered(first, zero, "by the first")
        await remembered(second, one, "by the second", "and more")
        assert await texts_of(first, one) == (["by the second", "and more"], [])
        sizes = await first.vault_sizes([zero, one])
        assert (sizes[zero.number][0], sizes[one.number][0]) == (1, 2)
        assert sizes == await second.vault_sizes([zero, one])
        assert (await first.size()).memories == (await second.size()).memories == 3
        assert (await second.account_size(1)).memories == 3
        assert [store.statistics()["shard_numbers"] for store in (first, second)] == [[0], [1]]
        assert first.parts == 2


async def test_what_writes_another_workers_shard_is_refused(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as (first, second):
        _, foreign = await vaults_of(first)
        await remembered(second, foreign, "stays")
        with pytest.raises(NotOwner):
            accept(first, foreign, "a")
        for write in (
            first.materialise(foreign, step((), memory(2, "a"), next_seq=3)),
            first.set_aside(foreign, [1]),
            first.delete_memories(foreign, [1]),
            first.put_memory(foreign, memory(1, "a")),
            first.rewrite_memory(foreign, 1, memory(2, "a")),
            first.choose_embedder(foreign, "other"),
            first.finish_move(foreign, name="other", model_id=MODEL),
        ):
            with pytest.raises(NotOwner):
                await write
        assert await texts_of(second, foreign) == (["stays"], [])


async def test_what_is_left_to_do_is_done_by_the_owner(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as (first, second):
        zero, one = await vaults_of(first)
        await stored(first, zero, "a")
        await stored(second, one, "b")
        await second.choose_embedder(one, "other")
        assert (await first.vaults_with_inbox(), await second.vaults_with_inbox()) == ([zero], [one])
        assert (await first.vaults_moving(), await second.vaults_moving()) == ([], [one])


async def test_keys_of_one_worker_are_known_to_the_other_and_no_longer_once_revoked(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as (first, second):
        await new_account(first)
        assert await second.find_key(hash_key("mk_user")) is None
        user = await user_key(first)
        await looked(second)
        assert await second.find_key(hash_key("mk_user")) == user
        await second.put_provider_key(1, "openai", "sk-old", now_ms=1, by=OPERATOR)
        await looked(first)
        assert await first.find_provider_key(1, "openai")
        await revoke(second, user, now_ms=3000)
        await second.delete_provider_key(1, "openai", now_ms=2, by=OPERATOR)
        await looked(first)
        assert await first.find_key(hash_key("mk_user")) is None
        assert await first.find_provider_key(1, "openai") is None


async def test_ones_own_changes_do_not_empty_the_caches(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as (first, _):
        await new_account(first)
        await looked(first)
        before = first._generation
        await user_key(first)
        await looked(first)
        assert first._generation == before + 1, "by the new key itself"


async def test_a_process_that_is_alone_tells_nobody_and_looks_for_nobody(tmp_path: Path) -> None:
    async with open_store(tmp_path, settings=SETTINGS) as store:
        await new_account(store)
        assert not [thread for thread in threading.enumerate() if thread.name == "directory watch"]
        assert store.parts == 2
        store.call_on_shredded(lambda _: None)
    assert query(tmp_path / "meta.db", "SELECT changes FROM directory_state") == [(0,)]
    assert query(tmp_path / "meta.db", "SELECT * FROM directory_writer") == []


async def test_workers_know_each_other_by_what_the_server_key_says(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as (first, second):
        assert first.node_token == second.node_token
        assert first.node_token


async def test_a_vault_that_another_worker_shreds_closes_and_is_emptied_by_its_owner(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as (first, second):
        _, vault = await vaults_of(first)
        await remembered(second, vault, "secret")
        assert await second.load_imprint(vault) is None  # its data key is known there
        told: list[VaultRef] = []
        second.call_on_shredded(told.append)
        wrapped = wrapped_key(tmp_path, vault)
        await first.replace_vault(vault)
        assert not any(wrapped in file.read_bytes() for file in tmp_path.glob("meta.db*")), "gone before the answer"
        await looked(second)
        with pytest.raises(NotFound):
            await second.load_imprint(vault)
        assert told == [vault]
        await wait_until(lambda: not rows_left(tmp_path, vault))


def wrapped_key(data_dir: Path, vault: VaultRef) -> bytes:
    """A vault's data key as it stands in the file."""
    connection = open_reader(data_dir / "meta.db")
    try:
        ((wrapped,),) = all_rows(connection, "SELECT wrapped FROM vault_key WHERE vault = ?", (vault.number,))
    finally:
        connection.close()
    return bytes(wrapped)


async def test_new_vaults_go_to_the_shards_of_all_workers(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as (first, _):
        await new_account(first)
        assert {(await new_vault(first, f"mk_{number}")).shard for number in range(4)} == {0, 1}


async def test_backup_is_of_all_shards(tmp_path: Path) -> None:
    async with two_workers(tmp_path / "data") as (first, second):
        _, one = await vaults_of(first)
        await remembered(second, one, "kept")
        await first.back_up(tmp_path / "backup")
    names = {path.name for path in (tmp_path / "backup").iterdir()}
    assert names == {"manifest.json", "meta.db", "shard-00.db", "shard-01.db", LEDGER_FILE}


async def test_a_worker_waits_for_its_predecessor_and_then_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_files, "LOOKS", 1)
    with shared(tmp_path):
        async with open_store(tmp_path, settings=SETTINGS, share=Share(0, 2)):
            with pytest.raises(SetupError, match="is worker 0"):
                async with open_store(tmp_path, settings=SETTINGS, share=Share(0, 2)):
                    pass
        async with open_store(tmp_path, settings=SETTINGS, share=Share(0, 2)):
            pass


async def test_the_directory_is_in_use_as_long_as_a_process_has_the_inherited_lock(tmp_path: Path) -> None:
    with shared(tmp_path):
        with pytest.raises(SetupError, match="in use"):
            async with open_store(tmp_path, settings=SETTINGS):
                pass
        with pytest.raises(SetupError, match="in use"):
            lock_data_directory(tmp_path)
    async with open_store(tmp_path, settings=SETTINGS):
        pass


async def test_a_directory_that_nobody_prepared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"meta\.db"):
        async with open_store(tmp_path, settings=SETTINGS, share=Share(0, 2)):
            pass


def test_there_are_no_more_workers_than_shards(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="2 shards"), shared(tmp_path, workers=3):
        pass
    with shared(tmp_path, workers=2):  # and the lock was given back
        pass


async def test_another_server_key_is_refused(tmp_path: Path) -> None:
    with shared(tmp_path), pytest.raises(SetupError, match="server key"):
        async with open_store(tmp_path, settings=SETTINGS, share=Share(0, 2), server_key=b"b" * 32):
            pass


async def test_a_worker_that_starts_again_looks_for_damage_in_its_own_shards(tmp_path: Path) -> None:
    with shared(tmp_path):
        async with open_store(tmp_path, settings=SETTINGS, share=Share(0, 2)) as first:
            zero, one = await vaults_of(first)
            async with open_store(tmp_path, settings=SETTINGS, share=Share(1, 2)):
                pass
            (tmp_path / "shard-01.db").write_bytes(b"no database" * 1000)
            async with open_store(tmp_path, settings=SETTINGS, share=Share(1, 2)) as second:
                with pytest.raises(ShardDamaged):
                    accept(second, one, "a")
                assert await second.size() == await first.size()
            await stored(first, zero, "the first goes on")


async def test_what_a_killed_worker_erased_gets_into_the_ledger_and_out_of_the_log(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as (first, _):
        _, vault = await vaults_of(first)
        wrapped = wrapped_key(tmp_path, vault)
    with shared(tmp_path):
        killed = apsw.Connection(str(tmp_path / "meta.db"))  # stands for a worker that got no further than its COMMIT
        with killed:
            shred_vault(killed, vault, now_ms=5)
        async with open_store(tmp_path, settings=SETTINGS, share=Share(1, 2)) as second:
            assert [number for number, _ in read_ledger(tmp_path / LEDGER_FILE).vaults] == [vault.number]
            await wait_until(lambda: not second.statistics()["meta"]["truncate_owed"])
        assert not any(wrapped in file.read_bytes() for file in tmp_path.glob("meta.db*"))
        killed.close()


async def test_closed_workers_leave_nothing_behind_but_their_locks(tmp_path: Path) -> None:
    settings = StoreSettings(shards=2, ballast_bytes=65536)
    async with two_workers(tmp_path, settings) as (first, second):
        await vaults_of(first)
        await second.size()
        assert (tmp_path / "ballast").stat().st_size == 65536
    async with open_store(tmp_path, settings=SETTINGS):
        pass
    names = sorted(path.name for path in tmp_path.iterdir())
    locks = ["worker-0.lock", "worker-1.lock"]
    assert names == ["LOCK", "hwm", "meta.db", "server.key", "shard-00.db", "shard-01.db", *locks]


def started(data_dir: Path) -> subprocess.Popen[bytes]:
    """The second worker in a process of its own."""
    command = [sys.executable, "-m", "tests.actors.store.share_child", str(data_dir)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)


async def test_killing_a_worker_harms_no_other_and_loses_nothing(tmp_path: Path) -> None:
    with shared(tmp_path):
        async with open_store(tmp_path, settings=SETTINGS, share=Share(0, 2)) as first:
            await new_account(first)
            with started(tmp_path) as child:
                assert child.stdout is not None
                printed = b"".join(islice(child.stdout, 5))
                for number in range(30):
                    await new_vault(first, f"mk_first_{number}")
                    if number == 15:
                        child.kill()
                printed += child.stdout.read()
            names = printed.decode().split("\n")[:-1]  # the last piece is empty, or a line that the kill cut
            await looked(first)
            for name in [*names, *(f"mk_first_{number}" for number in range(30))]:
                assert await first.find_key(hash_key(name)), name
            async with open_store(tmp_path, settings=SETTINGS, share=Share(1, 2)) as again:
                for name in names:
                    found = await again.find_key(hash_key(name))
                    assert found is not None
                    if found.vault.shard == 1:
                        assert await texts_of(again, found.vault) == ([], [name])
        connection = open_reader(tmp_path / "meta.db")
        assert (read_counter(counter_path(tmp_path / "meta.db")) or 0) <= commits_of(connection)
        connection.close()
