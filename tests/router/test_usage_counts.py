"""What requests add to their key's usage, over HTTP, in every wire format and on every way that a reply can end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from models.settings import ProvidersSettings
from models.usage_settings import UsageSettings
from tests.contract.dialects import TRANSLATED, beginning, streaming
from tests.fakes.provider import DONE, Script, Step, chat_chunk, chat_events, open_fake_provider
from tests.patience import PATIENCE_S, wait_until
from tests.router.proxied import PATH, open_both, streamed
from tests.router.test_wire_formats import (
    CHAT,
    DOG,
    GEMINI,
    GEMINI_ARRAY,
    MESSAGES,
    QUESTION,
    RESPONSES,
    Dialect,
    open_pair,
    script,
    sse,
)
from tests.running import Client, object_of, open_reply, open_server, settings_for, user

CHAT_USAGE = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}
GEMINI_USAGE = {"promptTokenCount": 11, "candidatesTokenCount": 5, "totalTokenCount": 16}
RESPONSES_USAGE = {"input_tokens": 11, "output_tokens": 5, "total_tokens": 16}


def usage_chunk() -> bytes:
    """The event that OpenAI-style providers put before the terminator when they are asked to."""
    return b"data: " + msgspec.json.encode({"id": "chatcmpl-1", "choices": [], "usage": CHAT_USAGE}) + b"\n\n"


def gemini_last() -> dict[str, Any]:
    parts = [{"text": "there."}]
    candidate = {"index": 0, "content": {"role": "model", "parts": parts}, "finishReason": "STOP"}
    return {"candidates": [candidate], "usageMetadata": GEMINI_USAGE}


TELLING = [
    (
        msgspec.structs.replace(
            CHAT, reply={**CHAT.reply, "usage": CHAT_USAGE}, events=[*chat_events()[:-1], usage_chunk(), DONE]
        ),
        (11, 5),
        (11, 5),
    ),
    (
        msgspec.structs.replace(
            RESPONSES,
            reply={**RESPONSES.reply, "usage": RESPONSES_USAGE},
            events=[
                *RESPONSES.events[:-1],
                *sse(
                    {"type": "response.completed", "sequence_number": 3,
                     "response": {"id": "resp_1", "status": "completed", "output": [], "usage": RESPONSES_USAGE}},
                    named=True,
                ),
            ],
        ),
        (11, 5),
        (11, 5),
    ),
    (MESSAGES, (1, 2), (127, 5)),
    (TRANSLATED, (1, 2), (127, 5)),
    (
        msgspec.structs.replace(
            GEMINI,
            reply={**GEMINI.reply, "usageMetadata": GEMINI_USAGE},
            events=[GEMINI.events[0], *sse(gemini_last(), line_end="\r\n")],
        ),
        (11, 5),
        (11, 5),
    ),
    (
        msgspec.structs.replace(
            GEMINI_ARRAY,
            reply={**GEMINI.reply, "usageMetadata": GEMINI_USAGE},
            events=[GEMINI_ARRAY.events[0], b"\n" + msgspec.json.encode(gemini_last()) + b"\n]"],
        ),
        (11, 5),
        (11, 5),
    ),
]  # fmt: skip
every_telling_dialect = pytest.mark.parametrize(
    ("dialect", "whole", "stream"), TELLING, ids=[dialect.name for dialect, _, _ in TELLING]
)


async def usage_of(client: Client, query: str = "") -> dict[str, Any]:
    """What the server shows, once the vault has taken in what was acknowledged."""
    await client.stats()
    answer = await client.get(f"/v1/account/usage{query}")
    assert answer.status_code == 200, answer.text
    return object_of(answer)


async def counted(client: Client) -> tuple[int, int, int, int]:
    """Requests, errors, and the provider's tokens."""
    body = await usage_of(client)
    return body["total_requests"], body["total_errors"], body["total_input_tokens"], body["total_output_tokens"]


# The stats that `usage_of` asks for are requests, too.
ASKED = 1


@every_telling_dialect
async def test_the_providers_tokens_are_counted_in_every_format(
    tmp_path: Path, dialect: Dialect, whole: tuple[int, int], stream: tuple[int, int]
) -> None:
    async with open_pair(tmp_path, dialect.provider_format) as (server, provider):
        provider.enqueue(script(dialect, stream=False), script(dialect, stream=True))
        answer = await server.post(dialect.path, dialect.request(stream=False))
        assert answer.status_code == 200, answer.text
        assert await counted(server) == (1 + ASKED, 0, *whole)
        answer = await server.post(dialect.stream_path, dialect.request(stream=True))
        assert answer.status_code == 200, answer.text

        tokens = (whole[0] + stream[0], whole[1] + stream[1])
        assert await counted(server) == (2 + 2 * ASKED, 0, *tokens)


async def test_memory_is_counted_as_the_headers_say_it(tmp_path: Path) -> None:
    """Retrieved and injected as each answer's headers tell, billed by the multiplier, stored as the vault counts."""
    async with open_both(tmp_path, settings_for(usage=UsageSettings(billing_multiplier=2.5))) as (server, _):
        await server.ingest(DOG, "The sky is blue today.")
        answers = [await server.chat(QUESTION), await server.chat("And the sky? Is it blue?", memory_mode="off")]
        context = await server.prepare(QUESTION)
        found = await server.search("dog")
        body = await usage_of(server)
        stats = await server.stats()

    retrieved = sum(int(answer.headers["x-memory-tokens-retrieved"]) for answer in answers)
    injected = sum(int(answer.headers["x-memory-tokens-injected"]) for answer in answers)
    assert injected > 0
    assert body["total_tokens_injected"] == injected
    assert body["total_tokens_retrieved"] > retrieved + context["memory_tokens"] + len(found)
    assert context["tokens_billed"] == round(context["memory_tokens"] * 2.5)
    assert body["total_tokens_billed"] == round(injected * 2.5) + context["tokens_billed"]
    assert body["total_memories_stored"] == stats["memories"]
    assert body["billing_multiplier"] == 2.5


async def test_a_duplicate_is_stored_by_nobody(tmp_path: Path) -> None:
    async with open_both(tmp_path) as (server, _):
        for _ in range(3):
            await server.ingest(DOG)
        lines = [{"content": "One line."}, {"content": "Two lines.", "id": "a"}, {"content": "Two lines.", "id": "a"}]
        assert (await server.upload(lines))["stats"]["stored"] == 2
        await server.upload(lines)
        exported = (await server.get("/v1/memory/export")).content
        await server.post("/v1/memory/import", exported)
        other = await server.other()
        await other.post("/v1/memory/import", exported)

        body = await usage_of(server)
        assert (await server.stats())["memories"] == body["by_key"]["key_1"]["memories_stored"]
        await other.stats()
        assert (await usage_of(server))["by_key"]["key_2"]["memories_stored"] == 3


async def test_a_fallback_and_its_failures_are_one_request(tmp_path: Path) -> None:
    """Counted under the model that the client named."""
    async with open_fake_provider() as first, open_fake_provider() as second:
        settings = settings_for(
            providers=ProvidersSettings(by_name={"first": first.settings(), "second": second.settings()}),
            fallbacks={"first/m": ("second/m",)},
        )
        async with open_server(tmp_path / "data", settings) as server:
            first.enqueue(Script(status=500, body=b"{}"), Script(status=500, body=b"{}"))
            answer = await server.chat("Hello", model="first/m")
            assert answer.status_code == 200
            body = await usage_of(server)

    assert body["by_model"]["first/m"]["requests"] == 1
    assert body["by_model"]["first/m"]["errors"] == 0
    assert body["by_model"]["first/m"]["input_tokens"] == 7
    assert "second/m" not in body["by_model"]


@pytest.mark.parametrize("status", [400, 429, 500])
async def test_a_providers_error_is_one_error_and_bills_nothing(tmp_path: Path, status: int) -> None:
    async with open_both(tmp_path) as (server, provider):
        await server.ingest(DOG)
        provider.enqueue(*[Script(status=status, body=b'{"error": {}}') for _ in range(3)])
        assert (await server.chat(QUESTION)).status_code == status
        body = await usage_of(server)

    used = body["by_model"]["openai/m"]
    assert (used["requests"], used["errors"], used["tokens_billed"]) == (1, 1, 0)
    assert used["tokens_injected"] > 0


async def test_our_own_errors_count_and_those_without_a_valid_key_do_not(tmp_path: Path) -> None:
    async with open_both(tmp_path) as (server, _):
        assert (await server.post("/v1/memory/search", {"query": ""})).status_code == 400
        assert (await server.chat("Hello", model="nobody/m")).status_code == 404
        assert (await server.post("/v1/memory/search", {"query": "x"}, key="mk_unknown")).status_code == 401
        assert (await server.get("/livez")).status_code == 200

        body = await usage_of(server)
    assert (body["total_requests"], body["total_errors"]) == (2 + ASKED, 2)
    assert set(body["by_model"]) == {"none"}


@pytest.mark.parametrize("dialect", [CHAT, MESSAGES, TRANSLATED], ids=["chat", "messages", "translated"])
async def test_a_stream_that_breaks_off_is_an_error_and_counts_what_it_told(tmp_path: Path, dialect: Dialect) -> None:
    async with open_pair(tmp_path, dialect.provider_format) as (server, provider):
        provider.enqueue(streaming(dialect, beginning(dialect), ending="cut"))
        await server.post(dialect.stream_path, dialect.request(stream=True))
        with trio.fail_after(PATIENCE_S):
            while (await usage_of(server))["total_errors"] == 0:
                await trio.lowlevel.checkpoint()
        used = (await usage_of(server))["by_model"]["fake/m"]

    assert (used["requests"], used["errors"]) == (1, 1)
    assert used["input_tokens"] == (0 if dialect is CHAT else 127)


async def test_a_client_that_leaves_is_counted_and_is_no_error(tmp_path: Path) -> None:
    gate = trio.Event()
    async with open_both(tmp_path) as (server, provider):
        steps: list[Step] = [chat_chunk("Hel"), gate, *chat_events()]
        provider.enqueue(Script(headers=[("content-type", "text/event-stream")], steps=steps))
        async with open_reply(server, PATH, streamed(QUESTION)) as reply:
            assert await reply.next_data()
        with trio.fail_after(PATIENCE_S):
            await provider.disconnected.wait()
        body = await usage_of(server)

    assert (body["by_model"]["openai/m"]["requests"], body["total_errors"]) == (1, 0)


async def test_a_client_that_leaves_before_the_answer_is_counted_and_is_no_error(tmp_path: Path) -> None:
    async with open_both(tmp_path) as (server, provider):
        provider.enqueue(Script(hang=True))
        with trio.CancelScope() as asking:

            async def leave() -> None:
                await wait_until(lambda: bool(provider.requests))
                asking.cancel()

            async with trio.open_nursery() as both:
                both.start_soon(leave)
                async with open_reply(server, PATH, {**streamed(QUESTION), "stream": False}):
                    raise AssertionError("it does not answer")
        body = await usage_of(server)
        with trio.fail_after(PATIENCE_S):
            while "openai/m" not in body["by_model"]:
                body = await usage_of(server)

    assert (body["by_model"]["openai/m"]["requests"], body["total_errors"]) == (1, 0)


async def test_tokens_that_the_client_did_not_ask_for_are_counted_all_the_same(tmp_path: Path) -> None:
    """The provider is asked for them in the client's place, and the client does not see them."""
    async with open_fake_provider() as provider:
        asked = msgspec.structs.replace(provider.settings(), ask_for_usage=True)
        async with open_server(tmp_path / "data", settings_for(asked)) as server:
            events = [*chat_events()[:-1], usage_chunk(), DONE]
            provider.enqueue(Script(headers=[("content-type", "text/event-stream")], steps=events))
            answer = await server.post(PATH, streamed("Hello"))
            assert b"prompt_tokens" not in answer.content
            assert await counted(server) == (1 + ASKED, 0, 11, 5)


async def test_tokens_are_counted_before_the_end_of_the_stream_goes_out(tmp_path: Path) -> None:
    """Whoever has seen the end and kills the server has been counted."""
    gate = trio.Event()
    async with open_both(tmp_path) as (server, provider):
        steps: list[Step] = [*chat_events()[:-1], usage_chunk(), DONE, gate]
        provider.enqueue(Script(headers=[("content-type", "text/event-stream")], steps=steps))
        async with open_reply(server, PATH, streamed(QUESTION)) as reply:
            got = b""
            while b"[DONE]" not in got:
                got += await reply.next_data()
            body = await usage_of(server)
            gate.set()

    assert body["by_model"]["openai/m"]["output_tokens"] == 5


@pytest.mark.parametrize("usage", [{"prompt_tokens": -5, "completion_tokens": 2**70}, {"prompt_tokens": "x"}, 7])
async def test_nonsense_of_a_provider_spoils_no_count(tmp_path: Path, usage: object) -> None:
    async with open_both(tmp_path) as (server, provider):
        body = {**CHAT.reply, "usage": usage}
        provider.enqueue(Script(body=msgspec.json.encode(body), headers=[("content-type", "application/json")]))
        assert (await server.chat("Hello")).status_code == 200
        used = (await usage_of(server))["by_model"]["openai/m"]

    assert used["requests"] == 1
    assert used["input_tokens"] == 0
    assert 0 <= used["output_tokens"] <= 2**40


async def test_requests_without_memory_count_under_their_model(tmp_path: Path) -> None:
    async with open_both(tmp_path) as (server, provider):
        reply = Script(body=b'{"data": []}', headers=[("content-type", "application/json")])
        provider.enqueue(reply)
        answer = await server.post("/v1/embeddings", {"model": "openai/text-embedding-3-small", "input": "Rex"})
        assert answer.status_code == 200
        body = await usage_of(server)

    assert body["by_model"]["openai/text-embedding-3-small"]["requests"] == 1


async def test_a_model_that_is_a_text_or_a_key_is_counted_as_other(tmp_path: Path) -> None:
    async with open_both(tmp_path) as (server, provider):
        for model in ("openai/my secret", "openai/sk-0123456789abcdef", "openai/" + "m" * 300):
            assert (await server.chat("Hello", model=model)).status_code == 200
        body = await usage_of(server)

    assert body["by_model"]["other"]["requests"] == 3
    assert set(body["by_model"]) == {"other", "none"}
    assert len(provider.requests) == 3


async def test_no_client_fills_the_table_with_models(tmp_path: Path) -> None:
    async with open_both(tmp_path) as (server, _):
        for number in range(103):
            await server.chat("Hello", model=f"openai/m{number}", memory_mode="off")
        body = await usage_of(server)

    assert len([name for name in body["by_model"] if name.startswith("openai/")]) == 100
    assert body["by_model"]["other"]["requests"] == 3


async def test_concurrent_keys_are_counted_apart(tmp_path: Path) -> None:
    """Each as often as it asked, over many at once, also while counts are being folded."""
    settings = settings_for(usage=UsageSettings(fold_interval_s=0.1))
    async with open_both(tmp_path, settings) as (server, _):
        clients = [await server.other(f"user {number}") for number in range(4)]

        async def work(client: Client, times: int) -> None:
            for number in range(times):
                answer = await client.chat(f"Message {number}", memory_mode="off")
                assert answer.status_code == 200

        async with trio.open_nursery() as working:
            for times, client in enumerate(clients, start=3):
                working.start_soon(work, client, times)
                working.start_soon(work, client, times)
        body = await usage_of(server)

    assert [body["by_key"][f"key_{number}"]["requests"] for number in (2, 3, 4, 5)] == [6, 8, 10, 12]


async def test_nothing_is_counted_where_the_settings_say_so(tmp_path: Path) -> None:
    settings = settings_for(usage=UsageSettings(enabled=False))
    async with open_server(tmp_path / "data", settings) as server:
        assert (await server.post("/v1/memory/ingest", {"messages": [user(DOG)]})).status_code == 202
        refused = await server.get("/v1/account/usage")
        mine = object_of(await server.get("/v1/me/stats"))

    assert refused.status_code == 503
    assert (mine["usageEnabled"], mine["tokensThisMonth"]) == (False, 0)
    assert not (tmp_path / "data" / "usage").exists()


async def test_counts_outlast_the_server(tmp_path: Path) -> None:
    async with open_both(tmp_path) as (server, _):
        await server.ingest(DOG)
        await server.chat(QUESTION)
        before = await usage_of(server)
    async with open_both(tmp_path) as (server, _):
        after = object_of(await server.get("/v1/account/usage"))

    assert after == before
