"""What is learned of an exchange, format by format: what a user said and what an assistant answered to the end.

Everything else that a request or a reply may carry has a canary here: whoever can write into a tool's result, a system
prompt or a model's thoughts must not be able to write into a vault.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.fakes.provider import Script
from tests.router.test_wire_formats import CHAT, GEMINI, MESSAGES, RESPONSES, Dialect, open_pair
from tests.running import Client, assistant, user

SAID, ANSWERED, EARLIER = "I was told to come at nine.", "You were told to come at nine.", "I told you once."
CANARY = "told by a canary"
CALL: dict[str, Any] = {
    "id": "c1",
    "type": "function",
    "function": {"name": "look", "arguments": f'{{"what": "{CANARY}"}}'},
}


class Learned(msgspec.Struct, frozen=True):
    """An exchange full of canaries in one format: the request, and the provider's reply."""

    dialect: Dialect
    request: dict[str, Any]
    reply: dict[str, Any]


CASES = [
    Learned(
        CHAT,
        {
            "model": "fake/m",
            "messages": [
                {"role": "system", "content": f"{CANARY} 1"},
                {"role": "developer", "content": f"{CANARY} 2"},
                user(EARLIER),
                {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": f"{CANARY} 3"},
                {"role": "tool", "tool_call_id": "c1", "content": f"{CANARY} 4"},
                {"role": "function", "name": "look", "content": f"{CANARY} 5"},
                user(SAID),
            ],
            "tools": [{"type": "function", "function": {"name": "look", "description": f"{CANARY} 6"}}],
            "metadata": {"note": f"{CANARY} 7"},
        },
        {
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "tool_calls",
                    "message": {**assistant(ANSWERED), "tool_calls": [CALL], "reasoning_content": f"{CANARY} 8"},
                }
            ]
        },
    ),
    Learned(
        RESPONSES,
        {
            "model": "fake/m",
            "instructions": f"{CANARY} 1",
            "input": [
                {"role": "developer", "content": f"{CANARY} 2"},
                user(EARLIER),
                {"type": "reasoning", "id": "r1", "summary": [{"type": "summary_text", "text": f"{CANARY} 3"}]},
                {"type": "function_call", "call_id": "c1", "name": "look", "arguments": CALL["function"]["arguments"]},
                {"type": "function_call_output", "call_id": "c1", "output": f"{CANARY} 4"},
                user(SAID),
            ],
            "tools": [{"type": "function", "name": "look", "description": f"{CANARY} 5"}],
        },
        {
            "id": "resp_1",
            "object": "response",
            "status": "completed",
            "output": [
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": f"{CANARY} 6"}]},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": ANSWERED}]},
                {"type": "function_call", "call_id": "c2", "name": "look", "arguments": f'{{"a": "{CANARY} 7"}}'},
            ],
        },
    ),
    Learned(
        MESSAGES,
        {
            "model": "fake/m",
            "max_tokens": 100,
            "system": [{"type": "text", "text": f"{CANARY} 1"}],
            "messages": [
                user(EARLIER),
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": f"{CANARY} 2", "signature": "s"},
                        {"type": "tool_use", "id": "t1", "name": "look", "input": {"what": f"{CANARY} 3"}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "t1", "content": f"{CANARY} 4"},
                        {"type": "text", "text": SAID},
                    ],
                },
            ],
        },
        {
            "type": "message",
            "role": "assistant",
            "stop_reason": "tool_use",
            "content": [
                {"type": "thinking", "thinking": f"{CANARY} 5", "signature": "s"},
                {"type": "text", "text": ANSWERED},
                {"type": "tool_use", "id": "t2", "name": "look", "input": {"what": f"{CANARY} 6"}},
            ],
        },
    ),
    Learned(
        GEMINI,
        {
            "systemInstruction": {"parts": [{"text": f"{CANARY} 1"}]},
            "contents": [
                {"role": "user", "parts": [{"text": EARLIER}]},
                {
                    "role": "model",
                    "parts": [
                        {"text": f"{CANARY} 2", "thought": True},
                        {"functionCall": {"name": "look", "args": {"what": f"{CANARY} 3"}}},
                    ],
                },
                {"role": "user", "parts": [{"functionResponse": {"name": "look", "response": {"r": f"{CANARY} 4"}}}]},
                {"role": "user", "parts": [{"text": SAID}]},
            ],
        },
        {
            "candidates": [
                {
                    "finishReason": "STOP",
                    "content": {
                        "role": "model",
                        "parts": [
                            {"text": f"{CANARY} 5", "thought": True},
                            {"text": ANSWERED},
                            {"functionCall": {"name": "look", "args": {"what": f"{CANARY} 6"}}},
                        ],
                    },
                }
            ]
        },
    ),
]
every_case = pytest.mark.parametrize("case", CASES, ids=[case.dialect.name for case in CASES])


async def learned(server: Client) -> set[tuple[str, str]]:
    """Role and text of everything in the vault."""
    found = await server.search("told", limit=1000)
    assert (await server.stats())["memories"] == len(found)
    return {(item["role"], item["content"]) for item in found}


@every_case
async def test_only_what_users_and_assistants_said_is_learned(tmp_path: Path, case: Learned) -> None:
    """No system or developer prompt, no tool, no thought; with its source, and whose it was."""
    async with open_pair(tmp_path, case.dialect.provider_format) as (server, provider):
        provider.enqueue(Script(body=msgspec.json.encode(case.reply)))
        answer = await server.post(case.dialect.path, case.request)
        assert answer.status_code == 200, answer.text
        assert await learned(server) == {("user", EARLIER), ("user", SAID), ("assistant", ANSWERED)}
        assert {item["source"] for item in await server.search("told")} == {"proxy"}
    assert CANARY.encode() in provider.requests[0].body, "the provider got it all the same"


SAYS_CANARY = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": CANARY}]}
FAILED: list[tuple[str, dict[str, Any]]] = [
    ("an error with 200", {"error": {"message": CANARY}}),
    ("a failed response", {"status": "failed", "output": [SAYS_CANARY]}),
    ("an unfinished response", {"status": "in_progress", "output": [SAYS_CANARY]}),
]


@pytest.mark.parametrize(("what", "reply"), FAILED, ids=[what for what, _ in FAILED])
async def test_a_reply_that_is_none_teaches_nothing(tmp_path: Path, what: str, reply: dict[str, Any]) -> None:
    """What the user said counts."""
    async with open_pair(tmp_path, RESPONSES.provider_format) as (server, provider):
        provider.enqueue(Script(body=msgspec.json.encode(reply)))
        await server.post(RESPONSES.path, {"model": "fake/m", "input": SAID})
        assert await learned(server) == {("user", SAID)}, what


async def test_a_refusal_is_what_the_assistant_said(tmp_path: Path) -> None:
    """The reply is complete, and its user has read it: a later turn may speak of it."""
    refusal = {"role": "assistant", "content": None, "refusal": "I was told not to say."}
    async with open_pair(tmp_path, "openai") as (server, provider):
        provider.enqueue(Script(body=msgspec.json.encode({"choices": [{"finish_reason": "stop", "message": refusal}]})))
        await server.chat(SAID, model="fake/m")
        assert await learned(server) == {("user", SAID), ("assistant", "I was told not to say.")}


async def test_ingest_passes_over_other_roles_and_an_upload_refuses_them(tmp_path: Path) -> None:
    """Clients send whole conversations to the one; the lines of the other were written to be stored."""
    strangers = [{"role": role, "content": f"{CANARY} {role}"} for role in ("system", "developer", "tool", "function")]
    async with open_pair(tmp_path, "openai") as (server, _):
        await server.post("/v1/memory/ingest", {"messages": [*strangers, user(SAID), assistant(ANSWERED)]})
        for line in strangers[1:]:
            answer = await server.post("/v1/memory/upload", msgspec.json.encode(line))
            assert answer.status_code == 400
        assert await learned(server) == {("user", SAID), ("assistant", ANSWERED)}
