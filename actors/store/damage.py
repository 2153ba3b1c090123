"""What the store says about damage: the errors of a file that refuses to serve, and the log lines of damaged rows.

Owns the words. Log lines carry vault numbers and row ids, never content.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec

from models.errors import ShardDamaged

RETRY_AFTER_S = 60
"""What a refused client is told: the operator has to act first."""
ROW_IDS_LOGGED_MAX = 20

_HINT = "Restore a backup, or run `memoryrouter doctor --accept-loss` to go on with what is left."
_HINT_FOR_META = "Restore a backup: nothing else holds the keys of the vaults."

_log = logging.getLogger(__name__)


def behind_its_counter(name: str, *, found: int, wanted: int) -> ShardDamaged:
    """The refusal of a file whose last durable commits are gone, logged."""
    _log.critical(
        "%s lost %d durable commits: it holds %d, its commit counter says %d. It refuses to serve. %s",
        name, wanted - found, found, wanted, _HINT,
    )  # fmt: skip
    return _refusal(f"The database {name} lost {wanted - found} durable commits.")


def missing(name: str) -> ShardDamaged:
    """The refusal of a file that should be there, logged."""
    hint = _hint_without(name)
    _log.critical("%s is missing. It refuses to serve. Put the file back. %s", name, hint)
    return _refusal(f"The database {name} is missing.", hint)


def unreadable(name: str, error: Exception) -> ShardDamaged:
    """The refusal of a file that is no database (any more), logged."""
    hint = _hint_without(name)
    _log.critical("%s cannot be read: %s. It refuses to serve. %s", name, type(error).__name__, hint)
    return _refusal(f"The database {name} cannot be read.", hint)


def _hint_without(name: str) -> str:
    """What to do when nothing of a file is left."""
    return _HINT_FOR_META if name.startswith("meta") else _HINT


def _refusal(message: str, hint: str = _HINT) -> ShardDamaged:
    return ShardDamaged(message, hint=hint, retry_after_s=RETRY_AFTER_S)


class DamagedRows(msgspec.Struct, frozen=True):
    """Ids of one vault's rows that fail their checksum."""

    memories: tuple[int, ...] = ()
    embeddings: tuple[int, ...] = ()
    inbox: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """How many rows these are."""
        return len(self.memories) + len(self.embeddings) + len(self.inbox)


def log_damaged_rows(vault_number: int, damaged: DamagedRows) -> None:
    """One line for each table. A damaged embedding is computed again, so it is no loss."""
    tables: tuple[tuple[int, str, Sequence[int], str], ...] = (
        (logging.CRITICAL, "memory", damaged.memories, "left out"),
        (logging.CRITICAL, "inbox", damaged.inbox, "set aside"),
        (logging.ERROR, "embedding", damaged.embeddings, "computed again"),
    )
    for level, table, row_ids, fate in tables:
        if row_ids:
            shown = ", ".join(map(str, row_ids[:ROW_IDS_LOGGED_MAX]))
            more = ", ..." if len(row_ids) > ROW_IDS_LOGGED_MAX else ""
            _log.log(
                level, "vault %d: %d damaged %s rows, %s: %s%s",
                vault_number, len(row_ids), table, fate, shown, more,
            )  # fmt: skip
