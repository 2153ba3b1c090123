"""The official MCP client for Python, both of its generations: every tool, resources, and errors as it tells them."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import Any

from scenes import KEY, QUESTION, URL, WRONG_KEY, play, raises

ADDRESS = f"{URL}/mcp"
IS_OLD = version("mcp").startswith("1.")
MODES = ["initialize"] if IS_OLD else ["legacy", "auto", "2026-07-28"]
TOOLS = {
    "search_memories", "date_search_memories", "store_memory", "inspect_memory", "delete_memories",
    "forget_all_memories", "memory_status", "search",
}  # fmt: skip


class OldSession:
    """The client of the first generation, called as the second one is."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    async def call_tool(self, name: str, arguments: dict[str, Any]) -> Any:
        result = await self._session.call_tool(name, arguments)
        result.__dict__.update(structured_content=result.structuredContent, is_error=result.isError)
        return result

    async def read_resource(self, uri: str) -> Any:
        from pydantic import AnyUrl

        return await self._session.read_resource(AnyUrl(uri))


@asynccontextmanager
async def opened(mode: str, key: str = KEY) -> AsyncIterator[Any]:
    """A connected client."""
    headers = {"Authorization": f"Bearer {key}", "X-Timezone": "Europe/Berlin"}
    async with AsyncExitStack() as stack:
        if IS_OLD:
            from mcp import ClientSession
            from mcp.client.streamable_http import streamablehttp_client

            read, write, _ = await stack.enter_async_context(streamablehttp_client(ADDRESS, headers=headers))
            session = await stack.enter_async_context(ClientSession(read, write))
            assert (await session.initialize()).protocolVersion == "2025-11-25"
            yield OldSession(session)
        else:
            import httpx2
            from mcp import Client
            from mcp.client.streamable_http import streamable_http_client

            http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers))
            transport = streamable_http_client(ADDRESS, http_client=http)
            client = await stack.enter_async_context(Client(transport, mode=mode))
            assert client.protocol_version == ("2025-11-25" if mode == "legacy" else "2026-07-28")
            yield client


def in_every_mode(scene: Callable[[Any], Any]) -> Callable[[], Any]:
    """The scene with a client of each way to connect."""

    async def played() -> None:
        for mode in MODES:
            async with opened(mode) as client:
                await scene(client)

    played.__name__ = scene.__name__
    return played


@in_every_mode
async def tools(client: Any) -> None:
    """Listed and called; the client itself checks what comes against the schemas."""
    assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS

    async def call(name: str, **arguments: Any) -> dict[str, Any]:
        result = await client.call_tool(name, arguments)
        assert not result.is_error, result
        assert json.loads(result.content[0].text) == result.structured_content
        return dict(result.structured_content)

    stored = await call("store_memory", content="My cat is called Tom.", tags=["pets"], said_at="2026-05-03")
    assert stored["stored"]
    assert not (await call("store_memory", content="My cat is called Tom.", said_at="2026-05-03"))["stored"]
    found = await call("search_memories", query=QUESTION, limit=5)
    assert found["memories"][0]["text"] == "My dog is called Rex."
    (cat,) = (await call("date_search_memories", start_date="2026-05-03", end_date="2026-05-03"))["memories"]
    assert (cat["id"], cat["said_at"], cat["tags"]) == (stored["id"], "2026-05-03T00:00:00+02:00", ["pets"])
    assert (await call("inspect_memory", memory_id=cat["id"]))["memory"]["text"] == "My cat is called Tom."
    assert (await call("search", query=QUESTION))["results"][0]["text"] == "My dog is called Rex."
    assert (await call("memory_status"))["totalMemories"] == 2
    assert (await call("delete_memories", memory_ids=[cat["id"]]))["deleted"] == [cat["id"]]


@in_every_mode
async def resources(client: Any) -> None:
    """Listed and read."""
    uris = [str(resource.uri) for resource in (await client.list_resources()).resources]
    assert uris == ["memory://vault/stats", "memory://vault/recent"]
    stats, recent = [json.loads((await client.read_resource(uri)).contents[0].text) for uri in uris]
    assert stats["totalMemories"] == len(recent["memories"]) == 1


@in_every_mode
async def errors(client: Any) -> None:
    """Of the protocol as exceptions, of tools as results that a model can read."""
    with raises(Exception) as caught:
        await client.read_resource("memory://vault/none")
    assert "not found" in str(caught[0])
    result = await client.call_tool("search_memories", {"query": " "})
    assert result.is_error
    assert "query" in result.content[0].text
    result = await client.call_tool("forget_all_memories", {"confirmation": "yes"})
    assert "DELETE ALL MEMORIES" in result.content[0].text


async def keys() -> None:
    """A wrong key connects to nothing; a reading one sees the tools that read."""
    with raises(Exception, BaseExceptionGroup if sys.version_info >= (3, 11) else Exception):
        async with opened(MODES[0], WRONG_KEY):
            pass
    async with opened(MODES[0], f"{KEY}:read") as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert names == TOOLS - {"store_memory", "delete_memories", "forget_all_memories"}
        assert (await client.call_tool("store_memory", {"content": "x"})).is_error


if __name__ == "__main__":
    play(tools, resources, errors, keys)
