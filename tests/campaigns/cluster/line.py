"""A line between a node and PostgreSQL that can be cut, be slow, or swallow everything without a word."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from tests.campaigns.moments import pass_time


class Line:
    """Passes bytes on in both directions.

    Attributes:
        port: where it listens, on 127.0.0.1.
        delay_s: how long each piece is held back.
        refuses: whether new connections are closed at once.
        silent: whether what comes in is thrown away, while every connection stays open.
    """

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._streams: set[trio.SocketStream] = set()
        self.port = 0
        self.delay_s = 0.0
        self.refuses = False
        self.silent = False

    async def cut(self) -> None:
        """Close every connection; new ones may be made unless the line refuses them."""
        for stream in list(self._streams):
            await trio.aclose_forcefully(stream)

    async def heal(self) -> None:
        """Be a good line again. Connections that lost bytes are closed."""
        lossy, self.silent, self.refuses, self.delay_s = self.silent, False, False, 0.0
        if lossy:
            await self.cut()

    async def accept(self, client: trio.SocketStream) -> None:
        """One connection, until either end closes it."""
        if self.refuses:
            await trio.aclose_forcefully(client)
            return
        try:
            server = await trio.open_tcp_stream("127.0.0.1", self._server_port)
        except OSError:
            await trio.aclose_forcefully(client)
            return
        both = {client, server}
        self._streams |= both
        try:
            async with trio.open_nursery() as passing:
                passing.start_soon(self._pass, client, server)
                passing.start_soon(self._pass, server, client)
        finally:
            self._streams -= both

    async def _pass(self, source: trio.SocketStream, target: trio.SocketStream) -> None:
        try:
            while data := await source.receive_some(1 << 16):
                if self.delay_s:
                    await pass_time(self.delay_s)
                if not self.silent:
                    await target.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(source)
            await trio.aclose_forcefully(target)


@asynccontextmanager
async def open_line(server_port: int) -> AsyncIterator[Line]:
    """A line to this port of this machine."""
    line = Line(server_port)
    async with trio.open_nursery() as serving:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        line.port = int(listener.socket.getsockname()[1])
        serving.start_soon(trio.serve_listeners, line.accept, [listener])
        yield line
        serving.cancel_scope.cancel()
