"""How long a worker that has died is left alone before it is started again. Pure: time is given.

A worker that dies at once each time (a broken disk, no memory) must not take the machine's time from the others; one
that has served for a while is missed.
"""

from __future__ import annotations

PAUSE_S, PAUSE_S_MAX = 0.1, 5.0
STEADY_S = 30.0
"""A life of this length makes the next death the first one."""


class Restarts:
    """The deaths of one worker.

    Attributes:
        count: all of them.
    """

    __slots__ = ("_pause_s", "_started_s", "count")

    def __init__(self) -> None:
        self.count = 0
        self._pause_s = PAUSE_S
        self._started_s = 0.0

    def started(self, now_s: float) -> None:
        """It begins a life."""
        self._started_s = now_s

    def died(self, now_s: float) -> float:
        """It has ended one; how many seconds to wait before the next."""
        self.count += 1
        if now_s - self._started_s >= STEADY_S:
            self._pause_s = PAUSE_S
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, PAUSE_S_MAX)
        return pause_s
