"""Lines of an upload as they are, and conversations in the shape of a chat request.

A chat line is `{"messages": [{"role", "content"}, ...]}` with, if it likes, `session_id`, `id` and `created_at`;
content is a text or a list of parts, as in Chat Completions. A message alone is read, too.
"""

from __future__ import annotations

from models.archives.entries import (
    Bad,
    Conversation,
    Entries,
    Item,
    Object,
    Passed,
    name_within,
    objects_in,
    text_of,
    time_ms,
    upload_line,
)

LINE_ROLES = (None, "user", "assistant", "system")
_LINE_FIELDS = ("content", "role", "timestamp", "id", "session_id", "metadata")
_PLACEHOLDERS = {"image_url": "[image]", "input_image": "[image]", "image": "[image]", "input_audio": "[audio]"}
_TIMES = ("timestamp", "created_at", "created", "timestamp_ms", "time")


def is_line(value: Object) -> bool:
    """Whether this is a line of an upload."""
    return isinstance(value.get("content"), str) and value.get("role") in LINE_ROLES


def read_line(value: Object, place: str) -> Entries:
    """The line as it is, without fields that no server reads."""
    yield Item({name: value[name] for name in _LINE_FIELDS if value.get(name) is not None}, place)


def is_chat(value: Object) -> bool:
    """Whether this is a conversation of a chat, or one message of it."""
    return isinstance(value.get("messages"), list) or (isinstance(value.get("role"), str) and "content" in value)


def read_chat(value: Object, place: str) -> Entries:
    """What user and assistant said. Messages without a time come with the one before them."""
    if "messages" not in value:
        yield from _read_messages([value], {}, place)
        return
    listed = value["messages"]
    if not isinstance(listed, list) or len(objects_in(listed)) != len(listed):
        yield Bad("messages must be a list of objects.", place)
        return
    yield Conversation(place)
    yield from _read_messages(listed, value, place)


def _read_messages(listed: list[Object], around: Object, place: str) -> Entries:
    session = around.get("session_id")
    session = session if isinstance(session, str | int) and not isinstance(session, bool) else None
    line_id = name_within("chat", around.get("id"))
    told_ms = _time_of(around)
    for number, message in enumerate(listed, start=1):
        role = message.get("role")
        content = _said(message.get("content"))
        if role not in ("user", "assistant"):
            yield Passed("system" if role in ("system", "developer") else "tool", place)
            continue
        if not content:
            yield Passed("empty", place)
            continue
        told_ms = _time_of(message) or told_ms
        own = message.get("id")
        own = own if isinstance(own, str) and own else f"{line_id}:{number}" if line_id else None
        own_session = session or message.get("session_id")
        fields = upload_line(
            str(role),
            content,
            timestamp_ms=told_ms,
            session_id=str(own_session) if isinstance(own_session, str | int) and own_session else None,
            external_id=own,
        )
        yield Item(fields, place, owner=text_of(around.get("user_id")) or None)


def _time_of(value: Object) -> int | None:
    return next((found for name in _TIMES if (found := time_ms(value.get(name))) is not None), None)


def _said(content: object) -> str:
    if isinstance(content, str):
        return content.strip()
    parts = content if isinstance(content, list) else []
    return "\n".join(filter(None, (_part(part) for part in parts)))


def _part(part: object) -> str:
    if isinstance(part, str):
        return part.strip()
    if not isinstance(part, dict):
        return ""
    return text_of(part.get("text")).strip() or _PLACEHOLDERS.get(text_of(part.get("type")), "")
