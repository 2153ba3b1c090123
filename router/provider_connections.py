"""HTTP/1.1 to one provider: h11 over Trio, on connections that are kept alive.

The layer below `router.upstream_call`, which httpx filled before: per call it cost more than all the rest of a proxied
request (`bench/RESULTS.md`). Owns connections and the framing of requests and answers. Must never follow a redirect,
keep a cookie, read the environment, or bound how many connections there are: the limiter in front of it does.

What came of a body in one read leaves in one piece. A connection goes back to the others as soon as an answer's end has
been read, and is closed in every other case.
"""

from __future__ import annotations

import select
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import h11
import trio

from router.head_lines import split_headers, with_lines
from router.headers import HeaderList
from router.provider_urls import address_of, target_of
from router.reply_bodies import Body, ChunkedBody, EndlessBody, SizedBody
from router.sockets import quick_socket

KEEPALIVE_EXPIRY_S = 30.0
"""Below the idle limit of common load balancers (60 s), so that we rarely write into a closed connection."""

HEAD_BYTES_MAX = 100 * 1024
"""Of an answer's status line and headers."""

_RECEIVE_BYTES_MAX = 64 * 1024
_JOINED_BYTES_MAX = 64 * 1024  # a longer body is not copied behind its head


class CallFailed(Exception):
    """A provider was not reached, or a connection to it broke. Says nothing of where it leads."""


class NotReached(CallFailed):
    """There is no connection; nothing was sent."""


class NotReachedInTime(NotReached):
    """The same, and the time for it is over."""


class NotTaken(CallFailed):
    """The provider does not read what it is sent."""


class ConnectionBroken(CallFailed):
    """The provider hung up, or what it says is no HTTP."""


class NotSendable(CallFailed):
    """What should be sent is no HTTP: a body that is not as long as it was said to be."""


class _HungUp(Exception):
    """Nobody reads any more what is sent; there may be an answer all the same."""


OpenStream = Callable[[str, int], Awaitable[trio.abc.Stream]]
"""Opens a plain connection to a host and port; raises OSError."""


class ProviderConnections:
    """The connections to one provider. Each opens when a call finds none that is free."""

    def __init__(
        self,
        base_url: str,
        tls: ssl.SSLContext,
        *,
        connect_timeout_s: float,
        write_timeout_s: float,
        open_stream: OpenStream = trio.open_tcp_stream,
    ) -> None:
        address = address_of(base_url)
        self._base_url = base_url.rstrip("/")
        self._host = address.host
        self._port = address.port
        self._host_header = address.host_header
        self._tls = tls if address.scheme == "https" else None
        self._connect_timeout_s = connect_timeout_s
        self._write_timeout_s = write_timeout_s
        self._open_stream = open_stream
        self._idle: list[_Connection] = []
        self.open = 0

    @property
    def idle(self) -> int:
        """How many of the open connections wait for a call."""
        return len(self._idle)

    async def ask(
        self,
        method: str,
        path: str,
        *,
        headers: HeaderList,
        body: bytes | AsyncIterator[bytes],
        on_sent: Callable[[], None] | None = None,
        host: str = "",
    ) -> Answer:
        """Send a request; its answer once its headers are here. The answer must be closed.

        Args:
            path: below the base URL, with its slash.
            headers: with `content-length` or `transfer-encoding` where the body comes in pieces.
            body: what its iterator raises comes out of here.
            on_sent: told when a body in pieces has come to its end.
            host: named in place of the base URL's.

        Raises:
            NotReached, NotReachedInTime: no connection.
            NotTaken: the provider took nothing for `write_timeout_s`.
            ConnectionBroken: there is no answer.
            NotSendable: the request was given up; the provider is not to blame.
        """
        sent = [("host", host or self._host_header), *headers]
        if isinstance(body, bytes):
            sent.append(("content-length", str(len(body))))
        connection = await self._free() or await self._connect()
        try:
            head = connection.begin(method, target_of(self._base_url + path), sent)
            try:
                await self._send(connection, head, body, on_sent)
            except _HungUp:  # perhaps it has answered before it read all
                connection.is_deaf = True
            return Answer(self, connection, await connection.receive_head(method))
        except h11.LocalProtocolError:
            await self._close(connection)
            raise NotSendable from None
        except BaseException:
            await self._close(connection)
            raise

    async def aclose(self) -> None:
        """Close what is idle."""
        while self._idle:
            await self._close(self._idle.pop())

    async def _send(
        self,
        connection: _Connection,
        head: bytes,
        body: bytes | AsyncIterator[bytes],
        on_sent: Callable[[], None] | None,
    ) -> None:
        if not isinstance(body, bytes):
            await self._write(connection, head)
            async for chunk in body:
                await self._write(connection, connection.wire.send(h11.Data(data=chunk)) or b"")
            if on_sent is not None:
                on_sent()
            await self._write(connection, connection.wire.send(h11.EndOfMessage()) or b"")
            return
        data = head
        if len(body) > _JOINED_BYTES_MAX:
            await self._write(connection, data)
            data = b""
        if body:
            data += connection.wire.send(h11.Data(data=body)) or b""
        connection.wire.send(h11.EndOfMessage())
        await self._write(connection, data)

    async def _write(self, connection: _Connection, data: bytes) -> None:
        try:
            if connection.quick is not None:
                data = data[connection.quick.write_nowait(data) :]
            if not data:
                return
            with trio.fail_after(self._write_timeout_s):
                await connection.stream.send_all(data)
        except trio.TooSlowError:
            raise NotTaken from None
        except (trio.BrokenResourceError, ssl.SSLError):
            raise _HungUp from None

    async def _free(self) -> _Connection | None:
        """The connection that was used last, if it is still good. Those that are not are closed."""
        oldest_s = trio.current_time() - KEEPALIVE_EXPIRY_S
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since_s > oldest_s and not connection.has_input():
                return connection
            await self._close(connection)
        return None

    async def _connect(self) -> _Connection:
        try:
            with trio.fail_after(self._connect_timeout_s):
                plain = await self._open_stream(self._host, self._port)
                stream = plain if self._tls is None else await self._secured(plain, self._tls)
        except trio.TooSlowError:
            raise NotReachedInTime from None
        except (OSError, trio.BrokenResourceError, ssl.SSLError):
            raise NotReached from None
        self.open += 1
        return _Connection(stream, plain)

    async def _secured(self, plain: trio.abc.Stream, tls: ssl.SSLContext) -> trio.abc.Stream:
        stream = trio.SSLStream(plain, tls, server_hostname=self._host, https_compatible=True)
        try:
            await stream.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(plain)
            raise
        return stream

    def _give_back(self, connection: _Connection) -> None:
        connection.idle_since_s = trio.current_time()
        self._idle.append(connection)

    async def _close(self, connection: _Connection) -> None:
        self.open -= 1
        await trio.aclose_forcefully(connection.stream)


class Answer:
    """A provider's answer.

    Attributes:
        status: of it.
        headers: names in lower case, as they came otherwise.
    """

    __slots__ = ("_connection", "_connections", "headers", "status")

    def __init__(self, connections: ProviderConnections, connection: _Connection, response: h11.Response) -> None:
        self.status = response.status_code
        self.headers: HeaderList = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers
        ]
        self._connections = connections
        self._connection: _Connection | None = connection

    @property
    def is_at_end(self) -> bool:
        """Whether its body was read to the end, or it was closed: `receive` has nothing to wait for."""
        return self._connection is None

    async def receive(self) -> bytes:
        """What has come of the body since, at least a byte; b"" at its end.

        Raises:
            ConnectionBroken: it ended too early.
        """
        connection = self._connection
        if connection is None:
            return b""
        chunk = await connection.receive_body()
        if connection.is_at_end:
            self._connection = None
            if connection.begin_next():
                self._connections._give_back(connection)
            else:
                await self._connections._close(connection)
        return chunk

    async def aclose(self) -> None:
        """Hang up, unless the body was read to its end. May be called again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._connections._close(connection)


class _Connection:
    """One connection and where h11 is on it."""

    __slots__ = (
        "_body", "_records", "_socket", "_unread", "idle_since_s", "is_at_end", "is_deaf", "quick", "stream", "wire",
    )  # fmt: skip

    def __init__(self, stream: trio.abc.Stream, plain: trio.abc.Stream) -> None:
        self.stream = stream
        self.wire = _new_wire()
        self.idle_since_s = 0.0
        self.is_at_end = False
        self.is_deaf = False
        self.quick = quick_socket(stream)
        self._body: Body = SizedBody(0)
        self._unread = b""
        self._socket: Any = getattr(plain, "socket", None)
        self._records: Any = getattr(stream, "_incoming", None)  # of TLS: Trio has no public way to ask for it

    def has_input(self) -> bool:
        """Whether something has come that nobody asked for: as a rule, that the provider has hung up.

        Below TLS, it may have come in one read with an answer, and wait where the socket does not show it: taken for
        the answer to the next call, it might be somebody else's.
        """
        if self._records is not None and self._records.pending:
            return True
        if self._socket is None:
            return False
        waiting = select.poll()
        waiting.register(self._socket.fileno(), select.POLLIN)
        return bool(waiting.poll(0))

    def begin(self, method: str, target: bytes, headers: HeaderList) -> bytes:
        """The head of a request."""
        encoded = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]
        framing, lines = split_headers(encoded)
        head = h11.Request(method=method, target=target, headers=encoded if lines is None else framing)
        return with_lines(self.wire.send(head) or b"", lines or b"")

    async def receive_head(self, method: str) -> h11.Response:
        """The head of the answer to a request of this method."""
        while True:
            event = self._next_event()
            if isinstance(event, h11.Response):
                self._body = _body_of(event, method)
                self._unread = self.wire.trailing_data[0]
                return event
            if event is h11.NEED_DATA:
                self.wire.receive_data(await self._read())
            elif not isinstance(event, h11.InformationalResponse) or event.status_code == 101:
                raise ConnectionBroken  # nobody asked for another protocol

    async def receive_body(self) -> bytes:
        """What comes next of the answer's body; b"" only at its end."""
        body, chunk = self._body, b""
        while not (chunk or body.is_at_end):
            if body.is_broken:
                raise ConnectionBroken
            data, self._unread = self._unread or await self._read(), b""
            if data:
                chunk = body.take(data)
            elif body.ends_with_connection:
                self.is_deaf = self.is_at_end = True
                return b""
            else:
                raise ConnectionBroken
        self.is_at_end = body.is_at_end
        return chunk

    def begin_next(self) -> bool:
        """Whether another request may follow on this connection."""
        # What is sent is done, and stays so: the answer's head has not said that the connection ends with it.
        if self.is_deaf or self.wire.our_state is not h11.DONE or self._body.rest or self._unread:
            return False
        self.wire = _new_wire()
        self.is_at_end = False
        return True

    def _next_event(self) -> Any:
        try:
            return self.wire.next_event()
        except h11.RemoteProtocolError:
            raise ConnectionBroken from None  # theirs may quote what was sent

    async def _read(self) -> bytes:
        try:
            if self.quick is not None:
                return await self.quick.read(_RECEIVE_BYTES_MAX)
            return bytes(await self.stream.receive_some(_RECEIVE_BYTES_MAX))
        except (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError):
            raise ConnectionBroken from None


def _new_wire() -> h11.Connection:
    return h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)


def _body_of(head: h11.Response, method: str) -> Body:
    """How the body ends that follows a head, of which h11 has refused what contradicts itself."""
    if method == "HEAD" or head.status_code in (204, 304):
        return SizedBody(0)
    named = dict(head.headers)
    if b"transfer-encoding" in named:
        return ChunkedBody()  # h11 lets no other pass
    if b"content-length" in named:
        return SizedBody(int(named[b"content-length"]))
    return EndlessBody()
