"""Anthropic Messages, read and written as bytes.

Owns which bytes of a request change: the model's name, MemoryRouter's own fields, and the one message (or the system
prompt) that memory goes into. Everything else leaves as it came, so unknown fields, thinking signatures, cache marks
and big images survive. Must never re-encode a block that it does not make.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.errors import InvalidRequest
from router.providers.anthropic_reply import MessagesCollector, error_members, parse_messages_reply
from router.providers.base import Injection, Reply, Turn
from router.providers.cut_json import close_object
from router.providers.json_bytes import (
    decode_value,
    encode_string,
    join_array,
    join_object,
    split_array,
    split_object,
    whole_text,
)
from router.providers.request_parts import (
    RequestMessage,
    decode_field,
    hash_messages,
    pop_options,
    put_first,
    read_model,
    read_object,
    read_stream,
    turns_of,
)
from router.sse import EventSplitter

_PLACEHOLDERS = {
    "image": "[image]",
    "document": "[file]",
    "search_result": "[file]",
    "container_upload": "[file]",
}
"""What stands for an attachment in a turn. Blocks of any other kind (tools, thinking, what servers add) are silent."""


class MessagesMessage(RequestMessage):
    """One message; its content is a string or an array of blocks."""

    __slots__ = ("_blocks",)

    def __init__(self, raw: bytes, *, place: str) -> None:
        super().__init__(raw, place=place)
        self._blocks = [_Block(block) for block in split_array(self.content)] if self._is_array else []

    @property
    def _is_array(self) -> bool:
        return self.content.startswith(b"[")

    def text(self) -> str:
        """What it says; attachments as placeholders, "" when it says nothing."""
        if self._is_array:
            return whole_text("\n".join([text for text in (block.text() for block in self._blocks) if text]))
        content = decode_value(self.content)
        return whole_text(content) if isinstance(content, str) else ""

    def begins_turn(self) -> bool:
        """Whether the user says or shows something in it, other than results of tools."""
        if self.role != "user":
            return False
        if self._is_array:
            return any(block.kind != "tool_result" for block in self._blocks)
        return self.has_content()

    def with_block(self, text: str) -> bytes:
        """The message with this text in front of its own, behind its tool results (Anthropic wants those first)."""
        results = [index for index, block in enumerate(self._blocks) if block.kind == "tool_result"]
        if not results:
            return self.with_text_first(text)
        blocks = [block.raw for block in self._blocks]
        blocks.insert(results[-1] + 1, b'{"type":"text","text":' + encode_string(text) + b"}")
        return join_object({**self.members, "content": join_array(blocks)})


class _Block:
    """One block of content: its bytes and its kind."""

    __slots__ = ("kind", "members", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.members = split_object(raw) if raw.startswith(b"{") else {}
        kind = decode_value(self.members.get("type", b'""'))
        self.kind = kind if isinstance(kind, str) else ""

    def text(self) -> str:
        if self.kind != "text":
            return _PLACEHOLDERS.get(self.kind, "")
        text = decode_value(self.members.get("text", b"null"))
        return text if isinstance(text, str) else ""


class MessagesRequest:
    """A parsed Messages request; see `router.providers.base.ChatRequest`."""

    __slots__ = ("_anchor", "_members", "_messages", "model", "options", "stream")

    stream_type = "text/event-stream"

    def __init__(self, body: bytes, *, needs_max_tokens: bool = True) -> None:
        members = read_object(body)
        self.model: str = read_model(members)
        self._messages = _read_messages(members)
        if needs_max_tokens:
            _check_max_tokens(members)
        self.stream: bool = read_stream(members)
        self.options: Mapping[str, Any] = pop_options(members)
        self._members = members
        self._anchor = self._find_anchor()

    @property
    def in_tool_loop(self) -> bool:
        """Whether anything but instructions follows the message that memory goes into."""
        if self._anchor is None:
            return False
        return any(message.role != "system" for message in self._messages[self._anchor + 1 :])

    def turns(self) -> list[Turn]:
        """User and assistant texts, in order. A `system` message among them is none."""
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
            members["system"] = self._system_with(block)
        elif block and self._anchor is not None:
            messages[self._anchor] = self._messages[self._anchor].with_block(block)
        members["messages"] = join_array(messages)
        return join_object(members)

    def splitter(self, *, event_bytes_max: int) -> EventSplitter:
        """Server-sent events."""
        return EventSplitter(event_bytes_max=event_bytes_max)

    def collector(self, *, text_chars_max: int) -> MessagesCollector:
        """A collector for the streamed reply to this request."""
        return MessagesCollector(text_chars_max=text_chars_max)

    def _find_anchor(self) -> int | None:
        """The last user message that is more than tool results: in a tool loop, the one that began it."""
        for index in range(len(self._messages) - 1, -1, -1):
            if self._messages[index].begins_turn():
                return index
        return None

    def _system_with(self, block: str) -> bytes:
        system = self._members.get("system", b"null")
        if system[:1] not in {b'"', b"["} or system == b'""':
            return encode_string(block)
        return put_first(block, system)


class MessagesFormat:
    """The wire format; see `router.providers.base.WireFormat`. Stateless."""

    __slots__ = ()

    def parse_request(self, body: bytes, *, needs_max_tokens: bool = True) -> MessagesRequest:
        """Read a request.

        Args:
            body: of `/v1/messages`.
            needs_max_tokens: False for `/v1/messages/count_tokens`, which takes the same body without it.

        Raises:
            InvalidRequest: not JSON, not an object, nested too deeply, a required field missing or of a wrong type.
        """
        return MessagesRequest(body, needs_max_tokens=needs_max_tokens)

    def parse_reply(self, body: bytes, *, text_chars_max: int) -> Reply | None:
        """Read a whole reply; None when it is not a message."""
        return parse_messages_reply(body, text_chars_max=text_chars_max)

    def error_body(
        self, message: str, *, status: int, code: str, field: str | None = None, request_id: str | None = None
    ) -> bytes:
        """`{"type": "error", "error": {"type", "message"}, "request_id"?}`; it has no place for `code` and `field`."""
        members = error_members(message, status=status)
        if request_id is not None:
            members += b',"request_id":' + encode_string(request_id)
        return b"{" + members + b"}"

    def error_event(self, message: str, *, status: int, code: str, open_line: bytes | None = None) -> bytes:
        """An `error` event, which the SDKs raise as APIStatusError. Never followed by `message_stop`.

        Of several `event:` lines in one event the last one counts. So an event that is half sent becomes the error: its
        JSON is completed with the error as a member, and its name is given anew.
        """
        members = error_members(message, status=status)
        event = b"event: error\ndata: {" + members + b"}\n\n"
        if not open_line:
            return event if open_line is None else b"\n" + event
        field, colon, partial = open_line.partition(b":")
        if field != b"data" or not colon:
            return b"\n" + event
        rest = close_object(partial, members)
        return b"\n\n" + event if rest is None else rest + b"\nevent: error\n\n"


ANTHROPIC_MESSAGES = MessagesFormat()


def _read_messages(members: dict[str, bytes]) -> list[MessagesMessage]:
    try:
        raw_messages = split_array(members.get("messages", b"null"))
    except ValueError:
        raw_messages = []
    if not raw_messages:
        raise InvalidRequest("messages is required and must be a non-empty array.", field="messages")
    return [MessagesMessage(raw, place=f"messages[{index}]") for index, raw in enumerate(raw_messages)]


def _check_max_tokens(members: dict[str, bytes]) -> None:
    limit = decode_field(members, "max_tokens")
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise InvalidRequest("max_tokens is required and must be an integer.", field="max_tokens")
