"""OpenAI Chat Completions, read and written as bytes.

Owns which bytes of a request change: the model's name, MemoryRouter's own fields, and the one message that memory goes
into. Everything else leaves as it came, so unknown fields, number formats and big images survive and the provider's
prompt cache sees the same prefix. Must never re-encode a message that it does not change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from router.providers.base import Injection, Reply, Turn
from router.providers.cut_json import close_object
from router.providers.json_bytes import (
    encode_string,
    join_array,
    join_object,
    whole_text,
)
from router.providers.openai_reply import ChatCollector, parse_chat_reply
from router.providers.request_parts import (
    decode_field,
    hash_messages,
    pop_options,
    read_messages,
    read_model,
    read_object,
    read_stream,
    turns_of,
)
from router.sse import EventSplitter

_ERROR_TYPES = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}


class ChatCompletionsRequest:
    """A parsed Chat Completions request; see `router.providers.base.ChatRequest`.

    Attributes:
        include_usage: the client asked for a usage chunk at the end of the stream.
        choices: how many replies it asked for (`n`).
    """

    __slots__ = ("_anchor", "_members", "_messages", "choices", "include_usage", "model", "options", "stream")
    stream_type = "text/event-stream"

    def __init__(self, body: bytes) -> None:
        members = read_object(body)
        self.model: str = read_model(members)
        self._messages = read_messages(members)
        self.stream: bool = read_stream(members)
        self.choices = _read_choices(members)
        self.include_usage = _read_include_usage(members)
        self.options: Mapping[str, Any] = pop_options(members)
        self._members = members
        self._anchor = self._find_anchor()

    @property
    def in_tool_loop(self) -> bool:
        """Whether something follows the message that memory goes into."""
        return self._anchor is not None and self._anchor < len(self._messages) - 1

    def turns(self) -> list[Turn]:
        """User and assistant texts, in order."""
        return turns_of(self._messages)

    def anchor_hash(self) -> bytes | None:
        """SHA-256 over what the messages up to the anchor mean, each behind its length; None without an anchor.

        Cache marks do not count: they move in every request of a tool loop, and the block must not.
        """
        if self._anchor is None:
            return None
        return hash_messages(message.meaning() for message in self._messages[: self._anchor + 1])

    def encode(self, *, model: str, block: str = "", injection: Injection = "tail") -> bytes:
        """The body for the provider."""
        members = dict(self._members)
        members["model"] = encode_string(model)
        messages = [message.sent() for message in self._messages]
        if block and injection == "system":
            self._put_into_system(messages, block)
        elif block and self._anchor is not None:
            messages[self._anchor] = self._messages[self._anchor].with_text_first(block)
        members["messages"] = join_array(messages)
        return join_object(members)

    def splitter(self, *, event_bytes_max: int) -> EventSplitter:
        """Server-sent events."""
        return EventSplitter(event_bytes_max=event_bytes_max)

    def collector(self, *, text_chars_max: int) -> ChatCollector:
        """A collector for the streamed reply to this request."""
        return ChatCollector(choices=self.choices, text_chars_max=text_chars_max)

    def _find_anchor(self) -> int | None:
        """The last user message with content. In a tool loop that is still the message which began the loop."""
        for index in range(len(self._messages) - 1, -1, -1):
            if self._messages[index].role == "user" and self._messages[index].has_content():
                return index
        return None

    def _put_into_system(self, messages: list[bytes], block: str) -> None:
        for index, message in enumerate(self._messages):
            if message.role in {"system", "developer"} and message.has_content():
                messages[index] = message.with_text_first(block)
                return
        messages.insert(0, b'{"role":"system","content":' + encode_string(block) + b"}")


class ChatCompletionsFormat:
    """The wire format; see `router.providers.base.WireFormat`. Stateless."""

    __slots__ = ()

    def parse_request(self, body: bytes) -> ChatCompletionsRequest:
        """Read a request.

        Raises:
            InvalidRequest: not JSON, not an object, nested too deeply, or a field of a wrong type.
        """
        return ChatCompletionsRequest(body)

    def parse_reply(self, body: bytes, *, text_chars_max: int) -> Reply | None:
        """Read a whole reply; None when it is not a chat completion."""
        return parse_chat_reply(body, text_chars_max=text_chars_max)

    def error_body(self, message: str, *, status: int, code: str, field: str | None = None) -> bytes:
        """`{"error": {"message", "type", "param", "code"}}`, as the OpenAI SDKs read it."""
        return b"{" + _error_member(message, status=status, code=code, field=field) + b"}"

    def error_event(self, message: str, *, status: int, code: str, open_line: bytes | None = None) -> bytes:
        """A `data:` event with an error, which the SDKs raise as APIError. Never followed by `[DONE]`.

        If a line is half sent, its JSON is completed with the error as a member of that same object: as an event of its
        own the half would fail to parse, and the client would never get to see the error.
        """
        member = _error_member(message, status=status, code=code, field=None)
        event = b"data: {" + member + b"}\n\n"
        if open_line is None:
            return event
        field, colon, partial = open_line.partition(b":")
        if field == b"data":
            rest = close_object(partial, member)
            if rest is not None:
                return (b"" if colon else b":") + rest + b"\n\n"
        return b"\n\n" + event  # two line ends: after a CR the first may only complete a CRLF


OPENAI_CHAT = ChatCompletionsFormat()


def _read_choices(members: dict[str, bytes]) -> int:
    """`n`; a value that makes no sense is the provider's to refuse."""
    choices = decode_field(members, "n")
    return choices if isinstance(choices, int) and choices > 1 else 1


def _read_include_usage(members: dict[str, bytes]) -> bool:
    options = decode_field(members, "stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _error_member(message: str, *, status: int, code: str, field: str | None) -> bytes:
    kind = _ERROR_TYPES.get(status) or ("server_error" if status >= 500 else "invalid_request_error")
    error = {"message": whole_text(message), "type": kind, "param": field, "code": code}
    return b'"error":' + msgspec.json.encode(error)
