"""Responses end where HTTP says so, however they are cut, and events are counted once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench._provider_replies import CHAT, answer, random_stream
from bench._responses import BadResponse, ResponseReader


def fed(data: bytes, sizes: list[int]) -> tuple[ResponseReader, list[int], bool]:
    """A reader that got the bytes in pieces, all stamps that it found, and whether the last piece was the end."""
    reader, stamps, whole = ResponseReader(counts_events=True), [], False
    while data:
        assert not whole, "it ended too early"
        size = sizes.pop(0) if sizes else len(data)
        whole = reader.feed(data[:size])
        stamps += reader.stamps_ns
        data = data[size:]
    return reader, stamps, whole


@given(st.lists(st.integers(1, 300), max_size=60))
def test_a_stream_is_read_however_it_is_cut(sizes: list[int]) -> None:
    burst = answer("burst-5", stream=True, in_messages=False)
    assert isinstance(burst, bytes)
    reader, stamps, whole = fed(burst, sizes)
    assert whole
    assert (reader.status, reader.events, len(stamps), len(set(stamps))) == (200, 7, 5, 1)
    assert stamps[0] > 0


@given(st.lists(st.integers(1, 300), max_size=60))
def test_a_reply_with_a_length_is_read_however_it_is_cut(sizes: list[int]) -> None:
    reader, _, whole = fed(CHAT, sizes)
    assert whole
    assert (reader.status, reader.closes) == (200, False)


def test_events_count_once_where_chunks_cut_them() -> None:
    events = b"".join(random_stream(3)).count(b"data:")
    script = answer("random-3", stream=True, in_messages=False)
    assert not isinstance(script, bytes)
    data = b"".join(part for part in script if isinstance(part, bytes))
    assert fed(data, [1] * len(data))[0].events == events


def test_an_interim_response_and_trailers_are_passed_over() -> None:
    data = (
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
        b"HTTP/1.1 429 Too Many\r\ntransfer-encoding: Chunked\r\nConnection: close\r\n\r\n"
        b"3;x=y\r\nabc\r\n0\r\nDigest: 1\r\n\r\n"
    )
    reader, _, whole = fed(data, [60, 40, 30])
    assert (whole, reader.status, reader.closes) == (True, 429, True)


def test_a_body_may_end_with_the_connection() -> None:
    reader = ResponseReader(counts_events=True)
    assert not reader.feed(b"HTTP/1.0 200 OK\r\n\r\ndata: 1\n\n")
    assert (reader.end(), reader.events, reader.closes) == (True, 1, True)


@pytest.mark.parametrize(
    "cut", [b"", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", CHAT[:-1]]
)
def test_a_cut_response_is_not_whole(cut: bytes) -> None:
    reader = ResponseReader(counts_events=False)
    assert not (cut and reader.feed(cut))
    assert not reader.end()


def test_a_response_without_a_body_begins_and_ends_with_its_head() -> None:
    reader = ResponseReader(counts_events=False)
    assert reader.feed(b"HTTP/1.1 204 No Content\r\n\r\n")
    reader.reset()
    assert reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert reader.began


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ],
)
def test_what_is_no_response_is_an_error(data: bytes) -> None:
    with pytest.raises(BadResponse):
        ResponseReader(counts_events=False).feed(data)
