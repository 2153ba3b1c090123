"""Uploads: JSON lines become messages, all of them or none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from models.errors import InvalidRequest, TooLarge
from models.ids import parse_session_id
from models.limit_settings import JSON_DEPTH_MAX
from models.memory import Exchange, Message, Role
from models.memory_settings import MemorySettings
from models.text import clean
from router.bodies import decode_json

EXTERNAL_ID_CHARACTERS_MAX = 256
METADATA_BYTES_MAX = 16_384
METADATA_DEPTH_MAX = 32
"""Decoders stop at some depth of nesting; what could be written but not read again would be lost."""

TIMESTAMP_MS_MAX = 253_402_300_799_999  # the last millisecond of the year 9999
ROW_MESSAGES_MAX = 64
"""Messages in one inbox row: rows are embedded and written out one by one, so a long upload makes steady progress."""

ROOM_TIMEOUT_S = 100.0
"""How long an upload or import waits for room in its vault's inbox: half of a full one is embedded by then."""

_BOM = b"\xef\xbb\xbf"
ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "user"}


class LineError(InvalidRequest):
    """A line of an upload is wrong."""

    def __init__(self, number: int, problem: str, *, field: str | None = None) -> None:
        super().__init__(f"Line {number}: {problem}", field=field, hint="Nothing of this upload was stored.")


def parse_lines(
    body: bytes, *, session_id: str | None, limits: MemorySettings, depth_max: int = JSON_DEPTH_MAX
) -> list[Message]:
    """The messages of an upload, in order. Lines that hold nothing but a context block of ours give none.

    Args:
        session_id: for lines that name none.
        depth_max: levels that a line's JSON may be nested.

    Raises:
        LineError: a line is not a valid memory; it names the line.
        TooLarge: too many lines, or a text over `content_max_chars`; it names the line.
        InvalidRequest: the body is not UTF-8, or holds no memory at all.
    """
    parsed = [
        _parse_line(number, line, session_id=session_id, limits=limits, depth_max=depth_max)
        for number, line in _numbered_lines(body.removeprefix(_BOM), lines_max=limits.upload_lines_max)
    ]
    messages = [message for message in parsed if message is not None]
    if not messages:
        raise InvalidRequest("No valid memories.", field="body", hint="Send one JSON object a line.")
    return messages


def _numbered_lines(body: bytes, *, lines_max: int) -> Iterator[tuple[int, str]]:
    """Lines with their numbers from 1, blank ones left out. Only line feeds end a line: texts may hold U+2028."""
    count = 0
    for number, raw in enumerate(body.split(b"\n"), start=1):
        if not raw.strip():
            continue
        count += 1
        if count > lines_max:
            raise TooLarge(f"An upload may have at most {lines_max} lines.", hint="Split it into several uploads.")
        try:
            yield number, raw.decode()
        except UnicodeDecodeError:
            raise LineError(number, "not valid UTF-8.") from None


def _parse_line(
    number: int, line: str, *, session_id: str | None, limits: MemorySettings, depth_max: int
) -> Message | None:
    try:
        value = decode_json(line, depth_max=depth_max)
    except InvalidRequest:
        raise LineError(number, "not valid JSON.") from None
    if not isinstance(value, dict):
        raise LineError(number, "it must be a JSON object.")
    try:
        return parse_memory(value, session_id=session_id, limits=limits)
    except InvalidRequest as error:
        raise LineError(number, error.message, field=error.field) from None
    except TooLarge as error:
        raise TooLarge(f"Line {number}: {error.message}") from None


def parse_memory(value: dict[str, Any], *, session_id: str | None, limits: MemorySettings) -> Message | None:
    """One upload line as a message, or None where nothing is left of it once our own context blocks are out.

    Raises:
        InvalidRequest: a field is missing or wrong; the message names it.
        TooLarge: the content is over `content_max_chars`.
    """
    content = value.get("content")
    if not isinstance(content, str) or not content.strip():
        raise InvalidRequest("content must be a non-empty string.", field="content")
    if len(content) > limits.content_max_chars:
        raise TooLarge(f"content may have at most {limits.content_max_chars} characters.")
    role = value.get("role")
    if role is not None and (not isinstance(role, str) or role not in ROLES):
        raise InvalidRequest("role must be user, assistant or system.", field="role")
    message = Message(
        role=ROLES[role] if role else "user",
        content=clean(content),
        timestamp_ms=parse_timestamp(value.get("timestamp")),
        session_id=parse_session_id(value.get("session_id")) or session_id,
        external_id=parse_external_id(value.get("id")),
        metadata=parse_metadata(value.get("metadata")),
    )
    return message if message.content else None


def parse_timestamp(value: Any) -> int | None:
    """A time in epoch milliseconds, or None when none is given.

    Raises:
        InvalidRequest: not an integer, or outside the years 1970 to 9999.
    """
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= TIMESTAMP_MS_MAX:
        raise InvalidRequest("timestamp must be milliseconds since 1970 as an integer.", field="timestamp")
    return value


def parse_external_id(value: Any) -> str | None:
    """A client's own id of a memory: a string or an integer.

    Raises:
        InvalidRequest: any other type, or too long.
    """
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InvalidRequest("id must be a string or an integer.", field="id")
    text = str(value)
    if len(text) > EXTERNAL_ID_CHARACTERS_MAX:
        raise InvalidRequest(f"id may have at most {EXTERNAL_ID_CHARACTERS_MAX} characters.", field="id")
    return text


def parse_metadata(value: Any) -> dict[str, Any] | None:
    """A JSON object that comes back with the memory, or None.

    Raises:
        InvalidRequest: not an object, too large, nested too deeply, or with a number that cannot be kept exactly.
    """
    if value is None:
        return None
    if not isinstance(value, dict):
        raise InvalidRequest("metadata must be an object.", field="metadata")
    if _is_deeper(value, METADATA_DEPTH_MAX):
        raise InvalidRequest(f"metadata may be nested {METADATA_DEPTH_MAX} levels deep at most.", field="metadata")
    try:
        size_bytes = len(msgspec.msgpack.encode(value))  # as it will be stored
    except OverflowError:
        raise InvalidRequest("metadata may hold integers of at most 64 bits.", field="metadata") from None
    if size_bytes > METADATA_BYTES_MAX:
        raise InvalidRequest(f"metadata may have at most {METADATA_BYTES_MAX} bytes.", field="metadata")
    return value


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    parts = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(part, levels - 1) for part in parts)


def exchanges_of(messages: list[Message], *, now_ms: int, request_id: str) -> list[Exchange]:
    """The messages of one upload as inbox rows; they are committed together."""
    return [
        Exchange(
            messages=tuple(messages[start : start + ROW_MESSAGES_MAX]),
            source="upload",
            accepted_ms=now_ms,
            request_id=request_id,
        )
        for start in range(0, len(messages), ROW_MESSAGES_MAX)
    ]
