"""`X-Memory-Ids`: which memories a request was given, so that an app can show them, and delete those that do harm.

Owns the order and the bound of that header. Must never name a memory that the model did not see.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from models.memory import memory_id
from models.messages import Hit
from models.packing import Entry

MEMORY_IDS = "X-Memory-Ids"
CHARACTERS_MAX = 4_000
"""Proxies commonly take 8 kB of headers in all. A context of the default density needs a tenth of this."""


def ids_of(hits: Iterable[Hit], entries: Iterable[Entry]) -> tuple[str, ...]:
    """The memories of a context: those that were found, best first, then those that stand beside them.

    Args:
        hits: those that made it into the context.
    """
    found = [memory_id(hit.memory) for hit in hits]
    shown = [memory_id(piece.memory) for entry in entries for piece in entry]
    return tuple(dict.fromkeys([*found, *shown]))


def ids_header(ids: Sequence[str]) -> str:
    """`mem_7,mem_3`; empty for none. Where they are too many, how many are left out stands last: `mem_7,...,+12`."""
    listed = ",".join(ids)
    if len(listed) <= CHARACTERS_MAX:
        return listed
    room = CHARACTERS_MAX - len(f",+{len(ids)}")
    kept = listed[: listed.rindex(",", 0, room + 1)]
    return f"{kept},+{len(ids) - kept.count(',') - 1}"
