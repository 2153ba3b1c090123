"""Replies of `local/recall` in every wire format, whole and streamed.

Owns their shapes, which are those that the providers' SDKs read; what a reply says, `router.local_recall` decides. Must
never do I/O. Token counts are estimates: a quarter of the characters.
"""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec

from models.memory import LOCAL_RECALL_MODEL

_CHARACTERS_PER_TOKEN = 4
_PIECE = re.compile(r"\s*\S+\s*|\s+")
_PIECE_CHARACTERS = 24


class LocalReply(msgspec.Struct, frozen=True):
    """One reply, before it has a format.

    Attributes:
        prompt: all texts of the request, for the usage.
        unique: makes the ids that the formats give to a reply.
        created_s: seconds since the epoch.
    """

    text: str
    prompt: str
    unique: str
    created_s: int

    @property
    def prompt_tokens(self) -> int:
        """An estimate."""
        return math.ceil(len(self.prompt) / _CHARACTERS_PER_TOKEN)

    @property
    def reply_tokens(self) -> int:
        """An estimate."""
        return math.ceil(len(self.text) / _CHARACTERS_PER_TOKEN)


def split_pieces(text: str) -> list[str]:
    """A text in pieces of a few words, as a model would stream it; joined they are the text."""
    pieces: list[str] = []
    piece = ""
    for match in _PIECE.finditer(text):
        piece += match.group()
        if len(piece) >= _PIECE_CHARACTERS:
            pieces.append(piece)
            piece = ""
    return [*pieces, piece] if piece else pieces


# --- Chat Completions ---


def chat_body(said: LocalReply) -> bytes:
    """A `chat.completion`."""
    message = {"role": "assistant", "content": said.text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return msgspec.json.encode({**_chat_head(said), "choices": [choice], "usage": _chat_usage(said)})


def chat_events(said: LocalReply, *, include_usage: bool) -> list[bytes]:
    """`chat.completion.chunk`s, one bytes object an event, `[DONE]` last.

    With `include_usage` a chunk without choices carries the usage before `[DONE]`, and all others carry null, as OpenAI
    does it. The event with the finish reason is the third last then, the second last otherwise.
    """
    head = {**_chat_head(said), "object": "chat.completion.chunk"}
    usage = {"usage": None} if include_usage else {}
    deltas: list[tuple[dict[str, str], str | None]] = [({"role": "assistant", "content": ""}, None)]
    deltas += [({"content": piece}, None) for piece in split_pieces(said.text)]
    deltas.append(({}, "stop"))
    chunks = []
    for delta, reason in deltas:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        chunks.append({**head, "choices": [choice], **usage})
    if include_usage:
        chunks.append({**head, "choices": [], "usage": _chat_usage(said)})
    return [*map(_event, chunks), b"data: [DONE]\n\n"]


def _chat_head(said: LocalReply) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{said.unique}",
        "object": "chat.completion",
        "created": said.created_s,
        "model": LOCAL_RECALL_MODEL,
    }


def _chat_usage(said: LocalReply) -> dict[str, int]:
    counts = said.prompt_tokens, said.reply_tokens
    return {"prompt_tokens": counts[0], "completion_tokens": counts[1], "total_tokens": sum(counts)}


# --- Responses ---


def responses_body(said: LocalReply) -> bytes:
    """A completed `response`. Nothing of it is kept under its id: `store` is false."""
    return msgspec.json.encode(_response(said, finished=True))


def responses_events(said: LocalReply) -> list[bytes]:
    """The events of one message, numbered, named after their type; `response.completed` is the last."""
    item = {"output_index": 0}
    part = {**item, "item_id": f"msg_{said.unique}", "content_index": 0}
    begun, empty = _response(said, finished=False), _output_text("")
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {"type": "response.output_item.added", **item, "item": _output_message(said, finished=False)},
        {"type": "response.content_part.added", **part, "part": empty},
    ]
    deltas = [{"delta": piece, "logprobs": []} for piece in split_pieces(said.text)]
    events += [{"type": "response.output_text.delta", **part, **delta} for delta in deltas]
    events += [
        {"type": "response.output_text.done", **part, "text": said.text, "logprobs": []},
        {"type": "response.content_part.done", **part, "part": _output_text(said.text)},
        {"type": "response.output_item.done", **item, "item": _output_message(said, finished=True)},
        {"type": "response.completed", "response": _response(said, finished=True)},
    ]
    return [_named_event({**event, "sequence_number": number}) for number, event in enumerate(events)]


def _response(said: LocalReply, *, finished: bool) -> dict[str, Any]:
    return {
        "id": f"resp_{said.unique}",
        "object": "response",
        "created_at": said.created_s,
        "status": "completed" if finished else "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": LOCAL_RECALL_MODEL,
        "output": [_output_message(said, finished=True)] if finished else [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "store": False,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "usage": _responses_usage(said) if finished else None,
    }


def _output_message(said: LocalReply, *, finished: bool) -> dict[str, Any]:
    return {
        "id": f"msg_{said.unique}",
        "type": "message",
        "role": "assistant",
        "status": "completed" if finished else "in_progress",
        "content": [_output_text(said.text)] if finished else [],
    }


def _output_text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _responses_usage(said: LocalReply) -> dict[str, Any]:
    return {
        "input_tokens": said.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": said.reply_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": said.prompt_tokens + said.reply_tokens,
    }


# --- Messages ---


def messages_body(said: LocalReply) -> bytes:
    """A `message` that ended its turn."""
    content = [{"type": "text", "text": said.text}]
    return msgspec.json.encode(_message(said, content, stop_reason="end_turn", output_tokens=said.reply_tokens))


def messages_events(said: LocalReply) -> list[bytes]:
    """`message_start`, one text block in pieces, `message_delta` with the stop reason, `message_stop`."""
    block = {"index": 0}
    deltas = [{"type": "text_delta", "text": piece} for piece in split_pieces(said.text)]
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": _message(said, [], stop_reason=None, output_tokens=0)},
        {"type": "content_block_start", **block, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", **block, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", **block},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": said.reply_tokens},
        },
        {"type": "message_stop"},
    ]
    return [_named_event(event) for event in events]


def _message(
    said: LocalReply, content: list[dict[str, str]], *, stop_reason: str | None, output_tokens: int
) -> dict[str, Any]:
    return {
        "id": f"msg_{said.unique}",
        "type": "message",
        "role": "assistant",
        "model": LOCAL_RECALL_MODEL,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {
            "input_tokens": said.prompt_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": output_tokens,
        },
    }


# --- Gemini ---


def gemini_body(said: LocalReply) -> bytes:
    """A `GenerateContentResponse` with one candidate."""
    return msgspec.json.encode(_candidate(said, said.text, last=True))


def gemini_events(said: LocalReply, *, sse: bool) -> list[bytes]:
    """`GenerateContentResponse`s, the finish reason and the usage in the last one.

    Args:
        sse: server-sent events; without it one JSON array in pieces.
    """
    pieces = split_pieces(said.text) or [""]
    chunks = [msgspec.json.encode(_candidate(said, piece, last=False)) for piece in pieces[:-1]]
    chunks.append(msgspec.json.encode(_candidate(said, pieces[-1], last=True)))
    if sse:
        return [b"data: " + chunk + b"\r\n\r\n" for chunk in chunks]
    return [*((b"," if number else b"[") + chunk for number, chunk in enumerate(chunks)), b"]"]


def _candidate(said: LocalReply, text: str, *, last: bool) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
    usage = {"promptTokenCount": said.prompt_tokens, "totalTokenCount": said.prompt_tokens}
    if last:
        candidate["finishReason"] = "STOP"
        usage |= {
            "candidatesTokenCount": said.reply_tokens,
            "totalTokenCount": said.prompt_tokens + said.reply_tokens,
        }
    return {
        "candidates": [candidate],
        "usageMetadata": usage,
        "modelVersion": LOCAL_RECALL_MODEL,
        "responseId": said.unique,
    }


# --- server-sent events ---


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


def _named_event(data: dict[str, Any]) -> bytes:
    return f"event: {data['type']}\n".encode() + _event(data)
