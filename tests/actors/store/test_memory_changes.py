"""A deleted or changed memory is gone from every file when the call returns, and no restore brings it back.

The plaintext never is in a file; the sealed row is, and the vault's key lives on. So what is looked for afterwards is
each sealed byte of before.
"""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from actors.store.doctor import verify
from actors.store.ledger import DeletedMemories, read_ledger
from actors.store.memory_changes import ranges_of
from actors.store.restore import restore
from actors.store.sqlite import SqliteStore, open_store
from models.ids import VaultRef
from models.memory import Memory
from models.store_settings import StoreSettings
from tests.actors.store.conftest import Clock
from tests.actors.store.harm import captured, query
from tests.actors.store.samples import MODEL, memory, new_account, remembered, step

SETTINGS = StoreSettings(shards=1, ballast_bytes=0, scrub_interval_s=0)
SECRETS = [f"the launch code number {number} is alpha" for number in range(40)]


def sealed_rows(data_dir: Path, vault: VaultRef, *seqs: int) -> list[bytes]:
    """The sealed bodies of memories and their embeddings, as they stand in the shard."""
    ids = [vault.number << 32 | seq for seq in seqs]
    bodies = [
        body
        for table in ("memory", "embedding")
        for row_id in ids
        for (body,) in query(data_dir / "shard-00.db", f"SELECT body FROM {table} WHERE id = ?", row_id)
    ]
    return [body for body in bodies if isinstance(body, bytes)]


def files_with(data_dir: Path, needles: list[bytes]) -> set[str]:
    """Names of files that hold any of these, or the middle of one."""
    middles = [needle[12:44] for needle in needles]
    return {name for name, content in captured(data_dir).items() if any(middle in content for middle in middles)}


async def test_no_file_holds_what_was_deleted_or_changed_once_that_is_answered(tmp_path: Path) -> None:
    """Neither the database nor its write-ahead log, while the store goes on."""
    async with open_store(tmp_path, settings=SETTINGS) as store:
        vault = (await new_account(store)).vault
        await remembered(store, vault, *SECRETS)
        doomed = sealed_rows(tmp_path, vault, 3, 17, 18)
        assert len(doomed) == 6
        assert files_with(tmp_path, doomed), "the control: before, they are there"
        await store.delete_memories(vault, [3, 17, 18])
        assert files_with(tmp_path, doomed) == set()
        changed = sealed_rows(tmp_path, vault, 5, 6)
        await store.put_memory(vault, replace(memory(5, SECRETS[4]), metadata={"k": "v"}))
        await store.rewrite_memory(vault, 6, memory(41, "something harmless"))
        assert files_with(tmp_path, [changed[0], changed[1], changed[3]]) == set()
        assert files_with(tmp_path, [changed[2]]), "the vectors of a text that stays stay"
        image = await store.load_vault(vault, model_id=MODEL)
        assert [one.seq for one in image.memories] == [*range(1, 3), 4, 5, *range(7, 17), *range(19, 42)]
        assert not any(b"launch code" in content for content in captured(tmp_path).values())


async def test_the_ledger_says_which_memories_are_gone_and_never_what_they_said(tmp_path: Path, clock: Clock) -> None:
    async with open_store(tmp_path, settings=SETTINGS, now_ms=clock) as store:
        vault = (await new_account(store)).vault
        await remembered(store, vault, *SECRETS[:6])
        await store.delete_memories(vault, [2, 3, 4, 6])
    (entry,) = read_ledger(tmp_path / "erasure.log").memories
    assert entry == DeletedMemories(vault.number, created_ms=1000, deleted_ms=clock.ms, seqs=((2, 4), (6, 6)))
    assert b"launch" not in (tmp_path / "erasure.log").read_bytes()
    async with open_store(tmp_path, settings=SETTINGS) as store:  # a start has nothing to do with it
        assert len((await store.load_vault(vault, model_id=MODEL)).memories) == 2


async def memories_after_restore(source: Path, backup: Path, target: Path, vault: VaultRef) -> tuple[int, list[Memory]]:
    """How many were deleted again, and what is there; the target keeps the server key and the ledger."""
    target.mkdir()
    for name in ("server.key", "erasure.log"):
        shutil.copy(source / name, target)
    restored = restore(backup, target, now_ms=1_900_000_000_000)
    async with open_store(target, settings=SETTINGS) as store:
        memories = (await store.load_vault(vault, model_id=MODEL)).memories
    assert verify(target).findings == ()
    return restored.memories_deleted, memories


async def test_a_restored_backup_does_not_bring_deleted_memories_back(tmp_path: Path) -> None:
    data_dir, backup = tmp_path / "data", tmp_path / "backup"
    async with open_store(data_dir, settings=SETTINGS) as store:
        vault = (await new_account(store)).vault
        await remembered(store, vault, *SECRETS[:8])
        await store.back_up(backup)
        await store.delete_memories(vault, [2, 3, 7])
    deleted, memories = await memories_after_restore(data_dir, backup, tmp_path / "restored", vault)
    assert (deleted, [one.seq for one in memories]) == (3, [1, 4, 5, 6, 8])
    again = await memories_after_restore(tmp_path / "restored", backup, tmp_path / "again", vault)
    assert again == (3, memories), "the restored directory knows it, too"


async def test_a_number_that_was_given_again_after_a_restore_is_another_memory(tmp_path: Path, clock: Clock) -> None:
    """A restore of what was stored later must not lose it to a deletion of before."""
    data_dir, early, late = tmp_path / "data", tmp_path / "early", tmp_path / "late"
    restored = tmp_path / "restored"

    async def store_one(store: SqliteStore, vault: VaultRef, text: str) -> None:
        one = replace(memory(2, text), stored_ms=clock.ms)
        await store.materialise(vault, step((), one, next_seq=3))

    async with open_store(data_dir, settings=SETTINGS, now_ms=clock) as store:
        vault = (await new_account(store)).vault
        await remembered(store, vault, "first")
        await store.back_up(early)
        await store_one(store, vault, "doomed")
        clock.ms += 10
        await store.delete_memories(vault, [2])
    assert (await memories_after_restore(data_dir, early, restored, vault))[0] == 0
    clock.ms += 10
    async with open_store(restored, settings=SETTINGS, now_ms=clock) as store:
        await store_one(store, vault, "kept")
        await store.back_up(late)
    deleted, memories = await memories_after_restore(restored, late, tmp_path / "last", vault)
    assert (deleted, [one.content for one in memories]) == (0, ["first", "kept"])


@given(st.lists(st.integers(1, 30)))
def test_ranges_hold_exactly_the_numbers_they_are_made_of(seqs: list[int]) -> None:
    ranges = ranges_of(seqs)
    assert [seq for first, last in ranges for seq in range(first, last + 1)] == sorted(set(seqs))
    assert all(before[1] + 1 < after[0] for before, after in pairwise(ranges))
