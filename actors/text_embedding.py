"""The child of a vault's actor that has its texts embedded, in batches, and posts the vectors to its mailbox.

Owns the patience with the model: what is tried again, and when a memory goes without vectors. A model that cannot be
had at all (not open yet, its endpoint down) is waited for as long as it takes, and `stalled` says so: what is stored
meanwhile is written without vectors. Must never touch the vault: it gets texts and returns vectors, and the turn that
takes those in hands out the next texts.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import trio
from numpy.typing import NDArray

from actors.embedder import Embedder
from actors.embedding_source import EmbedderUnavailable
from actors.mailbox import Mailbox
from actors.restart import retry_delays
from actors.unembedded import TextsToEmbed
from models.errors import Overloaded
from models.ids import VaultRef
from models.messages import Embedded, Rehydrate

logger = logging.getLogger(__name__)

EMBED_CHUNKS_MAX = 16
EMBED_ATTEMPTS_MAX = 3
UNAVAILABLE_WAIT_MAX_S = 30.0
"""Longest pause before it is tried again whether a model can be had."""


class TextEmbedding:
    """Texts of one vault on their way to the embedder: twice as many batches as the embedder runs at once, so that it
    has the next ones before a turn has taken in what the last ones gave."""

    def __init__(self, ref: VaultRef, embedder: Embedder, mailbox: Mailbox) -> None:
        self._ref = ref
        self._embedder = embedder
        self._mailbox = mailbox
        self._model_id = embedder.model_id
        self._unknown = not embedder.is_open
        self.stalled = self._unknown
        self.chunks_max = max(EMBED_CHUNKS_MAX, embedder.batch_texts_max)
        self._batches_max = 2 * embedder.bulk_running_max
        self._batches = self._under_way = 0  # that were handed over and did not come back, and memories in them
        self._memories = self._chunks = 1  # that were handed over in all: how long memories are here
        self._texts_out, self._texts_in = trio.open_memory_channel[TextsToEmbed](self._batches_max)

    def wants(self, pending: int) -> bool:
        """Whether it has room for a batch of a vault in which so many memories have no vectors yet.

        A batch that would not be full waits for company as long as another one is under way.
        """
        if self._unknown or self._batches == self._batches_max:
            return False
        waiting = pending - self._under_way
        return not self._batches or waiting * self._chunks >= self._memories * self.chunks_max

    def put_nowait(self, texts: TextsToEmbed) -> None:
        """Hand over a batch; only while it `wants` one."""
        self._texts_out.send_nowait(texts)
        self._batches += 1
        self._under_way += len(texts)
        self._memories += len(texts)
        self._chunks += sum(len(chunk_texts) for _, chunk_texts in texts)

    async def run(self) -> None:
        """Have texts embedded until cancelled or until the mailbox closes."""
        try:
            if self._unknown:
                await self._embedder.wait_open()
                await self._mailbox.post(Rehydrate())  # only now is it known which vectors in the store count
                return
        except trio.ClosedResourceError:
            return  # passivating: whoever hydrates next embeds what is left
        async with trio.open_nursery() as batches:
            for _ in range(self._batches_max):
                batches.start_soon(self._run_batches, batches.cancel_scope)

    async def _run_batches(self, all_batches: trio.CancelScope) -> None:
        """One batch after the other."""
        try:
            async for texts in self._texts_in:
                vectors = await self._embed(texts)
                self._batches -= 1
                self._under_way -= len(texts)
                await self._mailbox.post(Embedded(vectors, model_id=self._model_id))
        except trio.ClosedResourceError:
            all_batches.cancel(reason="the vault passivates")  # the same as above

    async def _embed(self, batch: TextsToEmbed) -> dict[int, bytes]:
        """Vectors by seq. A memory on whose texts the model fails again and again gets none: its words remain."""
        texts = [text for _, chunk_texts in batch for text in chunk_texts]
        parts = []
        for start in range(0, len(texts), self.chunks_max):
            part = await self._embed_part(texts[start : start + self.chunks_max])
            if part is None:
                return {batch[0][0]: b""} if len(batch) == 1 else await self._embed_singly(batch)
            parts.append(part)
        matrix = np.concatenate(parts)
        vectors: dict[int, bytes] = {}
        start = 0
        for seq, chunk_texts in batch:
            vectors[seq] = matrix[start : start + len(chunk_texts)].tobytes()
            start += len(chunk_texts)
        return vectors

    async def _embed_singly(self, batch: TextsToEmbed) -> dict[int, bytes]:
        """One memory after the other, so that only the one that the model cannot read goes without."""
        vectors: dict[int, bytes] = {}
        for memory in batch:
            vectors.update(await self._embed([memory]))
        return vectors

    async def _embed_part(self, texts: Sequence[str]) -> NDArray[np.float16] | None:
        """Vectors of a few texts, or None when the model fails on them repeatedly. A full queue is no failure."""
        delays = retry_delays(last_s=UNAVAILABLE_WAIT_MAX_S)
        failures = 0
        while failures < EMBED_ATTEMPTS_MAX:
            try:
                vectors = (await self._embedder.encode(texts, lane="bulk")).astype("<f2")
                self.stalled = False
                return vectors
            except Overloaded:
                pass
            except EmbedderUnavailable as error:
                await self._stall()
                await trio.sleep(error.retry_after_s)
            except Exception as error:  # the edge of the model: memories must survive whatever it raises
                failures += 1
                logger.warning("embedding_failed", extra={"vault": self._ref.number, "error": type(error).__name__})
            await trio.sleep(next(delays))
        return None

    async def _stall(self) -> None:
        """Say that vectors will not come soon; a turn then writes what has none."""
        if not self.stalled:
            self.stalled = True
            logger.warning("embedding_stalled", extra={"vault": self._ref.number, "embedder": self._embedder.name})
            await self._mailbox.post(Embedded({}, model_id=self._model_id))
