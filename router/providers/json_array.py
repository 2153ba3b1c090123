"""A streamed JSON array, split from raw bytes as they arrive.

Gemini streams `[{...},\\r\\n{...}]` where a client does not ask for server-sent events. Owns where an element ends,
whatever the chunk borders, and what is needed to end an array that was cut. Must never change, copy or hold back the
bytes that a relay forwards; must never judge what an element says, so nothing that comes can make it raise.
"""

from __future__ import annotations

import re
from typing import Literal

from router.providers.cut_json import close_object
from router.sse import Event

_SPACE_ENDS = re.compile(rb"[^ \t\r\n]")
_STRUCTURE = re.compile(rb'["{}\[\]]')
_WORD_ENDS = re.compile(rb'["{}\[\], \t\r\n]')
_STRING_ENDS = re.compile(rb'["\\]')

_BEFORE: dict[str, bytes] = {"start": b"", "open": b"[", "comma": b"[{},", "element": b"[{}", "closed": b"[{}]"}

_Place = Literal["start", "open", "comma", "element", "closed"]


class JsonArraySplitter:
    """Incremental splitter of one array; see `router.providers.base.Splitter`. An event is a top-level element.

    An object where the array should begin is taken for an element too: it is how servers report an error. Above
    `event_bytes_max` bytes in one element, or when anything else comes, it gives up for good (`overflowed`). What is
    found, and whether it overflows, does not depend on the chunking.
    """

    def __init__(self, *, event_bytes_max: int) -> None:
        self.overflowed = False
        self._event_bytes_max = event_bytes_max
        self._place: _Place = "start"
        self._is_array = True
        self._element = bytearray()
        self._inside = False
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def feed(self, chunk: bytes) -> list[Event]:
        """The elements that this chunk completes, in order.

        `end` is one past an element's last byte. A bare number ends with the byte behind it, so its `end` may be 0.
        """
        events: list[Event] = []
        position = start = 0
        while position < len(chunk) and not self.overflowed:
            if not self._inside:
                position = start = self._find_element(chunk, position)
                continue
            position = self._find_end(chunk, position)
            self._keep(chunk[start:position])
            start = position
            if not self._inside and not self.overflowed:
                events.append(Event(name="", data=bytes(self._element), end=position))
                self._element.clear()
                self._place = "element"
        return events

    def pending(self) -> Event | None:
        """None: an element's last byte is its border."""

    def flush(self) -> Event | None:
        """None: the end of the stream completes nothing in an array."""

    def open_line(self) -> bytes | None:
        """What has been sent of the array, with `{}` for all whole elements; `close_array` reads it.

        None when nothing has been sent, and once overflowed.
        """
        if self.overflowed or (self._place == "start" and not self._inside):
            return None
        before = _BEFORE[self._place] if self._is_array else b""
        if not self._is_array and not self._inside:
            return b"{}"
        return before + bytes(self._element)

    def _find_element(self, chunk: bytes, position: int) -> int:
        """Step over one thing between elements, or to the beginning of one."""
        match = _SPACE_ENDS.search(chunk, position)
        if match is None:
            return len(chunk)
        byte = match.group()
        if self._place == "start":
            self._is_array = byte == b"["
            self._inside = byte == b"{"
            self.overflowed = not (self._is_array or self._inside)
            if self._is_array:
                self._place = "open"
                return match.end()
        elif self._place == "closed" or not self._is_array:
            self.overflowed = True
        elif byte in {b",", b"]"}:
            self._place = "comma" if byte == b"," else "closed"
            return match.end()
        else:
            self._inside = True
        return match.start()

    def _find_end(self, chunk: bytes, position: int) -> int:
        """Step to the end of the element, or of the chunk."""
        while position < len(chunk) and self._inside:
            if self._in_string:
                position = self._pass_string(chunk, position)
                continue
            match = (_STRUCTURE if self._depth else _WORD_ENDS).search(chunk, position)
            if match is None:
                return len(chunk)
            position = match.end()
            byte = match.group()
            if byte == b'"':
                self._in_string = True
            elif byte in b"{[":
                self._depth += 1
            elif self._depth > 1:
                self._depth -= 1
            else:
                self._inside = False
                # A word has ended before this byte; a `}` that nothing opened is a word of its own.
                if not self._depth and byte != b"}":
                    position = match.start()
                self._depth = 0
        return position

    def _pass_string(self, chunk: bytes, position: int) -> int:
        """Step over an escaped byte, or behind the next backslash or quote."""
        if self._escaped:
            self._escaped = False
            return position + 1
        match = _STRING_ENDS.search(chunk, position)
        if match is None:
            return len(chunk)
        self._escaped = match.group() == b"\\"
        self._in_string = self._escaped
        self._inside = self._in_string or self._depth > 0
        return match.end()

    def _keep(self, part: bytes) -> None:
        if len(self._element) + len(part) > self._event_bytes_max:
            self.overflowed = True
            self._element.clear()
        else:
            self._element += part


def close_array(open_line: bytes | None, element: bytes, *, override: bytes) -> bytes:
    """The bytes that end an array which was cut, with `element` as its last.

    Args:
        open_line: from `JsonArraySplitter.open_line`.
        override: a member, `"name":value`, for an element that was cut in two. As the last of its name it counts, so it
            can take the meaning out of the half.
    """
    if open_line is None:
        return b"[" + element + b"]"
    if open_line == b"[{}]":
        return b""
    is_array = open_line.startswith(b"[")
    partial = open_line.removeprefix(b"[").removeprefix(b"{},")
    if not is_array:
        # One object that is no array: its readers read one object.
        rest = close_object(partial, element[1:-1])
        return b"\n" + element if rest is None else rest
    if not partial:
        return element + b"]"
    rest = close_object(partial, override)
    return (rest or b"") + b"," + element + b"]"
