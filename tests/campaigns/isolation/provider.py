"""A provider in all four formats that shows the campaign everything it is sent, and repeats it on demand.

Which request it is that it answers, it knows from the header `X-Title`, which the server passes on. Each vendor has a
path of its own on one port: `/openai`, `/mistral`, `/anthropic`, `/google`. Replies are built by the product's own
shapes for `local/recall`, which the wire tests hold against the vendors' SDKs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import trio

from models.provider_settings import ProviderSettings, Secret
from models.settings import ProvidersSettings
from router.local_formats import (
    LocalReply,
    chat_body,
    chat_events,
    gemini_body,
    gemini_events,
    messages_body,
    messages_events,
    responses_body,
    responses_events,
)

FLAKY = "flaky"
"""A model that always fails, so that its fallback is asked."""


class Asked(msgspec.Struct, frozen=True):
    """One request as the provider got it.

    Attributes:
        title: its `X-Title`; "" for a list of models.
        everything: head and body.
    """

    vendor: str
    title: str
    key: str
    everything: bytes


Said = Callable[[Asked], str]
"""What to reply. The campaign judges the request meanwhile."""


def provider_key(account: int, vendor: str, number: int) -> str:
    """A provider's key with its account in it; account 0 is the server's own configuration."""
    return f"sk-zq{account}a{vendor}{number:06}k0f1e2d3c"


def provider_settings(base_url: str) -> ProvidersSettings:
    """Four vendors, each with the server's own key."""
    further: dict[str, dict[str, Any]] = {
        "anthropic": {"format": "anthropic"}, "google": {"format": "google"}, "mistral": {},
        "openai": {"serves": ("responses",)},
    }  # fmt: skip
    return ProvidersSettings(
        by_name={
            name: ProviderSettings(
                base_url=f"{base_url}/{name}",
                api_key=Secret(provider_key(0, name, 0)),
                retries_max=0,
                breaker_failures=0,
                **more,
            )
            for name, more in further.items()
        }
    )


def provider_environment(base_url: str) -> dict[str, str]:
    """The same for a program of its own."""
    environment = {}
    for name in ("anthropic", "google", "mistral", "openai"):
        table = f"MEMORYROUTER_PROVIDERS__{name.upper()}__"
        environment[f"{table}BASE_URL"] = f"{base_url}/{name}"
        environment[f"{table}API_KEY"] = provider_key(0, name, 0)
        environment[f"{table}RETRIES_MAX"] = "0"
        environment[f"{table}BREAKER_FAILURES"] = "0"
    return environment


async def _serve(said: Said, stream: trio.SocketStream) -> None:
    buffer = b""
    try:
        while True:
            while b"\r\n\r\n" not in buffer:
                data = await stream.receive_some()
                if not data:
                    return
                buffer += data
            head, _, buffer = buffer.partition(b"\r\n\r\n")
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            size = int(lengths[0].partition(b":")[2]) if lengths else 0
            while len(buffer) < size:
                buffer += await stream.receive_some()
            body, buffer = buffer[:size], buffer[size:]
            await stream.send_all(_answer(said, head, body))
    except trio.BrokenResourceError:
        return  # the server was killed, or its client left


def _answer(said: Said, head: bytes, body: bytes) -> bytes:
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    method, target, _ = first.split(" ")
    vendor, _, path = target[1:].partition("/")
    key = headers.get("authorization", "").removeprefix("Bearer ")
    key = key or headers.get("x-api-key", "") or headers.get("x-goog-api-key", "")
    asked = Asked(vendor=vendor, title=headers.get("x-title", ""), key=key, everything=head + b"\n" + body)
    text = said(asked)
    if method == "GET":
        return _whole(msgspec.json.encode({"object": "list", "data": [{"id": text, "object": "model"}]}))
    if f'"{FLAKY}"'.encode() in body:
        return _whole(b'{"error": {"message": "down", "type": "x", "code": "x"}}', b"503 Sorry")
    request: dict[str, Any] = msgspec.json.decode(body)
    reply = LocalReply(text=text, prompt="", unique=headers.get("x-title", "x"), created_s=1)
    return _in_format(path, reply, stream=bool(request.get("stream")))


def _in_format(path: str, reply: LocalReply, *, stream: bool) -> bytes:
    route, _, query = path.partition("?")
    if route.endswith("streamGenerateContent"):
        sse = "alt=sse" in query
        return _streamed(gemini_events(reply, sse=sse), b"text/event-stream" if sse else b"application/json")
    if route.endswith("generateContent"):
        return _whole(gemini_body(reply))
    shapes: dict[str, tuple[Callable[[LocalReply], bytes], Callable[[LocalReply], list[bytes]]]] = {
        "chat/completions": (chat_body, partial(chat_events, include_usage=False)),
        "responses": (responses_body, responses_events),
        "v1/messages": (messages_body, messages_events),
    }
    whole, events = shapes[route]
    return _streamed(events(reply)) if stream else _whole(whole(reply))


def _whole(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body


def _streamed(events: list[bytes], media_type: bytes = b"text/event-stream") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % media_type
    return head + b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events) + b"0\r\n\r\n"


@asynccontextmanager
async def open_canary_provider(said: Said) -> AsyncIterator[str]:
    """Such a provider on a free port; yields its URL without a vendor."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as connections:
        connections.start_soon(trio.serve_listeners, partial(_serve, said), listeners)
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        connections.cancel_scope.cancel(reason="the campaign is over")
