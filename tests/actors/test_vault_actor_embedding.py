"""Embedding beside the turns: it costs no read any time, and no memory its words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    run_inline,
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


class Held:
    """Runs of the encoder by their first text, each held until it is let go."""

    def __init__(self) -> None:
        self.runs: dict[str, tuple[list[str], trio.Event]] = {}

    async def run(self, function: Any, *args: Any, limiter: object = None) -> Any:
        """In place of a thread."""
        held = trio.Event()
        self.runs[args[1][0]] = list(args[1]), held
        await held.wait()
        return await run_inline(function, *args)

    @property
    def under_way(self) -> list[list[str]]:
        """The texts of each run that is held."""
        return sorted(texts for texts, held in self.runs.values() if not held.is_set())

    async def let_go(self, texts: list[str]) -> None:
        """The run of these texts goes on."""
        self.runs[texts[0]][1].set()
        await wait_all_tasks_blocked()


async def test_one_vault_alone_keeps_all_runs_of_the_model_busy_and_is_written_in_its_order(
    store: WatchedStore, vault: VaultRef
) -> None:
    held_runs, texts = Held(), [f"text {number:03}" for number in range(100)]
    async with running(store, vault, offload=held_runs.run, bulk_running_max=2) as held:
        await held.ask(Apply(await commit(store, vault, exchange(*texts[:50]), exchange(*texts[50:]))))
        await wait_all_tasks_blocked()
        embedder = held.actor._embedder
        assert [len(run) for run in held_runs.under_way] == [16, 16]
        assert embedder.statistics()["bulk_waiting"] == 2  # so that the next runs wait for no turn
        while held_runs.under_way[-1] != texts[:16]:  # the vault's first batch comes last
            await held_runs.let_go(held_runs.under_way[-1])
        assert stored_texts(store.disk, vault) == []
        await held_runs.let_go(texts[:16])
        assert held_runs.under_way == [texts[96:]]  # too few for a batch as long as another one was under way
        await held_runs.let_go(texts[96:])
        assert await held.pending() == 0
    assert stored_texts(store.disk, vault) == texts
    assert sorted(store.disk.vault(vault).vectors) == list(range(1, 101))
    expected = HashEmbedding().encode(texts).astype("<f2")
    for seq, (_, rows) in store.disk.vault(vault).vectors.items():
        np.testing.assert_array_equal(rows, expected[seq - 1 : seq])


async def test_what_does_not_fill_a_batch_waits_for_company_while_another_one_is_under_way(
    store: WatchedStore, vault: VaultRef
) -> None:
    held_runs = Held()
    async with running(store, vault, offload=held_runs.run, bulk_running_max=2) as held:
        for text in ("first", "second", "third"):
            await held.ask(Apply(await commit(store, vault, exchange(text))))
            await wait_all_tasks_blocked()
        assert held_runs.under_way == [["first"]]
        await held_runs.let_go(["first"])
        assert held_runs.under_way == [["second", "third"]]
        await held_runs.let_go(["second"])
        assert await held.pending() == 0


async def test_a_vault_leaves_with_two_batches_under_way_and_the_next_one_embeds_what_is_left(
    store: WatchedStore, vault: VaultRef
) -> None:
    held_runs, texts = Held(), [f"text {number:03}" for number in range(40)]
    async with running(store, vault, offload=held_runs.run, bulk_running_max=2) as held:
        await held.ask(Apply(await commit(store, vault, exchange(*texts))))
        await wait_all_tasks_blocked()
        assert len(held_runs.under_way) == 2
        held.mailbox.close()
        while held_runs.under_way:
            await held_runs.let_go(held_runs.under_way[0])
        await held.ended.wait()
        assert held.error is None
    async with running(store, vault, bulk_running_max=2) as held:
        await wait_all_tasks_blocked()
        assert await held.pending() == 0
    assert stored_texts(store.disk, vault) == texts
