"""The HTTP server: Hypercorn's protocols behind our own accept loop.

Owns what is accepted, the limits of a connection and the order of a graceful end. Must never know a route. Beside
`router.http1` it is the only module that imports Hypercorn. It uses the Trio worker's parts instead of that worker,
which accepts without a limit and ends with the first connection that fails; they are not documented, so the version is
pinned.
"""

from __future__ import annotations

import logging
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState, LifespanState

from models.errors import SettingError
from models.server_settings import ServerSettings
from router.addresses import Network
from router.connections import LimitedListener
from router.handing_over import HandedConnections, HandOver
from router.http1 import Connection, ServerConfig
from router.listening import BoundAddress, address_of, bind, listen_error
from router.observe import log_event
from router.tls import open_tls, reload_certificate

BACKLOG = 1024
"""Connections that the kernel queues while all of ours are taken; net.core.somaxconn caps it."""

SHARED_PORT_PAUSE_S = 0.001
"""Between two connections where other workers accept on the same port: far below what a request costs."""


ServeConnection = Callable[..., Awaitable[None]]
"""See `_Connections.serve`."""


class SecondEntrance(msgspec.Struct, frozen=True):
    """Another listening socket for the same application, without TLS and without limits of addresses.

    Attributes:
        listening: of it; closed with the other one's last connection.
        connections_max: at once.
        handed: connections that came by another process's first entrance.
        handed_max: of them at once, beside those of the first entrance here.
        hand_over: may give connections of the first one to another process, where there is no TLS on them.
        wait_unneeded: returns when nobody comes by this entrance any more; until then it stays open.
    """

    listening: socket.socket
    connections_max: int
    handed: HandedConnections
    handed_max: int
    hand_over: HandOver | None
    wait_unneeded: Callable[[], Awaitable[object]]


def log_serving(address: BoundAddress) -> None:
    """Tell whoever reads the log where requests are served."""
    log_event("serving", url=address.url)


def on_hangup() -> AbstractContextManager[AsyncIterator[object]]:
    """SIGHUP, by which those that renew a certificate say so."""
    return trio.open_signal_receiver(signal.SIGHUP)


async def serve_app(
    app: Any,
    settings: ServerSettings,
    *,
    shutdown_trigger: Callable[[], Awaitable[object]],
    listening: socket.socket | None = None,
    beside: SecondEntrance | None = None,
    trusted_proxies: Sequence[Network] = (),
    limited: Callable[[str], None] = lambda _: None,
    refused: Callable[[int], None] = lambda _: None,
    serving: Callable[[BoundAddress], None] = log_serving,
    renewals: Callable[[], AbstractContextManager[AsyncIterator[object]]] = on_hangup,
    task_status: trio.TaskStatus[BoundAddress] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an ASGI app until `shutdown_trigger` returns; then running requests have the drain time to end.

    Args:
        app: the ASGI application.
        settings: address and limits.
        shutdown_trigger: awaited once; its return starts the graceful end.
        listening: a socket from `bind`; made here unless given. It is closed here in any case.
        beside: a further entrance, which outlives the connections of the first.
        trusted_proxies: networks that may have any number of connections.
        limited: is told whenever a connection is refused ("connections") or cut off for its slowness ("headers").
        refused: is told the status of each request whose head is refused.
        serving: is told the address once connections are accepted.
        renewals: each item says that the certificate is to be read again.
        task_status: gets the `BoundAddress` then.

    Raises:
        SetupError: the address or the certificate cannot be used.
    """
    config, tls = ServerConfig(settings), open_tls(settings)
    bound = listening or bind(settings)
    wrapped, state = ASGIWrapper(app), LifespanState()
    lifespan = Lifespan(wrapped, config, state)

    serve_connection = _Connections(wrapped, config, state, limited=limited, refused=refused).serve
    hand_over = None if beside is None or tls is not None else beside.hand_over

    async def wait_shutdown() -> None:
        if tls is not None:
            await tasks.start(_renew_certificate, tls, settings, renewals)
        address = address_of(bound, tls=tls is not None)
        serving(address)
        task_status.started(address)
        await shutdown_trigger()
        await end_handed()

    with bound:
        async with trio.open_nursery() as tasks:
            await tasks.start(lifespan.handle_lifespan)
            await lifespan.wait_for_startup()
            drain_s = settings.drain_timeout_s
            first = partial(serve_connection, tls=tls, hand_over=hand_over)
            entrance = _Entrance(first, drain_timeout_s=drain_s)
            async with _open_beside(beside, serve_connection, hand_over, drain_timeout_s=drain_s) as end_handed:
                listener = LimitedListener(
                    _listen(bound, settings),
                    settings.connections_max,
                    per_address_max=settings.connections_per_address_max,
                    exempt=trusted_proxies,
                    refused=partial(limited, "connections"),
                    pause_s=0.0 if beside is None else SHARED_PORT_PAUSE_S,
                )
                await entrance.serve(listener, wait_shutdown)
            await lifespan.wait_for_shutdown()
            tasks.cancel_scope.cancel(reason="the server has ended")


class _Connections:
    """What connections are served with, whichever way they came."""

    def __init__(
        self,
        app: ASGIWrapper,
        config: ServerConfig,
        state: LifespanState,
        *,
        limited: Callable[[str], None],
        refused: Callable[[int], None],
    ) -> None:
        self._app = app
        self._config = config
        self._state = state
        self._limited = limited
        self._refused = refused

    async def serve(
        self,
        stream: trio.SocketStream,
        context: WorkerContext,
        *,
        tls: ssl.SSLContext | None = None,
        hand_over: HandOver | None = None,
        first_bytes: bytes = b"",
    ) -> None:
        """Serve one to its end. See `router.http1.Connection` for the last two arguments."""
        served: Any = stream
        if tls is not None:  # closing need not be agreed upon: HTTP says itself where a message ends
            served = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
        connection = Connection(self._app, self._config, context, ConnectionState(self._state.copy()), served)
        connection.limited, connection.refused = self._limited, self._refused
        connection.hand_over, connection.first_bytes = hand_over, first_bytes
        await connection


def _listen(bound: socket.socket, settings: ServerSettings) -> trio.SocketListener:
    try:
        bound.listen(BACKLOG)
    except OSError as error:  # two servers may bind one port while neither listens; the second one learns it here
        raise listen_error(settings, error) from error
    return trio.SocketListener(trio.socket.from_stdlib_socket(bound))


@asynccontextmanager
async def _open_beside(
    beside: SecondEntrance | None,
    serve_connection: ServeConnection,
    hand_over: HandOver | None,
    *,
    drain_timeout_s: float,
) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Serve by the further entrance, if there is one, for the length of the block and until it is not needed.

    What is yielded lets clients' connections that came this way end as those that came by the first.
    """
    if beside is None:
        yield trio.lowlevel.checkpoint
        return

    async def serve_handed(stream: trio.SocketStream, context: WorkerContext) -> None:
        first_bytes = beside.handed.take_data(stream)
        await serve_connection(stream, context, hand_over=hand_over, first_bytes=first_bytes)

    listener = trio.SocketListener(trio.socket.from_stdlib_socket(beside.listening))
    unneeded = trio.Event()
    others = _Entrance(serve_connection, drain_timeout_s=drain_timeout_s)
    handed = _Entrance(serve_handed, drain_timeout_s=drain_timeout_s)
    async with trio.open_nursery() as serving:
        limited = LimitedListener(listener, beside.connections_max)
        await serving.start(partial(others.serve, limited, unneeded.wait))
        limited = LimitedListener(beside.handed, beside.handed_max, note_room=beside.handed.note_room)
        await serving.start(partial(handed.serve, limited, unneeded.wait))
        yield handed.end
        await handed.wait_empty()
        await beside.wait_unneeded()
        await beside.handed.finish()
        unneeded.set()


class _Entrance:
    """The connections that come by one listening socket: accepted until a trigger, then given their drain time."""

    def __init__(
        self,
        serve_connection: ServeConnection,
        *,
        drain_timeout_s: float,
    ) -> None:
        self._context = WorkerContext(None)
        self._serve_connection = serve_connection
        self._drain_timeout_s = drain_timeout_s
        self._connections = trio.CancelScope()
        self._open = 0
        self._empty = trio.Event()

    async def wait_empty(self) -> None:
        """Wait until there is no connection; only once the end has begun."""
        if self._open:
            await self._empty.wait()

    async def end(self) -> None:
        """Idle connections close now, busy ones after their response, others at the deadline; also those still to come.

        May be called again, which moves nothing.
        """
        if not self._context.terminated.is_set():
            self._connections.deadline = trio.current_time() + self._drain_timeout_s
            await self._context.terminated.set()

    async def serve(
        self,
        listener: LimitedListener,
        trigger: Callable[[], Awaitable[object]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept until the trigger returns; then wait for the connections that are left."""
        with self._connections:
            async with trio.open_nursery() as connections, self._ending(), trio.open_nursery() as accepting:
                handle = partial(self._handle, listener)
                await accepting.start(partial(trio.serve_listeners, handle, [listener], handler_nursery=connections))
                task_status.started()
                await trigger()
                accepting.cancel_scope.cancel(reason="the server shuts down")

    @asynccontextmanager
    async def _ending(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await self.end()

    async def _handle(self, listener: LimitedListener, stream: trio.SocketStream) -> None:
        """One connection; its errors end here and nowhere else."""
        self._open += 1
        try:
            await self._serve_connection(stream, self._context)
        except* OSError:
            pass  # the client has gone
        except* Exception as errors:
            log_event("connection_failed", level=logging.ERROR, error=errors)
        finally:
            listener.release(stream)
            self._open -= 1
            if not self._open and self._context.terminated.is_set():
                self._empty.set()


async def _renew_certificate(
    tls: ssl.SSLContext,
    settings: ServerSettings,
    renewals: Callable[[], AbstractContextManager[AsyncIterator[object]]],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Read the certificate again whenever that is asked for. Running connections keep theirs."""
    with renewals() as asked:
        task_status.started()
        async for _ in asked:
            try:
                reload_certificate(tls, settings)
            except SettingError as error:
                log_event("certificate_refused", level=logging.ERROR, error=error)
            else:
                log_event("certificate_renewed")
