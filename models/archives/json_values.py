"""A long JSON text as its values, one after the other, without ever holding all of it.

Owns the split of a top-level array, or of values that follow each other, into the bytes of each value. It looks at
brackets and quotes alone; whether a value is JSON is found out when it is decoded. Must stay linear in the length of
the file, whatever it contains, and must never hold more than one value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Protocol

import msgspec

from models.archives.entries import ArchiveError
from models.sizes import MIB

CHUNK_BYTES = MIB
VALUE_BYTES_MAX = 128 * MIB
"""Of one conversation. The longest that people report of are below 20 MB."""

_BOM = b"\xef\xbb\xbf"
# Up to the next bracket outside of strings. Possessive throughout: with one way to read it, there is nothing to go back
# to.
_TO_BRACKET = re.compile(
    rb'[^"\[\]{}]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^"\[\]{}]*+)*+[\[\]{}]',
    re.DOTALL,
)
_OPENING = b"[{"
_BETWEEN = b" \t\r\n,"


class Readable(Protocol):
    """Whatever bytes are read from."""

    def read(self, size: int, /) -> bytes:
        """At most this many bytes, b"" at the end."""
        ...


def json_values(stream: Readable, *, value_bytes_max: int = VALUE_BYTES_MAX) -> Iterator[bytes]:
    """The elements of a top-level array, or the values that stand one behind the other, each as its bytes.

    What stands between them and is neither object nor array comes as it is, too: to be found wrong by its decoder.

    Raises:
        ArchiveError: the text ends inside a value, or a value is longer than `value_bytes_max`.
    """
    return _Splitter(stream, value_bytes_max=value_bytes_max).values()


def decode_json(data: bytes) -> Any:
    """One value.

    Raises:
        ValueError: it is not JSON, or nested too deeply to be read.
    """
    try:
        return msgspec.json.decode(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:  # lone surrogates, which exports do contain, are JSON for the standard library only
        return json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError:
        raise ValueError("not valid JSON") from None


class _Splitter:
    """Where the split is: what of the text is held, and how deep its next byte is."""

    def __init__(self, stream: Readable, *, value_bytes_max: int) -> None:
        self._stream = stream
        self._value_bytes_max = value_bytes_max
        self._held = b""
        self._at = 0  # read up to here
        self._start = 0  # of the open value, or of what stands between two
        self._depth = 0
        self._base = 0  # depth between values: 1 inside the array that holds them

    def values(self) -> Iterator[bytes]:
        """Each value; see `json_values`."""
        self._held = self._stream.read(CHUNK_BYTES).removeprefix(_BOM)
        while True:
            match = _TO_BRACKET.match(self._held, self._at)
            if match is None:
                if not self._read_on():
                    break
                continue
            self._at = match.end()
            opens = self._held[self._at - 1] in _OPENING
            if self._depth == self._base:
                yield from self._between(self._at - 1)
                self._enter_or_leave(opens=opens)
                continue
            self._depth += 1 if opens else -1
            if self._depth == self._base:
                yield self._held[self._start : self._at]
                self._start = self._at
        if self._depth:
            raise ArchiveError("the file ends in the middle of a value.")
        yield from self._between(len(self._held))

    def _enter_or_leave(self, *, opens: bool) -> None:
        """A bracket between values: it opens one, or it opens or closes the array that holds them."""
        if not opens:
            self._base, self._start, self._depth = 0, self._at, 0
            return
        if not self._depth and self._held[self._at - 1 : self._at] == b"[":
            self._base, self._start = 1, self._at
        self._depth += 1

    def _between(self, end: int) -> Iterator[bytes]:
        """What stands between two values: commas and space, else something that does not belong there."""
        stray = self._held[self._start : end].strip(_BETWEEN)
        self._start = end
        if stray:
            yield stray

    def _read_on(self) -> bool:
        """Read more, as much again as is held: what is looked at twice stays in proportion."""
        held = self._held[self._start :]
        if len(held) > self._value_bytes_max:
            raise ArchiveError(f"one value is longer than {self._value_bytes_max} bytes.")
        more = self._stream.read(max(CHUNK_BYTES, len(held)))
        self._at -= self._start
        self._held, self._start = held + more, 0
        return bool(more)
