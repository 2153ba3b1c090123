"""One lane of an embedder: requests that wait for their vectors, and the tasks that embed them in micro-batches.

Batching is natural: whatever has queued up while the last batch ran forms the next one; no timer adds latency.
A lane may give way to another one: while requests come to that, fewer of its batches run. Owns the queue and its bound.
Must never let one request meet the error of another's texts.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import outcome
import trio
from numpy.typing import NDArray

from actors.embedding_source import BatchLimits, EmbedderUnavailable, Encode
from models.distributions import BATCH_TEXTS, STEP_SECONDS, Distribution
from models.errors import Overloaded

RECENT_S = 0.1
"""A lane to which a request came so recently is in use: who asks again and again does so ten times a second or more."""


class _Request:
    __slots__ = ("arrived_s", "done", "result", "texts")

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.arrived_s = trio.current_time()
        self.done = trio.Event()
        self.result: outcome.Outcome[NDArray[np.float32]] | None = None

    def succeed(self, vectors: NDArray[np.float32]) -> None:
        self.result = outcome.Value(vectors)
        self.done.set()

    def fail(self, error: Exception) -> None:
        self.result = outcome.Error(error)
        self.done.set()


class LaneQueue:
    """The waiting requests of one lane, and the tasks that serve them."""

    def __init__(
        self,
        encode: Encode,
        *,
        prefix: str,
        requests_max: int,
        batches: BatchLimits,
        running_max: int,
        gives_way_to: LaneQueue | None = None,
        beside_max: int = 0,
    ) -> None:
        """Make a lane; `serve` works for it.

        Args:
            running_max: batches that run at once.
            gives_way_to: a lane whose requests are more urgent.
            beside_max: batches that run at once while such requests come, beginning with the next one.
        """
        self._encode = encode
        self._prefix = prefix
        self._requests_max = requests_max
        self._batches = batches
        self._running_max = running_max
        self._gives_way_to = gives_way_to
        self._beside_max = beside_max
        self._used_s = -math.inf
        self._waiting: deque[_Request] = deque()
        self._arrived = trio.Event()
        self.texts_done = 0
        self.batches_done = 0
        self.failures = 0
        self.refused = 0
        self.wait_seconds = Distribution(STEP_SECONDS)
        self.batch_seconds = Distribution(STEP_SECONDS)
        self.batch_texts = Distribution(BATCH_TEXTS)

    async def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Wait for the vectors of these texts; (n, dims) float32.

        Raises:
            Overloaded: too many requests wait.
            EmbedderUnavailable: no text can be embedded now.
            Exception: whatever the model raised on these texts.
        """
        if len(self._waiting) >= self._requests_max:
            self.refused += 1
            raise Overloaded(f"{self._requests_max} requests wait for their embeddings.", retry_after_s=1)
        request = _Request([self._prefix + text for text in texts] if self._prefix else texts)
        self._used_s = request.arrived_s
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
        """Serve batches until cancelled, as many at once as the lane may."""
        async with trio.open_nursery() as serving:
            for number in range(self._running_max):
                first = self._gives_way_to if number >= self._beside_max else None
                serving.start_soon(self._serve, first)

    async def _serve(self, gives_way_to: LaneQueue | None) -> None:
        """One batch after the other."""
        while True:
            if gives_way_to is not None:
                await gives_way_to.wait_unused()
            if not self._waiting:  # or not any more: who set the event may have left before this task runs
                if self._arrived.is_set():
                    self._arrived = trio.Event()
                await self._arrived.wait()
                continue
            batch = self._take_batch()
            now_s = trio.current_time()
            for request in batch:
                self.wait_seconds.observe(now_s - request.arrived_s)
            await self._serve_batch(batch)

    async def _serve_batch(self, batch: list[_Request]) -> None:
        """Encode a batch; should that fail for its texts, each request alone: nobody meets the error of another's."""
        texts = [text for request in batch for text in request.texts]
        began_s = trio.current_time()
        try:
            vectors = await self._encode(texts)
        except EmbedderUnavailable as error:
            self.failures += 1
            for request in batch:  # an error of its own for each: raising one adds to its traceback
                request.fail(EmbedderUnavailable(str(error), retry_after_s=error.retry_after_s))
        except Exception as error:  # the edge of the model: it is its callers' to decide
            self.failures += 1
            if len(batch) == 1:
                batch[0].fail(error)
                return
            for request in batch:
                await self._serve_batch([request])
        else:
            self.texts_done += len(texts)
            self.batches_done += 1
            self.batch_seconds.observe(trio.current_time() - began_s)
            self.batch_texts.observe(len(texts))
            _scatter(batch, vectors)

    def _take_batch(self) -> list[_Request]:
        batch = [self._waiting.popleft()]
        texts = len(batch[0].texts)
        characters = sum(map(len, batch[0].texts))
        while self._waiting:
            texts += len(self._waiting[0].texts)
            characters += sum(map(len, self._waiting[0].texts))
            if texts > self._batches.texts_max or characters > self._batches.characters_max:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def wait_unused(self) -> None:
        """Return once no request has come for `RECENT_S`; at once if that is so."""
        while True:
            unused_s = self._used_s + RECENT_S
            if unused_s <= trio.current_time():
                return
            await trio.sleep_until(unused_s)

    @property
    def depth(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    def statistics(self) -> dict[str, Any]:
        """What waits, totals since the start, and times, for metrics."""
        return {
            "waiting": self.depth,
            "waiting_max": self._requests_max,
            "texts": self.texts_done,
            "batches": self.batches_done,
            "failures": self.failures,
            "refused": self.refused,
            "wait_seconds": self.wait_seconds,
            "batch_seconds": self.batch_seconds,
            "batch_texts": self.batch_texts,
        }


def _scatter(batch: list[_Request], vectors: NDArray[np.float32]) -> None:
    """Hand each request its rows."""
    start = 0
    for request in batch:
        stop = start + len(request.texts)
        request.succeed(vectors[start:stop])
        start = stop
