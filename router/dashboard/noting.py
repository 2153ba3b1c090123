"""What the dashboard gets to know of requests as they are answered: how they ended and how long they took.

Reads an answer's status and those of its headers that are ours. Must never look into a body.
"""

from __future__ import annotations

from collections.abc import Callable

from router.auth import Caller
from router.components import Components
from router.dashboard.recent import Answered, Kind

_PROVIDER, _RECALL_MS, _OVERHEAD_MS = "X-Provider-Detected", "X-MR-Processing-Ms", "X-MR-Overhead-Ms"
_RECALLING = frozenset({"/v1/memory/prepare", "/v1/memory/search"})


def note_answer(
    components: Components,
    caller: Caller | None,
    *,
    route: str,
    status: int,
    header: Callable[[str], str | None],
    took_s: float,
) -> None:
    """Count an answer for the account of its caller; one that nobody is known to have asked for counts nowhere.

    Args:
        header: the answer's header of a name.
    """
    if caller is None:
        return
    took_ms: dict[Kind, float] = {"all": took_s * 1000}
    provider = header(_PROVIDER) or ""
    if route in _RECALLING:
        took_ms["recall"] = took_s * 1000
    elif provider:
        _put(took_ms, "recall", header(_RECALL_MS))
        _put(took_ms, "chat_overhead", header(_OVERHEAD_MS))
        if status < 400:
            took_ms["chat_first_byte"] = took_s * 1000
    known = provider if provider in components.settings.providers.by_name else ""
    answered = Answered(status=status, took_ms=took_ms, provider=known)
    components.dashboard.recent.add(caller.principal.account_number, answered)


def _put(took_ms: dict[Kind, float], kind: Kind, text: str | None) -> None:
    """A header's milliseconds, unless nothing was done."""
    try:
        value = float(text or 0)
    except ValueError:
        return
    if value > 0:
        took_ms[kind] = value
