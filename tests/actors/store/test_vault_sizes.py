"""How much a vault holds: counted with the rows themselves, also those of older versions."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from actors.store.sqlite import open_store
from models.errors import MemoryRouterError
from models.ids import hash_key
from tests.actors.store.harm import SETTINGS, query
from tests.actors.store.samples import memory, new_account, new_vault, remembered, step
from tests.fixtures.release_data import FIXTURES, MEMORIES, SERVER_KEY, USER_KEY
from tests.fixtures.release_data import SETTINGS as RELEASE_SETTINGS


async def test_sizes_are_those_of_the_rows_whatever_happened(tmp_path: Path) -> None:
    async with open_store(tmp_path, settings=SETTINGS) as store:
        vaults = [(await new_account(store)).vault, await new_vault(store, "mk_a"), await new_vault(store, "mk_b")]
        for vault in vaults:
            await remembered(store, vault, *"abcdef")
        await store.delete_memories(vaults[1], [2, 3, 3, 77])
        with pytest.raises(MemoryRouterError):
            await store.materialise(vaults[1], step((999,), memory(50, "x"), next_seq=51))
        await store.replace_vault(vaults[2])
        sizes = await store.vault_sizes(vaults[:2])
    counted = {}
    for shard in (0, 1):
        statement = "SELECT id >> 32, count(*), sum(length(body)) FROM memory GROUP BY 1"
        for number, memories, content_bytes in query(tmp_path / f"shard-{shard:02d}.db", statement):
            counted[number] = (memories, content_bytes)
    assert sizes == {number: counted[number] for number in sizes}
    assert [sizes[vault.number][0] for vault in vaults[:2]] == [6, 4]


async def test_memories_stored_before_there_were_counters_are_counted_as_well(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "data-0.1.0", tmp_path / "data")
    async with open_store(tmp_path / "data", settings=RELEASE_SETTINGS, server_key=SERVER_KEY) as store:
        user = await store.find_key(hash_key(USER_KEY))
        assert user is not None
        record = await store.get_vault(1, user.vault.number)
        statement = "SELECT sum(length(body)) FROM memory WHERE id >> 32 = ?"
        ((content_bytes,),) = query(
            tmp_path / "data" / f"shard-{user.vault.shard:02d}.db", statement, int(user.vault.number)
        )
        assert (record.memories, record.content_bytes) == (MEMORIES - 1, content_bytes)
        await store.delete_memories(user.vault, [1])
        assert (await store.get_vault(1, user.vault.number)).memories == MEMORIES - 2
