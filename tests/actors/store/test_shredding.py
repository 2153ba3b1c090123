"""Deletion is provable: no file of afterwards opens a row of before, with the server key and all the time in the world.

The attacker has every file of the data directory, as it was before a vault was deleted and as it is afterwards, and the
server key. From the files of before everything opens: that is the control. From those of afterwards nothing may.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.store.restore import restore
from actors.store.seal import WRAPPED_KEY_BYTES, DataKey, ServerKey, Table
from actors.store.sqlite import open_store
from models.errors import CorruptRow
from models.ids import VaultRef, hash_key
from models.store_settings import StoreSettings
from tests.actors.store.harm import captured, query
from tests.actors.store.samples import (
    memory,
    new_account,
    new_vault,
    remembered,
    revoke,
    step,
    stored,
    texts_of,
    vectors,
)

SETTINGS = StoreSettings(shards=1, ballast_bytes=0, scrub_interval_s=0)
SECRET = "the launch code is 7-4-1-alpha"
NEEDLES = (SECRET.encode(), SECRET.encode("utf-16-le"), b"launch code", vectors(1)[1].tobytes())
Rows = list[tuple[Table, int, int, bytes]]


def keys_found_in(files: dict[str, bytes], server_key: bytes, vault: VaultRef) -> list[DataKey]:
    """Every data key of a vault that any stretch of any file unwraps to: each place in each file is tried."""
    key, found = ServerKey(server_key), []
    for content in files.values():
        for start in range(len(content) - WRAPPED_KEY_BYTES + 1):
            wrapped = content[start : start + WRAPPED_KEY_BYTES]
            if wrapped.count(0) > WRAPPED_KEY_BYTES // 3:
                continue  # a wrapped key is random: so many zeros are the emptiness of a page
            try:
                found.append(key.unwrap_data_key(vault.number, wrapped))
            except CorruptRow:
                continue
    return found


def rows_of(data_dir: Path, vault: VaultRef) -> Rows:
    """All sealed rows of a vault."""
    shard = data_dir / "shard-00.db"
    found: Rows = []
    for table, statement in (
        (Table.MEMORY, "SELECT id, 0, body FROM memory WHERE id >> 32 = ?"),
        (Table.EMBEDDING, "SELECT id, model, body FROM embedding WHERE id >> 32 = ?"),
        (Table.INBOX, "SELECT id, 0, body FROM inbox WHERE vault = ?"),
    ):
        for row_id, qualifier, body in query(shard, statement, vault.number):
            assert isinstance(row_id, int)
            assert isinstance(qualifier, int)
            assert isinstance(body, bytes)
            found.append((table, row_id, qualifier, body))
    return found


def opened(keys: list[DataKey], rows: Rows) -> list[bytes]:
    """What these keys make of these rows."""
    return [
        body
        for key in keys
        for table, row_id, qualifier, sealed in rows
        for _, body in key.unseal_rows(table, ((row_id, sealed),), qualifier=qualifier, damaged=[])
    ]


def in_clear(data_dir: Path) -> list[str]:
    """Names of files that hold something of the secret in clear."""
    return [name for name, content in captured(data_dir).items() if any(needle in content for needle in NEEDLES)]


@pytest.mark.parametrize("reopened", [False, True])
async def test_no_file_of_afterwards_opens_a_row_of_before(tmp_path: Path, reopened: bool) -> None:
    data_dir = tmp_path / "data"
    async with open_store(data_dir, settings=SETTINGS) as store:
        await new_account(store)
        vault, other = await new_vault(store, "mk_a"), await new_vault(store, "mk_b")
        await store.materialise(vault, step((), memory(1, SECRET), next_seq=2))
        await remembered(store, other, SECRET)
        await stored(store, vault, SECRET)
        await store.save_imprint(vault, [memoryview(SECRET.encode())])
        assert in_clear(data_dir) == []
    assert in_clear(data_dir) == []
    server_key = (data_dir / "server.key").read_bytes()
    rows = rows_of(data_dir, vault)
    assert {table for table, *_ in rows} == set(Table)
    async with open_store(data_dir, settings=SETTINGS) as store:
        before = captured(data_dir)
        await store.replace_vault(vault)
        after = captured(data_dir)  # at once: the rows may be there still
        assert in_clear(data_dir) == []
    if reopened:
        async with open_store(data_dir, settings=SETTINGS):
            pass
        after = captured(data_dir)
        assert not any("imprint" in name for name in after)
    control = keys_found_in(before, server_key, vault)
    assert len(opened(control, rows)) >= len(rows), "the attack works as long as the key is there"
    assert keys_found_in(after, server_key, vault) == []
    assert keys_found_in(after, server_key, other), "and only this vault's key is gone"
    assert in_clear(data_dir) == []


async def test_a_restored_older_backup_brings_neither_vault_nor_key_back(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    async with open_store(data_dir, settings=SETTINGS) as store:
        await new_account(store)
        vault = await new_vault(store, "mk_a")
        await new_vault(store, "mk_revoked")
        await remembered(store, vault, SECRET)
        await store.back_up(tmp_path / "backup")
        rows = rows_of(data_dir, vault)
        await store.replace_vault(vault)
        key = await store.find_key(hash_key("mk_revoked"))
        assert key is not None
        await revoke(store, key, now_ms=1)
    restore(tmp_path / "backup", data_dir, now_ms=2, replace=True)
    server_key = (data_dir / "server.key").read_bytes()
    assert opened(keys_found_in(captured(tmp_path / "backup"), server_key, vault), rows)
    assert keys_found_in(captured(data_dir), server_key, vault) == []
    async with open_store(data_dir, settings=SETTINGS) as store:
        assert await texts_of(store, vault) == ([], [])
        assert await store.find_key(hash_key("mk_revoked")) is None
        found = await store.find_key(hash_key("mk_a"))
        assert found is not None
        assert await texts_of(store, found.vault) == ([], [])
    assert keys_found_in(captured(data_dir), server_key, vault) == []
    assert in_clear(data_dir) == []
    assert in_clear(tmp_path / "backup") == []
