"""What each writing transaction does first: take the row that all others of its kind wait for, and number the commit.

Owns the fences: a partition's row, which also says whether this node may write there, and the directory's. The number
that a fence gives settles what became of an earlier transaction whose COMMIT got no answer: the row is locked then, so
nothing of it can be under way any more. Must be the first statement of the transaction.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol
from uuid import uuid4

from actors.store.database import one_row
from actors.store.ownership import Ownership
from actors.store.postgres.connection import PostgresConnection
from actors.store.postgres.schema import POSTGRES_MIGRATIONS
from models.errors import NotOwner, StoreUnavailable

_PART = "UPDATE part SET commits = commits + 1 WHERE part = ? AND owner = ? AND epoch = ? RETURNING commits"
_DIRECTORY = f"""UPDATE directory_state SET commits = commits + 1
  WHERE one = 1 AND NOT EXISTS (SELECT 1 FROM migration WHERE id > {len(POSTGRES_MIGRATIONS):d}) RETURNING commits"""
_OWN_LAST = "SELECT commits FROM directory_writer WHERE writer = ?"
_OWN_NEXT = """INSERT INTO directory_writer(writer, commits) VALUES (?, ?)
  ON CONFLICT (writer) DO UPDATE SET commits = excluded.commits, at = excluded.at"""
_BOTH = f"""WITH state AS ({_DIRECTORY})
  INSERT INTO directory_writer(writer, commits) SELECT ?, commits FROM state
  ON CONFLICT (writer) DO UPDATE SET commits = excluded.commits, at = excluded.at RETURNING commits"""


class Entered(NamedTuple):
    """A transaction behind its fence: its number, and whether the doubtful one before it was committed."""

    number: int
    doubtful_happened: bool = False


class Fence(Protocol):
    """One kind of transactions."""

    def enter(self, connection: PostgresConnection, part: int, *, doubtful: int | None = None) -> Entered:
        """Take the lock and the number.

        Args:
            connection: has just begun a transaction.
            part: the partition.
            doubtful: the number of this writer's last transaction, if its COMMIT got no answer.

        Raises:
            NotOwner: this node must not write here.
            StoreUnavailable: no node of this version may.
        """


class PartFence:
    """The row of a partition. Only its owner changes it, so its count decides."""

    __slots__ = ("_ownership",)

    def __init__(self, ownership: Ownership) -> None:
        self._ownership = ownership

    def enter(self, connection: PostgresConnection, part: int, *, doubtful: int | None = None) -> Entered:
        """See `Fence`."""
        epoch = self._ownership.epoch_nowait(part)
        row = one_row(connection, _PART, (part, self._ownership.owner, epoch))
        if row is None:
            self._ownership.lost_nowait(part, epoch)
            raise NotOwner(f"Partition {part} is owned by another node.")
        return Entered(row[0], doubtful_happened=doubtful is not None and row[0] > doubtful)


class DirectoryFence:
    """The row of the directory, which all nodes change: beside it each writer notes its own last transaction.

    A version that is older than the tables writes nothing: it was frozen, or cut off, while they were changed.
    """

    __slots__ = ("_writer",)

    def __init__(self) -> None:
        self._writer = uuid4().hex

    def enter(self, connection: PostgresConnection, part: int, *, doubtful: int | None = None) -> Entered:
        """See `Fence`."""
        if doubtful is None:
            entered = one_row(connection, _BOTH, (self._writer,))
            if entered is None:
                raise _outdated()
            return Entered(entered[0])
        row = one_row(connection, _DIRECTORY)
        if row is None:
            raise _outdated()
        (number,) = row
        last = one_row(connection, _OWN_LAST, (self._writer,))
        connection.execute(_OWN_NEXT, (self._writer, number))
        return Entered(number, doubtful_happened=last is not None and last[0] == doubtful)


def _outdated() -> StoreUnavailable:
    return StoreUnavailable("A newer version has changed the database's tables; this one must be replaced.")
