"""What every store promises of the embedder that a vault remembers: SQLite and the in-memory twin."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from actors.store.embedder_rows import SWEEP_ROWS
from actors.store.protocol import Materialisation, Store
from actors.store.sqlite import open_store
from models.errors import NotFound
from models.ids import VaultNumber, VaultRef, hash_key
from tests.actors.store.conftest import SETTINGS
from tests.actors.store.samples import MODEL, memory, new_account, new_vault, step, vectors


async def store_memories(store: Store, vault: VaultRef, count: int, *, embedder: str | None = "one") -> None:
    """Memories with vectors of MODEL."""
    memories = [memory(seq, f"text {seq}") for seq in range(1, count + 1)]
    await store.materialise(vault, msgspec.structs.replace(step((), *memories, next_seq=count + 1), embedder=embedder))


def vectors_only(*seqs: int, model_id: str, embedder: str) -> Materialisation:
    """A step with nothing but vectors."""
    return Materialisation((), (), vectors(*seqs), model_id=model_id, next_seq=1, embedder=embedder)


async def test_a_vault_remembers_the_embedder_of_its_first_step(store: Store, vault: VaultRef) -> None:
    assert await store.remembered_embedder(vault) is None
    await store_memories(store, vault, 1, embedder=None)
    assert await store.remembered_embedder(vault) is None
    await store.materialise(vault, vectors_only(1, model_id=MODEL, embedder="one"))
    await store.materialise(vault, vectors_only(1, model_id="m", embedder="two"))
    assert await store.remembered_embedder(vault) == "one"
    assert await store.remembered_embedder(await new_vault(store, "mk_other")) is None


async def test_a_chosen_embedder_is_remembered_before_and_after_the_first_step(store: Store, vault: VaultRef) -> None:
    await store.choose_embedder(vault, "two")
    assert await store.remembered_embedder(vault) == "two"
    await store_memories(store, vault, 2)
    assert await store.remembered_embedder(vault) == "two"
    image = await store.load_vault(vault, model_id=MODEL)
    assert ([found.seq for found in image.memories], image.next_seq) == ([1, 2], 3)
    await store.choose_embedder(vault, "three")
    assert await store.remembered_embedder(vault) == "three"


async def test_a_vault_moves_from_the_choice_until_the_move_is_finished(store: Store, vault: VaultRef) -> None:
    other = await new_vault(store, "mk_other")
    await store_memories(store, vault, 3)
    await store_memories(store, other, 3)
    assert not (await store.load_vault(vault, model_id=MODEL)).moving
    assert await store.vaults_moving() == []
    await store.choose_embedder(vault, "two")
    await store.materialise(vault, vectors_only(1, 2, model_id="m", embedder="two"))
    assert (await store.load_vault(vault, model_id="m")).moving
    assert await store.vaults_moving() == [vault]
    await store.finish_move(vault, name="two", model_id="m")
    assert await store.vaults_moving() == []
    assert not (await store.load_vault(vault, model_id="m")).moving
    assert sorted((await store.load_vault(vault, model_id="m")).vectors) == [1, 2]
    assert (await store.load_vault(vault, model_id=MODEL)).vectors == {}
    assert len((await store.load_vault(vault, model_id=MODEL)).memories) == 3
    assert sorted((await store.load_vault(other, model_id=MODEL)).vectors) == [1, 2, 3]


async def test_the_end_of_a_move_that_is_no_more_wanted_removes_nothing(store: Store, vault: VaultRef) -> None:
    """It has been chosen anew meanwhile, and what looked outdated is what counts again."""
    await store_memories(store, vault, 2)
    await store.choose_embedder(vault, "two")
    await store.choose_embedder(vault, "one")
    await store.finish_move(vault, name="two", model_id="m")
    assert sorted((await store.load_vault(vault, model_id=MODEL)).vectors) == [1, 2]
    assert await store.vaults_moving() == [vault]


async def test_a_vault_that_is_gone_or_never_was_remembers_nothing(store: Store, vault: VaultRef) -> None:
    await store.choose_embedder(vault, "two")
    await store.replace_vault(vault)
    for gone in (vault, VaultRef(number=VaultNumber(999), shard=0)):
        assert gone not in await store.vaults_moving()
        for call in (store.choose_embedder(gone, "x"), store.finish_move(gone, name="two", model_id="m")):
            with pytest.raises(NotFound):
                await call


async def test_a_large_vault_is_swept_in_slices_and_whole(tmp_path: Path) -> None:
    count = SWEEP_ROWS + 5
    async with open_store(tmp_path, settings=msgspec.structs.replace(SETTINGS, shards=1)) as store:
        vault = (await new_account(store)).vault
        await store_memories(store, vault, count)
        await store.choose_embedder(vault, "two")
        await store.materialise(vault, vectors_only(3, count, model_id="m", embedder="two"))
        await store.finish_move(vault, name="two", model_id="m")
        assert (await store.load_vault(vault, model_id=MODEL)).vectors == {}
        assert sorted((await store.load_vault(vault, model_id="m")).vectors) == [3, count]
        assert await store.find_key(hash_key("mk_account")) is not None
