"""A question whose model stalls is answered by words, within its time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC

import numpy as np
import pytest
import trio
from numpy.typing import NDArray
from trio.testing import MockClock

from actors.embedder import Embedder
from actors.embedding_source import BatchLimits, EmbedderUnavailable, Encode
from models.ids import Access
from models.messages import Scope
from router.options import MemoryOptions
from router.questions import Asked
from router.recalling import Recaller
from tests.actors.house import NOW_MS
from tests.actors.test_embedders import open_house, settled
from tests.fakes.embedding import HashEmbedding
from tests.fakes.memory_disk import MemoryDisk

OPTIONS = MemoryOptions(
    access=Access(),
    store_input=True,
    store_response=True,
    session_id=None,
    scope=Scope(),
    chunks_max=30,
    injection="tail",
    time_zone=UTC,
)
DOG = "My dog is called Rex."


class StallingSource:
    """Embeds memories at once, and questions never, or with an error."""

    may_stall = True
    is_open = True
    batches = BatchLimits()

    def __init__(self, error: Exception | None) -> None:
        self.model = HashEmbedding()
        self._error = error

    async def open(self) -> None:
        """It is."""

    def lane(self) -> Encode:
        async def encode(texts: Sequence[str]) -> NDArray[np.float32]:
            if all(DOG not in text for text in texts):
                if self._error is None:
                    await trio.sleep_forever()
                raise EmbedderUnavailable("down") if self._error is None else self._error
            await trio.lowlevel.checkpoint()
            return self.model.encode(texts)

        return encode


@pytest.mark.parametrize("error", [None, EmbedderUnavailable("down"), ValueError("refused")], ids=str)
async def test_words_answer_in_the_second_half_of_the_time(autojump_clock: MockClock, error: Exception | None) -> None:
    embedder = Embedder(StallingSource(error), name="far", interactive_max=9, bulk_max=9)
    async with open_house(MemoryDisk(), embedder, default="far") as house:
        vault = await house.new_vault()
        await house.remember(vault, DOG)
        await settled(house, vault, autojump_clock)
        recaller = Recaller(embedder, house.supervisor, block_cache_s=60, clock=trio.current_time)
        began_s = trio.current_time()
        hits = await recaller.search(vault, "the dog", OPTIONS, limit=9, now_ms=NOW_MS, timeout_s=2.0)
        assert [hit.memory.content for hit in hits] == [DOG]
        assert trio.current_time() - began_s == pytest.approx(1.0 if error is None else 0.0, abs=1e-6)
        asked = Asked(text="the dog", words="the dog", meaning="the dog")
        found = await recaller.recall(vault, asked, OPTIONS, now_ms=NOW_MS, timeout_s=2.0)
        assert found.chunks == 1
