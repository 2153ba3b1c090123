"""HTTP for clients whose server may vanish at any moment: h11 on sockets, and nothing that has to be tidied up.

httpx's own transport leaves generators behind when a connection breaks in the middle of a request, and warnings about
them surface in whatever test runs next. `WireTransport` puts `httpx.AsyncClient` on top of this.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import h11
import httpx
import trio

Headers = Iterable[tuple[str, str]]


class Wire:
    """One connection. Every failure of it is an `httpx.TransportError`, and its end."""

    def __init__(self, stream: trio.SocketStream, authority: str) -> None:
        self._stream = stream
        self._authority = authority
        self._wire = h11.Connection(h11.CLIENT)

    @classmethod
    async def connect(cls, url: httpx.URL) -> Wire:
        """Connect to a server.

        Raises:
            httpx.ConnectError: nobody listens.
        """
        try:
            return cls(await trio.open_tcp_stream(url.host, url.port or 80), f"{url.host}:{url.port}")
        except OSError as error:
            raise httpx.ConnectError("nobody listens") from error

    async def __aenter__(self) -> Wire:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.leave()

    async def ask(self, method: str, target: str, headers: Headers, body: bytes) -> h11.Response:
        """Send a request; the head of its response."""
        length = [("content-length", str(len(body)))] if body else []
        head = h11.Request(method=method, target=target, headers=[("host", self._authority), *headers, *length])
        events: list[Any] = [head, *([h11.Data(data=body)] if body else []), h11.EndOfMessage()]
        await self._send(b"".join(self._wire.send(event) or b"" for event in events))
        response = await self._event()
        assert isinstance(response, h11.Response)
        return response

    async def data(self) -> bytes:
        """The next piece of the body, b"" at its end."""
        event = await self._event()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def body(self) -> bytes:
        """All of the body."""
        pieces = []
        while piece := await self.data():
            pieces.append(piece)
        return b"".join(pieces)

    def go_on(self) -> bool:
        """Whether this connection can carry another request."""
        if self._wire.our_state is self._wire.their_state is h11.DONE:
            self._wire.start_next_cycle()
            return True
        return False

    async def leave(self) -> None:
        """Close it, whatever is under way."""
        await trio.aclose_forcefully(self._stream)  # which closes before it can be cancelled

    async def _send(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpx.WriteError("the connection broke") from error

    async def _event(self) -> Any:
        try:
            while (event := self._wire.next_event()) is h11.NEED_DATA:
                self._wire.receive_data(await self._stream.receive_some())
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError) as error:
            raise httpx.ReadError("the connection broke") from error
        if isinstance(event, h11.ConnectionClosed):
            raise httpx.ReadError("the connection was closed")
        return event


class WireTransport(httpx.AsyncBaseTransport):
    """Wires to one server, kept for further requests.

    Args:
        connect: makes one more; by default to where a request's URL says.
    """

    def __init__(self, connect: Callable[[httpx.URL], Awaitable[Wire]] = Wire.connect) -> None:
        self._connect = connect
        self._idle: list[Wire] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and read the whole response."""
        body = await request.aread()
        wire = self._idle.pop() if self._idle else await self._connect(request.url)
        finished = False
        try:
            response = await wire.ask(
                request.method, request.url.raw_path.decode(), plain_headers(request.headers), body
            )
            content = await wire.body()
            finished = wire.go_on()
        finally:
            if finished:
                self._idle.append(wire)
            else:
                await wire.leave()
        return httpx.Response(response.status_code, headers=list(response.headers.raw_items()), content=content)

    async def aclose(self) -> None:
        """Leave all connections."""
        for wire in self._idle:
            await wire.leave()


def plain_headers(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """The headers without those that a wire sets by itself."""
    return [(name, value) for name, value in headers.items() if name not in {"host", "content-length"}]


def connected(url: str) -> httpx.AsyncClient:
    """A client of one server, for any number of tasks."""
    return httpx.AsyncClient(base_url=url, transport=WireTransport(), timeout=None)
