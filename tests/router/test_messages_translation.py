"""The whole translation: there and back again, with tools and signed thinking."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import InvalidRequest
from router.providers.base import StreamTranslator, Translation
from router.providers.messages_translation import MessagesTranslation
from tests.fakes.claude import (
    claude_block,
    claude_end,
    claude_events,
    claude_reply,
    claude_start,
    claude_text,
    claude_thinking,
)

ASK = {"role": "user", "content": "hi"}


def translation_of(*messages: Any, **fields: Any) -> MessagesTranslation:
    body = {"model": "claude-sonnet-4-5", "messages": list(messages), **fields}
    return MessagesTranslation(json.dumps(body).encode(), now_s=1_700_000_000)


def test_it_is_a_translation() -> None:
    """Body, whole replies and streams, as the protocol has them."""
    translation: Translation = translation_of(ASK)
    stream: StreamTranslator = translation.stream()

    assert json.loads(translation.body)["messages"][0]["content"] == [{"type": "text", "text": "hi"}]
    assert json.loads(translation.reply(claude_reply(), status=200))["choices"][0]["message"]["content"] == "Hello."
    assert json.loads(translation.reply(b"{}", status=500))["error"]["code"] == "api_error"
    assert stream.feed(b"".join(claude_events())).endswith(b"data: [DONE]\n\n")
    assert stream.end() == b""


def test_the_usage_chunk_follows_the_request() -> None:
    """Only who asked for it gets it."""
    plain, asked = translation_of(ASK, stream=True), translation_of(ASK, stream_options={"include_usage": True})

    assert b"usage" not in plain.stream().feed(b"".join(claude_events()))
    assert b'"prompt_tokens":127' in asked.stream().feed(b"".join(claude_events()))


def test_a_request_that_cannot_be_translated_is_refused_at_once() -> None:
    """Before anything is sent."""
    with pytest.raises(InvalidRequest):
        translation_of(ASK, n=2)


_NAMES = st.text("abcXYZ019_-", min_size=1, max_size=8)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=3,
)
_USES = st.lists(st.tuples(_NAMES, st.dictionaries(st.text(max_size=6), _JSON, max_size=3)), min_size=1, max_size=3)


@settings(max_examples=40)
@given(_USES, st.text(max_size=10), st.text(min_size=1, max_size=10), st.booleans())
def test_what_claude_said_comes_back_as_it_was(uses: Any, text: str, thinking: str, streamed: bool) -> None:
    """Thinking with its signature, words and calls, through the client's history; their results in one turn."""
    blocks = [
        {"type": "thinking", "thinking": thinking, "signature": "c2ln"},
        *([{"type": "text", "text": text}] if text.strip() else []),
        *[
            {"type": "tool_use", "id": f"toolu_{index}", "name": name, "input": tool_input}
            for index, (name, tool_input) in enumerate(uses)
        ],
    ]
    message = _stream_message(blocks) if streamed else _whole_message(blocks)
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "42"} for call in message["tool_calls"]]
    sent = json.loads(translation_of(ASK, message, *results).body)["messages"]

    assert sent[1] == {"role": "assistant", "content": blocks}
    assert [block["tool_use_id"] for block in sent[2]["content"]] == [f"toolu_{index}" for index in range(len(uses))]
    assert len(sent) == 3


def _whole_message(blocks: list[dict[str, Any]]) -> dict[str, Any]:
    reply = json.loads(translation_of(ASK).reply(claude_reply(*blocks, stop_reason="tool_use"), status=200))
    message: dict[str, Any] = reply["choices"][0]["message"]
    return message


def _stream_message(blocks: list[dict[str, Any]]) -> dict[str, Any]:
    """What a client puts together from the deltas."""
    body = translation_of(ASK).stream().feed(b"".join(_events(blocks)))
    message: dict[str, Any] = {"role": "assistant", "content": "", "thinking_blocks": [], "tool_calls": []}
    for event in body.removesuffix(b"data: [DONE]\n\n").strip().split(b"\n\n"):
        delta = json.loads(event.removeprefix(b"data: "))["choices"][0]["delta"]
        message["content"] += delta.get("content") or ""
        message["thinking_blocks"] += delta.get("thinking_blocks", [])
        for call in delta.get("tool_calls", []):
            if call["index"] == len(message["tool_calls"]):
                message["tool_calls"].append(call)
            else:
                message["tool_calls"][call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    return message


def _events(blocks: list[dict[str, Any]]) -> list[bytes]:
    events = [claude_start()]
    for index, block in enumerate(blocks):
        if block["type"] == "thinking":
            events += claude_thinking(index, *block["thinking"])
        elif block["type"] == "text":
            events += claude_text(index, *block["text"])
        else:
            pieces = [{"type": "input_json_delta", "partial_json": piece} for piece in json.dumps(block["input"])]
            events += claude_block(index, {**block, "input": {}}, *pieces)
    return [*events, *claude_end("tool_use")]
