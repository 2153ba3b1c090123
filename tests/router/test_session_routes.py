"""`GET /v1/sessions`: which sessions the caller's vault has, as far as the caller may read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.memory_settings import SessionSettings
from tests.running import Client, object_of, open_server, settings_for


async def sessions(client: Client, query: str = "", *, key: str | None = None, **headers: str) -> list[dict[str, Any]]:
    """What is listed."""
    answer = await client.get(
        f"/v1/sessions{query}", key=key, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )
    assert answer.status_code == 200, answer.text
    body = object_of(answer)
    assert body["data"] == body["sessions"]
    listed: list[dict[str, Any]] = body["data"]
    return listed


async def fill(client: Client) -> None:
    """Three sessions and a memory without one."""
    lines = [
        {"content": f"memory {number}", "session_id": session, "timestamp": 1_780_000_000_000 + number}
        for number, session in enumerate(["a", "b", None, "c", "a", "b", "b"])
    ]
    await client.upload(lines)


async def test_sessions_are_listed_by_their_newest_memory(tmp_path: Path) -> None:
    """With how much they hold and when; a page at a time; what is without a session is none."""
    async with open_server(tmp_path / "data") as server:
        await fill(server)
        listed = await sessions(server)
        assert [(one["session_id"], one["memories"]) for one in listed] == [("b", 3), ("a", 2), ("c", 1)]
        first = listed[0]
        assert (first["first_timestamp"], first["last_timestamp"]) == (1_780_000_000_001, 1_780_000_000_006)
        assert first["first_at"] < first["last_at"]
        assert first["tokens"] > 0
        page = object_of(await server.get("/v1/sessions?limit=2"))
        assert [one["session_id"] for one in page["data"]] == ["b", "a"]
        rest = object_of(await server.get(f"/v1/sessions?limit=2&cursor={page['next_cursor']}"))
        assert ([one["session_id"] for one in rest["data"]], rest["next_cursor"]) == (["c"], None)
        await server.delete("/v1/memory?session_id=b")
        assert [one["session_id"] for one in await sessions(server)] == ["a", "c"]


async def test_they_are_the_same_after_a_restart(tmp_path: Path) -> None:
    """Also where a page before it ended."""
    async with open_server(tmp_path / "data") as server:
        await fill(server)
        page = object_of(await server.get("/v1/sessions?limit=1"))
    async with open_server(tmp_path / "data") as server:
        rest = await sessions(server, f"?cursor={page['next_cursor']}")
        assert [one["session_id"] for one in rest] == ["a", "c"]


async def test_nobody_sees_sessions_that_he_may_not_read(tmp_path: Path) -> None:
    """Not those of another vault, none with a key that only writes, one alone for a request of that session."""
    async with open_server(tmp_path / "data") as server:
        await fill(server)
        other = await server.other()
        assert await sessions(other) == []
        assert await sessions(server, key=f"{server.key}:write") == []
        assert [one["session_id"] for one in await sessions(server, X_Session_ID="a")] == ["a"]
        assert await sessions(server, X_Session_ID="unknown") == []
        whole = await sessions(server, X_Session_ID="a", X_Session_Scope="vault")
        assert [one["session_id"] for one in whole] == ["b", "a", "c"]
        for query in ("?limit=0", "?limit=1001", "?cursor=x"):
            assert (await server.get(f"/v1/sessions{query}")).status_code == 400


async def test_where_sessions_are_strictly_apart_only_the_own_one_shows(tmp_path: Path) -> None:
    settings = settings_for(sessions=SessionSettings(isolation="strict"))
    async with open_server(tmp_path / "data", settings) as server:
        await fill(server)
        assert await sessions(server) == []
        assert [one["session_id"] for one in await sessions(server, X_Session_ID="a")] == ["a"]
