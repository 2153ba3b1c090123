"""Who comes after whom in one session of a vault. Knows positions and times, never memories."""

from __future__ import annotations

from bisect import bisect_left, insort

NOBODY = -1
"""Stands for the memory before the first of a session, and for the one after the last."""


class SessionOrder:
    """The memories of one session in the order of time: (timestamp_ms, position)."""

    __slots__ = ("chunks", "number", "order", "tokens")

    def __init__(self, number: int) -> None:
        self.number = number
        self.order: list[tuple[int, int]] = []
        self.chunks = 0
        self.tokens = 0

    def beside(self, timestamp_ms: int, position: int) -> tuple[int, int]:
        """The positions before and after a place in the order, whether or not it is taken."""
        place = bisect_left(self.order, (timestamp_ms, position))
        taken = place < len(self.order) and self.order[place] == (timestamp_ms, position)
        after = place + taken
        before = self.order[place - 1][1] if place else NOBODY
        return before, self.order[after][1] if after < len(self.order) else NOBODY

    def put(self, timestamp_ms: int, position: int) -> None:
        """One more."""
        insort(self.order, (timestamp_ms, position))

    def remove(self, timestamp_ms: int, position: int) -> None:
        """One less."""
        self.order.pop(bisect_left(self.order, (timestamp_ms, position)))
