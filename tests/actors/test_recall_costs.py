"""What a question may cost, in things that can be counted: no clock, so that a busy machine changes nothing."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from datetime import UTC
from types import FrameType
from typing import Any

import msgspec
import numpy as np
import trio
from numpy.typing import NDArray
from trio.testing import wait_all_tasks_blocked

from actors.analysis import analyse
from actors.layout import LayoutCache, layout_of
from actors.vault import Vault
from actors.vault_limits import ANALYSED_INLINE_MAX, VaultLimits
from models.ids import Access, VaultRef
from models.memory import Exchange, InboxRow, Message
from models.messages import Forget, Recall, Scope
from models.rendering import ContextItem, header, render_context
from models.times import local_time
from router.options import MemoryOptions
from router.questions import plainly
from router.recalling import Recaller
from tests.actors.house import NOW_MS, Gate, House, open_house
from tests.fakes.embedding import HashEmbedding
from tests.patience import PATIENCE_S

ENCODER = HashEmbedding(dims=16)
OPTIONS = MemoryOptions(
    access=Access(), store_input=True, store_response=True, session_id=None, scope=Scope(), chunks_max=30,
    injection="tail", time_zone=UTC,
)  # fmt: skip
CALLS_MAX = 900
"""Of a recall with 30 hits: 20 % more than there are. A loop over a vault's memories would be thousands."""


def vault_of(count: int) -> Vault:
    """A vault with so many embedded memories, all different."""
    vault = Vault(dims=16, repeat_window_ms=1_000, relevance_min=0.0)
    messages = tuple(Message("user", f"The dog number {n} ate bone {n % 7}.", timestamp_ms=n) for n in range(count))
    row = InboxRow(1, Exchange(messages, "upload", NOW_MS))
    for message in vault.begin_row(row):
        memory = vault.add(row, message, analyse(message, ENCODER, 200))
        vault.attach(memory.seq, ENCODER.encode([message.content]).astype(np.float16))
    vault.end_row(row)
    return vault


def question(text: str = "Which bone did the dog eat?") -> Recall:
    vector = ENCODER.encode([text])[0].astype("<f4").tobytes()
    return Recall(text=text, vector=vector, model_id="", scope=Scope(), chunks_max=30, now_ms=NOW_MS, intervals=())


def calls_of(vault: Vault) -> int:
    """Function calls of a recall that is asked for a second time."""
    assert len(vault.recall(question()).hits) == 30
    calls = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    asked = question()
    sys.setprofile(count)
    try:
        vault.recall(asked)
    finally:
        sys.setprofile(None)
    return calls


def test_a_question_takes_as_many_calls_in_a_large_vault_as_in_a_small_one() -> None:
    small, large = calls_of(vault_of(300)), calls_of(vault_of(3_000))
    assert large <= small + 20
    assert large <= CALLS_MAX


def test_the_layout_of_a_vault_is_found_when_a_memory_has_come_and_not_for_each_question() -> None:
    cache, chunk_memory = LayoutCache(), np.array([0, 0, 1, 3], np.int32)
    characters, texts = np.array([10, 20, 5, 800], np.int32), np.array([0, 1, 1, 2], np.int32)
    layouts = [cache.of(chunk_memory, characters, texts) for _ in range(3)]
    assert cache.found == 1
    assert layouts[0] is layouts[2]

    layout = layouts[0]
    assert (layout.plain, layout.repeats) == (False, True)
    values = np.array([1, 7, 3, 2], np.float32)
    everybody, some = np.ones(4, np.bool_), np.array([True, False, True, True])
    assert layout.of_memories(values, everybody, otherwise=0, all_eligible=True).tolist() == [7, 3, 0, 2]
    assert layout.of_memories(values, some, otherwise=-1, all_eligible=False).tolist() == [7, -1, -1, 2]
    assert layout.brief.tolist() == [1, 1, 1, 0.5]

    cache.of(np.append(chunk_memory, 4).astype(np.int32), np.append(characters, 1), np.append(texts, 3))
    assert cache.found == 2


def test_the_layout_of_a_vault_that_grew_is_that_of_one_that_was_always_so_large() -> None:
    """Memories with several chunks, with one and with none, and texts that are said again."""
    pick = np.random.default_rng(1)
    counts = pick.integers(0, 4, 60)
    chunk_memory = np.repeat(np.arange(60), counts).astype(np.int32)
    characters, texts = pick.integers(1, 900, 60).astype(np.int32), np.minimum(np.arange(60), 50).astype(np.int32)
    values = pick.standard_normal(len(chunk_memory)).astype(np.float32)
    cache = LayoutCache()
    for memories in (1, 2, 17, 18, 40, 60):
        chunks = int(counts[:memories].sum())
        columns = chunk_memory[:chunks], characters[:memories], texts[:memories]
        grown, whole = cache.of(*columns), layout_of(*columns)
        for name in whole.__struct_fields__:
            assert np.array_equal(getattr(grown, name), getattr(whole, name)), name
        assert (grown.plain, grown.repeats) == (whole.plain, memories > 51)
        everybody = np.ones(memories, np.bool_)
        best = [values[:chunks][columns[0] == memory].max(initial=-9) for memory in range(memories)]
        found = grown.of_memories(values[:chunks], everybody, otherwise=-9, all_eligible=True)
        assert found.tolist() == np.array(best, np.float32).tolist()


def test_a_vault_with_one_chunk_a_memory_needs_no_reduction() -> None:
    """Then the scores of chunks are those of memories, and are not even copied."""
    numbers = np.arange(5, dtype=np.int32)
    layout = layout_of(numbers, numbers, numbers)
    values = np.arange(5, dtype=np.float32)
    assert (layout.plain, layout.repeats) == (True, False)
    assert layout.of_memories(values, np.ones(5, np.bool_), otherwise=0, all_eligible=True) is values


def test_a_time_is_put_into_words_once_for_counting_and_for_showing() -> None:
    """The header of an entry is what its tokens are counted from, too."""
    header.cache_clear()
    local_time.cache_clear()
    items = [ContextItem(role="user", text=f"text {n}", timestamp_ms=NOW_MS - n * 10**8) for n in range(30)]
    for item in items:
        header(item.role, item.timestamp_ms, NOW_MS, UTC)
    render_context(items, NOW_MS, UTC)
    assert header.cache_info().misses == 30
    assert local_time.cache_info().misses <= 31


def test_a_long_text_is_tokenised_once_to_be_cut_and_counted() -> None:
    encoder = CountingEncoder()
    long = "The dog ate a bone. " * 40
    analysis = analyse(Message("user", long), encoder, 100)
    assert encoder.read == [long]
    assert (len(analysis.spans), analysis.tokens) == (3, ENCODER.count_tokens(long))


class CountingEncoder(HashEmbedding):
    """A model that notes what it is given.

    Attributes:
        read: texts that were tokenised.
        encoded: texts of each run.
    """

    def __init__(self) -> None:
        super().__init__(dims=16)
        self.read: list[str] = []
        self.encoded: list[list[str]] = []

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        self.read.append(text)
        return super().token_offsets(text)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.encoded.append(list(texts))
        return super().encode(texts)


async def asked_of(house: House, vault: VaultRef, text: str, *, stores: bool = True) -> None:
    """Ask a vault as a request does."""
    recaller = Recaller(house.embedder, house.supervisor, block_cache_s=60, clock=trio.current_time)
    options = msgspec.structs.replace(OPTIONS, store_input=stores)
    await recaller.recall(vault, plainly(text), options, now_ms=NOW_MS, timeout_s=PATIENCE_S)


async def test_a_question_is_embedded_once_in_one_thread_and_once_is_enough_if_it_is_remembered() -> None:
    """A chat's question comes back as the user's message. What was not asked, or is kept of nobody, is embedded."""
    encoder, gate = CountingEncoder(), Gate()
    async with open_house(encoder=encoder, gate=gate) as house:
        vault = await house.new_vault()
        await asked_of(house, vault, "Where is my bone?")
        assert (encoder.encoded, gate.entered) == ([["Where is my bone?"]], 1)

        await house.remember(vault, "Where is my bone?")
        assert (await house.stats(vault)).pending == 0
        await house.remember(vault, "It is under the bed.")
        await wait_all_tasks_blocked()
        await asked_of(house, vault, "And the ball?", stores=False)
        await house.remember(vault, "And the ball?")
        await wait_all_tasks_blocked()

    assert encoder.encoded[1:] == [["It is under the bed."], ["And the ball?"], ["And the ball?"]]
    assert gate.entered == 4


async def test_a_question_of_another_reading_than_memories_is_embedded_again_as_one() -> None:
    """A model with a prefix for questions and another for memories makes different vectors of the same words."""
    encoder = CountingEncoder()
    async with open_house(encoder=encoder) as house:
        house.embedder.reads_alike = False
        vault = await house.new_vault()
        await asked_of(house, vault, "Where is my bone?")
        await house.remember(vault, "Where is my bone?")
        await wait_all_tasks_blocked()
    assert encoder.encoded == [["Where is my bone?"]] * 2


async def test_nothing_of_a_question_stays_behind_when_something_is_deleted() -> None:
    encoder = CountingEncoder()
    async with open_house(encoder=encoder) as house:
        vault = await house.new_vault()
        await asked_of(house, vault, "Where is my bone?")
        await house.supervisor.ask(vault, Forget("any"), timeout_s=PATIENCE_S)
        await house.remember(vault, "Where is my bone?")
        await wait_all_tasks_blocked()
    assert encoder.encoded == [["Where is my bone?"]] * 2


async def test_a_vector_that_was_known_already_is_stored_like_any_other() -> None:
    async with open_house() as house:
        vault = await house.new_vault()
        await asked_of(house, vault, "Where is my bone?")
        await house.remember(vault, "Where is my bone?")
        await wait_all_tasks_blocked()
        expected = HashEmbedding().encode(["Where is my bone?"]).astype(np.float16)
        assert [vectors.tolist() for step in house.store.steps for vectors in step.vectors.values()] == [
            expected.tolist()
        ]
        assert house.inbox(vault) == 0


async def test_only_a_long_text_is_analysed_in_a_thread() -> None:
    """A short one would pay for two changes of threads; a long one would hold up whatever else the loop has to do."""
    encoder = ThreadEncoder(dims=16)
    async with open_house(encoder=encoder, limits=VaultLimits()) as house:
        vault = await house.new_vault()
        await house.remember(vault, "a " * (ANALYSED_INLINE_MAX // 2))
        await house.remember(vault, "b " * ANALYSED_INLINE_MAX)
    assert encoder.inline == {"a": True, "b": False}


class ThreadEncoder(HashEmbedding):
    """A model that notes, by its first letter, whether a text was tokenised in the loop's own thread."""

    def __init__(self, *, dims: int) -> None:
        super().__init__(dims=dims)
        self.inline: dict[str, bool] = {}

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        self.inline[text[0]] = threading.current_thread() is threading.main_thread()
        return super().token_offsets(text)
