"""A provider of every wire format on one socket: what it answers goes by the model's name.

`gpt-hello`, `claude-hello` and `gemini-hello` say the same thing, each in the format that it is asked in; the word
after the dash is the scene. It records what arrived, which is where tests look for memory and credentials.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import msgspec
import trio

from tests.clients.replies import (
    chat_stream,
    chat_whole,
    encode,
    gemini_stream,
    gemini_whole,
    messages_stream,
    messages_whole,
    responses_stream,
    responses_whole,
)
from tests.fakes.provider import FakeProvider, Recorded, Script

HELLO = "Hello there."
SUNNY = "It is sunny in Lisbon."
PICTURE = "I see a picture."
ANSWERED = '{"city": "Lisbon", "degrees": 25}'
RETRY_AFTER_S = 1
"""What a busy provider asks for: longer than any SDK would wait on its own before its first further attempt."""

Format = Literal["chat", "responses", "messages", "gemini", "other"]

_JSON = ("content-type", "application/json")
_SSE = ("content-type", "text/event-stream")
_TOOL_RESULTS = (
    b'"tool_call_id"',
    b'"function_call_output"',
    b'"tool_result"',
    b'"functionResponse"',
    b'"function_response"',  # Google takes both spellings
)
_GEMINI = re.compile(r"/v1(?:beta)?/models/(?P<model>[^:]+):(?P<method>\w+)")

_ERRORS: dict[Format, dict[int, Any]] = {
    "chat": {
        429: {"message": "Slow down.", "type": "requests", "param": None, "code": "rate_limit_exceeded"},
        500: {"message": "Oh no.", "type": "server_error", "param": None, "code": None},
    },
    "messages": {
        429: {"type": "rate_limit_error", "message": "Slow down."},
        500: {"type": "api_error", "message": "Oh no."},
    },
    "gemini": {
        429: {"code": 429, "message": "Slow down.", "status": "RESOURCE_EXHAUSTED"},
        500: {"code": 500, "message": "Oh no.", "status": "INTERNAL"},
    },
}


class Call(msgspec.Struct, frozen=True):
    """A recorded request, read.

    Attributes:
        format: what it is written in.
        model: without a vendor's prefix.
        stream: whether a stream is wanted.
        body: decoded, empty if it is no JSON object.
    """

    recorded: Recorded
    format: Format
    model: str
    stream: bool
    body: dict[str, Any]

    @property
    def scene(self) -> str:
        """What is to happen: the model's name without its maker."""
        return self.model.partition("-")[2]

    @property
    def has_tool_result(self) -> bool:
        """Whether it continues a tool loop."""
        return any(mark in self.recorded.body for mark in _TOOL_RESULTS)

    @property
    def key(self) -> str:
        """The credential that came with it."""
        headers = self.recorded.headers
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        return headers.get("x-api-key") or headers.get("x-goog-api-key") or bearer


def read_call(recorded: Recorded) -> Call:
    """A request by its path and its body."""
    path = recorded.path.partition("?")[0]
    try:
        body = msgspec.json.decode(recorded.body or b"{}", type=dict[str, Any])
    except msgspec.DecodeError:
        body = {}
    if (gemini := _GEMINI.fullmatch(path)) and gemini["method"].endswith("enerateContent"):
        return Call(recorded, "gemini", gemini["model"], gemini["method"].startswith("stream"), body)
    ends: dict[str, Format] = {"/chat/completions": "chat", "/responses": "responses", "/messages": "messages"}
    written: Format = next((name for end, name in ends.items() if path.endswith(end)), "other")
    return Call(recorded, written, str(body.get("model", "")), body.get("stream") is True, body)


class Upstream(FakeProvider):
    """What `open_upstream_provider` yields."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._asked: Counter[str] = Counter()

    @property
    def origin(self) -> str:
        """Its address without a path."""
        return self.base_url.removesuffix("/v1")

    def calls(self, *scenes: str) -> list[Call]:
        """The chats of these scenes, of all if none are named, in order of arrival."""
        calls = [read_call(recorded) for recorded in self.requests]
        return [call for call in calls if call.format != "other" and (not scenes or call.scene in scenes)]

    def script_for(self, recorded: Recorded) -> Script:
        """The reply that the model's name asks for."""
        call = read_call(recorded)
        if call.format == "other":
            return _other(recorded, call.body)
        self._asked[f"{call.format} {call.model}"] += 1
        match call.scene:
            case "busy":
                return _error(call, 429)
            case "busy-once" if self._asked[f"{call.format} {call.model}"] == 1:
                return _error(call, 429)
            case "broken":
                return _error(call, 500)
        text = _text(call)
        if not call.stream:
            return Script(body=_whole(call, text), headers=[_JSON, ("x-request-id", "req-1"), ("request-id", "req-1")])
        pieces = _stream(call, text)
        if call.scene == "cut":
            return Script(headers=[_SSE], steps=pieces[: len(pieces) // 2], ending="cut")
        return Script(headers=[_SSE], steps=pieces)


def _text(call: Call) -> str | None:
    """What is said; None for a call of the tool."""
    match call.scene:
        case "tools":
            return SUNNY if call.has_tool_result else None
        case "image":
            return PICTURE
        case "json":
            return ANSWERED
        case _:
            return HELLO


def _whole(call: Call, text: str | None) -> bytes:
    make = {"chat": chat_whole, "responses": responses_whole, "messages": messages_whole, "gemini": gemini_whole}
    return make[call.format](text)


def _stream(call: Call, text: str | None) -> list[bytes]:
    if call.format == "chat":
        return chat_stream(text, usage=bool((call.body.get("stream_options") or {}).get("include_usage")))
    make = {"responses": responses_stream, "messages": messages_stream, "gemini": gemini_stream}
    return make[call.format](text)


def _error(call: Call, status: int) -> Script:
    error = _ERRORS["chat" if call.format == "responses" else call.format][status]
    body = {"error": error}
    if call.format == "messages":
        body |= {"type": "error", "request_id": "req-1"}
    wait = [("retry-after", str(RETRY_AFTER_S))] if status == 429 else []
    limits = [("x-ratelimit-remaining-requests", "0"), ("anthropic-ratelimit-requests-remaining", "0")]
    return Script(status=status, body=encode(body), headers=[_JSON, *wait, *limits])


SPEECH = b"ID3" + bytes(range(256)) * 40
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="


def _other(recorded: Recorded, body: dict[str, Any]) -> Script:
    """Everything that is no chat."""
    replies: dict[str, Any] = {
        "/v1/models": {"object": "list", "data": [_model("gpt-hello"), _model("claude-hello")], "has_more": False},
        "/v1/messages/count_tokens": {"input_tokens": 42},
        "/v1/embeddings": {
            "object": "list",
            "model": "text-embedding-3-small",
            "data": [{"object": "embedding", "index": 0, "embedding": _embedding(body)}],
            "usage": {"prompt_tokens": 3, "total_tokens": 3},
        },
        "/v1/audio/transcriptions": {"text": HELLO},
        "/v1/images/generations": {"created": 1, "data": [{"b64_json": PIXEL}]},
        "/v1/images/edits": {"created": 1, "data": [{"b64_json": PIXEL}]},
        "/v1/completions": {
            "id": "cmpl-1",
            "object": "text_completion",
            "created": 1,
            "model": "gpt-3.5-turbo-instruct",
            "choices": [{"index": 0, "text": HELLO, "logprobs": None, "finish_reason": "stop"}],
        },
    }
    path = recorded.path.partition("?")[0]
    if path == "/v1/audio/speech":
        return Script(body=SPEECH, headers=[("content-type", "audio/mpeg")])
    if path not in replies:
        return Script(status=404, body=encode({"error": {"message": f"no {path}"}}), headers=[_JSON])
    return Script(body=encode(replies[path]), headers=[_JSON])


def _model(name: str) -> dict[str, Any]:
    own = {"type": "model", "display_name": name, "created_at": "2025-01-01T00:00:00Z"}
    return {"id": name, "object": "model", "created": 1, "owned_by": "somebody", **own}


def _embedding(body: dict[str, Any]) -> Any:
    """Three numbers, or the same as base64 of little-endian floats, which SDKs ask for on their own."""
    return "AACAPwAAAEAAAEBA" if body.get("encoding_format") == "base64" else [1.0, 2.0, 3.0]


@asynccontextmanager
async def open_upstream_provider() -> AsyncIterator[Upstream]:
    """The provider on a free port of 127.0.0.1."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    upstream = Upstream(listeners[0].socket.getsockname()[1])
    async with trio.open_nursery() as connections:
        connections.start_soon(trio.serve_listeners, upstream.serve, listeners)
        yield upstream
        connections.cancel_scope.cancel()
