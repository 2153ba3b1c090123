"""Every wire format through the whole server: memory in, the provider's bytes out, the exchange stored."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from models.provider_settings import ProviderSettings, Secret
from models.settings import ProvidersSettings
from tests.fakes.claude import claude_events
from tests.fakes.provider import (
    FakeProvider,
    Script,
    chat_events,
    chat_reply,
    open_fake_provider,
)
from tests.running import Client, open_server, settings_for, user

DOG = "My dog is called Rex."
QUESTION = "What is my dog called?"
REPLY = "Hello there."
OPEN = b"<memory_context>"


def sse(*events: dict[str, Any], named: bool = False, line_end: str = "\n") -> list[bytes]:
    """Events with this data, named after its `type` if wanted."""
    made = []
    for event in events:
        name = f"event: {event['type']}{line_end}" if named else ""
        made.append(f"{name}data: {msgspec.json.encode(event).decode()}{line_end * 2}".encode())
    return made


def responses_events() -> list[bytes]:
    """A streamed Response."""
    message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": REPLY}]}
    return sse(
        {"type": "response.created", "sequence_number": 0, "response": {"id": "resp_1", "status": "in_progress"}},
        {"type": "response.output_text.delta", "sequence_number": 1, "output_index": 0, "content_index": 0,
         "item_id": "msg_1", "delta": "Hello "},
        {"type": "response.output_text.delta", "sequence_number": 2, "output_index": 0, "content_index": 0,
         "item_id": "msg_1", "delta": "there."},
        {"type": "response.completed", "sequence_number": 3,
         "response": {"id": "resp_1", "status": "completed", "output": [message]}},
        named=True,
    )  # fmt: skip


def gemini_chunks() -> list[dict[str, Any]]:
    """A streamed reply of Gemini."""
    return [
        {"candidates": [{"index": 0, "content": {"role": "model", "parts": [{"text": "Hello "}]}}]},
        {"candidates": [{"index": 0, "content": {"role": "model", "parts": [{"text": "there."}]},
                         "finishReason": "STOP"}]},
    ]  # fmt: skip


class Dialect(msgspec.Struct, frozen=True):
    """One wire format as a client and a provider speak it.

    Attributes:
        name: of the test.
        path, stream_path: where the client posts.
        provider_format: what the provider is configured to speak.
        sent_path, sent_stream_path: where the provider is to be asked.
        credential: the header that carries its key, with its value.
        body: the request, with QUESTION in it.
        reply, events: what the provider answers.
        stream_type: media type of its stream.
        came: what the client is to get of `events`, if not their very bytes.
    """

    name: str
    path: str
    stream_path: str
    provider_format: str
    sent_path: str
    sent_stream_path: str
    credential: tuple[str, str]
    body: dict[str, Any]
    reply: dict[str, Any]
    events: list[bytes]
    stream_type: str = "text/event-stream"

    def request(self, *, stream: bool) -> dict[str, Any]:
        """The body; where the path says that it streams, the body does not."""
        return {**self.body, "stream": True} if stream and self.path == self.stream_path else self.body


BEARER = ("authorization", "Bearer sk-fake")
MESSAGE = {"role": "assistant", "content": [{"type": "text", "text": REPLY}], "type": "message", "id": "msg_1"}
CHAT = Dialect(
    name="chat",
    path="/v1/chat/completions",
    stream_path="/v1/chat/completions",
    provider_format="openai",
    sent_path="/v1/chat/completions",
    sent_stream_path="/v1/chat/completions",
    credential=BEARER,
    body={"model": "fake/m", "messages": [user(QUESTION)]},
    reply=msgspec.json.decode(chat_reply(REPLY)),
    events=chat_events(),
)
RESPONSES = Dialect(
    name="responses",
    path="/v1/responses",
    stream_path="/v1/responses",
    provider_format="openai",
    sent_path="/v1/responses",
    sent_stream_path="/v1/responses",
    credential=BEARER,
    body={"model": "fake/m", "input": QUESTION, "store": False},
    reply={
        "id": "resp_1",
        "object": "response",
        "status": "completed",
        "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": REPLY}]}],
    },
    events=responses_events(),
)
MESSAGES = Dialect(
    name="messages",
    path="/v1/messages",
    stream_path="/v1/messages",
    provider_format="anthropic",
    sent_path="/v1/messages",
    sent_stream_path="/v1/messages",
    credential=("x-api-key", "sk-fake"),
    body={"model": "fake/m", "max_tokens": 100, "messages": [user(QUESTION)]},
    reply={**MESSAGE, "model": "m", "stop_reason": "end_turn", "usage": {"input_tokens": 1, "output_tokens": 2}},
    events=claude_events(),
)
GEMINI = Dialect(
    name="gemini",
    path="/v1beta/models/fake/m:generateContent",
    stream_path="/v1beta/models/fake/m:streamGenerateContent?alt=sse",
    provider_format="google",
    sent_path="/v1beta/models/m:generateContent",
    sent_stream_path="/v1beta/models/m:streamGenerateContent?alt=sse",
    credential=("x-goog-api-key", "sk-fake"),
    body={"contents": [{"role": "user", "parts": [{"text": QUESTION}]}]},
    reply={"candidates": [{"content": {"role": "model", "parts": [{"text": REPLY}]}, "finishReason": "STOP"}]},
    events=sse(*gemini_chunks(), line_end="\r\n"),
)
GEMINI_ARRAY = msgspec.structs.replace(
    GEMINI,
    name="gemini-array",
    path="/v1/models/fake/m:generateContent",
    stream_path="/v1/models/fake/m:streamGenerateContent",
    sent_path="/v1/models/m:generateContent",
    sent_stream_path="/v1/models/m:streamGenerateContent",
    events=[
        b"[" + msgspec.json.encode(gemini_chunks()[0]) + b"\n,",
        b"\n" + msgspec.json.encode(gemini_chunks()[1]) + b"\n]",
    ],
    stream_type="application/json",
)
DIALECTS = [CHAT, RESPONSES, MESSAGES, GEMINI, GEMINI_ARRAY]
every_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=[dialect.name for dialect in DIALECTS])


@asynccontextmanager
async def open_pair(
    tmp_path: Path, provider_format: str, **sections: Any
) -> AsyncIterator[tuple[Client, FakeProvider]]:
    """A server and a provider of this format under the prefix `fake`.

    Args:
        sections: of the server's settings; see `settings_for`.
    """
    async with open_fake_provider() as provider:
        base_url = provider.base_url if provider_format == "openai" else provider.base_url.removesuffix("/v1")
        settings = ProviderSettings(
            format=provider_format,  # type: ignore[arg-type]  # one of the literals
            base_url=base_url,
            api_key=Secret("sk-fake"),
            serves=("responses",) if provider_format == "openai" else (),
            retries_max=0,
        )
        providers = ProvidersSettings(by_name={"fake": settings})
        async with open_server(tmp_path / "data", settings_for(providers=providers, **sections)) as server:
            yield server, provider


def script(dialect: Dialect, *, stream: bool) -> Script:
    """What the provider answers."""
    if stream:
        return Script(headers=[("content-type", dialect.stream_type)], steps=dialect.events)
    return Script(body=msgspec.json.encode(dialect.reply), headers=[("content-type", "application/json")])


@every_dialect
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_memory_goes_in_and_the_reply_comes_back_byte_for_byte(
    tmp_path: Path, dialect: Dialect, stream: bool
) -> None:
    """And both sides of the exchange are stored when it is over."""
    async with open_pair(tmp_path, dialect.provider_format) as (server, provider):
        await server.ingest(DOG)
        provider.enqueue(script(dialect, stream=stream))
        path = dialect.stream_path if stream else dialect.path
        answer = await server.post(path, dialect.request(stream=stream))
        assert answer.status_code == 200, answer.text
        held = await server.contents("Hello there dog called")

    assert answer.content == (b"".join(dialect.events) if stream else msgspec.json.encode(dialect.reply))
    assert answer.headers["x-memory-status"] == "ok"
    assert answer.headers["x-mr-attempts"] == "1"
    (sent,) = provider.requests
    assert sent.path == (dialect.sent_stream_path if stream else dialect.sent_path)
    assert sent.headers[dialect.credential[0]] == dialect.credential[1]
    assert OPEN in sent.body
    assert DOG.encode() in sent.body
    assert held == {DOG, QUESTION, REPLY}


@every_dialect
async def test_memory_off_sends_the_request_as_it_came(tmp_path: Path, dialect: Dialect) -> None:
    """Apart from the model's prefix and our own fields."""
    async with open_pair(tmp_path, dialect.provider_format) as (server, provider):
        await server.ingest(DOG)
        provider.enqueue(script(dialect, stream=False))
        answer = await server.post(dialect.path, {**dialect.body, "memory_mode": "off", "x_own": 1.50})
        assert answer.headers["x-memory-status"] == "off"
    sent = msgspec.json.decode(provider.requests[0].body)
    assert sent == {**dialect.body, "x_own": 1.5} | ({"model": "m"} if "model" in dialect.body else {})


@every_dialect
async def test_a_stream_that_breaks_off_ends_with_an_error_and_stores_the_users_turn_only(
    tmp_path: Path, dialect: Dialect
) -> None:
    """No finish, no terminator; what came before it stays as it was."""
    start = dialect.events[:-1] if dialect.name.startswith("gemini") else dialect.events[:-2]
    async with open_pair(tmp_path, dialect.provider_format) as (server, provider):
        provider.enqueue(Script(headers=[("content-type", dialect.stream_type)], steps=start, ending="cut"))
        answer = await server.post(dialect.stream_path, dialect.request(stream=True))
        assert await server.contents("Hello there dog called") == {QUESTION}

    sent = b"".join(start)
    assert answer.content.startswith(sent)
    assert b'"error"' in answer.content[len(sent) :]
    assert b"[DONE]" not in answer.content
    assert b"message_stop" not in answer.content


@every_dialect
@pytest.mark.parametrize(("status", "headers"), [(429, {"retry-after-ms": "40"}), (500, {}), (529, {}), (400, {})])
async def test_a_providers_error_comes_back_as_it_is(
    tmp_path: Path, dialect: Dialect, status: int, headers: dict[str, str]
) -> None:
    """With its status, its body and what SDKs go by when they try again."""
    body = b'{"error": {"message": "no",  "type": "some_error"}}'
    async with open_pair(tmp_path, dialect.provider_format) as (server, provider):
        listed = [("content-type", "application/json"), ("request-id", "theirs"), *headers.items()]
        provider.enqueue(Script(status=status, body=body, headers=listed))
        answer = await server.post(dialect.path, dialect.body)
        assert await server.contents("Hello there dog called") == {QUESTION}

    assert (answer.status_code, answer.content) == (status, body)
    assert {name: answer.headers[name] for name in headers} == headers
    assert answer.headers["x-request-id"]


@every_dialect
async def test_our_own_errors_have_the_shape_of_the_format(tmp_path: Path, dialect: Dialect) -> None:
    """Whatever goes wrong before the provider is asked."""
    async with open_pair(tmp_path, dialect.provider_format) as (server, provider):
        answers = [
            await server.post(dialect.path, dialect.body, key="mk_" + "x" * 40),
            await server.post(dialect.path, b"{"),
            await server.post(dialect.path.replace("fake", "nobody"), {**dialect.body, "model": "nobody/m"}),
            await server.get(dialect.path),
        ]
        assert [request for request in provider.requests if request.method == "POST"] == []

    # GET below /v1/models asks for a model of that name.
    assert [answer.status_code for answer in answers] == [401, 400, 404, 404 if dialect is GEMINI_ARRAY else 405]
    for answer in answers:
        error = answer.json()["error"]
        assert error["message"]
        match dialect.provider_format:
            case "anthropic":
                assert answer.json()["type"] == "error"
                assert error["type"].endswith("_error")
            case "google":
                assert error["code"] == answer.status_code
                assert error["status"].isupper()
            case _:
                assert set(error) >= {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("dialect", "provider_format"),
    [(RESPONSES, "anthropic"), (RESPONSES, "google"), (MESSAGES, "openai"), (MESSAGES, "google"), (GEMINI, "openai")],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
async def test_a_format_that_the_provider_does_not_take_is_404(
    tmp_path: Path, dialect: Dialect, provider_format: str
) -> None:
    """And reaches nobody."""
    async with open_pair(tmp_path, provider_format) as (server, provider):
        answer = await server.post(dialect.path, dialect.body)
    assert answer.status_code == 404
    assert provider.requests == []


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_chat_completions_of_an_anthropic_model_become_messages_and_come_back(
    tmp_path: Path, stream: bool
) -> None:
    """With memory, and stored like any other exchange."""
    async with open_pair(tmp_path, "anthropic") as (server, provider):
        await server.ingest(DOG)
        provider.enqueue(script(MESSAGES, stream=stream))
        answer = await server.post(CHAT.path, {**CHAT.body, "stream": stream})
        assert answer.status_code == 200, answer.text
        assert await server.contents("Hello there dog called") == {DOG, QUESTION, REPLY}

    sent = msgspec.json.decode(provider.requests[0].body)
    assert provider.requests[0].path == "/v1/messages"
    assert provider.requests[0].headers["anthropic-version"]
    assert sent["max_tokens"] > 0
    assert OPEN.decode() in str(sent["messages"])
    if stream:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.content.endswith(b"data: [DONE]\n\n")
        assert b'"finish_reason":"stop"' in answer.content
    else:
        assert answer.json()["choices"][0]["message"]["content"] == REPLY


async def test_a_translated_stream_that_breaks_off_gets_no_terminator(tmp_path: Path) -> None:
    """The error is one of Chat Completions."""
    async with open_pair(tmp_path, "anthropic") as (server, provider):
        provider.enqueue(
            Script(headers=[("content-type", "text/event-stream")], steps=MESSAGES.events[:-2], ending="cut")
        )
        answer = await server.post(CHAT.path, {**CHAT.body, "stream": True})
        assert await server.contents("Hello there dog called") == {QUESTION}

    assert b'"error"' in answer.content
    assert b"[DONE]" not in answer.content
    assert b'"finish_reason":"stop"' not in answer.content


async def test_what_anthropic_cannot_do_is_a_400_before_it_is_asked(tmp_path: Path) -> None:
    """In the client's format."""
    async with open_pair(tmp_path, "anthropic") as (server, provider):
        answer = await server.post(CHAT.path, {**CHAT.body, "n": 2})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "n")
    assert provider.requests == []


async def test_tokens_are_counted_by_the_provider_without_memory(tmp_path: Path) -> None:
    """Nothing is injected and nothing is stored."""
    async with open_pair(tmp_path, "anthropic") as (server, provider):
        await server.ingest(DOG)
        provider.enqueue(Script(body=b'{"input_tokens": 14}', headers=[("content-type", "application/json")]))
        answer = await server.post("/v1/messages/count_tokens", {"model": "fake/m", "messages": [user(QUESTION)]})
        assert await server.contents("Hello there dog called") == {DOG}

    assert (answer.status_code, answer.content) == (200, b'{"input_tokens": 14}')
    (sent,) = provider.requests
    assert (sent.path, sent.headers["x-api-key"]) == ("/v1/messages/count_tokens", "sk-fake")
    assert msgspec.json.decode(sent.body) == {"model": "m", "messages": [user(QUESTION)]}


@pytest.mark.parametrize("version", ["v1", "v1beta"])
async def test_gemini_counts_and_embeds_without_memory(tmp_path: Path, version: str) -> None:
    """Under the provider's name for the model, also where the body repeats it."""
    part = {"parts": [{"text": QUESTION}]}
    bodies = {
        "countTokens": {"contents": [part]},
        "batchEmbedContents": {"requests": [{"model": "models/fake/m", "content": part}]},
    }
    async with open_pair(tmp_path, "google") as (server, provider):
        for method, body in bodies.items():
            provider.enqueue(Script(body=b'{"x": 1}', headers=[("content-type", "application/json")]))
            answer = await server.post(f"/{version}/models/fake/m:{method}", body)
            assert (answer.status_code, answer.content) == (200, b'{"x": 1}')
            assert answer.headers["x-memory-status"] == "off"
        assert await server.contents("Hello there dog called") == set()
    assert [request.path for request in provider.requests] == [f"/{version}/models/m:{method}" for method in bodies]
    assert b'"model":"models/m"' in provider.requests[1].body
