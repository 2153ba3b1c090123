"""Claude conversations and memories: what the user saw, with its times and ids."""

from __future__ import annotations

from models.archives.claude import is_claude, read_claude
from tests.fakes.exports import ROOT_PARENT, claude_conversation, claude_message
from tests.models.archives.found import conversations, lines, reasons, said


def test_a_talk_becomes_lines_with_time_session_id_and_title() -> None:
    talk = claude_conversation(
        "k", [claude_message("a", "human", "I like tea"), claude_message("b", "assistant", "Noted")]
    )

    entries = list(read_claude(talk, "here"))

    assert conversations(entries) == 1
    assert said(entries) == [("user", "I like tea"), ("assistant", "Noted")]
    assert lines(entries)[0] == {
        "role": "user",
        "content": "I like tea",
        "timestamp": 1_735_787_045_679,
        "session_id": "claude:k",
        "id": "claude:k:a",
        "metadata": {"source": "claude", "title": "A talk"},
    }


def test_only_blocks_of_text_count() -> None:
    blocks = [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": "First."},
        {"type": "tool_use", "name": "search", "input": {}},
        {"type": "tool_result", "content": [{"type": "text", "text": "raw"}]},
        {"type": "text", "text": "Second."},
    ]
    answer = claude_message("b", "assistant", "not supported on your current device", content=blocks)

    assert said(read_claude(claude_conversation("k", [answer]), "here")) == [("assistant", "First.\n\nSecond.")]


def test_old_exports_have_text_alone() -> None:
    old = {"uuid": "a", "text": "Hello there", "sender": "human", "created_at": "2023-08-01T00:00:00.000000+00:00"}

    assert said(read_claude(claude_conversation("k", [old]), "here")) == [("user", "Hello there")]


def test_attachments_stand_as_placeholders() -> None:
    message = claude_message(
        "a", "human", "See this", attachments=[{"file_name": "a.txt", "extracted_content": "long"}], files=[{}]
    )

    assert said(read_claude(claude_conversation("k", [message]), "here")) == [
        ("user", "See this\n[attachment: a.txt]\n[attachment]")
    ]


def test_what_was_edited_away_is_left_out() -> None:
    messages = [
        claude_message("a", "human", "question", parent_message_uuid=ROOT_PARENT),
        claude_message("b", "assistant", "old answer", parent_message_uuid="a"),
        claude_message("c", "assistant", "new answer", parent_message_uuid="a"),
    ]

    entries = list(read_claude(claude_conversation("k", messages), "here"))
    older = list(read_claude(claude_conversation("k", messages, current_leaf_message_uuid="b"), "here"))

    assert [text for _, text in said(entries)] == ["question", "new answer"]
    assert reasons(entries) == {"other_branch": 1}
    assert [text for _, text in said(older)] == ["question", "old answer"]


def test_where_a_parent_is_missing_everything_is_read() -> None:
    """Better an answer too many than a conversation that loses its beginning."""
    messages = [
        claude_message("a", "human", "question", parent_message_uuid=ROOT_PARENT),
        claude_message("c", "human", "later", parent_message_uuid="gone"),
    ]

    assert len(said(read_claude(claude_conversation("k", messages), "here"))) == 2


def test_a_block_whose_type_is_no_text_says_nothing() -> None:
    blocks = [{"type": {"a": 1}, "text": "no"}, {"type": ["text"], "text": "no"}, {"type": "text", "text": "Yes."}]
    answer = claude_message("b", "assistant", "", content=blocks)

    assert said(read_claude(claude_conversation("k", [answer]), "here")) == [("assistant", "Yes.")]


def test_memories_become_a_note_a_paragraph() -> None:
    memories = {
        "conversations_memory": "**Work**\n\nAnna builds boats.\n\n---\n\nShe lives in Kiel.",
        "project_memories": {"p": "The boat is red."},
        "account_uuid": "somebody",
    }

    entries = list(read_claude(memories, "here", modified_ms=5))

    assert [line["content"] for line in lines(entries)] == [
        "**Work**",
        "Anna builds boats.",
        "She lives in Kiel.",
        "The boat is red.",
    ]
    assert {line["timestamp"] for line in lines(entries)} == {5}


def test_documents_of_projects_are_no_memories() -> None:
    project = {"uuid": "p", "name": "Boat", "docs": [{"content": "plans"}], "prompt_template": "Be brief"}

    assert is_claude(project)
    assert reasons(read_claude(project, "here")) == {"project": 1}
