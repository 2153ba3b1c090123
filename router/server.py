"""The HTTP server: Hypercorn's protocols behind our own accept loop, and the signals that end it.

Owns the listening socket, the limits of a connection and the order of a graceful end. Must never know a
route. Beside `router.http1` it is the only module that imports Hypercorn. It uses the Trio worker's parts instead of
the worker, which accepts without a limit and ends with the first connection that fails; they are not documented, so
the version is pinned.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState, LifespanState

from models.errors import SettingError, SetupError
from models.server_settings import ServerSettings
from router.addresses import Network
from router.connections import LimitedListener
from router.http1 import Connection, ServerConfig
from router.observe import log_event
from router.tls import open_tls, reload_certificate

BACKLOG = 1024
"""Connections that the kernel queues while all of ours are taken; net.core.somaxconn caps it."""

KEEP_ALIVE_IDLE_S, KEEP_ALIVE_INTERVAL_S = 60, 15
"""TCP's own probes of a silent client; `stalled_write_timeout_s` says when one that does not answer is given up."""

HARD_EXIT_GRACE_S = 15.0
"""What the store gets to close, after requests and vaults have had their drain times."""

SIGNAL_EXIT_CODE_BASE = 128  # as shells report it


class BoundAddress(msgspec.Struct, frozen=True):
    """Where the server listens; the port is a real one even where the setting says 0."""

    host: str
    port: int
    tls: bool = False

    @property
    def url(self) -> str:
        """The address as a browser takes it."""
        return f"{'https' if self.tls else 'http'}://{self.authority}"

    @property
    def authority(self) -> str:
        """Host and port as they stand in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def address_of(bound: socket.socket, *, tls: bool) -> BoundAddress:
    """Where a socket from `bind` is reached."""
    host, port, *_ = bound.getsockname()
    return BoundAddress(host=host, port=port, tls=tls)


def bind(settings: ServerSettings) -> socket.socket:
    """A TCP socket, bound but not listening: a wrong address can fail before anything else is opened.

    Raises:
        SetupError: no such address, the port is in use, or it needs rights that we lack.
    """
    family, address = _resolve(settings)
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it. Hypercorn sends in a shielded scope without a deadline: without this,
        # a client that stops reading could not even be cancelled at shutdown.
        stalled_ms = int(settings.stalled_write_timeout_s * 1000)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, stalled_ms)
        # A client that vanished without a word is noticed also while there is nothing to send to it.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_ALIVE_IDLE_S)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEP_ALIVE_INTERVAL_S)
        listening.bind(address)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise _bind_error(settings, error) from error
    return listening


def _resolve(settings: ServerSettings) -> tuple[socket.AddressFamily, Any]:
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise SetupError(f"server.host: {settings.host!r} is no known address or name.") from error
    # A name may have both; IPv4 goes first, since that is what most clients of `localhost` try.
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, address


def _bind_error(settings: ServerSettings, error: OSError) -> SetupError:
    where = f"{settings.host} port {settings.port}"
    match error.errno:
        case errno.EADDRINUSE:
            return SetupError(f"{where} is already in use; choose another with --port or server.port.")
        case errno.EADDRNOTAVAIL:
            return SetupError(f"server.host: {settings.host} is no address of this machine.")
        case errno.EACCES:
            return SetupError(f"{where} needs rights that this process lacks; choose a port above 1023.")
        case _:
            return SetupError(f"cannot listen on {where}: {error.strerror or error}.")


async def serve_app(
    app: Any,
    settings: ServerSettings,
    *,
    shutdown_trigger: Callable[[], Awaitable[object]],
    listening: socket.socket | None = None,
    trusted_proxies: Sequence[Network] = (),
    limited: Callable[[str], None] = lambda _: None,
    refused: Callable[[int], None] = lambda _: None,
    task_status: trio.TaskStatus[BoundAddress] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an ASGI app until `shutdown_trigger` returns; then running requests have the drain time to end.

    Args:
        app: the ASGI application.
        settings: address and limits.
        shutdown_trigger: awaited once; its return starts the graceful end.
        listening: a socket from `bind`; made here unless given. It is closed here in any case.
        trusted_proxies: networks that may have any number of connections.
        limited: is told whenever a connection is refused ("connections") or cut off for its slowness ("headers").
        refused: is told the status of each request whose head is refused.
        task_status: gets the `BoundAddress` once connections are accepted.

    Raises:
        SetupError: the address or the certificate cannot be used.
    """
    config = ServerConfig(settings)
    tls = open_tls(settings)
    bound = listening or bind(settings)
    context = WorkerContext(None)
    wrapped = ASGIWrapper(app)
    state: LifespanState = {}
    lifespan = Lifespan(wrapped, config, state)

    async def serve_connection(stream: trio.SocketStream) -> None:
        served: Any = stream
        if tls is not None:  # closing need not be agreed upon: HTTP says itself where a message ends
            served = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
        connection = Connection(wrapped, config, context, ConnectionState(state.copy()), served)
        connection.limited, connection.refused = limited, refused
        await connection

    limit = partial(
        LimitedListener,
        connections_max=settings.connections_max,
        per_address_max=settings.connections_per_address_max,
        exempt=trusted_proxies,
        refused=partial(limited, "connections"),
    )
    with bound:
        async with trio.open_nursery() as lifespan_tasks:
            await lifespan_tasks.start(lifespan.handle_lifespan)
            await lifespan.wait_for_startup()
            await _serve_connections(
                bound, settings, tls, limit, context, serve_connection, shutdown_trigger, task_status
            )
            await lifespan.wait_for_shutdown()
            lifespan_tasks.cancel_scope.cancel(reason="the server has ended")


async def _serve_connections(
    bound: socket.socket,
    settings: ServerSettings,
    tls: ssl.SSLContext | None,
    limit: Callable[[trio.SocketListener], LimitedListener],
    context: WorkerContext,
    serve_connection: Callable[[trio.SocketStream], Awaitable[None]],
    shutdown_trigger: Callable[[], Awaitable[object]],
    task_status: trio.TaskStatus[BoundAddress],
) -> None:
    """Accept until the trigger, then give the connections that are left their drain time."""
    try:
        bound.listen(BACKLOG)
    except OSError as error:  # two servers may bind one port while neither listens; the second one learns it here
        raise _bind_error(settings, error) from error
    listener = limit(trio.SocketListener(trio.socket.from_stdlib_socket(bound)))
    async with trio.open_nursery() as connections:
        try:
            async with trio.open_nursery() as accepting:
                handle = partial(_handle_connection, serve_connection, listener)
                serve = partial(trio.serve_listeners, handle, [listener], handler_nursery=connections)
                await accepting.start(serve)
                address = address_of(bound, tls=tls is not None)
                if tls is not None:
                    await accepting.start(_renew_certificate, tls, settings)
                log_event("serving", url=address.url)
                task_status.started(address)
                await shutdown_trigger()
                accepting.cancel_scope.cancel(reason="the server shuts down")
        finally:
            # Idle connections close on `terminated`, busy ones after their response, others at the deadline.
            await context.terminated.set()
            connections.cancel_scope.deadline = trio.current_time() + settings.drain_timeout_s


async def _renew_certificate(
    tls: ssl.SSLContext, settings: ServerSettings, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Read the certificate again at every SIGHUP, as those do that renew one. Running connections keep theirs."""
    with trio.open_signal_receiver(signal.SIGHUP) as signals:
        task_status.started()
        async for _ in signals:
            try:
                reload_certificate(tls, settings)
            except SettingError as error:
                log_event("certificate_refused", level=logging.ERROR, error=error)
            else:
                log_event("certificate_renewed")


async def _handle_connection(
    serve_connection: Callable[[trio.SocketStream], Awaitable[None]],
    listener: LimitedListener,
    stream: trio.SocketStream,
) -> None:
    """One connection; its errors end here and nowhere else."""
    try:
        await serve_connection(stream)
    except* OSError:
        pass  # the client has gone
    except* Exception as errors:
        log_event("connection_failed", level=logging.ERROR, error=errors)
    finally:
        listener.release(stream)


@asynccontextmanager
async def open_shutdown_signals(*, exit_within_s: float) -> AsyncIterator[trio.Event]:
    """An event that SIGTERM or SIGINT sets; belongs around everything else that the server opens.

    A second signal ends the process at once, and so does a graceful end longer than `exit_within_s`. The
    store makes both safe: what was acknowledged is durable. The clock is a thread, since what hangs may be the
    event loop itself.
    """
    requested = trio.Event()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as watching:
            watching.start_soon(_watch_signals, signals, requested, exit_within_s)
            yield requested
            watching.cancel_scope.cancel(reason="the server has ended")


async def _watch_signals(signals: AsyncIterator[int], requested: trio.Event, exit_within_s: float) -> None:
    watchdog = threading.Timer(exit_within_s, os._exit, args=(1,))
    watchdog.daemon = True
    try:
        async for number in signals:
            if requested.is_set():
                os._exit(SIGNAL_EXIT_CODE_BASE + number)
            log_event("shutdown_requested", signal=signal.Signals(number).name)
            requested.set()
            watchdog.start()
    finally:
        watchdog.cancel()
