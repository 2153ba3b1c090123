"""What goes wrong on the wire between a client and a provider, in every wire format: the rows of docs/wire.md.

`TRANSLATED` is a format of its own here: Chat Completions from the client, Anthropic's Messages from the provider. Rows
about bytes being the same leave it out.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import h11
import httpx
import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from models.settings import ServerSettings
from router.providers.json_bytes import split_object
from tests.fakes.provider import Ending, Pause, Script, Step, gated, rechunk
from tests.patience import PATIENCE_S, PATIENT_PROXY, wait_until
from tests.router.test_wire_formats import (
    CHAT,
    DIALECTS,
    DOG,
    GEMINI,
    GEMINI_ARRAY,
    MESSAGES,
    QUESTION,
    REPLY,
    Dialect,
    every_dialect,
    open_pair,
    script,
)
from tests.running import Client, open_reply

TRANSLATED = msgspec.structs.replace(
    MESSAGES, name="translated", path=CHAT.path, stream_path=CHAT.stream_path, body=CHAT.body
)
WITH_TRANSLATED = [*DIALECTS, TRANSLATED]
and_translated = pytest.mark.parametrize("dialect", WITH_TRANSLATED, ids=[dialect.name for dialect in WITH_TRANSLATED])

SMALL_BODIES = ServerSettings(host="127.0.0.1", port=0, body_max_bytes=100_000)
IMAGE_MIB = 64 if os.environ.get("MEMORYROUTER_TEST_LONG") else 8
KEPT = [
    ("retry-after", "7"),
    ("retry-after-ms", "7000"),
    ("x-should-retry", "false"),
    ("x-ratelimit-limit-requests", "60"),
    ("x-ratelimit-remaining-tokens", "0"),
    ("x-ratelimit-reset-tokens", "6m0s"),
    ("anthropic-ratelimit-unified-status", "rejected"),
    ("anthropic-organization-id", "org"),
    ("openai-processing-ms", "5"),
    ("openai-version", "2020-10-01"),
    ("request-id", "req_theirs"),
    ("x-vendor", "one"),
    ("x-vendor", "two"),
]
DROPPED = [
    ("server", "cloudflare"),
    ("set-cookie", "__cf_bm=1"),
    ("alt-svc", "h3"),
    ("cf-ray", "1"),
    ("cf-cache-status", "DYNAMIC"),
    ("via", "1.1 google"),
    ("strict-transport-security", "max-age=1"),
    ("location", "http://elsewhere.example"),
    ("keep-alive", "timeout=5"),
    ("proxy-authenticate", "Basic"),
    ("x-litellm-model-api-base", "http://inside.example"),
    ("llm_provider-retry-after", "7"),
    ("x-accel-redirect", "/etc/passwd"),
    ("x-envoy-upstream-service-time", "5"),
    ("x-memory-status", "forged"),
    ("x-mr-attempts", "99"),
    ("access-control-allow-origin", "*"),
    ("connection", "x-hop"),
    ("x-hop", "1"),
]
OURS = ("x-memory-", "x-mr-", "x-provider-", "x-session-", "x-embedding-ms", "x-request-id", "x-upstream-request-id")
OF_HTTP = {"content-type", "content-length", "transfer-encoding", "date", "cache-control", "x-accel-buffering"}
ANTHROPIC_TYPES = {
    400: {"invalid_request_error"}, 401: {"authentication_error"}, 413: {"request_too_large"},
    502: {"api_error"}, 503: {"api_error", "overloaded_error"},
}  # fmt: skip
ERROR = b'{"error": {"message": "Slow down.",  "type": "rate_limit_error", "x_more": [1e2, null]}}'


def beginning(dialect: Dialect) -> list[bytes]:
    """Its stream without what says that the reply is complete."""
    return dialect.events[: -1 if dialect.provider_format == "google" else -2]


def streaming(dialect: Dialect, steps: Iterable[Step], **more: Any) -> Script:
    """A provider that streams these steps."""
    return Script(headers=[("content-type", dialect.stream_type)], steps=steps, **more)


def saying(dialect: Dialect, text: str) -> list[bytes]:
    """Its stream with this text in the place of `Hel`."""
    return [event.replace(b"Hel", text.encode()) for event in dialect.events]


def assert_error_of(dialect: Dialect, answer: httpx.Response, status: int) -> None:
    """An error with this status, in the shape of the client's format, with ids."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body["error"]["message"]
    if dialect.path == MESSAGES.path:
        assert body["type"] == "error"
        assert body["error"]["type"] in ANTHROPIC_TYPES[status]
    elif dialect.path == CHAT.path or "/responses" in dialect.path:
        assert set(body["error"]) == {"message", "type", "param", "code"}
    else:
        assert body["error"]["code"] == status
        assert body["error"]["status"].isupper()


# --- what a provider says comes back: its errors, headers and bytes ---


@every_dialect
@pytest.mark.parametrize("status", [429, 500])
async def test_a_refusal_comes_back_with_its_status_headers_and_body(
    tmp_path: Path, dialect: Dialect, status: int
) -> None:
    """Byte for byte, whether a stream was asked for or not; nothing is added but what is ours."""
    headers = [("content-type", "application/json; charset=utf-8"), ("x-request-id", "theirs"), *KEPT, *DROPPED]
    async with open_pair(tmp_path, dialect.provider_format) as (server, provider):
        for stream in (False, True):
            provider.enqueue(Script(status=status, body=ERROR, headers=headers))
            path = dialect.stream_path if stream else dialect.path
            answer = await server.post(path, dialect.request(stream=stream))
            assert (answer.status_code, answer.content) == (status, ERROR)
            assert_headers(answer)
            assert answer.headers["content-type"] == "application/json; charset=utf-8"
            assert answer.headers["x-upstream-request-id"] == "theirs"


@and_translated
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_rate_limits_come_along_and_nothing_private_does(tmp_path: Path, dialect: Dialect, stream: bool) -> None:
    """With a reply as with an error."""
    said = script(dialect, stream=stream)
    said.headers += [*KEPT, *DROPPED]
    async with open_pair(tmp_path, dialect.provider_format) as (server, provider):
        provider.enqueue(said)
        path = dialect.stream_path if stream else dialect.path
        answer = await server.post(path, dialect.request(stream=stream))

    assert answer.status_code == 200
    assert_headers(answer)
    if stream:
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-accel-buffering"] == "no"
        assert "content-length" not in answer.headers


def assert_headers(answer: httpx.Response) -> None:
    """All that the client shall see of the provider's headers, in order, and nothing of the rest."""
    got = [(name.decode(), value.decode()) for name, value in answer.headers.raw]
    names = {name.lower() for name, _ in KEPT}
    assert [pair for pair in got if pair[0].lower() in names] == KEPT
    others = {name.lower() for name, _ in got} - names - OF_HTTP
    assert {name for name in others if not name.startswith(OURS)} == set()
    assert answer.headers["x-memory-status"] != "forged"
    assert answer.headers["x-mr-attempts"] == "1"
    assert len(answer.headers.get_list("x-mr-attempts")) == 1
    assert answer.headers.get("server") is None


@every_dialect
async def test_unknown_fields_pass_both_ways_byte_for_byte(tmp_path: Path, dialect: Dialect) -> None:
    """Odd numbers, nulls, spaces and vendor fields included; a reply's blank lines in front of it too."""
    unknown = b'{"a": [1e2, 1.50, null],  "b":"\\u00e9\\/"}'
    sent = msgspec.json.encode(dialect.body)[:-1] + b', "x_unknown": ' + unknown + b', "top_k":40}'
    reply = b"\n\n" + json.dumps({"x_vendor": None, "system_fingerprint": "fp", **dialect.reply}, indent=1).encode()
    async with open_pair(tmp_path, dialect.provider_format) as (server, provider):
        await server.ingest(DOG)
        provider.enqueue(Script(body=reply, headers=[("content-type", "application/json")]))
        answer = await server.post(dialect.path, sent)
        assert await server.contents("Hello there dog called") == {DOG, QUESTION, REPLY}

    assert answer.content == reply
    arrived = split_object(provider.requests[0].body)
    assert arrived["x_unknown"] == unknown
    assert arrived["top_k"] == b"40"


@every_dialect
async def test_a_stream_is_the_same_bytes_however_they_fall(tmp_path: Path, dialect: Dialect) -> None:
    """Comments, blank lines and vendor fields among them; and it is understood all the same."""
    data = b"".join(dialect.events).replace(b'{"candidates"', b'{ "x_vendor":null,"candidates"')
    data = data.replace(b"data: {", b'data: { "system_fingerprint" : "fp", "x_more":[1e2,null],')
    if dialect is GEMINI_ARRAY:
        data = b"\n\n" + data.replace(b"\n", b"\r\n\r\n")
    elif dialect is GEMINI:
        data = b"\r\n\r\n" + data.replace(b"\r\n\r\n", b"\r\n\r\n\r\n", 1)
    else:
        data = b": OPENROUTER PROCESSING\n\n\n: keep-alive\r\n\r\n" + data.replace(b"\n\n", b"\n\n: x\n\n\n", 1)
    async with open_pair(tmp_path, dialect.provider_format) as (server, provider):
        for sizes in ([1], [7, 1, 30, 2], [100_000]):
            provider.enqueue(streaming(dialect, rechunk(data, sizes * len(data))))
            answer = await server.post(dialect.stream_path, dialect.request(stream=True))
            assert answer.content == data
            assert await server.contents("Hello there dog called") == {QUESTION, REPLY}
            await server.delete()


async def test_keep_alives_do_not_disturb_a_translation(tmp_path: Path) -> None:
    """They mean nothing, and the reply is whole."""
    comment = b": OPENROUTER PROCESSING\n\n\n\n: keep-alive\r\n\r\n"
    async with open_pair(tmp_path, "anthropic") as (server, provider):
        provider.enqueue(streaming(TRANSLATED, [comment + event + comment for event in TRANSLATED.events]))
        answer = await server.post(TRANSLATED.path, TRANSLATED.request(stream=True))
        assert await server.contents("Hello there dog called") == {QUESTION, REPLY}

    assert answer.content.endswith(b"data: [DONE]\n\n")


@and_translated
async def test_each_chunk_comes_before_the_next_is_made(tmp_path: Path, dialect: Dialect) -> None:
    """Nothing waits for more before the finish."""
    events = beginning(dialect)
    gates = [trio.Event() for _ in events]
    async with open_pair(tmp_path, dialect.provider_format) as (server, provider):
        provider.enqueue(streaming(dialect, gated(events, gates)))
        gates[0].set()
        with trio.fail_after(PATIENCE_S):
            async with open_reply(server, dialect.stream_path, dialect.request(stream=True)) as reply:
                received = b""
                for event, gate in zip(events, gates, strict=True):
                    gate.set()
                    shown = event if dialect is not TRANSLATED else text_in(event)
                    while shown not in received[-1_000:]:
                        received += await reply.next_data()


def text_in(event: bytes) -> bytes:
    """The piece of text that an event of Messages brings, as a member of JSON; b"" when it brings none."""
    text: str | None = json.loads(event.partition(b"data: ")[2]).get("delta", {}).get("text")
    return b"" if text is None else b'"content":' + msgspec.json.encode(text)


@every_dialect
@pytest.mark.parametrize("event_bytes_max", [64 * 1024 * 1024, 100_000], ids=["read", "too large to read"])
async def test_a_huge_event_passes_whole(tmp_path: Path, dialect: Dialect, event_bytes_max: int) -> None:
    """An image in base64 may be one line of megabytes. Beyond the limit for reading along it is not remembered."""
    events = saying(dialect, "Hel" + "x" * 3_000_000)
    proxy = msgspec.structs.replace(PATIENT_PROXY, event_bytes_max=event_bytes_max)
    async with open_pair(tmp_path, dialect.provider_format, proxy=proxy) as (server, provider):
        provider.enqueue(streaming(dialect, events))
        answer = await server.post(dialect.stream_path, dialect.request(stream=True))
        stored = (await server.stats())["stored"]

    assert answer.content == b"".join(events)
    assert stored == (2 if event_bytes_max > 3_000_000 else 1)


# --- replies that break off ---


@and_translated
async def test_a_reply_without_its_end_ends_with_an_error(tmp_path: Path, dialect: Dialect) -> None:
    """Also where the provider closes the stream properly; no terminator, and only the user's turn is stored."""
    endings: tuple[Ending, ...] = ("clean", "cut", "cut_in_chunk")
    async with open_pair(tmp_path, dialect.provider_format) as (server, provider):
        for ending in endings:
            provider.enqueue(streaming(dialect, beginning(dialect), ending=ending))
            answer = await server.post(dialect.stream_path, dialect.request(stream=True))
            assert answer.status_code == 200
            assert_broken_off(dialect, answer.content, ending)
            assert await server.contents("Hello there dog called") == {QUESTION}


def assert_broken_off(dialect: Dialect, body: bytes, ending: Ending) -> None:
    """What had come is there, an error is the last that is said, and nothing says that all is well."""
    assert b'"error"' in body
    for terminator in (b"[DONE]", b"message_stop", b"response.completed", b"finishReason"):
        assert terminator not in body
    if dialect is not TRANSLATED:
        assert body.startswith(b"".join(beginning(dialect)))
    if dialect is GEMINI_ARRAY:
        if ending != "cut_in_chunk":  # which leaves what is no JSON
            assert "error" in json.loads(body)[-1]
    else:
        assert "error" in json.loads(body.rstrip().rpartition(b"data: ")[2])


@and_translated
async def test_a_whole_reply_that_is_cut_is_an_error(tmp_path: Path, dialect: Dialect) -> None:
    """502 in the client's format instead of half a JSON object; the user's turn is stored."""
    half = msgspec.json.encode(dialect.reply)[:20]
    async with open_pair(tmp_path, dialect.provider_format) as (server, provider):
        provider.enqueue(Script(headers=[("content-type", "application/json")], steps=[half], ending="cut_in_chunk"))
        answer = await server.post(dialect.path, dialect.body)
        assert await server.contents("Hello there dog called") == {QUESTION}

    assert_error_of(dialect, answer, 502)


# --- clients that leave, or do not read ---


def endless(dialect: Dialect, *, padding: int = 0, pause: Pause | None = None) -> Iterator[Step]:
    """Its stream, which says one thing again and again and never ends."""
    place = next(number for number, event in enumerate(dialect.events) if b"Hel" in event)
    yield from dialect.events[:place]
    piece = dialect.events[place].replace(b"Hel", b"Hel" + b"x" * padding)
    yield piece
    while True:
        yield piece.removeprefix(b"[")
        if pause is not None:
            yield pause


@asynccontextmanager
async def asking(server: Client, path: str, body: Any) -> AsyncIterator[None]:
    """A request whose reply nobody reads. Leaving the block closes its connection."""
    data = msgspec.json.encode(body)
    host, _, port = server.url.removeprefix("http://").partition(":")
    headers = [("host", host), ("authorization", f"Bearer {server.key}"), ("content-length", str(len(data)))]
    head = h11.Connection(h11.CLIENT).send(h11.Request(method="POST", target=path, headers=headers)) or b""
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(head + data)
        yield


@and_translated
async def test_a_client_that_leaves_a_stream_takes_the_provider_along(tmp_path: Path, dialect: Dialect) -> None:
    """Within 100 ms by design, ten of these chunks: counted where they are made, a slow machine does no harm."""
    async with open_pair(tmp_path, dialect.provider_format) as (server, provider):
        provider.enqueue(streaming(dialect, endless(dialect, pause=Pause(0.01))))
        with trio.fail_after(PATIENCE_S):
            async with open_reply(server, dialect.stream_path, dialect.request(stream=True)) as reply:
                assert await reply.next_data()
                produced = provider.chunks_sent
            await provider.disconnected.wait()
            assert provider.chunks_sent - produced <= 50
            await wait_stored(server, {QUESTION})


@and_translated
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_client_that_leaves_before_the_first_byte_takes_the_provider_along(
    tmp_path: Path, dialect: Dialect, stream: bool
) -> None:
    """While the provider thinks."""
    async with open_pair(tmp_path, dialect.provider_format) as (server, provider):
        provider.enqueue(Script(hang=True))
        path = dialect.stream_path if stream else dialect.path
        with trio.fail_after(PATIENCE_S):
            async with asking(server, path, dialect.request(stream=stream)):
                await wait_until(lambda: bool(provider.requests))
            await provider.disconnected.wait()
            assert provider.chunks_sent == 0
            await wait_stored(server, {QUESTION})


@and_translated
async def test_a_client_that_leaves_while_a_whole_reply_comes_takes_the_provider_along(
    tmp_path: Path, dialect: Dialect
) -> None:
    """Its beginning is here, its end is not."""

    def body() -> Iterator[Step]:
        yield b"{"
        while True:
            yield b" "
            yield Pause(0.01)

    async with open_pair(tmp_path, dialect.provider_format) as (server, provider):
        provider.enqueue(Script(headers=[("content-type", "application/json")], steps=body()))
        with trio.fail_after(PATIENCE_S):
            async with asking(server, dialect.path, dialect.body):
                await wait_until(lambda: provider.chunks_sent > 3)
            produced = provider.chunks_sent
            await provider.disconnected.wait()
            assert provider.chunks_sent - produced <= 50


async def wait_stored(server: Client, texts: set[str]) -> None:
    """Return once the vault holds these."""
    while await server.contents("Hello there dog called") != texts:
        await trio.lowlevel.checkpoint()


@and_translated
async def test_a_client_that_stops_reading_stops_its_provider(tmp_path: Path, dialect: Dialect) -> None:
    """Sockets fill up and then everything behind them waits; others go on."""
    async with open_pair(tmp_path, dialect.provider_format) as (server, provider):
        provider.enqueue(streaming(dialect, endless(dialect, padding=65_536)))
        with trio.fail_after(PATIENCE_S):
            async with open_reply(server, dialect.stream_path, dialect.request(stream=True)) as reply:
                assert reply.status == 200
                await wait_all_tasks_blocked(0.2)  # an endless stream that went on would never let this return
                assert provider.bytes_sent < 64 * 1024 * 1024
                await server.ingest(DOG)


# --- requests ---


@and_translated
async def test_what_is_no_json_is_400_and_reaches_nobody(tmp_path: Path, dialect: Dialect) -> None:
    """In the client's format."""
    field = next(name for name in ("messages", "input", "contents") if name in dialect.body)
    async with open_pair(tmp_path, dialect.provider_format) as (server, provider):
        for body in (b"", b"{", b"[]", b'"text"', b"\xff\xfe", b'{"model":', b"[" * 100_000, b"null",
                     msgspec.json.encode({**dialect.body, field: 7})):  # fmt: skip
            assert_error_of(dialect, await server.post(dialect.path, body), 400)
    assert provider.requests == []


@and_translated
async def test_a_missing_or_wrong_key_is_401_and_reaches_nobody(tmp_path: Path, dialect: Dialect) -> None:
    """In the client's format, before the body is looked at."""
    forms = [{}, {"authorization": "Bearer mk_" + "x" * 40}, {"authorization": "Bearer sk-other"},
             {"x-api-key": "mk_" + "x" * 40}, {"x-goog-api-key": "AIzaOther"}, {"api-key": ""}]  # fmt: skip
    async with open_pair(tmp_path, dialect.provider_format) as (server, provider):
        for headers in forms:
            assert_error_of(dialect, await server.post(dialect.path, b"{", headers=headers, key=""), 401)
    assert provider.requests == []


@and_translated
async def test_every_form_of_key_opens_every_format(tmp_path: Path, dialect: Dialect) -> None:
    """And a provider's own key goes to it beside `X-Memory-Key`, in the form that the provider takes."""
    async with open_pair(tmp_path, dialect.provider_format) as (server, provider):
        key = server.key
        forms: list[tuple[dict[str, str], str]] = [
            ({"authorization": f"Bearer {key}"}, "sk-fake"),
            ({"x-api-key": key}, "sk-fake"),
            ({"x-goog-api-key": key}, "sk-fake"),
            ({"api-key": key}, "sk-fake"),
            ({"x-memory-key": key}, "sk-fake"),
            ({}, "sk-fake"),
            ({"x-memory-key": key, "authorization": "Bearer sk-own"}, "sk-own"),
            ({"x-memory-key": key, "x-api-key": "sk-own"}, "sk-own"),
            ({"x-memory-key": key, "x-goog-api-key": "sk-own"}, "sk-own"),
            ({"authorization": f"Bearer {key}", "x-provider-key": "sk-own"}, "sk-own"),
        ]
        for headers, expected in forms:
            provider.enqueue(script(dialect, stream=False))
            path = dialect.path if headers else f"{dialect.path}?key={key}"
            answer = await server.post(path, dialect.body, headers=headers, key="")
            assert answer.status_code == 200, answer.text
            name, value = dialect.credential
            assert provider.requests[-1].headers[name] == value.replace("sk-fake", expected)
            assert key not in str(provider.requests[-1])


@and_translated
async def test_a_packed_body_is_read_and_counted_after_unpacking(tmp_path: Path, dialect: Dialect) -> None:
    """gzip goes upstream unpacked; a bomb is 413 and a damaged one 400, in the client's format."""
    headers = {"content-encoding": "gzip"}
    async with open_pair(tmp_path, dialect.provider_format, server=SMALL_BODIES) as (server, provider):
        provider.enqueue(script(dialect, stream=False))
        packed = gzip.compress(msgspec.json.encode(dialect.body))
        assert (await server.post(dialect.path, packed, headers=headers)).status_code == 200
        bomb = gzip.compress(bytes(SMALL_BODIES.body_max_bytes + 1))
        assert len(bomb) < 1_000
        assert_error_of(dialect, await server.post(dialect.path, bomb, headers=headers), 413)
        assert_error_of(dialect, await server.post(dialect.path, packed[:-9], headers=headers), 400)
        assert_error_of(dialect, await server.post(dialect.path, b" " * 100_001), 413)

    (sent,) = provider.requests
    assert "content-encoding" not in sent.headers
    assert QUESTION.encode() in sent.body


def with_image(dialect: Dialect, image: str) -> dict[str, Any]:
    """A question about this picture."""
    match dialect.name:
        case "chat":
            part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}}
            content: Any = [{"type": "text", "text": QUESTION}, part]
            return {**dialect.body, "messages": [{"role": "user", "content": content}]}
        case "responses":
            content = [{"type": "input_text", "text": QUESTION},
                       {"type": "input_image", "image_url": f"data:image/png;base64,{image}"}]  # fmt: skip
            return {**dialect.body, "input": [{"role": "user", "content": content}]}
        case "messages":
            source = {"type": "base64", "media_type": "image/png", "data": image}
            content = [{"type": "image", "source": source}, {"type": "text", "text": QUESTION}]
            return {**dialect.body, "messages": [{"role": "user", "content": content}]}
        case _:
            parts = [{"text": QUESTION}, {"inlineData": {"mimeType": "image/png", "data": image}}]
            return {"contents": [{"role": "user", "parts": parts}]}


@every_dialect
async def test_a_large_image_goes_through_as_it_is(tmp_path: Path, dialect: Dialect) -> None:
    """64 MB of it where the limit allows (8 in the short run of the formats but one), with memory beside it."""
    mib = 64 if dialect is CHAT else IMAGE_MIB
    image = "iVBORw0KGgo/" * (mib * 1024 * 1024 // 12)
    server_settings = ServerSettings(host="127.0.0.1", port=0, body_max_bytes=2 * mib * 1024 * 1024)
    async with open_pair(tmp_path, dialect.provider_format, server=server_settings) as (server, provider):
        await server.ingest(DOG)
        provider.enqueue(script(dialect, stream=False))
        answer = await server.post(dialect.path, with_image(dialect, image))
        assert answer.status_code == 200, answer.text
        assert await server.contents("dog called image") >= {DOG}

    body = provider.requests[0].body
    assert body.count(image.encode()) == 1
    assert DOG.encode() in body
    assert len(body) < len(image) + 5_000


# --- ids ---


@and_translated
async def test_every_answer_has_its_ids(tmp_path: Path, dialect: Dialect) -> None:
    """`x-request-id` is ours and in our log, `request-id` the provider's where it has one."""
    async with open_pair(tmp_path, dialect.provider_format) as (server, provider):
        answers = []
        for stream in (False, True):
            provider.enqueue(script(dialect, stream=stream))
            path = dialect.stream_path if stream else dialect.path
            answers.append(await server.post(path, dialect.request(stream=stream)))
        provider.enqueue(Script(status=503, body=ERROR, headers=[("retry-after", "9")]))
        answers.append(await server.post(dialect.path, dialect.body))
        answers.append(await server.post(dialect.path, b"{"))
        answers.append(await server.post(dialect.path, dialect.body, key=""))
        answers.append(await server.http.put(dialect.path))
        theirs = script(dialect, stream=False)
        theirs.headers += [("request-id", "req_theirs"), ("x-request-id", "theirs")]
        provider.enqueue(theirs)
        named = await server.post(dialect.path, dialect.body)

    assert [answer.status_code for answer in answers] == [200, 200, 503, 400, 401, 405]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert [answer.headers["request-id"] for answer in answers] == ids
    assert all(value.startswith("req_") for value in ids)
    assert len(set(ids)) == len(ids)
    assert named.headers["x-request-id"].startswith("req_")
    assert named.headers["request-id"] == "req_theirs"
    assert named.headers["x-upstream-request-id"] == "theirs"
