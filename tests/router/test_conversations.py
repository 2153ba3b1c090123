"""Messages of prepare and ingest: OpenAI-like, leniently read."""

from __future__ import annotations

from typing import Any

import pytest

from models.errors import InvalidRequest, TooLarge
from models.memory import Message
from models.memory_settings import MemorySettings
from router.conversations import read_messages, turns_of
from router.providers.base import Turn

LIMITS = MemorySettings(content_max_chars=50, messages_max=5)


def read(*messages: Any, session_id: str | None = None, cut: bool = False) -> list[Message]:
    return read_messages({"messages": list(messages)}, LIMITS, session_id=session_id, cut=cut)


def test_users_and_assistants_are_read_and_the_last_exchange_is_final() -> None:
    """From the last user message on; system and tool messages are not what anybody said."""
    messages = read(
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": " three "},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        session_id="s",
    )

    assert messages == [
        Message(role="user", content="one", session_id="s"),
        Message(role="assistant", content="two", session_id="s"),
        Message(role="user", content="three", session_id="s", final=True),
    ]


def test_message_objects_of_sdks_are_taken_as_they_are() -> None:
    """Unknown fields, null contents, content parts; attachments leave a placeholder."""
    messages = read(
        {"role": "assistant", "content": "hi", "refusal": None, "annotations": [], "audio": None, "tool_calls": None},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look:"},
                {"type": "image_url", "image_url": {"url": "data:..."}},
                "bare",
                {"type": "unheard_of", "x": 1},
                7,
            ],
        },
    )
    assert [message.content for message in messages] == ["hi", "Look:\n[image]\nbare"]


def test_a_lone_assistant_message_is_final() -> None:
    """There is no user message before which anything could be history."""
    assert read({"role": "assistant", "content": "a"})[0].final


def test_a_message_may_be_kept_out_and_may_carry_its_own_time_id_and_metadata() -> None:
    """Our extensions."""
    (message,) = read(
        {"role": "user", "content": "secret", "memory": False},
        {"role": "user", "content": "a", "timestamp": 5, "id": 7, "metadata": {"k": 1}},
    )
    assert (message.timestamp_ms, message.external_id, message.metadata) == (5, "7", {"k": 1})


@pytest.mark.parametrize("body", [{}, {"messages": None}, {"messages": []}, {"messages": {}}, {"messages": "hi"}])
def test_messages_must_be_a_list_with_something_in_it(body: dict[str, Any]) -> None:
    """And the field is named."""
    with pytest.raises(InvalidRequest) as caught:
        read_messages(body, LIMITS, session_id=None)
    assert caught.value.field == "messages"


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ("hi", "messages[1]"),
        (None, "messages[1]"),
        ({"content": "no role"}, "messages[1].role"),
        ({"role": "", "content": "a"}, "messages[1].role"),
        ({"role": 5, "content": "a"}, "messages[1].role"),
        ({"role": "user", "content": 5}, "messages[1].content"),
        ({"role": "user", "content": {"text": "a"}}, "messages[1].content"),
        ({"role": "user", "content": "a", "timestamp": "today"}, "timestamp"),
        ({"role": "user", "content": "a", "id": []}, "id"),
    ],
)
def test_a_wrong_message_is_refused_by_name(message: Any, field: str) -> None:
    """Nothing of the request is stored then."""
    with pytest.raises(InvalidRequest) as caught:
        read({"role": "user", "content": "fine"}, message)
    assert caught.value.field == field


def test_limits() -> None:
    """Too many or too long is 413; a question is cut instead."""
    with pytest.raises(TooLarge):
        read(*[{"role": "user", "content": "a"}] * 6)
    with pytest.raises(TooLarge, match=r"messages\[0\]"):
        read({"role": "user", "content": "x" * 51})
    assert len(read({"role": "user", "content": "x" * 51}, cut=True)[0].content) == 50


def test_strange_text_gets_replacement_characters() -> None:
    """NUL and lone surrogates; our own blocks are cut out."""
    block = "<memory_context>\n[MEMORY - just now (x)] old\n</memory_context>"
    assert read({"role": "user", "content": "a\0b\ud800c"})[0].content == "a\ufffdb\ufffdc"
    assert (
        read_messages(
            {"messages": [{"role": "user", "content": f"{block}\n\nnew"}]}, MemorySettings(), session_id=None
        )[0].content
        == "new"
    )


def test_turns_are_the_same_texts() -> None:
    """For the question."""
    assert turns_of(read({"role": "user", "content": "a"})) == [Turn(role="user", text="a")]
