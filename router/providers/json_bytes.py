"""JSON as bytes: split a body into raw members, read single values, put text in, finish a text that was cut.

Owns the promise that a member which nobody asked to change leaves as the bytes it came in. Must never re-encode a value
it did not make. Pure functions.

msgspec does the work; it rejects lone surrogate escapes ("\\ud800"), which real clients send and the JSON grammar
allows (RFC 8259, section 8.2). For those bodies the standard library's scanner stands in: slower, same answers.
"""

from __future__ import annotations

import json
import re
from array import array
from itertools import accumulate
from json.decoder import scanstring  # type: ignore[attr-defined]  # typeshed leaves it out; it is the str half of raw_decode
from typing import Any, TypeVar

import msgspec

from models.errors import InvalidRequest
from models.limit_settings import JSON_DEPTH_MAX

DEPTH_MAX = JSON_DEPTH_MAX
VALUES_MAX = 1_000_000
"""Values (commas and brackets) in one body. A conversation has thousands; a million is an attack on memory."""

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_STRUCTURE = bytes(b for b in range(256) if b not in b'"[]{},')
_STRING = re.compile(rb'"[^"]*"')
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_SPACE = re.compile(r"[ \t\r\n]*")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

_Result = TypeVar("_Result")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _read_int(digits: str) -> int | float:
    """Python refuses integers of many digits, JSON does not: they are read as what 1e999 is read as."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)


_LENIENT = json.JSONDecoder(parse_constant=_no_constant, parse_int=_read_int)


def check_shape(body: bytes) -> None:
    """Refuse what must not reach a recursive or allocating parser.

    Raises:
        InvalidRequest: not UTF-8, nested deeper than `DEPTH_MAX`, or more than `VALUES_MAX` values.
    """
    try:
        body.isascii() or body.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("The request body is not valid UTF-8.") from None
    if _brackets_open(body) <= DEPTH_MAX and body.count(b",") <= VALUES_MAX:
        return
    structure = structure_of(body)
    if len(structure) > VALUES_MAX:
        raise InvalidRequest(f"The request body holds more than {VALUES_MAX} values.", field="body")
    _check_depth(structure, DEPTH_MAX)


def check_depth(body: bytes, depth_max: int) -> None:
    """Refuse JSON that is nested deeper, without decoding it. Whether it is JSON at all is not looked at.

    Raises:
        InvalidRequest: it is nested deeper.
    """
    if _brackets_open(body) > depth_max:
        _check_depth(structure_of(body), depth_max)


def _brackets_open(body: bytes) -> int:
    return body.count(b"[") + body.count(b"{")


def _check_depth(structure: bytes, depth_max: int) -> None:
    depths = accumulate(array("b", structure.translate(None, b'",').translate(_STEPS)))
    if max(depths, default=0) > depth_max:
        raise InvalidRequest(f"The request body is nested deeper than {depth_max} levels.", field="body")


def structure_of(body: bytes) -> bytes:
    """The brackets and commas of JSON that stand outside of strings."""
    if b"\\" in body:  # escape pairs first, so that the quotes left are the ones that open and close strings
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    return _STRING.sub(b"", body.translate(None, _STRUCTURE))


def split_object(raw: bytes) -> dict[str, bytes]:
    """The members of a JSON object, by name, as raw bytes, in order. Of a name given twice, the last counts.

    Raises:
        ValueError: not a JSON object.
    """
    try:
        return {name: bytes(value) for name, value in _OBJECT.decode(raw).items()}
    except msgspec.ValidationError as error:
        raise ValueError("not a JSON object") from error
    except msgspec.DecodeError as error:
        if b"\\u" not in raw:
            raise ValueError(str(error)) from error
        return _split_object_leniently(raw.decode())


def split_array(raw: bytes) -> list[bytes]:
    """The elements of a JSON array as raw bytes.

    Raises:
        ValueError: not a JSON array.
    """
    try:
        return [bytes(value) for value in _ARRAY.decode(raw)]
    except msgspec.ValidationError as error:
        raise ValueError("not a JSON array") from error
    except msgspec.DecodeError as error:
        if b"\\u" not in raw:
            raise ValueError(str(error)) from error
        return _split_array_leniently(raw.decode())


def decode_value(raw: bytes) -> Any:
    """Any JSON value as Python objects; strings may hold lone surrogates.

    Raises:
        ValueError: not JSON.
    """
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            return json.loads(raw, parse_constant=_no_constant, parse_int=_read_int)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error


def whole_text(text: str) -> str:
    """Text that any encoder takes: surrogate halves that met are joined, lone ones become U+FFFD."""
    if _LONE_SURROGATE.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def encode_string(text: str) -> bytes:
    """A JSON string literal with its quotes."""
    return msgspec.json.encode(whole_text(text))


def join_object(members: dict[str, bytes]) -> bytes:
    """An object of these raw members. The inverse of `split_object`, but for the space between members."""
    return b"{" + b",".join([_encode_name(name) + b":" + value for name, value in members.items()]) + b"}"


def join_array(elements: list[bytes]) -> bytes:
    """An array of these raw elements."""
    return b"[" + b",".join(elements) + b"]"


def _encode_name(name: str) -> bytes:
    if _LONE_SURROGATE.search(name) is None:
        return msgspec.json.encode(name)
    return json.dumps(name).encode()


def _split_object_leniently(text: str) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    position = _expect(text, 0, "{")
    if text[position : position + 1] == "}":
        return _finish(text, position + 1, members)
    while True:
        start = _expect(text, position, '"')
        name, position = scanstring(text, start, True)
        position = _expect(text, position, ":")
        end = _LENIENT.raw_decode(text, position)[1]
        members[name] = text[position:end].encode()
        position = _skip(text, end)
        if text[position : position + 1] == "}":
            return _finish(text, position + 1, members)
        position = _expect(text, position, ",")


def _split_array_leniently(text: str) -> list[bytes]:
    elements: list[bytes] = []
    position = _expect(text, 0, "[")
    if text[position : position + 1] == "]":
        return _finish(text, position + 1, elements)
    while True:
        end = _LENIENT.raw_decode(text, position)[1]
        elements.append(text[position:end].encode())
        position = _skip(text, end)
        if text[position : position + 1] == "]":
            return _finish(text, position + 1, elements)
        position = _expect(text, position, ",")


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    assert match is not None  # the pattern matches the empty string
    return match.end()


def _expect(text: str, position: int, character: str) -> int:
    """Past this character and the space around it; inside a string (after its quote) space is kept."""
    position = _skip(text, position)
    if text[position : position + 1] != character:
        raise ValueError(f"{character} expected at character {position}")
    return position + 1 if character == '"' else _skip(text, position + 1)


def _finish(text: str, position: int, result: _Result) -> _Result:
    if _skip(text, position) != len(text):
        raise ValueError(f"trailing characters at character {position}")
    return result
