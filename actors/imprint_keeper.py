"""When the imprint of a vault is written, and when it is removed: the calls for it, beside the vault's turns.

Owns what of the vault the imprint on the disk covers. Must never change the vault: it takes copies. Whatever fails
here costs time at the next hydration, never a memory.
"""

from __future__ import annotations

import logging
from typing import Protocol

import trio

from actors.imprint import ImprintSource
from actors.store.protocol import VaultStore
from models.errors import MemoryRouterError
from models.ids import VaultRef

logger = logging.getLogger(__name__)

MEMORIES_MIN = 1_000
"""Of a vault that is worth an imprint: reading fewer memories anew takes less than 0.2 s, and most vaults are small."""

LIVE_SHARE = 8
"""A vault in use is written when an eighth of it has come since: each memory is then written about nine times."""

PASSIVATION_SHARE = 64
"""A vault that leaves memory is written when a 64th of it has come since; reading that anew takes no time."""

TIMEOUT_S = 10.0


class Imprintable(Protocol):
    """What the keeper asks of a vault."""

    @property
    def placed(self) -> int:
        """Memories that it was given, deleted ones included."""

    @property
    def memories(self) -> int:
        """Memories that it holds."""

    def imprint_source(self) -> ImprintSource:
        """A copy of what an imprint is made of, as of now."""


class ImprintKeeper:
    """Keeps the imprint of one vault."""

    def __init__(self, vault: VaultRef, store: VaultStore, *, memories_min: int = MEMORIES_MIN) -> None:
        self._vault = vault
        self._store = store
        self._memories_min = memories_min
        self._covered = 0  # memories that had been placed when the imprint on the disk was made; 0 without one
        self._writing = trio.Lock()
        self._removals = 0
        self._sources_out, self._sources_in = trio.open_memory_channel[tuple[ImprintSource, int, int]](0)

    @property
    def covered(self) -> int:
        """Memories of the vault, from the first on, that the imprint on the disk covers."""
        return self._covered

    async def load(self, memories: int) -> bytearray | None:
        """What is on the disk for a vault with so many memories, if anything."""
        if memories < self._memories_min:
            return None
        with trio.move_on_after(TIMEOUT_S):
            try:
                return await self._store.load_imprint(self._vault)
            except MemoryRouterError as error:
                logger.warning("imprint_not_read", extra={"vault": self._vault.number, "code": error.code})
        return None

    def cover(self, placed: int) -> None:
        """What was loaded is right for the first so many memories of the vault."""
        self._covered = placed

    def keep_nowait(self, vault: Imprintable) -> None:
        """Write the imprint anew if much has come since, and none is being written."""
        due = max(2 * self._memories_min, vault.memories // LIVE_SHARE)
        if vault.placed - self._covered >= due and self._sources_out.statistics().tasks_waiting_receive:
            self._sources_out.send_nowait((vault.imprint_source(), vault.placed, self._removals))

    async def finish(self, vault: Imprintable) -> None:
        """The vault leaves memory: write the imprint if it lacks what is worth the time."""
        due = max(self._memories_min // 4, vault.memories // PASSIVATION_SHARE)
        if vault.memories >= self._memories_min and vault.placed - self._covered >= due:
            with trio.move_on_after(TIMEOUT_S):
                await self._write(vault.imprint_source(), vault.placed, self._removals)

    async def remove(self) -> None:
        """Remove the imprint, since some of its words are about to be deleted; a later one is made without them.

        Raises:
            StoreUnavailable: it is still there.
        """
        self._removals += 1  # copies that were made before are not written any more
        async with self._writing:
            await self._store.remove_imprint(self._vault)
            self._covered = 0

    async def write_all(self) -> None:
        """Write what `keep_nowait` finds due, for ever."""
        async for source, placed, removals in self._sources_in:
            await self._write(source, placed, removals)

    async def _write(self, source: ImprintSource, placed: int, removals: int) -> None:
        async with self._writing:
            try:
                parts = await trio.to_thread.run_sync(source.encoded)
                if removals == self._removals:
                    await self._store.save_imprint(self._vault, parts)
                    self._covered = placed
            except MemoryRouterError as error:
                logger.warning("imprint_not_written", extra={"vault": self._vault.number, "code": error.code})
                self._covered = placed  # not at once again; the next due time comes
            except Exception as error:  # an edge: a cache that cannot be made must not take its vault down
                logger.error("imprint_not_made", extra={"vault": self._vault.number, "error": type(error).__name__})
                self._covered = placed
