"""Exports of ChatGPT and Claude as their users get them, with the parts that a reader must cope with."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from typing import Any

Object = dict[str, Any]
ROOT_PARENT = "00000000-0000-4000-8000-000000000000"


def chatgpt_message(number: str, role: str, parts: Sequence[Any], **fields: Any) -> Object:
    """One message; `fields` replace or add some."""
    return {
        "id": number,
        "author": {"role": role, "name": None, "metadata": {}},
        "create_time": 1_700_000_000.25,
        "content": {"content_type": "text", "parts": list(parts)},
        "status": "finished_successfully",
        "weight": 1.0,
        "metadata": {},
        "recipient": "all",
        **fields,
    }


def chatgpt_conversation(
    number: str, messages: Sequence[Object], *, title: str = "A talk", branches: Sequence[tuple[str, Object]] = ()
) -> Object:
    """A conversation with these messages one behind the other.

    Args:
        branches: other messages, each behind the one with that id: edited or generated anew.
    """
    mapping: Object = {"root": {"id": "root", "message": None, "parent": None, "children": []}}
    parent = "root"
    for message in messages:
        mapping[message["id"]] = {"id": message["id"], "message": message, "parent": parent, "children": []}
        mapping[parent]["children"].append(message["id"])
        parent = message["id"]
    for behind, message in branches:
        mapping[message["id"]] = {"id": message["id"], "message": message, "parent": behind, "children": []}
        mapping[behind]["children"].append(message["id"])
    return {
        "title": title,
        "create_time": 1_700_000_000.0,
        "update_time": 1_700_000_100.0,
        "mapping": mapping,
        "current_node": parent,
        "conversation_id": number,
        "id": number,
    }


def chatgpt_talk(number: int, *texts: str) -> Object:
    """A conversation where user and assistant say these in turn, a second apart."""
    messages = [
        chatgpt_message(
            f"m{number}-{place}",
            "user" if place % 2 == 0 else "assistant",
            [text],
            create_time=1_700_000_000.5 + number * 1_000 + place,
        )
        for place, text in enumerate(texts)
    ]
    return chatgpt_conversation(f"c{number}", messages, title=f"Talk {number}")


def claude_message(number: str, sender: str, text: str, **fields: Any) -> Object:
    """One message; `fields` replace or add some."""
    return {
        "uuid": number,
        "text": text,
        "content": [{"type": "text", "text": text}],
        "sender": sender,
        "created_at": "2025-01-02T03:04:05.678901Z",
        "attachments": [],
        "files": [],
        **fields,
    }


def claude_conversation(number: str, messages: Sequence[Object], **fields: Any) -> Object:
    """A conversation with these messages."""
    return {
        "uuid": number,
        "name": "A talk",
        "created_at": "2025-01-02T03:04:00.000000Z",
        "account": {"uuid": "somebody"},
        "chat_messages": list(messages),
        **fields,
    }


def zipped(members: dict[str, bytes | Object | list[Object]]) -> bytes:
    """A zip file of these; what is not bytes is written as JSON."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content if isinstance(content, bytes) else json.dumps(content))
    return packed.getvalue()
