"""Messages of Chat Completions as Anthropic's: turns, order, parts, calls and results."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from models.errors import InvalidRequest
from router.providers.json_values import encode_value
from router.providers.translate_content import translate_messages

MARK = {"type": "ephemeral"}


def translated(*messages: Any, mid_system: bool = False) -> dict[str, Any]:
    """`system` and `messages` as they are sent."""
    conversation = translate_messages(list(messages), takes_system_messages=mid_system)
    value: dict[str, Any] = json.loads(encode_value({"system": conversation.system, "messages": conversation.messages}))
    return value


def blocks_of(*parts: Any) -> list[dict[str, Any]]:
    """A user message of these parts, as blocks."""
    blocks: list[dict[str, Any]] = translated({"role": "user", "content": list(parts)})["messages"][0]["content"]
    return blocks


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


def call(call_id: str, name: str = "f", arguments: Any = "{}") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def data_url(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def test_instructions_become_the_system_prompt_in_order() -> None:
    """Those of the developer too; later ones join them where the model takes none among its messages."""
    assert translated(
        {"role": "system", "content": "A"},
        {"role": "developer", "content": [text("B", cache_control=MARK), text(" ")]},
        {"role": "user", "content": "hi"},
        {"role": "system", "content": "C"},
    ) == {
        "system": [text("A"), text("B", cache_control=MARK), text("C")],
        "messages": [{"role": "user", "content": [text("hi")]}],
    }


def test_later_instructions_stay_behind_the_next_user_turn() -> None:
    """The prompt before them does not change, and Anthropic wants a user turn in front of them."""
    sent = translated(
        {"role": "system", "content": "A"},
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "2"},
        {"role": "system", "content": "B"},
        {"role": "developer", "content": "C"},
        {"role": "user", "content": "3"},
        {"role": "assistant", "content": "4"},
        {"role": "system", "content": "D"},
        mid_system=True,
    )

    assert sent["system"] == [text("A"), text("D")]  # nobody speaks after D
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "user", "system", "assistant"]
    assert sent["messages"][3]["content"] == [text("B"), text("C")]


def test_instructions_alone_are_spoken_by_the_user() -> None:
    """OpenAI answers them; Anthropic demands a message."""
    assert translated({"role": "system", "content": "Say hi."}) == {
        "system": [],
        "messages": [{"role": "user", "content": [text("Say hi.")]}],
    }


def test_turns_of_one_role_merge() -> None:
    """Blank ones vanish, since Anthropic refuses empty text."""
    sent = translated(
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
        {"role": "assistant", "content": None, "refusal": "e"},
        {"role": "user", "content": "f"},
    )["messages"]

    assert sent == [
        {"role": "user", "content": [text("a"), text("b"), text("c")]},
        {"role": "assistant", "content": [text("d"), text("e")]},
        {"role": "user", "content": [text("f")]},
    ]


def test_tool_results_are_one_turn_before_any_text() -> None:
    """Ids are kept, arguments become an object byte for byte, and the user's words come last."""
    conversation = translate_messages(
        [
            {"role": "user", "content": "go"},
            {
                "role": "assistant",
                "content": "Looking.",
                "tool_calls": [
                    call("t1", "f", '{"x": 1.50,  "y":"\\u00e9"}'),
                    {**call("t2", "g"), "cache_control": MARK},
                ],
            },
            {"role": "user", "content": "hurry"},
            {"role": "tool", "tool_call_id": "t2", "content": "", "is_error": True},
            {
                "role": "tool",
                "tool_call_id": "t1",
                "content": [text("1"), {"type": "image_url", "image_url": {"url": "https://x.test/i"}}],
                "cache_control": MARK,
            },
        ],
        takes_system_messages=False,
    )
    body = encode_value(conversation.messages)
    sent = json.loads(body)

    assert conversation.tool_names == ["f", "g"]
    assert b'"input":{"x": 1.50,  "y":"\\u00e9"}' in body
    assert sent[1]["content"] == [
        text("Looking."),
        {"type": "tool_use", "id": "t1", "name": "f", "input": {"x": 1.5, "y": "é"}},
        {"type": "tool_use", "id": "t2", "name": "g", "input": {}, "cache_control": MARK},
    ]
    assert sent[2] == {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "t2", "content": "", "is_error": True},
            {
                "type": "tool_result",
                "tool_use_id": "t1",
                "content": [text("1"), {"type": "image", "source": {"type": "url", "url": "https://x.test/i"}}],
                "cache_control": MARK,
            },
            text("hurry"),
        ],
    }


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", {}),
        (None, {}),
        (" ", {}),
        ({"a": 1}, {"a": 1}),
        ('{"a":', {"INVALID_JSON": '{"a":'}),
        ("[1]", {"INVALID_JSON": "[1]"}),
        ('{"a":NaN}', {"INVALID_JSON": '{"a":NaN}'}),
        ('{"a":"\\ud800"}', {"a": "\ud800"}),
    ],
)
def test_arguments_are_always_an_object(arguments: Any, expected: Any) -> None:
    """A call that was cut off in its arguments must not make the whole conversation unusable."""
    sent = translated({"role": "assistant", "content": None, "tool_calls": [call("1", "f", arguments)]})

    assert sent["messages"][0]["content"][0]["input"] == expected


def test_thinking_goes_back_as_it_came_and_first() -> None:
    """Signatures and redacted thinking; what has no signature is refused by Anthropic and stays behind."""
    thinking = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    redacted = {"type": "redacted_thinking", "data": "x"}
    sent = translated(
        {
            "role": "assistant",
            "content": "yes",
            "reasoning_content": "hm",
            "thinking_blocks": [
                {"index": 0, **thinking},
                redacted,
                {"type": "thinking", "thinking": "x"},
                7,
                {"type": []},
            ],
            "tool_calls": [call("1")],
        },
        {"role": "user", "content": "?"},
    )["messages"]

    assert sent[0]["content"][:3] == [thinking, redacted, text("yes")]
    assert [block["type"] for block in sent[0]["content"]] == ["thinking", "redacted_thinking", "text", "tool_use"]


def test_a_prefill_does_not_end_in_space() -> None:
    """Anthropic refuses that."""
    assert translated({"role": "assistant", "content": "The answer is "})["messages"][0]["content"] == [
        text("The answer is")
    ]


def test_images_and_files_become_sources() -> None:
    """Data URLs are taken apart, other URLs are left for Anthropic to fetch; cache marks are kept."""
    png, pdf = data_url("image/png", b"png"), data_url("application/pdf", b"pdf")
    blocks = blocks_of(
        {"type": "image_url", "image_url": {"url": png, "detail": "low"}, "cache_control": MARK},
        {"type": "image_url", "image_url": {"url": data_url("image/jpg", b"j")}},
        {"type": "image_url", "image_url": "https://x.test/i.png"},
        {"type": "input_image", "image_url": "DATA:image/gif;base64,AA=="},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": pdf}},
        {"type": "file", "file": {"file_data": "cGRm"}},
        {"type": "file", "file": {"file_data": data_url("text/markdown", "# Ä".encode())}},
        {"type": "file", "file": {"file_data": "data:,a%20b"}},
        {"type": "file", "file": {"file_data": "https://x.test/a.pdf"}},
        {"type": "file", "file": {"file_id": "file_1", "filename": "b.pdf"}},
        {"type": "file", "file": {"file_data": data_url("image/webp", b"w")}},
    )
    base = {"type": "base64", "media_type": "application/pdf", "data": "cGRm"}

    assert [block["source"] for block in blocks] == [
        {"type": "base64", "media_type": "image/png", "data": "cG5n"},
        {"type": "base64", "media_type": "image/jpeg", "data": "ag=="},
        {"type": "url", "url": "https://x.test/i.png"},
        {"type": "base64", "media_type": "image/gif", "data": "AA=="},
        base,
        base,
        {"type": "text", "media_type": "text/plain", "data": "# Ä"},
        {"type": "text", "media_type": "text/plain", "data": "a b"},
        {"type": "url", "url": "https://x.test/a.pdf"},
        {"type": "file", "file_id": "file_1"},
        {"type": "base64", "media_type": "image/webp", "data": "dw=="},
    ]
    kinds = ["image"] * 4 + ["document"] * 6 + ["image"]
    assert [block["type"] for block in blocks] == kinds
    assert blocks[0]["cache_control"] == MARK
    assert [blocks[4]["title"], blocks[9]["title"]] == ["a.pdf", "b.pdf"]


def test_parts_in_anthropics_own_form_pass() -> None:
    """So do new ones; bare strings are text, and a mark on the message goes to its last block."""
    native = {"type": "search_result", "source": "x", "content": [], "cache_control": MARK}
    sent = translated({"role": "user", "content": ["a", native, text("b", x=1)], "cache_control": MARK})

    assert sent["messages"][0]["content"] == [text("a"), native, text("b", cache_control=MARK)]


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ("x", "messages[0]"),
        ({"role": "function", "name": "f", "content": "1"}, "messages[0].role"),
        ({"role": ["user"], "content": "1"}, "messages[0].role"),
        ({"role": "user", "content": 7}, "messages[0].content"),
        ({"role": "user", "content": [7]}, "messages[0].content[0]"),
        ({"role": "user", "content": [{"type": []}]}, "messages[0].content[0]"),
        ({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}, "messages[0].content[0]"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "messages[0].content[0].image_url"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": "data:x"}]},
            "messages[0].content[0].image_url",
        ),
        ({"role": "user", "content": [{"type": "file", "file": {}}]}, "messages[0].content[0]"),
        ({"role": "system", "content": [{"type": "image_url", "image_url": "http://x"}]}, "messages[0].content"),
        ({"role": "tool", "content": "1"}, "messages[0].tool_call_id"),
        ({"role": "assistant", "tool_calls": [{"id": "1"}]}, "messages[0].tool_calls[0]"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}, "messages[0].tool_calls[0]"),
        ({"role": "assistant", "function_call": {"name": "f"}}, "messages[0].function_call"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name(message: Any, field: str) -> None:
    """Never dropped without a word."""
    with pytest.raises(InvalidRequest) as caught:
        translated(message)

    assert caught.value.field == field
