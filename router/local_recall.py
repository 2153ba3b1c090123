"""`local/recall`: a built-in model that answers from the vault's best memories, with no provider and no LLM.

Owns its wording; `router.local_formats` gives it the shape of each wire format. Must never say more than the memories
do: it quotes, it does not infer. The same memories always give the same reply.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from models.memory import Role

ITEMS_MAX = 5
"""Memories in one reply: a reply is read by people, a context by models."""

_OTHER_CHARACTERS_MAX = 300
NOTHING_FOUND = "I do not find anything about that in your memories."


class RecalledItem(msgspec.Struct, frozen=True):
    """One memory to answer from.

    Attributes:
        when: the time as a person reads it, e.g. "Wed, Jun 3, 9:14 AM".
        timestamp_ms: the same time, to tell which statement is the newest.
    """

    text: str
    role: Role
    when: str
    timestamp_ms: int


def reply_text(recalled: Sequence[RecalledItem], *, items_max: int = ITEMS_MAX) -> str:
    """The reply that these memories give.

    Args:
        recalled: only relevant ones, the best first.

    Returns:
        The best memory first and verbatim; the others, shortened, in a list that marks the newest statement.
    """
    items = _distinct(recalled)[:items_max]
    if not items:
        return NOTHING_FOUND
    best, others = items[0], items[1:]
    if not others:
        return _sentence(best)
    newest = max(items, key=lambda item: item.timestamp_ms)
    lines = [_entry(item, is_newest=item is newest) for item in others]
    suffix = " (the newest on this)" if best is newest else ""
    return "\n".join([f"{_sentence(best)}{suffix}", "", "Also in your memories:", *lines])


def _distinct(recalled: Sequence[RecalledItem]) -> list[RecalledItem]:
    seen: dict[str, RecalledItem] = {}
    for item in recalled:
        seen.setdefault(" ".join(item.text.split()).casefold(), item)
    return list(seen.values())


def _sentence(item: RecalledItem) -> str:
    speaker = "You told me" if item.role == "user" else "I told you"
    return f'{speaker} on {item.when}: "{item.text}"'


def _entry(item: RecalledItem, *, is_newest: bool) -> str:
    speaker = "you" if item.role == "user" else "I"
    text = " ".join(item.text.split())
    if len(text) > _OTHER_CHARACTERS_MAX:
        text = text[: _OTHER_CHARACTERS_MAX - 1].rstrip() + "…"
    return f'- {item.when}{", the newest" if is_newest else ""}, {speaker} said: "{text}"'
