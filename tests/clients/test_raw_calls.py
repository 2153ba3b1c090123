"""Clients that cannot be installed here, call by call: the Open WebUI upload action, Open WebUI itself, OpenClaw.

What they send, which headers, and what they read of the answers is from their sources (reference: contract 1.7, 8.3).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from tests.clients.running import DOG, OWN_KEY, QUESTION, SERVER_KEY, Pair, assert_remembers, open_pair, stored
from tests.clients.upstream import HELLO

NOW_MS = 1_780_000_000_000
ASK = [{"role": "user", "content": QUESTION}]


async def send(pair: Pair, method: str, path: str, *, headers: dict[str, str], body: Any = None) -> httpx.Response:
    """A request with these headers and no others of ours."""
    content = body if isinstance(body, str | None) else msgspec.json.encode(body)
    return await pair.server.http.request(method, path, headers=headers, content=content)


def lines(*items: dict[str, Any]) -> str:
    """JSON lines."""
    return "\n".join(msgspec.json.encode(item).decode() for item in items)


# --- Open WebUI ---


async def test_the_open_webui_upload_action_takes_in_a_history(tmp_path: Path) -> None:
    """Batches of at most 100 lines as text/plain; only a 200 with JSON counts; it reads `stats`."""
    history = [
        {"content": f"Number {number}: we walked around the lake.", "role": role, "timestamp": NOW_MS + number * 1000}
        for number, role in enumerate(["user", "assistant"] * 75)
    ]
    async with open_pair(tmp_path) as pair:
        headers = {"Authorization": f"Bearer {pair.server.key}", "Content-Type": "text/plain"}
        counted = 0
        for start in range(0, len(history), 100):
            batch = history[start : start + 100]
            answer = await send(pair, "POST", "/v1/memory/upload", headers=headers, body=lines(*batch))
            assert answer.status_code == 200
            assert answer.headers["content-type"].partition(";")[0] == "application/json"
            stats = answer.json()["stats"]
            counted += stats.get("stored", stats.get("inputItems", len(batch)))
            assert stats["failed"] == 0
        assert counted == len(history)
        assert {(item["role"], item["content"]) for item in history} < set(await stored(pair.server))
        refused = await send(
            pair, "POST", "/v1/memory/upload", headers={**headers, "Authorization": "Bearer mk_wrong"}, body="{}"
        )
        assert refused.status_code == 401


async def test_open_webui_lists_models_and_chats_with_them(tmp_path: Path) -> None:
    """The connection's URL ends in /v1, its key is a Memory Key; it streams."""
    async with open_pair(tmp_path) as pair:
        headers = {"Authorization": f"Bearer {pair.server.key}", "Content-Type": "application/json"}
        listed = (await send(pair, "GET", "/v1/models", headers=headers)).json()
        assert listed["object"] == "list"
        assert "openai/gpt-hello" in [model["id"] for model in listed["data"]]
        body = {"stream": True, "model": "openai/gpt-hello", "messages": ASK, "stream_options": {"include_usage": True}}
        answer = await send(pair, "POST", "/v1/chat/completions", headers=headers, body=body)
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.text.endswith("data: [DONE]\n\n")
        assert_remembers(pair.upstream.calls()[0])
        assert set(await stored(pair.server)) == {("user", DOG), ("user", QUESTION), ("assistant", HELLO)}


# --- OpenClaw ---

APIS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "anthropic-messages": ("/v1/messages", "x-api-key", {"model": "claude-hello", "max_tokens": 9, "messages": ASK}),
    "openai-completions": ("/v1/chat/completions", "authorization", {"model": "gpt-hello", "messages": ASK}),
    "openai-responses": ("/v1/responses", "authorization", {"model": "gpt-hello", "input": ASK}),
    "azure-openai-responses": ("/v1/responses", "api-key", {"model": "gpt-hello", "input": ASK}),
}


@pytest.mark.parametrize("stores", [True, False], ids=["main", "side"])
@pytest.mark.parametrize("api", APIS)
async def test_openclaw_relays_its_model_traffic(tmp_path: Path, api: str, stores: bool) -> None:
    """The provider's key stays where the API has it; models have no prefix; sub-agents store nothing they say."""
    path, credential, body = APIS[api]
    async with open_pair(tmp_path) as pair:
        headers = {
            "Content-Type": "application/json",
            "X-Memory-Key": pair.server.key,
            "X-Memory-Store": "true" if stores else "false",
            credential: f"Bearer {OWN_KEY}" if credential == "authorization" else OWN_KEY,
        }
        for stream in (False, True):
            answer = await send(pair, "POST", path, headers=headers, body={**body, "stream": stream})
            assert answer.status_code == 200, answer.text
            assert "Hello" in answer.text
        for call in pair.upstream.calls():
            assert call.key == OWN_KEY
            assert_remembers(call)
            assert not [name for name in call.recorded.headers if name.startswith("x-memory")]
        found = await stored(pair.server)
        assert (("user", QUESTION) in found) is stores


async def test_openclaw_manages_the_vault(tmp_path: Path) -> None:
    """Its commands: status, upload of files and of a transcript, delete without a body."""
    async with open_pair(tmp_path) as pair:
        health = await send(pair, "GET", "/health", headers={})
        assert health.status_code == 200
        assert health.json()["status"] == "healthy"

        bearer = {"Authorization": f"Bearer {pair.server.key}"}
        files = [
            {"content": "[notes.md] We are moving to Lisbon.", "role": "user", "timestamp": NOW_MS},
            {"content": "Which flat do you like?", "role": "assistant", "timestamp": NOW_MS + 1},
        ]
        plain = {**bearer, "Content-Type": "text/plain"}
        answer = (await send(pair, "POST", "/v1/memory/upload", headers=plain, body=lines(*files))).json()
        assert (answer["stats"]["stored"], answer["stats"]["inputItems"], answer["stats"]["failed"]) == (2, 2, 0)

        stats = (await send(pair, "GET", "/v1/memory/stats", headers=bearer)).json()
        assert stats["totalVectors"] >= 0
        assert stats["totalTokens"] > 0
        assert isinstance(stats["sessions"], int)

        deleted = await send(pair, "DELETE", "/v1/memory", headers=bearer)
        assert deleted.status_code == 200
        assert deleted.json()["message"]
        assert await stored(pair.server) == []
        assert (
            await send(pair, "GET", "/v1/memory/stats", headers={"Authorization": "Bearer mk_no"})
        ).status_code == 401


async def test_a_key_of_the_server_is_not_spent_where_a_caller_brings_its_own(tmp_path: Path) -> None:
    """And is where it brings none."""
    async with open_pair(tmp_path) as pair:
        memory = {"X-Memory-Key": pair.server.key, "Content-Type": "application/json"}
        for headers in (memory, {**memory, "X-Provider-Key": OWN_KEY}):
            for path, _, body in APIS.values():
                assert (await send(pair, "POST", path, headers=headers, body=body)).status_code == 200
        keys = [call.key for call in pair.upstream.calls()]
        assert keys == [SERVER_KEY] * len(APIS) + [OWN_KEY] * len(APIS)
