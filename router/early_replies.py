"""Where requests and replies end: no reply overtakes its request, and no end is cut short.

A refusal (401, 413) is known long before a large body has arrived. Sent at once it does harm: clients write their
whole body before they read, and Hypercorn 0.18 leaves such a connection open, unread and without a timeout. So the rest
of the body is read and thrown away first; a client that takes too long is answered and cut off.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import trio

DISCARD_TIMEOUT_S = 10.0
"""Enough for 64 MiB at 50 Mbit/s; SDKs wait much longer for a reply."""

FINISH_TIMEOUT_S = 60.0
"""Bounds the last bytes of a reply; clients that take none of them are cut off much earlier (TCP_USER_TIMEOUT)."""

Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class ReplyAfterRequest:
    """ASGI wrapper that holds a response back until its request has been received. Nothing is kept of what is read."""

    def __init__(
        self, app: Callable[[Any, Any, Any], Awaitable[None]], *, discard_timeout_s: float = DISCARD_TIMEOUT_S
    ) -> None:
        self._app = app
        self._discard_timeout_s = discard_timeout_s

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(receive, send, discard_timeout_s=self._discard_timeout_s)
        await self._app(scope, exchange.receive, exchange.send)


class _Exchange:
    """One request with its response. The application receives in one task and sends in another."""

    def __init__(self, receive: Receive, send: Send, *, discard_timeout_s: float) -> None:
        self._receive = receive
        self._send = send
        self._received = trio.Event()
        self._replying = False
        self._discard_timeout_s = discard_timeout_s
        self._discard_until = math.inf

    async def receive(self) -> Message:
        """The next message; once the reply is known, the end of the request without what comes before it."""
        while True:
            message = await self._receive()
            if message["type"] != "http.request" or not message.get("more_body", False):
                self._received.set()
                return message
            if not self._replying:
                return message

    async def send(self, message: Message) -> None:
        """Pass a message on, when the request has been received."""
        if not self._replying:
            self._replying = True
            self._discard_until = trio.current_time() + self._discard_timeout_s
        if not self._received.is_set():
            message = await self._discard_request(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            # With the last bytes Hypercorn puts the connection in order: it closes it or starts its idle timer. On the
            # way it reports a disconnect, whereupon Quart cancels this very task; without the shield the connection
            # would have no timer and stay open for ever, and a stop would wait for it to the end of the drain time.
            with trio.move_on_after(FINISH_TIMEOUT_S, shield=True):
                await self._send(message)
        else:
            await self._send(message)

    async def _discard_request(self, message: Message) -> Message:
        """Wait for the end of the request. If it does not come in time, the response says that it is the last."""
        with trio.move_on_at(self._discard_until):
            await self._received.wait()
        if self._received.is_set() or message["type"] != "http.response.start":
            return message
        return {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
