"""An export or import over HTTP, to and from a running server: what breaks off is taken up again.

Must never import what only a server needs: these commands answer at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import httpx

from models.errors import StoreUnavailable
from router.commands.connecting import RefusedByServer, check, json_of, open_client
from router.commands.retrying import broken, until_answered, wait_or_give_up
from router.commands.terminal import Progress
from router.commands.transfer_files import ExportFile, Selection


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
                reason = broken(url, error, begun=file.count > 0)
            except StoreUnavailable as error:
                reason = error
            file.close_part()
            attempts = attempts + 1 if file.count == count else 1
            wait_or_give_up(attempts, reason)


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
            stats = until_answered(partial(_send, client, body), url, begun=sent > 0)
            stored, duplicates, sent = stored + stats["stored"], duplicates + stats["duplicates"], sent + count
            progress.show(sent, total)
    return stored, duplicates


def _send(client: httpx.Client, body: bytes) -> dict[str, Any]:
    stats = json_of(client.post("/v1/memory/import", content=body)).get("stats")
    if not isinstance(stats, dict) or not {"stored", "duplicates"} <= stats.keys():
        raise RefusedByServer("The server's answer does not say what was stored.", hint="Is it a MemoryRouter?")
    return stats
