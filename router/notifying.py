"""Tells the service manager how the server is, in systemd's protocol (sd_notify(3)): ready, alive, stopping.

One datagram each to the socket that NOTIFY_SOCKET names; without that variable nothing happens. Owns that protocol.
Must never keep the server from serving: what cannot be told is logged.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping

import trio

from router.observe import log_event

READY = "READY=1"
STOPPING = "STOPPING=1"
ALIVE = "WATCHDOG=1"

OWN_VARIABLES = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"})
"""What the service manager says to this process, and not to those that it starts."""

BEATS_PER_TIMEOUT = 3
"""systemd advises every half of the time-out; a third leaves room for a slow machine."""


def notify(state: str, *, environ: Mapping[str, str] = os.environ) -> None:
    """Send one state, if there is somebody to tell."""
    name = environ.get("NOTIFY_SOCKET", "")
    if not name:
        return
    address = "\0" + name[1:] if name.startswith("@") else name  # abstract, as Linux has them
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as telling:
            telling.setblocking(False)
            telling.sendto(state.encode(), address)
    except OSError as error:
        log_event("service_manager_not_told", level=logging.WARNING, state=state, reason=error.strerror or "")


def watchdog_interval_s(*, environ: Mapping[str, str] = os.environ) -> float | None:
    """How often the service manager wants to hear from this process; None if it does not ask."""
    timeout_us, of_process = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not timeout_us.isdecimal() or int(timeout_us) == 0 or (of_process and of_process != str(os.getpid())):
        return None
    return int(timeout_us) / 1_000_000 / BEATS_PER_TIMEOUT


async def beat(*, environ: Mapping[str, str] = os.environ, lives: Callable[[], bool] = lambda: True) -> None:
    """Say that the loop goes round until cancelled, as often as asked; return at once if nobody asks.

    Args:
        lives: whether all else does, too; while not, nothing is said.
    """
    interval_s = watchdog_interval_s(environ=environ)
    while interval_s is not None:
        if lives():
            notify(ALIVE, environ=environ)
        await trio.sleep(interval_s)
