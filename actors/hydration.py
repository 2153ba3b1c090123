"""From what the store holds of a vault to the vault in memory.

Owns the order: memories first, as far as possible from the vault's imprint, then the index from its snapshots, then the
vectors that it lacks. Must never hold up the loop: it works in slices or in threads, while nobody else has the vault.
"""

from __future__ import annotations

import logging
from functools import partial

import trio

from actors.imprint import Restored, restored
from actors.imprint_keeper import ImprintKeeper
from actors.index_keeper import IndexKeeper
from actors.slices import Pause
from actors.store.protocol import VaultImage, Vectors
from actors.vault import Vault
from models.errors import MemoryRouterError
from models.memory import Memory

logger = logging.getLogger(__name__)

FILL_MEMORIES_MAX = 128
"""Memories whose vectors are put into the index at once: about 1 ms."""


async def load_memories(vault: Vault, image: VaultImage, imprints: ImprintKeeper, *, repeat_window_ms: int) -> None:
    """Take in all memories. The first ones come from the imprint, if there is a good one; the others are read anew."""
    first = await _from_imprint(image, imprints, repeat_window_ms=repeat_window_ms)
    pause = Pause()
    if first is not None:
        vault.take_over(first)
        for memory in image.memories[: first.count]:
            if memory.spans and not _whole(memory, image.vectors):
                vault.await_embedding(memory.seq)
            await pause.after_slice()
    for memory in image.memories[first.count if first else 0 :]:
        vault.load(memory, embedded=_whole(memory, image.vectors))
        await pause.after_slice()


def _whole(memory: Memory, vectors: Vectors) -> bool:
    """Whether the store has a vector of each of its chunks."""
    return len(vectors.get(memory.seq, ())) == len(memory.spans)


async def _from_imprint(image: VaultImage, imprints: ImprintKeeper, *, repeat_window_ms: int) -> Restored | None:
    data = await imprints.load(len(image.memories))
    if data is None:
        return None
    restore = partial(restored, data, image.memories, next_seq=image.next_seq, repeat_window_ms=repeat_window_ms)
    try:
        parts = await trio.to_thread.run_sync(restore, abandon_on_cancel=True)
    except Exception as error:  # an edge: whatever is wrong with a cache, the log has it all
        logger.error("imprint_not_used", extra={"error": type(error).__name__})
        parts = None
    if parts is not None and not parts.outdated:
        imprints.cover(parts.count)
        return parts
    try:
        await imprints.remove()  # it may hold words of what was deleted
    except MemoryRouterError as error:
        logger.warning("imprint_not_removed", extra={"code": error.code})
    return parts


async def load_index(vault: Vault, vectors: Vectors, keeper: IndexKeeper, *, threshold: int) -> None:
    """Segments from the disk first, then the vectors that they lack.

    Args:
        vectors: are taken out: all at once they would take 0.1 s to be freed where they are a million.
        threshold: vectors above which an index has segments.
    """
    pause = Pause()
    if len(vectors) > threshold:
        for segment in await keeper.load():
            vault.adopt(segment)
            await pause.after_slice()
    seqs = list(vectors)
    for start in range(0, len(seqs), FILL_MEMORIES_MAX):
        part = {seq: vectors.pop(seq) for seq in seqs[start : start + FILL_MEMORIES_MAX]}
        vault.fill({seq: rows for seq, rows in part.items() if vault.wants(seq, len(rows))})
        await pause.after_slice()
