"""A streamed reply on its way from the provider to the client.

Owns the order of things at the end of a reply: the exchange is handed to the store, then (bounded) durable, then the
client sees the end. Must never change or reorder the provider's bytes, never hold back anything before the finishing
event, and never read more of the reply than the client takes: one chunk is all that is in memory.

The body is pulled, not pumped: the server's next read *is* the provider's next read. A slow client therefore slows the
provider down without any buffer between them, and a client that leaves cancels the one task there is.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Literal, Protocol

import trio
from quart import Response, request
from quart.wrappers import base as quart_wrappers
from quart.wrappers.response import ResponseBody

from models.errors import MemoryRouterError, UpstreamError
from router.forwarding import AnswerBroken
from router.headers import HeaderList
from router.observe import log_event
from router.providers.base import Collector, Reply, Signal, Splitter, WireFormat
from router.spans import step
from router.sse import Event

_CLOSE_TIMEOUT_S = 5.0
_EXITS = "memoryrouter.exits"

_CLIENT_GONE: type[Exception] = getattr(quart_wrappers, "ClientDisconnectedError", trio.BrokenResourceError)
"""What Quart 0.23 raises when a client leaves before its response begins; earlier ones only cancel the request."""

Outcome = Literal["open", "complete", "failed", "cut", "unreadable", "abandoned"]


class Commit(Protocol):
    """The part of `actors.store.protocol.Commit` that a relay needs."""

    @property
    def durable(self) -> bool:
        """Whether it is on disk."""

    async def wait_durable(self) -> None:
        """Return once it is; raises a MemoryRouterError when it never will be."""


HandOff = Callable[[Reply | None], Commit | None]
"""Takes the finished reply, or None when there is none to remember; a plain function, so that it cannot be cancelled.
Returns the commit to wait for, or None when nothing is being stored."""


class Relay:
    """An async iterator over the bytes for the client; the provider's own, plus an error event if they break off.

    `hand_off` is called exactly once: with the reply when its finishing event has come, and with None when the provider
    fails, breaks off, says something unreadable, or the client leaves before the finish (`close_nowait`). Bytes before
    the finishing event go out first; that event and all after it wait until the commit is durable, at most
    `commit_wait_s` after the hand-off. `on_not_durable` hears why a reply's end was let go without that.

    Attributes:
        outcome: how it ended. A client that leaves after the finish has a complete exchange.
    """

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        *,
        wire_format: WireFormat,
        splitter: Splitter,
        collector: Collector,
        hand_off: HandOff,
        on_not_durable: Callable[[str], None],
        commit_wait_s: float,
    ) -> None:
        self.outcome: Outcome = "open"
        self._chunks = chunks
        self._format = wire_format
        self._collector = collector
        self._hand_off = hand_off
        self._on_not_durable = on_not_durable
        self._commit_wait_s = commit_wait_s
        self._splitter = splitter
        self._commit: Commit | None = None
        self._commit_deadline = 0.0
        self._held: deque[bytes] = deque()
        self._at_end = False

    def __aiter__(self) -> Relay:
        return self

    async def __anext__(self) -> bytes:
        while not self._held:
            if self._at_end:
                await self._wait_durable()
                raise StopAsyncIteration
            head = await self._read()
            if head:
                return head
        await self._wait_durable()
        return self._held.popleft()

    def close_nowait(self) -> None:
        """The client is gone, or all is said: hand off what has not been handed off. May be called again."""
        self._finish("abandoned", None)
        self._at_end = True

    async def _read(self) -> bytes:
        """Take one chunk in. Returns what may go out at once; what must wait is put into `_held`."""
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            return self._end_of_stream()
        except MemoryRouterError as error:
            self._break_off(error, open_line=self._splitter.open_line())
            return b""
        return self._take_in(chunk)

    def _take_in(self, chunk: bytes) -> bytes:
        start, border = 0, len(chunk)
        for event in self._splitter.feed(chunk):
            if self._hear(event):
                border = start
            start = event.end
        if self.outcome == "open":
            pending = self._splitter.pending()
            # Only its blank line is missing, and a client that reads line by line does not wait for that.
            if pending is not None and self._collector.classify(pending) is not Signal.NOTHING:
                self._hear(pending)
                border = start
            elif self._splitter.overflowed:
                self._finish("unreadable", None)
        if border < len(chunk):
            self._held.append(chunk[border:])
        return chunk[:border]

    def _hear(self, event: Event) -> bool:
        """Let the collector have an event; True when it is the one to hold from."""
        was_open = self.outcome == "open"
        signal = self._collector.feed(event)
        if signal is Signal.FINISH:
            self._finish("complete", self._collector.reply())
        elif signal is Signal.FAILURE:
            self._finish("failed", None)
        return was_open and self.outcome != "open"

    def _end_of_stream(self) -> bytes:
        """The provider closed its body properly. Without a finishing event that is a cut all the same."""
        open_line = self._splitter.open_line()
        last = self._splitter.flush()
        if last is not None:
            self._hear(last)
        if self.outcome == "open":
            error = UpstreamError("The provider ended the stream before the reply was complete.")
            self._break_off(error, open_line=open_line)
        self._at_end = True
        return b""

    def _break_off(self, error: MemoryRouterError, *, open_line: bytes | None) -> None:
        """End with an error event of the format, unless the client has the terminator already. Never a terminator."""
        self._finish("cut", None)
        self._at_end = True
        if self._collector.ended:
            return
        event = self._format.error_event(error.message, status=error.status, code=error.code, open_line=open_line)
        # Where an unreadable stream broke is not known; blank lines end whatever it was.
        last = b"\n\n" + event if self._splitter.overflowed else event
        if last:
            self._held.append(last)

    def _finish(self, outcome: Outcome, reply: Reply | None) -> None:
        if self.outcome != "open":
            return
        self.outcome = outcome
        self._commit_deadline = trio.current_time() + self._commit_wait_s
        try:
            self._commit = self._hand_off(reply)
        except MemoryRouterError as error:  # memory never breaks the chat (promise 4)
            self._on_not_durable(error.code)

    async def _wait_durable(self) -> None:
        """Let the end of the reply go only when it is stored, or when waiting has lasted long enough."""
        commit, self._commit = self._commit, None
        reason = await wait_durable(commit, deadline=self._commit_deadline)
        if reason is not None:
            self._on_not_durable(reason)


async def wait_durable(commit: Commit | None, *, deadline: float) -> str | None:
    """Wait until a hand-off is durable, at most until `deadline` (Trio's clock).

    Returns:
        None when it is, or when there was nothing to store; else why it is not: "commit_timeout" or an error's code.
    """
    if commit is None or commit.durable:
        return None
    try:
        with step("commit"), trio.CancelScope(deadline=deadline) as scope:
            await commit.wait_durable()
    except MemoryRouterError as error:
        return error.code
    return "commit_timeout" if scope.cancelled_caught else None


class PulledBody(ResponseBody):
    """Chunks as a Quart response body: the server's next read is theirs.

    No scope or nursery lives in it, so that it may be left at any await; what the chunks hold open is closed by the
    request's exit stack, whether or not this body was ever entered.
    """

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks

    async def __aenter__(self) -> PulledBody:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks


def stream_response(relay: Relay, *, status: int, headers: HeaderList) -> Response:
    """The response around a relay: the provider's headers, no buffering on the way, no time limit on the whole.

    Call it inside a request served through `CloseWithRequest`.
    """
    exits().callback(relay.close_nowait)
    response = Response(PulledBody(relay), status=status)
    response.headers.clear()
    for name, value in headers:
        response.headers.add(name, value)
    response.headers.setdefault("content-type", "text/event-stream; charset=utf-8")
    response.headers["cache-control"] = "no-cache"
    response.headers["x-accel-buffering"] = "no"
    response.timeout = None  # the default of 60 s would cut a long reply; the provider's idle timeout bounds it
    return response


def exits() -> AsyncExitStack:
    """What is to be closed when the current request is over, however it ends."""
    scope: Mapping[str, Any] = request.scope
    stack: AsyncExitStack = scope[_EXITS]
    return stack


Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


class CloseWithRequest:
    """ASGI wrapper that gives every request an exit stack and closes it when the request is over.

    A streaming handler returns before its body is sent. If the client leaves in between, Quart never enters the body,
    and whatever the handler opened for it would stay open. The stack lives outside of the handler's task, so it is
    always closed: upstream calls end, and the hand-off happens.
    """

    def __init__(self, app: Callable[[Any, Any, Any], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        stack = AsyncExitStack()
        scope[_EXITS] = stack
        try:
            await self._app(scope, receive, send)
        except* _CLIENT_GONE:
            pass
        except* AnswerBroken:  # the answer has no end, and so the server ends the connection
            log_event("answer_broken_off", level=logging.WARNING)
        finally:
            with trio.move_on_after(_CLOSE_TIMEOUT_S, shield=True):
                await stack.aclose()
