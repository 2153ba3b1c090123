"""Addresses: who stands behind trusted proxies, what a client may invent, and who counts as one."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.addresses import UNKNOWN, client_group, group_of, networks_of, parse_address

PROXIES = networks_of(["10.0.0.0/8", "192.0.2.1", "2001:db8:f::/48"])


def test_without_trusted_proxies_only_the_connection_counts() -> None:
    assert client_group("203.0.113.5", ["198.51.100.1"], ()) == "203.0.113.5"


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("203.0.113.5", ["198.51.100.1"], "203.0.113.5"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1, 10.2.3.4"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1", "192.0.2.1, 10.2.3.4"], "198.51.100.1"),
        ("10.0.0.1", ["1.1.1.1, 2.2.2.2, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.1.1.1", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.9"], "10.0.0.9"),
        ("10.0.0.1", ["198.51.100.1, nonsense, 10.2.3.4"], "10.2.3.4"),
        ("10.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("10.0.0.1", ["[2001:db8:1:2:3::4]:4711"], "2001:db8:1:2::/64"),
        ("10.0.0.1", ["2001:db8:1:2:3::4"], "2001:db8:1:2::/64"),
        ("10.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("2001:db8:f::1", ["198.51.100.1"], "198.51.100.1"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        (None, ["198.51.100.1"], UNKNOWN),
        ("a.socket", ["198.51.100.1"], UNKNOWN),
    ],
    ids=str,
)
def test_the_rightmost_hop_that_is_no_trusted_proxy_is_the_client(
    peer: str | None, forwarded_for: Sequence[str], client: str
) -> None:
    assert client_group(peer, forwarded_for, PROXIES) == client


@given(invented=st.lists(st.text(max_size=50), max_size=30))
def test_a_client_cannot_choose_its_address(invented: list[str]) -> None:
    """Whatever it sends, the proxy appends where it came from."""
    assert client_group("10.0.0.1", [*invented, "198.51.100.1"], PROXIES) == "198.51.100.1"


@given(address=st.ip_addresses(v=6), host=st.integers(0, 2**64 - 1))
def test_all_addresses_of_a_subscriber_are_one(address: object, host: int) -> None:
    """A /64 is the least that one has; within it, an attacker has a new address for every attempt."""
    first = parse_address(str(address))
    assert first is not None
    if first.version == 6:  # and no IPv4 address within IPv6
        neighbour = IPv6Address((int(first) >> 64 << 64) + host)
        assert group_of(first) == group_of(neighbour)
