"""What a reader of a foreign file finds: lines to upload, conversations, what it leaves out and what it cannot read.

Owns the shapes of those findings, the times of foreign files and what stands for an attachment. Must never hold more
of a file than one conversation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from models.errors import InvalidRequest

TIMESTAMP_MS_MAX = 253_402_300_799_999  # the last millisecond of the year 9999
SECONDS_BELOW = 100_000_000_000
"""A number below this is seconds (up to the year 5138), one from here on milliseconds (from March 1973)."""

TITLE_CHARACTERS_MAX = 200
_ID_CHARACTERS_MAX = 100
"""Of each of the two parts of an id; a server takes 256."""

UUID_CHARACTERS = 36

Object = dict[str, Any]


class ArchiveError(InvalidRequest):
    """A file cannot be read any further: it is cut, damaged, encrypted, or larger than it may be."""


class Item(msgspec.Struct, frozen=True):
    """One line of an upload (contract 1.7), and where it comes from.

    Attributes:
        fields: the line as it is sent; not yet checked.
        place: names the file and the line or conversation, never its text.
        owner: whose it is where the file says so: a file may hold memories of several users.
        is_note: a text without an id of its own; its words are its identity.
    """

    fields: Object
    place: str
    owner: str | None = None
    is_note: bool = False


class Conversation(msgspec.Struct, frozen=True):
    """A conversation begins; its lines follow."""

    place: str


class Passed(msgspec.Struct, frozen=True):
    """Something is left out on purpose; the reason is a word such as `system` or `tool`."""

    reason: str
    place: str


class Bad(msgspec.Struct, frozen=True):
    """Something cannot be read; the problem is a sentence without any text of the file."""

    problem: str
    place: str


Entry = Item | Conversation | Passed | Bad
Entries = Iterator[Entry]


def upload_line(
    role: str,
    content: str,
    *,
    timestamp_ms: int | None,
    session_id: str | None = None,
    external_id: str | None = None,
    **metadata: object,
) -> Object:
    """The fields of a line; what is None is left out, of the metadata too."""
    fields: Object = {"role": role, "content": content}
    about = {name: value for name, value in metadata.items() if value is not None}
    for name, value in (
        ("timestamp", timestamp_ms),
        ("session_id", session_id),
        ("id", external_id),
        ("metadata", about or None),
    ):
        if value is not None:
            fields[name] = value
    return fields


def text_of(value: object) -> str:
    """A text, or "" for anything else."""
    return value if isinstance(value, str) else ""


def title_of(value: object) -> str | None:
    """A title as it is kept with a memory, or None."""
    return text_of(value).strip()[:TITLE_CHARACTERS_MAX] or None


def name_within(source: str, value: object) -> str | None:
    """An id of a foreign product as one of ours, such as `chatgpt:...`; None where there is none.

    The prefix keeps the ids of one product from meeting those of another.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value).strip()
    return f"{source}:{text}" if text and len(text) <= _ID_CHARACTERS_MAX else None


def message_name(source: str, session: str | None, value: object) -> str | None:
    """The id of a message: within its conversation, since not every tool that writes such files makes them unique.

    Args:
        session: what `name_within` made of the conversation's id. Without one only a UUID counts as an id.
    """
    if session is not None:
        return name_within(session, value)
    return name_within(source, value) if isinstance(value, str) and len(value) >= UUID_CHARACTERS else None


def objects_in(value: object) -> list[Object]:
    """The objects of a list; nothing for anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def time_ms(value: object) -> int | None:
    """A time as exports write it, in epoch milliseconds; None for what is no time between 1970 and 9999.

    Args:
        value: seconds or milliseconds since 1970, or ISO 8601; a text without a zone is taken as UTC.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        if not 0 < value < math.inf:  # also of whole numbers that are too long for `isfinite`
            return None
        milliseconds = round(value * 1000) if value < SECONDS_BELOW else round(value)
        return milliseconds if milliseconds <= TIMESTAMP_MS_MAX else None
    return _iso_ms(value.strip()) if isinstance(value, str) else None


def _iso_ms(text: str) -> int | None:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        milliseconds = round(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        return None
    return milliseconds if 0 <= milliseconds <= TIMESTAMP_MS_MAX else None
