"""Lines of an upload and conversations of a chat."""

from __future__ import annotations

from models.archives.lines import is_chat, is_line, read_chat, read_line
from tests.models.archives.found import conversations, lines, problems, reasons, said


def test_a_line_is_taken_as_it_is() -> None:
    line = {"content": "Tea", "role": None, "timestamp": 5, "id": 7, "session_id": "s", "metadata": {"a": 1}, "x": 1}

    assert is_line(line)
    assert lines(read_line(line, "here")) == [
        {"content": "Tea", "timestamp": 5, "id": 7, "session_id": "s", "metadata": {"a": 1}}
    ]


def test_a_chat_gives_what_user_and_assistant_said() -> None:
    chat = {
        "session_id": "s",
        "id": "chat-1",
        "created_at": "2025-01-02",
        "messages": [
            {"role": "system", "content": "Be brief"},
            {"role": "user", "content": [{"type": "text", "text": "See"}, {"type": "image_url", "image_url": {}}]},
            {"role": "assistant", "content": None, "tool_calls": []},
            {"role": "tool", "content": "{}"},
            {"role": "assistant", "content": "A cat", "timestamp": 1_735_776_000_500, "id": "m9"},
        ],
    }

    entries = list(read_chat(chat, "here"))

    assert is_chat(chat)
    assert conversations(entries) == 1
    assert said(entries) == [("user", "See\n[image]"), ("assistant", "A cat")]
    assert reasons(entries) == {"system": 1, "empty": 1, "tool": 1}
    assert [(line["timestamp"], line["id"], line["session_id"]) for line in lines(entries)] == [
        (1_735_776_000_000, "chat:chat-1:2", "s"),
        (1_735_776_000_500, "m9", "s"),
    ]


def test_messages_that_are_no_objects_are_bad() -> None:
    assert problems(read_chat({"messages": ["hello"]}, "here")) == ["here: messages must be a list of objects."]
    assert problems(read_chat({"messages": 5}, "here")) == ["here: messages must be a list of objects."]


def test_a_message_alone_is_read() -> None:
    assert is_chat({"role": "tool", "content": None})
    assert said(read_chat({"role": "user", "content": ["Hi", {"text": "there"}]}, "here")) == [("user", "Hi\nthere")]
