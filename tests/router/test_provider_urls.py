"""URLs of providers: what is read without httpx is what httpx reads, and the rest is left to it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.provider_urls import PORTS, ProviderAddress, address_of, target_of

PROJECT = Path(__file__).parents[2]

PLAIN = [
    "https://api.openai.com/v1",
    "http://127.0.0.1:11434/v1",
    "http://localhost:80",
    "https://host:443/a/b",
    "https://host:80/a",
    "http://a_b.example/v1/models/gemini-3:streamGenerateContent?alt=sse",
    "https://host/v1beta/models/a..b/.c/d.",
    "https://host?x=1/2",
    "https://host/a//b/",
]
NOT_PLAIN = [
    "https://EXAMPLE.com/v1",
    "https://bücher.example/v1",
    "https://[::1]:8443/v1",
    "https://name:word@host/v1",
    "https://host/a b/%20/ü?q=ü b#piece",
    "https://host/a/../b/./c",
    "https://host/a/..",
    "https://host:/a",
    "https://host:080/a",
    "https://host/`{}|\\^",
    'https://ho"st/',
    "https://host/?",
]


def read_by_httpx(url: str) -> tuple[ProviderAddress, bytes]:
    parsed = httpx.URL(url)
    port = parsed.port or PORTS[parsed.scheme]
    address = ProviderAddress(parsed.scheme, parsed.raw_host.decode(), port, parsed.netloc.decode())
    return address, parsed.raw_path


@pytest.mark.parametrize("url", [*PLAIN, *NOT_PLAIN])
def test_a_url_is_read_as_httpx_reads_it(url: str) -> None:
    assert (address_of(url), target_of(url)) == read_by_httpx(url)


PIECES = st.one_of(
    st.sampled_from(["/", ".", "..", ":", "@", "?", "#", "%", "%41", "ü", " ", "\\", "a", "A"]), st.text("a1.-:")
)
HOSTS = st.one_of(
    st.text("a1.-_", min_size=1), st.sampled_from(["1.2.3.4", "01.2.3.4", "1.2.3", "1.2.3.400", "[::1]", "Ü"])
)
ENDS = st.one_of(st.just(""), st.integers(0, 99_999).map(":{}".format), st.text("0123:a").map(":{}".format))


@given(st.sampled_from(["http", "https"]), HOSTS, ENDS, st.lists(PIECES).map("".join))
def test_any_url_is_read_or_refused_as_httpx_does(scheme: str, host: str, end: str, rest: str) -> None:
    url = f"{scheme}://{host}{end}/{rest}"
    try:
        expected = read_by_httpx(url)
    except httpx.InvalidURL:
        with pytest.raises(httpx.InvalidURL):
            address_of(url)
        with pytest.raises(httpx.InvalidURL):
            target_of(url)
    else:
        assert (address_of(url), target_of(url)) == expected


def test_other_schemes_are_refused() -> None:
    with pytest.raises(KeyError):
        address_of("gopher://host")


def test_plain_urls_are_read_without_httpx() -> None:
    """In a process of its own, since others have imported it here."""
    code = (
        "import sys; from router.provider_urls import address_of, target_of\n"
        f"for url in {PLAIN!r}: address_of(url), target_of(url)\n"
        "print('httpx' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
