"""Finds the `model` in a multipart form as it arrives, and puts the provider's name for it in its place.

Owns no I/O. Keeps what came before the model and the chunk that it came in, nothing of what follows. Must never change
a byte outside of that one field: boundaries, file names and files leave as they came (RFC 2046, section 5.1.1, and
RFC 7578).
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from typing import NoReturn

from werkzeug.http import parse_options_header

from models.errors import InvalidRequest, TooLarge

MODEL_BYTES_MAX = 1024
PART_HEAD_BYTES_MAX = 16 * 1024
PIECE_BYTES = 64 * 1024

_MODEL = "model"
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]\Z")
_NEWLINE = b"\r\n"


def boundary_of(content_type: str) -> bytes | None:
    """The boundary of a `multipart/form-data` content type; None for any other type.

    Raises:
        InvalidRequest: it is such a type without a valid boundary.
    """
    kind, options = parse_options_header(content_type)
    if kind.lower() != "multipart/form-data":
        return None
    boundary = options.get("boundary", "")
    if not _BOUNDARY.match(boundary):
        raise InvalidRequest("The Content-Type must name the boundary of the form.", field="Content-Type")
    return boundary.encode()


class FormBeginning:
    """The form up to its `model` field.

    Feed it chunks until `model` is known, or `end` it. Clients that put the file first make it hold the file.

    Args:
        boundary: from `boundary_of`.
        held_bytes_max: what may be held while the model is not known.

    Attributes:
        model: the field's value, or None as long as it has not come.
    """

    def __init__(self, boundary: bytes, *, held_bytes_max: int) -> None:
        self.model: str | None = None
        self._delimiter = _NEWLINE + b"--" + boundary
        self._held_bytes_max = held_bytes_max
        self._held = bytearray()
        self._position = 0  # everything before it has been looked at
        self._value: tuple[int, int] | None = None
        self._reader = self._read()
        next(self._reader)

    def feed(self, chunk: bytes) -> bool:
        """Take a chunk in. True when the model is known; nothing more may be fed then.

        Raises:
            InvalidRequest: no such field, an empty one, or no form at all.
            TooLarge: `held_bytes_max` came before it.
        """
        self._held += chunk
        try:
            next(self._reader)
        except StopIteration:
            return True
        if len(self._held) > self._held_bytes_max:
            raise TooLarge("The form is too large.", hint="Send the field model before the file.")
        return False

    def end(self) -> NoReturn:
        """The form has ended without its model.

        Raises:
            InvalidRequest: says so.
        """
        raise _missing()

    def growth_bytes(self, model: str) -> int:
        """By how much the form grows with this name in the model's place."""
        start, end = self._found()
        return len(model.encode()) - (end - start)

    def pieces(self, model: str) -> Iterator[bytes]:
        """All that has been fed, with this name in the model's place."""
        start, end = self._found()
        with memoryview(self._held) as held:
            yield from _cut(held[:start])
            yield model.encode()
            yield from _cut(held[end:])

    def _found(self) -> tuple[int, int]:
        assert self._value is not None, "the model is not known yet"
        return self._value

    # Each step below suspends at `yield` until there is more to read.

    def _read(self) -> Iterator[None]:
        yield
        yield from self._skip_preamble()
        while True:
            yield from self._skip_line_end()
            is_model = yield from self._read_part_head()
            start = self._position
            yield from self._find(self._delimiter, bytes_max=MODEL_BYTES_MAX if is_model else None)
            if is_model:
                self._value = (start, self._position)
                self.model = _decode(bytes(self._held[start : self._position]))
                return
            self._position += len(self._delimiter)

    def _skip_preamble(self) -> Iterator[None]:
        """To the end of the first delimiter, which need not stand on a new line."""
        first = self._delimiter.removeprefix(_NEWLINE)
        while len(self._held) < len(first):
            yield
        if self._held.startswith(first):
            self._position = len(first)
            return
        yield from self._find(self._delimiter, bytes_max=PART_HEAD_BYTES_MAX)
        self._position += len(self._delimiter)

    def _skip_line_end(self) -> Iterator[None]:
        """To the line end after a delimiter, which may be preceded by spaces; the last delimiter ends with dashes."""
        start = self._position
        yield from self._find(_NEWLINE, bytes_max=PART_HEAD_BYTES_MAX)
        rest = bytes(self._held[start : self._position])
        if rest.startswith(b"--"):
            raise _missing()
        if rest.strip(b" \t"):
            raise InvalidRequest("The form is malformed.", field="body")

    def _read_part_head(self) -> Generator[None, None, bool]:
        """To the beginning of a part's content; whether the part is the model."""
        start = self._position  # at a line end, so that a part without headers is found too
        yield from self._find(_NEWLINE * 2, bytes_max=PART_HEAD_BYTES_MAX)
        head = bytes(self._held[start : self._position]).decode("utf-8", "replace")
        self._position += len(_NEWLINE) * 2
        return _names_model(head)

    def _find(self, wanted: bytes, *, bytes_max: int | None) -> Iterator[None]:
        """Move to the next occurrence, in steps that look at each byte once."""
        start = self._position
        while (found := self._held.find(wanted, self._position)) < 0:
            self._position = max(self._position, len(self._held) - len(wanted) + 1)
            if bytes_max is not None and len(self._held) - start > bytes_max + len(wanted):
                raise InvalidRequest("The form is malformed.", field="body")
            yield
        if bytes_max is not None and found - start > bytes_max:
            raise InvalidRequest("The form is malformed.", field="body")
        self._position = found


def _names_model(head: str) -> bool:
    for line in head.split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-disposition":
            _, options = parse_options_header(value)
            return options.get("name") == _MODEL and "filename" not in options
    return False


def _decode(value: bytes) -> str:
    try:
        model = value.decode()
    except UnicodeDecodeError:
        model = ""
    if not model.strip():
        raise _missing()
    return model


def _missing() -> InvalidRequest:
    return InvalidRequest("model is required and must be a non-empty string.", field=_MODEL)


def _cut(view: memoryview) -> Iterator[bytes]:
    for start in range(0, len(view), PIECE_BYTES):
        yield bytes(view[start : start + PIECE_BYTES])
