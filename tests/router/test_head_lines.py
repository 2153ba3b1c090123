"""Lines of headers are let through where h11 would, and nowhere else."""

from __future__ import annotations

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router.head_lines import FRAMING, split_headers, with_lines

HEADER = st.tuples(st.binary(max_size=4), st.binary(max_size=6))
LIKELY = st.tuples(
    st.sampled_from([b"x-a", b"X-B", b"a b", b"", b"x:"]), st.text("a \t\r\n\x00\x01\x0b\xff").map(str.encode)
)
PIECES = st.lists(st.sampled_from([b"a", b": ", b":", b" ", b"\r\n", b"\r", b"\n", b"\t"]), max_size=8).map(b"".join)
SEVERAL = [
    (b"x-a", b"1\r\nset-cookie: a=b"),
    (b"x-a", b"1\r\n\r\nHTTP/1.1 200 OK\r\nx: y"),
    (b"x-a: 1\r\ntransfer-encoding", b"chunked"),
    (b"content-length: 5", b"1"),
]
"""Headers that would be lines, but not their own."""


@given(st.lists(HEADER | LIKELY | st.tuples(PIECES, PIECES), max_size=3))
@example([SEVERAL[0]])
@example([SEVERAL[2]])
def test_no_line_gets_out_that_h11_would_refuse(headers: list[tuple[bytes, bytes]]) -> None:
    framing, lines = split_headers(headers)
    if framing:
        return  # h11 gets to see those
    try:
        h11.Response(status_code=200, headers=headers)
        passes = True
    except h11.LocalProtocolError:
        passes = False
    assert not (lines is not None and not passes)
    if lines is not None:
        assert lines == b"".join(b"%b: %b\r\n" % header for header in headers)


@pytest.mark.parametrize("header", SEVERAL)
def test_a_header_is_never_several_lines(header: tuple[bytes, bytes]) -> None:
    """What a name or a value makes of itself would be a header, or a message, of its own."""
    assert split_headers([header]) == ([], None)
    assert split_headers([(b"x-b", b"2"), header, (b"x-c", b"3")])[1] is None


def test_an_honest_colon_is_left_to_h11() -> None:
    """It gets all of the headers then, and lets them pass."""
    headers = [(b"user-agent", b"a (b: c)")]
    assert split_headers(headers) == ([], None)
    assert h11.Response(status_code=200, headers=headers).headers.raw_items() == headers


def test_what_says_how_a_message_ends_is_left_to_h11() -> None:
    headers = [(name.title(), b"1") for name in sorted(FRAMING)]
    framing, lines = split_headers([(b"x-a", b"1"), *headers, (b"x-b", b"two words")])
    assert framing == headers
    assert lines == b"x-a: 1\r\nx-b: two words\r\n"


def test_lines_stand_before_the_end_of_a_head() -> None:
    assert with_lines(b"HTTP/1.1 200 OK\r\na: 1\r\n\r\n", b"b: 2\r\n") == b"HTTP/1.1 200 OK\r\na: 1\r\nb: 2\r\n\r\n"
