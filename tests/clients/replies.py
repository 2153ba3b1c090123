"""What a provider says, in every wire format: the same few replies, whole and streamed, complete enough for any SDK.

Owns bytes only, no sockets. Where a test of the product is content with a sketch of a format, this must be the whole
of it: clients check what they read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from tests.fakes.claude import claude_end, claude_events, claude_reply, claude_start, claude_tool

TOOL = "get_weather"
ARGUMENTS = '{"city": "Lisbon"}'
PIECES = ('{"city": ', '"Lisbon"}')
SIGNATURE = "c2lnbmF0dXJl"


def encode(value: Any) -> bytes:
    """JSON."""
    return msgspec.json.encode(value)


def events(values: Iterable[Any], *, named: bool = False, line_end: str = "\n") -> list[bytes]:
    """Server-sent events with this data, named after their `type` if wanted."""
    made = []
    for value in values:
        name = f"event: {value['type']}{line_end}" if named else ""
        made.append(f"{name}data: {encode(value).decode()}{line_end}{line_end}".encode())
    return made


def cut_up(text: str) -> list[str]:
    """A text in pieces, as models speak."""
    return [text[start : start + 5] for start in range(0, len(text), 5)]


# --- Chat Completions ---

CHAT_USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def chat_whole(text: str | None) -> bytes:
    """A chat completion; without a text, a call of the tool."""
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
    if text is None:
        function = {"name": TOOL, "arguments": ARGUMENTS}
        message["tool_calls"] = [{"id": "call_1", "type": "function", "function": function}]
    finish = "stop" if text is not None else "tool_calls"
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1_760_000_000, "model": "gpt-hello"}
    return encode({**head, "choices": [choice], "usage": CHAT_USAGE, "service_tier": "default"})


def chat_stream(text: str | None, *, usage: bool) -> list[bytes]:
    """The same in chunks, with the chunk of token counts if the request asks for it."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    if text is None:
        call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": TOOL, "arguments": ""}}
        deltas = [{"role": "assistant", "content": None, "tool_calls": [call]}]
        deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in PIECES]
    else:
        deltas += [{"content": piece} for piece in cut_up(text)]
    finish = "stop" if text is not None else "tool_calls"
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_760_000_000, "model": "gpt-hello"}
    tail = {"usage": None} if usage else {}
    chunks: list[dict[str, Any]] = [
        {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}], **tail}
        for delta in deltas
    ]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": finish}], **tail})
    if usage:
        chunks.append({**head, "choices": [], "usage": CHAT_USAGE})
    return [*events(chunks), b"data: [DONE]\n\n"]


# --- Responses ---


def response_object(text: str | None, *, status: str = "completed") -> dict[str, Any]:
    """A Response; without a text, with a call of the tool."""
    output = [response_item(text)] if status == "completed" else []
    usage = {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 10,
    }
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_760_000_000,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": "gpt-hello",
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": usage if status == "completed" else None,
        "user": None,
    }


def response_item(text: str | None, *, status: str = "completed") -> dict[str, Any]:
    """Its one output item."""
    done = status == "completed"
    if text is None:
        call = {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": TOOL}
        return {**call, "arguments": ARGUMENTS if done else "", "status": status}
    content = [response_part(text)] if done else []
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": status, "content": content}


def response_part(text: str) -> dict[str, Any]:
    """A part of its message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def responses_whole(text: str | None) -> bytes:
    """A Response."""
    return encode(response_object(text))


def responses_stream(text: str | None) -> list[bytes]:
    """The same as events."""
    at: dict[str, Any] = {"output_index": 0, "item_id": "fc_1" if text is None else "msg_1"}
    within: dict[str, Any] = {**at, "content_index": 0}
    if text is None:
        body: list[dict[str, Any]] = [
            {"type": "response.function_call_arguments.delta", **at, "delta": piece} for piece in PIECES
        ]
        body.append({"type": "response.function_call_arguments.done", **at, "name": TOOL, "arguments": ARGUMENTS})
    else:
        body = [
            {"type": "response.content_part.added", **within, "part": response_part("")},
            *[
                {"type": "response.output_text.delta", **within, "delta": piece, "logprobs": []}
                for piece in cut_up(text)
            ],
            {"type": "response.output_text.done", **within, "text": text, "logprobs": []},
            {"type": "response.content_part.done", **within, "part": response_part(text)},
        ]
    begun = response_object(text, status="in_progress")
    all_of_it: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": response_item(text, status="in_progress")},
        *body,
        {"type": "response.output_item.done", "output_index": 0, "item": response_item(text)},
        {"type": "response.completed", "response": response_object(text)},
    ]
    return events([{**event, "sequence_number": number} for number, event in enumerate(all_of_it)], named=True)


# --- Messages ---


def messages_whole(text: str | None) -> bytes:
    """A Message; without a text, with a call of the tool."""
    if text is None:
        call = {"type": "tool_use", "id": "toolu_1", "name": TOOL, "input": msgspec.json.decode(ARGUMENTS)}
        return claude_reply(call, stop_reason="tool_use")
    return claude_reply({"type": "text", "text": text})


def messages_stream(text: str | None) -> list[bytes]:
    """The same as events."""
    if text is None:
        return [claude_start(), *claude_tool(0, TOOL, *PIECES), *claude_end("tool_use")]
    return claude_events(cut_up(text))


# --- Gemini ---


def gemini_chunks(text: str | None) -> list[dict[str, Any]]:
    """A streamed reply; without a text, a call of the tool with a signature of its thought."""
    parts: list[dict[str, Any]] = [{"text": piece} for piece in cut_up(text or "")]
    if text is None:
        call = {"name": TOOL, "args": msgspec.json.decode(ARGUMENTS)}
        parts = [{"functionCall": call, "thoughtSignature": SIGNATURE}]
    contents = [{"content": {"role": "model", "parts": [part]}, "index": 0} for part in parts]
    usage = {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10}
    head = {"modelVersion": "gemini-hello", "responseId": "resp-1"}
    chunks: list[dict[str, Any]] = [{"candidates": [content], "usageMetadata": usage, **head} for content in contents]
    chunks[-1]["candidates"][0]["finishReason"] = "STOP"
    return chunks


def gemini_whole(text: str | None) -> bytes:
    """The same in one piece."""
    reply = gemini_chunks(text)[-1]
    if text is not None:
        reply["candidates"][0]["content"]["parts"] = [{"text": text}]
    return encode(reply)


def gemini_stream(text: str | None) -> list[bytes]:
    """The same as events, as Google writes them."""
    return events(gemini_chunks(text), line_end="\r\n")
