"""Messages as `/v1/memory/prepare` and `/v1/memory/ingest` take them: OpenAI-like, leniently read.

Clients pass message objects straight from their SDKs, so unknown fields, null contents and content parts are all fine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from models.errors import InvalidRequest, TooLarge
from models.memory import Message, Role
from models.memory_settings import MemorySettings
from models.text import clean
from router.providers.base import Turn
from router.uploads import parse_external_id, parse_metadata, parse_timestamp

_PLACEHOLDERS = {"image_url": "[image]", "input_image": "[image]", "image": "[image]", "input_audio": "[audio]",
                 "file": "[file]", "input_file": "[file]", "document": "[file]"}  # fmt: skip
_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant"}


def read_messages(
    body: dict[str, Any], limits: MemorySettings, *, session_id: str | None, cut: bool = False
) -> list[Message]:
    """The user and assistant messages of a body's `messages`; those from the last user message on are final.

    Args:
        cut: take the first part of a text that is too long, where it is only asked with and not stored.

    Raises:
        InvalidRequest: `messages` is missing or empty, or holds something that is not a message.
        TooLarge: too many messages, or one is too long and not to be cut.
    """
    values = body.get("messages")
    if not isinstance(values, list) or not values:
        raise InvalidRequest("messages must be a non-empty array.", field="messages")
    if len(values) > limits.messages_max:
        raise TooLarge(f"messages may hold at most {limits.messages_max} messages.")
    users = [at for at, value in enumerate(values) if isinstance(value, dict) and value.get("role") == "user"]
    last_user = users[-1] if users else 0
    read = (
        _read_message(value, f"messages[{at}]", limits, session_id=session_id, final=at >= last_user, cut=cut)
        for at, value in enumerate(values)
    )
    return [message for message in read if message is not None]


def _read_message(
    value: Any, place: str, limits: MemorySettings, *, session_id: str | None, final: bool, cut: bool
) -> Message | None:
    if not isinstance(value, dict):
        raise InvalidRequest(f"{place} must be an object.", field=place)
    role = value.get("role")
    if not isinstance(role, str) or not role:
        raise InvalidRequest(f"{place}.role is required and must be a string.", field=f"{place}.role")
    content = clean(content_text(value.get("content"), place))
    if role not in _ROLES or not content or value.get("memory") is False:
        return None
    if len(content) > limits.content_max_chars and not cut:
        raise TooLarge(f"{place}.content may have at most {limits.content_max_chars} characters.")
    return Message(
        role=_ROLES[role],
        content=content[: limits.content_max_chars],
        timestamp_ms=parse_timestamp(value.get("timestamp")),
        session_id=session_id,
        external_id=parse_external_id(value.get("id")),
        metadata=parse_metadata(value.get("metadata")),
        final=final,
    )


def content_text(content: Any, place: str) -> str:
    """The words of a message's content: a string, null, or a list of parts.

    Raises:
        InvalidRequest: any other type.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidRequest(f"{place}.content must be a string, an array or null.", field=f"{place}.content")
    return "\n".join(text for part in content if (text := _part_text(part)))


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        return ""
    text = part.get("text")
    if isinstance(text, str):
        return text
    kind = part.get("type")
    return _PLACEHOLDERS.get(kind, "") if isinstance(kind, str) else ""


def turns_of(messages: Sequence[Message]) -> list[Turn]:
    """The same messages as turns, for the question."""
    return [Turn(role=message.role, text=message.content) for message in messages]
