"""When a command that moves memories asks a server again, and when it gives up.

Owns the number of attempts and the pauses between them. Must never ask again where that cannot help: a refusal, a wrong
address, a server that was not there to begin with. Must never import what only a server needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from models.errors import StoreUnavailable
from router.commands.connecting import unreachable

if TYPE_CHECKING:
    import httpx

ATTEMPTS_MAX = 8
"""In a row without getting anywhere: about two minutes with a server that names no time."""

BACK_OFF_S = 0.5
BACK_OFF_S_MAX = 30.0
RETRY_AFTER_S_MAX = 600.0
"""A server that asks for more than that gets it from whoever runs the command again."""

Wait = Callable[[float], None]
Answer = TypeVar("Answer")


def until_answered(ask: Callable[[], Answer], url: str, *, begun: bool, wait: Wait = time.sleep) -> Answer:
    """Ask, and ask again where the connection breaks or the server is busy. `ask` must be harmless to repeat.

    Args:
        begun: as of `broken`.
        wait: sleeps for so many seconds.

    Raises:
        StoreUnavailable: nothing came of it, however often.
        MemoryRouterError: what `ask` raises otherwise, and `broken`.
    """
    import httpx

    attempts = 0
    while True:
        try:
            return ask()
        except httpx.TransportError as error:
            reason = broken(url, error, begun=begun)
        except StoreUnavailable as error:
            reason = error
        attempts += 1
        wait_or_give_up(attempts, reason, wait)


def broken(url: str, error: httpx.TransportError, *, begun: bool) -> StoreUnavailable:
    """The broken connection in words.

    Args:
        begun: the server has answered before: if it is gone now, it may be starting again.

    Raises:
        SetupError: it would break again.
        StoreUnavailable: no server was there to begin with.
    """
    import httpx

    reason = unreachable(url, error)
    if isinstance(reason, StoreUnavailable) and (begun or not isinstance(error, httpx.ConnectError)):
        return reason
    raise reason from error


def wait_or_give_up(attempts: int, reason: StoreUnavailable, wait: Wait = time.sleep) -> None:
    """Pause for as long as the server asks, and longer with every attempt.

    Args:
        attempts: so many have failed in a row, from 1.

    Raises:
        StoreUnavailable: the reason; these were enough, or the server asks for too much time.
    """
    asked_s = float(reason.retry_after_s or 0)
    if attempts >= ATTEMPTS_MAX or asked_s > RETRY_AFTER_S_MAX:
        raise reason
    wait(max(asked_s, min(BACK_OFF_S_MAX, BACK_OFF_S * 2 ** (attempts - 1))))
