"""An export or import over HTTP, to and from a running server: what breaks off is taken up again.

Must never import what only a server needs: these commands answer at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import httpx

from models.errors import StoreUnavailable
from router.commands.connecting import check, open_client, unreachable
from router.commands.terminal import Progress
from router.commands.transfer_files import ExportFile, Selection

ATTEMPTS_MAX = 5
"""In a row without a single memory getting through."""

WAIT_S_MAX = 30.0


def export_over_http(file: ExportFile, url: str, key: str, selection: Selection, progress: Progress) -> None:
    """Fetch an export, going on where a connection breaks.

    Raises:
        RefusedByServer: the server does not give it.
        StoreUnavailable: the server cannot be reached, or breaks off again and again.
    """
    query: dict[str, str] = {} if selection.vectors else {"vectors": "false"}
    if selection.session_id is not None:
        query["session_id"] = selection.session_id
    attempts = 0
    with open_client(url, key) as client:
        while True:
            count = file.count
            after = max(selection.after, file.last_seq)
            try:
                with client.stream("GET", "/v1/memory/export", params={**query, "after": str(after)}) as answer:
                    check(answer)
                    for data in answer.iter_raw():
                        file.feed(data)
                        progress.show(file.count, file.total)
                if file.whole:
                    return
                reason = StoreUnavailable("The connection ended too early.")
            except httpx.TransportError as error:
                reason = _worth_trying_again(url, error, begun=file.count > 0)
            except StoreUnavailable as error:
                reason = error
            file.close_part()
            attempts = attempts + 1 if file.count == count else 0
            _wait_or_give_up(attempts, reason)


def import_over_http(
    bodies: Iterable[tuple[int, bytes]], total: int, url: str, key: str, progress: Progress
) -> tuple[int, int]:
    """Send an import body by body; the sums of what was stored and what was known.

    Raises:
        RefusedByServer: the server does not take it.
        StoreUnavailable: the server cannot be reached. What was sent before is stored.
    """
    stored = duplicates = sent = 0
    with open_client(url, key) as client:
        for count, body in bodies:
            stats = _send(client, body, url, begun=sent > 0)
            stored, duplicates, sent = stored + stats["stored"], duplicates + stats["duplicates"], sent + count
            progress.show(sent, total)
    return stored, duplicates


def _send(client: httpx.Client, body: bytes, url: str, *, begun: bool) -> dict[str, Any]:
    attempts = 0
    while True:
        try:
            answer = client.post("/v1/memory/import", content=body)
            check(answer)
            stats: dict[str, Any] = answer.json()["stats"]
            return stats
        except httpx.TransportError as error:
            reason = _worth_trying_again(url, error, begun=begun)
        except StoreUnavailable as error:
            reason = error
        attempts += 1
        _wait_or_give_up(attempts, reason)


def _worth_trying_again(url: str, error: httpx.TransportError, *, begun: bool) -> StoreUnavailable:
    """The broken connection in words.

    Raises:
        SetupError: it would break again.
        StoreUnavailable: no server was there to begin with.
    """
    reason = unreachable(url, error)
    if isinstance(reason, StoreUnavailable) and (begun or not isinstance(error, httpx.ConnectError)):
        return reason
    raise reason from error


def _wait_or_give_up(attempts: int, reason: StoreUnavailable) -> None:
    if attempts >= ATTEMPTS_MAX:
        raise reason
    time.sleep(min(WAIT_S_MAX, float(reason.retry_after_s or 1) * max(1, attempts)))
