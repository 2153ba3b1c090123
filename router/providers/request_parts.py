"""What requests of all JSON formats have in common: an object with a model, our own options, and messages.

Owns how a message is read and how text is put in front of its own. Works on bytes: what is not changed stays as it was
sent. Must know no format's own fields beyond the kinds of content parts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from models.errors import InvalidRequest
from models.memory import Role
from router.providers.base import Turn
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
from router.providers.openai_reply import refusal_or_text

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

CACHE_MARK = "cache_control"
"""Where a prompt cache may end: a mark that Anthropic, and those who forward to it, take on parts of messages."""

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


class RequestMessage:
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
        self.remember = is_remembered(members.pop(_MESSAGE_OPTION, b"true"))
        self.members = members

    def sent(self) -> bytes:
        """The message for the provider: as it came, unless it carries our own field."""
        return join_object(self.members) if self._has_option else self.raw

    def with_text_first(self, text: str) -> bytes:
        """The message with this text put in front of its own, by splicing into its content."""
        members = dict(self.members)
        members["content"] = put_first(text, self.content)
        return join_object(members)

    def text(self) -> str:
        """What it says; attachments as placeholders, "" when it says nothing."""
        if self.content.startswith(b"["):
            return whole_text("\n".join([part for part in map(part_text, split_array(self.content)) if part]))
        content = decode_value(self.content)
        refusal = self.members.get("refusal", b"null")
        return whole_text(refusal_or_text(content, decode_value(refusal)))

    def meaning(self) -> bytes:
        """The message without its cache marks, in one form for string and array content.

        Clients move their marks on in every request of a tool loop, and turn strings into parts to carry them.
        """
        if self.content.startswith(b"["):
            parts = [_part_meaning(part) for part in split_array(self.content)]
        else:
            parts = [join_object({"text": self.content, "type": b'"text"'})]
        others = {name: self.members[name] for name in sorted(self.members) if name not in {"content", CACHE_MARK}}
        return join_object({**others, "content": join_array(parts)})

    def has_content(self) -> bool:
        """Whether there is something that memory can be put in front of."""
        return self.content not in {b"null", b'""'} and self.content.strip(b"[] \t\r\n") != b""


def turns_of(messages: Iterable[RequestMessage]) -> list[Turn]:
    """What user and assistant say in these messages, in order. Messages of other roles are no turns."""
    roles: dict[str, Role] = {"user": "user", "assistant": "assistant"}
    turns: list[Turn] = []
    for message in messages:
        role = roles.get(message.role)
        text = message.text() if role is not None else ""
        if role is not None and text.strip():
            turns.append(Turn(role=role, text=text, remember=message.remember))
    return turns


def hash_messages(messages: Iterable[bytes]) -> bytes:
    """SHA-256 over messages, each behind its length."""
    digest = hashlib.sha256()
    for message in messages:
        digest.update(len(message).to_bytes(8, "big"))
        digest.update(message)
    return digest.digest()


def read_object(body: bytes) -> dict[str, bytes]:
    """The members of a request's JSON object, each as its bytes.

    Raises:
        InvalidRequest: not JSON, not an object, or nested too deeply.
    """
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


def read_model(members: dict[str, bytes]) -> str:
    """The model's name as the client gave it.

    Raises:
        InvalidRequest: missing, or not a non-empty string.
    """
    model = decode_field(members, "model")
    if not isinstance(model, str) or not model.strip():
        raise InvalidRequest("model is required and must be a non-empty string.", field="model")
    return model


def read_messages(members: dict[str, bytes]) -> list[RequestMessage]:
    """The messages, at least one.

    Raises:
        InvalidRequest: missing, or one of them is none; the field is named.
    """
    try:
        raw_messages = split_array(members.get("messages", b"null"))
    except ValueError:
        raw_messages = []
    if not raw_messages:
        raise InvalidRequest("messages is required and must be a non-empty array.", field="messages")
    return [RequestMessage(raw, place=f"messages[{index}]") for index, raw in enumerate(raw_messages)]


def read_stream(members: dict[str, bytes]) -> bool:
    """Whether the client asked for a stream.

    Raises:
        InvalidRequest: neither true, false, null nor absent.
    """
    stream = decode_field(members, "stream")
    if stream is not None and not isinstance(stream, bool):
        raise InvalidRequest("stream must be true or false.", field="stream")
    return bool(stream)


def pop_options(members: dict[str, bytes]) -> dict[str, Any]:
    """Take our own fields out of a request's members, decoded."""
    return {name: decode_value(members.pop(name)) for name in list(members) if name in OPTION_FIELDS}


def decode_field(members: dict[str, bytes], name: str) -> Any:
    """The value of a member; None where there is none.

    Raises:
        InvalidRequest: it is not valid JSON.
    """
    try:
        return decode_value(members.get(name, b"null"))
    except ValueError:
        raise InvalidRequest(f"{name} is not valid JSON.", field=name) from None


def _read_role(members: dict[str, bytes], *, place: str) -> str:
    role = decode_value(members.get("role", b"null"))
    if not isinstance(role, str) or not role:
        raise InvalidRequest(f"{place}.role is required and must be a string.", field=f"{place}.role")
    return role


def is_remembered(raw: bytes) -> bool:
    """Whether a message's own `memory` member lets it be stored."""
    return decode_value(raw) not in (False, "false", "off")


def put_first(text: str, content: bytes, *, part_type: str = "text") -> bytes:
    """A message's content with a text in front: spliced into a string, or a part of its own before the others.

    Args:
        content: a JSON string or array.
        part_type: what the format calls a part of text.
    """
    if content.startswith(b'"'):
        return encode_string(f"{text}\n\n")[:-1] + content[1:]
    part = b'{"type":' + encode_string(part_type) + b',"text":' + encode_string(text) + b"}"
    rest = content[1:]
    return b"[" + part + (b"" if rest.lstrip()[:1] == b"]" else b",") + rest


def _part_meaning(raw: bytes) -> bytes:
    if not raw.startswith(b"{"):
        return raw
    members = split_object(raw)
    return join_object({name: members[name] for name in sorted(members) if name != CACHE_MARK})


def part_text(raw: bytes) -> str:
    """The words of one content part. A part that is a bare string counts as text; some servers take those."""
    if raw.startswith(b'"'):
        return str(decode_value(raw))
    if not raw.startswith(b"{"):
        return ""
    part = split_object(raw)
    kind = decode_value(part.get("type", b'"text"'))
    if not isinstance(kind, str) or kind in _SILENT_TYPES:
        return ""
    if kind in _TEXT_TYPES:
        text = decode_value(part.get("refusal" if kind == "refusal" else "text", b"null"))
        return text if isinstance(text, str) else ""
    return _PLACEHOLDERS.get(kind, "[attachment]")
