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

NAME = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
"""Pattern of a header's name, a `token` (RFC 9110, section 5.6.2)."""

_LINES = re.compile(rb"(?:" + NAME + rb": (?:[^\x00\t\n\v\f\r ](?:[^\x00\n\v\f\r]*[^\x00\t\n\v\f\r ])?)?\r\n)*")


def split_headers(headers: Iterable[tuple[bytes, bytes]]) -> tuple[HeaderPairs, bytes | None]:
    """Headers of which h11 must know, and the lines of all others; None where h11 has to judge these, too."""
    framing: HeaderPairs = []
    others: HeaderPairs = []
    for header in headers:
        (framing if header[0].lower() in FRAMING else others).append(header)
    lines = b"".join([b"%b: %b\r\n" % header for header in others])
    return framing, lines if _are_lines(lines, len(others)) else None


def _are_lines(lines: bytes, count: int) -> bool:
    """Whether these are the lines of so many headers, and each ends and has its colon where the header has it.

    The pattern alone would take what one name or value makes of itself for several lines: `1\\r\\nset-cookie: a`. A
    value with ": " in it is honest; to refuse it costs no more than that h11 looks at all of them.
    """
    return lines.count(b"\r\n") == lines.count(b": ") == count and _LINES.fullmatch(lines) is not None


def with_lines(head: bytes, lines: bytes) -> bytes:
    """A head that is complete, with these lines put in before its end."""
    return head[:-2] + lines + b"\r\n"
