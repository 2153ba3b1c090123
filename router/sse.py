"""Server-sent events, split from raw bytes as they arrive.

Owns the framing: where an event ends, whatever the chunk borders. Line ends are CR, LF and CRLF and nothing else, so
that U+2028, U+2029 or U+0085 inside a JSON string cannot cut an event in two. Must never change, copy or hold back the
bytes that a relay forwards: it only says what has become complete within the chunk just fed, and where.

The field rules are those of the HTML standard, section "Server-sent events", except that `id` and `retry` are ignored
(no provider uses them).
"""

from __future__ import annotations

import re

import msgspec

_LINE_END = re.compile(rb"\r\n|\r|\n")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_DATA = b"data: "


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event that has become complete.

    Attributes:
        name: the value of its last `event:` line, or "".
        data: its `data:` lines, joined by LF.
        end: offset within the chunk just fed, one past the line end that completed it. A LF that completes a CRLF in
            the next chunk belongs to no event.
    """

    name: str
    data: bytes
    end: int


class EventSplitter:
    """Incremental splitter of one stream. Feed it every chunk, in order.

    Above `event_bytes_max` bytes in one event (or one comment line) it gives up for good: `overflowed` turns true, its
    buffers are dropped and `feed` finds nothing more. The stream itself is not harmed; its meaning is unknown from
    there on. Whether and where it overflows does not depend on the chunking.
    """

    def __init__(self, *, event_bytes_max: int) -> None:
        self.overflowed = False
        self._event_bytes_max = event_bytes_max
        self._line = bytearray()
        self._data: list[bytes] = []
        self._name = ""
        self._event_bytes = 0
        self._after_cr = False
        self._at_start = True

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that this chunk completes, in order. An empty chunk changes nothing."""
        events: list[Event] = []
        if self.overflowed or not chunk:
            return events
        if self._is_one_event(chunk):
            self._at_start = False
            return [Event(name="", data=chunk[len(_DATA) : -2], end=len(chunk))]
        start = 1 if self._after_cr and chunk[0] == 0x0A else 0
        self._after_cr = chunk[-1] == 0x0D
        for match in _LINE_END.finditer(chunk, start):
            line = chunk[start : match.start()]
            start = match.end()
            if self._line:
                line = bytes(self._line) + line
                self._line.clear()
            if self._is_too_large(len(line)):
                return events
            event = self._end_line(line, end=start)
            if event is not None:
                events.append(event)
        self._line += chunk[start:]
        self._is_too_large(len(self._line))
        return events

    def pending(self) -> Event | None:
        """The event whose lines are complete but whose blank line has yet to come, if the chunk ended just there.

        A client that reads line by line has it in hand already, so a relay must know what it says.
        """
        if self._line or not self._data:
            return None
        return Event(name=self._name, data=b"\n".join(self._data), end=0)

    def flush(self) -> Event | None:
        """What the end of the stream completes: an event without its last line end or blank line."""
        if self._line:
            self._end_line(bytes(self._line), end=0)
            self._line.clear()
        return self._dispatch(end=0)

    def open_line(self) -> bytes | None:
        """None on an event border; else the bytes of the line in progress, b"" when only the blank line is missing."""
        if self._line or self._data or self._name:
            return bytes(self._line)
        return None

    def _is_one_event(self, chunk: bytes) -> bool:
        """Whether this is all of one event, written as nearly all providers write every event, and nothing else."""
        return (
            chunk.startswith(_DATA)
            and chunk.find(b"\n") == len(chunk) - 2
            and chunk.endswith(b"\n")
            and b"\r" not in chunk
            and not (self._line or self._data or self._name or self._after_cr or self._event_bytes)
            and len(chunk) - 2 <= self._event_bytes_max
        )

    def _is_too_large(self, line_bytes: int) -> bool:
        if self._event_bytes + line_bytes > self._event_bytes_max:
            self.overflowed = True
            self._line.clear()
            self._data = []
            self._name = ""
        return self.overflowed

    def _end_line(self, line: bytes, *, end: int) -> Event | None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if not line:
            return self._dispatch(end=end)
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._event_bytes += len(line)
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
            self._event_bytes += len(line)
        return None

    def _dispatch(self, *, end: int) -> Event | None:
        data, name = self._data, self._name
        self._data, self._name, self._event_bytes = [], "", 0
        return Event(name=name, data=b"\n".join(data), end=end) if data else None
