"""The owner of every partition: one node alone, without leases.

Owns the epochs that it raised in the table `part`, which every transaction checks (`actors.store.postgres.writer`).
Must never hand out an epoch that another owner has raised since, once that is known.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from uuid import uuid4

from actors.store.postgres.connection import PostgresConnection
from models.errors import NotOwner


class SoleOwnership:
    """Owns every partition from `take_all` on: for one node alone, tests and moves of data.

    Implements `actors.store.ownership.Ownership`.
    """

    __slots__ = ("_epochs", "_lock", "_owner")

    def __init__(self, owner: str | None = None) -> None:
        self._owner = owner or f"sole-{uuid4().hex}"
        self._lock = threading.Lock()
        self._epochs: dict[int, int] = {}

    @property
    def owner(self) -> str:
        """See `actors.store.ownership.Ownership`."""
        return self._owner

    def take_all(self, connection: PostgresConnection) -> None:
        """Become the owner of every partition, each in a transaction of its own. Whoever had it is fenced off. Blocks.

        Raises:
            DATABASE_ERRORS: some may be taken, and some not.
        """
        for (part,) in connection.execute("SELECT part FROM part ORDER BY part").fetchall():
            rows = connection.execute(
                "UPDATE part SET owner = ?, epoch = epoch + 1 WHERE part = ? RETURNING epoch", (self._owner, part)
            )
            ((epoch,),) = rows.fetchall()
            with self._lock:
                self._epochs[part] = epoch

    def epoch_nowait(self, part: int) -> int:
        """See `actors.store.ownership.Ownership`."""
        with self._lock:
            epoch = self._epochs.get(part)
        if epoch is None:
            raise NotOwner(f"Partition {part} is owned by another node.")
        return epoch

    def owned_nowait(self) -> Collection[int]:
        """See `actors.store.ownership.Ownership`."""
        with self._lock:
            return tuple(self._epochs)

    def lost_nowait(self, part: int, epoch: int) -> None:
        """See `actors.store.ownership.Ownership`."""
        with self._lock:
            if self._epochs.get(part) == epoch:
                del self._epochs[part]
