"""Who may write which partition: the seam between the store and whoever decides.

The store asks for the epoch of a partition before each transaction, and the transaction itself checks it against the
table `part` (`actors.store.postgres.writer`): so a node that lost a partition, and does not know it yet, can write
nothing into it. Must never hand out an epoch that another owner has raised since, once that is known.
"""

from __future__ import annotations

import threading
from typing import Protocol
from uuid import uuid4

from actors.store.postgres.connection import PostgresConnection
from models.errors import NotOwner


class Ownership(Protocol):
    """Which partitions this node owns, now. Every method may be called in any thread and blocks nobody."""

    @property
    def owner(self) -> str:
        """This node's name with its incarnation, as in `part.owner`."""

    def epoch_nowait(self, part: int) -> int:
        """The epoch under which this node owns the partition.

        Raises:
            NotOwner: it does not; the error's `owner_address` is who does, as far as it is known.
        """

    def lost_nowait(self, part: int, epoch: int) -> None:
        """A transaction found that the partition has another owner or epoch. Later epochs are left as they are."""


class SoleOwnership:
    """Owns every partition from `take_all` on, without leases: for one node alone, tests and moves of data."""

    __slots__ = ("_epochs", "_lock", "_owner")

    def __init__(self, owner: str | None = None) -> None:
        self._owner = owner or f"sole-{uuid4().hex}"
        self._lock = threading.Lock()
        self._epochs: dict[int, int] = {}

    @property
    def owner(self) -> str:
        """See `Ownership`."""
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
        """See `Ownership`."""
        with self._lock:
            epoch = self._epochs.get(part)
        if epoch is None:
            raise NotOwner(f"Partition {part} is owned by another node.")
        return epoch

    def lost_nowait(self, part: int, epoch: int) -> None:
        """See `Ownership`."""
        with self._lock:
            if self._epochs.get(part) == epoch:
                del self._epochs[part]
