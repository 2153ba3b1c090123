"""What tests of `/v1/memories` ask, shared by their files."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec

from tests.running import Client, object_of

DOG, CAT, SHIP = "My dog is called Rex.", "My cat is called Tom.", "The ferry sails at noon."
BASE_MS = 1_780_000_000_000


async def listed(server: Client, query: str = "", *, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """One page, with a 200."""
    answer = await server.get(f"/v1/memories{query}", headers=headers)
    assert answer.status_code == 200, answer.text
    body = object_of(answer)
    assert body["data"] == body["memories"]
    return body


async def contents(server: Client, query: str = "", **options: Any) -> list[str]:
    return [item["content"] for item in (await listed(server, query, **options))["data"]]


async def every_page(server: Client, query: str) -> list[str]:
    """The contents of all pages."""
    found, cursor = [], ""
    while True:
        page = await listed(server, f"{query}{cursor}")
        found += [item["content"] for item in page["data"]]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


async def patch(server: Client, public_id: str, body: Any, **options: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {options.pop('key', server.key)}", **options.pop("headers", {})}
    return await server.http.patch(f"/v1/memories/{public_id}", content=msgspec.json.encode(body), headers=headers)


async def id_of(server: Client, content: str) -> str:
    (public_id,) = [item["id"] for item in (await listed(server))["data"] if item["content"] == content]
    return str(public_id)


def lines(count: int, *, step_ms: int = 1_000) -> list[dict[str, Any]]:
    return [{"content": f"Note number {at}.", "timestamp": BASE_MS + at * step_ms} for at in range(count)]
