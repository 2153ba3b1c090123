"""The way into `/dashboard`: what a browser's request carries is taken off it, and every answer binds the page.

A request below `/dashboard/api/v1/` becomes one to `/v1/`: its credentials are replaced by the session that its cookie
names, so that the routes, limits, usage and audit of the public API serve it unchanged. Everywhere else a cookie means
nothing. Must never let a key of such a request through, nor tell whether a session is live: `router.dashboard.callers`
does that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any
from urllib.parse import quote, unquote_plus

import msgspec

ROOT = "/dashboard"
API = f"{ROOT}/api"
SESSION = f"{ROOT}/session"
COOKIE = "memoryrouter_session"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    b"content-security-policy": CSP.encode(),
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}

_REWRITTEN = f"{API}/v1/"
_SCOPE_KEY = "memoryrouter.dashboard"
_OURS = frozenset({b"cookie", b"x-csrf-token", b"x-dashboard", b"x-dashboard-vault"})
_CREDENTIALS = frozenset(
    {b"authorization", b"x-memory-key", b"x-api-key", b"x-goog-api-key", b"api-key", b"x-provider-key"}
)
_CROSS_ORIGIN = b"access-control-"
_BROWSER_STATE = frozenset({b"clear-site-data", b"set-cookie", b"strict-transport-security"})

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
HeaderPairs = list[tuple[bytes, bytes]]


class BrowserRequest(msgspec.Struct, frozen=True):
    """What a request below `/dashboard` came with.

    Attributes:
        token: of the session's cookie; "" for none, and for several that differ: another site under the same domain
            can add a cookie, and which of them is ours cannot be told.
        csrf: what the page says beside it.
        vault: the vault that it means, "" for the account's own.
        is_page: whether it has the header that no form and no foreign page can send.
    """

    token: str
    csrf: str
    vault: str
    is_page: bool


class DashboardGate:
    """ASGI wrapper around everything that reads paths or credentials."""

    def __init__(self, app: Callable[[Any, Any, Any], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not is_below(path, ROOT):
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Mapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": guarded(message["headers"], path)}
            await send(message)

        await self._app(_admitted(scope, path), receive, send_guarded)


def is_below(path: str, folder: str) -> bool:
    """Whether a path is this folder or within it."""
    return path == folder or path.startswith(f"{folder}/")


def browser_request(scope: Mapping[str, Any]) -> BrowserRequest | None:
    """What a request below `/dashboard` came with; None for any other."""
    found: BrowserRequest | None = scope.get(_SCOPE_KEY)
    return found


def guarded(headers: Iterable[tuple[bytes, bytes]], path: str) -> HeaderPairs:
    """An answer's headers with those that bind the page, and without what would open it to others.

    That is so whatever `cors.origins` says, since the pages that it names have keys of their own, and whatever a
    provider answers. Only files are kept by a browser, and only signing in and out sets a cookie.
    """
    ours: dict[bytes, bytes] = {**SECURITY_HEADERS}
    taken = {*SECURITY_HEADERS}
    if not is_below(path, f"{ROOT}/static"):
        ours[b"cache-control"] = b"no-store"
        taken |= {b"cache-control", b"expires"}
    if path != SESSION:
        taken |= _BROWSER_STATE
    lowered = [(bytes(name).lower(), bytes(value)) for name, value in headers]
    kept = [pair for pair in lowered if pair[0] not in taken and not pair[0].startswith(_CROSS_ORIGIN)]
    return [*kept, *ours.items()]


def _admitted(scope: Scope, path: str) -> Scope:
    """The request as the application sees it."""
    headers: HeaderPairs = [(bytes(name).lower(), bytes(value)) for name, value in scope["headers"]]
    known = _OURS | _CREDENTIALS
    admitted = {
        **scope,
        "headers": [(name, value) for name, value in headers if name not in known],
        "query_string": without_key(scope.get("query_string", b"")),
        _SCOPE_KEY: read_browser(headers),
    }
    if path.startswith(_REWRITTEN):
        path = path.removeprefix(API)
        admitted |= {"path": path, "raw_path": quote(path).encode()}
    return admitted


def read_browser(headers: HeaderPairs) -> BrowserRequest:
    """What a browser sends beside its request."""

    def only(wanted: bytes) -> str:
        """A header's value. What comes twice is joined, and so fits nothing: it must not count as left out."""
        return ",".join(value.decode("latin-1").strip() for name, value in headers if name == wanted)

    return BrowserRequest(
        token=session_token(value for name, value in headers if name == b"cookie"),
        csrf=only(b"x-csrf-token"),
        vault=only(b"x-dashboard-vault"),
        is_page=only(b"x-dashboard") == "1",
    )


def session_token(cookies: Iterable[bytes]) -> str:
    """The value of our cookie, or "" unless there is exactly one."""
    found = set()
    for pair in b";".join(cookies).split(b";"):
        name, equals, value = pair.strip().partition(b"=")
        if equals and name == COOKIE.encode():
            found.add(value.strip(b'" '))
    return found.pop().decode("latin-1") if len(found) == 1 else ""


def without_key(query: bytes) -> bytes:
    """A query without `key=`, in which a Memory Key could be."""
    if not query:
        return query
    parts = query.split(b"&")
    return b"&".join(part for part in parts if unquote_plus(part.partition(b"=")[0].decode("latin-1")) != "key")
