"""A streamed reply of Anthropic Messages as the chunks of Chat Completions, event by event.

Owns the state between the events: which block is open, how many tools were called, what has been counted. Every event
becomes its chunks as soon as it is whole, whatever the borders of the bytes. Must never announce an end that the
provider did not announce: finish, usage and `[DONE]` come with `message_stop` and with nothing else.
"""

from __future__ import annotations

from typing import Any

from router.providers.anthropic_reply import decode_event, event_kind, member, read_usage, text_of, token_counts
from router.providers.base import Usage
from router.providers.json_values import encode_value
from router.providers.openai_chat import OPENAI_CHAT
from router.providers.translate_reply import (
    completion_id,
    finish_reason,
    read_thinking_tokens,
    refusal_text,
    translate_error,
    translate_service_tier,
    translate_usage,
)
from router.sse import Event, EventSplitter

EVENT_BYTES_MAX = 16 * 1024 * 1024
"""Of one event of the provider. A larger one cannot be translated, and ends the stream with an error."""

THINKING_CHARACTERS_MAX = 4 * 1024 * 1024
"""Of the thinking that is kept until its signature comes. Longer thinking is passed on, but cannot be replayed."""

_PING = b": ping\n\n"
_DONE = b"data: [DONE]\n\n"
_KNOWN = frozenset(
    {
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    }
)


class MessagesStream:
    """Translator of one stream; see `router.providers.base.StreamTranslator`.

    Thinking comes as `reasoning_content` while it lasts; when its block ends, the whole block with its signature comes
    as an entry of `thinking_blocks`, which the client sends back as it is.

    Args:
        include_usage: the client asked for a usage chunk at the end.
        now_s: `created` of all chunks, in seconds since 1970.
    """

    def __init__(self, *, include_usage: bool, now_s: int, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._include_usage = include_usage
        self._splitter = EventSplitter(event_bytes_max=event_bytes_max)
        self._head: dict[str, Any] = {
            "id": completion_id(None),
            "object": "chat.completion.chunk",
            "created": now_s,
            "model": "",
        }
        self._ended = False
        self._counts: dict[str, int] = {}
        self._thinking_tokens = 0
        self._last_delta: dict[str, Any] = {}
        self._block: _OpenBlock | None = None
        self._tools = 0
        self._thoughts = 0

    @property
    def usage(self) -> Usage | None:
        """The token counts that the provider has told so far."""
        return read_usage(self._counts) if self._counts else None

    def feed(self, chunk: bytes) -> bytes:
        """What the events that this chunk completes become."""
        out = [self._translate(event) for event in self._splitter.feed(chunk)]
        if self._splitter.overflowed and not self._ended:
            out.append(self._fail("The provider sent an event that is too large to translate."))
        return b"".join(out)

    def end(self) -> bytes:
        """What a last event without its blank line becomes. A stream that was cut gets nothing more."""
        event = self._splitter.flush()
        return b"" if event is None else self._translate(event)

    def _translate(self, event: Event) -> bytes:
        if self._ended:
            return b""
        value = decode_event(event)
        kind = event_kind(event, value)
        if kind == "error" or event.name == "error":
            self._ended = True
            return b"data: " + translate_error(value) + b"\n\n"
        if kind == "ping":
            return _PING
        if not value and kind in _KNOWN:
            return self._fail("The provider sent an event that cannot be read.")
        match kind:
            case "message_start":
                return self._start(member(value, "message"))
            case "content_block_start":
                return self._start_block(member(value, "content_block"))
            case "content_block_delta":
                return self._add_to_block(member(value, "delta"))
            case "content_block_stop":
                return self._end_block()
            case "message_delta":
                return self._take_end(value)
            case "message_stop":
                return self._stop()
        return b""

    def _start(self, message: dict[str, Any]) -> bytes:
        usage = message.get("usage")
        self._count(usage)
        self._head["id"] = completion_id(message.get("id"))
        model = message.get("model")
        self._head["model"] = model if isinstance(model, str) else ""
        tier = translate_service_tier(usage)
        if tier is not None:
            self._head["service_tier"] = tier
        return self._chunk({"role": "assistant", "content": ""})

    def _start_block(self, block: dict[str, Any]) -> bytes:
        kind = block.get("type")
        self._block = None
        if kind == "text":
            text = text_of(block)
            return self._chunk({"content": text}) if text else b""
        if kind in ("thinking", "redacted_thinking"):
            self._block = _OpenBlock(block, index=self._thoughts)
            self._thoughts += 1
            return self._think(block.get("thinking"))
        if kind != "tool_use":
            return b""
        self._block = _OpenBlock(block, index=self._tools)
        self._tools += 1
        function = {"name": block.get("name"), "arguments": ""}
        call = {"index": self._block.index, "id": block.get("id"), "type": "function", "function": function}
        return self._chunk({"tool_calls": [call]})

    def _add_to_block(self, delta: dict[str, Any]) -> bytes:
        kind = delta.get("type")
        if kind == "text_delta":
            text = text_of(delta)
            return self._chunk({"content": text}) if text else b""
        if self._block is None:
            return b""
        if kind == "input_json_delta":
            return self._add_arguments(self._block, delta.get("partial_json"))
        if kind == "thinking_delta":
            self._block.keep("thinking", delta.get("thinking"))
            return self._think(delta.get("thinking"))
        if kind == "signature_delta":
            self._block.keep("signature", delta.get("signature"))
        return b""

    def _add_arguments(self, block: _OpenBlock, piece: Any) -> bytes:
        if not isinstance(piece, str) or not piece:
            return b""
        block.has_arguments = True
        return self._chunk({"tool_calls": [{"index": block.index, "function": {"arguments": piece}}]})

    def _end_block(self) -> bytes:
        block, self._block = self._block, None
        if block is None:
            return b""
        if block.kind == "tool_use":
            # A call without arguments has no deltas; "" would not be JSON.
            return b"" if block.has_arguments else self._add_arguments(block, block.whole_input())
        whole = block.whole()
        return b"" if whole is None else self._chunk({"thinking_blocks": [whole]})

    def _think(self, text: Any) -> bytes:
        return self._chunk({"reasoning_content": text}) if isinstance(text, str) and text else b""

    def _take_end(self, value: dict[str, Any]) -> bytes:
        self._count(value.get("usage"))
        delta = member(value, "delta")
        self._last_delta |= {name: member for name, member in delta.items() if member is not None}
        return b""

    def _stop(self) -> bytes:
        self._ended = True
        refusal = refusal_text(self._last_delta)
        reason = finish_reason(self._last_delta.get("stop_reason"), calls_tools=self._tools > 0)
        out = self._chunk({} if refusal is None else {"refusal": refusal}, reason=reason)
        if self._include_usage:
            usage = translate_usage(self._counts, thinking_tokens=self._thinking_tokens)
            out += _event({**self._head, "choices": [], "usage": usage})
        return out + _DONE

    def _fail(self, message: str) -> bytes:
        self._ended = True
        return OPENAI_CHAT.error_event(message, status=502, code="upstream_error")

    def _count(self, usage: Any) -> None:
        self._counts |= token_counts(usage)
        self._thinking_tokens = read_thinking_tokens(usage) or self._thinking_tokens

    def _chunk(self, delta: dict[str, Any], *, reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        chunk = {**self._head, "choices": [choice]}
        return _event({**chunk, "usage": None} if self._include_usage else chunk)


class _OpenBlock:
    """The tool call or the thinking that is being streamed."""

    __slots__ = ("_characters_left", "_pieces", "_start", "has_arguments", "index", "kind")

    def __init__(self, start: dict[str, Any], *, index: int) -> None:
        self.kind = start.get("type")
        self.index = index
        self.has_arguments = False
        self._start = start
        self._pieces: dict[str, list[str]] = {}
        self._characters_left = THINKING_CHARACTERS_MAX

    def keep(self, name: str, piece: Any) -> None:
        if isinstance(piece, str):
            self._characters_left -= len(piece)
            if self._characters_left >= 0:
                self._pieces.setdefault(name, []).append(piece)

    def whole_input(self) -> str:
        tool_input = self._start.get("input")
        return encode_value(tool_input).decode() if isinstance(tool_input, dict) else "{}"

    def whole(self) -> dict[str, Any] | None:
        """The thinking as Anthropic made it, plus the index by which SDKs merge entries; None if it was too long."""
        if self._characters_left < 0:
            return None
        begun = {name: value for name, value in self._start.items() if isinstance(value, str)}
        grown = {name: begun.get(name, "") + "".join(pieces) for name, pieces in self._pieces.items()}
        return {"index": self.index, **self._start, **grown}


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + encode_value(value) + b"\n\n"
