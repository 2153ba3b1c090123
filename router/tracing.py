"""Traces of requests: whether there are any, and the wrapper that begins and ends one for each request.

Owns the choice, made once at the start: without `tracing.endpoint` nothing of this runs, and no tracing library is
imported. What makes spans of it and sends them is `router.tracing_otlp`, beside this the only module that knows one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

import trio

from models.errors import SetupError
from models.tracing_settings import TracingSettings
from router.headers import HeaderList
from router.spans import RequestTrace, trace_scope

FLUSH_TIMEOUT_S = 5.0
"""What the delivery of the last spans may take at the end; then they are lost."""

CONTEXT_HEADERS = frozenset({b"traceparent", b"tracestate"})
"""Of W3C Trace Context, by which a caller's trace is continued."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]


class OpenTrace(RequestTrace, Protocol):
    """A trace that its request's wrapper ends."""

    def end(self, status: int, memory_status: str) -> None:
        """The request is over; a status of 0 means that there was no answer."""


class Tracing(Protocol):
    """What begins traces."""

    def begin(self, method: str, context: HeaderList, attributes: Mapping[str, str]) -> OpenTrace:
        """A request begins; `context` are the headers by which a caller's trace is continued."""

    def statistics(self) -> dict[str, int]:
        """Spans since the start, for metrics."""

    def shut_down(self) -> None:
        """Deliver what waits, and end. Blocks."""


class Untraced:
    """Where traces are off."""

    def wrap(self, app: App) -> App:
        """The same application."""
        return app

    def statistics(self) -> dict[str, int]:
        """Nothing was ever recorded."""
        return {"ended": 0, "exported": 0, "failed": 0}


class Traced:
    """Where they are on."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    def wrap(self, app: App) -> App:
        """The application with a trace around each request."""
        return TracedRequests(app, self._tracing)

    def statistics(self) -> dict[str, int]:
        """Spans since the start, for metrics."""
        return self._tracing.statistics()


class TracedRequests:
    """ASGI wrapper that gives every request a trace. Belongs inside `WithRequestId` and outside of all that works."""

    def __init__(self, app: App, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = [
            (name.decode(), value.decode("latin-1")) for name, value in scope["headers"] if name in CONTEXT_HEADERS
        ]
        attributes = {"url.scheme": scope["scheme"], "network.protocol.version": scope["http_version"]}
        trace = self._tracing.begin(scope["method"], context, attributes)
        status, memory_status = 0, ""

        async def send_on(message: Mapping[str, Any]) -> None:
            nonlocal status, memory_status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = (value for name, value in message.get("headers", ()) if name.lower() == b"x-memory-status")
                memory_status = next(given, b"").decode("latin-1")
            await send(message)

        try:
            with trace_scope(trace):
                await self._app(scope, receive, send_on)
        finally:
            trace.end(status, memory_status)


@asynccontextmanager
async def open_tracing(settings: TracingSettings) -> AsyncIterator[Traced | Untraced]:
    """Traces as configured, for the life of the service. Leaving delivers what is left, within a deadline.

    Raises:
        SetupError: they are wanted, and the packages for them are not installed.
    """
    if not settings.endpoint:
        yield Untraced()
        return
    try:
        from router.tracing_otlp import OtlpTracing
    except ImportError as error:
        raise SetupError(
            "tracing.endpoint is set, but the packages for it are missing.",
            hint="Run: pip install 'memoryrouter[tracing]'",
        ) from error
    tracing = OtlpTracing(settings)
    try:
        yield Traced(tracing)
    finally:
        with trio.move_on_after(FLUSH_TIMEOUT_S, shield=True):  # what is late is left to a thread that ends with us
            await trio.to_thread.run_sync(tracing.shut_down, abandon_on_cancel=True)
