"""JSON made from decoded values.

Owns that whatever `json_bytes.decode_value` returns can be encoded again: lone surrogates become U+FFFD, integers of
any size keep their digits. Must never change bytes that were not decoded (`msgspec.Raw`). Pure functions.
"""

from __future__ import annotations

from typing import Any

import msgspec

from router.providers.json_bytes import whole_text


def encode_value(value: Any) -> bytes:
    """The JSON text of a decoded value; `msgspec.Raw` inside it is taken as it is."""
    try:
        return msgspec.json.encode(value)
    except (UnicodeEncodeError, OverflowError):
        return msgspec.json.encode(_encodable(value))


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return whole_text(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return msgspec.Raw(str(value).encode())
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    if isinstance(value, dict):
        return {whole_text(name): _encodable(item) for name, item in value.items()}
    return value
