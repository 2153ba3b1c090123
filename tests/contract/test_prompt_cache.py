"""A provider's prompt cache survives memory: ten turns with tools, replayed in each wire format.

Providers cache a prompt by its beginning. So whatever stood in front of the last user message of one request must
stand, byte for byte, at the front of the next one; and within a tool loop everything must, the injected block included.
Run with `-s` to see the measured share of each prompt that stays cacheable.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from router.providers.json_bytes import split_array, split_object
from tests.fakes.provider import FakeProvider
from tests.router.test_wire_formats import CHAT, GEMINI, MESSAGES, RESPONSES, Dialect, open_pair, script
from tests.running import Client

TURNS = 10
FACTS = [
    "My sister Ines moved to Lisbon in March and works at the harbour office.",
    "I am allergic to peanuts and to cats.",
    "My dog Rex is afraid of thunder.",
    "We painted the kitchen green last summer.",
    "My train to work leaves at 7:40 from platform 3.",
]
QUESTIONS = ["Where does my sister Ines live?", "What am I allergic to?", "What is my dog afraid of?",
             "Which colour has the kitchen?", "When does my train leave?"]  # fmt: skip
INSTRUCTIONS = "You are a helpful assistant. " * 40

Items = list[dict[str, Any]]


class Talk(msgspec.Struct, frozen=True):
    """How a conversation with tools is written in one format.

    Attributes:
        field: the member that holds it.
        front: what the request holds beside it, in front of it for the model.
        user, calls, results, says: the items of a user's turn, of a tool call, of its result, of a reply.
    """

    dialect: Dialect
    field: str
    front: dict[str, Any]
    user: Callable[[str], Items]
    calls: Callable[[int], Items]
    results: Callable[[int], Items]
    says: Callable[[str], Items]


TALKS = [
    Talk(
        CHAT,
        "messages",
        {"model": "fake/m"},
        lambda text: [{"role": "user", "content": text}],
        lambda n: [{"role": "assistant", "content": None, "tool_calls": [
            {"id": f"call_{n}", "type": "function", "function": {"name": "look", "arguments": "{}"}}]}],
        lambda n: [{"role": "tool", "tool_call_id": f"call_{n}", "content": f"result {n}"}],
        lambda text: [{"role": "assistant", "content": text}],
    ),
    Talk(
        RESPONSES,
        "input",
        {"model": "fake/m", "instructions": INSTRUCTIONS},
        lambda text: [{"role": "user", "content": [{"type": "input_text", "text": text}]}],
        lambda n: [{"type": "function_call", "call_id": f"call_{n}", "name": "look", "arguments": "{}"}],
        lambda n: [{"type": "function_call_output", "call_id": f"call_{n}", "output": f"result {n}"}],
        lambda text: [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}],
    ),
    Talk(
        MESSAGES,
        "messages",
        {"model": "fake/m", "max_tokens": 100, "system": INSTRUCTIONS},
        lambda text: [{"role": "user", "content": text}],
        lambda n: [{"role": "assistant", "content": [
            {"type": "tool_use", "id": f"toolu_{n}", "name": "look", "input": {}}]}],
        lambda n: [{"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": f"toolu_{n}", "content": f"result {n}"}]}],
        lambda text: [{"role": "assistant", "content": [{"type": "text", "text": text}]}],
    ),
    Talk(
        GEMINI,
        "contents",
        {"systemInstruction": {"parts": [{"text": INSTRUCTIONS}]}},
        lambda text: [{"role": "user", "parts": [{"text": text}]}],
        lambda n: [{"role": "model", "parts": [{"functionCall": {"name": "look", "args": {}}}]}],
        lambda n: [{"role": "user", "parts": [{"functionResponse": {"name": "look", "response": {"n": n}}}]}],
        lambda text: [{"role": "model", "parts": [{"text": text}]}],
    ),
]  # fmt: skip


async def converse(server: Client, provider: FakeProvider, talk: Talk, *, injection: str) -> list[int]:
    """Hold the conversation: two requests a turn. Returns the place of each request's last user turn."""
    history: Items = [{"role": "system", "content": INSTRUCTIONS}] if talk.dialect is CHAT else []
    anchors = []
    for turn in range(TURNS):
        anchor = len(history)
        history += talk.user(f"{QUESTIONS[turn % len(QUESTIONS)]} ({turn})")
        for call in range(2):
            provider.enqueue(script(talk.dialect, stream=False))
            answer = await server.post(
                talk.dialect.path, {**talk.front, talk.field: history}, headers={"x-memory-injection": injection}
            )
            assert answer.headers["x-memory-status"] == "ok", answer.text
            anchors.append(anchor)
            if call == 0:
                history += [*talk.calls(turn), *talk.results(turn)]
        history += talk.says("Hello there.")
    return anchors


def prompt_of(body: bytes, field: str) -> list[bytes]:
    """What the model reads, in its order: instructions first, then the items."""
    members = split_object(body)
    front = [value for name, value in members.items() if name in {"instructions", "system", "systemInstruction"}]
    return [*front, *split_array(members[field])]


def common_bytes(one: bytes, other: bytes) -> int:
    """Length of what both begin with."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


async def prompts(tmp_path: Path, talk: Talk, *, injection: str) -> tuple[list[list[bytes]], list[int]]:
    """Every prompt that the provider got, and the place of its last user turn among the items."""
    async with open_pair(tmp_path, talk.dialect.provider_format) as (server, provider):
        await server.ingest(*FACTS)
        await server.wait_embedded()
        anchors = await converse(server, provider, talk, injection=injection)
        got = [prompt_of(request.body, talk.field) for request in provider.requests]
    front = len(got[0]) - anchors[0] - 1
    return got, [anchor + front for anchor in anchors]


def cacheable_share(got: list[list[bytes]]) -> float:
    """Bytes of all prompts but the first that the prompt before began with already, as a share."""
    whole = [b"".join(prompt) for prompt in got]
    shared = [common_bytes(one, other) for one, other in pairwise(whole)]
    return sum(shared) / sum(len(prompt) for prompt in whole[1:])


@pytest.mark.parametrize("talk", TALKS, ids=[talk.dialect.name for talk in TALKS])
async def test_ten_turns_with_tools_keep_their_prefix(tmp_path: Path, talk: Talk) -> None:
    """Up to the last user turn from one turn to the next, and wholly within a tool loop."""
    got, anchors = await prompts(tmp_path, talk, injection="tail")

    for number in range(1, len(got)):
        before, now = got[number - 1], got[number]
        same = len(before) if anchors[number] == anchors[number - 1] else anchors[number - 1]
        assert now[:same] == before[:same], f"request {number}"
        assert b"<memory_context>" in now[anchors[number]]
    blocks = [prompt[anchor] for prompt, anchor in zip(got, anchors, strict=True)]
    assert len(set(blocks)) == TURNS, "one block a turn, the same within its tool loop"


@pytest.mark.parametrize("talk", TALKS, ids=[talk.dialect.name for talk in TALKS])
async def test_more_stays_cacheable_than_with_memory_in_the_instructions(tmp_path: Path, talk: Talk) -> None:
    """Where every new block changes the prompt from its front."""
    shares = {}
    for injection in ("tail", "system"):
        got, _ = await prompts(tmp_path / injection, talk, injection=injection)
        shares[injection] = cacheable_share(got)
    print(f"{talk.dialect.name}: cacheable {shares['tail']:.0%} with tail, {shares['system']:.0%} with system")
    assert shares["tail"] > shares["system"]
