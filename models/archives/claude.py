"""Conversations and memories of a Claude export.

Facts of the format (Anthropic publishes no schema; seen alike in several public readers and descriptions):

* `conversations.json` is an array of conversations with `uuid`, `name`, `created_at` and `chat_messages`; a message has
  `uuid`, `sender` (human or assistant), `text`, `created_at` (ISO 8601), and `content`, a list of blocks of which those
  of type `text` are what was said; others are thinking and the use of tools (Sinity/polylogue,
  docs/providers/claude-ai.md; the same shape in the test data of that project).
* Newer messages name their `parent_message_uuid`, and the list then also holds what was edited away; the first message
  names 00000000-0000-4000-8000-000000000000. The tip is `current_leaf_message_uuid` where that is given.
* `attachments` and `files` name what was attached (`file_name`); pasted text is in `extracted_content`.
* `memories.json` holds `conversations_memory`, a text, and `project_memories`, a text for each project's uuid.
* `projects.json`, or one file a project, holds projects with `prompt_template` and `docs`.
"""

from __future__ import annotations

from collections.abc import Iterator

from models.archives.entries import (
    Conversation,
    Entries,
    Item,
    Object,
    Passed,
    message_name,
    name_within,
    objects_in,
    text_of,
    time_ms,
    title_of,
    upload_line,
)
from models.archives.notes import paragraphs_of

SOURCE = "claude"
_ROLES = {"human": "user", "user": "user", "assistant": "assistant"}
_SAID = frozenset({"text", "voice_note"})


def is_claude(value: Object) -> bool:
    """Whether this is a conversation, the memories or a project of such an export."""
    return isinstance(value.get("chat_messages"), list) or _is_memories(value) or _is_project(value)


def read_claude(value: Object, place: str, *, modified_ms: int | None = None) -> Entries:
    """A conversation, or what Claude has noted of the user. The documents of a project are no memories.

    Args:
        modified_ms: the time of notes, which carry none.
    """
    if _is_memories(value):
        return _read_memories(value, place, modified_ms)
    if _is_project(value):
        return iter((Passed("project", place),))
    return _read_conversation(value, place)


def _is_memories(value: Object) -> bool:
    return "conversations_memory" in value or "project_memories" in value


def _is_project(value: Object) -> bool:
    return "uuid" in value and "chat_messages" not in value and ("docs" in value or "prompt_template" in value)


def _read_conversation(value: Object, place: str) -> Entries:
    session, title = name_within(SOURCE, value.get("uuid")), title_of(value.get("name"))
    told_ms = time_ms(value.get("created_at"))
    listed = objects_in(value.get("chat_messages"))
    path = _path(listed, value.get("current_leaf_message_uuid"))
    yield Conversation(place)
    for message in path:
        role, content = _ROLES.get(text_of(message.get("sender"))), _said(message)
        if role is None or not content:
            yield Passed("empty" if role else "system", place)
            continue
        told_ms = time_ms(message.get("created_at")) or told_ms
        fields = upload_line(
            role,
            content,
            timestamp_ms=told_ms,
            session_id=session,
            external_id=message_name(SOURCE, session, message.get("uuid")),
            source=SOURCE,
            title=title,
        )
        yield Item(fields, place)
    for _ in range(len(listed) - len(path)):
        yield Passed("other_branch", place)


def _path(listed: list[Object], leaf: object) -> list[Object]:
    """The messages that the user sees: all of them, unless each names its parent and some were edited away."""
    by_id = {message["uuid"]: message for message in listed if isinstance(message.get("uuid"), str)}
    if len(by_id) != len(listed) or any(not isinstance(each.get("parent_message_uuid"), str) for each in listed):
        return listed
    current: object = leaf if isinstance(leaf, str) and leaf in by_id else next(reversed(by_id), None)
    path: dict[str, Object] = {}
    while isinstance(current, str) and current in by_id and current not in path:
        path[current] = by_id[current]
        current = by_id[current]["parent_message_uuid"]
    roots = sum(message["parent_message_uuid"] not in by_id for message in listed)
    return list(path.values())[::-1] if roots == 1 else listed  # more beginnings than one: a parent is missing


def _said(message: Object) -> str:
    blocks = objects_in(message.get("content"))
    spoken = [block for block in blocks if text_of(block.get("type")) in _SAID]
    texts = [text_of(block.get("text")) for block in spoken]
    said = "\n\n".join(text.strip() for text in texts if text.strip())
    if not said and not spoken:
        said = "" if blocks else text_of(message.get("text")).strip()
    return "\n".join(filter(None, (said, *_attached(message))))


def _attached(message: Object) -> Iterator[str]:
    for file in (*objects_in(message.get("attachments")), *objects_in(message.get("files"))):
        name = title_of(file.get("file_name"))
        yield f"[attachment: {name}]" if name else "[attachment]"


def _read_memories(value: Object, place: str, modified_ms: int | None) -> Entries:
    projects = value.get("project_memories")
    texts = [text_of(value.get("conversations_memory"))]
    texts += [text_of(text) for text in projects.values()] if isinstance(projects, dict) else []
    for text in texts:
        for paragraph in paragraphs_of(text.splitlines(keepends=True)):
            fields = upload_line("user", paragraph, timestamp_ms=modified_ms, source=SOURCE, kind="memory")
            yield Item(fields, place, is_note=True)
