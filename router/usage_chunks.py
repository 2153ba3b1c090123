"""Takes the token counts out of a streamed Chat Completions reply whose client did not ask for them.

Owns one event: the chunk with `"choices": []` and a `usage` that OpenAI-style providers put before `[DONE]`. Every
other byte goes through as it came, and as soon as it is clear that it is not part of that event: a chunk of the reply
shows it by the first character in its `choices`. Must never hold back more than `USAGE_EVENT_BYTES_MAX` bytes.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any, Literal

import msgspec

USAGE_EVENT_BYTES_MAX = 16 * 1024
"""More than any provider's counts take. Larger events are not held back, and never taken out."""

_LINE_END = re.compile(rb"\r\n|\r|\n")
_HAS_CHOICE = re.compile(rb'"choices"\s*:\s*(?:\[\s*[^\s\]]|[^\s\[])')
_DATA = b"data:"
_MAY_PRECEDE_DATA = (b"event:", b"id:", b"retry:", b":")

_Fate = Literal["out", "held", "gone"]


class _UsageChunk(msgspec.Struct):
    choices: list[Any]
    usage: dict[str, Any] | None = None


_DECODER = msgspec.json.Decoder(_UsageChunk)


class UsageFilter:
    """Incremental filter of one reply. Feed it every chunk, in order, then `end`.

    Attributes:
        usage: the counts that were taken out, as the provider gave them; None until then.
    """

    def __init__(self) -> None:
        self.usage: dict[str, Any] | None = None
        self._head = bytearray()  # whole lines of an event whose data has yet to come
        self._line = bytearray()  # the beginning of a line that is held back
        self._let_go = False  # the rest of this event passes
        self._within_line = False  # part of the current line has passed
        self._after_usage = False  # the blank line of the event that was taken out has yet to come
        self._after_cr: _Fate | None = None

    def feed(self, chunk: bytes) -> bytes:
        """What may go out of all that has come so far."""
        out = bytearray()
        start = self._second_half_of_line_end(chunk, out)
        fate: _Fate = "out"
        for match in _LINE_END.finditer(chunk, start):
            fate = self._end_line(chunk[start : match.end()], out)
            start = match.end()
        if start < len(chunk):
            self._continue_line(chunk[start:], out)
        elif chunk.endswith(b"\r"):
            self._after_cr = fate
        return bytes(out)

    def end(self) -> bytes:
        """What is left when the stream has ended."""
        last = b"" if self._is_usage(bytes(self._line)) else bytes(self._head + self._line)
        self._head.clear()
        self._line.clear()
        return last

    def _second_half_of_line_end(self, chunk: bytes, out: bytearray) -> int:
        """Send a LF after the CR that ended the last chunk, and return where the next line begins."""
        fate = self._after_cr
        if fate is None or not chunk:
            return 0
        self._after_cr = None
        if not chunk.startswith(b"\n"):
            return 0
        if fate == "out":
            out += b"\n"
        elif fate == "held":
            self._head += b"\n"
        return 1

    def _end_line(self, piece: bytes, out: bytearray) -> _Fate:
        """Take in the (rest of a) line with its line end."""
        if self._let_go:
            out += piece
            self._let_go = self._within_line or bool(piece.strip(b"\r\n"))
            self._within_line = False
            return "out"
        line = bytes(self._line) + piece
        self._line.clear()
        content = line.rstrip(b"\r\n")
        after_usage, self._after_usage = self._after_usage, False
        if not content and after_usage:
            return "gone"
        if self._is_usage(content):
            self._head.clear()
            self._after_usage = True
            return "gone"
        self._head += line
        if content.startswith(_MAY_PRECEDE_DATA) and len(self._head) <= USAGE_EVENT_BYTES_MAX:
            if len(self._head) > len(line) or not content.startswith(b":"):
                return "held"
        else:
            self._let_go = bool(content)
        self._release(out)
        return "out"

    def _continue_line(self, piece: bytes, out: bytearray) -> None:
        """Take in the beginning of a line, or more of it."""
        if self._let_go:
            out += piece
            self._within_line = True
            return
        self._line += piece
        if self._may_become_usage():
            return
        self._head += self._line
        self._line.clear()
        self._let_go = self._within_line = True
        self._after_usage = False
        self._release(out)

    def _release(self, out: bytearray) -> None:
        out += self._head
        self._head.clear()

    def _may_become_usage(self) -> bool:
        if len(self._head) + len(self._line) > USAGE_EVENT_BYTES_MAX:
            return False
        if not self._line.startswith(_DATA):
            return True  # a few bytes of a field's name, or a line that has to be whole to be understood
        value = bytes(self._line[len(_DATA) :]).lstrip(b" ")
        return value[:1] in {b"", b"{"} and not _HAS_CHOICE.search(value)

    def _is_usage(self, content: bytes) -> bool:
        """Whether this line is the data of the event; keeps the counts if so."""
        if not content.startswith(_DATA) or len(content) > USAGE_EVENT_BYTES_MAX:
            return False
        if b'"usage"' not in content or _HAS_CHOICE.search(content):
            return False
        try:
            chunk = _DECODER.decode(content[len(_DATA) :])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        if chunk.choices or chunk.usage is None:
            return False
        self.usage = chunk.usage
        return True


class WithoutUsage:
    """The chunks of a reply without that event, as an async iterator; what breaks the reply comes through.

    Attributes:
        filter: knows the counts once they have come.
    """

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self.filter = UsageFilter()
        self._chunks = chunks
        self._ended = False

    def __aiter__(self) -> WithoutUsage:
        return self

    async def __anext__(self) -> bytes:
        while not self._ended:
            try:
                passed = self.filter.feed(await anext(self._chunks))
            except StopAsyncIteration:
                self._ended = True
                passed = self.filter.end()
            if passed:
                return passed
        raise StopAsyncIteration
