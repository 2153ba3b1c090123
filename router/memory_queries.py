"""What requests for `/v1/memories` ask for: filters and changes. Pure; knows nothing of Quart.

Must never let a mistyped filter of a deletion pass as none.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, get_args

import msgspec

from models.errors import InvalidRequest, TooLarge
from models.ids import parse_session_id
from models.memory import Role, Source
from models.memory_settings import MemorySettings
from models.messages import MemoryChange, Scope
from models.selection import MemoryFilter
from models.text import clean
from models.words import terms
from router.bodies import replace_surrogates
from router.options import MemoryOptions
from router.providers.request_parts import OPTION_FIELDS
from router.request_values import parse_time, read_switch
from router.uploads import ROLES, parse_metadata, parse_timestamp

METADATA_FILTERS_MAX = 16
WORDS_CHARACTERS_MAX = 2_000
DELETED_SINCE_MS_LEAST = 10**12
"""September 2001 in milliseconds; in seconds the year 33658."""

FILTERS = ("session_id", "role", "source", "model", "request_id", "since", "until", "q", "flagged")
_OPTIONS = frozenset({"mode", "memory", "store", "store_response", "key"})
_CHANGES = frozenset({"content", "role", "timestamp", "session_id", "metadata"})
_METADATA = re.compile(r"metadata(?:\.(.+)|\[(.+)\])\Z", re.DOTALL)


def read_filter(query: Mapping[str, str], options: MemoryOptions) -> MemoryFilter:
    """The filter that a query describes, within what the request may see.

    Raises:
        InvalidRequest: a value cannot be one; the message names its field.
    """
    metadata = [(key, value) for name, value in query.items() if (key := _metadata_key(name)) is not None]
    if len(metadata) > METADATA_FILTERS_MAX:
        raise InvalidRequest(f"At most {METADATA_FILTERS_MAX} fields of metadata may be asked for.", field="metadata")
    words = query.get("q")
    if words is not None and not words.strip():
        raise InvalidRequest("q must hold a word.", field="q")
    session_id = parse_session_id(query.get("session_id"))
    return msgspec.structs.replace(
        scope_filter(options.scope),
        **({"session_id": session_id, "sessionless": False} if session_id is not None else {}),
        role=_one_of(query.get("role"), get_args(Role), "role"),
        source=_one_of(query.get("source"), get_args(Source), "source"),
        model=query.get("model") or None,
        request_id=query.get("request_id") or None,
        since_ms=parse_time(query.get("since"), "since", options.time_zone),
        until_ms=parse_time(query.get("until"), "until", options.time_zone),
        words=words and words[:WORDS_CHARACTERS_MAX],
        metadata=tuple(metadata),
        flagged=read_switch(query.get("flagged"), "flagged"),
    )


def scope_filter(scope: Scope) -> MemoryFilter:
    """What a request may see, as a filter."""
    if scope.whole_vault:
        return MemoryFilter()
    return MemoryFilter(session_id=scope.session_id, sessionless=scope.sessionless_only)


def require_filter(query: Mapping[str, str], options: MemoryOptions, *, besides: Collection[str]) -> None:
    """Refuse a deletion of everything, and one whose filter is not understood.

    Args:
        besides: what the query may hold that is no filter.

    Raises:
        InvalidRequest: no filter at all, or something that is none.
    """
    metadata = [name for name in query if _metadata_key(name) is not None]
    for name in query:
        if name not in FILTERS and name not in metadata and name not in _OPTIONS and name not in besides:
            raise InvalidRequest(f"{name} is no filter.", field=name, hint=f"Filters are {', '.join(FILTERS)}.")
        if name in FILTERS and not query[name]:
            raise InvalidRequest(f"{name} is empty.", field=name, hint="Leave out what is not to be asked for.")
    require_milliseconds(query.get("since"), "since")
    words = query.get("q") or ""
    if words and (len(words) > WORDS_CHARACTERS_MAX or not terms(words)):
        raise InvalidRequest(
            f"q of a deletion must hold a word that is looked for, within {WORDS_CHARACTERS_MAX} characters.",
            field="q",
            hint="Words such as `the` are not looked for, so they would find everything.",
        )
    in_session = options.session_id is not None and not options.scope.whole_vault
    if not metadata and not any(query.get(name) for name in FILTERS) and not in_session:
        raise InvalidRequest(
            "A deletion needs a filter.", field="filter", hint="To delete everything, use DELETE /v1/memory."
        )


def require_milliseconds(value: Any, name: str) -> None:
    """Refuse a deletion since a number that is far too small for milliseconds: such as seconds, or 20260101.

    Taken as it stands, it would mean some day of January 1970, and so everything.

    Raises:
        InvalidRequest: it is one.
    """
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        value = int(value[:20])
    if isinstance(value, int) and 0 < value < DELETED_SINCE_MS_LEAST:
        hint = "Write it like 2026-06-03T09:14:00Z; 0 is from the beginning."
        raise InvalidRequest(f"{name} must be milliseconds, and that is too few of them.", field=name, hint=hint)


def require_known(names: Collection[str], known: Collection[str]) -> None:
    """Refuse a deletion that says something which would not be heard: it may be what was to be spared.

    Args:
        names: of what the request says.
        known: what is heard, besides options.

    Raises:
        InvalidRequest: a name is neither.
    """
    for name in names:
        if name not in known and name not in _OPTIONS and name not in OPTION_FIELDS:
            raise InvalidRequest(f"{name[:100]} is nothing that a deletion can be told.", field=name[:100])


def deleted_session(headers: Mapping[str, str], query: Mapping[str, str], body: Mapping[str, Any]) -> str | None:
    """The session that `DELETE /v1/memory` names in body, query or header; None for the whole vault.

    A name that is there and empty is an unset variable of the caller's, not a wish to delete everything.

    Raises:
        InvalidRequest: it is empty or cannot be one, or something is said that would not be heard.
    """
    require_known(query, ("reset", "session_id", "limit"))
    require_known(body, ())
    places = ((headers, "x-session-id"), (query, "session_id"), (body, "session_id"))
    given = [place[name] for place, name in places if name in place]
    sessions = {parse_session_id(replace_surrogates(value)) for value in given}
    if None in sessions:
        raise InvalidRequest(
            "The session is empty.", field="session_id", hint="Leave it out to delete the whole vault."
        )
    if len(sessions) > 1:
        raise InvalidRequest("Header, query and body name different sessions.", field="session_id")
    return sessions.pop() if sessions else None


def _metadata_key(name: str) -> str | None:
    """The key that `metadata.KEY` or `metadata[KEY]` names."""
    match = _METADATA.match(name)
    return None if match is None else match[1] or match[2]


def _one_of(value: str | None, allowed: Collection[Any], name: str) -> Any:
    if not value:
        return None
    if value not in allowed:
        raise InvalidRequest(f"{name} must be one of {', '.join(allowed)}.", field=name)
    return value


def read_change(body: Mapping[str, Any], *, limits: MemorySettings) -> MemoryChange:
    """What a body asks to change.

    Raises:
        InvalidRequest: nothing, or a value that cannot be one; the message names its field.
        TooLarge: the content is over `content_max_chars`.
    """
    if not _CHANGES & set(body):
        names = ", ".join(sorted(_CHANGES))
        raise InvalidRequest(f"Nothing is changed: send at least one of {names}.", field="body")
    change = MemoryChange()
    if "content" in body:
        change = msgspec.structs.replace(change, content=_content(body["content"], limits))
    if "role" in body:
        if not isinstance(body["role"], str) or body["role"] not in ROLES:
            raise InvalidRequest("role must be user, assistant or system.", field="role")
        change = msgspec.structs.replace(change, role=ROLES[body["role"]])
    if "timestamp" in body:
        timestamp_ms = parse_timestamp(body["timestamp"])
        if timestamp_ms is None:
            raise InvalidRequest("timestamp must be milliseconds since 1970 as an integer.", field="timestamp")
        change = msgspec.structs.replace(change, timestamp_ms=timestamp_ms)
    if "session_id" in body:
        change = msgspec.structs.replace(change, session_id=parse_session_id(body["session_id"]))
    if "metadata" in body:
        change = msgspec.structs.replace(change, metadata=parse_metadata(body["metadata"]))
    return change


def _content(value: Any, limits: MemorySettings) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InvalidRequest("content must be a non-empty string.", field="content")
    if len(value) > limits.content_max_chars:
        raise TooLarge(f"content may have at most {limits.content_max_chars} characters.")
    content = clean(value)
    if not content:
        raise InvalidRequest("Nothing is left of content without our own context block.", field="content")
    return content
