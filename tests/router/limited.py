"""Servers with limits, a request of each wire format, and what a refusal looks like in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec

from models.limit_settings import LimitSettings
from tests.router.proxied import PATH
from tests.running import Client, object_of, open_server, settings_for, user

MODEL = "local/recall"
HELLO = {"model": MODEL, "messages": [user("Hello there")]}
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "own": ("/v1/memory/search", {"query": "Hello there"}),
    "openai": (PATH, HELLO),
    "responses": ("/v1/responses", {"model": MODEL, "input": "Hello there"}),
    "anthropic": ("/v1/messages", {**HELLO, "max_tokens": 100}),
    "gemini": (f"/v1beta/models/{MODEL}:generateContent", {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}),
}
WRONG = "mk_" + "w" * 32


@asynccontextmanager
async def limited(tmp_path: Path, **limits: Any) -> AsyncIterator[Client]:
    """A server with these limits."""
    settings = settings_for(limits=msgspec.structs.replace(LimitSettings(failed_auth_delay_ms=0), **limits))
    async with open_server(tmp_path / "data", settings) as client:
        yield client


async def refusals(client: Client, limit: str) -> int:
    """How often this limit has struck, as the metrics say."""
    text = (await client.get("/metrics")).text
    return int(text.split(f'memoryrouter_limited_total{{limit="{limit}"}} ')[1].split("\n")[0])


def check_shape(name: str, answer: httpx.Response, *, retry: bool = True) -> None:
    """A 429 as the clients of this format read it."""
    assert answer.status_code == 429, answer.text
    seconds = int(answer.headers["retry-after"])
    assert seconds >= 1
    assert answer.headers.get("x-should-retry") == (None if retry else "false")
    body = object_of(answer)
    match name:
        case "own":
            assert set(body) == {"error", "code", "hint", "retry_after"}
            assert (body["code"], body["retry_after"]) == ("rate_limit_exceeded", seconds)
        case "anthropic":
            assert (body["type"], body["error"]["type"]) == ("error", "rate_limit_error")
        case "gemini":
            assert (body["error"]["code"], body["error"]["status"]) == (429, "RESOURCE_EXHAUSTED")
            assert body["error"]["details"][-1]["retryDelay"] == f"{seconds}s"
        case _:
            error = body["error"]
            assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
            assert error["retry_after"] == seconds
