"""Bodies of answers are taken apart as h11 does it, however they are cut, and no end is seen where there is none."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.reply_bodies import HEAD_BYTES_MAX, Body, ChunkedBody, EndlessBody, SizedBody

PARTS = st.lists(st.binary(min_size=1, max_size=40), max_size=6)
SIZES = st.lists(st.integers(1, 30), max_size=30)


def chunked(parts: list[bytes], *, extension: bytes = b"", trailer: bytes = b"") -> bytes:
    """These parts as a body in chunks."""
    chunks = [b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts]
    return b"".join(chunks) + b"0\r\n" + trailer + b"\r\n"


def read(body: Body, data: bytes, sizes: list[int]) -> bytes:
    """What a body makes of data that comes in pieces of these sizes."""
    taken = b""
    while data and not (body.is_at_end or body.is_broken):
        size = sizes.pop() if sizes else len(data)
        taken += body.take(data[:size])
        data = data[size:]
    if body.is_at_end:
        body.rest += data
    return taken


def read_by_h11(data: bytes) -> tuple[bytes, bool, bool]:
    """What h11 makes of the same: the body, whether it ended, whether it broke."""
    wire = h11.Connection(h11.CLIENT)
    wire.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    wire.send(h11.EndOfMessage())
    wire.receive_data(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + data)
    taken = b""
    while True:
        try:
            event = wire.next_event()
        except h11.RemoteProtocolError:
            return taken, False, True
        if isinstance(event, h11.Data):
            taken += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return taken, True, False
        elif event is h11.NEED_DATA:
            return taken, False, False


@given(PARTS, SIZES, st.sampled_from([b"", b";a=b", b" \t"]), st.sampled_from([b"", b"a: b\r\n", b"a: b\r\nc:\r\n"]))
def test_chunks_are_joined_however_they_are_cut(
    parts: list[bytes], sizes: list[int], extension: bytes, trailer: bytes
) -> None:
    body = ChunkedBody()
    taken = read(body, chunked(parts, extension=extension, trailer=trailer) + b"next", sizes)
    assert (taken, body.is_at_end, body.is_broken) == (b"".join(parts), True, False)
    assert body.rest == b"next"


@given(PARTS, SIZES, st.integers(0, 400), st.binary(min_size=1, max_size=3))
def test_what_is_damaged_is_no_end_where_h11_sees_none(
    parts: list[bytes], sizes: list[int], place: int, damage: bytes
) -> None:
    """And gives no byte that h11 does not give."""
    whole = chunked(parts)
    place %= len(whole)
    damaged = whole[:place] + damage + whole[place + len(damage) :]
    body = ChunkedBody()
    taken = read(body, damaged, sizes)
    by_h11, ended, broke = read_by_h11(damaged)
    assert by_h11.startswith(taken)
    assert not (body.is_at_end and not ended)
    assert broke or taken == by_h11


@pytest.mark.parametrize(
    "damaged",
    [
        b"5\r\nhelloX\n0\r\n\r\n",
        b"5\r\nhello\r\n-1\r\n\r\n",
        b"g\r\n",
        b"5 5\r\nhello",
        b"\r\n5\r\n",
        b"0\r\nno field\r\n\r\n",
        b"0\r\na b: c\r\n\r\n",
        b"0\r\n a: b\r\n\r\n",
        b"0\r\na: \x00\r\n\r\n",
    ],
)
def test_what_is_no_chunk_breaks_the_body(damaged: bytes) -> None:
    body = ChunkedBody()
    body.take(damaged)
    assert body.is_broken
    assert not body.is_at_end


def test_what_came_before_the_damage_is_still_given() -> None:
    body = ChunkedBody()
    assert body.take(b"5\r\nhello\r\nxyz\r\n") == b"hello"
    assert body.is_broken


@pytest.mark.parametrize("head", [b"5;" + b"x" * HEAD_BYTES_MAX, b"0\r\na:" + b"x" * HEAD_BYTES_MAX])
def test_a_head_without_an_end_breaks_the_body(head: bytes) -> None:
    body = ChunkedBody()
    body.take(head)
    assert body.is_broken


@given(st.binary(max_size=60), SIZES)
def test_a_body_of_known_length_ends_there(content: bytes, sizes: list[int]) -> None:
    body = SizedBody(len(content))
    assert read(body, content + b"more", sizes) == content
    assert body.is_at_end
    assert body.rest == b"more"


def test_a_body_without_a_length_ends_with_its_connection() -> None:
    body = EndlessBody()
    assert body.take(b"hello") == b"hello"
    assert (body.is_at_end, body.ends_with_connection) == (False, True)
