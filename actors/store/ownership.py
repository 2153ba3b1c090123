"""Who may write which partition: the seam between the store and whoever decides.

A partition is a shard file of SQLite or a part of PostgreSQL's tables. The store asks for its epoch before it writes.
On PostgreSQL the transaction itself checks the epoch against the table `part` (`actors.store.postgres.writer`), so that
a node that lost a partition, and does not know it yet, can write nothing into it; on SQLite a file has one process that
writes it, for as long as that lives (`actors.store.worker_files`). Must never hand out an epoch that another owner has
raised since, once that is known.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol


class Ownership(Protocol):
    """Which partitions this node or worker owns, now. Every method may be called in any thread and blocks nobody."""

    @property
    def owner(self) -> str:
        """This node's name with its incarnation, as in `part.owner`, or this worker's."""

    def epoch_nowait(self, part: int) -> int:
        """The epoch under which this node owns the partition.

        Raises:
            NotOwner: it does not; the error's `owner_address` is who does, as far as it is known.
        """

    def owned_nowait(self) -> Collection[int]:
        """The partitions whose epochs it would tell."""

    def lost_nowait(self, part: int, epoch: int) -> None:
        """A transaction found that the partition has another owner or epoch. Later epochs are left as they are."""
