"""One path for every way that clients write it.

SDKs disagree on whether a base URL ends with `/v1`, and some put a version of their own behind it. So
`/chat/completions` and `/v1/v1/chat/completions` mean `/v1/chat/completions` (contract section 1), and so does
`/v1//chat/completions`, which comes of a base URL that ends with a slash. Must never make a path of our own (`/health`,
`/livez`) out of another, nor touch the words that follow the version.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

_SLASHES = re.compile(r"/{2,}")
_VERSIONS = ("v1", "v1beta")
_UNVERSIONED = frozenset(
    {
        "account", "audio", "chat", "completions", "embeddings", "images", "keys", "me", "memories", "memory",
        "messages", "models", "providers", "responses", "sessions",
    }
)  # fmt: skip
"""First segments of the routes below `/v1`."""


def canonical_path(path: str) -> str:
    """The path that the routes know: single slashes, and one version, the last that was given; others as they came."""
    if "//" in path:
        path = _SLASHES.sub("/", path)
    first, _, rest = path.removeprefix("/").partition("/")
    if first in _UNVERSIONED:
        return f"/v1{path}"
    canonical = path
    while first in _VERSIONS and rest.partition("/")[0] in _VERSIONS:
        canonical = f"/{rest}"
        first, _, rest = rest.partition("/")
    return canonical


class CanonicalPath:
    """ASGI wrapper that gives the application canonical paths only."""

    def __init__(self, app: Callable[[Any, Any, Any], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "http":
            path = scope["path"]
            canonical = canonical_path(path)
            if canonical != path:
                scope = {**scope, "path": canonical, "raw_path": canonical.encode()}
        await self._app(scope, receive, send)
