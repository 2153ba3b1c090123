"""What tests of `/mcp` ask, shared by their files."""

from __future__ import annotations

from typing import Any

import httpx

from router.mcp.messages import META_CAPABILITIES, META_VERSION, MODERN_VERSION, NAMED_BY
from tests.running import Client, object_of

PHRASE = "DELETE ALL MEMORIES"


def message(method: str, params: dict[str, Any] | None = None, *, request_id: Any = 1) -> dict[str, Any]:
    """A request, or, without an id, a notification."""
    body: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    body |= {} if params is None else {"params": params}
    return body if request_id is None else {**body, "id": request_id}


def modern(method: str, params: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, str]]:
    """A request of the newest revision with the headers that it needs."""
    meta = {META_VERSION: MODERN_VERSION, META_CAPABILITIES: {}}
    headers = {"mcp-protocol-version": MODERN_VERSION, "mcp-method": method}
    if method in NAMED_BY:
        headers["mcp-name"] = (params or {})[NAMED_BY[method]]
    return message(method, {**(params or {}), "_meta": meta}), headers


async def post(
    server: Client, body: Any, *, headers: dict[str, str] | None = None, key: str | None = None
) -> httpx.Response:
    """One POST."""
    return await server.post("/mcp", body, headers=headers, key=key)


async def asked(server: Client, method: str, params: dict[str, Any] | None = None, **sent: Any) -> dict[str, Any]:
    """The result of a request."""
    answer = await post(server, message(method, params), **sent)
    assert answer.status_code == 200, answer.text
    body = object_of(answer)
    assert "error" not in body, body
    result: dict[str, Any] = body["result"]
    return result


async def called(server: Client, tool: str, /, *, sent: dict[str, Any] | None = None, **arguments: Any) -> Any:
    """What a tool gives."""
    result = await asked(server, "tools/call", {"name": tool, "arguments": arguments}, **(sent or {}))
    assert not result.get("isError"), result
    return result["structuredContent"]


async def refused(server: Client, tool: str, /, *, sent: dict[str, Any] | None = None, **arguments: Any) -> str:
    """What a tool says that does not do it."""
    result = await asked(server, "tools/call", {"name": tool, "arguments": arguments}, **(sent or {}))
    assert result["isError"] is True, result
    assert "structuredContent" not in result
    (content,) = result["content"]
    return str(content["text"])


async def texts(server: Client, tool: str, /, *, sent: dict[str, Any] | None = None, **arguments: Any) -> list[str]:
    """The texts of the memories that a tool gives."""
    given = await called(server, tool, sent=sent, **arguments)
    return [memory["text"] for memory in given["memories"]]
