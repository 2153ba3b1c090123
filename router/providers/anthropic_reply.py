"""Replies of Anthropic Messages: what was said, and when it is complete.

Owns how a streamed or whole reply is read, and which error type belongs to which status. Must never decide what the
client gets: reading is beside the bytes, and a reply that cannot be read is passed on all the same.
"""

from __future__ import annotations

from typing import Any

import msgspec

from router.providers.base import Reply, Signal, Usage
from router.providers.heard import Heard
from router.providers.json_bytes import decode_value, whole_text
from router.sse import Event

ERROR_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""Status to `error.type`; any other 4xx is `invalid_request_error`, any other 5xx `api_error`. From Anthropic's API
reference, section "Errors", which knows no 503: ours means "come back later", as its 529 does."""

_INPUT_COUNTS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


def error_type(status: int) -> str:
    """Anthropic's name for the kind of error behind a status."""
    return ERROR_TYPES.get(status) or ("api_error" if status >= 500 else "invalid_request_error")


def error_members(message: str, *, status: int) -> bytes:
    """The two members that make an object an Anthropic error: `"type":"error","error":{...}`."""
    error = {"type": error_type(status), "message": whole_text(message)}
    return b'"type":"error","error":' + msgspec.json.encode(error)


class MessagesCollector:
    """Collects the text of a streamed reply; see `router.providers.base.Collector`.

    The finishing event is the `message_delta` with a stop reason, whichever it is: a refusal and a paused turn are
    complete replies too. `message_stop` is the terminator; one that comes without a stop reason before it finishes.
    The text blocks of a reply are joined by line feeds, as they are when the client sends the message back.
    """

    def __init__(self, *, text_chars_max: int) -> None:
        self._heard = Heard(text_chars_max=text_chars_max)
        self._block_begins = False
        self._counts: dict[str, int] = {}
        self._complete = False
        self._failed = False
        self.ended = False

    def classify(self, event: Event) -> Signal:
        """What the event means, if it came next."""
        return self._classify(event, decode_event(event))

    def feed(self, event: Event) -> Signal:
        """Take the event in and say what it means."""
        value = decode_event(event)
        signal = self._classify(event, value)
        self._take_in(event_kind(event, value), value)
        if signal is Signal.FINISH:
            self._complete = True
        elif signal is Signal.FAILURE:
            self._failed = True
        return signal

    def reply(self) -> Reply:
        """What has been said so far."""
        return Reply(
            text=self._heard.text(),
            complete=self._complete and not self._failed,
            usage=read_usage(self._counts) if self._counts else None,
            truncated=self._heard.truncated,
        )

    def _classify(self, event: Event, value: dict[str, Any]) -> Signal:
        kind = event_kind(event, value)
        if event.name == "error" or kind == "error":
            return Signal.FAILURE
        if self._complete or self._failed:
            return Signal.NOTHING
        has_reason = kind == "message_delta" and bool(member(value, "delta").get("stop_reason"))
        return Signal.FINISH if has_reason or kind == "message_stop" else Signal.NOTHING

    def _take_in(self, kind: str, value: dict[str, Any]) -> None:
        if kind == "message_start":
            self._counts.update(token_counts(member(value, "message").get("usage")))
        elif kind == "message_delta":
            self._counts.update(token_counts(value.get("usage")))
        elif kind == "message_stop":
            self.ended = True
        elif self._complete:
            return
        elif kind == "content_block_start":
            self._block_begins = bool(self._heard)
            self._add(block_text(value.get("content_block")))
        elif kind == "content_block_delta" and member(value, "delta").get("type") == "text_delta":
            self._add(text_of(member(value, "delta")))

    def _add(self, text: str) -> None:
        if not text:
            return
        if self._block_begins:
            self._block_begins = False
            text = f"\n{text}"
        self._heard.add(text)


def parse_messages_reply(body: bytes, *, text_chars_max: int) -> Reply | None:
    """Read a whole reply; None when it is not a message. An error with a 2xx status is a reply that failed."""
    try:
        value = decode_value(body)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    if value.get("type") == "error" or value.get("error"):
        return Reply(text="", complete=False)
    content = value.get("content")
    if not isinstance(content, list):
        return None
    text = whole_text("\n".join([text for text in map(block_text, content) if text]))
    counts = token_counts(value.get("usage"))
    return Reply(
        text=text[:text_chars_max],
        complete=True,
        usage=read_usage(counts) if counts else None,
        truncated=len(text) > text_chars_max,
    )


def read_usage(counts: dict[str, int]) -> Usage:
    """Token counts in the common terms. The prompt is what was read anew, what came from the cache, what went there."""
    prompt = sum(counts.get(name, 0) for name in _INPUT_COUNTS)
    completion = counts.get("output_tokens", 0)
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


def token_counts(usage: Any) -> dict[str, int]:
    """The numbers of a usage object, by name. Those of a later event replace those of an earlier one."""
    if not isinstance(usage, dict):
        return {}
    return {name: count for name, count in usage.items() if isinstance(count, int) and not isinstance(count, bool)}


def decode_event(event: Event) -> dict[str, Any]:
    """The data of an event; empty when it is no JSON object."""
    try:
        value = decode_value(event.data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def event_kind(event: Event, value: dict[str, Any]) -> str:
    """What an event is: by its data, else by its name (servers that imitate the format leave out either)."""
    kind = value.get("type")
    return kind if isinstance(kind, str) else event.name


def member(value: dict[str, Any], name: str) -> dict[str, Any]:
    """The member of this name if it is an object, else an empty one."""
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def block_text(block: Any) -> str:
    """The words of a content block of a reply; "" for anything but text."""
    if not isinstance(block, dict) or block.get("type") != "text":
        return ""
    return text_of(block)


def text_of(value: dict[str, Any]) -> str:
    """Its `text`, if that is a string."""
    text = value.get("text")
    return text if isinstance(text, str) else ""
