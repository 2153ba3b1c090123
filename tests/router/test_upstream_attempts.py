"""Attempts, the breaker, and bodies in pieces, against a provider on a real socket."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from models.errors import TooLarge, UpstreamError, UpstreamSuspended, UpstreamTimeout
from models.provider_settings import ProviderSettings, Secret
from router.headers import request_headers
from router.provider_connections import ProviderConnections
from router.upstream import Upstream, UpstreamResponse, open_upstream
from tests.fakes.provider import FakeProvider, Script, open_dead_provider, open_fake_provider
from tests.patience import PATIENCE_S, pass_time_until, wait_until

_PATH = "/chat/completions"


def tuned(provider: ProviderSettings | FakeProvider, **values: Any) -> ProviderSettings:
    """A provider's settings with pauses too short to notice."""
    settings = provider if isinstance(provider, ProviderSettings) else provider.settings()
    return msgspec.structs.replace(settings, **{"retry_wait_max_s": 0.001, **values})


async def call(upstream: Upstream, body: bytes | AsyncIterator[bytes] = b"{}", **options: Any) -> UpstreamResponse:
    """One call, read to its end."""
    headers = request_headers((), provider="fake", api_key=Secret("sk-fake"))
    async with upstream.stream("fake", _PATH, headers=headers, body=body, **options) as response:
        await response.read()
    return response


class Pieces:
    """A body in pieces; callables among them are run when their turn comes."""

    def __init__(self, pieces: Sequence[bytes | Callable[[], None]]) -> None:
        self._pieces = list(pieces)

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while self._pieces:
            piece = self._pieces.pop(0)
            if isinstance(piece, bytes):
                return piece
            piece()
        raise StopAsyncIteration


@pytest.mark.parametrize("status", [429, 502, 503, 504, 529])
async def test_a_busy_provider_is_asked_again(status: int) -> None:
    async with open_fake_provider() as provider, open_upstream({"fake": tuned(provider)}) as upstream:
        provider.enqueue(Script(status=status, headers=[("retry-after", "0")], body=b"busy"))

        response = await call(upstream, b'{"a": 1}')

        assert (response.status, response.attempts) == (200, 2)
        assert [request.body for request in provider.requests] == [b'{"a": 1}'] * 2
        assert upstream.statistics()["fake"]["retries"] == 1


@pytest.mark.parametrize("status", [400, 401, 404, 408, 409, 500])
async def test_other_answers_are_the_clients_to_judge(status: int) -> None:
    async with open_fake_provider() as provider, open_upstream({"fake": tuned(provider)}) as upstream:
        provider.enqueue(Script(status=status, body=b"no"))

        response = await call(upstream)

        assert (response.status, response.attempts, len(provider.requests)) == (status, 1, 1)


async def test_the_answer_that_remains_is_passed_on_with_its_headers() -> None:
    hints = [
        ("retry-after", "0"),
        ("retry-after-ms", "1"),
        ("x-ratelimit-remaining-requests", "0"),
        ("x-should-retry", "true"),
    ]
    async with open_fake_provider() as provider, open_upstream({"fake": tuned(provider, retries_max=2)}) as upstream:
        provider.enqueue(*[Script(status=429, headers=hints, body=b"busy")] * 3)

        response = await call(upstream)

        assert (response.status, response.attempts, response.headers) == (429, 3, hints)


@pytest.mark.parametrize("hint", [("retry-after", "7"), ("retry-after-ms", "6500"), ("x-should-retry", "false")])
async def test_a_provider_that_wants_to_be_left_alone_is(hint: tuple[str, str]) -> None:
    """The client gets the answer at once, and knows how long to wait."""
    async with open_fake_provider() as provider, open_upstream({"fake": tuned(provider)}) as upstream:
        provider.enqueue(Script(status=429, headers=[hint], body=b"busy"))

        response = await call(upstream)

        assert (response.status, response.attempts, response.headers) == (429, 1, [hint])


async def test_there_is_no_pause_beyond_the_time_for_the_first_byte() -> None:
    async with open_fake_provider() as provider:
        settings = tuned(provider, retry_wait_max_s=60, first_byte_timeout_s=30)
        async with open_upstream({"fake": settings}) as upstream:
            provider.enqueue(Script(status=503, headers=[("retry-after", "31")], body=b"busy"))

            assert (await call(upstream)).attempts == 1


async def test_a_refused_connection_is_tried_again() -> None:
    async with open_dead_provider() as dead, open_upstream({"fake": tuned(dead, retries_max=2)}) as upstream:
        with pytest.raises(UpstreamError):
            await call(upstream)

        assert upstream.statistics()["fake"]["retries"] == 2


async def test_a_request_that_may_have_been_executed_is_not_sent_twice() -> None:
    """The provider read it and closed the connection without a status."""
    received = 0

    async def take(stream: trio.SocketStream) -> None:
        nonlocal received
        async with stream:
            await stream.receive_some()
            received += 1

    async with trio.open_nursery() as nursery:
        listeners: list[Any] = await nursery.start(trio.serve_tcp, take, 0)
        url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/v1"
        async with open_upstream({"fake": tuned(ProviderSettings(base_url=url, retries_max=5))}) as upstream:
            with pytest.raises(UpstreamError):
                await call(upstream)
        nursery.cancel_scope.cancel()

    assert received == 1


# --- breaker ---


async def test_a_dead_provider_is_refused_at_once_until_a_probe_succeeds(mock_clock: MockClock) -> None:
    async with open_dead_provider() as dead, open_fake_provider() as provider:
        settings = tuned(dead, retries_max=0, breaker_failures=2, breaker_open_s=10)
        async with open_upstream({"fake": settings}) as upstream:
            for _ in range(2):
                with pytest.raises(UpstreamError):
                    await call(upstream)
            with pytest.raises(UpstreamSuspended) as caught:
                await call(upstream)
            assert (caught.value.status, caught.value.retry_after_s) == (503, 10)
            numbers = upstream.statistics()["fake"]
            assert (numbers["breaker"], numbers["breaker_open"], numbers["breaker_openings"]) == ("open", 1, 1)

            mock_clock.jump(10)
            upstream._links["fake"].connections = ProviderConnections(  # it is back
                provider.base_url,
                ssl.create_default_context(),
                connect_timeout_s=PATIENCE_S,
                write_timeout_s=PATIENCE_S,
            )
            await call(upstream)
            assert upstream.statistics()["fake"]["breaker"] == "closed"


async def test_answers_about_one_caller_or_one_request_never_open_it() -> None:
    async with open_fake_provider() as provider:
        settings = tuned(provider, retries_max=0, breaker_failures=1)
        async with open_upstream({"fake": settings}) as upstream:
            for status in (429, 400, 401, 404, 500):
                provider.enqueue(Script(status=status, body=b"no"))
                await call(upstream)

            assert upstream.statistics()["fake"]["breaker"] == "closed"


@pytest.mark.parametrize("status", [502, 503, 504, 529])
async def test_a_provider_out_of_order_opens_it(status: int) -> None:
    """Call by call, however many attempts each of them took."""
    async with open_fake_provider() as provider:
        settings = tuned(provider, retries_max=2, breaker_failures=2)
        async with open_upstream({"fake": settings}) as upstream:
            provider.enqueue(*[Script(status=status, body=b"down")] * 6)
            for _ in range(2):
                response = await call(upstream)
                assert (response.status, response.attempts) == (status, 3)

            with pytest.raises(UpstreamSuspended):
                await call(upstream)


async def test_a_provider_that_does_not_answer_in_time_opens_it(mock_clock: MockClock) -> None:
    ended = trio.Event()
    async with open_fake_provider() as provider, trio.open_nursery() as calling:
        settings = tuned(provider, breaker_failures=1)
        async with open_upstream({"fake": settings}) as upstream:
            provider.enqueue(Script(hang=True))

            async def time_out() -> None:
                with pytest.raises(UpstreamTimeout):
                    await call(upstream)
                ended.set()

            calling.start_soon(time_out)
            await wait_until(lambda: bool(provider.requests))
            await pass_time_until(mock_clock, ended.is_set, step_s=30)
            assert upstream.statistics()["fake"]["breaker_openings"] == 1


# --- bodies in pieces ---


@pytest.mark.parametrize("body_bytes", [None, 5])
async def test_a_body_in_pieces_arrives_whole(body_bytes: int | None) -> None:
    """With its length where that is known, else chunked."""
    async with open_fake_provider() as provider, open_upstream({"fake": tuned(provider)}) as upstream:
        await call(upstream, Pieces([b"ab", b"", b"cde"]), body_bytes=body_bytes)

        got = provider.requests[0]
        assert got.body == b"abcde"
        assert got.headers.get("content-length") == (None if body_bytes is None else "5")
        assert got.headers.get("transfer-encoding") == ("chunked" if body_bytes is None else None)


async def test_a_body_in_pieces_is_sent_once() -> None:
    async with open_fake_provider() as provider, open_upstream({"fake": tuned(provider)}) as upstream:
        provider.enqueue(Script(status=503, body=b"busy"))

        response = await call(upstream, Pieces([b"a"]))

        assert (response.status, response.attempts, len(provider.requests)) == (503, 1, 1)


async def test_what_breaks_a_body_comes_out_and_is_not_the_providers_fault() -> None:
    def refuse() -> None:
        raise TooLarge("Too large.")

    async with open_fake_provider() as provider:
        settings = tuned(provider, breaker_failures=1, connections_max=1)
        async with open_upstream({"fake": settings}) as upstream:
            with pytest.raises(TooLarge):
                await call(upstream, Pieces([b"a", refuse]))

            assert (await call(upstream)).status == 200


async def test_the_time_for_the_first_byte_counts_from_the_end_of_the_body(mock_clock: MockClock) -> None:
    """A slow client's upload is not the provider's delay; silence after it is."""
    ended = trio.Event()
    async with open_fake_provider() as provider, trio.open_nursery() as calling:
        settings = tuned(provider, first_byte_timeout_s=30)
        async with open_upstream({"fake": settings}) as upstream:
            response = await call(upstream, Pieces([b"a", lambda: mock_clock.jump(1000), b"b"]))
            assert (response.status, provider.requests[0].body) == (200, b"ab")

            async def time_out() -> None:
                with pytest.raises(UpstreamTimeout):
                    await call(upstream, Pieces([b"a"]))
                ended.set()

            provider.enqueue(Script(hang=True))
            calling.start_soon(time_out)
            await wait_until(lambda: len(provider.requests) == 2)
            await pass_time_until(mock_clock, ended.is_set, step_s=30)
