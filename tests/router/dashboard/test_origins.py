"""Which pages are our own, as far as a browser tells."""

from __future__ import annotations

import pytest

from router.dashboard.origins import is_over_tls, is_own_page

HOSTS = ("memory.example",)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": "127.0.0.1:8080"},
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
        {"host": "127.0.0.1:8080", "origin": "http://127.0.0.1:8080"},
        {"host": "[::1]:8080", "origin": "http://[::1]:8080"},
        {"host": "Example.org", "origin": "https://example.org"},
        {"host": "example.org:443", "origin": "https://example.org"},
        {"host": "10.0.0.1:8080", "origin": "https://memory.example"},
    ],
)
def test_it_is_our_own(headers: dict[str, str]) -> None:
    assert is_own_page(headers, hosts=HOSTS)


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "host": "a", "origin": "http://a"},
        {"sec-fetch-site": ""},
        {"host": "127.0.0.1:8080", "origin": "http://127.0.0.1:8081"},
        {"host": "127.0.0.1:8080", "origin": "http://localhost:8080"},
        {"host": "example.org", "origin": "http://example.org:8080"},
        {"host": "example.org", "origin": "https://example.org.evil.example"},
        {"host": "example.org", "origin": "https://evil.example@example.org"},
        {"host": "example.org", "origin": "file://example.org"},
        {"host": "example.org", "origin": "null"},
        {"host": "example.org", "origin": ""},
        {"host": "", "origin": "http://"},
        {"origin": "http://a:b"},
        {"host": "a:b", "origin": "http://a"},
        {"origin": "http://["},
        {"host": "memory.example.evil", "origin": "https://x.memory.example"},
    ],
)
def test_it_is_not(headers: dict[str, str]) -> None:
    assert not is_own_page(headers, hosts=HOSTS)


def test_tls_is_what_the_browser_speaks() -> None:
    assert is_over_tls("https", {})
    assert is_over_tls("http", {"origin": "https://memory.example"})
    assert not is_over_tls("http", {"origin": "http://memory.example", "x-forwarded-proto": "https"})
