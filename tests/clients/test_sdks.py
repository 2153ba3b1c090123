"""The vendors' SDKs, newest and oldest that is in wide use, against a whole server."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.clients.running import (
    DOG,
    OWN_KEY,
    QUESTION,
    SERVER_KEY,
    Pair,
    assert_remembers,
    open_pair,
    run_client,
    stored,
    texts_of,
)
from tests.clients.upstream import ANSWERED, HELLO, PICTURE, PIXEL, SUNNY, Call


def assert_memory_and_keys(pair: Pair) -> None:
    """Every chat had its memory where it belongs, and went out with the right key and nothing of ours."""
    calls = pair.upstream.calls()
    assert calls
    for call in calls:
        if call.scene == "off":
            assert b"memory" not in call.recorded.body
        else:
            assert_remembers(call)
        assert call.key == (OWN_KEY if call.scene == "own" else SERVER_KEY)
    for request in pair.upstream.requests:
        assert not [name for name in request.headers if name.startswith("x-memory")]
        sent = b"\n".join([request.path.encode(), request.body, *map(str.encode, request.headers.values())])
        assert b"mk_" not in sent


def assert_block_stays_in_tool_loops(pair: Pair) -> None:
    """A request with the tool's result says for its user what the one before it said, memory and all."""
    before: dict[tuple[str, str], Call] = {}
    for call in pair.upstream.calls("tools"):
        if call.has_tool_result:
            assert users_texts(call) == users_texts(before[call.format, call.model])
        before[call.format, call.model] = call


def users_texts(call: Call) -> list[str]:
    """What a request says for its user."""
    return [text for role, text in texts_of(call) if role == "user" and text]


async def assert_stored(pair: Pair, *expected: tuple[str, str]) -> None:
    """These are in the vault, all of them once, and nothing of tools or of replies that broke off."""
    found = Counter(await stored(pair.server))
    assert {("user", DOG), ("user", QUESTION), *expected} <= set(found)
    assert [said for said, times in found.items() if times > 1] == []
    assert not [text for _, text in found if "<memory_context>" in text or "get_weather" in text]
    assert {text for role, text in found if role == "assistant"} <= {HELLO, SUNNY, PICTURE, ANSWERED}


CLIENTS = [
    ("openai-3", "openai_sdk.py"),
    ("openai-1", "openai_sdk.py"),
    ("anthropic-2", "anthropic_sdk.py"),
    ("anthropic-0", "anthropic_sdk.py"),
    ("google-genai-3", "google_sdk.py"),
    ("google-genai-1", "google_sdk.py"),
    ("npm", "openai_sdk.mjs"),
    ("npm", "anthropic_sdk.mjs"),
    ("npm", "ai_sdk.mjs"),
    ("langchain", "langchain_chat.py"),
    ("llama-index", "llama_index_chat.py"),
    ("litellm", "litellm_client.py"),
]
RETRYING = [("openai-3", "openai_sdk.py"), ("anthropic-2", "anthropic_sdk.py"), ("npm", "openai_sdk.mjs")]


@pytest.mark.parametrize(("name", "script"), CLIENTS)
async def test_everything_that_a_user_does_works(tmp_path: Path, name: str, script: str) -> None:
    """And memory takes part in it."""
    async with open_pair(tmp_path) as pair:
        await run_client(name, script, pair.server, tmp_path)
        assert_memory_and_keys(pair)
        assert_block_stays_in_tool_loops(pair)
        await assert_stored(pair, ("assistant", HELLO), ("assistant", PICTURE))
        for call in pair.upstream.calls("image"):
            assert PIXEL.encode() in call.recorded.body


@pytest.mark.parametrize(("name", "script"), RETRYING)
async def test_a_retry_says_that_it_is_one_and_is_stored_once(tmp_path: Path, name: str, script: str) -> None:
    """The first attempt has stored what the user said."""
    async with open_pair(tmp_path) as pair:
        await run_client(name, script, pair.server, tmp_path, "retries")
        calls = pair.upstream.calls()
        counts = [call.recorded.headers["x-stainless-retry-count"] for call in calls]
        assert counts == ["0", "1"] * (len(counts) // 2)
        assert sorted(await stored(pair.server)) == [("assistant", HELLO), ("user", DOG), ("user", QUESTION)]
