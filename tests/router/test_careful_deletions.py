"""Deletions over HTTP delete what was named, and nothing when it cannot be told what that is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import trio

from router.auditing import to_the_end
from tests.patience import PATIENCE_S
from tests.router.memories import CAT, DOG, contents
from tests.running import Client, object_of, open_server


async def _fill(server: Client) -> None:
    await server.ingest(DOG, session_id="a")
    await server.ingest(CAT)


async def _is_refused(server: Client, answer: Any, field: str) -> None:
    assert (answer.status_code, object_of(answer)["field"]) == (400, field), answer.text
    assert len(await contents(server)) == 2


UNTOLD_FILTERS = [
    ("q=the", "q"), ("q=%2e%2e", "q"), ("q=%E2%80%8B", "q"), ("q=" + "dog+" * 600, "q"),
    ("session_id=&role=user", "session_id"), ("role=user&since=", "since"), ("since=1795287000", "since"),
    ("since=20260101", "since"),
]  # fmt: skip


async def test_a_filter_that_filters_nothing_deletes_nothing(tmp_path: Path) -> None:
    """Words that are not looked for, an unset variable, and a session beside the scope of the whole vault."""
    async with open_server(tmp_path / "data") as server:
        await _fill(server)
        for query, field in UNTOLD_FILTERS:
            await _is_refused(server, await server.delete(f"/v1/memories?{query}"), field)
        headers = {"authorization": f"Bearer {server.key}"}
        for query, body, field in (("role=user", {"dry_run": True}, "dry_run"), ("q=dog&q=cat", {}, "q")):
            answer = await server.http.request("DELETE", f"/v1/memories?{query}", json=body, headers=headers)
            await _is_refused(server, answer, field)
        wide = {"x-session-id": "a", "x-session-scope": "vault"}
        await _is_refused(server, await server.delete("/v1/memories", headers=wide), "filter")
        assert object_of(await server.delete("/v1/memories", headers={"x-session-id": "a"}))["deleted"] == 1


UNTOLD_UNDOINGS: list[tuple[dict[str, Any], str, str]] = [
    ({"since": 0, "dry_run": 1}, "", "dry_run"), ({"since": 0, "dry_run": "true"}, "", "dry_run"),
    ({"since": 0, "dryRun": True}, "", "dryRun"), ({"since": 0, "sesion_id": "a"}, "", "sesion_id"),
    ({"since": 0}, "?dry-run=true", "dry-run"), ({"since": 1795287000}, "", "since"),
    ({"since": "1795287000"}, "", "since"),
]  # fmt: skip


async def test_an_undo_that_is_not_understood_undoes_nothing(tmp_path: Path) -> None:
    async with open_server(tmp_path / "data") as server:
        await _fill(server)
        for body, query, field in UNTOLD_UNDOINGS:
            await _is_refused(server, await server.post(f"/v1/memories/undo{query}", body), field)


async def test_a_session_may_be_named_in_the_query_too(tmp_path: Path) -> None:
    async with open_server(tmp_path / "data") as server:
        await _fill(server)
        assert object_of(await server.delete("/v1/memory?session_id=a"))["sessionCleared"] is True
        assert await contents(server) == [CAT]


async def test_a_vault_is_not_deleted_for_an_empty_or_unknown_name(tmp_path: Path) -> None:
    """Who deletes a session and has lost its name means no other one, and not the vault."""
    async with open_server(tmp_path / "data") as server:
        await _fill(server)
        for query, field in (("session_id=", "session_id"), ("sesion_id=a", "sesion_id"), ("reset=true&all=1", "all")):
            await _is_refused(server, await server.delete(f"/v1/memory?{query}"), field)
        await _is_refused(server, await server.delete(headers={"x-session-id": ""}), "session_id")
        both = await server.delete("/v1/memory?session_id=a", headers={"x-session-id": "b"})
        await _is_refused(server, both, "session_id")
        headers = {"authorization": f"Bearer {server.key}"}
        for body, field in (({"session_id": ""}, "session_id"), ({"session_id": None}, "session_id"), ({"s": 1}, "s")):
            answer = await server.http.request("DELETE", "/v1/memory", json=body, headers=headers)
            await _is_refused(server, answer, field)


async def _hang_up(server: Client, method: str, path: str) -> None:
    """Send a request and leave without an answer."""
    port = httpx.URL(server.url).port
    assert port is not None
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.key}\r\n\r\n"
        await stream.send_all(head.encode())


async def _audited(server: Client) -> int:
    """How many deleted memories the audit log knows of."""
    entries = object_of(await server.get("/v1/audit"))["data"]
    return sum(entry["detail"]["memories"] for entry in entries if entry["action"] == "memories.deleted")


async def test_who_hangs_up_deletes_nothing_unseen(tmp_path: Path) -> None:
    """Whatever was begun is done whole, and noted. A request whose client is gone before it begins is sent again."""
    async with open_server(tmp_path / "data") as server:
        with trio.fail_after(PATIENCE_S):
            for path, audited in (
                ("/v1/memories/{id}", 1),
                ("/v1/memories?role=user", 2),
                ("/v1/memory?session_id=a", 3),
            ):
                memory = {"content": f"{DOG} {audited}", "session_id": "a"}
                stored = object_of(await server.post("/v1/memories", memory))
                while await contents(server):
                    await _hang_up(server, "DELETE", path.format(id=stored["id"]))
                while await _audited(server) != audited:
                    await trio.lowlevel.checkpoint()


async def test_what_has_begun_ends_though_it_is_cancelled() -> None:
    ended = False
    with trio.CancelScope() as scope:
        scope.cancel(reason="the client has left")
        with to_the_end():
            await trio.lowlevel.checkpoint()
            ended = True
    assert ended
