"""An upload over HTTP: slice by slice, patiently with a server that is busy, never twice by mistake.

A slice whose answer was lost is sent again; the server knows its lines. Must never import what only a server needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx

from models.errors import MemoryRouterError, StoreUnavailable, TooLarge
from router.commands.connecting import json_of, open_client, unreachable
from router.commands.upload_delivery import Delivery, Slice

UPLOAD_TIMEOUT_S = 300.0
"""For one slice: a server waits up to 100 s for room, and then for its commit."""

ATTEMPTS_MAX = 8
"""For one slice, before the command gives up: about two minutes with a server that names no time."""

BACK_OFF_S = 0.5
BACK_OFF_S_MAX = 30.0
RETRY_AFTER_S_MAX = 600.0
"""A server that asks for more than that gets it from whoever runs the command again."""


def upload_over_http(
    delivery: Delivery,
    url: str,
    key: str,
    *,
    show: Callable[[int], None],
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Send what is left of an upload.

    Args:
        show: is told how many lines are through.
        wait: sleeps for so many seconds.

    Raises:
        RefusedByServer, TooLarge: the server does not take it; what was sent before is stored.
        StoreUnavailable: it cannot be reached, or is busy for too long.
        SetupError: the address can never work.
    """
    with open_client(url, key, timeout_s=UPLOAD_TIMEOUT_S) as client:
        while (part := delivery.next_slice()) is not None:
            answer = _send(client, url, part, wait, begun=delivery.stored + delivery.duplicates > 0)
            if answer.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE:
                if not delivery.too_large(part):
                    raise TooLarge(f"{part.lines[0].place}: {_words(answer)}")
                continue
            stats = json_of(answer).get("stats")
            stats = stats if isinstance(stats, dict) else {}
            stored = _count(stats.get("stored"), len(part.lines))
            delivery.took(part, stored=stored, duplicates=_count(stats.get("duplicates"), len(part.lines) - stored))
            show(delivery.done)


def _send(client: httpx.Client, url: str, part: Slice, wait: Callable[[float], None], *, begun: bool) -> httpx.Response:
    """The answer to one slice that is neither lost nor a request to come again.

    Args:
        begun: the server has answered before: if it is gone now, it may be starting again.
    """
    body = part.body
    for attempt in range(1, ATTEMPTS_MAX + 1):
        try:
            answer = client.post("/v1/memory/upload", content=body, headers={"content-type": "application/x-ndjson"})
            if answer.status_code != httpx.codes.REQUEST_ENTITY_TOO_LARGE:
                json_of(answer)
            return answer
        except httpx.TransportError as error:
            reason = unreachable(url, error)
            if not begun and isinstance(error, httpx.ConnectError):
                raise reason from error
        except StoreUnavailable as error:
            reason = error
        _wait_or_give_up(attempt, reason, wait)
    raise AssertionError("the last attempt gives up")


def _wait_or_give_up(attempt: int, reason: MemoryRouterError, wait: Callable[[float], None]) -> None:
    asked_s = float(reason.retry_after_s or 0)
    if not isinstance(reason, StoreUnavailable) or attempt >= ATTEMPTS_MAX or asked_s > RETRY_AFTER_S_MAX:
        raise reason
    wait(max(asked_s, min(BACK_OFF_S_MAX, BACK_OFF_S * 2 ** (attempt - 1))))


def _count(value: object, otherwise: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise


def _words(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, LookupError, TypeError):
        return "it is larger than the server takes."
