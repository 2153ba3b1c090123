"""`POST /v1/chat/completions`: the provider's bytes, the vault's memory, and nothing lost between them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from router.providers.json_bytes import split_array, split_object
from tests.fakes.provider import (
    FakeProvider,
    Script,
    chat_events,
    gated,
    rechunk,
    reply_script,
    stream_script,
)
from tests.patience import PATIENCE_S
from tests.router.proxied import PATH, open_both, streamed, told
from tests.running import open_reply, user

DOG = "My dog is called Rex."
QUESTION = "What is my dog called?"
OPEN = "<memory_context>"


def sent_messages(provider: FakeProvider, request: int = -1) -> list[bytes]:
    return split_array(split_object(provider.requests[request].body)["messages"])


# --- there and back ---


async def test_a_reply_comes_back_byte_for_byte(tmp_path: Path) -> None:
    """With its status and headers; memory is in the headers only."""
    body = b'{ "choices":[{"message":{"content":"Hi \\u00e9","role":"assistant"}}],"x": 1.50 }\n'
    async with open_both(tmp_path) as (server, provider):
        provider.enqueue(
            Script(status=201, body=body, headers=[("content-type", "application/json"), ("openai-version", "7")])
        )
        answer = await server.chat(QUESTION)

    assert (answer.status_code, answer.content) == (201, body)
    assert answer.headers["openai-version"] == "7"
    assert answer.headers["content-length"] == str(len(body))


@pytest.mark.parametrize("sizes", [[1] * 2_000, [7, 1, 300, 2] * 50, [100_000]], ids=["bytes", "mixed", "one"])
async def test_a_stream_comes_back_byte_for_byte(tmp_path: Path, sizes: list[int]) -> None:
    """However the provider's chunks fall."""
    data = b": comment\r\n\r\n" + b"".join(chat_events(["Hel", "lo \u00e9", " there."]))
    async with open_both(tmp_path) as (server, provider):
        provider.enqueue(stream_script(rechunk(data, sizes)))
        answer = await server.chat(QUESTION, stream=True)
        assert await server.contents("Hello") >= {"Hello \u00e9 there."}

    assert answer.content == data
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-cache"


async def test_each_chunk_is_forwarded_at_once(tmp_path: Path) -> None:
    """The next one is sent only when this one has arrived."""
    events = chat_events(["a", "b", "c"])
    gates = [trio.Event() for _ in events]
    async with open_both(tmp_path) as (server, provider):
        provider.enqueue(stream_script(gated(events, gates)))
        gates[0].set()
        with trio.fail_after(PATIENCE_S):
            async with open_reply(server, PATH, streamed(QUESTION)) as reply:
                for number, event in enumerate(events):
                    received = b""
                    while received != event:
                        received += await reply.next_data()
                    if number + 1 < len(gates):
                        gates[number + 1].set()


async def test_the_provider_gets_the_request_with_memory_at_the_tail_and_nothing_else_changed(tmp_path: Path) -> None:
    """Prefix and own fields off; everything before the last user message byte for byte."""
    head = (
        b'{"role":"system","content":"Be brief. \\u00e9"},{"role":"user","content":"Hi","name":"x"},'
        b'{"content":"Yo","role":"assistant"}'
    )
    last = b'{"role":"user", "content":"What is my dog called?", "x_vendor": 1.0}'
    body = (
        b'{"model":"openai/gpt-x","messages":[' + head + b"," + last + b'],"temperature":0.50,"x_new":{"a":[1e2]},'
        b'"session_id":"","memory":true,"density":"low","user":"u-1"}'
    )
    async with open_both(tmp_path) as (server, provider):
        await server.ingest(DOG)
        answer = await server.post("/v1/chat/completions", body)
        assert answer.headers["x-memory-status"] == "ok"
    sent = split_object(provider.requests[0].body)

    assert provider.requests[0].path == "/v1/chat/completions"
    assert {name: sent[name] for name in sent if name != "messages"} == {
        "model": b'"gpt-x"', "temperature": b"0.50", "x_new": b'{"a":[1e2]}', "user": b'"u-1"',
    }  # fmt: skip
    assert b",".join(split_array(sent["messages"])[:3]) == head
    tail = json.loads(split_array(sent["messages"])[3])
    assert tail["content"].startswith(OPEN)
    assert f"] {DOG}\n</memory_context>" in tail["content"]
    assert tail["content"].endswith(f"\n\n{QUESTION}")
    assert tail["x_vendor"] == 1


async def test_the_block_can_go_into_the_system_prompt(tmp_path: Path) -> None:
    """As the hosted product does it."""
    async with open_both(tmp_path) as (server, provider):
        await server.ingest(DOG)
        await server.chat(
            {"role": "system", "content": "Be brief."}, QUESTION, headers={"x-memory-injection": "system"}
        )
    system, question = (json.loads(message) for message in sent_messages(provider))

    assert system["content"].startswith(OPEN)
    assert system["content"].endswith("Be brief.")
    assert question["content"] == QUESTION


async def test_in_a_tool_loop_the_block_stays_byte_for_byte(tmp_path: Path) -> None:
    """Although more is remembered meanwhile and time goes on."""
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]}
    result = {"role": "tool", "tool_call_id": "1", "content": "42"}
    async with open_both(tmp_path) as (server, provider):
        await server.ingest(DOG)
        await server.chat(QUESTION)
        await server.ingest("My dog is called Rex and my other dog is called Bo.")
        second = await server.chat(QUESTION, call, result)
        await server.chat(QUESTION, call, result, call, result)
        assert second.headers["x-memory-status"] == "ok"
        assert second.headers["x-memory-chunks-retrieved"] == "1"

        await server.delete()
        await server.chat(QUESTION, call, result, call, result, call, result)

    first = sent_messages(provider, 0)[0]
    assert OPEN.encode() in first
    assert sent_messages(provider, 1)[0] == sent_messages(provider, 2)[0] == first
    assert sent_messages(provider, 2)[:3] == sent_messages(provider, 1)
    assert DOG.encode() not in sent_messages(provider, 3)[0], "a deleted memory was quoted again"


# --- keys ---


@pytest.mark.parametrize(
    ("headers", "provider_key"),
    [
        ({"authorization": "Bearer {key}"}, "sk-fake"),
        ({"x-memory-key": "{key}", "authorization": "Bearer sk-mine"}, "sk-mine"),
        ({"x-memory-key": "{key}", "x-api-key": "sk-mine"}, "sk-mine"),
        ({"x-memory-key": "{key}", "x-goog-api-key": "sk-mine"}, "sk-mine"),
        ({"x-memory-key": "{key}", "authorization": "Bearer sk-a", "x-provider-key": "sk-mine"}, "sk-mine"),
        ({"authorization": "Bearer {key}", "x-provider-key": "sk-mine"}, "sk-mine"),
        ({"x-memory-key": "{key}", "authorization": "Bearer {key}"}, "sk-fake"),
        ({"x-api-key": "{key}", "authorization": "Bearer sk-a"}, "sk-fake"),
        ({"x-goog-api-key": "{key}:read"}, "sk-fake"),
        ({"x-memory-key": "{key}", "x-provider-key": "{key}"}, "sk-fake"),
    ],
    ids=str,
)
async def test_the_provider_gets_its_own_key_and_never_a_memory_key(
    tmp_path: Path, headers: dict[str, str], provider_key: str
) -> None:
    """Wherever the two stand in the request."""
    async with open_both(tmp_path) as (server, provider):
        filled = {name: value.format(key=server.key) for name, value in headers.items()}
        extra = {"openai-organization": server.key, "x-stainless-note": f"a {server.key}", "cookie": "a=b"}
        answer = await server.post(
            f"/v1/chat/completions?key={server.key}",
            {"model": "openai/m", "messages": [user(QUESTION)]},
            key="",
            headers=filled | extra,
        )
        assert answer.status_code == 200, answer.text
    (request,) = provider.requests

    assert request.headers["authorization"] == f"Bearer {provider_key}"
    assert "mk_" not in str(request)
    assert not {"x-memory-key", "x-provider-key", "x-api-key", "x-goog-api-key", "cookie"} & set(request.headers)


# --- modes ---


@pytest.mark.parametrize(
    ("suffix", "injected", "stored", "status"),
    [
        ("", True, True, "ok"),
        (":read", True, False, "ok"),
        (":write", False, True, "off"),
        (":off", False, False, "off"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_suffix_skips_its_steps(
    tmp_path: Path, suffix: str, injected: bool, stored: bool, status: str, stream: bool
) -> None:
    """And the headers say so."""
    async with open_both(tmp_path) as (server, provider):
        await server.ingest(DOG)
        provider.enqueue(stream_script() if stream else reply_script())
        answer = await server.post(
            "/v1/chat/completions",
            {"model": "openai/m", "messages": [user(QUESTION)], "stream": stream},
            key=f"{server.key}{suffix}",
        )
        assert answer.headers["x-memory-status"] == status
        assert answer.headers["x-memory-mode"] == (suffix[1:] or "on")
        assert (await told(server) == {DOG, QUESTION, "Hello there."}) is stored
    assert (OPEN.encode() in provider.requests[0].body) is injected


@pytest.mark.parametrize(
    ("options", "stored"),
    [
        ({"headers": {"x-memory-store": "false"}}, {"Hello there."}),
        ({"headers": {"x-memory-store-response": "false"}}, {QUESTION}),
        ({"memory_store": False}, set()),
        ({"memory": False}, set()),
        ({"memory": "off"}, set()),
        ({"memory_mode": "read"}, set()),
        ({"headers": {"x-memory-mode": "none"}}, set()),
    ],
    ids=str,
)
async def test_sides_can_be_kept_out(tmp_path: Path, options: dict[str, Any], stored: set[str]) -> None:
    """By header and by body."""
    async with open_both(tmp_path) as (server, provider):
        assert (await server.chat(QUESTION, **options)).status_code == 200
        assert await told(server) == stored
    assert set(json.loads(provider.requests[0].body)) == {"model", "messages"}
