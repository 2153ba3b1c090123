"""What clients do to the server in every wire format: they leave, stop reading, and send what they should not.

With `test_wire_table.py` and `test_wire_process.py` these are the rows of docs/wire.md.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import h11
import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from models.server_settings import ServerSettings
from tests.contract.dialects import ERROR, and_translated, assert_error_of, streaming
from tests.fakes.provider import Pause, Script, Step
from tests.patience import PATIENCE_S, wait_until
from tests.router.test_wire_formats import CHAT, DOG, QUESTION, Dialect, every_dialect, open_pair, script
from tests.running import Client, open_reply

SMALL_BODIES = ServerSettings(host="127.0.0.1", port=0, body_max_bytes=100_000)
IMAGE_MIB = 64 if os.environ.get("MEMORYROUTER_TEST_LONG") else 8


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
                # An endless stream that went on would never let this return. The server looks at its loop every 0.1 s.
                await wait_all_tasks_blocked(0.05)
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
