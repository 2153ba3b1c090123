"""Whose key goes to a provider, in every format: the request's, the account's or the server's; and none gets out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.actors.store.harm import change
from tests.contract.canaries import Search, all_logs, look_through_files
from tests.fakes.provider import DONE, Script, chat_chunk, chat_reply, stream_script
from tests.router.administered import another_account, call, done, mint
from tests.router.stored_keys import KEY, OPENAI, OTHER_KEY, QUESTION, SERVER_KEY, key_of, open_all
from tests.running import Client, user

CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("openai", "/v1/chat/completions", {"model": "openai/x", "messages": [user(QUESTION)]}),
    ("openai", "/v1/responses", {"model": "openai/x", "input": QUESTION}),
    ("anthropic", "/v1/messages", {"model": "anthropic/x", "max_tokens": 9, "messages": [user(QUESTION)]}),
    ("anthropic", "/v1/chat/completions", {"model": "anthropic/x", "messages": [user(QUESTION)]}),
    ("google", "/v1/chat/completions", {"model": "google/x", "messages": [user(QUESTION)]}),
    ("google", "/v1beta/models/google/x:generateContent", {"contents": [{"parts": [{"text": QUESTION}]}]}),
    ("google", "/v1beta/models/google/x:countTokens", {"contents": [{"parts": [{"text": QUESTION}]}]}),
    ("anthropic", "/v1/messages/count_tokens", {"model": "anthropic/x", "messages": [user(QUESTION)]}),
    ("openai", "/v1/embeddings", {"model": "openai/x", "input": QUESTION}),
    ("openai", "/v1/completions", {"model": "gpt-x", "prompt": QUESTION}),
]


@pytest.mark.parametrize(("name", "path", "body"), CALLS, ids=[f"{name} {path}" for name, path, _ in CALLS])
async def test_the_request_s_key_counts_before_the_account_s_and_that_before_the_server_s(
    tmp_path: Path, name: str, path: str, body: dict[str, Any]
) -> None:
    """In every format, with memory and without; what one account has stored no other one's request is sent with."""
    async with open_all(tmp_path) as (server, provider):
        stranger = await another_account(server, tmp_path / "data")
        other, _ = await mint(server, name="user")

        async def sent(client: Client, **headers: str) -> str:
            answer = await client.post(path, body, headers=headers)
            assert answer.status_code == 200, answer.text
            return key_of(provider.requests[-1])

        assert await sent(other) == SERVER_KEY
        await done(server, "PUT", f"/v1/providers/{name}/key", {"key": KEY})
        assert await sent(other) == KEY  # inherited
        assert await sent(server) == KEY
        assert await sent(other, **{"x-provider-key": "sk-of-the-request"}) == "sk-of-the-request"
        assert await sent(stranger) == SERVER_KEY
        await done(stranger, "PUT", f"/v1/providers/{name}/key", {"key": OTHER_KEY})
        assert [await sent(stranger), await sent(other)] == [OTHER_KEY, KEY]
        await done(server, "DELETE", f"/v1/providers/{name}/key")
        assert [await sent(stranger), await sent(other)] == [OTHER_KEY, SERVER_KEY]


async def test_a_form_goes_out_with_the_account_s_key(tmp_path: Path) -> None:
    """Uploads are planned once their model has come."""
    async with open_all(tmp_path) as (server, provider):
        await done(server, "PUT", OPENAI, {"key": KEY})
        answer = await server.http.post(
            "/v1/audio/transcriptions",
            data={"model": "whisper-1"},
            files={"file": ("a.wav", b"RIFF")},
            headers={"authorization": f"Bearer {server.key}"},
        )
        assert answer.status_code == 200
        assert key_of(provider.requests[-1]) == KEY


async def test_a_fallback_is_sent_the_account_s_key_for_it_and_never_the_request_s(tmp_path: Path) -> None:
    """Nor the account's key for the first provider."""
    async with open_all(tmp_path) as (server, provider):
        body = {"model": "openai/m", "messages": [user(QUESTION)]}
        await done(server, "PUT", OPENAI, {"key": KEY})

        async def sent(**headers: str) -> list[str]:
            provider.requests.clear()
            provider.enqueue(Script(status=503, body=b"busy"))
            answer = await server.post("/v1/chat/completions", body, headers=headers)
            assert answer.headers["x-provider-detected"] == "two"
            return [key_of(request) for request in provider.requests]

        assert await sent() == [KEY, SERVER_KEY]
        await done(server, "PUT", "/v1/providers/two/key", {"key": OTHER_KEY})
        assert await sent() == [KEY, OTHER_KEY]
        assert await sent(**{"x-provider-key": "sk-of-the-request"}) == ["sk-of-the-request", OTHER_KEY]


async def test_models_are_listed_with_the_account_s_keys_and_for_that_account_alone(tmp_path: Path) -> None:
    """A list that was remembered for one account is never another's; without a stored key it is the server's."""
    async with open_all(tmp_path) as (server, provider):
        stranger = await another_account(server, tmp_path / "data")
        await done(server, "PUT", OPENAI, {"key": KEY})
        await done(stranger, "PUT", OPENAI, {"key": OTHER_KEY})
        other, _ = await mint(server, name="user")

        async def seen(client: Client) -> set[str]:
            names = (await done(client, "GET", "/v1/models"))["models"]
            return {name for name in names if name.startswith("openai/")}

        for _ in range(2):
            assert await seen(server) == await seen(other) == {"openai/seen-by-9876"}
            assert await seen(stranger) == {"openai/seen-by-5432"}
        asked = len(provider.requests)
        await done(server, "DELETE", OPENAI)
        assert await seen(server) == {"openai/seen-by-1234"}
        assert len(provider.requests) == asked + 1
        assert (await call(server, "GET", "/v1/models/openai/seen-by-9876")).status_code == 404


# --- what is damaged, and what must not get out ---


async def test_a_damaged_key_is_an_error_and_nobody_else_s_takes_its_place(tmp_path: Path) -> None:
    """In the format of the route. A request that brings a key needs it not; storing it again mends it."""
    async with open_all(tmp_path) as (server, _):
        for name in ("openai", "anthropic", "two"):
            await done(server, "PUT", f"/v1/providers/{name}/key", {"key": KEY})
    flipped = "UPDATE provider_secret SET sealed = flip(sealed)"
    change(tmp_path / "data" / "meta.db", flipped)
    async with open_all(tmp_path) as (server, provider):
        chat = {"model": "openai/m", "messages": [user(QUESTION)]}
        answer = await server.post("/v1/chat/completions", chat)
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "corrupt_row")
        assert "openai is damaged" in answer.json()["error"]["message"]
        answer = await server.post("/v1/messages", {**chat, "model": "anthropic/m", "max_tokens": 9})
        assert (answer.status_code, answer.json()["type"]) == (500, "error")
        answer = await server.post("/v1/embeddings", {"model": "openai/m", "input": "x"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "corrupt_row")
        assert (await call(server, "POST", f"{OPENAI}/check")).json()["code"] == "corrupt_row"
        names = (await done(server, "GET", "/v1/models"))["models"]
        assert {name.partition("/")[0] for name in names} == {"local", "google"}
        assert {key_of(request) for request in provider.requests} == {SERVER_KEY}  # google's list alone
        assert (await done(server, "GET", OPENAI))["last_four"] == "9876"

        provider.enqueue(Script(status=503, body=b"busy"))
        own = await server.post("/v1/chat/completions", chat, headers={"x-provider-key": "sk-of-the-request"})
        assert own.status_code == 503  # the fallback's key is damaged as well, so there is none
        await done(server, "PUT", OPENAI, {"key": KEY})
        assert (await server.post("/v1/chat/completions", chat)).status_code == 200


async def test_a_stored_key_is_blotted_out_of_all_that_a_provider_says(tmp_path: Path) -> None:
    """In errors, replies, streams and headers; and it is in no log, no file and no answer of ours."""
    search = Search()
    with all_logs() as logs:
        async with open_all(tmp_path) as (server, provider):
            await done(server, "PUT", OPENAI, {"key": KEY, "check": True})
            quoting = [("content-type", "application/json"), ("x-debug", f"key={KEY}")]
            said = msgspec.json.encode({"error": {"message": f"{KEY} may not"}})
            provider.enqueue(
                Script(status=401, headers=quoting, body=said),
                Script(headers=quoting, body=chat_reply(f"Your key is {KEY}.")),
                stream_script(
                    [chat_chunk(f"It is {KEY[:9]}"), chat_chunk(f"{KEY}."), chat_chunk(finish_reason="stop"), DONE]
                ),
                Script(status=400, headers=quoting, body=said),
            )
            for path, body in (
                ("/v1/chat/completions", {"model": "openai/x", "messages": [user(QUESTION)]}),
                ("/v1/chat/completions", {"model": "openai/x", "messages": [user(QUESTION)]}),
                ("/v1/chat/completions", {"model": "openai/x", "messages": [user(QUESTION)], "stream": True}),
                ("/v1/embeddings", {"model": "openai/x", "input": "x"}),
            ):
                answer = await server.post(path, body)
                search.look("replies", path, answer.content, (KEY,))
                search.look("headers", path, str(answer.headers.raw), (KEY,))
            assert {key_of(request) for request in provider.requests} == {KEY}
            for path in ("/v1/providers", OPENAI, "/v1/audit", "/metrics"):
                search.look("replies", path, (await call(server, "GET", path)).content, (KEY,))
        look_through_files(search, tmp_path / "data", (KEY,))
    search.look("logs", "all", logs.getvalue(), (KEY,))
    assert search.searches > 0
    assert search.found == []
    assert "request_done" in logs.getvalue()
