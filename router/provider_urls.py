"""A provider's URL as HTTP needs it: whom to connect to, the `Host` header, and the path as it goes over the wire.

What is not plain is left to httpx, which knows international names, IPv6, what must be escaped and where dots lead. It
costs 70 ms of a start and 6 MB, since it brings its command line's colours along, so it is imported when it is needed:
nearly every URL is plain, and of a plain one both say the same (a test compares them).
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address
from typing import NamedTuple

PORTS = {"http": 80, "https": 443}

_PLAIN = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9._-]{1,253})(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<path>(?:/[A-Za-z0-9._~:@!$&'()*+,;=-]*)*)(?P<query>\?[A-Za-z0-9._~:@!$&'()*+,;=/-]*)?"
)
_DOTS = re.compile(r"/\.\.?(?:/|\Z)")  # segments that lead elsewhere


class ProviderAddress(NamedTuple):
    """Where a provider is.

    Attributes:
        host: as it is looked up, and as its certificate names it.
        host_header: with the port, where that is not the scheme's own.
    """

    scheme: str
    host: str
    port: int
    host_header: str


def address_of(url: str) -> ProviderAddress:
    """Where a URL leads.

    Raises:
        httpx.InvalidURL: nowhere.
        KeyError: it is neither http nor https.
    """
    plain = _PLAIN.fullmatch(url)
    if plain is not None and _is_name_or_address(plain["host"]):
        scheme, host = plain["scheme"], plain["host"]
        port = int(plain["port"] or PORTS[scheme])
        return ProviderAddress(scheme, host, port, host if port == PORTS[scheme] else f"{host}:{port}")
    import httpx

    parsed = httpx.URL(url)
    port = parsed.port or PORTS[parsed.scheme]
    return ProviderAddress(parsed.scheme, parsed.raw_host.decode("ascii"), port, parsed.netloc.decode("ascii"))


@lru_cache(maxsize=256)
def target_of(url: str) -> bytes:
    """Path and query of a URL, encoded as they go over the wire.

    Raises:
        httpx.InvalidURL: it is no URL.
    """
    plain = _PLAIN.fullmatch(url)
    if plain is not None and _is_name_or_address(plain["host"]) and not _DOTS.search(plain["path"]):
        return ((plain["path"] or "/") + (plain["query"] or "")).encode("ascii")
    import httpx

    return httpx.URL(url).raw_path


def _is_name_or_address(host: str) -> bool:
    """Whether it is a name, or four numbers that are an address: httpx refuses others."""
    if not host.replace(".", "").isdigit():
        return True
    try:
        IPv4Address(host)
    except AddressValueError:
        return False
    return True
