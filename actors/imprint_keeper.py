"""When the imprint of a vault is written, and when it is removed: the calls for it, beside the vault's turns.

Owns what of the vault the imprint on the disk covers. Must never change the vault: it takes copies. Whatever fails
here costs time at the next hydration, never a memory.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple, Protocol

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
"""Of reading or writing a small imprint on a busy disk. A large one takes longer, at these rates at the worst."""

REST_S = 30.0
"""After a deletion, until the imprint is written again."""

MEMORIES_PER_S_MIN = 5_000
BYTES_PER_S_MIN = 1 << 20


def patience_s(*, memories: int = 0, size_bytes: int = 0) -> float:
    """How long to wait for something of this size. The imprint of a million memories has 200 MB: 200 s instead of 15.

    A limit that strikes each time would have the vault read all its memories anew, each time that it comes back.
    """
    return TIMEOUT_S + memories / MEMORIES_PER_S_MIN + size_bytes / BYTES_PER_S_MIN


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


class _Due(NamedTuple):
    """A copy of a vault that is to be written.

    Attributes:
        placed: memories that had been placed when it was made.
        memories: those of them that it holds.
    """

    source: ImprintSource
    placed: int
    memories: int


class ImprintKeeper:
    """Keeps the imprint of one vault. Most vaults are too small for one, so it starts a task only when it has work."""

    def __init__(self, vault: VaultRef, store: VaultStore, *, memories_min: int = MEMORIES_MIN) -> None:
        self._vault = vault
        self._store = store
        self._memories_min = memories_min
        self._covered = 0  # memories that had been placed when the imprint on the disk was made; 0 without one
        self._asked = 0  # the same of the newest copy, which may wait, be under way, or have failed
        self._due: _Due | None = None  # the newest copy, not begun
        self._write_scope = trio.CancelScope()  # of the write under way, if any
        self._disk = trio.Lock()
        self._writing = False
        self._rests_until_s = -math.inf
        self._children: trio.Nursery | None = None  # while running

    @property
    def covered(self) -> int:
        """Memories of the vault, from the first on, that the imprint on the disk covers."""
        return self._covered

    async def load(self, memories: int) -> bytearray | None:
        """What is on the disk for a vault with so many memories, if anything."""
        if memories < self._memories_min:
            return None
        with trio.move_on_after(patience_s(memories=memories)):
            try:
                return await self._store.load_imprint(self._vault)
            except MemoryRouterError as error:
                logger.warning("imprint_not_read", extra={"vault": self._vault.number, "code": error.code})
        return None

    def cover(self, placed: int) -> None:
        """What was loaded is right for the first so many memories of the vault."""
        self._covered = self._asked = placed

    def keep_nowait(self, vault: Imprintable) -> None:
        """Write the imprint anew if much has come since. Before `running` begins, or beside a write, it waits; soon
        after a deletion it is not written: more may be deleted, and each would have it overwritten."""
        if trio.current_time() < self._rests_until_s:
            return
        due = max(2 * self._memories_min, vault.memories // LIVE_SHARE)
        if vault.placed - self._asked >= due:
            self._asked = vault.placed  # also if it fails: not at once again; the next due time comes
            self._due = _Due(vault.imprint_source(), vault.placed, vault.memories)
            self._start_due()

    async def finish(self, vault: Imprintable) -> None:
        """The vault leaves memory: write the imprint if it lacks what is worth the time."""
        self._due = None
        due = max(self._memories_min // 4, vault.memories // PASSIVATION_SHARE)
        if vault.memories >= self._memories_min and vault.placed - self._covered >= due:
            await self._write(_Due(vault.imprint_source(), vault.placed, vault.memories))

    async def remove(self) -> None:
        """Remove the imprint, since some of its words are about to be deleted; a later one is made without them.

        Copies that were made before are not written any more; a write under way is given up within a piece of it.

        Raises:
            StoreUnavailable: it is still there.
        """
        self._due = None
        self._write_scope.cancel(reason="some of its words are deleted")
        self._rests_until_s = trio.current_time() + REST_S
        async with self._disk:
            await self._store.remove_imprint(self._vault)
            self._covered = self._asked = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write what is due for the length of the block; leaving it gives up what is under way."""
        async with trio.open_nursery() as children:
            self._children = children
            self._start_due()
            try:
                yield
            finally:
                self._children = None
            children.cancel_scope.cancel(reason="the vault passivates")

    def _start_due(self) -> None:
        if self._children is not None and self._due is not None and not self._writing:
            self._writing = True
            self._children.start_soon(self._write_due)

    async def _write_due(self) -> None:
        while self._due is not None:
            due, self._due = self._due, None
            await self._write(due)
        self._writing = False

    async def _write(self, due: _Due) -> None:
        """Write a copy, whole or not at all."""
        self._write_scope = trio.CancelScope()
        with self._write_scope:
            async with self._disk:
                await self._write_alone(due)

    async def _write_alone(self, due: _Due) -> None:
        facts: dict[str, object] = {"vault": self._vault.number}
        try:
            with trio.fail_after(patience_s(memories=due.memories)):
                parts = await trio.to_thread.run_sync(due.source.encoded, trio.from_thread.check_cancelled)
            with trio.fail_after(patience_s(size_bytes=sum(len(part) for part in parts))):
                await self._store.save_imprint(self._vault, parts)
            self._covered = due.placed
        except MemoryRouterError as error:
            logger.warning("imprint_not_written", extra=facts | {"code": error.code})
        except trio.TooSlowError:
            logger.warning("imprint_not_written", extra=facts | {"code": "too_slow"})
        except Exception as error:  # an edge: a cache that cannot be made must not take its vault down
            logger.error("imprint_not_made", extra=facts | {"error": type(error).__name__})
