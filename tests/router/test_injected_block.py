"""A block within a request: data inside a JSON string, and gone again when the client sends it back.

Whatever the memories say, in every wire format and either placement.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from models.rendering import ContextItem, render_context
from models.text import clean
from router.providers.anthropic_messages import ANTHROPIC_MESSAGES
from router.providers.base import Injection, WireFormat
from router.providers.gemini import GeminiFormat
from router.providers.openai_chat import OPENAI_CHAT
from router.providers.openai_responses import OPENAI_RESPONSES
from tests.models.test_rendering_attacks import MEMORIES, TEXTS
from tests.running import assistant, user

NOW_MS = int(datetime(2026, 6, 5, 13, 30, tzinfo=UTC).timestamp() * 1000)
EARLIER, REPLY = "I have a dog.", "A fine thing."
GEMINI = GeminiFormat(model="m", stream=False, sse=False)


def chat(text: str) -> dict[str, Any]:
    return {"model": "m", "messages": [user(EARLIER), assistant(REPLY), user(text)]}


def chat_in_parts(text: str) -> dict[str, Any]:
    return {"model": "m", "messages": [user(EARLIER), assistant(REPLY), user([{"type": "text", "text": text}])]}  # type: ignore[arg-type]  # parts are a content, too


def responses(text: str) -> dict[str, Any]:
    return {"model": "m", "input": [user(EARLIER), assistant(REPLY), user(text)]}


def gemini(text: str) -> dict[str, Any]:
    turns = [("user", EARLIER), ("model", REPLY), ("user", text)]
    return {"contents": [{"role": role, "parts": [{"text": said}]} for role, said in turns]}


FORMATS: dict[str, tuple[WireFormat, Callable[[str], dict[str, Any]]]] = {
    "chat": (OPENAI_CHAT, chat),
    "chat, in parts": (OPENAI_CHAT, chat_in_parts),
    "responses": (OPENAI_RESPONSES, responses),
    "messages": (ANTHROPIC_MESSAGES, partial(lambda body, text: {**body(text), "max_tokens": 9}, chat)),
    "gemini": (GEMINI, gemini),
}


def strings_in(value: Any) -> list[str]:
    """Every string of a JSON value."""
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for part in parts for text in strings_in(part)]


@given(
    name=st.sampled_from(list(FORMATS)),
    injection=st.sampled_from(["tail", "system"]),
    memories=MEMORIES,
    said=TEXTS.filter(lambda text: clean(text) != ""),
)
def test_a_block_is_text_in_its_place_and_comes_out_again(
    name: str, injection: Injection, memories: Any, said: str
) -> None:
    """One string more, or one that is longer; the roles stay; sent back, all turns say what they said."""
    wire_format, body_of = FORMATS[name]
    said = said.encode("utf-8", "replace").decode()
    block = render_context([ContextItem(role, text, NOW_MS) for role, text in memories], NOW_MS, UTC)
    block = block.encode("utf-8", "replace").decode()
    raw = msgspec.json.encode(body_of(said))
    parsed = wire_format.parse_request(raw)
    sent = parsed.encode(model="m", block=block, injection=injection)

    before, after = strings_in(msgspec.json.decode(raw)), strings_in(msgspec.json.decode(sent))
    holding = [text for text in after if block in text]
    assert len(holding) == 1, "whole, and once"
    assert len(after) - len(before) in (0, 1, 2, 3)
    roles = [name for name in after if name in ("user", "assistant", "model", "system", "developer")]
    assert len(roles) - len([name for name in before if name in ("user", "assistant", "model", "system")]) in (0, 1)

    said_before = [(turn.role, clean(turn.text)) for turn in parsed.turns()]
    said_again = [(turn.role, clean(turn.text)) for turn in wire_format.parse_request(sent).turns()]
    assert [(role, text.split()) for role, text in said_again] == [(role, text.split()) for role, text in said_before]
