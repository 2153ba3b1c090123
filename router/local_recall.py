"""`local/recall`: a built-in model that answers from the vault's best memories, with no provider and no LLM.

Owns its wording and its Chat Completions shapes. Must never say more than the memories do: it quotes, it does not
infer. The same memories and question always give the same reply.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import msgspec

from models.memory import LOCAL_RECALL_MODEL, Role

ITEMS_MAX = 5
"""Memories in one reply: a reply is read by people, a context by models."""

_OTHER_CHARACTERS_MAX = 300
_CHARACTERS_PER_TOKEN = 4
_PIECE = re.compile(r"\s*\S+\s*|\s+")
_PIECE_CHARACTERS = 24
NOTHING_FOUND = "I do not find anything about that in your memories."


class RecalledItem(msgspec.Struct, frozen=True):
    """One memory to answer from.

    Attributes:
        when: the time as a person reads it, e.g. "Wed, Jun 3, 9:14 AM".
        timestamp_ms: the same time, to tell which statement is the newest.
    """

    text: str
    role: Role
    when: str
    timestamp_ms: int


def reply_text(recalled: Sequence[RecalledItem], *, items_max: int = ITEMS_MAX) -> str:
    """The reply that these memories give.

    Args:
        recalled: only relevant ones, the best first.

    Returns:
        The best memory first and verbatim; the others, shortened, in a list that marks the newest statement.
    """
    items = _distinct(recalled)[:items_max]
    if not items:
        return NOTHING_FOUND
    best, others = items[0], items[1:]
    if not others:
        return _sentence(best)
    newest = max(items, key=lambda item: item.timestamp_ms)
    lines = [_entry(item, is_newest=item is newest) for item in others]
    suffix = " (the newest on this)" if best is newest else ""
    return "\n".join([f"{_sentence(best)}{suffix}", "", "Also in your memories:", *lines])


def completion(text: str, *, prompt: str, completion_id: str, created_s: int) -> bytes:
    """A whole `chat.completion`. Token counts are estimates: a quarter of the characters.

    Args:
        prompt: all texts of the request, for the usage.
        created_s: seconds since the epoch.
    """
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    body = {
        "id": completion_id,
        "object": "chat.completion",
        "created": created_s,
        "model": LOCAL_RECALL_MODEL,
        "choices": [choice],
        "usage": _usage(prompt, text),
    }
    return msgspec.json.encode(body)


def completion_events(
    text: str, *, prompt: str, completion_id: str, created_s: int, include_usage: bool
) -> list[bytes]:
    """The same reply as server-sent events, one bytes object an event, `[DONE]` last.

    With `include_usage` a chunk without choices carries the usage before `[DONE]`, and all others carry null, as OpenAI
    does it. The event with the finish reason is the third last then, the second last otherwise.
    """
    base = {
        "id": completion_id,
        "object": "chat.completion.chunk",
        "created": created_s,
        "model": LOCAL_RECALL_MODEL,
    }
    deltas: list[tuple[dict[str, str], str | None]] = [({"role": "assistant", "content": ""}, None)]
    deltas += [({"content": piece}, None) for piece in split_pieces(text)]
    deltas.append(({}, "stop"))
    events = []
    for delta, reason in deltas:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        chunk = {**base, "choices": [choice], **({"usage": None} if include_usage else {})}
        events.append(_event(chunk))
    if include_usage:
        events.append(_event({**base, "choices": [], "usage": _usage(prompt, text)}))
    events.append(b"data: [DONE]\n\n")
    return events


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


def _distinct(recalled: Sequence[RecalledItem]) -> list[RecalledItem]:
    seen: dict[str, RecalledItem] = {}
    for item in recalled:
        seen.setdefault(" ".join(item.text.split()).casefold(), item)
    return list(seen.values())


def _sentence(item: RecalledItem) -> str:
    speaker = "You told me" if item.role == "user" else "I told you"
    return f'{speaker} on {item.when}: "{item.text}"'


def _entry(item: RecalledItem, *, is_newest: bool) -> str:
    speaker = "you" if item.role == "user" else "I"
    text = " ".join(item.text.split())
    if len(text) > _OTHER_CHARACTERS_MAX:
        text = text[: _OTHER_CHARACTERS_MAX - 1].rstrip() + "…"
    return f'- {item.when}{", the newest" if is_newest else ""}, {speaker} said: "{text}"'


def _usage(prompt: str, text: str) -> dict[str, int]:
    counts = [math.ceil(len(part) / _CHARACTERS_PER_TOKEN) for part in (prompt, text)]
    return {"prompt_tokens": counts[0], "completion_tokens": counts[1], "total_tokens": sum(counts)}


def _event(chunk: dict[str, object]) -> bytes:
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"
