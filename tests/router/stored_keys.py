"""A server whose providers of all formats are one that answers everything, for tests of stored provider keys."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio

from models.provider_settings import ProviderSettings
from models.settings import ProvidersSettings
from tests.fakes.provider import FakeProvider, Recorded, Script, chat_reply
from tests.running import Client, open_server, settings_for

QUESTION = "What is my dog called?"
KEY = "sk-of-the-account-9876"
OTHER_KEY = "sk-of-another-account-5432"
SERVER_KEY = "sk-of-the-server-1234"
OPENAI, CLAUDE = "/v1/providers/openai/key", "/v1/providers/anthropic/key"
MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "c", "stop_reason": "end_turn",
    "content": [{"type": "text", "text": "Rex."}], "usage": {"input_tokens": 1, "output_tokens": 2},
}  # fmt: skip


class Everything(FakeProvider):
    """Answers every path with a success of its format, and lists a model that only this key sees."""

    def script_for(self, recorded: Recorded) -> Script:
        """See `FakeProvider`."""
        if self._scripts:
            return super().script_for(recorded)
        path = recorded.path.partition("?")[0]
        body: Any = msgspec.Raw(chat_reply())
        if path.endswith("/models"):
            body = {"data": [{"id": f"seen-by-{key_of(recorded)[-4:]}"}]}
        elif path.endswith("/messages"):
            body = MESSAGE
        return Script(body=msgspec.json.encode(body), headers=[("content-type", "application/json")])


def key_of(recorded: Recorded) -> str:
    """The key that a request came with."""
    headers = recorded.headers
    bearer = headers.get("authorization", "").removeprefix("Bearer ")
    return bearer or headers.get("x-api-key", "") or headers.get("x-goog-api-key", "")


@asynccontextmanager
async def open_all(
    tmp_path: Path, *, server_key: str = SERVER_KEY, first: ProviderSettings | None = None
) -> AsyncIterator[tuple[Client, Everything]]:
    """A server whose providers of all formats are one; `openai/m` falls back to `two/m`."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    provider = Everything(listeners[0].socket.getsockname()[1])
    openai = msgspec.structs.replace(provider.settings(api_key=server_key), serves=("responses",), retries_max=0)
    origin = msgspec.structs.replace(openai, base_url=provider.base_url.removesuffix("/v1"), serves=())
    by_name = {
        "openai": first or openai,
        "two": openai,
        "anthropic": msgspec.structs.replace(origin, format="anthropic"),
        "google": msgspec.structs.replace(origin, format="google"),
    }
    settings = settings_for(providers=ProvidersSettings(by_name=by_name), fallbacks={"openai/m": ("two/m",)})
    async with trio.open_nursery() as connections:
        connections.start_soon(trio.serve_listeners, provider.serve, listeners)
        async with open_server(tmp_path / "data", settings) as server:
            yield server, provider
        connections.cancel_scope.cancel(reason="the test is over")
