"""The end of a JSON text that was cut off.

When a provider's stream breaks inside an event, half of its JSON is already with the client. A new event after it would
leave that half to be parsed, and SDKs fail on it with a decoding error instead of the provider's failure. So the half
is completed here, and the error becomes the last member of its object. Pure; must never be used on a healthy stream.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},:]|[^\[\]{},:"\s]+|"', re.DOTALL)
_CUT_ESCAPE = re.compile(rb"(?<!\\)(?:\\\\)*\\(u[0-9a-fA-F]{0,3})?\Z")
_WORDS = (b"true", b"false", b"null")


def close_object(partial: bytes, member: bytes) -> bytes | None:
    """The bytes that turn the beginning of a JSON object into a whole one with `member` as its last.

    Args:
        partial: any proper prefix of a JSON object; may end inside a string, an escape or a UTF-8 sequence.
        member: `"name":value`.

    Returns:
        What to append, or None when `partial` is no such prefix (not an object, or already whole).
    """
    if not partial.strip():
        return b"{" + member + b"}"
    open_string = _open_string_start(partial)
    stack, last = _read_structure(partial if open_string is None else partial[:open_string])
    if not stack or stack[0] != b"{":
        return None
    tail = b""
    if open_string is not None:
        tail = _close_string(partial[open_string:])
        last = _next_state(last, stack, b'""')
    elif last == "word":
        tail = _close_word(partial)
        last = "value"
    tail += {"colon": b"null", "key": b":null"}.get(last, b"")
    if len(stack) > 1 and last == "comma":
        tail += b"null" if stack[-1] == b"[" else b'"":null'
    for bracket in reversed(stack[1:]):
        tail += b"]" if bracket == b"[" else b"}"
    needs_comma = len(stack) > 1 or last not in {"open", "comma"}
    return tail + (b"," if needs_comma else b"") + member + b"}"


def _open_string_start(partial: bytes) -> int | None:
    """Where the string begins that the cut left open, or None."""
    for match in _TOKEN.finditer(partial):
        if match.group() == b'"':  # a whole string would have matched before: this one has no end
            return match.start()
    return None


def _read_structure(text: bytes) -> tuple[list[bytes], str]:
    """The open brackets, and what came last: open, key, colon, value, comma, or word (a literal at the very end)."""
    stack: list[bytes] = []
    last = "open"
    for match in _TOKEN.finditer(text):
        last = _next_state(last, stack, match.group())
        if last == "word" and match.end() < len(text):
            last = "value"
    return stack, last


def _next_state(last: str, stack: list[bytes], token: bytes) -> str:
    if token in b"{[":
        stack.append(token)
        return "open"
    if token in b"}]":
        if stack:
            stack.pop()
        return "value"
    if token == b":":
        return "colon"
    if token == b",":
        return "comma"
    if not token.startswith(b'"'):
        return "word"
    return "key" if stack and stack[-1] == b"{" and last in {"open", "comma"} else "value"


def _close_word(partial: bytes) -> bytes:
    word = _TOKEN.findall(partial)[-1]
    for whole in _WORDS:
        if whole.startswith(word):
            return whole[len(word) :]
    return b"" if word[-1:].isdigit() else b"0"


def _close_string(literal: bytes) -> bytes:
    """What ends this string: the rest of a cut UTF-8 sequence or of a cut escape, and the quote."""
    escape = _CUT_ESCAPE.search(literal)
    if escape is not None:
        digits = escape.group(1)
        return b'\\"' if digits is None else b"0" * (5 - len(digits)) + b'"'
    return _close_utf8(literal) + b'"'


def _close_utf8(text: bytes) -> bytes:
    for back in range(1, min(3, len(text)) + 1):
        byte = text[-back]
        if byte < 0x80:
            return b""
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            # After these two leads the lowest continuation bytes would be overlong forms.
            first = {0xE0: b"\xa0", 0xF0: b"\x90"}.get(byte, b"\x80") if back == 1 else b"\x80"
            return (first + b"\x80\x80")[: length - back]
    return b""
