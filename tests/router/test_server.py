"""The server over real sockets: limits of connections, a graceful end, and clear words for an unusable address."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from models.errors import SetupError
from models.server_settings import ServerSettings
from router.connections import LimitedListener
from router.ending import open_shutdown_signals
from router.http1 import ServerConfig
from router.listening import BoundAddress, bind
from router.server import serve_app
from tests.patience import PATIENCE_S, wait_until

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

SETTINGS = ServerSettings(port=0, drain_timeout_s=60, keep_alive_timeout_s=60)
# The test app knows no WebSockets and answers as for HTTP: an exception in the middle of Hypercorn.
WEBSOCKET = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n\xff\xff\xff\xff"
)
GET = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"


class App:
    """An ASGI app for tests: `/` answers at once, `/slow` when released, `/crash` raises, `/cut` can be cut off."""

    def __init__(self) -> None:
        self.slow_started = trio.Event()
        self.cutting = trio.CancelScope()
        self.release = trio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["path"] == "/crash":
            raise RuntimeError("broken on purpose")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/slow":
            await send({"type": "http.response.body", "body": b"begin ", "more_body": True})
            self.slow_started.set()
            await self.release.wait()
        if scope["path"] in {"/flood", "/cut"}:
            self.slow_started.set()
            with self.cutting:
                while True:
                    await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
        await send({"type": "http.response.body", "body": b"end"})

    async def _live(self, receive: Receive, send: Send) -> None:
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})


class Running:
    """A server in this test's nursery."""

    def __init__(self, app: App, address: BoundAddress, shutdown: trio.Event, ended: trio.Event) -> None:
        self.app, self.address, self.shutdown, self.ended = app, address, shutdown, ended

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream(self.address.host, self.address.port)


@asynccontextmanager
async def running(settings: ServerSettings = SETTINGS) -> AsyncIterator[Running]:
    """A server with the test app; leaving shuts it down and waits for its end."""
    app, shutdown, ended = App(), trio.Event(), trio.Event()

    async def run(*, task_status: trio.TaskStatus[BoundAddress]) -> None:
        await serve_app(app, settings, shutdown_trigger=shutdown.wait, task_status=task_status)
        ended.set()

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as server:
            address = await server.start(run)
            yield Running(app, address, shutdown, ended)
            app.release.set()
            shutdown.set()


async def read_until(stream: trio.abc.ReceiveStream, end: bytes) -> bytes:
    """Everything up to `end`, or to the end of the stream."""
    received = bytearray()
    while end not in received:
        part = await stream.receive_some()
        if not part:
            break
        received += part
    return bytes(received)


async def test_port_0_takes_a_free_port_and_tells_it() -> None:
    async with running() as server:
        assert server.address.port > 0
        assert server.address.url == f"http://127.0.0.1:{server.address.port}"
        async with await server.connect() as stream:
            await stream.send_all(GET % b"/")
            head = (await read_until(stream, b"end")).lower()
    assert head.startswith(b"http/1.1 200")
    assert b"\r\nserver:" not in head


def test_an_ipv6_address_has_brackets_in_its_url() -> None:
    assert BoundAddress(host="::1", port=80).url == "http://[::1]:80"


async def test_a_used_port_is_one_clear_line() -> None:
    async with running() as server:
        settings = msgspec.structs.replace(SETTINGS, port=server.address.port)
        with pytest.raises(SetupError, match=f"127.0.0.1 port {server.address.port} is already in use; choose another"):
            bind(settings)


async def test_a_port_that_another_server_took_between_bind_and_listen_is_one_clear_line() -> None:
    first = bind(SETTINGS)
    settings = msgspec.structs.replace(SETTINGS, port=first.getsockname()[1])
    second = bind(settings)  # allowed while neither listens
    with first:
        first.listen()
        with pytest.RaisesGroup(pytest.RaisesExc(SetupError, match="already in use"), flatten_subgroups=True):
            await serve_app(App(), settings, listening=second, shutdown_trigger=trio.sleep_forever)
    assert second.fileno() == -1


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("203.0.113.7", "203.0.113.7 is no address of this machine"),
        ("no such host", "'no such host' is no known address or name"),
        ("x" * 70, "is no known address or name"),
    ],
)
def test_a_wrong_host_is_one_clear_line(host: str, message: str) -> None:
    with pytest.raises(SetupError, match=message) as caught:
        bind(msgspec.structs.replace(SETTINGS, host=host))
    assert "\n" not in str(caught.value)


def test_a_name_binds_to_ipv4_first() -> None:
    with bind(msgspec.structs.replace(SETTINGS, host="localhost")) as bound:
        assert bound.family == socket.AF_INET


def test_accepted_sockets_give_up_on_clients_that_stop_reading() -> None:
    with bind(msgspec.structs.replace(SETTINGS, stalled_write_timeout_s=1.5)) as bound:
        bound.listen()
        bound.setblocking(True)
        with socket.create_connection(bound.getsockname()), bound.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1500


async def test_a_client_that_stops_reading_cannot_hold_up_the_end() -> None:
    settings = msgspec.structs.replace(SETTINGS, stalled_write_timeout_s=0.5, drain_timeout_s=0.1)
    async with running(settings) as server, await server.connect() as stream:
        await stream.send_all(GET % b"/flood")
        await server.app.slow_started.wait()
        await wait_all_tasks_blocked(0.2)  # every buffer on the way is full
        server.shutdown.set()
        with trio.fail_after(PATIENCE_S):
            await server.ended.wait()


async def test_nothing_follows_a_write_that_was_cut_off() -> None:
    """How much of it has gone out is not known: what the application says then would land in the middle of a chunk."""
    async with running() as server, await server.connect() as stream:
        await stream.send_all(GET % b"/cut")
        await server.app.slow_started.wait()
        await wait_all_tasks_blocked(0.2)  # every buffer on the way is full
        server.app.cutting.cancel()
        assert b"end" not in await read_until(stream, b"end")


async def test_a_running_request_finishes_while_the_server_drains() -> None:
    async with running() as server:
        async with await server.connect() as stream:
            await stream.send_all(GET % b"/slow")
            await server.app.slow_started.wait()
            server.shutdown.set()
            while True:  # the port closes first
                try:
                    await (await server.connect()).aclose()
                except OSError:
                    break
            assert not server.ended.is_set()
            server.app.release.set()
            assert b"end" in await read_until(stream, b"end")
        await server.ended.wait()


async def test_a_request_that_outlasts_the_drain_is_ended() -> None:
    async with running(msgspec.structs.replace(SETTINGS, drain_timeout_s=0.1)) as server:
        async with await server.connect() as stream:
            await stream.send_all(GET % b"/slow")
            await server.app.slow_started.wait()
            server.shutdown.set()
            assert b"end" not in await read_until(stream, b"end")
        await server.ended.wait()


async def test_idle_connections_do_not_hold_up_the_end() -> None:
    async with (
        running(msgspec.structs.replace(SETTINGS, drain_timeout_s=3_600)) as server,
        await server.connect() as idle,
        await server.connect() as used,
    ):
        await used.send_all(GET % b"/")
        await read_until(used, b"end")
        server.shutdown.set()
        with trio.fail_after(PATIENCE_S):
            await server.ended.wait()
        assert await read_until(idle, b"x") == b""


async def test_connections_beyond_the_limit_wait_for_a_place() -> None:
    """Which a client that closes its connection gives up at once, whatever the keep-alive time is."""
    async with running(msgspec.structs.replace(SETTINGS, connections_max=2)) as server:
        first, second = await server.connect(), await server.connect()
        for stream in (first, second):
            await stream.send_all(GET % b"/")
            await read_until(stream, b"end")
        async with await server.connect() as third:
            await third.send_all(GET % b"/")
            with trio.move_on_after(0.2) as waiting:
                await third.receive_some()
            assert waiting.cancelled_caught
            await first.aclose()
            assert b"end" in await read_until(third, b"end")
        await second.aclose()


async def test_a_place_is_not_lost_when_accepting_is_cancelled(autojump_clock: MockClock) -> None:
    listening = trio.socket.socket()
    await listening.bind(("127.0.0.1", 0))
    listening.listen()
    listener = LimitedListener(trio.SocketListener(listening), connections_max=1)
    for _ in range(3):
        with trio.move_on_after(1):
            await listener.accept()
    assert listener.free == 1
    await listener.aclose()


async def test_headers_beyond_their_limit_are_refused() -> None:
    settings = msgspec.structs.replace(SETTINGS, header_max_bytes=4096)
    async with running(settings) as server, await server.connect() as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\nLarge: " + b"x" * 8192)
        assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 431")


async def test_a_crashing_request_is_a_500_and_the_server_goes_on() -> None:
    async with running() as server:
        for path, status in ((b"/crash", b"500"), (b"/", b"200")):
            async with await server.connect() as stream:
                await stream.send_all(GET % path)
                assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 " + status)


async def test_garbage_on_one_connection_harms_no_other() -> None:
    async with running() as server:
        for garbage in (b"\x16\x03\x01\x02\x00", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 64, WEBSOCKET):
            async with await server.connect() as stream:
                await stream.send_all(garbage)
                await stream.send_eof()
                await read_until(stream, b"never")
        async with await server.connect() as stream:
            await stream.send_all(GET % b"/")
            assert b"end" in await read_until(stream, b"end")


def test_hypercorn_writes_no_access_log_and_no_name_of_itself() -> None:
    config = ServerConfig(SETTINGS)

    assert config.log.access_logger is None
    assert config.response_headers("h11")[0][0] == b"date"
    assert len(config.response_headers("h11")) == 1
    assert config.keep_alive_timeout == SETTINGS.keep_alive_timeout_s


async def test_who_shares_a_port_lets_others_have_their_part_of_a_burst(mock_clock: MockClock) -> None:
    """Each takes one, and is then behind the others for a moment."""
    (shared,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = shared.socket.getsockname()[1]
    sharing = LimitedListener(shared, 10, pause_s=1.0)
    async with trio.open_nursery() as tasks:
        taken: list[trio.SocketStream] = []

        async def take() -> None:
            while True:
                taken.append(await sharing.accept())

        def have_come(least: int) -> bool:
            return len(taken) >= least

        burst = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(3)]
        tasks.start_soon(take)
        for expected in (1, 2, 3):
            await wait_until(partial(have_come, expected))
            await wait_all_tasks_blocked(0.01)
            assert len(taken) == expected
            mock_clock.jump(1.0)
        tasks.cancel_scope.cancel()
    for stream in (*burst, *taken):
        await stream.aclose()
    await sharing.aclose()


async def test_the_first_signal_is_an_event() -> None:
    async with open_shutdown_signals(exit_within_s=60) as shutdown:
        os.kill(os.getpid(), signal.SIGTERM)
        with trio.fail_after(PATIENCE_S):
            await shutdown.wait()


async def test_an_end_that_is_asked_for_is_no_signal() -> None:
    """The first one after it asks for nothing new, and is not the second."""
    asked = trio.Event()
    async with open_shutdown_signals(exit_within_s=60, asked=asked.wait) as shutdown:
        asked.set()
        with trio.fail_after(PATIENCE_S):
            await shutdown.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await wait_all_tasks_blocked(0.01)


STUBBORN = """
import os, signal, sys, trio
from router.ending import open_shutdown_signals

async def main():
    within_s = float(sys.argv[1])
    async with open_shutdown_signals(exit_within_s=within_s, before_exit=lambda: print("last", flush=True)) as shutdown:
        os.kill(os.getpid(), signal.SIGTERM)
        await shutdown.wait()
        print("draining", flush=True)
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

trio.run(main)
"""


def test_a_second_signal_ends_the_process_at_once() -> None:
    with subprocess.Popen([sys.executable, "-c", STUBBORN, "60"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "draining\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=PATIENCE_S) == 128 + signal.SIGINT
        assert process.stdout.read() == "last\n"


def test_an_end_that_takes_too_long_is_made_short() -> None:
    done = subprocess.run([sys.executable, "-c", STUBBORN, "0.1"], capture_output=True, timeout=PATIENCE_S, check=False)

    assert done.returncode == 1
    assert done.stdout == b"draining\nlast\n"
