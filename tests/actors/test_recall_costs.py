"""What a question may cost, in things that can be counted: no clock, so that a busy machine changes nothing."""

from __future__ import annotations

import sys
from datetime import UTC
from types import FrameType
from typing import Any

import numpy as np

from actors.analysis import analyse
from actors.layout import LayoutCache, layout_of
from actors.vault import Vault
from models.memory import Exchange, InboxRow, Message
from models.messages import Recall, Scope
from models.rendering import ContextItem, header, render_context
from models.times import local_time
from tests.actors.house import NOW_MS
from tests.fakes.embedding import HashEmbedding

ENCODER = HashEmbedding(dims=16)
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
