"""Whether a page of our own asks: what a browser says of where a request comes from. Pure.

A second wall behind the cookie's `SameSite=Strict` and the CSRF token, and the first one in front of signing in, which
has neither. Programs that are no browsers send none of these headers; they have to know the token all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from router.request_checks import host_name

_OWN_SITES = frozenset({"same-origin", "none"})
_DEFAULT_PORTS = {"http": 80, "https": 443}


def is_own_page(headers: Mapping[str, str], *, hosts: Sequence[str]) -> bool:
    """Whether the request comes from our own page, or from no page at all.

    `Sec-Fetch-Site` is the browser's own word, which no page can change; browsers send it over TLS and to this machine.
    Else `Origin` counts: it has to be the host that was asked, or one that the operator named, since a proxy may pass
    another `Host` on. A page that has its own name point here (DNS rebinding) passes that; it has no cookie to bring.

    Args:
        headers: by lower-case name.
        hosts: `server.allowed_hosts`.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site.strip().lower() in _OWN_SITES
    origin = headers.get("origin")
    if origin is None:
        return True
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return False
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc:
        return False
    if parts.hostname.lower() in {name.lower() for name in hosts}:
        return True
    return _with_port(parts.netloc, port, parts.scheme) == _with_port(headers.get("host", ""), None, parts.scheme)


def is_over_tls(scheme: str, headers: Mapping[str, str]) -> bool:
    """Whether the browser speaks TLS, be it to a proxy: its `Origin` says so."""
    return scheme == "https" or headers.get("origin", "").lower().startswith("https://")


def _with_port(netloc: str, port: int | None, scheme: str) -> tuple[str, int]:
    if port is None:
        try:
            port = urlsplit(f"//{netloc.strip()}").port
        except ValueError:
            port = -1
    return host_name(netloc), port or _DEFAULT_PORTS[scheme]
