"""Calls to a provider: bounded, on time, and with our own errors only. Against a real socket."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
import trio
import trio.testing

from models.errors import MemoryRouterError, Overloaded, UpstreamError, UpstreamTimeout
from models.provider_settings import ProviderSettings, Secret
from router.headers import request_headers
from router.upstream import Upstream, open_upstream
from tests.fakes.provider import DONE, Script, chat_reply, open_fake_provider, reply_script, stream_script
from tests.patience import PATIENCE_S, pass_time_until, wait_until

_PATH = "/chat/completions"
_KEY = "sk-canary"


def headers() -> list[tuple[str, str]]:
    return request_headers([("openai-project", "p")], provider="fake", api_key=Secret(_KEY))


async def call(upstream: Upstream, body: bytes = b"{}") -> bytes:
    async with upstream.stream("fake", _PATH, headers=headers(), body=body) as response:
        return await response.read()


async def test_a_call_brings_body_and_headers_there_and_back() -> None:
    """Bytes as given, the key as a bearer token, no encoding asked for."""
    async with open_fake_provider() as provider, open_upstream({"fake": provider.settings()}) as upstream:
        provider.enqueue(reply_script("Hi."))
        async with upstream.stream("fake", _PATH, headers=headers(), body=b'{"a": 1}') as response:
            body = await response.read()

        got = provider.requests[0]
        assert (got.method, got.path, got.body) == ("POST", "/v1/chat/completions", b'{"a": 1}')
        assert got.headers["authorization"] == f"Bearer {_KEY}"
        assert got.headers["accept-encoding"] == "identity"
        assert got.headers["openai-project"] == "p"
        assert (response.status, body) == (200, chat_reply("Hi."))
        assert ("x-request-id", "req-1") in response.headers
        assert "content-length" not in dict(response.headers)
        assert not response.is_event_stream


async def test_connections_are_used_again() -> None:
    """A call read to its end gives its connection back."""
    async with open_fake_provider() as provider, open_upstream({"fake": provider.settings()}) as upstream:
        for _ in range(3):
            await call(upstream)

        assert (provider.connections, len(provider.requests)) == (1, 3)


async def test_errors_of_the_provider_are_answers() -> None:
    """Status, body and retry hints come through as they are."""
    async with open_fake_provider() as provider, open_upstream({"fake": provider.settings()}) as upstream:
        hints = [("retry-after", "7"), ("retry-after-ms", "6500"), ("set-cookie", "c=1")]
        provider.enqueue(Script(status=429, headers=hints, body=b'{"error":{"code":"rate_limit_exceeded"}}'))
        async with upstream.stream("fake", _PATH, headers=headers(), body=b"{}") as response:
            body = await response.read()

        assert (response.status, body) == (429, b'{"error":{"code":"rate_limit_exceeded"}}')
        assert response.headers == hints[:2]


async def test_redirects_are_not_followed() -> None:
    """The provider's key must not travel to where a reply points."""
    async with open_fake_provider() as provider, open_upstream({"fake": provider.settings()}) as upstream:
        provider.enqueue(Script(status=307, headers=[("location", provider.base_url + "/other")], body=b""))
        async with upstream.stream("fake", _PATH, headers=headers(), body=b"{}") as response:
            assert response.status == 307

        assert len(provider.requests) == 1
        assert response.headers == []


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (Script(hang=True), UpstreamTimeout),
        (stream_script([b"data: 1\n\n", trio.Event()]), UpstreamTimeout),
        (stream_script([b"data: 1\n\n"], ending="cut"), UpstreamError),
        (stream_script([b"data: 1\n\n"], ending="cut_in_chunk"), UpstreamError),
        (Script(headers=[("content-encoding", "br")], body=b"?"), UpstreamError),
        (Script(headers=[("content-encoding", "gzip")], body=b"no gzip"), UpstreamError),
        (Script(headers=[("content-encoding", "gzip")], body=gzip.compress(chat_reply())[:-9]), UpstreamError),
    ],
    ids=["hang", "idle", "cut", "cut in chunk", "foreign encoding", "broken encoding", "cut encoding"],
)
async def test_failures_become_our_errors(
    script: Script, kind: type[MemoryRouterError], mock_clock: trio.testing.MockClock
) -> None:
    """They name the provider, and neither its URL nor the key. The connection slot comes back."""
    failures: list[MemoryRouterError] = []
    async with open_fake_provider() as provider:
        settings = provider.settings(connections_max=1)
        async with open_upstream({"fake": settings}) as upstream, trio.open_nursery() as calling:
            provider.enqueue(script)

            async def fail() -> None:
                with pytest.raises(kind) as caught:
                    await call(upstream)
                failures.append(caught.value)

            calling.start_soon(fail)
            await wait_until(lambda: bool(provider.requests))
            await pass_time_until(mock_clock, lambda: bool(failures), step_s=30)

            assert "fake" in str(failures[0])
            assert "127.0.0.1" not in str(failures[0])
            assert _KEY not in str(failures[0])
            assert failures[0].__cause__ is None
            assert await call(upstream) == chat_reply()


@pytest.mark.parametrize("base_url", ["http://127.0.0.1:1/v1", "http://nowhere.invalid/v1", "http://[broken"])
async def test_a_provider_that_is_not_there_is_a_502(base_url: str) -> None:
    """Refused, unresolvable or misspelt."""
    settings = ProviderSettings(base_url=base_url, connect_timeout_s=PATIENCE_S)
    async with open_upstream({"fake": settings}) as upstream:
        with pytest.raises(UpstreamError) as caught:
            await call(upstream)

    assert (caught.value.status, "fake" in str(caught.value)) == (502, True)


async def test_a_provider_that_does_not_speak_http_is_a_502() -> None:
    """Garbage instead of a status line."""

    async def babble(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"\x00\x01 not http\r\n\r\n")

    async with trio.open_nursery() as nursery:
        listeners: list[Any] = await nursery.start(trio.serve_tcp, babble, 0)
        url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/v1"
        async with open_upstream({"fake": ProviderSettings(base_url=url)}) as upstream:
            with pytest.raises(UpstreamError):
                await call(upstream)
        nursery.cancel_scope.cancel()


async def test_what_was_not_asked_for_is_decoded_anyway() -> None:
    """Some servers compress whatever the request says; the client must not see the encoding's header then."""
    async with open_fake_provider() as provider, open_upstream({"fake": provider.settings()}) as upstream:
        provider.enqueue(Script(headers=[("content-encoding", "gzip")], body=gzip.compress(chat_reply())))
        async with upstream.stream("fake", _PATH, headers=headers(), body=b"{}") as response:
            assert await response.read() == chat_reply()

        assert response.headers == []


@pytest.mark.parametrize("padding", [b"", b"\0\0"])
async def test_all_members_of_packed_data_are_read_and_padding_is_not(padding: bytes) -> None:
    """Servers that pack piece by piece send one member after the other (RFC 1952, section 2.2)."""
    reply = chat_reply()
    packed = gzip.compress(reply[:9]) + gzip.compress(reply[9:]) + padding
    async with open_fake_provider() as provider, open_upstream({"fake": provider.settings()}) as upstream:
        provider.enqueue(Script(headers=[("content-encoding", "gzip")], body=packed))
        assert await call(upstream) == reply
        provider.enqueue(Script(headers=[("content-encoding", "gzip")], body=b""))
        assert await call(upstream) == b""


async def test_a_reply_over_the_limit_is_refused() -> None:
    """Reading whole is bounded."""
    async with open_fake_provider() as provider, open_upstream({"fake": provider.settings()}) as upstream:
        provider.enqueue(reply_script("x" * 10_000))
        async with upstream.stream("fake", _PATH, headers=headers(), body=b"{}") as response:
            with pytest.raises(UpstreamError, match="over 5000 bytes"):
                await response.read(bytes_max=5000)


async def test_calls_over_the_limit_wait_and_are_then_refused(mock_clock: trio.testing.MockClock) -> None:
    """Nobody queues inside the pool; a full provider is a 503 that clients retry."""
    refused = trio.Event()
    async with open_fake_provider() as provider:
        settings = provider.settings(connections_max=2, connect_timeout_s=5)
        gate = trio.Event()
        provider.enqueue(stream_script([gate, DONE]), stream_script([gate, DONE]))
        async with open_upstream({"fake": settings}) as upstream, trio.open_nursery() as nursery:

            async def be_refused() -> None:
                with pytest.raises(Overloaded):
                    await call(upstream)
                refused.set()

            nursery.start_soon(call, upstream)
            nursery.start_soon(call, upstream)
            await wait_until(lambda: len(provider.requests) == 2)
            nursery.start_soon(be_refused)
            await pass_time_until(mock_clock, refused.is_set, step_s=5)
            numbers = upstream.statistics()["fake"]
            assert (numbers["calls"], numbers["waiting"], numbers["calls_max"]) == (2, 0, 2)
            gate.set()


async def test_cancelled_calls_leave_no_slot_behind() -> None:
    """Before the headers, between chunks, with a chunk unread: afterwards all slots are free (httpcore #1093)."""
    async with open_fake_provider() as provider:
        async with open_upstream({"fake": provider.settings(connections_max=2)}) as upstream:
            for number, script in enumerate([Script(hang=True), stream_script([b"x", trio.Event()])] * 4, start=1):
                provider.enqueue(script)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(call, upstream)
                    await wait_until(lambda number=number: len(provider.requests) == number)  # type: ignore[misc]  # a default binds the loop's value
                    await trio.testing.wait_all_tasks_blocked(0.01)  # most likely the headers are there, or none come
                    nursery.cancel_scope.cancel()
            for _ in range(4):
                provider.enqueue(stream_script([b"one", b"two", trio.Event()]))
                async with upstream.stream("fake", _PATH, headers=headers(), body=b"{}") as response:
                    assert (await anext(response)).startswith(b"one")

            assert upstream.statistics()["fake"]["calls"] == 0
            assert await call(upstream) == chat_reply()
        with trio.fail_after(PATIENCE_S):
            await provider.disconnected.wait()


async def test_leaving_the_block_ends_the_call_at_the_provider() -> None:
    """Also when chunks are left unread."""
    async with open_fake_provider() as provider, open_upstream({"fake": provider.settings()}) as upstream:
        provider.enqueue(stream_script([b"one", trio.Event()]))
        async with upstream.stream("fake", _PATH, headers=headers(), body=b"{}") as response:
            await anext(response)
        with trio.fail_after(PATIENCE_S):
            await provider.disconnected.wait()


async def test_get_reads_a_body_or_fails() -> None:
    """For lists of models."""
    async with open_fake_provider() as provider, open_upstream({"fake": provider.settings()}) as upstream:
        provider.enqueue(Script(body=b'{"data":[]}'), Script(status=401, body=b"{}"))

        assert await upstream.get("fake", "/models", api_key=Secret(_KEY)) == b'{"data":[]}'
        assert (provider.requests[0].method, provider.requests[0].path) == ("GET", "/v1/models")
        with pytest.raises(UpstreamError, match="401"):
            await upstream.get("fake", "/models", api_key=Secret(_KEY))
