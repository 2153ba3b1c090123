"""No reply overtakes its request, and no refused request leaves a connection behind."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import h11
import pytest
import trio
import trio.testing

from models.server_settings import ServerSettings
from router.early_replies import ReplyAfterRequest
from router.listening import BoundAddress
from router.server import serve_app
from tests.patience import PATIENCE_S, pass_time_until
from tests.running import object_of, open_server, settings_for

LARGE = 8 * 1024 * 1024


class Connection:
    """A server's side of one request: messages in, messages out."""

    def __init__(self) -> None:
        self.send_in, self.receive = trio.open_memory_channel[dict[str, Any]](100)
        self.sent: list[dict[str, Any]] = []

    async def send(self, message: Any) -> None:
        self.sent.append(dict(message))

    def body(self, data: bytes, *, more: bool) -> None:
        self.send_in.send_nowait({"type": "http.request", "body": data, "more_body": more})


async def refuse(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers at once, while it goes on reading, as Quart does."""
    async with trio.open_nursery() as reading:
        reading.start_soon(read_all, receive)
        await send({"type": "http.response.start", "status": 413, "headers": []})
        await send({"type": "http.response.body", "body": b"no", "more_body": False})
        reading.cancel_scope.cancel()


async def read_all(receive: Any) -> None:
    while (await receive()).get("more_body", False):
        pass


async def test_a_reply_waits_for_the_end_of_its_request() -> None:
    """And is unchanged then."""
    connection = Connection()
    async with trio.open_nursery() as nursery:
        app = ReplyAfterRequest(refuse)
        nursery.start_soon(app, {"type": "http"}, connection.receive.receive, connection.send)
        connection.body(b"x" * 10, more=True)
        await trio.testing.wait_all_tasks_blocked()
        assert connection.sent == []
        connection.body(b"", more=False)
    assert [message["type"] for message in connection.sent] == ["http.response.start", "http.response.body"]
    assert connection.sent[0]["headers"] == []


async def test_a_client_that_does_not_end_its_request_is_answered_and_told_to_close(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """After the time that it is given."""
    connection = Connection()
    connection.body(b"x", more=True)
    await ReplyAfterRequest(refuse, discard_timeout_s=7)({"type": "http"}, connection.receive.receive, connection.send)
    assert trio.current_time() == pytest.approx(7, abs=0.1)
    assert (b"connection", b"close") in connection.sent[0]["headers"]
    assert connection.sent[1]["body"] == b"no"


async def test_a_client_that_has_gone_is_not_waited_for() -> None:
    """A disconnect ends the request too."""
    connection = Connection()
    connection.send_in.send_nowait({"type": "http.disconnect"})
    with trio.fail_after(PATIENCE_S):
        await ReplyAfterRequest(refuse)({"type": "http"}, connection.receive.receive, connection.send)


@pytest.mark.parametrize("key", ["", "mk_nobody", None], ids=["none", "unknown", "valid"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_large_refused_body_gets_its_answer_and_the_connection_goes_on(
    tmp_path: Path, key: str | None, chunked: bool
) -> None:
    """401 or 413, in JSON; the next request on the same connection is served."""
    settings = settings_for(server=ServerSettings(host="127.0.0.1", port=0, body_max_bytes=LARGE // 4))

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(LARGE // 65_536):
            yield b"x" * 65_536

    async with open_server(tmp_path / "data", settings) as server:
        shown = server.key if key is None else key
        headers = {"authorization": f"Bearer {shown}"} if shown else {}
        for path in ("/v1/memory/upload", "/v1/chat/completions"):
            with trio.fail_after(PATIENCE_S):
                content = chunks() if chunked else b"x" * LARGE
                answer = await server.http.post(path, content=content, headers=headers)
            assert answer.status_code == (413 if key is None else 401)
            assert object_of(answer)["error"]
            with trio.fail_after(PATIENCE_S):
                assert (await server.get("/livez")).status_code == 200


async def write_forever(stream: trio.SocketStream, wire: h11.Connection) -> None:
    while True:
        await stream.send_all(wire.send(h11.Data(data=b"x" * 65_536)) or b"")


async def test_a_client_that_never_stops_writing_loses_its_connection() -> None:
    """The server must not keep it open for ever: connections are limited, and this needs no key."""
    app = ReplyAfterRequest(refuse, discard_timeout_s=0.2)

    async def serve_asgi(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await app(scope, receive, send)
            return
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})

    async def serve(*, task_status: trio.TaskStatus[BoundAddress]) -> None:
        settings = ServerSettings(host="127.0.0.1", port=0)
        await serve_app(serve_asgi, settings, shutdown_trigger=trio.sleep_forever, task_status=task_status)

    async with trio.open_nursery() as nursery:
        address: BoundAddress = await nursery.start(serve)
        wire = h11.Connection(h11.CLIENT)
        async with await trio.open_tcp_stream(address.host, address.port) as stream:
            head = h11.Request(method="POST", target="/", headers=[("host", "x"), ("transfer-encoding", "chunked")])
            await stream.send_all(wire.send(head) or b"")
            with trio.fail_after(PATIENCE_S), pytest.raises(trio.BrokenResourceError):
                await write_forever(stream, wire)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("path", ["/livez", "/nowhere", "/v1/memory/stats"])
async def test_an_idle_connection_closes_when_its_time_is_up(
    tmp_path: Path, path: str, mock_clock: trio.testing.MockClock
) -> None:
    """Also after a reply of Quart, which cancels what sends it as soon as it hears that the exchange is over."""
    settings = settings_for(server=ServerSettings(host="127.0.0.1", port=0, keep_alive_timeout_s=5))
    async with open_server(tmp_path / "data", settings) as server:
        host, _, port = server.url.removeprefix("http://").partition(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 ")
            closed = trio.Event()
            async with trio.open_nursery() as reading:
                reading.start_soon(read_to_the_end, stream, closed)
                await pass_time_until(mock_clock, closed.is_set, step_s=5)


async def read_to_the_end(stream: trio.SocketStream, ended: trio.Event) -> None:
    while await stream.receive_some():
        pass
    ended.set()


async def test_a_stop_does_not_wait_for_idle_connections(tmp_path: Path) -> None:
    """Only for requests."""
    settings = settings_for(server=ServerSettings(host="127.0.0.1", port=0, drain_timeout_s=3_600))
    async with open_server(tmp_path / "data", settings) as server:
        host, _, port = server.url.removeprefix("http://").partition(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
            await stream.receive_some()
            signal.raise_signal(signal.SIGTERM)
            with trio.fail_after(PATIENCE_S):
                while await stream.receive_some():
                    pass
