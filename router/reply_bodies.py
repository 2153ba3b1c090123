"""Where the body of a provider's answer ends, and what of each read belongs to it.

h11 reads the head; a body it would take apart event by event, which costs as much for each chunk of a stream as all the
rest of passing it on. Pure: bytes in, bytes out. Must never take for the end what is none: a chunk that is not as long
as it says is an error, however it is cut.
"""

from __future__ import annotations

import re
from typing import Protocol

from router.head_lines import NAME

HEAD_BYTES_MAX = 100 * 1024
"""Of a chunk's own head, and of what follows the last one."""

_SIZE = rb"([0-9A-Fa-f]{1,20})[ \t]*(?:;[^\r\n]*)?\r\n"
_FIRST_HEAD = re.compile(_SIZE)
_NEXT_HEAD = re.compile(rb"\r\n" + _SIZE)
_TRAILER = re.compile(rb"(?:" + NAME + rb":[^\x00\n\v\f\r]*\r?\n)*\r?\n")
_BLANK_LINE = re.compile(rb"(?:\A|\n)\r?\n")


class Body(Protocol):
    """A body that is being read.

    Attributes:
        is_at_end: all of it has been taken.
        is_broken: what follows is no part of a body.
        ends_with_connection: when the provider hangs up now, the body is complete.
        rest: what came behind the end.
    """

    is_at_end: bool
    is_broken: bool
    ends_with_connection: bool
    rest: bytes

    def take(self, data: bytes) -> bytes:
        """What of these bytes, which came next, is the body's. Perhaps nothing."""


class SizedBody:
    """A body whose length is known."""

    is_broken = False
    ends_with_connection = False

    def __init__(self, length: int) -> None:
        self.is_at_end = not length
        self.rest = b""
        self._left = length

    def take(self, data: bytes) -> bytes:
        """As of any body."""
        if len(data) > self._left:
            data, self.rest = data[: self._left], data[self._left :]
        self._left -= len(data)
        self.is_at_end = not self._left
        return data


class EndlessBody:
    """A body that ends when the provider hangs up."""

    is_at_end = is_broken = False
    ends_with_connection = True
    rest = b""

    def take(self, data: bytes) -> bytes:
        """All of it."""
        return data


class ChunkedBody:
    """A body in chunks (RFC 9112, section 7.1). Their extensions, and the trailer behind the last one, are dropped."""

    ends_with_connection = False

    def __init__(self) -> None:
        self.is_at_end = self.is_broken = False
        self.rest = b""
        self._left = 0
        self._head = _FIRST_HEAD
        self._is_in_trailer = False
        self._kept = b""

    def take(self, data: bytes) -> bytes:
        """As of any body."""
        if self._kept:
            data, self._kept = self._kept + data, b""
        parts: list[bytes] = []
        at = 0
        while not self._is_in_trailer:
            if self._left:
                part = data[at : at + self._left]
                parts.append(part)
                at += len(part)
                self._left -= len(part)
                if self._left:
                    return b"".join(parts)
            head = self._head.match(data, at)
            if head is None:
                # The line break that ends the chunk before is the first of a head's.
                self._keep(data[at:], is_wrong=data.find(b"\n", at + (2 if self._head is _NEXT_HEAD else 0)) != -1)
                return b"".join(parts)
            self._head = _NEXT_HEAD
            self._left = int(head[1], 16)
            self._is_in_trailer = not self._left
            at = head.end()
        self._end(data[at:])
        return b"".join(parts)

    def _end(self, data: bytes) -> None:
        trailer = _TRAILER.match(data)
        if trailer is None:
            self._keep(data, is_wrong=_BLANK_LINE.search(data) is not None)
            return
        self.is_at_end = True
        self.rest = data[trailer.end() :]

    def _keep(self, data: bytes, *, is_wrong: bool) -> None:
        """Wait for what is missing."""
        self.is_broken = is_wrong or len(data) > HEAD_BYTES_MAX
        self._kept = b"" if self.is_broken else data
