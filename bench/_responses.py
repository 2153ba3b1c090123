"""Reads HTTP/1.1 responses from bytes, as cheaply as Python can, for the generator of load.

Owns where a response ends, and the counting of server-sent events. Never touches a socket or a clock. Takes what any
server sends: a length, chunks, or a body until the connection closes; interim responses (1xx) are passed over.
"""

from __future__ import annotations

import re

_FIELDS = re.compile(rb"\r\n(content-length|transfer-encoding|connection):[ \t]*([^\r]*)", re.IGNORECASE)
_EVENT = b"data:"
STAMP = re.compile(rb"at=(\d+);")
"""When the mock provider sent a chunk, in nanoseconds of the monotonic clock that all processes of a machine share."""

TAIL_BYTES = 40
"""More than a stamp or the beginning of an event has."""


class BadResponse(Exception):
    """What came is no HTTP/1.1 response."""


class ResponseReader:
    """One response after the other from one connection.

    Attributes:
        status: of the response being read; 0 before its head is whole.
        began: whether a byte of its body has come; an empty body begins with its head.
        closes: whether the connection ends with it.
        head: of the response, without the empty line behind it.
        events: server-sent events so far, where events are counted.
        stamps_ns: the stamps of the mock provider that the last `feed` brought.
    """

    __slots__ = (
        "_buffer",
        "_chunked",
        "_counts",
        "_left",
        "_tail",
        "began",
        "closes",
        "events",
        "head",
        "stamps_ns",
        "status",
    )

    def __init__(self, *, counts_events: bool) -> None:
        self._counts = counts_events
        self.reset()

    def reset(self) -> None:
        """Begin a new response."""
        self.status = 0
        self.began = self.closes = False
        self.events = 0
        self.head = b""
        self.stamps_ns: list[int] = []
        self._buffer = b""
        self._tail = b""
        self._chunked = False
        self._left = -1  # bytes of the body, or of the current chunk with its line end; -1 unknown

    def feed(self, data: bytes) -> bool:
        """Take bytes; whether the response is whole.

        Raises:
            BadResponse: the bytes cannot be understood.
        """
        if self._buffer:
            data, self._buffer = self._buffer + data, b""
        if self.stamps_ns:
            self.stamps_ns = []
        while self.status < 200:  # no head yet, or that of an interim response
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = data
                return False
            self._read_head(data[:end])
            data = data[end + 4 :]
        if self._chunked:
            self.began = self.began or bool(data)
            return self._feed_chunks(data)
        self.began = self.began or bool(data) or self._left == 0
        if self._counts and data:
            self._count(data)
        if self._left < 0:
            return False  # it ends with the connection
        self._left -= len(data)
        if self._left < 0:
            raise BadResponse("more came than was announced")
        return self._left == 0

    def end(self) -> bool:
        """The connection was closed; whether that ended the response as it should."""
        return self.status >= 200 and not self._chunked and self._left < 0

    def _read_head(self, head: bytes) -> None:
        if not head.startswith(b"HTTP/1.") or not head[9:12].isdigit():
            raise BadResponse(head[:40].decode("latin-1"))
        self.status, self.head = int(head[9:12]), head
        self._left, self._chunked = -1, False
        for name, value in _FIELDS.findall(head):
            kind = name[0] | 0x20
            if kind == ord("t"):
                self._chunked = value.lower().endswith(b"chunked")
            elif name[2] | 0x20 == ord("n") and name[3] | 0x20 == ord("t"):
                self._left = int(value)
            else:
                self.closes = value.lower() == b"close"
        if self.status in {204, 304}:
            self._left, self._chunked = 0, False
        if self._chunked:
            self._left = -1
        self.closes = self.closes or (self._left < 0 and not self._chunked)

    def _feed_chunks(self, data: bytes) -> bool:
        position, payload, whole = 0, [], False
        while position < len(data):
            if self._left < 0:
                end = data.find(b"\r\n", position)
                if end < 0:
                    break
                size = _chunk_size(data[position:end])
                if size == 0:
                    whole = data.find(b"\r\n\r\n", end) >= 0  # behind the last size, or behind trailers
                    break
                self._left, position = size + 2, end + 2
            taken = min(self._left, len(data) - position)
            payload.append(data[position : position + min(taken, max(0, self._left - 2))])
            position += taken
            self._left = self._left - taken or -1
        self._buffer = b"" if whole else data[position:]
        if self._counts and payload:
            self._count(b"".join(payload))
        return whole

    def _count(self, data: bytes) -> None:
        if self._tail:
            data = self._tail + data
        self.events += data.count(_EVENT)
        stamps = STAMP.findall(data)
        if stamps:
            self.stamps_ns += [int(stamp) for stamp in stamps]
        # What may be the beginning of an event or of a stamp is looked at again with what follows it.
        event = data.rfind(_EVENT)
        cut = max(event + len(_EVENT) if event >= 0 else 0, data.rfind(b";") + 1)
        self._tail = data[max(cut, len(data) - TAIL_BYTES) :]


def _chunk_size(line: bytes) -> int:
    try:
        return int(line.partition(b";")[0], 16)
    except ValueError:
        raise BadResponse("no size of a chunk: " + line[:40].decode("latin-1")) from None
