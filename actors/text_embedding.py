"""The child of a vault's actor that has its texts embedded, a few at a time, and posts the vectors to its mailbox.

Owns the patience with the model: what is tried again, and when a memory goes without vectors. Must never touch the
vault: it gets texts and returns vectors, and the turn that takes those in hands out the next texts.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import trio
from numpy.typing import NDArray

from actors.embedder import Embedder
from actors.mailbox import Mailbox
from actors.restart import retry_delays
from actors.vault import TextsToEmbed
from models.errors import Overloaded
from models.ids import VaultRef
from models.messages import Embedded

logger = logging.getLogger(__name__)

EMBED_CHUNKS_MAX = 16
EMBED_ATTEMPTS_MAX = 3


class TextEmbedding:
    """Texts of one vault on their way to the embedder, one batch at a time."""

    def __init__(self, ref: VaultRef, embedder: Embedder, mailbox: Mailbox) -> None:
        self._ref = ref
        self._embedder = embedder
        self._mailbox = mailbox
        self._texts_out, self._texts_in = trio.open_memory_channel[TextsToEmbed](1)

    @property
    def wants(self) -> bool:
        """Whether it has room for a batch."""
        return not self._texts_out.statistics().current_buffer_used

    def put_nowait(self, texts: TextsToEmbed) -> None:
        """Hand over a batch; only while it `wants` one."""
        self._texts_out.send_nowait(texts)

    async def run(self) -> None:
        """Have texts embedded until cancelled or until the mailbox closes."""
        async for texts in self._texts_in:
            vectors = await self._embed(texts)
            try:
                await self._mailbox.post(Embedded(vectors))
            except trio.ClosedResourceError:
                return  # passivating: whoever hydrates next embeds what is left

    async def _embed(self, batch: TextsToEmbed) -> dict[int, bytes]:
        """Vectors by seq. A memory on whose texts the model fails again and again gets none: its words remain."""
        texts = [text for _, chunk_texts in batch for text in chunk_texts]
        parts = []
        for start in range(0, len(texts), EMBED_CHUNKS_MAX):
            part = await self._embed_part(texts[start : start + EMBED_CHUNKS_MAX])
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
        delays = retry_delays()
        failures = 0
        while failures < EMBED_ATTEMPTS_MAX:
            try:
                return (await self._embedder.encode(texts, lane="bulk")).astype("<f2")
            except Overloaded:
                pass
            except Exception as error:  # the edge of the model: memories must survive whatever it raises
                failures += 1
                logger.warning("embedding_failed", extra={"vault": self._ref.number, "error": type(error).__name__})
            await trio.sleep(next(delays))
        return None
