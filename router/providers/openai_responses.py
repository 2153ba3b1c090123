"""OpenAI Responses, read and written as bytes.

Owns which bytes of a request change: the model's name, MemoryRouter's own fields, and the one user message, or the
instructions, that memory goes into. Everything else leaves as it came: tool calls and their results, reasoning items,
references, and OpenAI's own `store`, `previous_response_id`, `conversation` and `background`. Must never re-encode an
item that it does not change, and never look up what the provider keeps: memory sees what this request says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from models.errors import InvalidRequest
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
from router.providers.openai_chat import OPENAI_CHAT
from router.providers.request_parts import (
    RequestMessage,
    hash_messages,
    pop_options,
    put_first,
    read_model,
    read_object,
    read_stream,
)
from router.providers.responses_reply import (
    OpenEvent,
    ResponsesCollector,
    ResponsesSplitter,
    parse_responses_reply,
)


class ResponsesRequest:
    """A parsed Responses request; see `router.providers.base.ChatRequest`.

    The input is a string (one user message), an array of items, or absent where a stored prompt or conversation stands
    in for it. Items other than messages are opaque bytes.
    """

    __slots__ = ("_anchor", "_input", "_items", "_members", "_messages", "model", "options", "stream")

    stream_type = "text/event-stream"

    def __init__(self, body: bytes) -> None:
        members = read_object(body)
        self.model: str = read_model(members)
        self.stream: bool = read_stream(members)
        self.options: Mapping[str, Any] = pop_options(members)
        self._members = members
        self._input = members.get("input", b"null")
        self._items = _read_items(self._input)
        self._messages = {
            index: RequestMessage(raw, place=f"input[{index}]")
            for index, raw in enumerate(self._items)
            if _is_message(raw)
        }
        self._anchor = self._find_anchor()

    @property
    def in_tool_loop(self) -> bool:
        """Whether something follows the message that memory goes into."""
        return self._anchor is not None and self._anchor < len(self._items) - 1

    def turns(self) -> list[Turn]:
        """User and assistant texts, in order; a string input is the user's."""
        if self._input.startswith(b'"'):
            text = whole_text(decode_value(self._input))
            return [Turn(role="user", text=text)] if text.strip() else []
        turns: list[Turn] = []
        for message in self._messages.values():
            role = _turn_role(message.role)
            if role is None:
                continue
            text = message.text()
            if text.strip():
                turns.append(Turn(role=role, text=text, remember=message.remember))
        return turns

    def anchor_hash(self) -> bytes | None:
        """SHA-256 over the items up to and including the anchor, each behind its length; None without an anchor.

        A string input counts as one item.
        """
        if self._anchor is None:
            return None
        return hash_messages(self._items[: self._anchor + 1])

    def encode(self, *, model: str, block: str = "", injection: Injection = "tail") -> bytes:
        """The body for the provider."""
        members = dict(self._members)
        members["model"] = encode_string(model)
        in_tail = block if injection == "tail" else ""
        if self._input.startswith(b"["):
            members["input"] = join_array([self._sent(index, in_tail) for index in range(len(self._items))])
        elif in_tail and self._anchor is not None:
            members["input"] = put_first(in_tail, self._input)
        if block and injection == "system":
            _put_into_instructions(members, block)
        return join_object(members)

    def splitter(self, *, event_bytes_max: int) -> ResponsesSplitter:
        """Server-sent events."""
        return ResponsesSplitter(event_bytes_max=event_bytes_max)

    def collector(self, *, text_chars_max: int) -> ResponsesCollector:
        """A collector for the streamed reply to this request."""
        return ResponsesCollector(text_chars_max=text_chars_max)

    def _find_anchor(self) -> int | None:
        """The last user message with content. A request that only brings tool results has none: the message that began
        the loop, memory and all, is with the provider under `previous_response_id`.
        """
        if self._input.startswith(b'"'):
            return 0 if self._input != b'""' else None
        for index in sorted(self._messages, reverse=True):
            if self._messages[index].role == "user" and self._messages[index].has_content():
                return index
        return None

    def _sent(self, index: int, block: str) -> bytes:
        message = self._messages.get(index)
        if message is None:
            return self._items[index]
        if not block or index != self._anchor:
            return message.sent()
        content = put_first(block, message.content, part_type="input_text")
        return join_object({**message.members, "content": content})


class ResponsesFormat:
    """The wire format; see `router.providers.base.WireFormat`. Stateless."""

    __slots__ = ()

    def parse_request(self, body: bytes) -> ResponsesRequest:
        """Read a request.

        Raises:
            InvalidRequest: not JSON, not an object, nested too deeply, or a field of a wrong type.
        """
        return ResponsesRequest(body)

    def parse_reply(self, body: bytes, *, text_chars_max: int) -> Reply | None:
        """Read a whole reply; None when it is not a response object."""
        return parse_responses_reply(body, text_chars_max=text_chars_max)

    def error_body(self, message: str, *, status: int, code: str, field: str | None = None) -> bytes:
        """`{"error": {"message", "type", "param", "code"}}`, as the OpenAI SDKs read it."""
        return OPENAI_CHAT.error_body(message, status=status, code=code, field=field)

    def error_event(self, message: str, *, status: int, code: str, open_line: bytes | None = None) -> bytes:
        """An `error` event that carries the error twice: flat, as the API describes it, and as the `error` member.

        The SDKs hand a flat event to the program as one of many and end the stream without an exception; the member is
        what makes them raise (openai-python 3.54, openai-node 6: `if data.error: raise APIError`).

        A half sent event becomes this event: its object is completed with these members, of which the last of a name
        counts. Its number is the one after the last whole event, where `open_line` came from `ResponsesSplitter`.
        """
        sent = OpenEvent.read(open_line)
        flat = {"type": "error", "code": code, "message": message, "param": None, "sequence_number": sent.next_number}
        error = OPENAI_CHAT.error_body(message, status=status, code=code)
        members = msgspec.json.encode(flat)[1:-1] + b"," + error[1:-1]
        event = b"event: error\ndata: {" + members + b"}\n\n"
        if sent.has_data:
            return b"\n\n" + event
        field, colon, partial = sent.line.partition(b":")
        if field == b"data":
            rest = close_object(partial, members)
            return b"\n\n" + event if rest is None else (b"" if colon else b":") + rest + b"\n\n"
        # A name that is there already must not be dispatched without data (the SDK would fail to parse it), so no
        # blank line: the second name replaces the first.
        return b"\n" + event if sent.line else event


OPENAI_RESPONSES = ResponsesFormat()


def _read_items(raw: bytes) -> list[bytes]:
    """The input's items; a string is one item, null none.

    Raises:
        InvalidRequest: the input is neither of these.
    """
    if raw.startswith(b'"'):
        return [raw]
    if raw == b"null":
        return []
    try:
        return split_array(raw)
    except ValueError:
        raise InvalidRequest("input must be a string or an array of items.", field="input") from None


def _is_message(raw: bytes) -> bool:
    """Whether an item is a message: it says so, or has a role and no type. An item with only an id is a reference."""
    if not raw.startswith(b"{"):
        return False
    members = split_object(raw)
    kind = decode_value(members.get("type", b"null"))
    return kind == "message" or (kind is None and "role" in members)


def _turn_role(role: str) -> Literal["user", "assistant"] | None:
    if role == "user":
        return "user"
    return "assistant" if role == "assistant" else None


def _put_into_instructions(members: dict[str, bytes], block: str) -> None:
    """In front of the instructions. Other than a string or null they are the provider's to refuse."""
    instructions = members.get("instructions", b"null")
    if instructions in {b"null", b'""'}:
        members["instructions"] = encode_string(block)
    elif instructions.startswith(b'"'):
        members["instructions"] = put_first(block, instructions)
