"""Partitions that have just come to this node: what their earlier owners have left undone is gone on with.

Owns that this is tried until it succeeds, or the partition has left again. Must never hold up the taking of others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Protocol

import trio

from models.errors import MemoryRouterError, NotOwner

PAUSE_S = 0.5
"""Before it is tried again; twice as long each time."""
PAUSE_S_MAX = 30.0

logger = logging.getLogger(__name__)


class PurgingStore(Protocol):
    """What of the store is needed here."""

    async def resume_purges(self, parts: Collection[int] | None = None) -> None:
        """Go on with the removal of shredded vaults."""


class ResumingVaults(Protocol):
    """What of `actors.supervisor.Supervisor` is needed here."""

    async def resume(self, parts: Collection[int] | None = None) -> None:
        """Take in what waits in inboxes, and go on with moves to other embedders."""


class NewParts:
    """Partitions that are to be looked through."""

    def __init__(self) -> None:
        self._parts: set[int] = set()
        self._some = trio.Event()

    def add(self, part: int, epoch: int) -> None:
        """One more."""
        self.add_again({part})

    def add_again(self, parts: Collection[int]) -> None:
        """These, which could not be looked through."""
        if parts:
            self._parts |= set(parts)
            self._some.set()

    async def take(self) -> set[int]:
        """All that have come, as soon as there is one."""
        await self._some.wait()
        self._some = trio.Event()
        parts, self._parts = self._parts, set()
        return parts


async def go_on(
    store: PurgingStore, supervisor: ResumingVaults, new: NewParts, *, check_owned: Callable[[int], object]
) -> None:
    """Go on with what the earlier owners of partitions have left, until cancelled.

    Args:
        check_owned: raises `NotOwner` for a partition that has left again. One that comes back is added anew.
    """
    pause_s = PAUSE_S
    while True:
        parts = {part for part in await new.take() if _is_owned(part, check_owned)}
        try:
            if parts:
                await store.resume_purges(parts)
                await supervisor.resume(parts)
            pause_s = PAUSE_S
        except MemoryRouterError as error:
            logger.warning("parts_not_resumed", extra={"parts": len(parts), "code": error.code, "again_in_s": pause_s})
            await trio.sleep(pause_s)
            new.add_again(parts)
            pause_s = min(2 * pause_s, PAUSE_S_MAX)


def _is_owned(part: int, check_owned: Callable[[int], object]) -> bool:
    try:
        check_owned(part)
    except NotOwner:
        return False
    return True
