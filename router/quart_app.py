"""Our Quart application class: one request through Quart-Trio with fewer steps.

Owns how an ASGI request becomes a call of Quart and back, on the seams that Quart has for that (`asgi_http_class`,
`ensure_async`). Differs from Quart-Trio in what it costs, not in what it does: one task beside the handler's instead of
two, and none for a request that is here as a whole; no second look at whether a handler is async; and a whole reply in
two messages instead of three.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio
from quart import Request, Response
from quart.sessions import NullSession, SessionInterface
from quart.utils import encode_headers
from quart.wrappers.response import DataBody
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection
from quart_trio.wrappers import TrioRequest
from werkzeug.routing import MapAdapter

from router.body_budget import FREE_BYTES
from router.request_messages import RequestMessages, messages_of

_BODY = "memoryrouter.whole_body"


def take_body(request: Request) -> bytes | None:
    """The body of a request, if it was here before its handler. Nothing is kept of it: a stream may last for long."""
    scope: Any = request.scope
    body: bytes | None = scope.pop(_BODY, None)
    if body is not None:
        request.body.clear()
    return body


class NoSessions(SessionInterface):
    """Quart's sessions, which nobody uses here: the dashboard has its own."""

    def __init__(self) -> None:
        self._none = NullSession()

    async def open_session(self, app: Any, request: Any) -> NullSession:
        """The same for all: nothing can be put into it."""
        return self._none


class PlainRequest(TrioRequest):
    """A request to an application whose blueprints hold none themselves."""

    @property
    def blueprints(self) -> list[str]:
        """The blueprint of the route, if it has one; asked for several times on the way."""
        name = self.blueprint
        return [] if name is None else [name]


class App(QuartTrio):
    """A Quart-Trio application all of whose functions are async, and whose routes depend on the path alone."""

    session_interface = NoSessions()  # type: ignore[assignment]  # annotated with what Quart uses by default
    request_class = PlainRequest

    def create_url_adapter(self, request: Any) -> MapAdapter | None:
        """What finds the route. Which host was asked for plays no part: what is refused for it is so elsewhere."""
        if request is None:
            return None
        query = request.query_string.decode()
        return MapAdapter(self.url_map, "", request.root_path, "", request.scheme, request.path, request.method, query)

    def ensure_async(self, func: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        """The function itself: what is not async has no place here."""
        return func


class Connection(TrioASGIHTTPConnection):
    """One HTTP request. The handler runs in the task that the server gave it, and ends when the client leaves."""

    async def __call__(self, receive: Any, send: Any) -> None:
        """Serve it."""
        request = self._create_request_from_scope(send)
        messages = messages_of(self.scope)
        if messages is not None and messages.is_here(FREE_BYTES):
            await self._serve_whole(request, messages, receive, send)
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, nursery.cancel_scope, request, receive)
            response = await self.app.handle_request(request)
            await self._send_response(send, response)
            nursery.cancel_scope.cancel()

    async def _serve_whole(self, request: Request, messages: RequestMessages, receive: Any, send: Any) -> None:
        """Serve a request whose body is here: what else can come is that the client leaves, and that takes no task."""
        parts, more = [], True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return  # the client did not wait for it
            parts.append(message["body"])
            more = message["more_body"]
        whole = b"".join(parts)
        request.body.set_result(whole)
        scope: Any = self.scope
        scope[_BODY] = whole
        with trio.CancelScope() as handling:
            messages.when_over(partial(handling.cancel, reason="the client has left"))
            response = await self.app.handle_request(request)
            await self._send_response(send, response)

    async def _listen(self, handling: trio.CancelScope, request: Request, receive: Any) -> None:
        body: Any = request.body
        while (message := await receive())["type"] == "http.request":
            if hasattr(body, "put"):  # since Quart 0.23
                await body.put(message.get("body", b""))
            else:
                body.append(message.get("body", b""))
            if not message.get("more_body", False):
                body.set_complete()
        handling.cancel(reason="the client has left")

    async def _send_response(self, send: Any, response: Any) -> None:
        """Send it; a body that is known as a whole goes out together with the reply's end."""
        if not (isinstance(response, Response) and isinstance(response.response, DataBody)):
            await super()._send_response(send, response)
            return
        headers = encode_headers(response.headers)
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": response.response.data, "more_body": False})


App.asgi_http_class = Connection
