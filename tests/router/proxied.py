"""A server with a scripted provider behind it, as the tests of the chat routes share it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from models.settings import Settings
from tests.fakes.provider import FakeProvider, open_fake_provider
from tests.running import Client, open_server, settings_for, user

PATH = "/v1/chat/completions"


@asynccontextmanager
async def open_both(tmp_path: Path, settings: Settings | None = None) -> AsyncIterator[tuple[Client, FakeProvider]]:
    """A server and its provider under the prefix `openai`.

    Args:
        settings: their providers are replaced.
    """
    base = settings or settings_for()
    async with open_fake_provider() as provider:
        providers = settings_for(provider.settings()).providers
        async with open_server(tmp_path / "data", msgspec.structs.replace(base, providers=providers)) as server:
            yield server, provider


def streamed(text: str) -> dict[str, Any]:
    """A request for a streamed reply."""
    return {"model": "openai/m", "messages": [user(text)], "stream": True}


async def told(server: Client) -> set[str]:
    """Everything that the vault holds; every text of these tests has one of these words."""
    found: set[str] = set()
    for query in ("dog called Rex", "Hello there", "told"):
        found |= await server.contents(query)
    return found
