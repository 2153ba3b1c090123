"""The two ends of a move of a store, as it is stored: a data directory and a PostgreSQL database behind one interface.

Rows of vaults travel sealed, as (id, extra, body): `extra` is the number of an embedding's model, or when a damaged
inbox row was set aside. The ends are `actors.store.migrating_sqlite` and `actors.store.migrating_postgres`; nobody else
uses either store meanwhile. Pure of Trio. Must never open a row by itself, nor write a body that it was not given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from actors.store.database import Connection
from actors.store.vault_bodies import row_range
from models.ids import VaultNumber, VaultRef

ROWS_A_BATCH = 256
"""Rows that are read at a time; bodies of embeddings have about a kilobyte, those of long memories some dozens."""
TABLES = ("memory", "embedding", "inbox", "damaged_inbox")
OWN_IDS = frozenset({"memory", "embedding"})
"""Tables whose ids say which vault a row is of; the others name it."""
EXTRA = {"memory": None, "embedding": "model", "inbox": None, "damaged_inbox": "set_aside_ms"}


class Row(NamedTuple):
    """A sealed row of a vault: its id, what else stands beside the body (0 without), and the sealed body."""

    id: int
    extra: int
    body: bytes


class VaultState(NamedTuple):
    """What is kept of a vault beside its rows."""

    next_seq: int
    embedder: str | None
    moves: int


class VaultSize(NamedTuple):
    """What the store says that a vault holds."""

    memories: int
    content_bytes: int


class End(Protocol):
    """One of the two stores. A vault's `shard` is its partition here: another one than on the other side."""

    @property
    def name(self) -> str:
        """How it is called in messages, without a password."""

    @property
    def partitions(self) -> int:
        """How many it has; a vault is in partition `number % partitions`, unless it says otherwise."""

    @property
    def directory(self) -> Connection:
        """For the directory's tables."""

    def models(self, partition: int) -> dict[int, tuple[str, int]]:
        """Ids and dimensions of the models of a partition, by the numbers that its embeddings are sealed with."""

    def state(self, vault: VaultRef) -> VaultState | None:
        """What is kept of a vault; None for one that never had a memory."""

    def size(self, vault: VaultRef) -> VaultSize:
        """How much it holds, by the store's own counters."""

    def rows(self, table: str, vault: VaultRef, *, after: int = 0) -> Iterator[list[Row]]:
        """A vault's rows of a table behind an id, in order, in lists that are not empty."""

    def last_id(self, table: str, vault: VaultRef) -> int:
        """The largest id of a vault's rows of a table, or 0."""

    def commits(self) -> int:
        """The largest number that any partition gave to a commit."""

    def fingerprint(self) -> list[int]:
        """Counters that tell whether anything was written since."""

    def add_models(self, models: dict[int, tuple[str, int]]) -> None:
        """Make models known, in every partition, under these numbers; those that are known already stay."""

    def taken_ids(self, table: str, vault: VaultRef, ids: Sequence[int]) -> bool:
        """Whether a row of another vault has one of these ids, in a table whose ids may not meet."""

    def free_id(self, vault: VaultRef) -> int:
        """An id behind all of the inbox rows in the vault's partition."""

    def begin(self, vault: VaultRef) -> None:
        """Begin a transaction in the vault's partition."""

    def clear(self, table: str, vault: VaultRef) -> None:
        """Remove what a vault has in a table."""

    def write(self, table: str, vault: VaultRef, rows: Sequence[Row]) -> None:
        """Add rows to a table."""

    def finish_vault(self, vault: VaultRef, state: VaultState | None) -> None:
        """Write what is kept of a vault, after its rows."""

    def commit(self, vault: VaultRef) -> None:
        """End the transaction; what it wrote is durable."""

    def set_commits(self, commits: int) -> None:
        """Let every partition number its next commit above this."""

    def memories(self) -> int:
        """How many there are in all."""

    def in_order(self, statement: str) -> Iterator[list[Any]]:
        """What a statement on the directory finds, in lists. Nothing else can be asked before its end."""

    def keep(self, name: str, value: str | None) -> None:
        """Write a setting of the store itself, or remove it."""

    def kept(self, name: str) -> str | None:
        """A setting that `keep` wrote."""

    def numbers(self) -> dict[str, int]:
        """The last number that was given to a row of each of the directory's tables."""

    def set_numbers(self, numbers: dict[str, int]) -> None:
        """Let new rows get numbers above these."""


def range_of(table: str, vault: VaultRef, after: int) -> tuple[str, tuple[int, ...]]:
    """The condition for a vault's rows of a table behind an id."""
    if table in OWN_IDS:
        low, high = row_range(vault.number)
        return "id > ? AND id <= ?", (max(after, low), high)
    return "vault = ? AND id > ?", (vault.number, after)


def columns_of(table: str) -> str:
    """What is read of a table for a `Row`."""
    return f"id, {EXTRA[table] or '0'}, body"


def placed_at(number: int, end: End) -> VaultRef:
    """Where a vault of this number belongs at an end."""
    return VaultRef(number=VaultNumber(number), shard=number % end.partitions)


def in_batches(read: Callable[[int], list[Row]], after: int) -> Iterator[list[Row]]:
    """What `read` finds behind an id, at most `ROWS_A_BATCH` rows a time, until it finds fewer; no empty lists."""
    while True:
        rows = read(after)
        if rows:
            yield rows
        if len(rows) < ROWS_A_BATCH:
            return
        after = rows[-1].id
