"""One connection and the HTTP/1.1 on it: what h11 lets through and a careful server refuses, and when it ends.

Owns the rules for a request's head that hold whatever the route: one way to tell where the body ends, a path as the
target, a version that is known. Must never know a route, nor upgrade a connection to HTTP/2: one connection is one
request at a time, and so the limit of connections is one of requests, too.

Beside `router.server` the only module that imports Hypercorn. Its protocol is not documented; the version is pinned.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable
from itertools import chain
from typing import Any

import h11
import msgspec
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Body, EndBody, Response
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup, _handle
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from models.server_settings import ServerSettings
from router.handing_over import HandOver
from router.head_lines import split_headers, with_lines
from router.observe import log_event
from router.request_messages import RequestMessages, put_messages
from router.sockets import QuickSocket, quick_socket
from router.tls import HANDSHAKE_TIMEOUT_S

RECEIVE_BYTES_MAX = 64 * 1024
CLOSE_TIMEOUT_S = 5.0
_VERSIONS = (b"1.0", b"1.1")
_SENTENCES = {
    400: ("bad_request", "The request is not valid HTTP.", ""),
    408: ("header_timeout", "The request's headers did not arrive in time.", "See server.header_timeout_s."),
    431: ("headers_too_large", "The request line and its headers are too long.", "See server.header_max_bytes."),
    501: ("transfer_encoding", "Only Transfer-Encoding: chunked is supported.", ""),
    505: ("http_version", "Only HTTP/1.0 and HTTP/1.1 are supported.", ""),
}
"""Code, sentence and hint of what is refused before a route is known."""


class Fault(msgspec.Struct, frozen=True):
    """What is wrong with a request's head."""

    status: int
    code: str
    sentence: str
    hint: str = ""


def fault_of(headers: list[tuple[bytes, bytes]], *, target: bytes, version: bytes) -> Fault | None:
    """What h11 accepts of a request's head and this server does not; None if nothing.

    Args:
        headers: with names in lower case. Conflicting lengths, several hosts and NUL, CR or LF in a value have been
            refused before.
    """
    if version not in _VERSIONS:
        return _fault(505)
    names = {name for name, _ in headers}
    if b"transfer-encoding" in names:
        # Two servers in a row that disagree on which of both counts can be made to see different requests (request
        # smuggling). RFC 9112, sections 6.1 and 6.3, allows to refuse the one and demands to refuse the other.
        if b"content-length" in names:
            return Fault(400, "bad_request", "A request has Content-Length or Transfer-Encoding, not both.")
        if version == b"1.0":
            return Fault(400, "bad_request", "HTTP/1.0 has no Transfer-Encoding.")
    if not target.startswith(b"/"):
        # An absolute URL means that the client takes this server for a forward proxy. Which names are its own it does
        # not know, so it cannot tell whether the request, and the keys in it, are meant for somebody else.
        return Fault(400, "bad_request", "The request's target must be a path.", "This server is no forward proxy.")
    return None


def _fault(status: int) -> Fault:
    code, sentence, hint = _SENTENCES.get(status, _SENTENCES[400])
    return Fault(status, code, sentence, hint)


def _without_upgrade(request: h11.Request) -> h11.Request:
    """The same request, of which Hypercorn will not make a WebSocket: no route has one, and a handshake that it cannot
    read would keep the connection without any deadline."""
    headers = [(name, value) for name, value in request.headers if name != b"upgrade"]
    return h11.Request(method=request.method, target=request.target, headers=headers, http_version=request.http_version)


def fault_body(fault: Fault) -> bytes:
    """The JSON of a refusal, as our own routes write errors."""
    hint = {"hint": fault.hint} if fault.hint else {}
    return msgspec.json.encode({"error": fault.sentence, "code": fault.code, **hint})


class ServerConfig(Config):
    """Hypercorn's options as our settings want them."""

    def __init__(self, settings: ServerSettings) -> None:
        super().__init__()
        self.graceful_timeout = settings.drain_timeout_s
        self.keep_alive_timeout = settings.keep_alive_timeout_s
        self.header_timeout_s = settings.header_timeout_s
        self.h11_max_incomplete_size = settings.header_max_bytes
        self.include_server_header = False
        self.accesslog = None  # it would write URLs, and a key may stand in a query
        self.errorlog = logging.getLogger("hypercorn.error")  # to our own handler, which writes no error texts
        self._dated_s = 0
        self._dated: list[tuple[bytes, bytes]] = []

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        """What every reply has: the date, which is written once a second."""
        now_s = int(time.time())
        if now_s != self._dated_s:
            self._dated_s, self._dated = now_s, super().response_headers(protocol)
        return self._dated


class Requests(TaskGroup):
    """The tasks of a connection, with a queue of our own between its reader and the application."""

    async def spawn_app(self, app: Any, config: Config, scope: Any, send: Any) -> Callable[[Any], Awaitable[None]]:
        """Start the application for a request; returns what takes the request's messages."""
        messages = RequestMessages(config.max_app_queue_size)
        put_messages(scope, messages)
        self.spawn(_handle, app, config, scope, messages.receive, send, trio.to_thread.run_sync, trio.from_thread.run)
        return messages.put


class StrictHttp1(H11Protocol):
    """Hypercorn's HTTP/1.1 without its ways to other protocols, with stricter heads, and with words in its refusals."""

    connection: h11.Connection  # never one of Hypercorn's for WebSockets
    refused: Callable[[int], None] = staticmethod(lambda _: None)
    _unsent = b""
    _is_chunked = False

    async def _check_protocol(self, event: Any) -> None:
        """No upgrade to HTTP/2: a request that asks for one is served as it is, as RFC 9110, section 7.8, allows."""

    async def _create_stream(self, request: Any) -> None:
        headers = list(request.headers)
        fault = fault_of(headers, target=request.target, version=request.http_version)
        # h11 bounds only heads that have not come to their end; one that comes all at once it takes whatever its size.
        head_bytes = len(request.method) + len(request.target) + sum(len(name) + len(value) for name, value in headers)
        if head_bytes > self.config.h11_max_incomplete_size:
            fault = _fault(431)
        if fault is None:
            if any(name == b"upgrade" for name, _ in headers):
                request = _without_upgrade(request)
                # Else h11 takes nothing more after the request until it is answered, not even that the client leaves.
                self.connection._cstate.pending_switch_proposals.clear()
            await super()._create_stream(request)
            return
        await self._refuse(fault, with_body=request.method != b"HEAD")
        await self.send(Closed())

    async def stream_send(self, event: StreamEvent) -> None:
        """Send a part of a reply. A head whose reply is known as a whole leaves with the body, in one write."""
        if isinstance(event, Response) and event.status_code >= 200:
            self._unsent = self._encoded_head(event)
            if not any(name == b"content-length" for name, _ in event.headers):
                await self._send_unsent()
        elif isinstance(event, Body):
            self._unsent += self._encoded_part(event.data)
            await self._send_unsent()
        elif isinstance(event, EndBody):
            self._unsent += self._encoded(h11.EndOfMessage())
            await self._send_unsent()
        else:
            await super().stream_send(event)

    def _encoded_head(self, event: Response) -> bytes:
        """A reply's head. h11 gets to see what says how the body ends and adds what is missing of it; the rest of the
        lines are checked and put in here, all at once, since h11 would spend a tenth of a request on them."""
        headers = [*event.headers, *self.config.response_headers("h11")]
        # A client that keeps connections would send its next request into one that the end of the server closes.
        if self.keep_alive_requests >= self.config.keep_alive_max_requests or self.context.terminated.is_set():
            headers.append((b"connection", b"close"))
        framing, lines = split_headers(headers)
        seen = headers if lines is None else framing  # of what cannot stand in a head h11 says what is wrong
        head = self._encoded(h11.Response(headers=seen, status_code=event.status_code))
        self._is_chunked = b"\r\ntransfer-encoding: chunked\r\n" in head.lower()
        return head and with_lines(head, lines or b"")

    def _encoded_part(self, data: bytes) -> bytes:
        """A part of a body, framed: what h11 would make of it, but a part of a stream changes none of its states."""
        if self._is_chunked and self.connection.our_state is h11.SEND_BODY:
            return b"%x\r\n%b\r\n" % (len(data), data)
        return self._encoded(h11.Data(data=data))

    def _encoded(self, event: Any) -> bytes:
        """What h11 makes of it; nothing once the client has broken the protocol, as Hypercorn has it."""
        try:
            return self.connection.send(event) or b""
        except h11.LocalProtocolError:
            if self.connection.their_state is not h11.ERROR:
                raise
            return b""

    async def _send_unsent(self) -> None:
        data, self._unsent = self._unsent, b""
        if data:
            await self.send(RawData(data))

    async def _send_error_response(self, status_code: int) -> None:
        await self._refuse(_fault(status_code))

    async def _refuse(self, fault: Fault, *, with_body: bool = True) -> None:
        log_event("request_refused", level=logging.INFO, status=fault.status, code=fault.code)
        self.refused(fault.status)
        body = fault_body(fault)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        await self._send_h11_event(
            h11.Response(status_code=fault.status, headers=list(chain(headers, self.config.response_headers("h11"))))
        )
        if with_body:
            await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())


class Connection(TCPServer):
    """One connection that ends when its client ends it, and whose reader ends when it is closed.

    Attributes:
        hand_over: may give the connection away whenever a request begins; None where it stays.
        first_bytes: what had come on it before it came here; whoever handed it over meant that request to stay.

    Hypercorn 0.18 keeps a connection that its client has closed until the keep-alive time is over. It would hold its
    place among `connections_max` for as long: clients that come with a new connection each would soon shut others out.

    Hypercorn 0.18 pauses the reader when a request arrives before the reply to the last one is done. If the connection
    closes instead of going on, which is what a stop does, the reader is woken, finds that request again and pauses for
    ever: without this, nearly every stop under load would last for the whole drain time.
    """

    config: ServerConfig
    protocol: StrictHttp1  # type: ignore[assignment]  # where Hypercorn has a wrapper that chooses one
    limited: Callable[[str], None] = staticmethod(lambda _: None)
    refused: Callable[[int], None] = staticmethod(lambda _: None)
    _reader: trio.lowlevel.Task | None = None
    _reading: trio.CancelScope | None = None
    _read_to_end = False
    _idle = True
    _idle_since_s = 0.0
    _head_deadline = math.inf
    _patience: trio.CancelScope | None = None
    _quick: QuickSocket | None = None
    hand_over: HandOver | None = None
    first_bytes = b""

    async def run(self) -> None:
        """Serve the connection to its end. Hypercorn's own offers HTTP/2, here there is one protocol."""
        try:
            plain: Any = self.stream  # annotated for TLS streams only
            if isinstance(self.stream, trio.SSLStream):
                plain = self.stream.transport_stream
                with trio.fail_after(HANDSHAKE_TIMEOUT_S):
                    await self.stream.do_handshake()
            self._quick = quick_socket(self.stream)
            client, server = plain.socket.getpeername(), plain.socket.getsockname()
            self._idle = not self.first_bytes  # else it could be closed for being idle before these are read
            async with Requests() as self._task_group:
                self.protocol = StrictHttp1(
                    self.app,
                    self.config,
                    self.context,
                    self._task_group,
                    ConnectionState(self.state),
                    isinstance(self.stream, trio.SSLStream),
                    parse_socket_addr(plain.socket.family, client),
                    parse_socket_addr(plain.socket.family, server),
                    self.protocol_send,
                )
                self.protocol.refused = self.refused
                await self.protocol.initiate()
                self._idle_since_s = trio.current_time()
                self._task_group.spawn(self._end_when_idle)
                await self._read_data()
        except (OSError, trio.BrokenResourceError, trio.TooSlowError):
            pass  # the client has gone, or there was no handshake
        finally:
            await self._close()

    async def _read_data(self) -> None:
        """Let the protocol have what comes, until the client has said all, or takes too long for a request's head."""
        self._reader = trio.lowlevel.current_task()
        self._head_deadline = trio.current_time() + self.config.header_timeout_s
        with trio.CancelScope() as self._reading:
            if self.first_bytes:
                await self.protocol.handle(RawData(self.first_bytes))
            while (data := await self._receive()) is not None:
                if self._has_gone(data):
                    break
                await self.protocol.handle(RawData(data))
                if not data:
                    break
                # A deadline for the whole head, from its first byte on: how it drips in makes no difference.
                if self._idle and self._head_deadline == math.inf and self._has_begun:
                    self._head_deadline = trio.current_time() + self.config.header_timeout_s
            await self.protocol.handle(Closed())
        self._read_to_end = True
        if self._patience is not None:
            self._patience.cancel(reason="the client has said all")

    async def _receive(self) -> bytes | None:
        """What comes next, b"" at the client's end; None when the connection is broken, or a head came too late."""
        try:
            if self._head_deadline == math.inf:
                return await self._read_some()
            with trio.move_on_at(self._head_deadline):
                return await self._read_some()
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            return None
        self.limited("headers")
        if self._has_begun:
            await self.protocol._send_error_response(408)
        return None

    async def _read_some(self) -> bytes:
        if self._quick is not None:
            return await self._quick.read(RECEIVE_BYTES_MAX)
        return bytes(await self.stream.receive_some(RECEIVE_BYTES_MAX))

    def _has_gone(self, data: bytes) -> bool:
        """Whether the connection, on which a request begins with these bytes, is another process's now."""
        if self.hand_over is None or not self._idle or self._has_begun or self.context.terminated.is_set():
            return False
        return isinstance(self.stream, trio.SocketStream) and self.hand_over(self.stream, data)

    @property
    def _has_begun(self) -> bool:
        """Whether a part of a request's head is here."""
        return bool(self.protocol.connection.trailing_data[0])

    async def protocol_send(self, event: Event) -> None:
        """Send or note what the protocol says; a connection at its end does not wait for another request."""
        if isinstance(event, Updated):
            self._idle, self._head_deadline = event.idle, math.inf
            self._idle_since_s = trio.current_time()
        elif isinstance(event, RawData):
            await self._write(event.data)
        else:
            await super().protocol_send(event)

    async def _write(self, data: bytes) -> None:
        """Send; not shielded as Hypercorn does it, so that who stops reading can be cut off.

        What the kernel takes at once is gone without a turn of the event loop. How much of a cancelled write has gone
        out is not known: nothing may follow it, and the connection ends.
        """
        try:
            if self._quick is not None and not self.send_lock.locked():
                data = data[self._quick.write_nowait(data) :]
            if data:
                async with self.send_lock:
                    await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await self.protocol.handle(Closed())
        except trio.Cancelled:
            await trio.aclose_forcefully(self.stream)
            raise

    async def _end_when_idle(self) -> None:
        """Close the connection when nothing is asked for the keep-alive time, or the server ends while it is idle.

        One task for the connection's life, whose timer no request moves: when it is up, it is set again to where it
        belongs by then. Hypercorn starts a task after each request. What is busy when the server ends closes after its
        reply.
        """
        while not (self._read_to_end or self.context.terminated.is_set()):
            now_s = trio.current_time()
            until_s = (self._idle_since_s if self._idle else now_s) + self.config.keep_alive_timeout
            if until_s <= now_s:
                break
            with trio.CancelScope(deadline=until_s) as self._patience:
                await self.context.terminated.wait()
        if self._idle and not self._read_to_end:
            with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
                await self._initiate_server_close()

    async def _close(self) -> None:
        await super()._close()
        # The reader may be here itself, on its way to tell the application that the client has left.
        if self._reading is not None and trio.lowlevel.current_task() is not self._reader:
            self._reading.cancel(reason="the connection is closed")
