"""One embedding model for everybody: texts of all vaults and requests become vectors in micro-batches.

Questions that somebody waits for (interactive) and memories that are found by their words meanwhile (bulk) run in
separate lanes, so that a question waits behind other questions only. Owns the lanes, and when a model is opened; where
the vectors come from is its source's business. Must never touch a vault.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import numpy as np
import trio
from numpy.typing import NDArray

from actors.embedding_lane import LaneQueue
from actors.embedding_source import EmbedderUnavailable, EmbeddingSource, LocalSource, Offload
from actors.restart import retry_delays
from models.embedding import TextEncoder, TextModel

Lane = Literal["interactive", "bulk"]

OPEN_WAIT_MAX_S = 60.0
"""Longest pause before it is tried again to open a model."""


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
        batches = source.batches
        questions = LaneQueue(
            source.lane(),
            prefix=query_prefix,
            requests_max=interactive_max,
            batches=batches,
            running_max=batches.running_max,
        )
        memories = LaneQueue(
            source.lane(),
            prefix=document_prefix,
            requests_max=bulk_max,
            batches=batches,
            running_max=batches.bulk_running_max,
            gives_way_to=questions,
            beside_max=batches.bulk_beside_questions_max,
        )
        self._lanes: dict[Lane, LaneQueue] = {"interactive": questions, "bulk": memories}
        self.reads_alike = query_prefix == document_prefix
        """Whether a question has the vector that a memory of the same words would have."""
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

    @property
    def bulk_running_max(self) -> int:
        """Batches of memories that run at once."""
        return self._source.batches.bulk_running_max

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
        """Queue depths and totals of both lanes."""
        return {
            f"{name}_{what}": value
            for name, lane in self._lanes.items()
            for what, value in lane.statistics().items()
            if isinstance(value, int)
        }

    def lanes(self) -> dict[Lane, dict[str, Any]]:
        """What each lane counts, times too, for metrics."""
        return {name: lane.statistics() for name, lane in self._lanes.items()}

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
    bulk_running_max: int = 1,
    offload: Offload = trio.to_thread.run_sync,
) -> AsyncIterator[Embedder]:
    """Run one model that is open already for the length of the block.

    Args:
        batch_texts_max: texts of one batch; a single request may bring more and is then a batch of its own.
        interactive_max: requests that may wait in the lane of questions.
        bulk_max: requests that may wait in the lane of memories.
        bulk_running_max: batches of memories that run at once; one fewer while questions come.
        offload: where the encoder runs; tests put something without threads here.
    """
    source = LocalSource(
        encoder,
        encoder=encoder,
        batch_texts_max=batch_texts_max,
        bulk_running_max=bulk_running_max,
        offload=offload,
    )
    embedder = Embedder(source, name=name, interactive_max=interactive_max, bulk_max=bulk_max)
    async with trio.open_nursery() as serving:
        serving.start_soon(embedder.serve, lambda name, reason: None)
        yield embedder
        serving.cancel_scope.cancel(reason="the embedder closes")
