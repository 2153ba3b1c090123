"""The shared embedder: texts of all vaults and requests become vectors in micro-batches.

Batching is natural: whatever has queued up while the last batch ran forms the next one; no timer adds latency.
Questions that somebody waits for (interactive) and memories that are found by their words meanwhile (bulk) run in
separate lanes, so that a question waits behind other questions only. Owns the lanes; must never touch a vault.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import numpy as np
import outcome
import trio
from numpy.typing import NDArray

from models.embedding import TextEncoder
from models.errors import Overloaded

Lane = Literal["interactive", "bulk"]
Offload = Callable[..., Awaitable[Any]]
"""Runs a function outside Trio's thread, called as `trio.to_thread.run_sync` is."""

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

    def __init__(self, encoder: TextEncoder, *, requests_max: int, texts_max: int, offload: Offload) -> None:
        self._encoder = encoder
        self._offload = offload
        self._requests_max = requests_max
        self._texts_max = texts_max
        self._waiting: deque[_Request] = deque()
        self._arrived = trio.Event()
        self._limiter = trio.CapacityLimiter(1)
        self.texts_done = 0
        self.batches_done = 0

    async def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if len(self._waiting) >= self._requests_max:
            raise Overloaded(f"{self._requests_max} requests wait for their embeddings.", retry_after_s=1)
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
            while not self._waiting:  # again: who set the event may have left before this task runs
                self._arrived = trio.Event()
                await self._arrived.wait()
            await self._serve_batch(self._take_batch())

    async def _serve_batch(self, batch: list[_Request]) -> None:
        """Encode a batch; should that fail, each request alone, so that nobody meets the error of another's text."""
        texts = [text for request in batch for text in request.texts]
        vectors = await self._offload(outcome.capture, self._encoder.encode, texts, limiter=self._limiter)
        if isinstance(vectors, outcome.Error) and len(batch) > 1:
            for request in batch:
                await self._serve_batch([request])
            return
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
    """Hand each request its rows, or the error of a batch of one."""
    start = 0
    for request in batch:
        stop = start + len(request.texts)
        request.result = outcome.Value(vectors.value[start:stop]) if isinstance(vectors, outcome.Value) else vectors
        request.done.set()
        start = stop


class Embedder:
    """Text to vectors, for everybody."""

    def __init__(
        self, encoder: TextEncoder, *, batch_texts_max: int, interactive_max: int, bulk_max: int, offload: Offload
    ) -> None:
        self.encoder = encoder
        requests_max: dict[Lane, int] = {"interactive": interactive_max, "bulk": bulk_max}
        self._lanes = {
            lane: _LaneQueue(encoder, requests_max=most, texts_max=batch_texts_max, offload=offload)
            for lane, most in requests_max.items()
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
            Exception: whatever the encoder raised on these texts.
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
    encoder: TextEncoder,
    *,
    batch_texts_max: int = 16,
    interactive_max: int = 1024,
    bulk_max: int = 256,
    offload: Offload = trio.to_thread.run_sync,
) -> AsyncIterator[Embedder]:
    """Run the embedder's lanes for the length of the block.

    Args:
        batch_texts_max: texts of one batch; a single request may bring more and is then a batch of its own.
        interactive_max: requests that may wait in the lane of questions.
        bulk_max: requests that may wait in the lane of memories.
        offload: where the encoder runs; tests put something without threads here.
    """
    embedder = Embedder(
        encoder, batch_texts_max=batch_texts_max, interactive_max=interactive_max, bulk_max=bulk_max, offload=offload
    )
    async with trio.open_nursery() as lanes:
        lanes.start_soon(embedder._serve)
        yield embedder
        lanes.cancel_scope.cancel(reason="the embedder closes")
