"""Sealing: what is on disk tells nothing, cannot be changed unnoticed, and is gone once its key is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.store.connections import open_writer
from actors.store.database import all_rows
from actors.store.seal import KEY_BYTES, DataKey, ServerKey, Table, load_server_key
from actors.store.sqlite import open_store
from models.errors import CorruptRow, SetupError
from models.ids import VaultRef
from models.store_settings import StoreSettings
from tests.actors.store.samples import (
    DIMS,
    MODEL,
    memory,
    new_account,
    new_vault,
    remembered,
    step,
    stored,
    texts_of,
    vectors,
)

SETTINGS = StoreSettings(shards=1, ballast_bytes=0)
SECRET = "the launch code is 7-4-1-alpha"


def opened(key: DataKey, table: Table, row_id: int, sealed: bytes, *, qualifier: int = 0) -> bytes:
    """The body of one row."""
    ((_, body),) = key.unseal_rows(table, [(row_id, sealed)], qualifier=qualifier)
    return body


@given(body=st.binary(max_size=200), table=st.sampled_from(Table), row_id=st.integers(0, 2**63 - 1))
def test_a_sealed_row_opens_to_what_it_was(body: bytes, table: Table, row_id: int) -> None:
    key = DataKey(os.urandom(KEY_BYTES), vault_number=1)
    assert opened(key, table, row_id, key.seal(table, row_id, body)) == body


def test_the_same_row_sealed_twice_looks_different() -> None:
    key = DataKey(os.urandom(KEY_BYTES), vault_number=1)
    assert key.seal(Table.MEMORY, 1, b"text") != key.seal(Table.MEMORY, 1, b"text")


def test_a_row_opens_only_in_its_own_place() -> None:
    secret = os.urandom(KEY_BYTES)
    key = DataKey(secret, vault_number=1)
    sealed = key.seal(Table.EMBEDDING, 5, b"body", qualifier=2)
    assert opened(key, Table.EMBEDDING, 5, sealed, qualifier=2) == b"body"
    with pytest.raises(CorruptRow):
        opened(DataKey(secret, vault_number=2), Table.EMBEDDING, 5, sealed, qualifier=2)
    with pytest.raises(CorruptRow):
        opened(key, Table.MEMORY, 5, sealed, qualifier=2)
    with pytest.raises(CorruptRow):
        opened(key, Table.EMBEDDING, 6, sealed, qualifier=2)
    with pytest.raises(CorruptRow):
        opened(key, Table.EMBEDDING, 5, sealed, qualifier=3)


def test_every_flipped_bit_and_every_cut_is_noticed() -> None:
    key = DataKey(os.urandom(KEY_BYTES), vault_number=1)
    sealed = key.seal(Table.MEMORY, 1, b"body")
    for bit in range(8 * len(sealed)):
        damaged = bytearray(sealed)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptRow):
            opened(key, Table.MEMORY, 1, bytes(damaged))
    for length in range(len(sealed)):
        with pytest.raises(CorruptRow):
            opened(key, Table.MEMORY, 1, sealed[:length])


def test_a_wrapped_key_opens_only_for_its_vault_and_its_server_key() -> None:
    server_key = ServerKey(os.urandom(KEY_BYTES))
    wrapped = server_key.new_wrapped_data_key(7)
    sealed = server_key.unwrap_data_key(7, wrapped).seal(Table.MEMORY, 1, b"body")
    assert opened(server_key.unwrap_data_key(7, wrapped), Table.MEMORY, 1, sealed) == b"body"
    with pytest.raises(CorruptRow):
        server_key.unwrap_data_key(8, wrapped)
    with pytest.raises(CorruptRow):
        ServerKey(os.urandom(KEY_BYTES)).unwrap_data_key(7, wrapped)
    with pytest.raises(CorruptRow):
        server_key.unwrap_data_key(7, bytes(len(wrapped)))


def test_a_server_key_seals_values_for_one_context() -> None:
    server_key = ServerKey(os.urandom(KEY_BYTES))
    sealed = server_key.seal(b"provider openai", b"sk-1")
    assert server_key.unseal(b"provider openai", sealed) == b"sk-1"
    with pytest.raises(CorruptRow):
        server_key.unseal(b"provider other", sealed)


def test_the_key_file_is_made_once_and_only_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "server.key"
    made = load_server_key(path, may_create=True)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size == KEY_BYTES
    assert load_server_key(path, may_create=True).key_id == made.key_id
    assert [file.name for file in tmp_path.iterdir()] == ["server.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o700, 0o601])
def test_a_key_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "server.key"
    load_server_key(path, may_create=True)
    path.chmod(mode)
    with pytest.raises(SetupError, match="wider than 0600"):
        load_server_key(path, may_create=False)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_key_file_may_be_narrow(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "server.key"
    made = load_server_key(path, may_create=True)
    path.chmod(mode)
    assert load_server_key(path, may_create=False).key_id == made.key_id


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_of_the_wrong_length_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "server.key"
    path.write_bytes(bytes(length))
    path.chmod(0o600)
    with pytest.raises(SetupError, match="exactly 32 bytes"):
        load_server_key(path, may_create=True)
    with pytest.raises(SetupError, match="instead of 32"):
        ServerKey(bytes(length))


def test_a_key_file_that_cannot_be_made_is_a_setup_error(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot be used"):
        load_server_key(tmp_path / "missing" / "server.key", may_create=True)


async def test_a_lost_server_key_is_never_replaced_by_a_new_one(tmp_path: Path) -> None:
    async with open_store(tmp_path, settings=SETTINGS) as store:
        vault = (await new_account(store)).vault
        await stored(store, vault, "a")
    key_file = tmp_path / "server.key"
    key = key_file.read_bytes()
    key_file.unlink()
    with pytest.raises(SetupError, match="missing"):
        async with open_store(tmp_path, settings=SETTINGS):
            pass
    assert not key_file.exists()
    async with open_store(tmp_path, settings=SETTINGS, server_key=key) as store:
        assert await texts_of(store, vault) == ([], ["a"])
    with pytest.raises(SetupError, match="not the one"):
        async with open_store(tmp_path, settings=SETTINGS, server_key=bytes(32)):
            pass


async def test_a_server_key_may_change_before_anything_was_sealed(tmp_path: Path) -> None:
    for key in (bytes(32), b"\x01" * 32):
        async with open_store(tmp_path, settings=SETTINGS, server_key=key):
            pass
    async with open_store(tmp_path, settings=SETTINGS, server_key=key) as store:
        vault = (await new_account(store)).vault
        await stored(store, vault, "a")
    async with open_store(tmp_path, settings=SETTINGS, server_key=key) as store:
        assert await texts_of(store, vault) == ([], ["a"])


async def test_the_server_key_may_live_elsewhere(tmp_path: Path) -> None:
    data_dir, key_file = tmp_path / "data", tmp_path / "elsewhere.key"
    async with open_store(data_dir, settings=SETTINGS, server_key_file=key_file) as store:
        await new_account(store)
    assert key_file.stat().st_size == KEY_BYTES
    assert not (data_dir / "server.key").exists()


async def prepared_vaults(data_dir: Path) -> tuple[VaultRef, VaultRef]:
    """Two vaults of one shard, each with two memories, their embeddings and two inbox rows."""
    async with open_store(data_dir, settings=SETTINGS) as store:
        await new_account(store)
        vaults = await new_vault(store, "mk_a"), await new_vault(store, "mk_b")
        for vault in vaults:
            await remembered(store, vault, "a", "b")
            await stored(store, vault, "c", "d")
    return vaults


FIRST, SECOND, THIRD = (f"(:vault << 32 | {seq})" for seq in (1, 2, 3))
ELSEWHERE = "(:other << 32 | 2)"

# What is done to a shard, how many rows of the vault do not open then, and which memories are left.
DAMAGES = {
    "bit of a memory": (f"UPDATE memory SET body = flip(body) WHERE id = {SECOND}", 1, ["a"]),
    "bit of an embedding": (f"UPDATE embedding SET body = flip(body) WHERE id = {SECOND}", 1, ["a", "b"]),
    "bit of an inbox row": ("UPDATE inbox SET body = flip(body) WHERE vault = :vault", 2, ["a", "b"]),
    "memory of the row beside": (f"UPDATE memory SET body = body_of('memory', {FIRST}) WHERE id = {SECOND}", 1, ["a"]),
    "memory of another vault": (
        f"UPDATE memory SET body = body_of('memory', {ELSEWHERE}) WHERE id = {SECOND}", 1, ["a"]
    ),
    "vector of another vault": (
        f"UPDATE embedding SET body = body_of('embedding', {ELSEWHERE}) WHERE id = {SECOND}", 1, ["a", "b"]
    ),
    "vector of another model": (f"UPDATE embedding SET model = 2 WHERE id = {SECOND}", 1, ["a", "b"]),
    "memory moved to this vault": (f"UPDATE memory SET id = {THIRD} WHERE id = {ELSEWHERE}", 1, ["a", "b"]),
    "memory under another seq": (f"UPDATE memory SET id = {THIRD} WHERE id = {SECOND}", 1, ["a"]),
    "inbox rows moved to this vault": ("UPDATE inbox SET vault = :vault WHERE vault = :other", 2, ["a", "b"]),
    "inbox row under another id": ("UPDATE inbox SET id = id + 100 WHERE vault = :vault", 2, ["a", "b"]),
    "vector cut short": (f"UPDATE embedding SET body = substr(body, 1, 20) WHERE id = {SECOND}", 1, ["a", "b"]),
    "width of the model": ("UPDATE model SET dims = 3 WHERE number = 1", 2, ["a", "b"]),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_changed_row_is_noticed(tmp_path: Path, damage: str) -> None:
    vault, other = await prepared_vaults(tmp_path)

    def flip(*arguments: Any) -> Any:
        (body,) = arguments
        return bytes([*body[:-5], body[-5] ^ 4, *body[-4:]])

    connection = open_writer(tmp_path / "shard-00.db")

    def body_of(*arguments: Any) -> Any:
        table, row_id = arguments
        ((body,),) = all_rows(connection, f"SELECT body FROM {table} WHERE id = ?", (row_id,))
        return body

    connection.create_scalar_function("flip", flip, 1)
    connection.create_scalar_function("body_of", body_of, 2)
    connection.execute("INSERT INTO model VALUES (2, 'other', ?)", (DIMS,))
    statement, damaged_rows, memories_left = DAMAGES[damage]
    connection.execute(statement, {"vault": vault.number, "other": other.number})
    assert connection.changes() >= 1
    connection.close()
    model = "other" if damage == "vector of another model" else MODEL
    async with open_store(tmp_path, settings=SETTINGS) as store:
        image = await store.load_vault(vault, model_id=model)
        assert image.damaged == damaged_rows
        assert [found.content for found in image.memories] == memories_left  # nothing false, and the others are whole
        assert store.statistics()["rows_damaged_on_load"] == image.damaged


async def test_a_changed_wrapped_key_is_noticed(tmp_path: Path) -> None:
    vault, other = await prepared_vaults(tmp_path)
    connection = open_writer(tmp_path / "meta.db")
    connection.execute(
        "UPDATE vault_key SET wrapped = (SELECT wrapped FROM vault_key WHERE vault = ?) WHERE vault = ?",
        (other.number, vault.number),
    )
    connection.close()
    async with open_store(tmp_path, settings=SETTINGS) as store:
        with pytest.raises(CorruptRow):
            await store.load_vault(vault, model_id=MODEL)
        assert await texts_of(store, other) == (["a", "b"], ["c", "d"])


def files_with(data_dir: Path, needle: bytes) -> list[str]:
    """Names of the files in which these bytes occur."""
    return [file.name for file in data_dir.rglob("*") if file.is_file() and needle in file.read_bytes()]


async def test_no_file_holds_a_text_or_a_vector_in_clear(tmp_path: Path) -> None:
    vector = vectors(1)[1].tobytes()
    async with open_store(tmp_path, settings=SETTINGS) as store:
        vault = (await new_account(store)).vault
        await stored(store, vault, SECRET)
        await store.materialise(vault, step((), memory(1, SECRET), next_seq=2))
        assert files_with(tmp_path, SECRET.encode()) == []
        assert files_with(tmp_path, vector) == []
        assert await texts_of(store, vault) == ([SECRET], [SECRET])
    assert files_with(tmp_path, SECRET.encode()) == []
    assert files_with(tmp_path, vector) == []


async def test_a_shredded_key_is_in_no_file(tmp_path: Path) -> None:
    """Not in the database, not in its WAL, not in the slack of its pages, before `replace_vault` returns."""
    async with open_store(tmp_path, settings=SETTINGS) as store:
        vaults = [(await new_account(store)).vault]
        vaults += [await new_vault(store, f"mk_{number}") for number in range(150)]
        wrapped = wrapped_keys(tmp_path)
        doomed = vaults[::5]
        for vault in doomed:
            await remembered(store, vault, SECRET)  # its key is in use, and so in the cache
            assert files_with(tmp_path, wrapped[vault.number])
            await store.replace_vault(vault)
            assert files_with(tmp_path, wrapped[vault.number]) == []
        left = files_with(tmp_path, wrapped[vaults[1].number])
        assert left == ["meta.db"]
    for vault in doomed:
        assert files_with(tmp_path, wrapped[vault.number]) == []


def wrapped_keys(data_dir: Path) -> dict[int, bytes]:
    """The wrapped key of every vault."""
    connection = apsw.Connection(str(data_dir / "meta.db"))
    try:
        return dict(all_rows(connection, "SELECT vault, wrapped FROM vault_key"))
    finally:
        connection.close()
