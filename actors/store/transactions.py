"""What a committer thread asks of whoever writes for it: SQLite's `writer.Writer`, PostgreSQL's `postgres.writer`.

Knows neither thread nor queue: all methods block and are called in the committer's thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from actors.store.tickets import Outcome, Ticket
from models.errors import ShardDamaged


class TransactionWriter(Protocol):
    """The writing connection of one database, or of some of its partitions.

    Attributes:
        damage: why it must not be served, once that is known; every job gets it.
        truncate_owed: whether what was erased can still be read, and must not be confirmed therefore.
        wal_bytes: how much `checkpoint` has to clear away.
    """

    damage: ShardDamaged | None
    truncate_owed: bool
    wal_bytes: int

    def groups(self, tickets: list[Ticket[Any]]) -> list[list[Ticket[Any]]]:
        """The jobs that share a transaction each, all in the order in which they were queued."""

    def commit(self, tickets: Sequence[Ticket[Any]]) -> list[Outcome]:
        """Run all jobs in one transaction; each outcome is durable or had no effect."""

    def truncate_or_owe(self) -> None:
        """Clear away what was erased now, or leave `truncate_owed` set."""

    def checkpoint(self, mode: int, *, busy_timeout_ms: int = 0) -> None:
        """Clear away what is behind. `mode` is one of SQLite's. A failure costs nothing durable."""

    def give_room_back(self) -> bool:
        """Return free pages to a full disk, a step at a time; True when there are more."""

    def discard_connection(self) -> None:
        """Drop a connection that failed."""

    def close(self) -> None:
        """Close it in an orderly way."""
