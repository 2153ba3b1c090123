"""A model that cannot be had, or is not known yet: words answer, nothing waits for it, and vectors follow."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from actors.embedder import Embedder
from actors.embedding_source import EmbedderUnavailable, LocalSource
from models.embedding import ForeignModel
from tests.actors.house import run_inline
from tests.actors.test_embedders import (
    ONE,
    TEXTS,
    TWO,
    FarSource,
    choose,
    far,
    local,
    models_of,
    open_house,
    settled,
)
from tests.fakes.embedding import HashEmbedding
from tests.fakes.memory_disk import MemoryDisk


async def test_a_model_that_is_down_costs_no_write_and_is_tried_again(autojump_clock: MockClock) -> None:
    source, disk = FarSource(), MemoryDisk()
    source.down = True
    async with open_house(disk, far(source), default="far") as house:
        vault = await house.new_vault()
        await house.remember(vault, "an apple", "a pear")
        assert await house.found(vault, "pear") == ["a pear"]
        await trio.sleep(30)
        assert not house.inbox(vault)
        assert house.stored(vault) == ["an apple", "a pear"]
        counted = await house.stats(vault)
        assert (counted.pending, counted.memories) == (2, 2)
        await trio.sleep(3_600)
        assert (await house.stats(vault)).pending == 2
        source.down = False
        await trio.sleep(60)
        assert (await house.stats(vault)).pending == 0
        await settled(house, vault, autojump_clock)
        assert models_of(house, vault) == {source.encoder.id: 2}


async def test_a_vault_that_waits_for_a_model_may_leave_memory(autojump_clock: MockClock) -> None:
    source = FarSource()
    source.down = True
    async with open_house(MemoryDisk(), far(source), default="far", idle_timeout_s=60) as house:
        vault = await house.new_vault()
        await house.remember(vault, "an apple")
        await trio.sleep(600)
        assert house.supervisor.statistics()["live"] == 0
        source.down = False
        assert await house.found(vault) == ["an apple"]
        await settled(house, vault, autojump_clock)
        assert models_of(house, vault) == {source.encoder.id: 1}


@pytest.mark.parametrize("down_at_first", [True, False])
async def test_a_model_that_is_not_known_yet_is_found_out_and_the_vault_begins_anew(
    autojump_clock: MockClock, down_at_first: bool
) -> None:
    source, disk = FarSource(known=False), MemoryDisk()
    source.down = down_at_first
    async with open_house(disk, far(source), default="far") as house:
        vault = await house.new_vault()
        await house.remember(vault, "an apple")
        assert await house.found(vault, "apple") == ["an apple"]
        assert ((await house.stats(vault)).dims == 0) == down_at_first
        source.down = False
        await trio.sleep(120)
        await settled(house, vault, autojump_clock)
        counted = await house.stats(vault)
        assert (counted.dims, counted.pending, counted.memories) == (24, 0, 1)
        assert models_of(house, vault) == {source.encoder.id: 1}


async def test_vectors_in_the_store_are_used_again_once_their_model_is_known(autojump_clock: MockClock) -> None:
    source, disk = FarSource(), MemoryDisk()
    async with open_house(disk, far(source), default="far") as house:
        vault = await house.new_vault()
        await house.remember(vault, *TEXTS)
        await settled(house, vault, autojump_clock)
        done = house.embedder.statistics()["bulk_texts"]
        assert done == len(TEXTS)
    again = FarSource(known=False)
    again.down = True
    async with open_house(disk, far(again), default="far") as house:
        assert await house.found(vault, "7") == [TEXTS[7]]
        again.down = False
        await trio.sleep(120)
        assert (await house.stats(vault)).pending == 0
        assert house.embedder.statistics()["bulk_texts"] == 0


async def test_a_directory_is_opened_when_it_is_first_needed(autojump_clock: MockClock) -> None:
    opened: list[str] = []

    def load() -> HashEmbedding:
        opened.append("two")
        return TWO

    model = ForeignModel(tokens_max=256, tokenizer=ONE)
    source = LocalSource(model, load, batch_texts_max=16, offload=run_inline)
    lazy = Embedder(source, name="two", interactive_max=9, bulk_max=9)
    async with open_house(MemoryDisk(), local("one", ONE), lazy) as house:
        vault, other = await house.new_vault(), await house.new_vault()
        await house.remember(vault, "an apple")
        assert opened == []
        with pytest.raises(EmbedderUnavailable):
            await Embedder(source, interactive_max=9, bulk_max=9).encode(["what"], lane="interactive")
        await choose(house, vault, "two")
        await choose(house, other, "two")
        await settled(house, vault, autojump_clock)
        assert opened == ["two"]
        assert models_of(house, vault) == {TWO.id: 1}
        assert lazy.statistics()["bulk_texts"] == 1
