"""An upload over HTTP: slice by slice, patiently with a server that is busy, never twice by mistake.

A slice whose answer was lost is sent again; the server knows its lines. Must never import what only a server needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import httpx

from models.errors import TooLarge
from router.commands.connecting import check, json_of, open_client, words_of
from router.commands.retrying import Wait, until_answered
from router.commands.upload_delivery import Delivery, Slice

UPLOAD_TIMEOUT_S = 300.0
"""For one slice: a server waits up to 100 s for room, and then for its commit."""


def upload_over_http(
    delivery: Delivery,
    url: str,
    key: str,
    *,
    show: Callable[[int], None],
    wait: Wait = time.sleep,
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
            begun = delivery.stored + delivery.duplicates > 0
            answer = until_answered(partial(_send, client, part), url, begun=begun, wait=wait)
            if answer.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE:
                if not delivery.too_large(part):
                    raise TooLarge(f"{part.lines[0].place}: {words_of(answer)[0]}")
                continue
            stats = json_of(answer).get("stats")
            stats = stats if isinstance(stats, dict) else {}
            stored = _count(stats.get("stored"), len(part.lines))
            delivery.took(part, stored=stored, duplicates=_count(stats.get("duplicates"), len(part.lines) - stored))
            show(delivery.done)


def _send(client: httpx.Client, part: Slice) -> httpx.Response:
    """The answer to one slice: a success, or that it is too large."""
    answer = client.post("/v1/memory/upload", content=part.body, headers={"content-type": "application/x-ndjson"})
    if answer.status_code != httpx.codes.REQUEST_ENTITY_TOO_LARGE:
        check(answer)
    return answer


def _count(value: object, otherwise: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise
