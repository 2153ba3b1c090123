"""The id of the request that is being served: in logs, in `x-request-id`, and on what the request stores.

Owns how an id is made and where the request carries it. The logs know it from `router.observe.request_scope`, which is
entered outside of the application, so that lines written while a request is being closed carry it too.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from quart import request

from router.observe import request_scope

_SCOPE_KEY = "memoryrouter.request_id"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


class WithRequestId:
    """ASGI wrapper that gives every request an id. Belongs outside of everything that may log."""

    def __init__(self, app: Callable[[Any, Any, Any], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope[_SCOPE_KEY] = f"req_{secrets.token_hex(12)}"
        with request_scope(request_id):
            await self._app(scope, receive, send)


def current_request_id() -> str:
    """The current request's id; "" for one that did not come through `WithRequestId`."""
    scope: Mapping[str, Any] = request.scope
    return str(scope.get(_SCOPE_KEY, ""))
