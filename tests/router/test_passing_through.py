"""Requests without memory: their routes, the pace of uploads, and replies that break off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from models.errors import InvalidRequest, ModelNotFound, TooLarge, UpstreamError
from models.provider_settings import BUILT_IN_PROVIDERS
from router.passing_through import (
    PATHS,
    Joined,
    PacedUploads,
    PassedEvents,
    UploadChunks,
    call_of,
    pace_of,
    routed_name,
    with_model,
)
from router.providers.request_parts import read_object
from router.providers.routing import RoutingTable
from tests.patience import PATIENCE_S

_TABLE = RoutingTable(BUILT_IN_PROVIDERS)
_FORM = [(b"content-type", b"multipart/form-data; boundary=x")]


# --- where, and under which name ---


def test_each_provider_has_these_routes_below_its_base_url() -> None:
    assert call_of("/v1/embeddings", _TABLE.resolve("openai/m")).path == "/embeddings"
    assert call_of("/v1/embeddings", _TABLE.resolve("google/m")).path == "/v1beta/openai/embeddings"
    with pytest.raises(ModelNotFound, match="anthropic has no /v1/embeddings"):
        call_of("/v1/embeddings", _TABLE.resolve("anthropic/m"))


@pytest.mark.parametrize(
    "model",
    ["text-embedding-3-small", "whisper-1", "tts-1-hd", "gpt-image-1", "gpt-4o-transcribe", "DALL-E-3", "davinci-002"],
)
def test_names_that_only_openai_gives_need_no_prefix(model: str) -> None:
    route = _TABLE.resolve(routed_name(model))

    assert (route.provider, route.model) == ("openai", model)


def test_other_names_are_routed_as_everywhere() -> None:
    assert _TABLE.resolve(routed_name("mistral/mistral-embed")).provider == "mistral"
    assert _TABLE.resolve(routed_name("openai/whisper-1")).model == "whisper-1"
    with pytest.raises(ModelNotFound):
        _TABLE.resolve(routed_name("unheard-of"))


def test_a_json_body_changes_in_its_model_and_our_own_fields_only() -> None:
    raw = b'{"model" : "openai/m", "input":["a" , 1e1],"session_id":"s","memory":false,"x_vendor":{"a": 1}}'

    assert with_model(raw, read_object(raw), "m") == b'{"model":"m","input":["a" , 1e1],"x_vendor":{"a": 1}}'


def test_a_json_body_that_needs_no_change_stays_as_it_is() -> None:
    raw = b'{ "model": "m", "input": "a" }'

    assert with_model(raw, read_object(raw), "m") is raw


# --- uploads ---


class Client:
    """An ASGI client that always has a next message, and counts those that were taken."""

    def __init__(self, *messages: Mapping[str, Any]) -> None:
        self.messages = list(messages)
        self.taken = 0
        self.sent: list[str] = []

    async def receive(self) -> Mapping[str, Any]:
        await trio.lowlevel.checkpoint()
        self.taken += 1
        return self.messages.pop(0)

    async def send(self, message: Mapping[str, Any]) -> None:
        self.sent.append(message["type"])


def body(data: bytes, *, more: bool = True) -> Mapping[str, Any]:
    return {"type": "http.request", "body": data, "more_body": more}


async def test_an_upload_is_let_in_as_fast_as_it_is_asked_for() -> None:
    """One message is at hand, none is taken beyond that; the reply lets the rest go."""
    client = Client(body(b"a"), body(b""), body(b"b"), body(b"c"), body(b"", more=False))
    got: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def take_all() -> None:
            while True:
                message = await receive()
                got.append(message["body"])
                if not message["more_body"]:
                    return

        pace = pace_of(scope)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_all)
            await trio.testing.wait_all_tasks_blocked()
            assert (got, client.taken) == ([], 1)
            pace.want()
            await trio.testing.wait_all_tasks_blocked()
            assert (got, client.taken) == ([b"a", b""], 3)
            await send({"type": "http.response.start"})

    with trio.fail_after(PATIENCE_S):
        scope = {"type": "http", "path": PATHS[2] + "/", "headers": _FORM}
        await PacedUploads(app)(scope, client.receive, client.send)

    assert got == [b"a", b"", b"b", b"c", b""]
    assert client.sent == ["http.response.start"]


@pytest.mark.parametrize(
    "scope",
    [
        {"type": "http", "path": PATHS[0], "headers": [(b"content-type", b"application/json")]},
        {"type": "http", "path": PATHS[0], "headers": []},
        {"type": "http", "path": PATHS[2], "headers": [(b"content-type", b"multipart/form-data")]},
        {"type": "http", "path": "/v1/memory/upload", "headers": _FORM},
        {"type": "lifespan"},
    ],
)
async def test_other_requests_come_as_they_come(scope: dict[str, Any]) -> None:
    client = Client(body(b"a"))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["body"] == b"a"
        await pace_of(scope).wait_wanted()

    with trio.fail_after(PATIENCE_S):
        await PacedUploads(app)(scope, client.receive, client.send)

    assert client.taken == 1


class Source:
    """An iterator over these chunks, which may break off with an error."""

    def __init__(self, *steps: bytes | Exception) -> None:
        self._steps = list(steps)

    def __aiter__(self) -> Source:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self._steps:
            raise StopAsyncIteration
        step = self._steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step


async def test_an_upload_is_counted() -> None:
    chunks = UploadChunks(Source(b"ab", b"cd", b"e"), pace_of({}), bytes_max=4, timeout_s=60)

    assert [await anext(chunks), await anext(chunks)] == [b"ab", b"cd"]
    with pytest.raises(TooLarge):
        await anext(chunks)


async def test_an_upload_that_stops_coming_is_given_up(autojump_clock: MockClock) -> None:
    class Silent:
        def __aiter__(self) -> Silent:
            return self

        async def __anext__(self) -> bytes:
            await trio.sleep_forever()
            raise AssertionError

    with pytest.raises(InvalidRequest, match="in time"):
        await anext(UploadChunks(Silent(), pace_of({}), bytes_max=4, timeout_s=60))


async def test_an_upload_that_comes_drop_by_drop_is_given_up(autojump_clock: MockClock) -> None:
    """What counts is how long the client was waited for in all; what the provider takes in between does not."""

    class Dripping:
        def __aiter__(self) -> Dripping:
            return self

        async def __anext__(self) -> bytes:
            await trio.sleep(10)
            return b"x"

    chunks = UploadChunks(Dripping(), pace_of({}), bytes_max=1_000, timeout_s=60)
    began_s = trio.current_time()
    drops = 0
    try:
        while await anext(chunks):
            drops += 1
            await trio.sleep(100)
    except InvalidRequest:
        pass
    assert 5 <= drops <= 6
    assert trio.current_time() - began_s == pytest.approx(60 + drops * 100)


async def test_pieces_come_before_the_rest() -> None:
    joined = Joined([b"a", b"b"], Source(b"c"))

    assert [chunk async for chunk in joined] == [b"a", b"b", b"c"]


# --- replies ---


async def test_events_pass_as_they_come() -> None:
    chunks = [b"data: on", b"e\n\n", b"data: two\n\n"]

    assert [chunk async for chunk in PassedEvents(Source(*chunks), event_bytes_max=100)] == chunks


@pytest.mark.parametrize("before", [b"data: one\n\n", b"data: half", b"data: line\n"])
async def test_events_that_break_off_end_with_an_error_event(before: bytes) -> None:
    chunks = Source(before, UpstreamError("It broke."))

    got = b"".join([chunk async for chunk in PassedEvents(chunks, event_bytes_max=100)])

    assert got.startswith(before)
    assert b"\n\ndata: {" in got or before == b"data: one\n\n"
    last = got.rstrip(b"\n").rpartition(b"\ndata: ")[2]
    assert b'"It broke."' in last
    assert b'"upstream_unavailable"' in last
    assert b"[DONE]" not in got


async def test_an_event_too_large_to_be_read_is_ended_before_the_error() -> None:
    chunks = Source(b"data: " + b"x" * 200, UpstreamError("It broke."))

    got = [chunk async for chunk in PassedEvents(chunks, event_bytes_max=100)]

    assert got[1].startswith(b"\n\ndata: ")
