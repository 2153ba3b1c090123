"""`POST /v1/chat/completions`: what is stored of an exchange, however it ends."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from router.providers.json_bytes import split_array, split_object
from tests.fakes.provider import (
    DONE,
    FakeProvider,
    Script,
    chat_chunk,
    chat_events,
    chat_reply,
    open_dead_provider,
    open_fake_provider,
    rechunk,
    reply_script,
    stream_script,
)
from tests.patience import PATIENCE_S, PATIENT_PROXY, wait_until
from tests.router.proxied import PATH, open_both, streamed, told
from tests.running import assistant, object_of, open_reply, open_server, settings_for, user

DOG = "My dog is called Rex."
QUESTION = "What is my dog called?"
OPEN = "<memory_context>"


def sent_messages(provider: FakeProvider, request: int = -1) -> list[bytes]:
    return split_array(split_object(provider.requests[request].body)["messages"])


async def test_an_exchange_is_stored_once_although_the_client_resends_its_history(tmp_path: Path) -> None:
    """And although an SDK retries."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": "Secret prompt, told to nobody."}]
    async with open_both(tmp_path) as (server, provider):
        for turn in range(3):
            messages.append(user(f"I told you {turn}."))
            for retry in range(2):
                provider.enqueue(stream_script(chat_events(["You told ", f"me {turn}."])))
                answer = await server.chat(*messages, stream=True, headers={"x-stainless-retry-count": str(retry)})
                assert answer.status_code == 200
            messages.append(assistant(f"You told me {turn}."))
        stored = [item["content"] for item in await server.search("told", limit=100)]

    assert sorted(stored) == sorted(message["content"] for message in messages[1:])


async def test_what_the_client_has_seen_end_is_found_by_the_next_request(tmp_path: Path) -> None:
    """Streamed or not; both sides, with session, model and source."""
    async with open_both(tmp_path) as (server, provider):
        for number in range(8):
            stream = number % 2 == 0
            text = f"Reply{number} told."
            provider.enqueue(stream_script(chat_events([text])) if stream else reply_script(text))
            await server.chat(f"Question{number} told.", stream=stream, session_id=number)
            found = await server.search("told", session_id=number)
            assert {(item["role"], item["content"]) for item in found} == {
                ("user", f"Question{number} told."), ("assistant", text),
            }  # fmt: skip
            assert {(item["session_id"], item["source"]) for item in found} == {(str(number), "proxy")}


async def test_parts_placeholders_and_marks(tmp_path: Path) -> None:
    """An image leaves its mark; a message marked `memory: false` leaves nothing, and goes up without the mark."""
    async with open_both(tmp_path) as (server, provider):
        parts = [{"type": "text", "text": "Told in parts."}, {"type": "image_url", "image_url": {"url": "data:x"}}]
        await server.chat(
            user("Told in secret.", memory=False), assistant("I was told."), {"role": "user", "content": parts}
        )
        assert await told(server) == {"Told in parts.\n[image]", "I was told.", "Hello there."}
    assert json.loads(sent_messages(provider)[0]) == user("Told in secret.")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "headers"),
    [(429, [("retry-after", "17"), ("x-ratelimit-remaining-requests", "0")]), (500, []), (400, []), (302, [])],
)
async def test_an_error_of_the_provider_passes_and_the_users_turn_is_stored(
    tmp_path: Path, status: int, headers: list[tuple[str, str]], stream: bool
) -> None:
    """Status, body and retry hints intact; no redirect is followed."""
    body = b'{"error": {"message": "No.",  "type":"x","code":"slow_down"}}'
    async with open_both(tmp_path) as (server, provider):
        provider.enqueue(Script(status=status, body=body, headers=[("content-type", "application/json"), *headers]))
        answer = await server.chat("I told you.", stream=stream)
        assert (answer.status_code, answer.content) == (status, body)
        assert headers == [pair for pair in answer.headers.items() if pair in headers]
        assert answer.headers["x-memory-status"] == "empty"
        assert await told(server) == {"I told you."}
    assert len(provider.requests) == 1


GARBAGE = [
    b"<html>gateway</html>", b"", b"[]", b'{"choices": []}', b'{"choices": [{"message": 5}]}', b"\xff\xfe\x00", b"null",
]  # fmt: skip


@pytest.mark.parametrize("body", GARBAGE, ids=str)
async def test_garbage_of_the_provider_passes_and_the_users_turn_is_stored(tmp_path: Path, body: bytes) -> None:
    """With 200, as it came."""
    async with open_both(tmp_path) as (server, provider):
        provider.enqueue(Script(body=body, headers=[("content-type", "text/html")]))
        answer = await server.chat("I told you.")
        assert (answer.status_code, answer.content) == (200, body)
        assert await told(server) == {"I told you."}


@pytest.mark.parametrize("ending", ["clean", "cut", "cut_in_chunk"])
async def test_a_stream_that_breaks_off_ends_with_an_error_and_stores_the_users_turn(
    tmp_path: Path, ending: Any
) -> None:
    """What had arrived is passed on; no [DONE] is made up."""
    events = [chat_chunk("Half a re")]
    async with open_both(tmp_path) as (server, provider):
        provider.enqueue(stream_script(events, ending=ending))
        answer = await server.chat("I told you.", stream=True)
        assert answer.content.startswith(events[0])
        assert b'"error"' in answer.content
        assert DONE not in answer.content
        assert await told(server) == {"I told you."}


async def test_a_reply_that_is_cut_is_a_502_and_stores_the_users_turn(tmp_path: Path) -> None:
    """Half of a JSON body is of no use to anybody."""
    async with open_both(tmp_path) as (server, provider):
        provider.enqueue(Script(steps=[chat_reply()[:20]], ending="cut_in_chunk"))
        answer = await server.chat("I told you.")
        assert answer.status_code == 502
        assert object_of(answer)["error"]["code"] == "upstream_unavailable"
        assert answer.headers["x-memory-status"] == "empty"
        assert await told(server) == {"I told you."}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_provider_that_is_down_is_a_502_and_the_users_turn_is_stored(tmp_path: Path, stream: bool) -> None:
    """It is stored before the client hears of the failure."""
    async with open_dead_provider() as dead, open_server(tmp_path / "data", settings_for(dead)) as server:
        for number in range(5):
            answer = await server.chat(f"I told you {number}.", stream=stream)
            assert answer.status_code == 502
            assert object_of(answer)["error"]["type"] == "server_error"
            assert "x-memory-status" in answer.headers
            assert "x-request-id" in answer.headers
            assert f"I told you {number}." in await server.contents("told")


async def test_a_provider_that_does_not_answer_is_a_504(tmp_path: Path) -> None:
    """Within its own time limit."""
    async with open_fake_provider() as provider:
        provider.enqueue(Script(hang=True))
        settings = settings_for(provider.settings(first_byte_timeout_s=0.05))
        async with open_server(tmp_path / "data", settings) as server:
            answer = await server.chat("I told you.")
            assert answer.status_code == 504
            assert await told(server) == {"I told you."}


async def test_a_reply_too_long_to_read_along_is_passed_on_whole(tmp_path: Path) -> None:
    """Not stored; the user's turn is."""
    body = chat_reply("x" * 200_000)
    settings = settings_for(proxy=msgspec.structs.replace(PATIENT_PROXY, reply_bytes_max=10_000))
    async with open_both(tmp_path, settings) as (server, provider):
        provider.enqueue(Script(steps=rechunk(body, [30_000] * 6)))
        answer = await server.chat("I told you.")
        assert answer.content == body
        assert (await server.stats())["memories"] == 1


async def test_a_client_that_leaves_takes_the_provider_along(tmp_path: Path) -> None:
    """The user's turn is stored, half a reply is not. How soon, `test_streaming_server.py` counts."""
    async with open_both(tmp_path) as (server, provider):
        provider.enqueue(stream_script([chat_chunk("Half a re"), trio.Event()]))
        async with open_reply(server, PATH, streamed("I told you.")) as reply:
            assert b"Half" in await reply.next_data()
        with trio.fail_after(PATIENCE_S):
            await provider.disconnected.wait()
            while await told(server) != {"I told you."}:
                await trio.lowlevel.checkpoint()


async def test_a_client_that_leaves_before_the_first_byte_takes_the_provider_along(tmp_path: Path) -> None:
    """While the provider thinks, streamed or not."""
    for stream in (True, False):
        async with open_both(tmp_path / str(stream)) as (server, provider):
            provider.enqueue(Script(hang=True))
            async with trio.open_nursery() as asking:
                asking.start_soon(partial(server.chat, "I told you.", stream=stream))
                await wait_until(lambda provider=provider: bool(provider.requests))  # type: ignore[misc]  # a default binds the loop's value
                asking.cancel_scope.cancel(reason="the client leaves")
            with trio.fail_after(PATIENCE_S):
                await provider.disconnected.wait()
                while await told(server) != {"I told you."}:
                    await trio.lowlevel.checkpoint()
