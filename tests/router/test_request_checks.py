"""Control characters and foreign hosts are refused before a route is asked."""

from __future__ import annotations

import pytest

from models.errors import MisdirectedRequest, NotFound
from router.request_checks import check_head, host_name


def check(*, path: str = "/v1/memory/stats", host: str = "x", allowed: tuple[str, ...] = ()) -> None:
    check_head(method="GET", path=path, host=host, allowed_hosts=allowed)


@pytest.mark.parametrize("character", ["\x00", "\r", "\n", "\t", "\x1b", "\x7f"])
def test_a_control_character_in_a_path_leads_nowhere(character: str) -> None:
    """Not even as a part of a name that a route would take."""
    with pytest.raises(NotFound) as refused:
        check(path=f"/v1/models/a{character}b")
    assert character not in refused.value.message


def test_what_clients_send_passes() -> None:
    """Spaces, other alphabets, percent signs, any host."""
    check(path="/v1/models/caf\u00e9 na\u00efve", host="anything.example:99999")


@pytest.mark.parametrize("host", ["api.example.org", "API.example.org:8080", "api.example.org.", "[::1]:8080"])
def test_named_hosts_are_served(host: str) -> None:
    """Whatever their port and case."""
    check(host=host, allowed=("api.example.org", "[::1]"))


@pytest.mark.parametrize(
    "host", ["", "evil.example", "api.example.org.evil.example", "127.0.0.1", "api.example.org@evil"]
)
def test_other_hosts_are_misdirected(host: str) -> None:
    """As they are when a name of somebody else's suddenly leads here (DNS rebinding)."""
    with pytest.raises(MisdirectedRequest) as refused:
        check(host=host, allowed=("api.example.org",))
    assert refused.value.status == 421


def test_a_host_has_no_port_and_no_case() -> None:
    assert [host_name(host) for host in ("A.b:80", "[::1]:80", " a. ", "")] == ["a.b", "[::1]", "a", ""]
