"""Long work of a turn in slices: one vault's upload must not stall the others."""

from __future__ import annotations

import time

import trio

SLICE_S = 0.008
"""A turn that works longer than this lets other tasks run."""


class Pause:
    """Lets other tasks run whenever a slice of work has lasted `SLICE_S`."""

    __slots__ = ("_began_s",)

    def __init__(self) -> None:
        self._began_s = time.perf_counter()

    async def after_slice(self) -> None:
        """Call it between two small pieces of work."""
        if time.perf_counter() - self._began_s > SLICE_S:
            await trio.lowlevel.checkpoint()
            self._began_s = time.perf_counter()
