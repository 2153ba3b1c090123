"""What every store does when a single memory is changed: one step, all of it or nothing."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from actors.store.protocol import Materialisation, Store
from models.errors import NotFound, StoreUnavailable
from models.ids import VaultNumber, VaultRef
from models.memory import Memory
from tests.actors.store.samples import MODEL, memory, new_vault, remembered, step, vectors


async def memories_of(store: Store, vault: VaultRef) -> list[Memory]:
    return (await store.load_vault(vault, model_id=MODEL)).memories


async def test_what_is_said_of_a_memory_is_written_in_its_place(store: Store, vault: VaultRef) -> None:
    """Its vectors stay: its text is the same."""
    await remembered(store, vault, "a", "b", "c")
    changed = replace(memory(2, "b"), session_id="s", timestamp_ms=5, metadata={"k": 1})
    await store.put_memory(vault, changed)
    assert await memories_of(store, vault) == [memory(1, "a"), changed, memory(3, "c")]
    assert list((await store.load_vault(vault, model_id=MODEL)).vectors) == [1, 2, 3]


async def test_a_rewritten_memory_takes_the_old_ones_place_with_a_new_number(store: Store, vault: VaultRef) -> None:
    """It has no vectors until they come, and numbers go on behind it."""
    await remembered(store, vault, "a", "b", "c")
    after = replace(memory(4, "other"), first_seq=2)
    await store.rewrite_memory(vault, 2, after)
    image = await store.load_vault(vault, model_id=MODEL)
    assert image.memories == [memory(1, "a"), memory(3, "c"), after]
    assert (list(image.vectors), image.next_seq) == ([1, 3], 5)
    late = Materialisation(row_ids=(), memories=(), vectors=vectors(2, 4), model_id=MODEL, next_seq=5)
    await store.materialise(vault, late)
    assert list((await store.load_vault(vault, model_id=MODEL)).vectors) == [1, 3, 4]


async def test_what_is_not_there_cannot_be_changed(store: Store, vault: VaultRef) -> None:
    """Nor may a change take a number that is taken; nothing is changed then."""
    await remembered(store, vault, "a", "b")
    other = await new_vault(store, "mk_other")
    with pytest.raises(StoreUnavailable):
        await store.put_memory(vault, memory(9, "x"))
    with pytest.raises(StoreUnavailable):
        await store.put_memory(other, memory(1, "x"))
    with pytest.raises(StoreUnavailable):
        await store.rewrite_memory(vault, 9, memory(10, "x"))
    with pytest.raises(StoreUnavailable):
        await store.rewrite_memory(vault, 1, memory(2, "x"))
    image = await store.load_vault(vault, model_id=MODEL)
    assert (image.memories, list(image.vectors)) == ([memory(1, "a"), memory(2, "b")], [1, 2])
    assert await memories_of(store, other) == []


async def test_an_unknown_vault_has_no_memories_to_change(store: Store, vault: VaultRef) -> None:
    nobody = VaultRef(number=VaultNumber(99), shard=vault.shard)
    for change in (store.put_memory(nobody, memory(1, "x")), store.rewrite_memory(nobody, 1, memory(2, "x"))):
        with pytest.raises(NotFound):
            await change


async def test_sizes_follow_every_change(store: Store, vault: VaultRef) -> None:
    """Rewritten memories count once."""
    await store.materialise(vault, step((), memory(1, "a"), memory(2, "b"), next_seq=3))
    await store.rewrite_memory(vault, 1, memory(3, "a longer text than before"))
    assert (await store.vault_sizes([vault]))[int(vault.number)][0] == 2
    await store.delete_memories(vault, [2, 3])
    assert (await store.vault_sizes([vault]))[int(vault.number)] == (0, 0)
