"""The provider that the documents talk to: says hello in every format, whole or streamed, under any model's name."""

from __future__ import annotations

from typing import Any

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
from tests.clients.upstream import Call, read_call
from tests.fakes.provider import FakeProvider, Recorded, Script

HELLO = "Hello there."
_JSON = [("content-type", "application/json")]
_EVENTS = [("content-type", "text/event-stream")]
_MODELS = ("gpt-5.1", "claude-sonnet-5", "llama3.2")


class KindProvider(FakeProvider):
    """Refuses nothing, whatever the key."""

    def script_for(self, recorded: Recorded) -> Script:
        """A reply in the format that was asked in."""
        call = read_call(recorded)
        if call.format == "other":
            return Script(body=encode(_other(recorded.path)), headers=_JSON)
        if call.stream:
            return Script(steps=_stream(call), headers=_EVENTS)
        whole = {"chat": chat_whole, "responses": responses_whole, "messages": messages_whole, "gemini": gemini_whole}
        return Script(body=whole[call.format](HELLO), headers=_JSON)


def _stream(call: Call) -> list[bytes]:
    if call.format == "chat":
        return chat_stream(HELLO, usage=bool((call.body.get("stream_options") or {}).get("include_usage")))
    make = {"responses": responses_stream, "messages": messages_stream, "gemini": gemini_stream}
    return make[call.format](HELLO)


def _other(path: str) -> Any:
    if path.partition("?")[0].endswith("/embeddings"):
        return {"object": "list", "model": "m", "data": [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}]}
    models = [{"id": name, "object": "model", "created": 1, "owned_by": "somebody"} for name in _MODELS]
    return {"object": "list", "data": models}
