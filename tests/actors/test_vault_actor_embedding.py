"""Embedding beside the turns: it costs no read any time, and no memory its words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import trio
from numpy.typing import NDArray
from trio.testing import MockClock, wait_all_tasks_blocked

from models.ids import VaultRef
from models.messages import Apply
from tests.actors.house import (
    Gate,
    WatchedStore,
    exchange,
    new_vault,
    stored_texts,
)
from tests.actors.stage import commit, running
from tests.fakes.embedding import HashEmbedding
from tests.fakes.memory_disk import MemoryDisk


@pytest.fixture
async def store() -> WatchedStore:
    return WatchedStore(MemoryDisk())


@pytest.fixture
async def vault(store: WatchedStore) -> VaultRef:
    return await new_vault(store)


class FailingEncoder(HashEmbedding):
    """Fails on texts with the word "poison", and on everything for the first `failures` calls."""

    def __init__(self, *, failures: int = 0) -> None:
        super().__init__()
        self.failures = failures

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("the model is gone for a moment")
        if any("poison" in text for text in texts):
            raise ValueError("poison")
        return super().encode(texts)


async def test_a_text_that_cannot_be_embedded_costs_only_its_own_vectors(
    store: WatchedStore, vault: VaultRef, autojump_clock: MockClock
) -> None:
    async with running(store, vault, encoder=FailingEncoder()) as held:
        rows = await commit(store, vault, exchange("an apple", "some poison", "a pear"))
        await held.ask(Apply(rows))
        await trio.sleep(60)
        assert await held.pending() == 0
        assert await held.found("poison") == ["a pear", "an apple", "some poison"]
    assert stored_texts(store.disk, vault) == ["an apple", "some poison", "a pear"]
    assert sorted(store.disk.vault(vault).vectors) == [1, 3]
    async with running(store, vault) as held:  # a model that can read it is given the chance
        await wait_all_tasks_blocked()
        assert await held.pending() == 0
    assert sorted(store.disk.vault(vault).vectors) == [1, 2, 3]


async def test_a_model_that_fails_for_a_moment_is_asked_again(
    store: WatchedStore, vault: VaultRef, autojump_clock: MockClock
) -> None:
    async with running(store, vault, encoder=FailingEncoder(failures=2)) as held:
        await held.ask(Apply(await commit(store, vault, exchange("an apple"))))
        await trio.sleep(60)
    assert sorted(store.disk.vault(vault).vectors) == [1]


async def test_a_full_queue_of_the_embedder_delays_vectors_and_costs_none(
    store: WatchedStore, vault: VaultRef, autojump_clock: MockClock
) -> None:
    gate = Gate(closed=True)
    async with running(store, vault, gate=gate, bulk_max=1) as held:
        embedder = held.actor._embedder
        async with trio.open_nursery() as others:
            for _ in range(2):
                others.start_soon(lambda: embedder.encode(["of another vault"], lane="bulk"))
                await wait_all_tasks_blocked()
            await held.ask(Apply(await commit(store, vault, exchange("an apple"))))
            await trio.sleep(600)
            assert await held.pending() == 1
            gate.open()
        await trio.sleep(60)
        assert await held.pending() == 0
    assert sorted(store.disk.vault(vault).vectors) == [1]
