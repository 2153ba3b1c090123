"""A vault remembers its embedder, moves to another one in the background, and answers by words meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest
import trio
from numpy.typing import NDArray
from trio.testing import MockClock

from actors.choosing_embedders import choose_embedder, embedder_of
from actors.embedder import Embedder
from actors.embedders import open_embedders
from actors.embedding_source import BatchLimits, EmbedderUnavailable, Encode, LocalSource
from actors.supervisor import open_supervisor
from actors.text_embedding import EMBED_CHUNKS_MAX
from actors.vault_actor import VaultLimits
from models.embedding import ForeignModel, TextModel
from models.errors import NotFound
from models.ids import VaultRef
from models.messages import Embedded
from models.settings import VaultSettings
from tests.actors.house import Gate, House, WatchedStore, crash, exchange, question
from tests.fakes.embedding import HashEmbedding
from tests.fakes.memory_disk import MemoryDisk

ONE, TWO = HashEmbedding(dims=64), HashEmbedding(dims=16)
TEXTS = [f"note {number} on apples" for number in range(3 * EMBED_CHUNKS_MAX)]


class FarSource:
    """A model elsewhere: it can be known or not, up or down."""

    may_stall = True
    batches = BatchLimits(texts_max=32)

    def __init__(self, *, known: bool = True) -> None:
        self.encoder = HashEmbedding(dims=24)
        self.model: TextModel = self.encoder if known else ForeignModel(tokens_max=256, tokenizer=ONE)
        self.down = False
        self.bad_vectors = False

    @property
    def is_open(self) -> bool:
        return self.model is self.encoder

    async def open(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.down:
            raise EmbedderUnavailable("down")
        self.model = self.encoder

    def lane(self) -> Encode:
        async def encode(texts: Sequence[str]) -> NDArray[np.float32]:
            await trio.lowlevel.checkpoint()
            if self.down:
                raise EmbedderUnavailable("down", retry_after_s=5.0)
            if self.bad_vectors and any("apples" in text for text in texts):
                raise ValueError("no vectors of apples")
            return self.encoder.encode(texts)

        return encode


def local(name: str, encoder: HashEmbedding, gate: Gate | None = None, **prefixes: str) -> Embedder:
    source = LocalSource(encoder, encoder=encoder, batch_texts_max=16, offload=(gate or Gate()).run)
    return Embedder(source, name=name, interactive_max=99, bulk_max=99, **prefixes)


def far(source: FarSource) -> Embedder:
    return Embedder(source, name="far", interactive_max=99, bulk_max=99)


@asynccontextmanager
async def open_house(
    disk: MemoryDisk, *embedders: Embedder, default: str = "one", idle_timeout_s: float = 300.0
) -> AsyncIterator[House]:
    store = WatchedStore(disk)
    try:
        async with (
            open_embedders(embedders or [local("one", ONE), local("two", TWO)], default=default) as opened,
            open_supervisor(
                store,
                opened,
                VaultSettings(idle_timeout_s=idle_timeout_s),
                VaultLimits(),
                drain_timeout_s=30,
            ) as supervisor,
        ):
            yield House(store, opened.default, supervisor)
    finally:
        await store.close()


async def settled(house: House, vault: VaultRef, autojump_clock: MockClock) -> None:
    """Everything is embedded, written and swept: the clock jumps only when nobody has anything left to do."""
    await trio.sleep(30)
    assert (await house.stats(vault)).pending == 0
    assert not house.store.disk.vault(vault).moves
    assert not house.inbox(vault)


def models_of(house: House, vault: VaultRef) -> dict[str, int]:
    """How many memories have vectors on the disk, by the id of the model."""
    held = [model for model, _ in house.store.disk.vault(vault).vectors.values()]
    return {model: held.count(model) for model in set(held)}


async def choose(house: House, vault: VaultRef, name: str) -> Embedder:
    return await choose_embedder(house.supervisor, vault, name, timeout_s=30)


async def test_a_vault_uses_the_default_until_somebody_chooses(autojump_clock: MockClock) -> None:
    async with open_house(MemoryDisk()) as house:
        vault = await house.new_vault()
        assert house.supervisor.embedder_nowait(vault) is None
        assert (await embedder_of(house.supervisor, vault)).name == "one"
        await house.remember(vault, *TEXTS)
        await settled(house, vault, autojump_clock)
        assert models_of(house, vault) == {ONE.id: len(TEXTS)}
        assert house.store.disk.vault(vault).embedder == "one"
        known = house.supervisor.embedder_nowait(vault)
        assert known is not None
        assert known.name == "one"


async def test_a_move_embeds_everything_anew_and_loses_nothing(autojump_clock: MockClock) -> None:
    async with open_house(MemoryDisk()) as house:
        vault = await house.new_vault()
        await house.remember(vault, *TEXTS)
        await settled(house, vault, autojump_clock)
        assert (await choose(house, vault, "two")).name == "two"
        await house.remember(vault, "said on the way")
        assert len(await house.found(vault)) == len(TEXTS) + 1
        await settled(house, vault, autojump_clock)
        counted = await house.stats(vault)
        assert (counted.embedder, counted.model_id, counted.dims) == ("two", TWO.id, 16)
        assert models_of(house, vault) == {TWO.id: len(TEXTS) + 1}
        assert sorted(house.stored(vault)) == await house.found(vault)
        assert house.supervisor.statistics()["crashed"] == 0
        (hit, *_) = (await house.supervisor.ask(vault, question("note 7", TWO, model_id=TWO.id), timeout_s=30)).hits
        assert hit.memory.content == TEXTS[7]


async def test_choosing_what_a_vault_uses_changes_nothing(autojump_clock: MockClock) -> None:
    async with open_house(MemoryDisk()) as house:
        vault = await house.new_vault()
        await house.remember(vault, "an apple")
        await choose(house, vault, "one")
        assert (await choose(house, vault, "no such")).name == "one"
        assert not house.store.disk.vault(vault).moves
        assert house.supervisor.statistics()["hydrated"] == 1


async def test_a_choice_for_new_vaults_leaves_others_alone(autojump_clock: MockClock) -> None:
    async with open_house(MemoryDisk()) as house:
        old, new = await house.new_vault(), await house.new_vault()
        await house.remember(old, "an apple")
        await settled(house, old, autojump_clock)
        for vault, name in ((old, "one"), (new, "two")):
            chosen = await choose_embedder(house.supervisor, vault, "two", timeout_s=30, only_new=True)
            assert chosen.name == name


async def test_words_answer_while_a_vault_moves_and_progress_is_told(autojump_clock: MockClock) -> None:
    gate = Gate()
    async with open_house(MemoryDisk(), local("one", ONE), local("two", TWO, gate)) as house:
        vault = await house.new_vault()
        await house.remember(vault, *TEXTS, "a red bicycle")
        await settled(house, vault, autojump_clock)
        gate.close()
        await choose(house, vault, "two")
        assert (await house.stats(vault)).pending == len(TEXTS) + 1
        assert await house.found(vault, "bicycle") == ["a red bicycle"]
        await house.remember(vault, "a blue bicycle")
        assert await house.found(vault, "bicycle") == ["a blue bicycle", "a red bicycle"]
        gate.open()
        await settled(house, vault, autojump_clock)
        assert (await house.stats(vault)).memories == len(TEXTS) + 2


async def test_a_question_by_another_model_counts_by_its_words_only(autojump_clock: MockClock) -> None:
    """Its vector may even have the right length."""
    async with open_house(MemoryDisk()) as house:
        vault = await house.new_vault()
        await house.remember(vault, "a red bicycle", "a green apple")
        await settled(house, vault, autojump_clock)
        scores = []
        for model_id in (ONE.id, "another", TWO.id):
            asked = question("bicycle", ONE, model_id=model_id)
            scores.append([hit.score for hit in (await house.supervisor.ask(vault, asked, timeout_s=30)).hits])
        by_words = await house.supervisor.ask(vault, question("bicycle"), timeout_s=30)
        assert scores[1] == scores[2] == [hit.score for hit in by_words.hits]
        assert scores[0] != scores[1]


@pytest.mark.parametrize("batches", [0, 1, 2])
async def test_a_crash_in_the_middle_of_a_move_costs_nothing(autojump_clock: MockClock, batches: int) -> None:
    """The next start goes on by itself, and embeds only what is missing."""
    disk, gate = MemoryDisk(), Gate()
    async with open_house(disk, local("one", ONE), local("two", TWO, gate)) as house:
        vault = await house.new_vault()
        await house.remember(vault, *TEXTS)
        await settled(house, vault, autojump_clock)
        gate.close()
        await choose(house, vault, "two")
        for _ in range(batches):
            done = models_of(house, vault).get(TWO.id, 0)
            gate.open()
            while models_of(house, vault).get(TWO.id, 0) == done:
                await trio.lowlevel.checkpoint()
            gate.close()
        house.store.crash()
        gate.open()
    async with open_house(disk) as house:
        await house.supervisor.resume()
        await settled(house, vault, autojump_clock)
        assert models_of(house, vault) == {TWO.id: len(TEXTS)}
        assert house.stored(vault) == TEXTS
        assert (await house.stats(vault)).memories == len(TEXTS)
        assert await house.store.vaults_moving() == []


async def test_a_crashed_actor_goes_on_with_the_move(autojump_clock: MockClock) -> None:
    gate = Gate()
    async with open_house(MemoryDisk(), local("one", ONE), local("two", TWO, gate)) as house:
        vault = await house.new_vault()
        await house.remember(vault, *TEXTS)
        await settled(house, vault, autojump_clock)
        gate.close()
        await choose(house, vault, "two")

        await crash(house, vault)
        gate.open()
        await settled(house, vault, autojump_clock)
        assert models_of(house, vault) == {TWO.id: len(TEXTS)}


async def test_vectors_that_come_late_by_the_old_model_are_passed_over(autojump_clock: MockClock) -> None:
    """Even if they are as long as the new ones."""
    twin = HashEmbedding(dims=64)
    twin.id = "twin"
    async with open_house(MemoryDisk(), local("one", ONE), local("two", twin)) as house:
        vault = await house.new_vault()
        await house.remember(vault, "an apple", *TEXTS)
        mailbox = house.supervisor._entries[vault.number].mailbox
        await choose(house, vault, "two")
        for rows in (np.ones((1, 64)), np.ones((1, 7))):
            await mailbox.post(Embedded({1: rows.astype("<f2").tobytes()}, model_id=ONE.id))
        await settled(house, vault, autojump_clock)
        assert models_of(house, vault) == {"twin": len(TEXTS) + 1}
        assert abs(float(np.linalg.norm(house.store.disk.vault(vault).vectors[1][1])) - 1) < 0.01
        assert house.supervisor.statistics()["crashed"] == 0


async def test_an_exchange_under_way_during_a_move_is_remembered(autojump_clock: MockClock) -> None:
    """A pin outlasts the move: the mailbox is the same."""
    async with open_house(MemoryDisk()) as house:
        vault = await house.new_vault()
        await house.remember(vault, "an apple")

        with await house.supervisor.pin(vault) as pin:
            await choose(house, vault, "two")
            receipt = pin.submit([exchange("a pear")])
            assert (await receipt.wait_applied(timeout_s=30)).stored == 1
        await settled(house, vault, autojump_clock)
        assert await house.found(vault) == ["a pear", "an apple"]
        assert models_of(house, vault) == {TWO.id: 2}


async def test_another_default_leaves_vaults_that_remember_theirs_alone(autojump_clock: MockClock) -> None:
    disk = MemoryDisk()
    async with open_house(disk) as house:
        vault = await house.new_vault()
        await house.remember(vault, "an apple")
        await settled(house, vault, autojump_clock)
    async with open_house(disk, default="two") as house:
        assert (await embedder_of(house.supervisor, vault)).name == "one"
        assert (await house.stats(vault)).embedder == "one"
        fresh = await house.new_vault()
        assert (await house.stats(fresh)).embedder == "two"


async def test_a_vault_whose_embedder_is_gone_moves_to_the_default(autojump_clock: MockClock) -> None:
    disk = MemoryDisk()
    async with open_house(disk) as house:
        vault = await house.new_vault()
        await house.remember(vault, *TEXTS)
        await settled(house, vault, autojump_clock)
    async with open_house(disk, local("two", TWO), default="two") as house:
        assert await house.found(vault, "7") == [TEXTS[7]]
        await settled(house, vault, autojump_clock)
        assert models_of(house, vault) == {TWO.id: len(TEXTS)}
        assert disk.vault(vault).embedder == "two"


async def test_a_model_of_the_same_name_with_another_graph_embeds_anew(autojump_clock: MockClock) -> None:
    disk, other = MemoryDisk(), HashEmbedding(dims=8)
    async with open_house(disk) as house:
        vault = await house.new_vault()
        await house.remember(vault, *TEXTS)
        await settled(house, vault, autojump_clock)
    async with open_house(disk, local("one", other)) as house:
        assert (await house.stats(vault)).dims == 8
        await settled(house, vault, autojump_clock)
        assert models_of(house, vault) == {other.id: len(TEXTS)}


async def test_a_memory_that_the_new_model_cannot_read_keeps_no_vector_of_the_old_one(
    autojump_clock: MockClock,
) -> None:
    source = FarSource()
    source.bad_vectors = True
    async with open_house(MemoryDisk(), local("one", ONE), far(source)) as house:
        vault = await house.new_vault()
        await house.remember(vault, "green apples", "a red bicycle")
        await settled(house, vault, autojump_clock)
        await choose(house, vault, "far")
        await settled(house, vault, autojump_clock)
        assert models_of(house, vault) == {source.encoder.id: 1}
        assert await house.found(vault) == ["a red bicycle", "green apples"]


async def test_prefixes_stand_before_questions_and_memories(autojump_clock: MockClock) -> None:
    heard: list[str] = []

    class Hearing(HashEmbedding):
        def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
            heard.extend(texts)
            return super().encode(texts)

    embedder = local("one", Hearing(), query_prefix="query: ", document_prefix="passage: ")
    async with open_house(MemoryDisk(), embedder) as house:
        vault = await house.new_vault()
        await house.remember(vault, "an apple")
        await settled(house, vault, autojump_clock)
        await embedder.encode(["what"], lane="interactive")
    assert [text.split(": ")[0] for text in heard] == ["passage", "query"]
    assert heard[0].endswith("an apple")


async def test_chunks_are_no_longer_than_the_model_reads(autojump_clock: MockClock) -> None:
    short = HashEmbedding(dims=8, tokens_max=32)
    async with open_house(MemoryDisk(), local("one", short)) as house:
        vault = await house.new_vault()
        applied = await house.remember(vault, "many words " * 30)
        assert applied.chunks == 2


async def test_a_choice_for_a_vault_that_is_gone_is_told(autojump_clock: MockClock) -> None:
    async with open_house(MemoryDisk()) as house:
        vault = await house.new_vault()
        await house.supervisor.erase(vault)
        assert (await choose(house, vault, "two")).name == "two"  # of the vault that took its place
        house.store.disk.vaults.clear()
        with pytest.raises(NotFound):
            await choose(house, vault, "one")
