"""The shared embedder: texts of all vaults and requests become vectors in micro-batches.

Batching is natural: whatever has queued up while the last batch ran forms the next one; no timer adds latency. Questions
that somebody waits for (interactive) and memories that are found by their words meanwhile (bulk) run in separate lanes,
so that a question waits behind other questions only. Owns the lanes; must never touch a vault.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Literal

import numpy as np
import outcome
import trio
from numpy.typing import NDArray

from models.embedding import TextEncoder
from models.errors import Overloaded

Lane = Literal["interactive", "bulk"]
BATCH_CHARACTERS_MAX = 4096
"""A batch stops growing here, so that one batch of long texts cannot hold its lane for long."""


class _Request:
    __slots__ = ("done", "result", "texts")

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.done = trio.Event()
        self.result: outcome.Outcome[NDArray[np.float32]] | None = None


class _LaneQueue:
    """The waiting requests of one lane, and the task that serves them."""

    def __init__(self, encoder: TextEncoder, *, requests_max: int, texts_max: int) -> None:
        self._encoder = encoder
        self._requests_max = requests_max
        self._texts_max = texts_max
        self._waiting: deque[_Request] = deque()
        self._arrived = trio.Event()
        self._limiter = trio.CapacityLimiter(1)
        self.texts_done = 0
        self.batches_done = 0

    async def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if len(self._waiting) >= self._requests_max:
            raise Overloaded(f"{self._requests_max} texts are waiting to be embedded.", retry_after_s=1)
        request = _Request(texts)
        self._waiting.append(request)
        self._arrived.set()
        try:
            await request.done.wait()
        except trio.Cancelled:
            if request in self._waiting:
                self._waiting.remove(request)
            raise
        assert request.result is not None
        return request.result.unwrap()

    async def serve(self) -> None:
        """Serve batches until cancelled."""
        while True:
            if not self._waiting:
                self._arrived = trio.Event()
                await self._arrived.wait()
            batch = self._take_batch()
            texts = [text for request in batch for text in request.texts]
            vectors = await trio.to_thread.run_sync(outcome.capture, self._encoder.encode, texts, limiter=self._limiter)
            self.texts_done += len(texts)
            self.batches_done += 1
            _scatter(batch, vectors)

    def _take_batch(self) -> list[_Request]:
        batch = [self._waiting.popleft()]
        texts = len(batch[0].texts)
        characters = sum(map(len, batch[0].texts))
        while self._waiting:
            texts += len(self._waiting[0].texts)
            characters += sum(map(len, self._waiting[0].texts))
            if texts > self._texts_max or characters > BATCH_CHARACTERS_MAX:
                break
            batch.append(self._waiting.popleft())
        return batch

    @property
    def depth(self) -> int:
        return len(self._waiting)


def _scatter(batch: list[_Request], vectors: outcome.Outcome[NDArray[np.float32]]) -> None:
    """Hand each request its rows, or the error of the batch."""
    start = 0
    for request in batch:
        stop = start + len(request.texts)
        if isinstance(vectors, outcome.Error):
            request.result = outcome.Error(vectors.error)  # one each: an outcome unwraps once
        else:
            assert isinstance(vectors, outcome.Value)
            request.result = outcome.Value(vectors.value[start:stop])
        request.done.set()
        start = stop


class Embedder:
    """Text to vectors, for everybody."""

    def __init__(self, encoder: TextEncoder, *, batch_texts_max: int, interactive_max: int, bulk_max: int) -> None:
        self.encoder = encoder
        self._lanes: dict[Lane, _LaneQueue] = {
            "interactive": _LaneQueue(encoder, requests_max=interactive_max, texts_max=batch_texts_max),
            "bulk": _LaneQueue(encoder, requests_max=bulk_max, texts_max=batch_texts_max),
        }

    @property
    def model_id(self) -> str:
        """Identifies the vectors: never compare those of different ids."""
        return self.encoder.id

    @property
    def dims(self) -> int:
        """Length of a vector."""
        return self.encoder.dims

    async def encode(self, texts: Sequence[str], *, lane: Lane) -> NDArray[np.float32]:
        """Embed texts; (n, dims) float32, rows of length 1.

        Raises:
            Overloaded: the lane's queue is full.
        """
        return await self._lanes[lane].encode(texts)

    def statistics(self) -> dict[str, int]:
        """Queue depths and totals, for metrics."""
        return {
            f"{name}_{what}": value
            for name, lane in self._lanes.items()
            for what, value in (
                ("waiting", lane.depth),
                ("texts", lane.texts_done),
                ("batches", lane.batches_done),
            )
        }

    async def _serve(self) -> None:
        async with trio.open_nursery() as lanes:
            for lane in self._lanes.values():
                lanes.start_soon(lane.serve)


@asynccontextmanager
async def open_embedder(
    encoder: TextEncoder, *, batch_texts_max: int = 16, interactive_max: int = 1024, bulk_max: int = 256
) -> AsyncIterator[Embedder]:
    """Run the embedder's lanes for the length of the block."""
    embedder = Embedder(encoder, batch_texts_max=batch_texts_max, interactive_max=interactive_max, bulk_max=bulk_max)
    async with trio.open_nursery() as lanes:
        lanes.start_soon(embedder._serve)
        yield embedder
        lanes.cancel_scope.cancel(reason="the embedder closes")
