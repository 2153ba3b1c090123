"""Conversations of a ChatGPT export.

Facts of the format (OpenAI publishes no schema; seen alike in several public descriptions and readers):

* `conversations.json` is an array of conversations with `title`, `create_time` (seconds since 1970, with a fraction),
  `conversation_id` or `id`, `current_node` and `mapping`, a tree of nodes `{id, message, parent, children}`
  (mitkury/chatgpt-export-parser, docs/chatgpt-data-export-format.md). Large exports are cut into
  `conversations-000.json`, `-001` and so on (alexeygrigorev/chatgpt-data-viewer, issue 1).
* What the user sees is the path from `current_node` to the root; other children are edited questions and regenerated
  answers (the same description; ha0xin/chatgpt-multimodal-exporter, issue 8).
* `author.role` is user, assistant, system or tool; `metadata.is_visually_hidden_from_conversation` and
  `is_user_system_message` hide a message; a `recipient` other than `all` is a call of a tool (the same description).
* `content_type` `text` and `multimodal_text` have `parts`: texts, or objects such as `image_asset_pointer` and
  `audio_transcription` with its `text`; `thoughts` and `reasoning_recap` are reasoning.
* Web citations stand in the text between U+E200 and U+E201, their parts parted by U+E202.
"""

from __future__ import annotations

import re
from typing import Any

from models.archives.entries import (
    Conversation,
    Entries,
    Item,
    Object,
    Passed,
    message_name,
    name_within,
    text_of,
    time_ms,
    title_of,
    upload_line,
)

SOURCE = "chatgpt"
_SPOKEN = frozenset({"text", "multimodal_text"})
_THINKING = frozenset({"thoughts", "reasoning_recap"})
_INSTRUCTIONS = frozenset({"user_editable_context", "model_editable_context"})
_MARK = "\ue200"
_CITATION = re.compile("\ue200[^\ue201]{0,2000}\ue201")
_MARKS = re.compile("[\ue200-\ue202]")


def is_chatgpt(value: Object) -> bool:
    """Whether this is a conversation of such an export."""
    return isinstance(value.get("mapping"), dict)


def read_chatgpt(value: Object, place: str) -> Entries:
    """The conversation as the user sees it."""
    session = name_within(SOURCE, value.get("conversation_id") or value.get("id"))
    title, began_ms = title_of(value.get("title")), time_ms(value.get("create_time"))
    mapping = value.get("mapping")
    nodes = mapping if isinstance(mapping, dict) else {}
    path = _path(nodes, value.get("current_node"))
    yield Conversation(place)
    for number in path:
        message = _message(nodes[number])
        if message is None:
            continue
        reason, content = _judge(message)
        if reason:
            yield Passed(reason, place)
            continue
        began_ms = time_ms(message.get("create_time")) or began_ms  # one without a time comes with the one before it
        fields = upload_line(
            message["author"]["role"],
            content,
            timestamp_ms=began_ms,
            session_id=session,
            external_id=message_name(SOURCE, session, message.get("id") or number),
            source=SOURCE,
            title=title,
        )
        yield Item(fields, place)
    seen = set(path)
    for number, node in nodes.items():
        message = None if number in seen else _message(node)
        if message is not None and not _judge(message)[0]:
            yield Passed("other_branch", place)


def _path(nodes: dict[str, Any], current: object) -> list[str]:
    """The ids of the nodes from the root to the current one; without one, to the latest that has no children."""
    if not isinstance(current, str) or current not in nodes:
        leaves = [number for number, node in nodes.items() if isinstance(node, dict) and not node.get("children")]
        current = max(leaves, key=lambda number: _created_ms(nodes[number]), default=None)
    path: dict[str, None] = {}
    while isinstance(current, str) and current in nodes and current not in path:
        path[current] = None
        node = nodes[current]
        current = node.get("parent") if isinstance(node, dict) else None
    return list(path)[::-1]


def _created_ms(node: Object) -> int:
    message = _message(node)
    return (time_ms(message.get("create_time")) or 0) if message else 0


def _message(node: object) -> Object | None:
    message = node.get("message") if isinstance(node, dict) else None
    return message if isinstance(message, dict) else None


def _judge(message: Object) -> tuple[str, str]:
    """Why a message is left out, or "" and what it says."""
    author, metadata, content = (_object(message.get(name)) for name in ("author", "metadata", "content"))
    role, kind = author.get("role"), content.get("content_type")
    if metadata.get("is_visually_hidden_from_conversation") or metadata.get("is_user_system_message"):
        return "hidden", ""
    if role not in ("user", "assistant"):
        return ("system" if role == "system" else "tool"), ""
    if isinstance(kind, str) and kind not in _SPOKEN:
        return ("thinking" if kind in _THINKING else "hidden" if kind in _INSTRUCTIONS else "tool"), ""
    if message.get("recipient") not in (None, "", "all"):
        return "tool", ""
    said = _said(content.get("parts"))
    return ("", said) if said else ("empty", "")


def _said(parts: object) -> str:
    """The texts of a message; what is no text stands as a placeholder, and spoken words as they were understood."""
    found = [_part(part) for part in parts] if isinstance(parts, list) else []
    if any(found[number] and not found[number].startswith("[") for number in range(len(found))):
        found = [text for text in found if text != "[audio]"]  # the words are there
    text = "\n\n".join(text for text in found if text.strip())
    return _MARKS.sub("", _CITATION.sub("", text)).strip() if _MARK in text else text.strip()


def _part(part: object) -> str:
    if isinstance(part, str):
        return part
    kind = text_of(_object(part).get("content_type"))
    if "image" in kind:
        return "[image]"
    if kind == "audio_transcription":
        return text_of(_object(part).get("text"))
    if "audio" in kind or "video" in kind:
        return "[audio]"
    return text_of(_object(part).get("text")) or ("[attachment]" if part else "")


def _object(value: object) -> Object:
    return value if isinstance(value, dict) else {}
