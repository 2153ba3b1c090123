"""Which address a request came from, and which addresses count as one client.

Pure functions. Whoever sends `X-Forwarded-For` writes it; it is believed only as far as trusted proxies wrote it.
Must never be used to decide what a caller may do: an address bounds failed attempts, nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

HOPS_MAX = 16
"""Hops of `X-Forwarded-For` that are looked at, from the right; chains of proxies are short."""

IPV6_GROUP_BITS = 64
"""One subscriber has at least a /64 (RFC 6177): within it addresses are free, so all of it counts as one."""

UNKNOWN = "unknown"


def networks_of(texts: Iterable[str]) -> tuple[Network, ...]:
    """Networks as settings name them, an address being a network of one.

    Raises:
        ValueError: one of them is none.
    """
    return tuple(ip_network(text) for text in texts)


def client_group(peer: str | None, forwarded_for: Sequence[str], trusted: Sequence[Network]) -> str:
    """The name under which a client's failed attempts are counted: its IPv4 address, or its IPv6 /64.

    Args:
        peer: the other end of the connection, or None where that has no address.
        forwarded_for: the values of every `X-Forwarded-For` header, in order.
        trusted: proxies that are believed about the hop before them.
    """
    address = parse_address(peer or "")
    if address is None:
        return UNKNOWN
    if trusted and is_in(address, trusted):
        address = _before_proxies(address, forwarded_for, trusted)
    return group_of(address)


def _before_proxies(peer: Address, forwarded_for: Sequence[str], trusted: Sequence[Network]) -> Address:
    """The rightmost hop that is no trusted proxy; what stands left of it may be invented. Where a proxy has written
    something that is no address, the proxy itself counts."""
    believed = peer
    for hop in reversed(",".join(forwarded_for).split(",")[-HOPS_MAX:]):
        address = parse_address(hop)
        if address is None:
            break
        believed = address
        if not is_in(address, trusted):
            break
    return believed


def parse_address(text: str) -> Address | None:
    """An address as proxies write it, perhaps with a port, brackets or a zone; IPv4 within IPv6 is IPv4."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def is_in(address: Address, networks: Sequence[Network]) -> bool:
    """Whether one of the networks holds the address."""
    return any(address in network for network in networks)


def group_of(address: Address) -> str:
    """The addresses that one client has: a single one of IPv4, a /64 of IPv6."""
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Network((address, IPV6_GROUP_BITS), strict=False))
