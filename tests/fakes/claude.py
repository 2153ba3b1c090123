"""What Anthropic's Messages API sends: events of a stream and whole replies, as its public documentation shows them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

USAGE = {"input_tokens": 7, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 100, "output_tokens": 1}
PING = b'event: ping\ndata: {"type": "ping"}\n\n'


def claude_event(name: str, **data: Any) -> bytes:
    """One event of a stream."""
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode({"type": name, **data}) + b"\n\n"


def claude_start(**usage: Any) -> bytes:
    """The first event."""
    message = {"id": "msg_01abc", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5", "content": []}
    return claude_event("message_start", message={**message, "stop_reason": None, "usage": {**USAGE, **usage}})


def claude_block(index: int, block: dict[str, Any], *deltas: dict[str, Any]) -> list[bytes]:
    """The events of one content block."""
    return [
        claude_event("content_block_start", index=index, content_block=block),
        *[claude_event("content_block_delta", index=index, delta=delta) for delta in deltas],
        claude_event("content_block_stop", index=index),
    ]


def claude_text(index: int, *pieces: str) -> list[bytes]:
    """The events of a block of text."""
    return claude_block(index, {"type": "text", "text": ""}, *[{"type": "text_delta", "text": text} for text in pieces])


def claude_tool(index: int, name: str, *pieces: str) -> list[bytes]:
    """The events of a tool call whose arguments come in these pieces."""
    block = {"type": "tool_use", "id": f"toolu_{name}", "name": name, "input": {}}
    return claude_block(index, block, *[{"type": "input_json_delta", "partial_json": piece} for piece in pieces])


def claude_thinking(index: int, *pieces: str, signature: str = "c2ln") -> list[bytes]:
    """The events of signed thinking."""
    deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces]
    block = {"type": "thinking", "thinking": "", "signature": ""}
    return claude_block(index, block, *deltas, {"type": "signature_delta", "signature": signature})


def claude_end(stop_reason: str | None = "end_turn", **delta: Any) -> list[bytes]:
    """The last two events."""
    end = {"stop_reason": stop_reason, "stop_sequence": None, **delta}
    return [claude_event("message_delta", delta=end, usage={"output_tokens": 5}), claude_event("message_stop")]


def claude_events(pieces: Iterable[str] = ("Hel", "lo ", "there.")) -> list[bytes]:
    """A whole stream that says these pieces."""
    return [claude_start(), PING, *claude_text(0, *pieces), *claude_end()]


def claude_error(kind: str = "overloaded_error", message: str = "Overloaded") -> bytes:
    """The event that ends a stream that failed."""
    return claude_event("error", error={"type": kind, "message": message})


def claude_reply(*blocks: dict[str, Any], stop_reason: str = "end_turn", **members: Any) -> bytes:
    """A whole reply; it says "Hello." unless blocks are given."""
    content = list(blocks) or [{"type": "text", "text": "Hello."}]
    message = {"id": "msg_01abc", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5"}
    ending = {"stop_reason": stop_reason, "stop_sequence": None, "usage": {**USAGE, "output_tokens": 5}}
    return msgspec.json.encode({**message, "content": content, **ending, **members})
