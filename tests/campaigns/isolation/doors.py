"""How requests get in: as ASGI calls to the whole application in this process, or over sockets to a process.

Both give the same `Reply`, with everything in it that a client can see.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import httpx
import msgspec
import trio

from tests.campaigns.wire import Wire


class Reply(msgspec.Struct, frozen=True):
    """What came back. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def everything(self) -> bytes:
        """Headers and body."""
        return b"\n".join([*(f"{name}: {value}".encode() for name, value in self.headers.items()), self.body])

    def json(self) -> Any:
        """The body."""
        return msgspec.json.decode(self.body)


class Door(Protocol):
    """Takes requests in."""

    async def ask(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Send one request and read the whole reply.

        Raises:
            httpx.TransportError: the server is gone.
        """


class AsgiDoor:
    """Into an application, without sockets."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def ask(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """One ASGI call."""
        path, _, query = target.partition("?")
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "scheme": "http",
            "method": method, "path": path, "raw_path": path.encode(), "query_string": query.encode(),
            "headers": [(b"host", b"x"), *((name.encode(), value.encode()) for name, value in headers.items())],
            "root_path": "", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "state": {}, "extensions": {},
        }  # fmt: skip
        call = _Call(body)
        await self._app(scope, call.receive, call.send)
        return Reply(call.status, call.headers, b"".join(call.pieces))


class _Call:
    """The client's side of one ASGI call: it stays until the reply is complete."""

    def __init__(self, body: bytes) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.pieces: list[bytes] = []
        self._bodies = [body]
        self._left = trio.Event()

    async def receive(self) -> dict[str, Any]:
        """The body, then nothing until the client leaves."""
        if self._bodies:
            return {"type": "http.request", "body": self._bodies.pop(), "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        """Take a part of the reply."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode().lower(): value.decode("latin-1") for name, value in message["headers"]}
        else:
            self.pieces.append(message.get("body", b""))
            if not message.get("more_body", False):
                self._left.set()


class WireDoor:
    """Into a server process, over connections that are kept."""

    def __init__(self, url: str) -> None:
        self._url = httpx.URL(url)
        self._idle: list[Wire] = []

    async def ask(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """One request on a connection that is free, or on a new one."""
        wire = self._idle.pop() if self._idle else await Wire.connect(self._url)
        free = False
        try:
            head = await wire.ask(method, target, list(headers.items()), body)
            content = await wire.body()
            free = wire.go_on()
        finally:
            if free:
                self._idle.append(wire)
            else:
                await wire.leave()
        fields = {name.decode().lower(): value.decode("latin-1") for name, value in head.headers}
        return Reply(head.status_code, fields, content)

    async def aclose(self) -> None:
        """Leave all connections."""
        for wire in self._idle:
            await wire.leave()
