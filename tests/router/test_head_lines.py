"""Lines of headers are let through where h11 would, and nowhere else."""

from __future__ import annotations

import h11
from hypothesis import given
from hypothesis import strategies as st

from router.head_lines import FRAMING, split_headers, with_lines

HEADER = st.tuples(st.binary(max_size=4), st.binary(max_size=6))
LIKELY = st.tuples(
    st.sampled_from([b"x-a", b"X-B", b"a b", b"", b"x:"]), st.text("a \t\r\n\x00\x01\x0b\xff").map(str.encode)
)


@given(st.lists(HEADER | LIKELY, max_size=3))
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


def test_what_says_how_a_message_ends_is_left_to_h11() -> None:
    headers = [(name.title(), b"1") for name in sorted(FRAMING)]
    framing, lines = split_headers([(b"x-a", b"1"), *headers, (b"x-b", b"two words")])
    assert framing == headers
    assert lines == b"x-a: 1\r\nx-b: two words\r\n"


def test_lines_stand_before_the_end_of_a_head() -> None:
    assert with_lines(b"HTTP/1.1 200 OK\r\na: 1\r\n\r\n", b"b: 2\r\n") == b"HTTP/1.1 200 OK\r\na: 1\r\nb: 2\r\n\r\n"
