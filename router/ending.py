"""How the process comes to its end: the first signal asks for it, the second does not wait, and neither does a clock.

Owns the signals SIGTERM and SIGINT. Must never know what is to be ended.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from router.observe import log_event

HARD_EXIT_GRACE_S = 15.0
"""What the store gets to close, after requests and vaults have had their drain times."""

SIGNAL_EXIT_CODE_BASE = 128  # as shells report it
EXIT_TOO_LATE = 1


def _nothing() -> None:
    pass


class _Ending:
    """What is known of the end.

    Attributes:
        requested: set when it is to begin.
    """

    def __init__(self, exit_within_s: float, before_exit: Callable[[], None]) -> None:
        self.requested = trio.Event()
        self._before_exit = before_exit
        self._watchdog = threading.Timer(exit_within_s, self._exit, args=(EXIT_TOO_LATE,))
        self._watchdog.daemon = True

    def begin(self) -> None:
        """From now on the clock runs. May be called again."""
        if not self.requested.is_set():
            self.requested.set()
            self._watchdog.start()

    def stop_clock(self) -> None:
        """The end has come in time."""
        self._watchdog.cancel()

    async def watch(self, signals: AsyncIterator[int]) -> None:
        """Begin with the first signal, and exit with the second."""
        signalled = False
        async for number in signals:
            if signalled:
                self._exit(SIGNAL_EXIT_CODE_BASE + number)
            log_event("shutdown_requested", signal=signal.Signals(number).name)
            signalled = True
            self.begin()

    async def begin_after(self, asked: Callable[[], Awaitable[object]]) -> None:
        """Begin when somebody else asks for it: that is no signal, so the first one after it is not the second."""
        await asked()
        self.begin()

    def _exit(self, code: int) -> None:
        self._before_exit()
        os._exit(code)


@asynccontextmanager
async def open_shutdown_signals(
    *,
    exit_within_s: float,
    asked: Callable[[], Awaitable[object]] | None = None,
    before_exit: Callable[[], None] = _nothing,
) -> AsyncIterator[trio.Event]:
    """An event that SIGTERM or SIGINT sets; belongs around everything else that the server opens.

    A second signal ends the process at once, and so does a graceful end longer than `exit_within_s`. The
    store makes both safe: what was acknowledged is durable. The clock is a thread, since what hangs may be the
    event loop itself.

    Args:
        asked: its return sets the event, too.
        before_exit: called before the process ends so, in any thread.
    """
    ending = _Ending(exit_within_s, before_exit)
    try:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as watching:
                watching.start_soon(ending.watch, signals)
                if asked is not None:
                    watching.start_soon(ending.begin_after, asked)
                yield ending.requested
                watching.cancel_scope.cancel(reason="the server has ended")
    finally:
        ending.stop_clock()
