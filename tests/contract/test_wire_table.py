"""What providers do to the server in every wire format, and what comes of it at the client: the rows of docs/wire.md.

Those about clients are in `test_wire_requests.py`, those that need a process in `test_wire_process.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import msgspec
import pytest
import trio

from router.providers.json_bytes import split_object
from tests.contract.dialects import ERROR, TRANSLATED, and_translated, assert_error_of, beginning, streaming
from tests.fakes.provider import Ending, Script, gated, rechunk
from tests.patience import PATIENCE_S, PATIENT_PROXY
from tests.router.test_wire_formats import (
    DOG,
    GEMINI,
    GEMINI_ARRAY,
    QUESTION,
    REPLY,
    Dialect,
    every_dialect,
    open_pair,
    script,
)
from tests.running import open_reply

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


def saying(dialect: Dialect, text: str) -> list[bytes]:
    """Its stream with this text in the place of `Hel`."""
    return [event.replace(b"Hel", text.encode()) for event in dialect.events]


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
