"""One embedding model for everybody: texts of all vaults and requests become vectors in micro-batches.

Batching is natural: whatever has queued up while the last batch ran forms the next one; no timer adds latency.
Questions that somebody waits for (interactive) and memories that are found by their words meanwhile (bulk) run in
separate lanes, so that a question waits behind other questions only. Owns the lanes, and when a model is opened; where
the vectors come from is its source's business. Must never touch a vault.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
import outcome
import trio
from numpy.typing import NDArray

from actors.restart import retry_delays
from models.embedding import TextEncoder, TextModel
from models.errors import Overloaded

Lane = Literal["interactive", "bulk"]
Offload = Callable[..., Awaitable[Any]]
"""Runs a function outside Trio's thread, called as `trio.to_thread.run_sync` is."""

Encode = Callable[[Sequence[str]], Awaitable[NDArray[np.float32]]]

BATCH_CHARACTERS_MAX = 4096
"""A batch stops growing here, so that one batch of long texts cannot hold its lane for long."""

OPEN_WAIT_MAX_S = 60.0
"""Longest pause before it is tried again to open a model."""


class EmbedderUnavailable(Exception):
    """The model cannot be had now, whatever the text: it is being opened, or its endpoint does not answer.

    Attributes:
        retry_after_s: when another attempt makes sense.
    """

    def __init__(self, reason: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class BatchLimits(msgspec.Struct, frozen=True):
    """How large the batches of a lane are, and how many run at once."""

    texts_max: int = 16
    characters_max: int = BATCH_CHARACTERS_MAX
    running_max: int = 1


class EmbeddingSource(Protocol):
    """Where the vectors of one model come from."""

    @property
    def model(self) -> TextModel:
        """The model. Before it is open its id is "" and its dims are 0, and some other tokenizer counts for it."""

    @property
    def is_open(self) -> bool:
        """Whether `model` is known."""

    @property
    def may_stall(self) -> bool:
        """Whether a vector may take long to come, or not come at all: the model is elsewhere, or not loaded yet."""

    @property
    def batches(self) -> BatchLimits:
        """What is best for it."""

    async def open(self) -> None:
        """Find out what the model is.

        Raises:
            EmbedderUnavailable: it cannot be found out now.
        """

    def lane(self) -> Encode:
        """A function that embeds; the lanes have one each.

        It raises `EmbedderUnavailable` where no text could be embedded now, anything else where these texts could not.
        """


class LocalSource:
    """A model in this process: opened from the beginning, or when it is first needed."""

    may_stall: bool

    def __init__(
        self,
        model: TextModel,
        load: Callable[[], TextEncoder] | None = None,
        *,
        encoder: TextEncoder | None = None,
        batch_texts_max: int,
        offload: Offload,
    ) -> None:
        """Make a source.

        Args:
            model: what is known before it is open.
            load: opens the model, in a worker thread; may raise.
            encoder: the model, where it is open already.
        """
        self.model = model
        self.may_stall = encoder is None
        self.batches = BatchLimits(texts_max=batch_texts_max)
        self._load = load
        self._encoder = encoder
        self._offload = offload

    @property
    def is_open(self) -> bool:
        """Whether it is loaded, or was once."""
        return self._encoder is not None

    async def open(self) -> None:
        """Load the model."""
        if self._encoder is None:
            assert self._load is not None
            try:
                self.model = self._encoder = await self._offload(self._load)
            except Exception as error:  # the edge of foreign files: vaults must go on by words, whatever they hold
                raise EmbedderUnavailable(str(error)) from error

    def lane(self) -> Encode:
        """Run the model in a thread, one batch of the lane at a time."""
        limiter = trio.CapacityLimiter(1)

        async def encode(texts: Sequence[str]) -> NDArray[np.float32]:
            assert self._encoder is not None, "opened before"
            result = await self._offload(outcome.capture, self._encoder.encode, texts, limiter=limiter)
            vectors: NDArray[np.float32] = result.unwrap()
            return vectors

        return encode


class _Request:
    __slots__ = ("done", "result", "texts")

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.done = trio.Event()
        self.result: outcome.Outcome[NDArray[np.float32]] | None = None

    def succeed(self, vectors: NDArray[np.float32]) -> None:
        self.result = outcome.Value(vectors)
        self.done.set()

    def fail(self, error: Exception) -> None:
        self.result = outcome.Error(error)
        self.done.set()


class _LaneQueue:
    """The waiting requests of one lane, and the tasks that serve them."""

    def __init__(self, encode: Encode, *, prefix: str, requests_max: int, batches: BatchLimits) -> None:
        self._encode = encode
        self._prefix = prefix
        self._requests_max = requests_max
        self._batches = batches
        self._waiting: deque[_Request] = deque()
        self._arrived = trio.Event()
        self.texts_done = 0
        self.batches_done = 0
        self.failures = 0

    async def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if len(self._waiting) >= self._requests_max:
            raise Overloaded(f"{self._requests_max} requests wait for their embeddings.", retry_after_s=1)
        request = _Request([self._prefix + text for text in texts] if self._prefix else texts)
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
        """Serve batches until cancelled, as many at once as the source takes."""
        async with trio.open_nursery() as serving:
            for _ in range(self._batches.running_max):
                serving.start_soon(self._serve)

    async def _serve(self) -> None:
        while True:
            while not self._waiting:  # again: who set the event may have left before this task runs
                if self._arrived.is_set():
                    self._arrived = trio.Event()
                await self._arrived.wait()
            await self._serve_batch(self._take_batch())

    async def _serve_batch(self, batch: list[_Request]) -> None:
        """Encode a batch; should that fail for its texts, each request alone: nobody meets the error of another's."""
        texts = [text for request in batch for text in request.texts]
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

    @property
    def depth(self) -> int:
        return len(self._waiting)


def _scatter(batch: list[_Request], vectors: NDArray[np.float32]) -> None:
    """Hand each request its rows."""
    start = 0
    for request in batch:
        stop = start + len(request.texts)
        request.succeed(vectors[start:stop])
        start = stop


class Embedder:
    """Text to vectors by one model, for everybody."""

    def __init__(
        self,
        source: EmbeddingSource,
        *,
        name: str = "",
        query_prefix: str = "",
        document_prefix: str = "",
        interactive_max: int,
        bulk_max: int,
    ) -> None:
        self.name = name
        self._source = source
        self._wanted = trio.Event()
        self._opened = trio.Event()
        lanes: dict[Lane, tuple[str, int]] = {
            "interactive": (query_prefix, interactive_max),
            "bulk": (document_prefix, bulk_max),
        }
        self._lanes = {
            lane: _LaneQueue(source.lane(), prefix=prefix, requests_max=most, batches=source.batches)
            for lane, (prefix, most) in lanes.items()
        }
        self._prefix_characters = max(len(query_prefix), len(document_prefix))
        if source.is_open:
            self._opened.set()

    @property
    def model(self) -> TextModel:
        """What is known of the model without running it; see `EmbeddingSource.model`."""
        return self._source.model

    @property
    def model_id(self) -> str:
        """Identifies the vectors: never compare those of different ids. "" before the model is open."""
        return self._source.model.id

    @property
    def dims(self) -> int:
        """Length of a vector; 0 before the model is open."""
        return self._source.model.dims

    @property
    def is_open(self) -> bool:
        """Whether the model is known, so that its vectors can be read from the store."""
        return self._opened.is_set()

    @property
    def may_stall(self) -> bool:
        """Whether a vector may take long to come: whoever has a deadline should be ready to go without."""
        return self._source.may_stall

    @property
    def batch_texts_max(self) -> int:
        """Texts that it takes best at once."""
        return self._source.batches.texts_max

    def chunk_tokens_max(self, wanted: int) -> int:
        """Tokens of a chunk that the model reads whole with its marks and prefix, at most as many as wanted."""
        return max(1, min(wanted, self.model.tokens_max - 2 - self._prefix_characters))

    async def wait_open(self) -> None:
        """Have the model opened, and return once it is; that may be never."""
        self._wanted.set()
        await self._opened.wait()

    async def encode(self, texts: Sequence[str], *, lane: Lane) -> NDArray[np.float32]:
        """Embed texts; (n, dims) float32, rows of length 1.

        Raises:
            Overloaded: the lane's queue is full.
            EmbedderUnavailable: no text can be embedded now.
            Exception: whatever the model raised on these texts.
        """
        if not self._opened.is_set():
            self._wanted.set()
            raise EmbedderUnavailable("The model is not open yet.")
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
                ("failures", lane.failures),
            )
        }

    async def serve(self, failed: Callable[[str, str], None]) -> None:
        """Open the model once it is wanted, however often that takes, and serve the lanes until cancelled.

        Args:
            failed: told the embedder's name and the reason of each attempt to open it that fails.
        """
        async with trio.open_nursery() as lanes:
            for lane in self._lanes.values():
                lanes.start_soon(lane.serve)
            if not self._opened.is_set():
                lanes.start_soon(self._open, failed)

    async def _open(self, failed: Callable[[str, str], None]) -> None:
        await self._wanted.wait()
        for delay_s in retry_delays(last_s=OPEN_WAIT_MAX_S):
            try:
                await self._source.open()
            except EmbedderUnavailable as error:
                failed(self.name, str(error))
            else:
                self._opened.set()
                return
            await trio.sleep(delay_s)


@asynccontextmanager
async def open_embedder(
    encoder: TextEncoder,
    *,
    name: str = "",
    batch_texts_max: int = 16,
    interactive_max: int = 1024,
    bulk_max: int = 256,
    offload: Offload = trio.to_thread.run_sync,
) -> AsyncIterator[Embedder]:
    """Run one model that is open already for the length of the block.

    Args:
        batch_texts_max: texts of one batch; a single request may bring more and is then a batch of its own.
        interactive_max: requests that may wait in the lane of questions.
        bulk_max: requests that may wait in the lane of memories.
        offload: where the encoder runs; tests put something without threads here.
    """
    source = LocalSource(encoder, encoder=encoder, batch_texts_max=batch_texts_max, offload=offload)
    embedder = Embedder(source, name=name, interactive_max=interactive_max, bulk_max=bulk_max)
    async with trio.open_nursery() as serving:
        serving.start_soon(embedder.serve, lambda name, reason: None)
        yield embedder
        serving.cancel_scope.cancel(reason="the embedder closes")
