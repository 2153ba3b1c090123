"""Headers as the lines of a message's head: checked at once, for both ends that this server speaks HTTP/1.1 on.

h11 checks each name and each value by itself, which takes a tenth of a proxied request; what it has to know, because it
says where the body ends, it still gets. Must never let a line through that h11 would not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

HeaderPairs = list[tuple[bytes, bytes]]

FRAMING = frozenset({b"connection", b"content-length", b"host", b"transfer-encoding"})
"""What says how a message ends, what comes after it, and whom it is for; in lower case."""

_LINES = re.compile(
    rb"(?:[-!#$%&'*+.^_`|~0-9A-Za-z]+: (?:[^\x00\t\n\v\f\r ](?:[^\x00\n\v\f\r]*[^\x00\t\n\v\f\r ])?)?\r\n)*"
)


def split_headers(headers: Iterable[tuple[bytes, bytes]]) -> tuple[HeaderPairs, bytes | None]:
    """Headers of which h11 must know, and the lines of all others; None for these if one of them is none."""
    framing: HeaderPairs = []
    others: HeaderPairs = []
    for header in headers:
        (framing if header[0].lower() in FRAMING else others).append(header)
    lines = b"".join([b"%b: %b\r\n" % header for header in others])
    return framing, lines if _LINES.fullmatch(lines) else None


def with_lines(head: bytes, lines: bytes) -> bytes:
    """A head that is complete, with these lines put in before its end."""
    return head[:-2] + lines + b"\r\n"
