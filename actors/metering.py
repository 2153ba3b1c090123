"""Who counts what vaults learn, as vaults see it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from models.memory import InboxRow


class MemoryMeter(Protocol):
    """Counts new memories; see `actors.usage_journal`."""

    def learned(self, shard: int, row: InboxRow, stored: int) -> None:
        """An inbox row became so many new memories; told again when it is taken in again."""

    def gone(self, shard: int, row_ids: Collection[int]) -> None:
        """These rows cannot be taken in any more."""


class Unmetered:
    """Counts nothing."""

    def learned(self, shard: int, row: InboxRow, stored: int) -> None:
        """Nothing."""

    def gone(self, shard: int, row_ids: Collection[int]) -> None:
        """Nothing."""
