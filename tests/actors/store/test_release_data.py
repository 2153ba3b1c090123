"""Data directories of every release open with this code, and hold what they held."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from actors.store.connections import open_reader
from actors.store.doctor import verify
from actors.store.migrations import SHARD_MIGRATIONS, migrate
from actors.store.protocol import Materialisation
from actors.store.sqlite import open_store
from models.embedder_settings import BUILT_IN_EMBEDDER
from models.errors import SetupError
from models.ids import hash_key
from models.version import VERSION
from tests.fixtures.release_data import (
    ACCOUNT_KEY,
    EMPTIED_KEY,
    FIXTURES,
    MEMORIES,
    MODEL,
    REVOKED_KEY,
    SERVER_KEY,
    SETTINGS,
    USER_KEY,
    exchange,
    memory,
    vectors,
)

RELEASES = sorted(path.name for path in FIXTURES.glob("data-*"))


def test_there_is_a_directory_of_this_release() -> None:
    """Made by `python -m tests.fixtures.release_data`."""
    assert f"data-{VERSION}" in RELEASES
    for release in RELEASES:
        size_bytes = sum(path.stat().st_size for path in (FIXTURES / release).rglob("*") if path.is_file())
        assert size_bytes < 300_000


@pytest.mark.parametrize("release", RELEASES)
async def test_a_released_directory_opens_and_holds_everything(tmp_path: Path, release: str) -> None:
    data_dir = tmp_path / "data"
    shutil.copytree(FIXTURES / release, data_dir)
    async with open_store(data_dir, settings=SETTINGS, server_key=SERVER_KEY) as store:
        assert await store.has_account()
        names = [
            (key.kind, key.name, key.created_ms, key.revoked_ms) for key in await store.list_keys(include_revoked=True)
        ]
        assert names == [
            ("account", "account", 1, None),
            ("user", "key 0", 2, None),
            ("user", "key 1", 3, 10),
            ("user", "key 2", 4, None),
        ]
        assert await store.find_key(hash_key(REVOKED_KEY)) is None
        assert await store.find_key(hash_key(ACCOUNT_KEY)) is not None
        user, emptied = await store.find_key(hash_key(USER_KEY)), await store.find_key(hash_key(EMPTIED_KEY))
        assert user is not None
        assert emptied is not None
        image = await store.load_vault(user.vault, model_id=MODEL)
        assert image.memories == [memory(seq) for seq in range(1, MEMORIES + 1) if seq != 3]
        assert sorted(image.vectors) == [seq for seq in range(1, MEMORIES) if seq != 3]
        assert all(np.array_equal(found, vectors(seq)) for seq, found in image.vectors.items())
        assert [row.exchange for row in image.inbox] == [exchange()]
        assert (image.created_ms, image.next_seq, image.damaged) == (2, MEMORIES + 1, 0)
        assert (await store.load_vault(emptied.vault, model_id=MODEL)).memories == []
        assert await store.vaults_with_inbox() == [user.vault]
        assert await store.remembered_embedder(user.vault) == BUILT_IN_EMBEDDER  # there was no other
        assert await store.vaults_moving() == []
    assert verify(data_dir, server_key=SERVER_KEY).findings == ()


async def test_rows_of_a_release_and_of_today_stand_side_by_side_and_a_program_of_then_refuses_them(
    tmp_path: Path,
) -> None:
    """Up to schema 2 the body of a memory was a map; whoever reads maps only would leave new memories out."""
    data_dir = tmp_path / "data"
    shutil.copytree(FIXTURES / "data-0.1.0", data_dir)
    async with open_store(data_dir, settings=SETTINGS, server_key=SERVER_KEY) as store:
        user = await store.find_key(hash_key(USER_KEY))
        assert user is not None
        new = msgspec.structs.replace(memory(5), seq=MEMORIES + 1)
        step = Materialisation(row_ids=(), memories=(new,), vectors={}, model_id=MODEL, next_seq=MEMORIES + 2)
        await store.materialise(user.vault, step)
        image = await store.load_vault(user.vault, model_id=MODEL)
        assert image.memories == [*(memory(seq) for seq in range(1, MEMORIES + 1) if seq != 3), new]
        assert image.damaged == 0
    shard = open_reader(next(data_dir.glob(f"shard-*{user.vault.shard}.db")))
    with pytest.raises(SetupError, match=f"schema {len(SHARD_MIGRATIONS)}; this version knows 2"):
        migrate(shard, SHARD_MIGRATIONS[:2], now_ms=1)
    shard.close()
