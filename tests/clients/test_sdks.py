"""The vendors' SDKs, newest and oldest that is in wide use, against a whole server."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import pytest

from tests.clients.running import DOG, OWN_KEY, SERVER_KEY, Pair, assert_remembers, open_pair, run_client, stored
from tests.clients.upstream import HELLO, PICTURE, PIXEL, SUNNY

QUESTION = "What is my dog called?"


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


async def assert_stored(pair: Pair, *expected: tuple[str, str]) -> None:
    """These are in the vault, all of them once, and nothing of tools or of replies that broke off."""
    found = Counter(await stored(pair.server))
    assert {("user", DOG), ("user", QUESTION), *expected} <= set(found)
    assert [said for said, times in found.items() if times > 1] == []
    assert not [text for _, text in found if "<memory_context>" in text or "get_weather" in text]


SDKS = {
    "openai-3": "openai_sdk.py",
    "openai-1": "openai_sdk.py",
    "anthropic-2": "anthropic_sdk.py",
    "anthropic-0": "anthropic_sdk.py",
    "google-genai-3": "google_sdk.py",
    "google-genai-1": "google_sdk.py",
}


@pytest.mark.parametrize("name", SDKS)
async def test_everything_that_a_user_does_works(tmp_path: Path, name: str) -> None:
    """And memory takes part in it."""
    async with open_pair(tmp_path) as pair:
        print(await run_client(name, SDKS[name], pair.server, tmp_path))
        assert_memory_and_keys(pair)
        await assert_stored(pair, ("assistant", HELLO), ("assistant", SUNNY), ("assistant", PICTURE))
        for call in pair.upstream.calls("image"):
            assert PIXEL.encode() in call.recorded.body
        for call in pair.upstream.calls("tools"):
            assert "tools" in call.body


@pytest.mark.parametrize("name", ["openai-3", "anthropic-2"])
async def test_a_retry_says_that_it_is_one_and_is_stored_once(tmp_path: Path, name: str) -> None:
    """The first attempt has stored what the user said."""
    async with open_pair(tmp_path) as pair:
        await run_client(name, SDKS[name], pair.server, tmp_path, "retries")
        counts = [call.recorded.headers["x-stainless-retry-count"] for call in pair.upstream.calls()]
        assert counts == ["0", "1"] * (len(counts) // 2)
        assert sorted(await stored(pair.server)) == sorted(
            [("user", DOG), ("user", QUESTION), ("assistant", HELLO)]
        )
        bodies = [msgspec.json.decode(call.recorded.body) for call in pair.upstream.calls()]
        assert all(one == other for one, other in zip(bodies[::2], bodies[1::2], strict=True))
