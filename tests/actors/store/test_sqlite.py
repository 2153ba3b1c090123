"""What only the SQLite store promises: files, locks, snapshots, shredding, and going on after a crash."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import apsw
import pytest
import trio
import trio.testing

from actors.store import shard as sql
from actors.store.connections import Readers, open_reader, open_writer
from actors.store.database import all_rows
from actors.store.keyring import KeyRing
from actors.store.protocol import Commit
from actors.store.seal import load_server_key
from actors.store.sqlite import SqliteStore, open_store
from actors.store.tickets import Batch
from models.errors import NotFound, SetupError, ShuttingDown, StoreUnavailable
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

T = TypeVar("T")
SETTINGS = StoreSettings(shards=2, ballast_bytes=0)


def rows_of(data_dir: Path, vault: VaultRef) -> dict[str, int]:
    """How many rows of a vault are left in the files, by table."""
    connection = apsw.Connection(str(data_dir / f"shard-{vault.shard:02d}.db"))
    ids = (vault.number << 32, (vault.number + 1) << 32)
    counts = {
        table: all_rows(connection, f"SELECT count(*) FROM {table} WHERE id >= ? AND id < ?", ids)[0][0]
        for table in ("memory", "embedding")
    }
    counts["inbox"] = all_rows(connection, "SELECT count(*) FROM inbox WHERE vault = ?", (vault.number,))[0][0]
    connection.close()
    return counts


def vault_state(data_dir: Path, vault: VaultRef) -> int:
    """The state column of a vault."""
    connection = apsw.Connection(str(data_dir / "meta.db"))
    ((state,),) = all_rows(connection, "SELECT state FROM vault WHERE number = ?", (vault.number,))
    connection.close()
    return int(state)


async def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    async with open_store(tmp_path, settings=SETTINGS) as store:
        account = await new_account(store)
        await remembered(store, account.vault, "a", "b")
        commit = accept(store, account.vault, "not waited for")
    assert commit.durable
    async with open_store(tmp_path, settings=SETTINGS) as store:
        assert await store.find_key(hash_key("mk_account")) == account
        assert await texts_of(store, account.vault) == (["a", "b"], ["not waited for"])
        assert await store.vaults_with_inbox() == [account.vault]
        rows = await stored(store, account.vault, "later")
        image = await store.load_vault(account.vault, model_id=MODEL)
        assert image.inbox[-1] == rows[0]  # row ids go on growing


async def test_a_closed_store_leaves_only_databases_counters_lock_and_key(tmp_path: Path) -> None:
    async with open_store(tmp_path, settings=SETTINGS) as store:
        await stored(store, (await new_account(store)).vault, "a")
        await store.vaults_with_inbox()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["LOCK", "hwm", "meta.db", "server.key", "shard-00.db", "shard-01.db"]


async def test_a_data_directory_has_one_user_at_a_time(tmp_path: Path) -> None:
    async with open_store(tmp_path, settings=SETTINGS):
        with pytest.raises(SetupError, match="in use"):
            async with open_store(tmp_path, settings=SETTINGS):
                pass
    async with open_store(tmp_path, settings=SETTINGS):
        pass


async def test_a_directory_that_cannot_be_made_is_a_setup_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SetupError, match="cannot be written"):
        async with open_store(tmp_path / "file" / "data", settings=SETTINGS):
            pass


@pytest.mark.parametrize("name", ["meta.db", "shard-01.db"])
async def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    async with open_store(tmp_path, settings=SETTINGS):
        pass
    connection = open_writer(tmp_path / name)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(SetupError, match="schema 99"):
        async with open_store(tmp_path, settings=SETTINGS):
            pass
    connection = open_reader(tmp_path / name)
    assert all_rows(connection, "PRAGMA user_version") == [(99,)]
    connection.close()


async def test_a_file_that_is_no_database_is_a_setup_error(tmp_path: Path) -> None:
    (tmp_path / "meta.db").write_bytes(b"not a database " * 100)
    with pytest.raises(SetupError, match="cannot be read"):
        async with open_store(tmp_path, settings=SETTINGS):
            pass


async def test_the_shard_count_of_the_first_start_stays(tmp_path: Path) -> None:
    async with open_store(tmp_path, settings=StoreSettings(shards=3)) as store:
        await new_account(store)
        vault = await new_vault(store, "mk_user")
        await stored(store, vault, "a")
    async with open_store(tmp_path, settings=StoreSettings(shards=5)) as store:
        assert len(store.statistics()["shards"]) == 3
        assert await texts_of(store, vault) == ([], ["a"])


async def test_files_are_set_up_for_durability_and_privacy(tmp_path: Path) -> None:
    data_dir = tmp_path / "made" / "on the way"
    async with open_store(data_dir, settings=SETTINGS):
        connection = open_writer(data_dir / "shard-00.db")
        wanted = {"journal_mode": "wal", "synchronous": 2, "wal_autocheckpoint": 0, "secure_delete": 1}
        for pragma, value in {**wanted, "auto_vacuum": 2, "mmap_size": 0}.items():
            assert all_rows(connection, f"PRAGMA {pragma}") == [(value,)], pragma
        connection.close()
    assert data_dir.stat().st_mode & 0o777 == 0o700


async def test_an_image_is_of_one_moment(tmp_path: Path) -> None:
    """A materialisation between two of the reader's statements is wholly out of the image."""
    async with open_store(tmp_path, settings=SETTINGS) as store:
        vault = (await new_account(store)).vault
        await remembered(store, vault, "a")
        (row,) = await stored(store, vault, "b")
    key = load_server_key(tmp_path / "server.key", may_create=False)
    keyring = KeyRing(key, partial(open_reader, tmp_path / "meta.db"), entries_max=8)
    opened = keyring.find(vault)
    writer = open_writer(tmp_path / f"shard-{vault.shard:02d}.db")
    reader = open_reader(tmp_path / f"shard-{vault.shard:02d}.db")
    seen: list[str] = []

    def trace(_cursor: apsw.Cursor, statement: str, _bindings: object) -> bool:
        if "FROM memory" in statement and not seen:
            seen.append(statement)
            batch = Batch(writer, 1000)
            writer.execute("BEGIN IMMEDIATE")
            sql.materialise(batch, opened.data_key, vault.number, step((row.row_id,), memory(2, "b"), next_seq=3))
            writer.execute("COMMIT")
        return True

    reader.exec_trace = trace
    reader.execute("BEGIN")
    during = sql.load(reader, opened, vault.number, model_id=MODEL).image
    reader.execute("COMMIT")
    after = sql.load(reader, opened, vault.number, model_id=MODEL).image
    assert seen
    assert ([m.content for m in during.memories], during.inbox, during.next_seq) == (["a"], [row], 2)
    assert ([m.content for m in after.memories], after.inbox, after.next_seq) == (["a", "b"], [], 3)
    assert (list(during.vectors), list(after.vectors)) == ([1], [1, 2])
    for connection in (reader, writer):
        connection.close()
    keyring.close()


async def test_readers_run_inside_one_transaction(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    open_writer(path).close()
    readers = Readers(path, trio.CapacityLimiter(1))
    assert await readers.run(lambda connection: connection.in_transaction)

    def write(connection: apsw.Connection) -> None:
        connection.execute("CREATE TABLE t(a)")

    with pytest.raises(StoreUnavailable):  # and they only read
        await readers.run(write)
    assert await readers.run(lambda connection: connection.in_transaction)
    readers.close()


async def test_loads_beside_materialisations_see_each_text_once(tmp_path: Path) -> None:
    async with open_store(tmp_path, settings=SETTINGS) as store:
        vault = (await new_account(store)).vault
        texts = [str(number) for number in range(40)]
        rows = await stored(store, vault, *texts)

        async def materialise_all() -> None:
            for seq, (row, text) in enumerate(zip(rows, texts, strict=True), start=1):
                await store.materialise(vault, step((row.row_id,), memory(seq, text), next_seq=seq + 1))
            loading.cancel()

        async with trio.open_nursery() as nursery:
            loading = trio.CancelScope()
            nursery.start_soon(materialise_all)
            with loading:
                while True:
                    image = await store.load_vault(vault, model_id=MODEL)
                    memories = [m.content for m in image.memories]
                    inbox = [row.exchange.messages[0].content for row in image.inbox]
                    assert memories + inbox == texts
                    assert len(image.vectors) == len(memories) == image.next_seq - 1


async def test_a_shredded_vault_loses_its_rows_in_the_background(tmp_path: Path) -> None:
    async with open_store(tmp_path, settings=SETTINGS) as store:
        await new_account(store)
        vault, other = await new_vault(store, "mk_a"), await new_vault(store, "mk_b")
        other_same_shard = await new_vault(store, "mk_c")
        assert vault.shard == other_same_shard.shard
        for reference in (vault, other, other_same_shard):
            texts = [f"text {number}" for number in range(2 * sql.PURGE_ROWS + 3)]
            await remembered(store, reference, *texts)
            await stored(store, reference, "in the inbox")
        await store.replace_vault(vault)
        with trio.fail_after(PATIENCE_S):
            while vault_state(tmp_path, vault) != 2:
                await store.has_account()
        assert rows_of(tmp_path, vault) == {"memory": 0, "embedding": 0, "inbox": 0}
        for reference in (other, other_same_shard):
            assert rows_of(tmp_path, reference) == {"memory": 515, "embedding": 515, "inbox": 1}


async def test_a_purge_goes_on_after_a_crash(tmp_path: Path) -> None:
    async with open_store(tmp_path, settings=SETTINGS) as store:
        await new_account(store)
        vault = await new_vault(store, "mk_a")
        await remembered(store, vault, "a", "b")
        await stored(store, vault, "c")
        wrapped = b"\0" * 60
    connection = open_writer(tmp_path / "meta.db")  # what a crash right after the shredding commit leaves
    connection.execute("UPDATE vault SET state = 1 WHERE number = ?", (vault.number,))
    connection.execute("UPDATE vault_key SET wrapped = ? WHERE vault = ?", (wrapped, vault.number))
    connection.close()
    async with open_store(tmp_path, settings=SETTINGS) as store:
        assert await texts_of(store, vault) == ([], [])
        with trio.fail_after(PATIENCE_S):
            while vault_state(tmp_path, vault) != 2:
                await store.has_account()
        assert await store.vaults_with_inbox() == []
    assert rows_of(tmp_path, vault) == {"memory": 0, "embedding": 0, "inbox": 0}


async def test_a_shredded_vault_is_not_queued_again_while_its_rows_remain(tmp_path: Path) -> None:
    async with open_store(tmp_path, settings=SETTINGS) as store:
        vault = (await new_account(store)).vault
        await stored(store, vault, "a")
        assert await store.vaults_with_inbox() == [vault]
        connection = open_writer(tmp_path / "meta.db")
        connection.execute("UPDATE vault SET state = 1 WHERE number = ?", (vault.number,))
        assert await store.vaults_with_inbox() == []
        connection.close()


async def test_a_cancelled_shredding_still_happens(tmp_path: Path) -> None:
    async with open_store(tmp_path, settings=SETTINGS) as store:
        vault = (await new_account(store)).vault
        await stored(store, vault, "a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.replace_vault, vault)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        with pytest.raises(NotFound):
            await accept_after_shredding(store, vault)


async def accept_after_shredding(store: SqliteStore, vault: VaultRef) -> None:
    """Accept into a vault whose shredding is queued or done; the key look-up decides."""
    with trio.fail_after(PATIENCE_S):
        while True:
            await accept(store, vault, "late").wait_durable()


class LateReaders(Readers):
    """Readers whose answers are held back: what they say may be old when it arrives."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, trio.CapacityLimiter(1))
        self.have_read = trio.Event()
        self.may_answer = trio.Event()

    async def run(self, read: Callable[[apsw.Connection], T]) -> T:
        answer = await super().run(read)
        self.have_read.set()
        await self.may_answer.wait()
        return answer


async def test_an_answer_older_than_a_write_is_not_cached(tmp_path: Path) -> None:
    async with open_store(tmp_path, settings=SETTINGS) as store:
        await new_account(store)
        usual, late = store._meta_readers, LateReaders(tmp_path / "meta.db")
        store._meta_readers = late
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.find_key, hash_key("mk_new"))
            await late.have_read.wait()
            vault = await new_vault(store, "mk_new")
            late.may_answer.set()
        late.have_read, late.may_answer = trio.Event(), trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.find_key, hash_key("mk_account"))
            await late.have_read.wait()
            await store.replace_account_key(1, key_hash=hash_key("mk_next"), shown="mk_next", created_ms=1)
            late.may_answer.set()
        store._meta_readers = usual
        late.close()
        found = await store.find_key(hash_key("mk_new"))
        assert found is not None
        assert found.vault == vault
        assert await store.find_key(hash_key("mk_account")) is None


async def test_key_look_ups_are_cached_within_bounds(tmp_path: Path) -> None:
    settings = StoreSettings(shards=1, key_cache_max=2, data_key_cache_max=2)
    async with open_store(tmp_path, settings=settings) as store:
        await new_account(store)
        vaults = [await new_vault(store, f"mk_{number}") for number in range(5)]
        for _ in range(2):
            for number, vault in enumerate(vaults):
                found = await store.find_key(hash_key(f"mk_{number}"))
                assert found is not None
                assert found.vault == vault
                await stored(store, vault, "a")
        assert (await texts_of(store, vaults[0]))[1] == ["a", "a"]


async def test_a_cached_key_costs_no_checkpoint(tmp_path: Path) -> None:
    async with open_store(tmp_path, settings=SETTINGS) as store:
        account = await new_account(store)
        await store.find_key(hash_key("mk_account"))
        with trio.testing.assert_no_checkpoints():
            assert await store.find_key(hash_key("mk_account")) == account


async def test_a_closing_store_takes_no_more(tmp_path: Path) -> None:
    async with open_store(tmp_path, settings=SETTINGS) as store:
        vault = (await new_account(store)).vault
    with pytest.raises(ShuttingDown):
        accept(store, vault, "a")
    with pytest.raises(ShuttingDown):
        await store.replace_vault(vault)


async def test_an_exception_in_the_body_passes_unchanged_and_the_store_closes(tmp_path: Path) -> None:
    commits: list[Commit] = []

    async def fail_in_the_body() -> None:
        async with open_store(tmp_path, settings=SETTINGS) as store:
            commits.append(accept(store, (await new_account(store)).vault, "a"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_in_the_body()
    assert commits[0].durable
    async with open_store(tmp_path, settings=SETTINGS):
        pass


async def test_readers_wait_for_a_place_and_leave_when_cancelled(tmp_path: Path) -> None:
    settings = StoreSettings(shards=1, reader_threads=1)
    async with open_store(tmp_path, settings=settings) as store:
        vault = (await new_account(store)).vault
        await remembered(store, vault, *map(str, range(200)))
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(partial(store.load_vault, vault, model_id=MODEL))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert len((await store.load_vault(vault, model_id=MODEL)).memories) == 200
