"""Memories and times as models see them at `/mcp`: in the user's zone, how long ago, long texts cut.

Pure. A date that a model gives means the day of that zone, from its beginning through its end.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta, tzinfo
from typing import Any

from msgspec import UNSET

from models.memory import Memory, memory_id
from models.messages import Hit
from models.screening import flag_names
from models.times import local_time, relative_time
from router.mcp.shapes import MemoryResult
from router.request_values import parse_time
from router.uploads import TIMESTAMP_MS_MAX

TEXT_CHARACTERS_MAX = 2_000
"""Of a text in a list; inspect_memory shows the rest."""

TITLE_CHARACTERS_MAX = 80
_BEGINNING = slice(TEXT_CHARACTERS_MAX)
_DATE = re.compile(r"\s*([0-9]{4}-[0-9]{2}-[0-9]{2})\s*\Z")


def memory_result(found: Hit | Memory, now_ms: int, time_zone: tzinfo, *, part: slice = _BEGINNING) -> MemoryResult:
    """A memory as models see it.

    Args:
        part: which characters of its text.
    """
    hit = found if isinstance(found, Hit) else None
    memory = found if isinstance(found, Memory) else found.memory
    text = memory.content[part]
    is_cut = len(text) < len(memory.content)
    labels, metadata = _labels(memory.metadata)
    return MemoryResult(
        id=memory_id(memory),
        text=text,
        role=memory.role,
        said_at=local_iso(memory.timestamp_ms, time_zone),
        when=relative_time(memory.timestamp_ms, now_ms, time_zone),
        source=memory.source,
        score=UNSET if hit is None else round(hit.score, 4),
        session_id=memory.session_id or UNSET,
        truncated=True if is_cut else UNSET,
        matched=UNSET if hit is None or not is_cut else hit.matched,
        metadata=metadata or UNSET,
        flagged=list(flag_names(memory.flags)) or UNSET,
        **labels,
    )


def _labels(metadata: dict[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What store_memory has put into metadata, and the rest of it."""
    rest = dict(metadata or {})
    labels: dict[str, Any] = {}
    tags = rest.get("tags")
    if isinstance(tags, list) and all(isinstance(tag, str) for tag in tags):
        labels["tags"] = rest.pop("tags")
    if isinstance(rest.get("source_context"), str):
        labels["source_context"] = rest.pop("source_context")
    return labels, rest


def start_of(value: str, time_zone: tzinfo, *, name: str = "start_date") -> int | None:
    """The first millisecond of a date, or a time as it is.

    Raises:
        InvalidRequest: it is neither.
    """
    return parse_time(value, name, time_zone)


def end_of(value: str, time_zone: tzinfo) -> int | None:
    """The first millisecond after a date in this zone, whose days may have 23 or 25 hours; or a time as it is.

    Raises:
        InvalidRequest: it is neither.
    """
    match = _DATE.match(value)
    if match is None:
        return parse_time(value, "end_date", time_zone)
    try:
        following = date.fromisoformat(match[1]) + timedelta(days=1)
    except OverflowError:  # the last day that there is
        return TIMESTAMP_MS_MAX
    except ValueError:
        return parse_time(value, "end_date", time_zone)
    return parse_time(datetime.combine(following, time(), time_zone).isoformat(), "end_date", time_zone)


def local_iso(timestamp_ms: int, time_zone: tzinfo) -> str:
    """A time with its offset, to the second."""
    return local_time(timestamp_ms, time_zone).isoformat(timespec="seconds")


def title_of(text: str) -> str:
    """The first line of a text, cut."""
    line = text.strip().partition("\n")[0].strip()
    return line if len(line) <= TITLE_CHARACTERS_MAX else line[: TITLE_CHARACTERS_MAX - 1].rstrip() + "\u2026"
