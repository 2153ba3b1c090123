"""Several batches of memories at once: each on its own, all of them behind questions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.embedder import Embedder, Lane, open_embedder
from actors.embedding_lane import RECENT_S
from tests.actors.house import run_inline
from tests.fakes.embedding import HashEmbedding

ENCODER = HashEmbedding(dims=16)


class Runs:
    """Holds each run of the encoder until it is let go, by the first of its texts.

    Attributes:
        under_way: the texts of the runs that are held.
    """

    def __init__(self) -> None:
        self.under_way: dict[str, list[str]] = {}
        self.broken: set[str] = set()
        self._held: dict[str, trio.Event] = {}

    async def run(self, function: Callable[..., Any], *args: Any, limiter: object = None) -> Any:
        """In place of a thread."""
        texts = list(args[1])
        held = self._held[texts[0]] = trio.Event()
        self.under_way[texts[0]] = texts
        await held.wait()
        del self.under_way[texts[0]]
        if texts[0] in self.broken:
            raise ValueError(texts[0])
        return await run_inline(function, *args)

    async def let_go(self, text: str) -> None:
        """The run that begins with this text goes on, and everybody who waited for it."""
        self._held[text].set()
        await wait_all_tasks_blocked()


class Asked:
    """Who asks the embedder, and what became of it."""

    def __init__(self, embedder: Embedder, askers: trio.Nursery) -> None:
        self._embedder = embedder
        self._askers = askers
        self.answered: list[str] = []
        self.failed: list[str] = []

    async def ask(self, *texts: str, lane: Lane = "bulk") -> None:
        """Begin to ask, and return once everything waits again."""
        self._askers.start_soon(self._ask, texts, lane)
        await wait_all_tasks_blocked()

    async def _ask(self, texts: tuple[str, ...], lane: Lane) -> None:
        try:
            vectors = await self._embedder.encode(texts, lane=lane)
        except ValueError:
            self.failed.append(texts[0])
        else:
            np.testing.assert_array_equal(vectors, ENCODER.encode(texts))
            self.answered.append(texts[0])


async def test_two_batches_run_at_once_and_each_gives_its_own_vectors_whichever_ends_first() -> None:
    runs = Runs()
    async with (
        open_embedder(ENCODER, batch_texts_max=2, bulk_running_max=2, offload=runs.run) as embedder,
        trio.open_nursery() as askers,
    ):
        asked = Asked(embedder, askers)
        for texts in (("a", "b"), ("c", "d"), ("e",), ("f",)):
            await asked.ask(*texts)
        assert runs.under_way == {"a": ["a", "b"], "c": ["c", "d"]}
        await runs.let_go("c")
        assert asked.answered == ["c"]
        assert runs.under_way == {"a": ["a", "b"], "e": ["e", "f"]}
        await runs.let_go("e")
        await runs.let_go("a")
        assert sorted(asked.answered[1:3]) == ["e", "f"]
        assert asked.answered[3:] == ["a"]


async def test_a_batch_that_fails_among_two_costs_the_other_nothing() -> None:
    runs = Runs()
    runs.broken.add("a")
    async with (
        open_embedder(ENCODER, batch_texts_max=1, bulk_running_max=2, offload=runs.run) as embedder,
        trio.open_nursery() as askers,
    ):
        asked = Asked(embedder, askers)
        for text in ("a", "b", "c"):
            await asked.ask(text)
        await runs.let_go("a")
        assert asked.failed == ["a"]
        assert set(runs.under_way) == {"b", "c"}  # the one that failed serves on
        await runs.let_go("b")
        await runs.let_go("c")
        assert asked.answered == ["b", "c"]


async def test_who_leaves_one_of_two_batches_takes_nobody_along() -> None:
    runs = Runs()
    async with (
        open_embedder(ENCODER, batch_texts_max=1, bulk_running_max=2, offload=runs.run) as embedder,
        trio.open_nursery() as askers,
    ):
        async with trio.open_nursery() as leaving:
            await Asked(embedder, leaving).ask("leaves")
            leaving.cancel_scope.cancel()
        asked = Asked(embedder, askers)
        for text in ("b", "c"):
            await asked.ask(text)
        assert set(runs.under_way) == {"leaves", "b"}  # a thread cannot be stopped: its place is free when it ends
        await runs.let_go("leaves")
        await runs.let_go("b")
        await runs.let_go("c")
        assert asked.answered == ["b", "c"]


async def test_a_question_runs_beside_all_batches_of_memories(autojump_clock: MockClock) -> None:
    runs = Runs()
    async with (
        open_embedder(ENCODER, batch_texts_max=1, bulk_running_max=2, offload=runs.run) as embedder,
        trio.open_nursery() as askers,
    ):
        asked = Asked(embedder, askers)
        for text in ("a", "b", "c"):
            await asked.ask(text)
        await asked.ask("question", lane="interactive")
        assert set(runs.under_way) == {"a", "b", "question"}
        await runs.let_go("question")
        assert asked.answered == ["question"]
        await runs.let_go("a")
        await runs.let_go("b")
        await trio.sleep(2 * RECENT_S)
        await runs.let_go("c")


@pytest.mark.parametrize(("running_max", "beside"), [(1, 1), (2, 1), (3, 2)])
async def test_while_questions_come_one_batch_fewer_runs_but_always_one(
    running_max: int, beside: int, autojump_clock: MockClock
) -> None:
    runs = Runs()
    async with (
        open_embedder(ENCODER, batch_texts_max=1, bulk_running_max=running_max, offload=runs.run) as embedder,
        trio.open_nursery() as askers,
    ):
        asked = Asked(embedder, askers)
        await asked.ask("question", lane="interactive")
        for text in "abcd":
            await asked.ask(text)
        await runs.let_go("question")
        assert len(runs.under_way) == beside
        await trio.sleep(0.6 * RECENT_S)
        await asked.ask("another", lane="interactive")
        await runs.let_go("another")
        await trio.sleep(0.6 * RECENT_S)
        assert len(runs.under_way) == beside  # the second one counts from when it came
        await trio.sleep(RECENT_S)
        assert len(runs.under_way) == running_max
        while runs.under_way:
            await runs.let_go(next(iter(runs.under_way)))
        assert sorted(asked.answered[-4:]) == ["a", "b", "c", "d"]
