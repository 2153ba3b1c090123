"""Request bodies: bounded, decompressed, decoded.

Every body is limited *after* decompression. JSON is read leniently where the world is lenient (lone surrogates) and
strictly where a mistake would be silent (it must be an object).
"""

from __future__ import annotations

import json
import zlib
from typing import Any

import msgspec

from models.errors import InvalidRequest, TooLarge, UnsupportedEncoding
from models.limit_settings import JSON_DEPTH_MAX
from router.providers.json_bytes import check_depth

_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS  # zlib recognises both headers with this window
_GZIP_MEMBERS_MAX = 16
_BOM = b"\xef\xbb\xbf"


def decompress(body: bytes, encoding: str, *, bytes_max: int) -> bytes:
    """A body without its content encoding.

    Raises:
        TooLarge: it would be longer than `bytes_max`.
        UnsupportedEncoding: neither gzip nor deflate.
        InvalidRequest: the data is damaged.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        if len(body) > bytes_max:
            raise too_large(bytes_max)
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise UnsupportedEncoding("Content-Encoding must be gzip, deflate or identity.")
    return _inflate(body, bytes_max=bytes_max)


def _inflate(body: bytes, *, bytes_max: int) -> bytes:
    """All members of the data: `cat a.gz b.gz` is one valid gzip file (RFC 1952, section 2.2)."""
    data, rest, members = bytearray(), body, 0
    while rest:
        members += 1
        inflater = zlib.decompressobj(_GZIP_OR_ZLIB)
        try:
            data += inflater.decompress(rest, bytes_max + 1 - len(data))
        except zlib.error:
            raise InvalidRequest("The body is not valid gzip data.", field="body") from None
        if len(data) > bytes_max:
            raise too_large(bytes_max)
        if not inflater.eof:
            raise InvalidRequest("The compressed body ends too early.", field="body")
        if members == _GZIP_MEMBERS_MAX and inflater.unused_data:
            raise InvalidRequest(f"The body has more than {_GZIP_MEMBERS_MAX} gzip members.", field="body")
        rest = inflater.unused_data
    return bytes(data)


def too_large(bytes_max: int) -> TooLarge:
    """The error of a body over the limit."""
    return TooLarge(
        f"The request body may have at most {bytes_max} bytes.",
        hint="The operator sets server.body_max_bytes.",
    )


def decode_json(data: bytes | str, *, depth_max: int = JSON_DEPTH_MAX) -> Any:
    """Any JSON value. Lone surrogates come through as U+FFFD.

    Raises:
        InvalidRequest: not JSON, or nested deeper than `depth_max`.
    """
    if isinstance(data, bytes):
        data = data.removeprefix(_BOM)
    check_depth(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"), depth_max)
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _decode_with_surrogates(data)


def _decode_with_surrogates(data: bytes | str) -> Any:
    """The standard decoder accepts a lone `\\ud800`, which JSON allows and msgspec refuses."""
    try:
        text = data.decode() if isinstance(data, bytes) else data
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise InvalidRequest("The body is not valid JSON.", field="body") from None
    return replace_surrogates(value)


def _refuse_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are not JSON


def replace_surrogates(value: Any, depth: int = 0) -> Any:
    """The same value with every lone surrogate replaced by U+FFFD."""
    if depth > JSON_DEPTH_MAX:
        raise InvalidRequest(f"The body is nested deeper than {JSON_DEPTH_MAX} levels.", field="body")
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [replace_surrogates(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {replace_surrogates(k, depth): replace_surrogates(item, depth + 1) for k, item in value.items()}
    return value


def decode_object(data: bytes | str, *, depth_max: int = JSON_DEPTH_MAX) -> dict[str, Any]:
    """A JSON object.

    Raises:
        InvalidRequest: not JSON, or not an object.
    """
    value = decode_json(data, depth_max=depth_max)
    if not isinstance(value, dict):
        raise InvalidRequest("The body must be a JSON object.", field="body")
    return value
