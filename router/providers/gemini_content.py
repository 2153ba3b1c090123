"""One content of a Gemini request: who says it, in which parts.

Owns how a content's parts are read and how a text becomes the first of them. Works on bytes: what is not changed stays
as it was sent. Names come in camelCase and in snake_case; Google's parser takes both.
"""

from __future__ import annotations

from typing import Any

from models.errors import InvalidRequest
from router.providers.json_bytes import (
    decode_value,
    encode_string,
    join_array,
    join_object,
    split_array,
    split_object,
    whole_text,
)
from router.providers.request_parts import is_remembered, put_first

_OPTION = "memory"
_ATTACHMENTS = ("inlineData", "inline_data", "fileData", "file_data")
_RESULTS = ("functionResponse", "function_response", "toolResponse", "tool_response")
_PLACEHOLDERS = {"image": "[image]", "audio": "[audio]", "video": "[video]"}
_INSTRUCTIONS = ("systemInstruction", "system_instruction")


class GeminiContent:
    """A content: its bytes as sent and, of its members, those that matter here.

    Attributes:
        role: `user` where it has none, as the API has it.
    """

    __slots__ = ("_has_option", "members", "parts", "raw", "remember", "role")

    def __init__(self, raw: bytes, *, place: str) -> None:
        try:
            members = split_object(raw)
        except ValueError:
            raise InvalidRequest(f"{place} must be an object.", field=place) from None
        role = decode_value(members.get("role", b"null"))
        if role is not None and not isinstance(role, str):
            raise InvalidRequest(f"{place}.role must be a string.", field=f"{place}.role")
        self.raw = raw
        self.role: str = role or "user"
        parts = _split_parts(members.get("parts", b"null"))
        if parts is None:
            raise InvalidRequest(f"{place}.parts must be an array.", field=f"{place}.parts")
        self.parts: list[bytes] = parts
        self._has_option = _OPTION in members
        self.remember = is_remembered(members.pop(_OPTION, b"true"))
        self.members = members

    def sent(self) -> bytes:
        """The content for the provider: as it came, unless it carries our own field."""
        return join_object(self.members) if self._has_option else self.raw

    def with_text_first(self, text: str) -> bytes:
        """The content with this text as a part in front of its first text, or of whatever is no tool result."""
        places = range(len(self.parts))
        kinds = [_part_names(part) for part in self.parts]
        first_text = next((place for place in places if "text" in kinds[place]), None)
        first_said = next((place for place in places if kinds[place].isdisjoint(_RESULTS)), 0)
        place = first_said if first_text is None else first_text
        parts = [*self.parts[:place], _text_part(text), *self.parts[place:]]
        return join_object({**self.members, "parts": join_array(parts)})

    def text(self) -> str:
        """What it says, "" when it says nothing. A user's attachments stand as placeholders, a part to a line.

        The parts of a model's reply are pieces of one text, as google-genai's `response.text` has it.
        """
        if self.role == "model":
            return whole_text("".join(map(said_by_part, map(_decode_part, self.parts))))
        words = [_part_words(_decode_part(part)) for part in self.parts]
        return whole_text("\n".join([word for word in words if word]))

    def is_said(self) -> bool:
        """Whether it holds anything but tool results."""
        return any(part.startswith(b"{") and _part_names(part).isdisjoint(_RESULTS) for part in self.parts)


def said_by_part(part: dict[str, Any]) -> str:
    """The text of a part of a reply; thoughts, calls and attachments say nothing."""
    text = part.get("text")
    return text if isinstance(text, str) and not part.get("thought") else ""


def put_into_instruction(members: dict[str, bytes], text: str) -> None:
    """Make a text the first part of the request's system instruction; add one where there is none.

    One of a wrong type is the provider's to refuse, and left alone.
    """
    name = next((name for name in _INSTRUCTIONS if members.get(name, b"null") != b"null"), _INSTRUCTIONS[0])
    raw = members.get(name, b"null")
    if raw == b"null":
        members.pop(_INSTRUCTIONS[1], None)  # a null beside the new one
        raw = b"{}"
    if raw.startswith(b'"'):
        members[name] = put_first(text, raw)
    elif raw.startswith(b"{"):
        instruction = split_object(raw)
        parts = _split_parts(instruction.get("parts", b"null"))
        if parts is not None:
            members[name] = join_object({**instruction, "parts": join_array([_text_part(text), *parts])})


def _split_parts(raw: bytes) -> list[bytes] | None:
    """The parts; one object stands for a list of one. None when they are neither."""
    if raw == b"null":
        return []
    if raw.startswith(b"{"):
        return [raw]
    try:
        return split_array(raw)
    except ValueError:
        return None


def _text_part(text: str) -> bytes:
    return b'{"text":' + encode_string(text) + b"}"


def _part_names(raw: bytes) -> set[str]:
    """The members that a part has; one that is null is not there."""
    members = split_object(raw) if raw.startswith(b"{") else {}
    return {name for name, value in members.items() if value != b"null"}


def _decode_part(raw: bytes) -> dict[str, Any]:
    part = decode_value(raw)
    return part if isinstance(part, dict) else {}


def _part_words(part: dict[str, Any]) -> str:
    for name in _ATTACHMENTS:
        data = part.get(name)
        if isinstance(data, dict):
            kind = data.get("mimeType", data.get("mime_type"))
            return _PLACEHOLDERS.get(kind.partition("/")[0], "[file]") if isinstance(kind, str) else "[file]"
    return said_by_part(part)
