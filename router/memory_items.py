"""Memories as our own routes show them (design section 12). Knows nothing of requests."""

from __future__ import annotations

from typing import Any

from models.memory import Memory, SessionSummary, memory_id
from models.screening import flag_names
from models.times import format_time

CONTENT_CHARACTERS_MAX = 20_000
"""A content in a list is cut here (design section 12); `truncated` says so."""


def memory_fields(memory: Memory, *, whole: bool = False) -> dict[str, Any]:
    """What every item says of its memory.

    Args:
        whole: the whole content, however long it is.
    """
    fields: dict[str, Any] = {
        "id": memory_id(memory),
        "content": memory.content if whole else memory.content[:CONTENT_CHARACTERS_MAX],
        "role": memory.role,
        "timestamp": memory.timestamp_ms,
        "session_id": memory.session_id,
        "source": memory.source,
    }
    if len(memory.content) > CONTENT_CHARACTERS_MAX and not whole:
        fields["truncated"] = True
    if memory.external_id is not None:
        fields["external_id"] = memory.external_id
    if memory.metadata is not None:
        fields["metadata"] = memory.metadata
    if memory.flags:
        fields["flagged"] = flag_names(memory.flags)
    return fields


def memory_item(memory: Memory, *, pending: bool, whole: bool = False) -> dict[str, Any]:
    """One memory as `/v1/memories` shows it."""
    return {
        **memory_fields(memory, whole=whole),
        "created_at": format_time(memory.timestamp_ms),
        "stored_at": format_time(memory.stored_ms),
        "tokens": memory.tokens,
        "model": memory.model,
        "request_id": memory.request_id,
        "pending": pending,
    }


def session_item(session: SessionSummary) -> dict[str, Any]:
    """One session as `/v1/sessions` shows it; its times are those of its first and its last memory."""
    last_ms, _ = session.place
    return {
        "session_id": session.session_id,
        "memories": session.memories,
        "tokens": session.tokens,
        "first_timestamp": session.first_ms,
        "last_timestamp": last_ms,
        "first_at": format_time(session.first_ms),
        "last_at": format_time(last_ms),
    }
