"""Streams of Anthropic as those of Chat Completions: same chunks for any chunking, no end that was not announced."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.providers.base import Signal
from router.providers.openai_reply import ChatCollector
from router.providers.translate_stream import MessagesStream
from router.sse import EventSplitter
from tests.fakes.claude import (
    PING,
    claude_block,
    claude_end,
    claude_error,
    claude_event,
    claude_events,
    claude_start,
    claude_text,
    claude_thinking,
    claude_tool,
)

DONE = b"data: [DONE]\n\n"
EVERYTHING = [
    claude_start(service_tier="priority"),
    PING,
    *claude_thinking(0, "Let me ", "think."),
    *claude_block(1, {"type": "redacted_thinking", "data": "xyz"}),
    *claude_text(2, "Grüße \u2028", "🙂."),
    *claude_block(
        3,
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        {"type": "input_json_delta", "partial_json": "{}"},
    ),
    *claude_tool(4, "first", '{"a"', ": 1.50}"),
    PING,
    *claude_tool(5, "second"),
    claude_event("x_new", data=1),
    *claude_end("tool_use"),
]


def translate(*chunks: bytes, include_usage: bool = False, event_bytes_max: int = 100_000) -> bytes:
    stream = MessagesStream(include_usage=include_usage, now_s=1_700_000_000, event_bytes_max=event_bytes_max)
    return b"".join([*[stream.feed(chunk) for chunk in chunks], stream.end()])


def chunks_of(body: bytes) -> list[dict[str, Any]]:
    """The decoded chunks; `[DONE]` is left out."""
    events = EventSplitter(event_bytes_max=100_000).feed(body)
    return [json.loads(event.data) for event in events if event.data != b"[DONE]"]


def deltas_of(body: bytes) -> list[dict[str, Any]]:
    return [choice["delta"] for chunk in chunks_of(body) for choice in chunk["choices"]]


def test_a_stream_becomes_chunks() -> None:
    """The role first, then the words, then why it ended."""
    body = translate(*claude_events())
    head = {
        "id": "chatcmpl-01abc",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "claude-sonnet-4-5",
    }
    choice = {"index": 0, "logprobs": None, "finish_reason": None}
    deltas = [{"role": "assistant", "content": ""}, {"content": "Hel"}, {"content": "lo "}, {"content": "there."}]

    assert chunks_of(body) == [
        *[{**head, "choices": [{**choice, "delta": delta}]} for delta in deltas],
        {**head, "choices": [{**choice, "delta": {}, "finish_reason": "stop"}]},
    ]
    assert body.endswith(DONE)
    assert b"\n\n: ping\n\n" in body


def test_every_event_goes_out_with_its_last_byte() -> None:
    """Nothing waits for what comes after it."""
    stream = MessagesStream(include_usage=False, now_s=1)
    for event in claude_events()[:-2]:
        says = b"text_delta" in event or b"message_start" in event or event == PING
        assert bool(stream.feed(event)) is says


def test_tools_are_counted_from_nought() -> None:
    """By their order among the tools, not by block; a call without arguments has an empty object."""
    calls = [call for delta in deltas_of(translate(*EVERYTHING)) for call in delta.get("tool_calls", [])]

    assert calls == [
        {"index": 0, "id": "toolu_first", "type": "function", "function": {"name": "first", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"a"'}},
        {"index": 0, "function": {"arguments": ": 1.50}"}},
        {"index": 1, "id": "toolu_second", "type": "function", "function": {"name": "second", "arguments": ""}},
        {"index": 1, "function": {"arguments": "{}"}},
    ]


def test_input_that_comes_with_the_block_is_passed_on() -> None:
    """Some servers that imitate the format send no deltas."""
    block = {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}
    deltas = deltas_of(translate(claude_start(), *claude_block(0, block), *claude_end("tool_use")))

    assert deltas[2]["tool_calls"][0]["function"]["arguments"] == '{"a":1}'


def test_thinking_is_read_as_it_comes_and_carried_whole() -> None:
    """Signed, so that the client can send it back; the index is for SDKs that merge lists."""
    deltas = deltas_of(translate(*EVERYTHING))

    assert [delta["reasoning_content"] for delta in deltas if "reasoning_content" in delta] == ["Let me ", "think."]
    assert [block for delta in deltas for block in delta.get("thinking_blocks", [])] == [
        {"index": 0, "type": "thinking", "thinking": "Let me think.", "signature": "c2ln"},
        {"index": 1, "type": "redacted_thinking", "data": "xyz"},
    ]


def test_endless_thinking_is_not_kept() -> None:
    """It is passed on, but there is no block to replay."""
    thinking = ["x" * 3_000_000] * 2
    body = translate(claude_start(), *claude_thinking(0, *thinking), *claude_end(), event_bytes_max=10**7)

    assert b"thinking_blocks" not in body
    assert body.count(b"reasoning_content") == 2


def test_usage_is_for_those_who_asked() -> None:
    """A chunk of its own at the end, null in all others; the last counts hold."""
    body = translate(*EVERYTHING, include_usage=True)
    chunks = chunks_of(body)

    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == {
        "prompt_tokens": 127,
        "completion_tokens": 5,
        "total_tokens": 132,
        "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 20},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    assert {chunk["service_tier"] for chunk in chunks} == {"priority"}
    assert b"usage" not in translate(*EVERYTHING)


def test_a_refusal_is_explained_with_the_finish() -> None:
    """As in a whole reply."""
    end = claude_end("refusal", stop_details={"type": "refusal", "explanation": "Not this."})
    chunks = chunks_of(translate(claude_start(), *end))

    assert chunks[-1]["choices"][0]["delta"] == {"refusal": "Not this."}
    assert chunks[-1]["choices"][0]["finish_reason"] == "content_filter"


@pytest.mark.parametrize("kept", range(len(claude_events())))
def test_a_stream_that_was_cut_announces_no_end(kept: int) -> None:
    """No finish, no `[DONE]`: the relay says that it broke off."""
    body = translate(*claude_events()[:kept])
    collector = ChatCollector(text_chars_max=100)
    signals = [collector.feed(event) for event in EventSplitter(event_bytes_max=10_000).feed(body)]

    assert set(signals) <= {Signal.NOTHING}
    assert not collector.ended


def test_a_terminator_without_its_blank_line_counts() -> None:
    """The body ended properly right behind it."""
    assert translate(b"".join(claude_events()).rstrip(b"\n")).endswith(DONE)


def test_errors_end_the_stream() -> None:
    """In OpenAI's shape; whatever follows is not passed on, least of all an end."""
    body = translate(claude_start(), *claude_text(0, "par"), claude_error(), *claude_events())

    assert chunks_of(body)[-1] == {
        "error": {"message": "Overloaded", "type": "server_error", "param": None, "code": "overloaded"}
    }
    assert DONE not in body


@pytest.mark.parametrize(
    "bad",
    [
        b"event: content_block_delta\ndata: {broken\n\n",
        b"event: error\ndata: garbage\n\n",
        claude_event("content_block_delta", index=0, delta={"type": "text_delta", "text": "x" * 2000}),
    ],
)
def test_what_cannot_be_translated_ends_the_stream(bad: bytes) -> None:
    """To go on without it would lose words silently."""
    body = translate(claude_start(), bad, *claude_end(), event_bytes_max=1000)

    assert "error" in chunks_of(body)[-1]
    assert DONE not in body


def test_events_nobody_knows_are_left_out() -> None:
    """New kinds of events, blocks and deltas come without warning."""
    odd = [
        b"event: x_new\ndata: {broken\n\n",
        b"data: 7\n\n",
        b": comment\n\n",
        claude_event("content_block_delta", index=9, delta={"type": "input_json_delta", "partial_json": "{}"}),
        claude_event("content_block_stop", index=9),
        *claude_block(9, {"type": "x_new", "text": "x"}, {"type": "citations_delta", "citation": {}}),
    ]

    assert translate(claude_start(), *odd, *claude_end()) == translate(claude_start(), *claude_end())


@given(st.data())
def test_any_chunking_gives_the_same_bytes(data: st.DataObject) -> None:
    """Events, lines and characters may be cut anywhere; CRLF is as good as LF."""
    events = data.draw(st.sampled_from([EVERYTHING, [*EVERYTHING[:9], claude_error()], EVERYTHING[:-1]]))
    whole = b"".join(events).replace(b"\n", data.draw(st.sampled_from([b"\n", b"\r\n", b"\r"])))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=20)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]

    assert translate(*pieces, include_usage=True) == translate(*events, include_usage=True)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=3,
)
_KINDS = (
    "message_start content_block_start content_block_delta content_block_stop message_delta message_stop error ping"
)
_INNER = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["text", "tool_use", "thinking", "input_json_delta", "thinking_delta", "signature_delta"]
        )
        | _JSON
    },
    optional=dict.fromkeys(
        ["text", "id", "name", "input", "thinking", "signature", "partial_json", "usage", "model", "stop_reason"], _JSON
    ),
)
_EVENTS = st.fixed_dictionaries(
    {"type": st.sampled_from(_KINDS.split()) | _JSON},
    optional={**dict.fromkeys(["message", "delta", "content_block"], _INNER | _JSON), "usage": _JSON, "error": _JSON},
)


@settings(max_examples=40)
@given(st.lists(_EVENTS | _JSON, max_size=8), st.booleans())
def test_any_events_become_chunks(values: list[Any], include_usage: bool) -> None:
    """Never a crash; everything that goes out is whole and can be read."""
    body = translate(
        *[b"data: " + msgspec.json.encode(value) + b"\n\n" for value in values], include_usage=include_usage
    )
    splitter = EventSplitter(event_bytes_max=100_000)

    assert all(event.data == b"[DONE]" or json.loads(event.data) for event in splitter.feed(body))
    assert splitter.open_line() is None


def test_the_openai_sdk_reads_the_whole_of_it() -> None:
    """Its accumulating helper, which is strict about lists, puts everything together."""
    import httpx2  # the SDK's HTTP client

    body = translate(*EVERYTHING, include_usage=True)
    transport = httpx2.MockTransport(
        lambda _: httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=body)
    )
    client = openai.OpenAI(api_key="x", base_url="http://sdk.test/v1", http_client=httpx2.Client(transport=transport))
    with client.chat.completions.stream(model="m", messages=[{"role": "user", "content": "x"}]) as stream:
        completion = stream.get_final_completion()
    message = completion.choices[0].message

    assert message.content == "Grüße \u2028🙂."
    assert completion.choices[0].finish_reason == "tool_calls"
    assert message.tool_calls is not None
    assert [(call.id, call.function.arguments) for call in message.tool_calls] == [
        ("toolu_first", '{"a": 1.50}'),
        ("toolu_second", "{}"),
    ]
    assert message.model_extra is not None
    assert len(message.model_extra["thinking_blocks"]) == 2
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == 127
