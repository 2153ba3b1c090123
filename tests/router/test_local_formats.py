"""`local/recall` speaks every wire format as the providers' SDKs read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from router.local_formats import (
    LocalReply,
    chat_body,
    chat_events,
    gemini_body,
    gemini_events,
    messages_body,
    messages_events,
    responses_body,
    responses_events,
    split_pieces,
)
from router.providers.anthropic_messages import ANTHROPIC_MESSAGES
from router.providers.base import ChatRequest, Reply, Signal, WireFormat
from router.providers.gemini import GeminiFormat
from router.providers.openai_chat import OPENAI_CHAT
from router.providers.openai_responses import OPENAI_RESPONSES
from tests.router.test_wire_formats import DIALECTS, DOG, Dialect, every_dialect
from tests.running import open_server, settings_for

TEXT = (
    'You told me on Wed, Jun 3: "My dog is called Rex."\n\nAlso in your memories:\n- Fri, Jun 5: "Größe \U0001f415 \\ "'
)
SAID = LocalReply(text=TEXT, prompt="What is my dog called?", unique="1", created_s=7)
LOCAL = "local/recall"


def listened(wire_format: WireFormat, body: dict[str, Any], events: list[bytes]) -> tuple[Reply, list[Signal], bool]:
    """What a relay would understand of these events, and whether the stream has come to its end."""
    chat: ChatRequest = wire_format.parse_request(json.dumps({"model": LOCAL, "stream": True, **body}).encode())
    splitter, collector = chat.splitter(event_bytes_max=100_000), chat.collector(text_chars_max=10_000)
    signals = [collector.feed(event) for chunk in events for event in splitter.feed(chunk)]
    return collector.reply(), signals, collector.ended


def data_of(event: bytes) -> dict[str, Any]:
    """The object of one server-sent event."""
    data: dict[str, Any] = json.loads(event.partition(b"data: ")[2])
    return data


@given(st.text())
@example(" \n")
def test_pieces_join_to_the_text(text: str) -> None:
    """Also when it is only space, or empty."""
    assert "".join(split_pieces(text)) == text


# --- Chat Completions ---


def test_a_chat_completion_is_one_for_the_sdk() -> None:
    """Validated by the SDK's own model."""
    parsed = ChatCompletion.model_validate(json.loads(chat_body(SAID)), strict=True)

    assert parsed.choices[0].message.content == TEXT
    assert parsed.choices[0].finish_reason == "stop"
    assert parsed.usage is not None
    assert parsed.usage.prompt_tokens == 6
    assert parsed.usage.total_tokens == 6 + parsed.usage.completion_tokens


def test_chat_events_are_chunks_for_the_sdk() -> None:
    """Role first, the text in pieces, a finish reason, the terminator."""
    *events, done = chat_events(SAID, include_usage=False)
    chunks = [ChatCompletionChunk.model_validate(data_of(event)) for event in events]

    assert done == b"data: [DONE]\n\n"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len(chunks) > 5
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert all(b'"usage"' not in event for event in events)


def test_usage_comes_in_a_chunk_of_its_own_when_asked_for() -> None:
    """Without choices, after the finish reason, and null before."""
    *events, last, _ = chat_events(SAID, include_usage=True)

    assert data_of(last)["choices"] == []
    assert data_of(last)["usage"]["prompt_tokens"] == 6
    assert all(data_of(event)["usage"] is None for event in events)


# --- Responses ---


def test_a_response_is_one_for_the_sdk() -> None:
    """Validated by the SDK's own model."""
    parsed = Response.model_validate(json.loads(responses_body(SAID)), strict=True)

    assert (parsed.output_text, parsed.status, parsed.error) == (TEXT, "completed", None)
    assert parsed.usage is not None
    assert parsed.usage.total_tokens == parsed.usage.input_tokens + parsed.usage.output_tokens


def test_events_of_a_response_are_those_of_the_sdk() -> None:
    """Numbered, named after their type, every one valid, begun and ended as OpenAI does."""
    known: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
    events = responses_events(SAID)
    parsed: list[Any] = [known.validate_python(data_of(event), strict=True) for event in events]

    assert [event.sequence_number for event in parsed] == list(range(len(events)))
    assert all(event.startswith(f"event: {data_of(event)['type']}\n".encode()) for event in events)
    assert [event.type for event in parsed if "delta" not in event.type] == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
        "response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed",
    ]  # fmt: skip
    assert "".join(event.delta for event in parsed if event.type == "response.output_text.delta") == TEXT
    assert data_of(events[-1])["response"] == json.loads(responses_body(SAID))


# --- Messages ---


def test_a_message_has_all_that_the_api_promises() -> None:
    """The SDK's model wants exactly these members."""
    body = json.loads(messages_body(SAID))

    assert body | {"usage": None} == {
        "id": "msg_1", "type": "message", "role": "assistant", "model": LOCAL, "stop_reason": "end_turn",
        "stop_sequence": None, "usage": None, "content": [{"type": "text", "text": TEXT}],
    }  # fmt: skip
    assert body["usage"]["input_tokens"] == 6
    assert body["usage"]["output_tokens"] > 0


def test_events_of_a_message_are_named_and_in_order() -> None:
    """The SDKs skip events without a name; `message_start` holds an empty message, the delta of the end the rest."""
    events = messages_events(SAID)
    datas = [data_of(event) for event in events]

    assert all(event.startswith(f"event: {data['type']}\n".encode()) for event, data in zip(events, datas, strict=True))
    assert [data["type"] for data in datas if data["type"] != "content_block_delta"] == [
        "message_start", "content_block_start", "content_block_stop", "message_delta", "message_stop",
    ]  # fmt: skip
    assert datas[0]["message"]["content"] == []
    assert datas[0]["message"]["stop_reason"] is None
    assert datas[-2]["delta"]["stop_reason"] == "end_turn"
    assert "".join(data["delta"]["text"] for data in datas if data["type"] == "content_block_delta") == TEXT


# --- Gemini ---


def test_a_gemini_reply_has_one_candidate() -> None:
    """With its role, finish reason and usage."""
    body = json.loads(gemini_body(SAID))

    assert body["candidates"] == [
        {"content": {"parts": [{"text": TEXT}], "role": "model"}, "index": 0, "finishReason": "STOP"}
    ]
    assert body["usageMetadata"]["totalTokenCount"] > body["usageMetadata"]["promptTokenCount"] == 6
    assert body["modelVersion"] == LOCAL


def test_gemini_streams_as_events_without_names_or_as_one_array() -> None:
    """The same chunks; the finish reason is in the last one only. google-genai fails on names, comments and [DONE]."""
    events = gemini_events(SAID, sse=True)
    chunks = [data_of(event) for event in events]

    assert all(event.startswith(b"data: {") and event.endswith(b"}\r\n\r\n") for event in events)
    assert json.loads(b"".join(gemini_events(SAID, sse=False))) == chunks
    assert "".join(chunk["candidates"][0]["content"]["parts"][0]["text"] for chunk in chunks) == TEXT
    assert [chunk["candidates"][0].get("finishReason") for chunk in chunks] == [None] * (len(chunks) - 1) + ["STOP"]


@pytest.mark.parametrize("sse", [True, False])
def test_an_empty_reply_is_one_chunk_of_gemini(sse: bool) -> None:
    """Never an empty stream."""
    empty = LocalReply(text="", prompt="", unique="1", created_s=7)
    assert len(gemini_events(empty, sse=sse)) == (1 if sse else 2)


# --- in the eyes of our own relay, and through the server ---


_USER = {"role": "user", "content": "x"}
_CONTENTS = {"contents": [{"role": "user", "parts": [{"text": "x"}]}]}


@pytest.mark.parametrize(
    ("wire_format", "body", "whole", "events", "has_terminator"),
    [
        (OPENAI_CHAT, {"messages": [_USER]}, chat_body(SAID), chat_events(SAID, include_usage=True), True),
        (OPENAI_RESPONSES, {"input": "x"}, responses_body(SAID), responses_events(SAID), True),
        (ANTHROPIC_MESSAGES, {"messages": [_USER], "max_tokens": 9}, messages_body(SAID), messages_events(SAID), True),
        (GeminiFormat(model=LOCAL, stream=True, sse=True), _CONTENTS, gemini_body(SAID), gemini_events(SAID, sse=True),
         False),
        (GeminiFormat(model=LOCAL, stream=True), _CONTENTS, gemini_body(SAID), gemini_events(SAID, sse=False),
         False),
    ],
    ids=[dialect.name for dialect in DIALECTS],
)  # fmt: skip
def test_a_router_in_front_of_this_one_understands_it(
    wire_format: WireFormat, body: dict[str, Any], whole: bytes, events: list[bytes], has_terminator: bool
) -> None:
    """The same text and a finish, read with the parsers that read real providers."""
    parsed = wire_format.parse_reply(whole, text_chars_max=10_000)
    reply, signals, ended = listened(wire_format, body, events)

    assert parsed is not None
    assert (parsed.text, parsed.complete) == (TEXT, True)
    assert (reply.text, reply.complete) == (TEXT, True)
    assert signals.count(Signal.FINISH) == 1
    assert Signal.FAILURE not in signals
    assert ended >= has_terminator


@every_dialect
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_an_offline_server_answers_in_every_format(tmp_path: Path, dialect: Dialect, stream: bool) -> None:
    """With no provider at all; the exchange is stored, and the media type is the one that was asked for."""
    path = (dialect.stream_path if stream else dialect.path).replace("fake/m", LOCAL)
    body = dialect.request(stream=stream)
    body = {**body, "model": LOCAL} if "model" in body else body
    async with open_server(tmp_path / "data", settings_for()) as server:
        await server.ingest(DOG)
        answer = await server.post(path, body)
        assert answer.status_code == 200, answer.text
        stored = (await server.stats())["stored"]

    assert "Rex" in answer.text
    assert answer.headers["content-type"].partition(";")[0] == (dialect.stream_type if stream else "application/json")
    assert answer.headers["x-provider-detected"] == "local"
    assert answer.headers["x-memory-status"] == "ok"
    assert stored == 3, "both sides are stored"
