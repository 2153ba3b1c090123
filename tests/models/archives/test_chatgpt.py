"""ChatGPT conversations: what the user saw, with its times and ids, and nothing of what was hidden."""

from __future__ import annotations

from typing import Any

import pytest

from models.archives.chatgpt import is_chatgpt, read_chatgpt
from tests.fakes.exports import chatgpt_conversation, chatgpt_message, chatgpt_talk
from tests.models.archives.found import conversations, lines, reasons, said


def one(role: str, parts: list[Any], **fields: Any) -> dict[str, Any]:
    """A conversation of a single message."""
    return chatgpt_conversation("c", [chatgpt_message("m", role, parts, **fields)])


def test_a_talk_becomes_lines_with_time_session_id_and_title() -> None:
    entries = list(read_chatgpt(chatgpt_talk(3, "I like tea", "Noted"), "here"))

    assert conversations(entries) == 1
    assert lines(entries) == [
        {
            "role": "user",
            "content": "I like tea",
            "timestamp": 1_700_003_000_500,
            "session_id": "chatgpt:c3",
            "id": "chatgpt:c3:m3-0",
            "metadata": {"source": "chatgpt", "title": "Talk 3"},
        },
        {
            "role": "assistant",
            "content": "Noted",
            "timestamp": 1_700_003_001_500,
            "session_id": "chatgpt:c3",
            "id": "chatgpt:c3:m3-1",
            "metadata": {"source": "chatgpt", "title": "Talk 3"},
        },
    ]


def test_only_the_branch_that_the_user_sees_is_read() -> None:
    talk = chatgpt_talk(1, "question", "second answer", "thanks a lot")
    first = chatgpt_message("m1-x", "assistant", ["first answer"])
    talk["mapping"]["m1-x"] = {"id": "m1-x", "message": first, "parent": "m1-0", "children": []}

    entries = list(read_chatgpt(talk, "here"))

    assert [text for _, text in said(entries)] == ["question", "second answer", "thanks a lot"]
    assert reasons(entries) == {"other_branch": 1}


@pytest.mark.parametrize("current", [None, "gone", 5])
def test_without_a_current_node_the_latest_leaf_ends_the_path(current: object) -> None:
    talk = chatgpt_talk(1, "question", "answer")
    old = chatgpt_message("old", "assistant", ["old answer"], create_time=1.0)
    talk["mapping"]["old"] = {"id": "old", "message": old, "parent": "m1-0", "children": []}

    assert [text for _, text in said(read_chatgpt(talk | {"current_node": current}, "here"))] == ["question", "answer"]


def test_a_circle_of_parents_ends() -> None:
    talk = chatgpt_talk(1, "question", "answer")
    talk["mapping"]["root"]["parent"] = "m1-1"

    assert len(said(read_chatgpt(talk, "here"))) == 2


@pytest.mark.parametrize(
    ("conversation", "reason"),
    [
        (one("system", ["You are helpful"]), "system"),
        (one("tool", ["result"]), "tool"),
        (one("user", ["About me"], metadata={"is_user_system_message": True}), "hidden"),
        (one("assistant", ["x"], metadata={"is_visually_hidden_from_conversation": True}), "hidden"),
        (one("assistant", ["print(1)"], recipient="python"), "tool"),
        (one("assistant", [], content={"content_type": "code", "text": "print(1)"}), "tool"),
        (one("assistant", [], content={"content_type": "thoughts", "thoughts": []}), "thinking"),
        (one("user", [], content={"content_type": "user_editable_context", "user_profile": "x"}), "hidden"),
        (one("assistant", ["  "]), "empty"),
    ],
)
def test_what_the_user_does_not_see_is_left_out(conversation: dict[str, Any], reason: str) -> None:
    entries = list(read_chatgpt(conversation, "here"))

    assert said(entries) == []
    assert reasons(entries) == {reason: 1}


def test_images_stand_as_placeholders_and_spoken_words_as_words() -> None:
    image = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://x"}
    voice = [
        {"content_type": "audio_transcription", "text": "Remind me of Anna"},
        {"content_type": "audio_asset_pointer", "asset_pointer": "sediment://x"},
    ]

    assert said(read_chatgpt(one("user", [image, "What is this?"]), "here")) == [("user", "[image]\n\nWhat is this?")]
    assert said(read_chatgpt(one("user", [image]), "here")) == [("user", "[image]")]
    assert said(read_chatgpt(one("user", voice), "here")) == [("user", "Remind me of Anna")]
    assert said(read_chatgpt(one("user", voice[1:]), "here")) == [("user", "[audio]")]


def test_marks_of_web_citations_are_taken_out() -> None:
    text = "It rains.\ue200cite\ue202turn0search0\ue202turn0search1\ue201 Often."

    assert said(read_chatgpt(one("assistant", [text]), "here")) == [("assistant", "It rains. Often.")]


def test_a_message_without_a_time_comes_with_the_one_before() -> None:
    talk = chatgpt_talk(0, "question", "answer", "more")
    talk["mapping"]["m0-0"]["message"]["create_time"] = None
    talk["mapping"]["m0-2"]["message"]["create_time"] = None

    assert [line["timestamp"] for line in lines(read_chatgpt(talk, "here"))] == [
        1_700_000_000_000,
        1_700_000_001_500,
        1_700_000_001_500,
    ]


def test_ids_are_those_of_the_conversation_or_none() -> None:
    """Converted files repeat short ids in every conversation; what is taken for known would be lost."""
    talk = chatgpt_talk(1, "question")
    uuid = "8d2a5c7e-1b3f-4a6d-9c8e-0f1e2d3c4b5a"
    nameless = {**talk, "id": None, "conversation_id": None}
    first = lines(read_chatgpt(nameless, "here"))[0]
    talk["mapping"]["m1-0"]["message"]["id"] = uuid

    assert "id" not in first
    assert "session_id" not in first
    assert lines(read_chatgpt(nameless, "here"))[0]["id"] == f"chatgpt:{uuid}"


def test_conversations_are_told_by_their_tree() -> None:
    assert is_chatgpt(chatgpt_talk(1, "x"))
    assert not is_chatgpt({"mapping": []})
