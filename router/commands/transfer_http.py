"""An export or import over HTTP, to and from a running server: what breaks off is taken up again.

Must never import what only a server needs: these commands answer at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import httpx
import msgspec

from models.errors import MemoryRouterError, SetupError, StoreUnavailable
from router.commands.options import Progress
from router.commands.transfer_files import ExportFile, Selection

HTTP_TIMEOUT_S = 150.0
"""Longer than a server takes for a page or for one body of an import."""

ATTEMPTS_MAX = 5
"""In a row without a single memory getting through."""

WAIT_S_MAX = 30.0
_RETRIED = (429, 502, 503, 504)


class RefusedByServer(MemoryRouterError):
    """A server answered with an error; the message is the server's."""

    code = "refused_by_server"


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
    with _open_client(url, key) as client:
        while True:
            count = file.count
            after = max(selection.after, file.last_seq)
            try:
                with client.stream("GET", "/v1/memory/export", params={**query, "after": str(after)}) as answer:
                    _check(answer)
                    for data in answer.iter_raw():
                        file.feed(data)
                        progress.show(file.count, file.total)
                if file.whole:
                    return
                reason = StoreUnavailable("The connection ended too early.")
            except httpx.TransportError as error:
                reason = StoreUnavailable(f"{url} does not answer: {type(error).__name__}.")
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
    with _open_client(url, key) as client:
        for count, body in bodies:
            stats = _send(client, body, url)
            stored, duplicates, sent = stored + stats["stored"], duplicates + stats["duplicates"], sent + count
            progress.show(sent, total)
    return stored, duplicates


def _send(client: httpx.Client, body: bytes, url: str) -> dict[str, Any]:
    attempts = 0
    while True:
        try:
            answer = client.post("/v1/memory/import", content=body)
            _check(answer)
            stats: dict[str, Any] = answer.json()["stats"]
            return stats
        except httpx.TransportError as error:
            reason = StoreUnavailable(f"{url} does not answer: {type(error).__name__}.")
        except StoreUnavailable as error:
            reason = error
        attempts += 1
        _wait_or_give_up(attempts, reason)


def _open_client(url: str, key: str) -> httpx.Client:
    base_url = url.rstrip("/").removesuffix("/v1")
    if not base_url.startswith(("http://", "https://")):
        raise SetupError(f"{url} is not an address like http://127.0.0.1:8080.")
    headers = {"authorization": f"Bearer {key}", "accept-encoding": "identity"}
    return httpx.Client(base_url=base_url, headers=headers, timeout=HTTP_TIMEOUT_S, trust_env=False)


def _check(answer: httpx.Response) -> None:
    if answer.status_code == 200:
        return
    answer.read()
    try:
        error = msgspec.json.decode(answer.content)
        message, hint = str(error["error"]), str(error.get("hint", ""))
    except (msgspec.DecodeError, UnicodeDecodeError, LookupError, TypeError, AttributeError):
        message, hint = f"The server answered {answer.status_code}.", ""
    if answer.status_code in _RETRIED:
        after = answer.headers.get("retry-after", "")
        raise StoreUnavailable(message, hint=hint, retry_after_s=int(after) if after.isdecimal() else 1)
    raise RefusedByServer(message, hint=hint)


def _wait_or_give_up(attempts: int, reason: StoreUnavailable) -> None:
    if attempts >= ATTEMPTS_MAX:
        raise reason
    time.sleep(min(WAIT_S_MAX, float(reason.retry_after_s or 1) * max(1, attempts)))
