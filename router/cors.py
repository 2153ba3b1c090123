"""Which web pages may call this server: the answers that browsers ask for (CORS).

Off unless `cors.origins` names origins, and never below `/dashboard` (`router.dashboard.gate`). Must never allow
credentials (the dashboard's is the only cookie; other pages send their key themselves), nor an origin that is not
named, nor any origin at all by `*`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from models.server_settings import CorsSettings

PREFLIGHT_SECONDS = 600
"""How long a browser may remember a permission."""

_METHODS = "GET, POST, PUT, PATCH, DELETE"
_EXPOSED = (
    "Request-Id, Retry-After, X-Embedding-Model, X-MR-Attempts, X-Memory-Ids, X-Memory-Status, X-Provider-Detected, "
    "X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, X-Request-Id"
)
_HEADER_NAMES = re.compile(r"[A-Za-z0-9-]{1,64}(\s*,\s*[A-Za-z0-9-]{1,64}){0,63}")


class Cors:
    """The policy of one server."""

    def __init__(self, settings: CorsSettings) -> None:
        self._origins = frozenset(settings.origins)

    @property
    def is_on(self) -> bool:
        """Whether any page may call."""
        return bool(self._origins)

    def preflight(self, method: str, headers: Mapping[str, str]) -> dict[str, str] | None:
        """The headers that answer a browser's question whether it may send; None if this is none, or it may not.

        Any header may be sent: SDKs add names of their own with every version, and a key decides who is served.
        """
        if method != "OPTIONS" or "access-control-request-method" not in headers or not self._allows(headers):
            return None
        wanted = headers.get("access-control-request-headers", "").strip()
        allowed = {"Access-Control-Allow-Headers": wanted} if _HEADER_NAMES.fullmatch(wanted) else {}
        return {
            **allowed,
            "Access-Control-Allow-Methods": _METHODS,
            "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
        }

    def answer(self, headers: Mapping[str, str]) -> dict[str, str]:
        """The headers of every answer, besides `Vary: Origin`."""
        if not self._allows(headers):
            return {}
        return {"Access-Control-Allow-Origin": headers["origin"], "Access-Control-Expose-Headers": _EXPOSED}

    def _allows(self, headers: Mapping[str, str]) -> bool:
        return headers.get("origin", "") in self._origins
