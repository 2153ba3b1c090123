"""Clients that take their time, or vanish: each is cut off within a bound, and honest slow ones are not.

The server's clock is put ahead by hand, so that no stall of the machine comes before a deadline.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from models.server_settings import ServerSettings
from router.addresses import networks_of
from router.listening import BoundAddress
from router.server import serve_app
from tests.patience import pass_time_until
from tests.running import open_server, settings_for

SETTINGS = ServerSettings(port=0, header_timeout_s=30, keep_alive_timeout_s=75, drain_timeout_s=1_000)
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class App:
    """An ASGI app that answers when released."""

    def __init__(self) -> None:
        self.release = trio.Event()
        self.asked = 0

    async def __call__(self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Any]) -> None:
        if scope["type"] == "lifespan":
            for phase in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{phase}.complete"})
            return
        self.asked += 1
        await self.release.wait()
        headers = [(b"content-length", b"3")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"end"})


class Peer:
    """A client's end of a connection, which hears all that the server says."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.heard = b""
        self.closed = False

    async def listen(self) -> None:
        """Hear what the server says, to the end of the connection."""
        async with self.stream:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                while part := await self.stream.receive_some():
                    self.heard += part
        self.closed = True

    async def say(self, data: bytes) -> None:
        """Send, unless the server has closed the connection."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self.stream.send_all(data)

    @property
    def answered(self) -> bool:
        return self.heard.endswith(b"end")


class Running:
    """A server in this test's loop, its clients, and what its limits have said."""

    def __init__(self, app: App, address: BoundAddress, limited: Counter[str], clients: trio.Nursery) -> None:
        self.app, self.address, self.limited, self._clients = app, address, limited, clients

    async def connect(self) -> Peer:
        peer = Peer(await trio.open_tcp_stream(self.address.host, self.address.port))
        self._clients.start_soon(peer.listen)
        return peer


@asynccontextmanager
async def running(
    settings: ServerSettings = SETTINGS, *, trusted_proxies: tuple[str, ...] = ()
) -> AsyncIterator[Running]:
    app, limited = App(), Counter[str]()

    async def run(*, task_status: trio.TaskStatus[BoundAddress]) -> None:
        await serve_app(
            app,
            settings,
            shutdown_trigger=trio.sleep_forever,
            trusted_proxies=networks_of(trusted_proxies),
            limited=lambda limit: limited.update([limit]),
            task_status=task_status,
        )

    async with trio.open_nursery() as tasks:
        address = await tasks.start(run)
        yield Running(app, address, limited, tasks)
        tasks.cancel_scope.cancel(reason="the test is over")


async def let_happen(clock: MockClock, happened: Callable[[], bool]) -> None:
    """Wait for something that needs no time to pass."""
    await pass_time_until(clock, happened, step_s=0)


async def test_a_client_that_says_nothing_loses_its_place(mock_clock: MockClock) -> None:
    """Half-open connections would take all places; with one place, the next client gets it."""
    async with running(msgspec.structs.replace(SETTINGS, connections_max=1)) as server:
        server.app.release.set()
        silent, waiting = await server.connect(), await server.connect()
        await waiting.say(GET)
        await wait_all_tasks_blocked(0.05)
        assert waiting.heard == b""
        mock_clock.jump(29)
        await wait_all_tasks_blocked(0.01)
        assert not silent.closed
        await pass_time_until(mock_clock, lambda: waiting.answered, step_s=0.5)
        assert silent.closed
        assert silent.heard == b""
        assert server.limited == {"headers": 1}


@pytest.mark.parametrize("later", [False, True], ids=["first", "later"])
async def test_a_head_that_comes_drop_by_drop_is_cut_off(mock_clock: MockClock, later: bool) -> None:
    """A byte a second keeps no connection open, neither with the first request nor with a later one."""
    async with running() as server:
        server.app.release.set()
        peer = await server.connect()
        if later:
            await peer.say(GET)
            await let_happen(mock_clock, lambda: peer.answered)
            peer.heard = b""
        began_s = trio.current_time()
        await peer.say(b"GET / HTTP/1.1\r\nX: ")
        while not peer.closed and trio.current_time() - began_s < 100:
            await peer.say(b"x")
            await wait_all_tasks_blocked(0.01)
            mock_clock.jump(1)
            await wait_all_tasks_blocked(0.01)
        assert peer.closed
        assert 29 <= trio.current_time() - began_s <= 33
        assert peer.heard.startswith(b"HTTP/1.1 408 ")
        assert b'"code":"header_timeout"' in peer.heard
        assert server.limited == {"headers": 1}


async def test_neither_a_long_answer_nor_a_pause_between_requests_is_a_slow_head(mock_clock: MockClock) -> None:
    async with running() as server:
        peer = await server.connect()
        await peer.say(GET)
        await let_happen(mock_clock, lambda: server.app.asked == 1)
        mock_clock.jump(1_000)
        await wait_all_tasks_blocked(0.01)
        server.app.release.set()
        await let_happen(mock_clock, lambda: peer.answered)
        mock_clock.jump(60)
        await wait_all_tasks_blocked(0.01)
        peer.heard = b""
        await peer.say(GET)
        await let_happen(mock_clock, lambda: peer.answered)
        assert not server.limited


async def test_a_request_that_stands_behind_another_has_its_time_too(mock_clock: MockClock) -> None:
    """A pipelined head that is begun while the first request is answered is timed from that answer on."""
    async with running() as server:
        peer = await server.connect()
        await peer.say(GET + b"GET / HT")
        await let_happen(mock_clock, lambda: server.app.asked == 1)
        mock_clock.jump(100)
        server.app.release.set()
        await let_happen(mock_clock, lambda: peer.answered)
        assert not peer.closed
        answered_s = trio.current_time()
        await pass_time_until(mock_clock, lambda: peer.closed, step_s=1)
        assert trio.current_time() - answered_s <= 33
        assert server.limited == {"headers": 1}


async def test_an_address_has_so_many_connections_and_gets_them_back(mock_clock: MockClock) -> None:
    settings = msgspec.structs.replace(SETTINGS, connections_per_address_max=2)
    async with running(settings) as server:
        server.app.release.set()
        first, second, third = [await server.connect() for _ in range(3)]
        await let_happen(mock_clock, lambda: third.closed)
        assert server.limited == {"connections": 1}
        assert not first.closed
        await second.say(GET)
        await let_happen(mock_clock, lambda: second.answered)

        await first.stream.aclose()
        got_in = False
        while not got_in:  # until the server has noticed
            another = await server.connect()
            await another.say(GET)
            got_in = await _is_answered(mock_clock, another)


async def _is_answered(clock: MockClock, peer: Peer) -> bool:
    await let_happen(clock, lambda: peer.closed or peer.answered)
    return peer.answered


async def test_a_trusted_proxy_has_as_many_connections_as_it_likes(mock_clock: MockClock) -> None:
    """Everybody stands behind it."""
    settings = msgspec.structs.replace(SETTINGS, connections_per_address_max=1)
    async with running(settings, trusted_proxies=("127.0.0.0/8",)) as server:
        server.app.release.set()
        for _ in range(3):
            peer = await server.connect()
            await peer.say(GET)
            assert await _is_answered(mock_clock, peer)
        assert not server.limited


async def test_a_body_that_comes_drop_by_drop_is_refused_and_its_connection_closed(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    settings = settings_for(server=ServerSettings(port=0, body_timeout_s=20))
    async with open_server(tmp_path / "data", settings) as client, trio.open_nursery() as listening:
        await client.stats()  # its key is known and its vault in memory: no thread is asked while time is put ahead
        host, _, port = client.url.removeprefix("http://").partition(":")
        peer = Peer(await trio.open_tcp_stream(host, int(port)))
        listening.start_soon(peer.listen)
        head = f"POST /v1/memory/search HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.key}\r\n"
        await peer.say(head.encode() + b"Content-Length: 1000\r\n\r\n")
        began_s = trio.current_time()
        while not peer.closed and trio.current_time() - began_s < 100:
            await peer.say(b" ")
            await wait_all_tasks_blocked(0.01)
            mock_clock.jump(1)
            await wait_all_tasks_blocked(0.01)
        assert peer.closed
        assert trio.current_time() - began_s <= 40
        assert peer.heard.startswith(b"HTTP/1.1 400 ")
        assert b"did not arrive in time" in peer.heard
