"""OpenAI Chat Completions, read and written as bytes.

Owns which bytes of a request change: the model's name, MemoryRouter's own fields, and the one message that memory goes
into. Everything else leaves as it came, so unknown fields, number formats and big images survive and the provider's
prompt cache sees the same prefix. Must never re-encode a message that it does not change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from models.errors import InvalidRequest
from router.providers.base import Injection, Reply, Turn
from router.providers.cut_json import close_object
from router.providers.json_bytes import (
    check_shape,
    decode_value,
    encode_string,
    join_array,
    join_object,
    split_array,
    split_object,
    whole_text,
)
from router.providers.openai_reply import ChatCollector, parse_chat_reply, refusal_or_text

OPTION_FIELDS = frozenset(
    {
        "memory",
        "memory_mode",
        "memory_store",
        "memory_store_response",
        "memory_limit",
        "session_id",
        "context_limit",
        "store_input",
        "store_response",
        "embeddings",
        "density",
    }
)
"""Body fields of our own (contract 2.3): read, and never sent on, since strict providers reject what they do not
know."""

_MESSAGE_OPTION = "memory"
_PLACEHOLDERS = {
    "image_url": "[image]",
    "input_image": "[image]",
    "input_audio": "[audio]",
    "video_url": "[video]",
    "file": "[file]",
    "input_file": "[file]",
}
_TEXT_TYPES = frozenset({"text", "input_text", "output_text", "refusal"})
_SILENT_TYPES = frozenset({"thinking", "reasoning", "tool_use", "tool_result"})
_ERROR_TYPES = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}


class _Message:
    """One message: its bytes as sent and, of its members, those that matter here."""

    __slots__ = ("_has_option", "content", "members", "raw", "remember", "role")

    def __init__(self, raw: bytes, *, place: str) -> None:
        try:
            members = split_object(raw)
        except ValueError:
            raise InvalidRequest(f"{place} must be an object.", field=place) from None
        self.raw = raw
        self.role = _read_role(members, place=place)
        self.content = members.get("content", b"null")
        if self.content[:1] not in {b'"', b"[", b"n"}:
            raise InvalidRequest(f"{place}.content must be a string, an array or null.", field=f"{place}.content")
        self._has_option = _MESSAGE_OPTION in members
        self.remember = _is_remembered(members.pop(_MESSAGE_OPTION, b"true"))
        self.members = members

    def sent(self) -> bytes:
        """The message for the provider: as it came, unless it carries our own field."""
        return join_object(self.members) if self._has_option else self.raw

    def with_text_first(self, text: str) -> bytes:
        """The message with this text put in front of its own, by splicing into its content."""
        members = dict(self.members)
        members["content"] = _put_first(text, self.content)
        return join_object(members)

    def text(self) -> str:
        """What it says; attachments as placeholders, "" when it says nothing."""
        if self.content.startswith(b"["):
            return whole_text("\n".join([part for part in map(_part_text, split_array(self.content)) if part]))
        content = decode_value(self.content)
        refusal = self.members.get("refusal", b"null")
        return whole_text(refusal_or_text(content, decode_value(refusal)))

    def has_content(self) -> bool:
        """Whether there is something that memory can be put in front of."""
        return self.content not in {b"null", b'""'} and self.content.strip(b"[] \t\r\n") != b""


class ChatCompletionsRequest:
    """A parsed Chat Completions request; see `router.providers.base.ChatRequest`.

    Attributes:
        include_usage: the client asked for a usage chunk at the end of the stream.
        choices: how many replies it asked for (`n`).
    """

    __slots__ = ("_anchor", "_members", "_messages", "choices", "include_usage", "model", "options", "stream")

    def __init__(self, body: bytes) -> None:
        members = _read_body(body)
        self.model: str = _read_model(members)
        self._messages = _read_messages(members)
        self.stream: bool = _read_stream(members)
        self.choices = _read_choices(members)
        self.include_usage = _read_include_usage(members)
        self.options: Mapping[str, Any] = {
            name: decode_value(members.pop(name)) for name in list(members) if name in OPTION_FIELDS
        }
        self._members = members
        self._anchor = self._find_anchor()

    @property
    def in_tool_loop(self) -> bool:
        """Whether something follows the message that memory goes into."""
        return self._anchor is not None and self._anchor < len(self._messages) - 1

    def turns(self) -> list[Turn]:
        """User and assistant texts, in order."""
        turns: list[Turn] = []
        for message in self._messages:
            role = _turn_role(message.role)
            if role is None:
                continue
            text = message.text()
            if text.strip():
                turns.append(Turn(role=role, text=text, remember=message.remember))
        return turns

    def anchor_hash(self) -> bytes | None:
        """SHA-256 over the messages up to and including the anchor, each behind its length; None without an anchor."""
        if self._anchor is None:
            return None
        digest = hashlib.sha256()
        for message in self._messages[: self._anchor + 1]:
            digest.update(len(message.raw).to_bytes(8, "big"))
            digest.update(message.raw)
        return digest.digest()

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
        return b"\n\n" + event if open_line else b"\n" + event


OPENAI_CHAT = ChatCompletionsFormat()


def _read_body(body: bytes) -> dict[str, bytes]:
    body = body.removeprefix(b"\xef\xbb\xbf")
    check_shape(body)
    try:
        return split_object(body)
    except ValueError as error:
        if body.lstrip()[:1] != b"{" and _is_json(body):
            raise InvalidRequest("The request body must be a JSON object.") from None
        raise InvalidRequest(f"The request body is not valid JSON: {error}.") from None


def _is_json(body: bytes) -> bool:
    try:
        decode_value(body)
    except ValueError:
        return False
    return True


def _read_model(members: dict[str, bytes]) -> str:
    model = _decode_field(members, "model")
    if not isinstance(model, str) or not model.strip():
        raise InvalidRequest("model is required and must be a non-empty string.", field="model")
    return model


def _read_messages(members: dict[str, bytes]) -> list[_Message]:
    try:
        raw_messages = split_array(members.get("messages", b"null"))
    except ValueError:
        raw_messages = []
    if not raw_messages:
        raise InvalidRequest("messages is required and must be a non-empty array.", field="messages")
    return [_Message(raw, place=f"messages[{index}]") for index, raw in enumerate(raw_messages)]


def _read_stream(members: dict[str, bytes]) -> bool:
    stream = _decode_field(members, "stream")
    if stream is not None and not isinstance(stream, bool):
        raise InvalidRequest("stream must be true or false.", field="stream")
    return bool(stream)


def _read_choices(members: dict[str, bytes]) -> int:
    """`n`; a value that makes no sense is the provider's to refuse."""
    choices = _decode_field(members, "n")
    return choices if isinstance(choices, int) and choices > 1 else 1


def _read_include_usage(members: dict[str, bytes]) -> bool:
    options = _decode_field(members, "stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _decode_field(members: dict[str, bytes], name: str) -> Any:
    try:
        return decode_value(members.get(name, b"null"))
    except ValueError:
        raise InvalidRequest(f"{name} is not valid JSON.", field=name) from None


def _read_role(members: dict[str, bytes], *, place: str) -> str:
    role = decode_value(members.get("role", b"null"))
    if not isinstance(role, str) or not role:
        raise InvalidRequest(f"{place}.role is required and must be a string.", field=f"{place}.role")
    return role


def _turn_role(role: str) -> Literal["user", "assistant"] | None:
    if role == "user":
        return "user"
    return "assistant" if role == "assistant" else None


def _is_remembered(raw: bytes) -> bool:
    return decode_value(raw) not in (False, "false", "off")


def _put_first(text: str, content: bytes) -> bytes:
    if content.startswith(b'"'):
        return encode_string(f"{text}\n\n")[:-1] + content[1:]
    part = b'{"type":"text","text":' + encode_string(text) + b"}"
    return b"[" + part + b"," + content[1:]


def _part_text(raw: bytes) -> str:
    """The words of one content part. A part that is a bare string counts as text; some servers take those."""
    if raw.startswith(b'"'):
        return str(decode_value(raw))
    if not raw.startswith(b"{"):
        return ""
    part = split_object(raw)
    kind = decode_value(part.get("type", b'"text"'))
    if kind in _SILENT_TYPES:
        return ""
    if kind in _TEXT_TYPES:
        text = decode_value(part.get("refusal" if kind == "refusal" else "text", b"null"))
        return text if isinstance(text, str) else ""
    return _PLACEHOLDERS.get(kind, "[attachment]") if isinstance(kind, str) else ""


def _error_member(message: str, *, status: int, code: str, field: str | None) -> bytes:
    kind = _ERROR_TYPES.get(status) or ("server_error" if status >= 500 else "invalid_request_error")
    error = {"message": message, "type": kind, "param": field, "code": code}
    return b'"error":' + msgspec.json.encode(error)
