"""The dashboard of a server with several workers: it lives in the first, and the others pass on to it what they get.

Sessions are in the memory of one process. So a request below `/dashboard` goes there whole, with its cookies and its
body as it comes, before anything is taken off it; what it says beside itself is whom this worker took it from: the
client's address, its scheme and its `Host`, by which origins, cookies and failed attempts are judged. Must never let a
client say that: only who knows the workers' token is believed.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import msgspec
import trio

from models.errors import StoreUnavailable
from router.dashboard.gate import API, ROOT, SESSION, guarded, is_below
from router.early_replies import ReplyAfterRequest
from router.forwarding import (
    ANSWER_TIMEOUT_S,
    OWN_HEADERS,
    SIBLING,
    AnswerBroken,
    AnswerPieces,
    headers_back,
    target_of_path,
)
from router.headers import HOP_BY_HOP, HeaderList
from router.observe import log_event
from router.provider_connections import Answer, CallFailed
from router.siblings import Siblings
from router.wire_errors import error_body, error_headers

FIRST = 0
"""The worker in which the dashboard lives."""

LOOK_S = 0.25
"""How often a request looks whether that worker still serves."""

RETRY_AFTER_S = 2
_PAGE = b"""<!doctype html>
<html lang="en">
  <head><meta charset="utf-8"><meta http-equiv="refresh" content="3"><title>MemoryRouter</title></head>
  <body><h1>The dashboard is not there now</h1>
  <p>The process in which it lives is being started again. This page asks again in three seconds.</p></body>
</html>
"""
_NO_PAGES = (API, SESSION, f"{ROOT}/static")
_FRAMING = frozenset({"content-length", "transfer-encoding"})
_NOT_PASSED_ON = HOP_BY_HOP | OWN_HEADERS | _FRAMING | {"expect", "host"}

App = Callable[[Any, Any, Any], Awaitable[None]]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


class Taken(msgspec.Struct, frozen=True):
    """Whom a worker took a request from, and how.

    Attributes:
        client: address and port; None where the connection has none.
    """

    client: tuple[str, int] | None
    scheme: str
    host: str


class _ClientLeft(Exception):
    """Nobody waits for the answer any more."""


def dashboard_at_first(app: App, siblings: Siblings | None, *, body_timeout_s: float) -> App:
    """The application with its dashboard where it lives.

    Args:
        siblings: None where there is one worker only.
        body_timeout_s: how long a client may take to send a body.
    """
    if siblings is None:
        return app
    if siblings.share.index == FIRST:
        return TakesIn(app, siblings)
    return PassesOn(app, siblings, body_timeout_s=body_timeout_s)


class TakesIn:
    """ASGI wrapper in the first worker: requests that others pass on look as they did there."""

    def __init__(self, app: App, siblings: Siblings) -> None:
        self._app = app
        self._siblings = siblings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "http" and is_below(scope["path"], ROOT):
            told = self._siblings.told(scope["headers"])
            taken = None if told is None else _decoded(told)
            if taken is not None:
                host = (b"host", taken.host.encode("latin-1"))
                headers = [pair for pair in scope["headers"] if pair[0] not in _TAKEN_OFF]
                scope = {**scope, "client": taken.client, "scheme": taken.scheme, "headers": [host, *headers]}
        await self._app(scope, receive, send)


class PassesOn:
    """ASGI wrapper in the other workers, around whatever reads paths or credentials of the dashboard."""

    def __init__(self, app: App, siblings: Siblings, *, body_timeout_s: float) -> None:
        self._app = app
        self._siblings = siblings
        self._body_timeout_s = body_timeout_s
        self._passed = ReplyAfterRequest(self._pass_on)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "http" and is_below(scope["path"], ROOT):
            await self._passed(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = _Body(receive, timeout_s=self._body_timeout_s)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(body.cancel_when_left, nursery.cancel_scope)
                with trio.CancelScope() as living:
                    nursery.start_soon(self._end_with_first, living)
                    await self._exchange(scope, body, send)
                if not body.is_answering:
                    await _send_unavailable(scope, send, body)
                body.is_answered = True
                nursery.cancel_scope.cancel(reason="the answer is out")
        except* _ClientLeft:
            pass

    async def _exchange(self, scope: Scope, body: _Body, send: Send) -> None:
        """Ask the first worker, and send what it answers, if it does."""
        connections = self._siblings.forwarder.connections_to(self._siblings.address_of(FIRST))
        headers, has_body = _headers_on(scope)
        headers += [self._siblings.forwarder.token_header(), (SIBLING, _encoded(scope))]
        target = target_of_path(scope["path"], scope.get("query_string", b""))
        sent = body if has_body else b""
        try:
            with trio.fail_after(ANSWER_TIMEOUT_S):
                answer = await connections.ask(scope["method"], target, headers=headers, body=sent)
        except (CallFailed, trio.TooSlowError):
            return
        body.is_answering = True
        try:
            await _send_answer(answer, send, body)
        finally:
            await answer.aclose()

    async def _end_with_first(self, scope: trio.CancelScope) -> None:
        """Cancel as soon as the first worker does not serve: one that is frozen keeps its connections for ever."""
        while True:
            if FIRST in self._siblings.down():
                scope.cancel(reason="the first worker is down")
                return
            await trio.sleep(LOOK_S)


class _Body:
    """A request's body on its way, and whether its client still waits.

    Attributes:
        is_answering: whether an answer has begun.
        is_answered: whether the last of the answer is on its way to the client, who may leave then.
    """

    def __init__(self, receive: Receive, *, timeout_s: float) -> None:
        self._receive = receive
        self._deadline = trio.current_time() + timeout_s
        self._more = True
        self._is_read = trio.Event()
        self.is_answering = self.is_answered = False

    def __aiter__(self) -> _Body:
        return self

    async def __anext__(self) -> bytes:
        """The next piece.

        Raises:
            _ClientLeft: before the body's end, or it takes too long.
        """
        while self._more:
            message = None
            with trio.move_on_at(self._deadline):
                message = await self._receive()
            if message is None or message["type"] != "http.request":
                raise _ClientLeft
            self._more = message.get("more_body", False)
            if message.get("body"):
                return bytes(message["body"])
        self._is_read.set()
        raise StopAsyncIteration

    def nobody_reads(self) -> None:
        """Nothing more of the body is wanted."""
        self._is_read.set()

    async def cancel_when_left(self, scope: trio.CancelScope) -> None:
        """Cancel once the body has been read and the client leaves."""
        await self._is_read.wait()
        while (await self._receive())["type"] == "http.request":
            pass
        if not self.is_answered:
            scope.cancel(reason="the client has left")


def _headers_on(scope: Scope) -> tuple[HeaderList, bool]:
    """The headers that the first worker gets, and whether there is a body."""
    given = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    headers = [(name, value) for name, value in given if name not in _NOT_PASSED_ON]
    framing = [(name, value) for name, value in given if name in _FRAMING]
    if any(name == "transfer-encoding" for name, _ in framing):
        return [*headers, ("transfer-encoding", "chunked")], True
    has_body = any(value.strip() != "0" for _, value in framing)
    return [*headers, *framing[:1]] if has_body else headers, has_body


async def _send_answer(answer: Answer, send: Send, body: _Body) -> None:
    """An answer to the client, each piece as it comes. One that breaks off is broken off here, too."""
    body.nobody_reads()
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers_back(answer)]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    try:
        async for piece in AnswerPieces(answer):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    except AnswerBroken:
        log_event("answer_broken_off", level=logging.WARNING)
        return
    body.is_answered = True
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_unavailable(scope: Scope, send: Send, body: _Body) -> None:
    """Say that the first worker is not there: with a page to who wants one."""
    body.nobody_reads()
    path = scope["path"]
    error = StoreUnavailable(
        "The dashboard's process is being started again.", hint="Ask again.", retry_after_s=RETRY_AFTER_S
    )
    if scope["method"] in ("GET", "HEAD") and not any(is_below(path, folder) for folder in _NO_PAGES):
        content, kind = _PAGE, b"text/html; charset=utf-8"
    else:
        content, kind = error_body(error, path), b"application/json"
    headers = [
        (b"content-type", kind),
        (b"content-length", str(len(content)).encode()),
        *((name.lower().encode(), value.encode()) for name, value in error_headers(error).items()),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": guarded(headers, path)})
    body.is_answered = True
    content = b"" if scope["method"] == "HEAD" else content
    await send({"type": "http.response.body", "body": content, "more_body": False})


def _encoded(scope: Scope) -> str:
    client = scope.get("client")
    host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
    taken = Taken(client=None if not client else (str(client[0]), int(client[1])), scheme=scope["scheme"], host=host)
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(taken)).decode()


def _decoded(told: str) -> Taken | None:
    try:
        return _decode(base64.urlsafe_b64decode(told))
    except (ValueError, msgspec.MsgspecError):
        return None


_TAKEN_OFF = frozenset(name.encode() for name in OWN_HEADERS | {"host"})
_decode = msgspec.msgpack.Decoder(Taken).decode
