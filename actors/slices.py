"""Long work of a turn: in slices, or in a thread, so that one vault's upload or question does not stall the others.

Freeing is work as well: of a million memories it takes a second, in whichever thread, and no other runs meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import trio

from actors.holdings import Holding

SLICE_S = 0.002
"""A turn that works longer than this lets other tasks run. A request passes the loop about ten times, and may wait for
a slice each time: with slices of 8 ms the p99 of a `prepare` beside an upload was seven times the quiet one."""

READ_INLINE_CHUNKS_MAX = 65_536
"""Chunks up to which a vault is read in the turn itself. Reading takes about a slice then, and grows with the vault.
A thread adds 0.2 ms, and most of the work there goes on without the GIL."""

FREE_ENTRIES_MAX = 256
"""Entries of a container that are freed without a look at the clock: about 0.1 ms where each is a memory."""

Query = TypeVar("Query")
Answer = TypeVar("Answer")


class Pause:
    """Lets other tasks run whenever a slice of work has lasted `SLICE_S`."""

    __slots__ = ("_began_s",)

    def __init__(self) -> None:
        self._began_s = time.perf_counter()

    @property
    def due(self) -> bool:
        """Whether the slice has lasted long enough."""
        return time.perf_counter() - self._began_s > SLICE_S

    async def after_slice(self) -> None:
        """Call it between two small pieces of work."""
        if self.due:
            await trio.lowlevel.checkpoint()
            self._began_s = time.perf_counter()


async def free(holdings: Iterable[Holding]) -> None:
    """Empty containers, in slices however large their entries are. Else it is done at once, by whoever drops the last
    reference to them, or by the garbage collector in the middle of something else."""
    pause = Pause()
    for holding in holdings:
        drop_one: Callable[[], Any] = holding.popitem if isinstance(holding, dict) else holding.pop
        entries = 1
        while holding:
            for _ in range(min(entries, len(holding))):
                drop_one()
            entries = 1 if pause.due else min(2 * entries, FREE_ENTRIES_MAX)
            await pause.after_slice()


async def read_in_turn(read: Callable[[Query], Answer], query: Query, *, chunks: int) -> Answer:
    """Read a vault of so many chunks. The turn does not end before, so a thread is as alone with the vault as it is."""
    if chunks <= READ_INLINE_CHUNKS_MAX:
        return read(query)
    return await trio.to_thread.run_sync(read, query)
