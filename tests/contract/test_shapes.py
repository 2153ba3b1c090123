"""The shapes that clients rely on: every endpoint's fields, types and statuses, to the letter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.router.proxied import PATH, open_both
from tests.running import assistant, object_of, open_server, user

DOG = "My dog is called Rex."
NUMBER = (int, float)


def check(body: dict[str, Any], shape: dict[str, Any]) -> None:
    """Each named field is there and has the type; further fields are allowed."""
    for name, kind in shape.items():
        assert name in body, name
        value = body[name]
        if isinstance(kind, dict):
            check(value, kind)
        else:
            assert isinstance(value, kind), (name, value)
            assert not (isinstance(value, bool) and kind is not bool), name


async def test_prepare(tmp_path: Path) -> None:
    """200, with and without memories."""
    shape = {
        "memories_found": int, "memory_tokens": int, "retrieval_tokens": int, "tokens_billed": int,
        "metrics": {"total_ms": NUMBER},
    }  # fmt: skip
    async with open_server(tmp_path / "data") as server:
        empty = await server.prepare("What is my dog called?")
        await server.ingest(DOG)
        found = await server.prepare("What is my dog called?", density="default")
    check(empty, {**shape, "context": type(None)})
    check(found, {**shape, "context": str})
    assert found["context"].startswith("<memory_context>\n[MEMORY - just now (")
    assert "\n</memory_context>\n\n" in found["context"]
    assert not found["context"].endswith("\n")


async def test_explanations(tmp_path: Path) -> None:
    """With `explain: true`, per memory: features, weights, relevance, rank. Else no trace of them."""
    shape = {"features": dict, "weights": dict, "relevance": NUMBER, "rank": int}
    asked = {"messages": [user("What is my dog called?")]}
    async with open_server(tmp_path / "data") as server:
        await server.ingest(DOG)
        prepared = object_of(await server.post("/v1/memory/prepare", {**asked, "explain": True}))
        found = object_of(await server.post("/v1/memory/search", {"query": "dog", "explain": True}))
        plain = [
            object_of(await server.post("/v1/memory/prepare", asked)),
            object_of(await server.post("/v1/memory/search", {"query": "dog", "explain": False})),
        ]
        wrong = await server.post("/v1/memory/search", {"query": "dog", "explain": "yes"})
    for answer in (prepared, found):
        (memory,) = answer["memories"]
        check(memory["explanation"], shape)
        assert memory["explanation"]["relevance"] == memory["score"]
        assert set(memory["explanation"]["features"]) == set(memory["explanation"]["weights"])
    assert "explanation" not in str(plain)
    assert "memories" not in plain[0]
    assert wrong.status_code == 400


async def test_ingest(tmp_path: Path) -> None:
    """202; the counts are those of the user's and the assistant's texts."""
    async with open_server(tmp_path / "data") as server:
        answer = await server.post("/v1/memory/ingest", {"messages": [user("one two"), assistant("three four five")]})
        read_only = await server.post("/v1/memory/ingest", {"messages": [user("one two")]}, key=f"{server.key}:read")
    assert answer.status_code == read_only.status_code == 202
    body = object_of(answer)
    check(body, {"accepted": bool, "queued": bool, "retrieval_tokens": int, "response_tokens": int, "message": str})
    assert (body["accepted"], body["queued"]) == (True, True)
    assert (body["retrieval_tokens"], body["response_tokens"]) == (2, 3)
    check(object_of(read_only), {"accepted": bool, "queued": bool, "message": str, "reason": str})


async def test_search(tmp_path: Path) -> None:
    """200; ten items unless asked for more, a thousand at most."""
    async with open_server(tmp_path / "data") as server:
        await server.upload([{"content": f"Dog number {number}."} for number in range(30)])
        await server.upload([{"content": "Cat.", "id": "x", "metadata": {"k": 1}, "session_id": 3}])
        answer = await server.post("/v1/memory/search", {"query": "dog"})
        null = await server.post("/v1/memory/search", {"query": "dog", "limit": None})
        (cat,) = await server.search("cat", limit=1)
        assert len(await server.search("dog", limit=1000)) == 31
        for limit in (0, -1, 1001, 1.5, "x", True, [1]):
            refused = await server.post("/v1/memory/search", {"query": "dog", "limit": limit})
            assert (refused.status_code, object_of(refused)["field"]) == (400, "limit")
    body = object_of(answer)
    check(body, {"memories": list, "count": int, "metrics": {"total_ms": NUMBER}})
    assert len(body["memories"]) == body["count"] == object_of(null)["count"] == 10
    item = body["memories"][0]
    check(
        item, {"id": str, "content": str, "matched": str, "role": str, "timestamp": int, "score": float, "source": str}
    )
    assert item["session_id"] is None
    assert set(item) == {"id", "content", "matched", "role", "timestamp", "session_id", "score", "source"}
    assert set(cat) == set(item) | {"external_id", "metadata"}
    assert (cat["session_id"], cat["external_id"], cat["metadata"], cat["source"]) == ("3", "x", {"k": 1}, "upload")
    assert item["timestamp"] > 1_600_000_000_000


async def test_upload(tmp_path: Path) -> None:
    """200; the union of the published shapes, without the key itself."""
    counts = dict.fromkeys(("inputItems", "inputTokens", "chunks", "stored", "failed", "total", "processed"), int)
    async with open_server(tmp_path / "data") as server:
        body = await server.upload([{"content": DOG}, {"content": "Two."}])
        in_session = await server.upload([{"content": DOG}], headers={"x-session-id": "s"})
    check(body, {"status": str, "memoryKey": str, "vault": str, "stats": counts, "message": str})
    assert (body["status"], body["vault"]) == ("complete", "core")
    assert (body["stats"]["inputItems"], body["stats"]["stored"], body["stats"]["failed"]) == (2, 2, 0)
    assert (in_session["vault"], in_session["sessionId"]) == ("session", "s")
    assert server.key not in str(body)


async def test_stats(tmp_path: Path) -> None:
    """200; all published names; `sessions` is a number; times are null in an empty vault."""
    numbers = dict.fromkeys(
        (
            "memories", "pending", "chunks", "sessions", "duplicates", "stored", "total_tokens", "totalTokens",
            "totalVectors", "vectorCount", "hotVectors", "dims", "createdAt",
        ),
        int,
    )  # fmt: skip
    async with open_server(tmp_path / "data") as server:
        empty = await server.stats()
        await server.ingest(DOG)
        body = await server.stats()
    check(empty, {**numbers, "key": str, "storage": str, "oldestItem": type(None), "oldest": type(None)})
    check(body, {**numbers, "oldestItem": int, "newestItem": int, "oldest": str, "newest": str})
    check(body, {"oldestMemory": str, "newestMemory": str, "lastAccess": int, "kronos_config": type(None)})
    assert server.key not in str(body)


async def test_delete(tmp_path: Path) -> None:
    """200."""
    async with open_server(tmp_path / "data") as server:
        answer = await server.delete()
        assert answer.status_code == 200
    flags = dict.fromkeys(("sessionCleared", "deleted", "d1Synced", "reset"), bool)
    check(object_of(answer), {"key": str, "message": str, **flags})


async def test_warmup(tmp_path: Path) -> None:
    """200; both published shapes."""
    async with open_server(tmp_path / "data") as server:
        await server.ingest(DOG)
        answer = await server.post("/v1/memory/warmup", b"")
        assert answer.status_code == 200
    body = object_of(answer)
    check(body, {"status": str, "key": str, "vaults": list, "totalVectors": int, "warmupTimeMs": NUMBER})
    check(body, {"memories_loaded": int, "warmup_ms": NUMBER})
    check(body["vaults"][0], {"vault": str, "vectors": int, "timeMs": NUMBER})
    assert body["status"] == "warm"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/memory/prepare", {"messages": [user("x")]}),
        ("/v1/memory/ingest", {"messages": [user("x")]}),
        ("/v1/memory/search", {"query": "x"}),
        ("/v1/memory/upload", {"content": "x"}),
        ("/v1/memory/warmup", {}),
        ("/v1/keys", {"name": "x"}),
        (PATH, {"model": "local/recall", "messages": [user("x")]}),
    ],
)
async def test_every_route_takes_the_key_from_every_place(tmp_path: Path, path: str, body: dict[str, Any]) -> None:
    """Header names in any case, `?key=` too."""
    async with open_both(tmp_path) as (server, _):
        for headers in (
            {"AUTHORIZATION": f"Bearer {server.key}"},
            {"X-Memory-Key": server.key},
            {"x-API-key": server.key},
            {"X-Goog-Api-Key": server.key},
            {"Api-Key": server.key},
        ):
            assert (await server.post(path, body, key="", headers=headers)).status_code < 300
        assert (await server.post(f"{path}?key={server.key}", body, key="")).status_code < 300
        assert (await server.post(path, body, key="")).status_code == 401
