"""A whole store moves from a data directory to PostgreSQL and back, as it is sealed, wherever it is killed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import psycopg
import pytest
import trio

from actors.store import migrating_vaults
from actors.store.data_directory import locked
from actors.store.migrating import Keys, Migrated, Watcher, migrate_store
from actors.store.migrating_directory import DIRECTORY_TABLES
from actors.store.postgres.store import open_postgres_store
from actors.store.protocol import Materialisation, Store
from actors.store.seal import SERVER_KEY_FILE
from actors.store.sqlite import open_store
from models.errors import SetupError
from models.ids import VaultRef
from tests.actors.store.conftest import on_postgres
from tests.actors.store.harm import SETTINGS as SQLITE_SETTINGS
from tests.actors.store.harm import change, query
from tests.actors.store.samples import MODEL, memory, new_account, remembered, stored, texts_of, vectors
from tests.actors.store.whole_store import everything, fill

PARTS = 3
"""Not a multiple of the shards, so that vaults of two shard files meet in a partition."""
NEW_SHARDS = 2
ROOT = Path(__file__).parents[3]


def move(source: str | Path, target: str | Path, *, watcher: Watcher | None = None) -> Migrated:
    """Move a store."""
    return migrate_store(
        str(source), str(target), keys=Keys(), shards=NEW_SHARDS, parts=PARTS, now_ms=5, watcher=watcher
    )


def sqlite(data_dir: Path) -> AbstractAsyncContextManager[Store]:
    """The store of a directory."""
    return open_store(data_dir, settings=SQLITE_SETTINGS)


def postgres(data_dir: Path, url: str) -> AbstractAsyncContextManager[Store]:
    """The store of a database; the server key is in the directory."""
    return open_postgres_store(data_dir, settings=on_postgres(url))


def new_directory(data_dir: Path, like: Path) -> Path:
    """An empty directory with the server key of another one."""
    data_dir.mkdir(mode=0o700)
    shutil.copy2(like / SERVER_KEY_FILE, data_dir)
    return data_dir


async def asked_of(opened: AbstractAsyncContextManager[Store]) -> dict[str, object]:
    """Everything that is in a store."""
    async with opened as store:
        return await everything(store)


async def filled(data_dir: Path, *, memories: int = 20) -> dict[str, object]:
    """A directory with everything, and what is in it."""
    async with sqlite(data_dir) as store:
        await fill(store, memories=memories)
        return await everything(store)


async def test_every_kind_of_row_makes_the_round_trip(tmp_path: Path, postgres_url: str) -> None:
    wanted = await filled(tmp_path / "data")
    moved = move(tmp_path / "data", postgres_url)
    assert (moved.vaults, moved.resumed) == (7, False)
    assert moved.rows["damaged_inbox"] == 2
    assert await asked_of(postgres(tmp_path / "data", postgres_url)) == wanted
    back = move(postgres_url, new_directory(tmp_path / "back", tmp_path / "data"))
    assert back.rows == moved.rows
    assert back.directory == moved.directory
    assert await asked_of(sqlite(tmp_path / "back")) == wanted


async def test_what_is_stored_after_a_move_comes_behind_what_was_there(tmp_path: Path, postgres_url: str) -> None:
    async with sqlite(tmp_path / "data") as store:
        vault = (await new_account(store)).vault
        rows = await stored(store, vault, "a", "b")
    move(tmp_path / "data", postgres_url)
    async with postgres(tmp_path / "data", postgres_url) as moved:
        there = VaultRef(number=vault.number, shard=vault.number % PARTS)
        rows += await stored(moved, there, "c")
        assert await texts_of(moved, there) == ([], ["a", "b", "c"])
        assert [row.row_id for row in rows] == sorted(row.row_id for row in rows)
        second = await new_account(moved, "mk_second")
        assert second.vault.number == vault.number + 1
    move(postgres_url, new_directory(tmp_path / "back", tmp_path / "data"))
    async with sqlite(tmp_path / "back") as back:
        here = VaultRef(number=vault.number, shard=vault.number % NEW_SHARDS)
        assert (await stored(back, here, "d"))[0].row_id > rows[-1].row_id
        assert await texts_of(back, here) == ([], ["a", "b", "c", "d"])


async def test_rows_stay_sealed_as_they_are(tmp_path: Path, postgres_url: str) -> None:
    await filled(tmp_path / "data")
    assert move(tmp_path / "data", postgres_url).sealed_anew == 0
    found = {}
    with psycopg.connect(postgres_url) as connection:
        for table in ("memory", "embedding", "inbox", "damaged_inbox"):
            found[table] = sorted(connection.execute(f"SELECT id, body FROM {table}"))
    for table, rows in found.items():
        wanted = []
        for shard in range(SQLITE_SETTINGS.shards):
            wanted += query(tmp_path / "data" / f"shard-{shard:02d}.db", f"SELECT id, body FROM {table}")
        live = {row_id >> 32 for row_id, _ in rows} if table in ("memory", "embedding") else None
        wanted = [row for row in wanted if live is None or int(str(row[0])) >> 32 in live]
        assert set(rows) <= set(wanted)
        assert live is None or len(rows) == len(wanted)


async def test_shards_that_numbered_their_models_differently_meet(tmp_path: Path, postgres_url: str) -> None:
    async with sqlite(tmp_path / "data") as store:
        first = (await new_account(store)).vault
        second = (await new_account(store, "mk_second")).vault
        assert first.shard != second.shard
        await remembered(store, first, "a", "b")
        of_other = Materialisation((), (memory(1, "c"),), vectors(1), model_id="other@1", next_seq=2)
        await store.materialise(second, of_other)
        await remembered(store, second, "d", "e")
        wanted = await everything(store)
    assert move(tmp_path / "data", postgres_url).sealed_anew == 2
    assert await asked_of(postgres(tmp_path / "data", postgres_url)) == wanted


@pytest.mark.parametrize("table", ["memory", "embedding", "inbox"])
async def test_a_damaged_row_is_copied_as_it_is(tmp_path: Path, postgres_url: str, table: str) -> None:
    async with sqlite(tmp_path / "data") as store:
        vault = (await new_account(store)).vault
        await remembered(store, vault, "a", "b")
        await stored(store, vault, "c")
    database = tmp_path / "data" / f"shard-{vault.shard:02d}.db"
    change(database, f"UPDATE {table} SET body = flip(body) WHERE id = (SELECT max(id) FROM {table})")
    ((row_id, body),) = query(database, f"SELECT id, body FROM {table} WHERE id = (SELECT max(id) FROM {table})")
    move(tmp_path / "data", postgres_url)
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute(f"SELECT body FROM {table} WHERE id = {row_id}").fetchone() == (body,)
    async with postgres(tmp_path / "data", postgres_url) as moved:
        image = await moved.load_vault(VaultRef(number=vault.number, shard=vault.number % PARTS), model_id=MODEL)
        assert image.damaged == 1


async def test_inbox_rows_that_meet_in_one_file_get_ids_of_their_own(tmp_path: Path, postgres_url: str) -> None:
    """Each partition numbers its commits by itself, a shard file numbers those of several."""
    shutil.copytree(new_directory(tmp_path / "key", await _key(tmp_path)), tmp_path / "node")
    settings = on_postgres(postgres_url)
    async with open_postgres_store(tmp_path / "node", settings=settings) as store:
        await new_account(store)
        for number in range(4):
            principal = await new_account(store, f"mk_{number}")
            await stored(store, principal.vault, f"a{number}", f"b{number}")
            bad = await stored(store, principal.vault, "bad")
            await store.set_aside(principal.vault, [bad[0].row_id])
            await stored(store, principal.vault, f"c{number}")
        wanted = await everything(store)
    data_dir = new_directory(tmp_path / "data", tmp_path / "node")
    moved = migrate_store(postgres_url, str(data_dir), keys=Keys(), shards=1, parts=1, now_ms=5)
    assert moved.sealed_anew > 0
    assert moved.rows["damaged_inbox"] == 4
    assert await asked_of(sqlite(data_dir)) == wanted


async def _key(tmp_path: Path) -> Path:
    """A directory with a server key."""
    async with sqlite(tmp_path / "made"):
        return tmp_path / "made"


@pytest.mark.parametrize("to_postgres", [True, False])
async def test_a_move_that_is_killed_goes_on_where_it_was(
    tmp_path: Path, postgres_url: str, *, to_postgres: bool
) -> None:
    wanted = await filled(tmp_path / "data")
    source, target = str(tmp_path / "data"), postgres_url
    if not to_postgres:
        move(source, target)
        source, target = target, str(new_directory(tmp_path / "back", tmp_path / "data"))
    notes: list[str] = []
    for reports in (3, 9):
        assert killed_after(reports, source, target)
    with pytest.raises(SetupError, match="unfinished"):
        await asked_of(postgres(tmp_path / "data", target) if to_postgres else sqlite(Path(target)))
    seen: list[tuple[int, int]] = []
    moved = move(source, target, watcher=Watcher(note=notes.append, copied=lambda *done: seen.append(done)))
    assert moved.resumed
    assert notes[0].startswith("going on: ")
    assert not notes[0].startswith("going on: 0 ")
    assert seen[-1][0] == seen[-1][1]
    assert await asked_of(postgres(tmp_path / "data", target) if to_postgres else sqlite(Path(target))) == wanted


def killed_after(reports: int, source: str, target: str) -> bool:
    """Begin a move with small transactions, and kill it after so many reports of how far it is."""
    command = [sys.executable, "-m", "tests.actors.store.migrate_child", source, target, str(reports)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        reached = child.stdout.readline()
        child.kill()
    assert child.returncode == -9
    return reached == b"reached\n"


async def test_only_an_empty_target_or_the_unfinished_copy_of_the_same_source_will_do(
    tmp_path: Path, postgres_url: str
) -> None:
    async with sqlite(tmp_path / "data") as store:
        await fill(store, memories=6)
    async with sqlite(tmp_path / "other") as store:
        vault = (await new_account(store)).vault
    killed_after(3, str(tmp_path / "data"), postgres_url)
    with pytest.raises(SetupError, match="key"):
        move(tmp_path / "other", postgres_url)
    shutil.copytree(tmp_path / "data", tmp_path / "used")
    async with sqlite(tmp_path / "used") as store:
        await stored(store, VaultRef(number=vault.number, shard=vault.shard), "later")
    with pytest.raises(SetupError, match="another store, or its source was used"):
        move(tmp_path / "used", postgres_url)
    move(tmp_path / "data", postgres_url)
    with pytest.raises(SetupError, match="is not empty"):
        move(tmp_path / "data", postgres_url)
    with pytest.raises(SetupError, match="is not empty"):
        move(postgres_url, tmp_path / "data")


async def test_neither_end_may_be_in_use(tmp_path: Path, postgres_url: str) -> None:
    async with sqlite(tmp_path / "data") as store:
        await new_account(store)
    with locked(tmp_path / "data"), pytest.raises(SetupError, match="in use"):
        move(tmp_path / "data", postgres_url)
    move(tmp_path / "data", postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO node(node_id, incarnation, addr, expires_at) VALUES ('n', 1, 'a', clock_timestamp() + '1 min')"
        )
        with pytest.raises(SetupError, match="1 running servers"):
            move(postgres_url, new_directory(tmp_path / "back", tmp_path / "data"))


async def test_a_server_that_begins_to_write_ends_the_move(tmp_path: Path, postgres_url: str) -> None:
    """It takes the partitions; the next transaction of the move finds out."""
    await filled(tmp_path / "data")

    def take(_done: int, _total: int) -> None:  # in a transaction of the first partition
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute("UPDATE part SET owner = 'somebody', epoch = epoch + 1 WHERE part = 2")

    with pytest.raises(SetupError, match="A server has begun"):
        move(tmp_path / "data", postgres_url, watcher=Watcher(copied=_once(take)))


async def test_a_copy_that_differs_is_no_copy(tmp_path: Path, postgres_url: str) -> None:
    """Whatever table it is in."""
    await filled(tmp_path / "data")
    for harm in (
        "UPDATE memory SET body = '\\x00' WHERE id = (SELECT min(id) FROM memory)",
        "DELETE FROM embedding WHERE id = (SELECT max(id) FROM embedding)",
        "UPDATE vault_state SET memories = memories + 1",
        "UPDATE vault_state SET next_seq = 3",
        "UPDATE key SET limits = ''",
        "UPDATE last_number SET number = 0",
    ):
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")

        def harm_it(done: int, total: int, harm: str = harm) -> None:
            with psycopg.connect(postgres_url, autocommit=True) as connection:
                connection.execute("SET session_replication_role = replica")
                connection.execute(harm)

        with pytest.raises(SetupError, match="copy"):
            move(tmp_path / "data", postgres_url, watcher=Watcher(compared=_once(harm_it)))
        with pytest.raises(SetupError, match="unfinished"):
            await asked_of(postgres(tmp_path / "data", postgres_url))


def _once(report: Callable[[int, int], None]) -> Callable[[int, int], None]:
    """Told once only."""
    told: list[int] = []

    def tell(done: int, total: int) -> None:
        if not told:
            told.append(done)
            report(done, total)

    return tell


def test_every_table_of_the_directory_is_moved(tmp_path: Path) -> None:
    """With every column."""

    async def make() -> None:
        async with sqlite(tmp_path / "data"):
            pass

    trio.run(make)
    meta = tmp_path / "data" / "meta.db"
    left_out = ("setting", "migration", "commit_counter", "sqlite_sequence", "directory_state", "directory_writer")
    names = {str(name) for (name,) in query(meta, "SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert names - set(left_out) == {table.name for table in DIRECTORY_TABLES}
    for table in DIRECTORY_TABLES:
        columns = {str(name) for (name,) in query(meta, "SELECT name FROM pragma_table_info(?)", table.name)}
        assert columns == {*table.columns, *table.counted}


def test_one_end_is_a_directory_and_the_other_a_database(tmp_path: Path) -> None:
    for source, target in (("a", "b"), ("postgresql://a", "postgres://b")):
        with pytest.raises(SetupError, match="One of both"):
            move(source, target)
    with pytest.raises(SetupError, match="server key"):
        move("postgresql://127.0.0.1:1/nobody", tmp_path / "absent")
    assert not os.listdir(tmp_path)


def test_transactions_are_bounded() -> None:
    assert migrating_vaults.TRANSACTION_ROWS <= 4096
