"""Where the vectors of one embedding model come from: a model in this process, or whatever else keeps the protocol.

Owns when a model is loaded, and what is said when it cannot be had. Must never queue anything: that is the lanes' work.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np
import outcome
import trio
from numpy.typing import NDArray

from models.embedding import TextEncoder, TextModel

Offload = Callable[..., Awaitable[Any]]
"""Runs a function outside Trio's thread, called as `trio.to_thread.run_sync` is."""

Encode = Callable[[Sequence[str]], Awaitable[NDArray[np.float32]]]

BATCH_CHARACTERS_MAX = 4096
"""A batch stops growing here, so that one batch of long texts cannot hold its lane for long."""


class EmbedderUnavailable(Exception):
    """The model cannot be had now, whatever the text: it is being opened, or its endpoint does not answer.

    Attributes:
        retry_after_s: when another attempt makes sense.
    """

    def __init__(self, reason: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class BatchLimits(msgspec.Struct, frozen=True):
    """How large batches are, and how many run at once.

    Attributes:
        running_max: of questions.
        bulk_running_max: of memories.
        bulk_beside_questions_max: of memories, while questions come.
    """

    texts_max: int = 16
    characters_max: int = BATCH_CHARACTERS_MAX
    running_max: int = 1
    bulk_running_max: int = 1
    bulk_beside_questions_max: int = 1


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
        bulk_running_max: int = 1,
        offload: Offload,
    ) -> None:
        """Make a source.

        Args:
            model: what is known before it is open.
            load: opens the model, in a worker thread; may raise.
            encoder: the model, where it is open already.
            bulk_running_max: batches of memories that run at once, each in a thread of its own; one fewer while
                questions come, so that these find a core that is free.
        """
        self.model = model
        self.may_stall = encoder is None
        self.batches = BatchLimits(
            texts_max=batch_texts_max,
            bulk_running_max=bulk_running_max,
            bulk_beside_questions_max=max(1, bulk_running_max - 1),
        )
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
        """Run the model in threads; how many at once is the lane's decision."""
        limiter = trio.CapacityLimiter(max(self.batches.running_max, self.batches.bulk_running_max))

        async def encode(texts: Sequence[str]) -> NDArray[np.float32]:
            assert self._encoder is not None, "opened before"
            result = await self._offload(outcome.capture, self._encoder.encode, texts, limiter=limiter)
            vectors: NDArray[np.float32] = result.unwrap()
            return vectors

        return encode
