"""Another model answers when the first one cannot: which answers count, and whose key goes where."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from models.provider_settings import ProviderSettings, Secret
from models.settings import ProvidersSettings
from router.proxying import FALLBACK_STATUSES
from tests.fakes.claude import claude_events
from tests.fakes.provider import (
    FakeProvider,
    Script,
    chat_events,
    open_dead_provider,
    open_fake_provider,
    reply_script,
    stream_script,
)
from tests.running import Client, open_server, settings_for

QUESTION = "What is my dog called?"
MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "c", "stop_reason": "end_turn",
    "content": [{"type": "text", "text": "Hello there."}], "usage": {"input_tokens": 1, "output_tokens": 2},
}  # fmt: skip


@asynccontextmanager
async def open_three(
    tmp_path: Path, *, fallbacks: tuple[str, ...] = ("two/m2",), first: ProviderSettings | None = None
) -> AsyncIterator[tuple[Client, FakeProvider, FakeProvider, FakeProvider]]:
    """A server and its providers `one`, `two` and `claude`; `one/m1` has these fallbacks."""
    async with open_fake_provider() as one, open_fake_provider() as two, open_fake_provider() as claude:
        providers = {
            "one": first or one.settings(api_key="sk-of-one"),
            "two": two.settings(api_key="sk-of-two"),
            "claude": ProviderSettings(
                format="anthropic", base_url=claude.base_url.removesuffix("/v1"), api_key=Secret("sk-of-claude")
            ),
        }
        providers = {name: msgspec.structs.replace(settings, retries_max=0) for name, settings in providers.items()}
        settings = settings_for(
            providers=ProvidersSettings(by_name=providers), fallbacks={"one/m1": fallbacks, "one/alone": ()}
        )
        async with open_server(tmp_path / "data", settings) as server:
            yield server, one, two, claude


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_the_next_model_answers_under_its_own_name_and_key(tmp_path: Path, stream: bool) -> None:
    """For every status that says that another one may do better; the refusal itself is not shown."""
    async with open_three(tmp_path) as (server, one, two, _):
        for status in sorted(FALLBACK_STATUSES):
            one.enqueue(Script(status=status, body=b"refused", headers=[("x-of", "one")]))
            two.enqueue(stream_script() if stream else reply_script())
            answer = await server.chat(QUESTION, model="one/m1", stream=stream)
            assert answer.status_code == 200, answer.text
            assert answer.headers["x-provider-detected"] == "two"
            assert "x-of" not in answer.headers
            if stream:
                assert answer.content == b"".join(chat_events())
        assert await server.contents("dog called Hello") == {QUESTION, "Hello there."}

    assert msgspec.json.decode(one.requests[-1].body)["model"] == "m1"
    assert msgspec.json.decode(two.requests[-1].body)["model"] == "m2"
    assert two.requests[-1].headers["authorization"] == "Bearer sk-of-two"


async def test_a_key_of_the_caller_goes_to_the_first_provider_only(tmp_path: Path) -> None:
    """It was given for that one (design section 8)."""
    async with open_three(tmp_path) as (server, one, two, _):
        one.enqueue(Script(status=503, body=b"busy"))
        answer = await server.chat(QUESTION, model="one/m1", headers={"x-provider-key": "sk-of-the-caller"})
        assert answer.status_code == 200

    assert one.requests[0].headers["authorization"] == "Bearer sk-of-the-caller"
    assert "sk-of-the-caller" not in str(two.requests)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_an_answer_about_the_request_itself_is_final(tmp_path: Path, status: int) -> None:
    """Nobody else is asked."""
    async with open_three(tmp_path) as (server, one, two, _):
        one.enqueue(Script(status=status, body=b"no"))
        answer = await server.chat(QUESTION, model="one/m1")
    assert (answer.status_code, answer.content, two.requests) == (status, b"no", [])


async def test_the_last_answer_counts_whatever_it_is(tmp_path: Path) -> None:
    """With its body and headers, and the user's turn is stored once."""
    async with open_three(tmp_path, fallbacks=("two/m2", "two/m3")) as (server, one, two, _):
        one.enqueue(Script(status=503, body=b"busy"))
        two.enqueue(
            Script(status=429, body=b"slow"), Script(status=429, body=b"slower", headers=[("retry-after", "9")])
        )
        answer = await server.chat(QUESTION, model="one/m1")
        assert await server.contents("dog called") == {QUESTION}
    assert (answer.status_code, answer.content, answer.headers["retry-after"]) == (429, b"slower", "9")


async def test_a_provider_that_is_down_has_its_place_taken(tmp_path: Path) -> None:
    """And one that has no fallback says so."""
    async with open_dead_provider() as dead, open_three(tmp_path, first=dead) as (server, _, two, _):
        answer = await server.chat(QUESTION, model="one/m1")
        assert (answer.status_code, len(two.requests)) == (200, 1)
        assert (await server.chat(QUESTION, model="one/alone")).status_code == 502
    assert len(two.requests) == 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_fallback_may_speak_another_format(tmp_path: Path, stream: bool) -> None:
    """It is translated for it, and back."""
    async with open_three(tmp_path, fallbacks=("claude/c",)) as (server, one, _, claude):
        one.enqueue(Script(status=500, body=b"broken"))
        claude.enqueue(stream_script(claude_events()) if stream else Script(body=msgspec.json.encode(MESSAGE)))
        answer = await server.chat(QUESTION, model="one/m1", stream=stream)
        assert await server.contents("dog called Hello") == {QUESTION, "Hello there."}

    assert claude.requests[0].path == "/v1/messages"
    if stream:
        assert answer.content.endswith(b"data: [DONE]\n\n")
    else:
        assert answer.json()["choices"][0]["message"]["content"] == "Hello there."


async def test_a_reply_that_has_begun_is_not_begun_anew(tmp_path: Path) -> None:
    """The client has its beginning already."""
    async with open_three(tmp_path) as (server, one, two, _):
        one.enqueue(stream_script(chat_events()[:2], ending="cut"))
        answer = await server.chat(QUESTION, model="one/m1", stream=True)
    assert b'"error"' in answer.content
    assert two.requests == []


async def test_a_fallback_that_cannot_be_asked_for_this_is_passed_over(tmp_path: Path) -> None:
    """Anthropic gives one reply, not two; the answer is then that of the model that was asked for."""
    async with open_three(tmp_path, fallbacks=("claude/c",)) as (server, one, _, claude):
        one.enqueue(Script(status=503, body=b"busy"))
        answer = await server.chat(QUESTION, model="one/m1", n=2)
    assert (answer.status_code, answer.content, claude.requests) == (503, b"busy", [])
