"""Heads that two servers could understand in two ways are refused, and every refusal says why."""

from __future__ import annotations

import math
from functools import partial
from types import SimpleNamespace
from typing import Any

import h11
import msgspec
import pytest
import trio
from hypercorn.trio.worker_context import EventWrapper
from trio.testing import MockClock, wait_all_tasks_blocked

from router.http1 import Connection, fault_of
from router.server import serve_app
from tests.patience import PATIENCE_S
from tests.router.test_server import SETTINGS, App, Receive, Scope, Send, read_until, running

HOST = b"Host: x\r\n"


async def answer_to(request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of what the server says to these bytes; it must close the connection after a 4xx."""
    async with running() as server, await server.connect() as stream:
        await stream.send_all(request)
        wire = h11.Connection(h11.CLIENT)
        method = request.partition(b" ")[0].decode()
        wire.send(h11.Request(method=method if method.isalpha() else "GET", target="/", headers=[("host", "x")]))
        wire.send(h11.EndOfMessage())
        status, headers, body = 0, {}, b""
        while True:
            event = wire.next_event()
            if event is h11.NEED_DATA:
                wire.receive_data(await stream.receive_some())
            elif isinstance(event, h11.Response):
                status = event.status_code
                headers = {name.decode(): value.decode() for name, value in event.headers}
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
        if status >= 400:
            assert await read_until(stream, b"never") == b""
        return status, headers, body


CHUNKED = b"Transfer-Encoding: chunked\r\n"
REFUSED = {
    "length and chunks": (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\n" + CHUNKED + b"\r\n0\r\n\r\n", 400),
    "chunks and length": (b"POST / HTTP/1.1\r\n" + HOST + CHUNKED + b"Content-Length: 4\r\n\r\n0\r\n\r\n", 400),
    "two lengths": (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcd", 400),
    "a list of lengths": (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 4, 5\r\n\r\nabcd", 400),
    "a length with a sign": (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: +4\r\n\r\nabcd", 400),
    "chunks in HTTP/1.0": (b"POST / HTTP/1.0\r\n" + HOST + CHUNKED + b"\r\n0\r\n\r\n", 400),
    "another encoding": (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
    "two encodings": (b"POST / HTTP/1.1\r\n" + HOST + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n", 501),
    "a space before the colon": (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length : 4\r\n\r\n", 400),
    "NUL in a header": (b"GET / HTTP/1.1\r\n" + HOST + b"X-Session-Id: a\x00b\r\n\r\n", 400),
    "CR in a header": (b"GET / HTTP/1.1\r\n" + HOST + b"X-Session-Id: a\rb: c\r\n\r\n", 400),
    "NUL in the target": (b"GET /\x00 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\n" + HOST + b"Host: y\r\n\r\n", 400),
    "a URL": (b"GET http://elsewhere.example/ HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n", 400),
    "an authority": (b"CONNECT elsewhere.example:443 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "no place": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "HTTP/2 by prior knowledge": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\n" + HOST + b"\r\n", 505),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
}


@pytest.mark.parametrize(("request_bytes", "status"), REFUSED.values(), ids=REFUSED)
async def test_what_could_be_understood_in_two_ways_is_refused(request_bytes: bytes, status: int) -> None:
    """In JSON, as our own routes write errors, on a connection that ends with it."""
    got, headers, body = await answer_to(request_bytes)

    assert got == status
    assert headers["content-type"] == "application/json"
    assert headers["connection"] == "close"
    answer = msgspec.json.decode(body)
    assert set(answer) - {"hint"} == {"error", "code"}
    assert answer["error"].endswith(".")


async def test_a_head_that_is_too_long_names_its_setting() -> None:
    """431, with what the operator can set."""
    status, _, body = await answer_to(b"GET / HTTP/1.1\r\n" + HOST + b"Large: " + b"x" * SETTINGS.header_max_bytes)

    assert status == 431
    assert "server.header_max_bytes" in msgspec.json.decode(body)["hint"]


@pytest.mark.parametrize("large", ["method", "target", "value"])
async def test_a_head_that_is_too_long_is_refused_also_when_it_comes_in_one_piece(large: str) -> None:
    """Before anything is known to be missing, nothing is too long for h11."""
    parts = {"method": "G", "target": "/", "value": "x"}
    parts[large] += "x" * SETTINGS.header_max_bytes
    head = "{method} {target} HTTP/1.1\r\nHost: x\r\nLarge: {value}\r\n\r\n".format_map(parts)
    status, _, _ = await answer_to(head.encode())

    assert status == 431


async def test_a_refused_head_request_has_no_body() -> None:
    """The client would take it for the next answer."""
    async with running() as server, await server.connect() as stream:
        await stream.send_all(b"HEAD http://elsewhere.example/ HTTP/1.1\r\n" + HOST + b"\r\n")
        answer = await read_until(stream, b"never")
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.endswith(b"\r\n\r\n")


async def test_what_follows_a_refused_request_is_not_served() -> None:
    """The second request is what a smuggler would hide in the first one's body."""
    smuggled = b"GET /slow HTTP/1.1\r\n" + HOST + b"\r\n"
    head = b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n" % len(smuggled) + CHUNKED + b"\r\n0\r\n\r\n"
    async with running() as server, await server.connect() as stream:
        await stream.send_all(head + smuggled)
        answer = await read_until(stream, b"never")
        assert answer.count(b"HTTP/1.1") == 1
        assert not server.app.slow_started.is_set()


@pytest.mark.parametrize(
    "upgrade",
    [
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        b"Upgrade: h2c\r\n",
        b"Connection: Upgrade\r\nUpgrade: TLS/1.3\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    ],
)
async def test_an_upgrade_to_another_protocol_is_not_taken_up(upgrade: bytes) -> None:
    """The request is served as it is, and so is the next one on its connection."""
    request = b"GET / HTTP/1.1\r\n" + HOST + upgrade + b"\r\n"
    status, headers, body = await answer_to(request)

    assert (status, body) == (200, b"end")
    assert "upgrade" not in headers
    async with running() as server, await server.connect() as stream:
        for _ in range(2):
            await stream.send_all(request)
            assert (await read_until(stream, b"0\r\n\r\n")).startswith(b"HTTP/1.1 200")


class _Patient(App):
    """An application that answers nobody and waits until its client has left."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.left = trio.Event(), trio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await super().__call__(scope, receive, send)
            return
        self.asked.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left.set()


@pytest.mark.parametrize("upgrade", [b"", b"Connection: Upgrade\r\nUpgrade: h2c\r\n"], ids=["plain", "with an upgrade"])
async def test_who_leaves_before_the_reply_is_noticed(nursery: trio.Nursery, upgrade: bytes) -> None:
    """Some clients ask for HTTP/2 with their first request, and wait for it no longer than others."""
    app, shutdown = _Patient(), trio.Event()
    with trio.fail_after(PATIENCE_S):
        address = await nursery.start(partial(serve_app, app, SETTINGS, shutdown_trigger=shutdown.wait))
        async with await trio.open_tcp_stream(address.host, address.port) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\n" + HOST + upgrade + b"\r\n")
            await app.asked.wait()
        await app.left.wait()
        shutdown.set()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST / HTTP/1.1\r\n" + HOST + CHUNKED + b"\r\n4\r\nabcd\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET /?q=http://elsewhere.example/ HTTP/1.1\r\n" + HOST + b"\r\n",
    ],
    ids=["chunks", "the same length twice", "HTTP/1.0", "a URL in a query"],
)
async def test_honest_heads_are_served(request_bytes: bytes) -> None:
    """One length said twice leaves no doubt (RFC 9110, section 8.6)."""
    status, _, body = await answer_to(request_bytes)
    assert (status, body) == (200, b"end")


def test_the_rules_need_no_connection() -> None:
    """They are a function of the head."""
    assert fault_of([(b"host", b"x")], target=b"/", version=b"1.1") is None
    fault = fault_of([(b"host", b"x")], target=b"http://x/", version=b"1.1")
    assert fault is not None
    assert "forward proxy" in fault.hint


async def test_a_chunk_that_is_none_ends_the_request() -> None:
    """The application is told that its client has gone."""
    async with running() as server, await server.connect() as stream:
        await stream.send_all(b"POST /slow HTTP/1.1\r\n" + HOST + CHUNKED + b"\r\nZZ\r\n")
        with trio.fail_after(60):
            await read_until(stream, b"never")


class _Waiting(Connection):
    """A connection of which only the wait for another request works. Attributes: whether it was closed for it."""

    def __init__(self) -> None:
        config: Any = SimpleNamespace(keep_alive_timeout=10.0)
        self.config = config
        context: Any = SimpleNamespace(terminated=EventWrapper())
        self.context = context
        self.was_closed = False

    async def _initiate_server_close(self) -> None:
        self.was_closed = True


async def test_an_idle_connection_is_closed_when_nothing_was_asked_for_the_whole_time(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    """Counted from the end of the last request, though no request moves the timer; never while one is served."""
    connection = _Waiting()
    connection._idle_since_s = trio.current_time()
    nursery.start_soon(connection._end_when_idle)

    async def pass_time(seconds: float) -> bool:
        mock_clock.jump(seconds)
        await wait_all_tasks_blocked()
        return connection.was_closed

    await wait_all_tasks_blocked()
    assert not await pass_time(6)
    connection._idle_since_s = trio.current_time()
    assert not await pass_time(6)
    connection._idle = False
    assert not await pass_time(100)
    connection._idle, connection._idle_since_s = True, trio.current_time()
    assert not await pass_time(9)
    assert await pass_time(2)


async def test_an_idle_connection_is_closed_when_the_server_ends(nursery: trio.Nursery) -> None:
    connection = _Waiting()
    connection._idle_since_s = math.inf
    nursery.start_soon(connection._end_when_idle)
    await wait_all_tasks_blocked()
    assert not connection.was_closed
    await connection.context.terminated.set()
    await wait_all_tasks_blocked()
    assert connection.was_closed
