"""The shared embedder: batches form by themselves, and nobody waits for or suffers from what is not theirs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import trio
from numpy.typing import NDArray
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.embedder import Embedder, Lane, open_embedder
from actors.embedding_source import BATCH_CHARACTERS_MAX
from models.errors import Overloaded
from tests.actors.house import Gate
from tests.fakes.embedding import HashEmbedding


class WatchedEncoder(HashEmbedding):
    """Notes its batches and cannot read texts with the word "poison"."""

    def __init__(self) -> None:
        super().__init__(dims=16)
        self.batches: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.batches.append(list(texts))
        if any("poison" in text for text in texts):
            raise ValueError("poison")
        return super().encode(texts)


async def expect(embedder: Embedder, *texts: str, lane: Lane = "interactive") -> None:
    """Embed texts and check that the vectors are those of these texts."""
    vectors = await embedder.encode(texts, lane=lane)
    np.testing.assert_array_equal(vectors, HashEmbedding(dims=16).encode(texts))


async def test_what_waits_while_a_batch_runs_forms_the_next_one() -> None:
    encoder, gate = WatchedEncoder(), Gate(closed=True)
    async with open_embedder(encoder, offload=gate.run) as embedder:
        async with trio.open_nursery() as callers:
            for text in ("first", "second", "third", "fourth"):
                callers.start_soon(expect, embedder, text)
                await wait_all_tasks_blocked()
            gate.open()
        assert encoder.batches == [["first"], ["second", "third", "fourth"]]
        assert embedder.statistics()["interactive_batches"] == 2
        assert embedder.statistics()["interactive_texts"] == 4
        assert embedder.statistics()["interactive_waiting"] == 0


async def test_a_single_text_is_embedded_at_once() -> None:
    """No timer: with the autojump clock absent, a wait for company would never end."""
    encoder = WatchedEncoder()
    async with open_embedder(encoder, offload=Gate().run) as embedder:
        await expect(embedder, "alone")
    assert encoder.batches == [["alone"]]


async def test_the_rows_come_back_to_those_who_asked_for_them() -> None:
    gate = Gate(closed=True)
    async with open_embedder(WatchedEncoder(), offload=gate.run) as embedder, trio.open_nursery() as callers:
        for number in range(10):
            callers.start_soon(expect, embedder, *(f"text {number} {part}" for part in range(number % 3 + 1)))
        await wait_all_tasks_blocked()
        gate.open()


async def test_a_batch_ends_at_its_number_of_texts_and_of_characters() -> None:
    encoder, gate = WatchedEncoder(), Gate(closed=True)
    long = "x" * (BATCH_CHARACTERS_MAX // 2 + 1)
    async with (
        open_embedder(encoder, batch_texts_max=4, offload=gate.run) as embedder,
        trio.open_nursery() as callers,
    ):
        for texts in (["a"], ["b", "c", "d"], ["e", "f"], [long], [long], list("uvwxyz"), ["g"]):
            callers.start_soon(expect, embedder, *texts)
            await wait_all_tasks_blocked()
        gate.open()
    assert encoder.batches == [["a"], ["b", "c", "d"], ["e", "f", long], [long], list("uvwxyz"), ["g"]]


async def test_a_question_never_waits_behind_memories() -> None:
    encoder = WatchedEncoder()
    held = Gate(closed=True)

    async def offload(function: object, encode: object, texts: list[str], *, limiter: object) -> object:
        gate = held if any(text.startswith("memory") for text in texts) else Gate()
        return await gate.run(function, encode, texts)  # type: ignore[arg-type]  # the embedder's own call

    async with (
        open_embedder(encoder, offload=offload) as embedder,
        trio.open_nursery() as callers,
    ):
        for number in range(20):
            callers.start_soon(lambda n: expect(embedder, f"memory {n}", lane="bulk"), number)
        await wait_all_tasks_blocked()
        assert embedder.statistics()["bulk_waiting"] == 4  # 16 are under way
        await expect(embedder, "question")
        assert embedder.statistics()["bulk_texts"] == 0
        held.open()


async def test_an_encoder_that_fails_is_reported_to_each_caller_and_the_lane_goes_on() -> None:
    encoder, gate = WatchedEncoder(), Gate(closed=True)
    failures: list[str] = []

    async def fail(text: str) -> None:
        with pytest.raises(ValueError, match="poison"):
            await embedder.encode([text], lane="interactive")
        failures.append(text)

    async with open_embedder(encoder, offload=gate.run) as embedder:
        async with trio.open_nursery() as callers:
            for number in range(3):
                callers.start_soon(fail, f"poison {number}")
                await wait_all_tasks_blocked()
            gate.open()
        await expect(embedder, "afterwards")
    assert sorted(failures) == ["poison 0", "poison 1", "poison 2"]


async def test_nobody_meets_the_error_of_a_text_in_the_same_batch() -> None:
    """Users share batches, so one user's text that the model cannot read must not cost another the answer."""
    encoder, gate = WatchedEncoder(), Gate(closed=True)

    async def fail() -> None:
        with pytest.raises(ValueError, match="poison"):
            await embedder.encode(["poison"], lane="interactive")

    async with open_embedder(encoder, offload=gate.run) as embedder:
        async with trio.open_nursery() as callers:
            callers.start_soon(expect, embedder, "the batch under way")
            await wait_all_tasks_blocked()
            callers.start_soon(expect, embedder, "before")
            callers.start_soon(fail)
            callers.start_soon(expect, embedder, "after", "it")
            await wait_all_tasks_blocked()
            gate.open()
        assert sorted(map(len, encoder.batches)) == [1, 1, 1, 2, 4]


async def test_a_caller_that_leaves_the_queue_is_not_embedded() -> None:
    encoder, gate = WatchedEncoder(), Gate(closed=True)
    async with open_embedder(encoder, offload=gate.run) as embedder, trio.open_nursery() as callers:
        callers.start_soon(expect, embedder, "first")
        await wait_all_tasks_blocked()
        with trio.CancelScope() as leaving:
            callers.start_soon(expect, embedder, "stays")
            leaving.cancel()
            await embedder.encode(["leaves"], lane="interactive")
        assert leaving.cancelled_caught
        await wait_all_tasks_blocked()
        gate.open()
    assert encoder.batches == [["first"], ["stays"]]


async def test_callers_that_leave_at_once_do_not_end_the_lane() -> None:
    """The lane wakes up for a request that is gone; which of the two tasks runs first is up to the scheduler."""
    async with open_embedder(WatchedEncoder(), offload=Gate().run) as embedder:
        for _ in range(40):
            with trio.CancelScope() as leaving:
                leaving.cancel()
                await embedder.encode(["leaves"], lane="interactive")
            await wait_all_tasks_blocked()
        await expect(embedder, "stays")


async def test_a_caller_that_leaves_during_its_batch_disturbs_nobody() -> None:
    encoder, gate = WatchedEncoder(), Gate(closed=True)
    async with open_embedder(encoder, offload=gate.run) as embedder:
        async with trio.open_nursery() as callers:
            callers.start_soon(expect, embedder, "leaves")
            await wait_all_tasks_blocked()
            callers.cancel_scope.cancel()
        async with trio.open_nursery() as callers:
            callers.start_soon(expect, embedder, "stays")
            await wait_all_tasks_blocked()
            gate.open()
        assert embedder.statistics()["interactive_waiting"] == 0


@pytest.mark.parametrize("lane", ["interactive", "bulk"])
async def test_a_full_lane_refuses(lane: Lane) -> None:
    gate = Gate(closed=True)
    async with (
        open_embedder(WatchedEncoder(), interactive_max=2, bulk_max=2, offload=gate.run) as embedder,
        trio.open_nursery() as callers,
    ):
        for text in ("under way", "waits", "waits too"):
            callers.start_soon(lambda text: expect(embedder, text, lane=lane), text)
            await wait_all_tasks_blocked()
        with pytest.raises(Overloaded):
            await embedder.encode(["one too many"], lane=lane)
        assert embedder.statistics()[f"{lane}_waiting"] == 2
        gate.open()


async def test_it_works_in_threads_by_default() -> None:
    async with open_embedder(WatchedEncoder()) as embedder:
        await expect(embedder, "in a thread")
        await expect(embedder, "another", lane="bulk")
        assert embedder.dims == 16
        assert embedder.model_id == "hash-16"


async def test_each_lane_measures_its_waits_and_batches(autojump_clock: MockClock) -> None:
    """The wait of every request, time and size of every batch; what found no room is counted."""

    class Slow(Gate):
        async def run(self, function: Any, *args: Any, **options: Any) -> Any:
            await trio.sleep(2)
            return await super().run(function, *args, **options)

    async with open_embedder(WatchedEncoder(), interactive_max=2, offload=Slow().run) as embedder:
        async with trio.open_nursery() as callers:
            for texts in (["first"], ["second", "third"], ["fourth"]):
                callers.start_soon(partial(expect, embedder, *texts))
                await wait_all_tasks_blocked()
            with pytest.raises(Overloaded):
                await embedder.encode(["no room"], lane="interactive")
        lane, bulk = embedder.lanes()["interactive"], embedder.lanes()["bulk"]
    assert (lane["wait_seconds"].count, lane["wait_seconds"].total) == (3, 4)
    assert (lane["batch_seconds"].count, lane["batch_seconds"].total) == (2, 4)
    assert (lane["batch_texts"].count, lane["batch_texts"].total) == (2, 4)
    assert (lane["refused"], lane["waiting_max"], bulk["batch_texts"].count) == (1, 2, 0)
