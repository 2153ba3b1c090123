"""Which sessions a vault has, a page at a time. Pure; a page is found without putting all of them in order."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping

from actors.session_order import SessionOrder
from models.memory import SessionSummary
from models.messages import ListedSessions, ListSessions


def list_sessions(
    sessions: Mapping[str | None, SessionOrder], wanted: ListSessions, *, seq_at: Callable[[int], int]
) -> ListedSessions:
    """The page that is wanted: those with the newest memory first.

    Args:
        sessions: by id; what stands under None is no session.
        seq_at: the seq of the memory at a position. A place has to hold over restarts, and positions do not.
    """
    after_ms = None if wanted.after is None else wanted.after[0]
    places = (
        ((at_ms, seq_at(position)), session_id)
        for session_id, session in sessions.items()
        if session_id is not None and session.order
        for at_ms, position in [session.order[-1]]
        if after_ms is None or at_ms <= after_ms
    )
    behind = (entry for entry in places if wanted.after is None or entry[0] < wanted.after)
    newest = heapq.nlargest(wanted.limit + 1, behind)
    page = tuple(_summary(session_id, sessions[session_id], place) for place, session_id in newest[: wanted.limit])
    return ListedSessions(sessions=page, after=page[-1].place if len(newest) > wanted.limit else None)


def _summary(session_id: str, session: SessionOrder, place: tuple[int, int]) -> SessionSummary:
    return SessionSummary(
        session_id=session_id,
        memories=len(session.order),
        tokens=session.tokens,
        first_ms=session.order[0][0],
        place=place,
    )
