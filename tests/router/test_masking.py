"""A provider's key never comes back: found in every spelling and however it is cut, and nothing else is touched."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.provider_settings import Secret
from router.headers import HeaderList, request_headers
from router.masking import SHOWN_BYTES, KeyMask, mask_for, mask_headers
from router.providers.routing import Credential
from tests.fakes.provider import rechunk

KEY = "sk-proj-7Qw+e/rt9ZxC4vBn"
SPELLINGS = [
    KEY.encode(),
    quote(KEY, safe="").encode(),
    KEY.replace("/", "\\/").encode(),
    base64.b64encode(KEY.encode()).rstrip(b"="),
    base64.urlsafe_b64encode(KEY.encode()).rstrip(b"="),
]
WORDS = [b"data: ", b"sk-", b"sk-proj-", b"sk-proj-7Qw", b"\n\n", b"*", b"x"]


def sent(key: str, credential: Credential = "bearer") -> HeaderList:
    return request_headers((), provider="openai", api_key=Secret(key), credential=credential)


def fed(mask: KeyMask, chunks: Iterable[bytes]) -> bytes:
    return b"".join([*map(mask.feed, chunks), mask.end()])


@pytest.mark.parametrize("credential", ["bearer", "x-api-key", "x-goog-api-key"])
def test_a_key_that_an_error_quotes_is_blotted_out(credential: Credential) -> None:
    """As many asterisks as it has characters; a key that is hardly one would take words with it."""

    def masked(body: bytes, key: str) -> bytes:
        return mask_for(sent(key, credential), status=401).whole(body)

    assert masked(b"Wrong key: sk-12345678.", "sk-12345678") == b"Wrong key: ***********."
    assert masked(b"Wrong key: sk-1.", "sk-1") == b"Wrong key: sk-1."
    assert masked(b"No key.", "") == b"No key."
    quoting = [("x-debug", "sk-12345678 \xe4"), ("retry-after", "1")]
    mask = mask_for(sent("sk-12345678", credential), status=401)
    assert mask_headers(quoting, mask) == [("x-debug", "*********** \xe4"), quoting[1]]


@pytest.mark.parametrize("spelling", SPELLINGS, ids=["plain", "url", "json", "base64", "base64url"])
def test_every_spelling_of_a_key_is_found(spelling: bytes) -> None:
    """In errors and in replies."""
    for status in (200, 401):
        mask = mask_for(sent(KEY), status=status)
        assert mask.whole(b"<" + spelling + b">") == b"<" + b"*" * len(spelling) + b">"


@pytest.mark.parametrize("key", ["not-needed", "sk-no-key-required", "ollama", "12345678901234567890"])
def test_a_stand_in_for_a_key_may_be_said_in_a_reply(key: str) -> None:
    """Servers that need no key are given words; a model that says them is not changed."""
    assert mask_for(sent(key), status=200).whole(key.encode()) == key.encode()


@given(
    parts=st.lists(st.sampled_from([*WORDS, *SPELLINGS]) | st.binary(max_size=6), max_size=12),
    sizes=st.lists(st.integers(1, 9), max_size=60),
)
@example(parts=[KEY.encode()], sizes=[1] * 60)
@example(parts=[b"sk-proj-7Qw", KEY.encode()], sizes=[12, 3])
def test_however_a_body_is_cut_the_key_is_found_and_all_else_stays(parts: list[bytes], sizes: list[int]) -> None:
    """Besides the few bytes that go out before it is known what they begin."""
    body = b"".join(parts)
    whole = mask_for(sent(KEY), status=200).whole(body)
    pieces = fed(mask_for(sent(KEY), status=200), rechunk(body, sizes))

    assert len(pieces) == len(body)
    assert not any(spelling in pieces for spelling in SPELLINGS)
    differing = [at for at in range(len(body)) if pieces[at] != whole[at]]
    assert all(pieces[at] == body[at] for at in differing)
    run = 0
    for at in range(len(body)):
        run = run + 1 if at in set(differing) else 0
        assert run <= SHOWN_BYTES


@given(body=st.binary(max_size=200), sizes=st.lists(st.integers(1, 20), max_size=40))
def test_a_body_without_the_key_comes_through_byte_for_byte(body: bytes, sizes: list[int]) -> None:
    assert fed(mask_for(sent(KEY), status=200), rechunk(body, sizes)) == body


def test_only_what_may_be_the_middle_of_a_key_is_held() -> None:
    """Its first bytes go out, and so does everything once it is clear that it is no key."""
    mask = mask_for(sent(KEY), status=200)

    assert mask.feed(b"data: ask-") == b"data: ask-"
    assert mask.feed(b"ing\n\n") == b"ing\n\n"
    assert mask.feed(b"the sk-proj-7") == b"the sk-p"
    assert mask.feed(b"Qx") == b"roj-7Qx"
    assert mask.feed(b"sk-proj-") == b"sk-p"
    assert mask.end() == b"roj-"
    assert mask.end() == b""


def test_without_a_key_nothing_is_looked_for() -> None:
    """An empty mask is no work and no change."""
    mask = mask_for([], status=200)
    assert (mask.feed(b"sk-proj-"), mask.end(), mask.whole(b"x")) == (b"sk-proj-", b"", b"x")
