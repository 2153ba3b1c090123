"""The rows of all live vaults, copied from one store to another as they are sealed, and compared there one by one.

Owns the order (by partition of the target, then by number), the size of the transactions, and where a move that was cut
off goes on. Rows are opened only where a number that they are sealed with means something else at the target: a shard
file that numbered its models in another order, or inbox rows of two partitions with one id that meet in one file. Must
never change a row that does not open, nor one of the source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, zip_longest

import msgspec

from actors.store.database import all_rows, one_row
from actors.store.migrating_ends import TABLES, End, Row, placed_at
from actors.store.progress import Report
from actors.store.seal import DataKey, ServerKey, Table
from models.errors import CorruptRow, SetupError
from models.ids import VaultNumber, VaultRef

TRANSACTION_ROWS = 2_048
"""After so many rows a transaction ends; one of many small vaults as well as one within a large vault."""
TRANSACTION_BYTES = 4 * 1024 * 1024

_SEALED_AS = {"embedding": Table.EMBEDDING, "inbox": Table.INBOX}


class Moved(msgspec.Struct, frozen=True):
    """How much there is of each table at the target, and how many rows had to be sealed anew."""

    vaults: int
    rows: dict[str, int]
    sealed_anew: int


class Pair(msgspec.Struct, frozen=True):
    """One vault at both ends."""

    source: VaultRef
    target: VaultRef


def vault_pairs(source: End, target: End) -> list[Pair]:
    """Live vaults in the order in which they are copied."""
    rows = all_rows(source.directory, "SELECT number, shard FROM vault WHERE state = 0")
    pairs = [
        Pair(VaultRef(number=VaultNumber(number), shard=shard), placed_at(number, target)) for number, shard in rows
    ]
    return sorted(pairs, key=lambda pair: (pair.target.shard, pair.target.number))


class Numbering:
    """Which number each model of each partition of the source has at the target. The same however often it is asked."""

    def __init__(self, source: End) -> None:
        self.models: dict[int, tuple[str, int]] = {}
        self._numbers: dict[int, dict[int, int]] = {}
        found = {partition: source.models(partition) for partition in range(source.partitions)}
        known = {}
        for model in dict.fromkeys(chain.from_iterable(models.items() for models in found.values())):
            number, (model_id, dims) = model
            if model_id in known:
                continue
            if number in self.models:
                number = 1 + max(self.models, default=0)
                number = max(number, 1 + max((max(models, default=0) for models in found.values()), default=0))
            self.models[number] = (model_id, dims)
            known[model_id] = number
        for partition, models in found.items():
            self._numbers[partition] = {number: known[model_id] for number, (model_id, _) in models.items()}

    def number_of(self, partition: int, number: int) -> int:
        """The target's number of a model; of one that nobody knows it stays."""
        return self._numbers[partition].get(number, number)


class VaultMover:
    """Copies and compares vaults. Blocks.

    Attributes:
        sealed_anew: rows that could not stay as they are sealed.
    """

    def __init__(self, source: End, target: End, *, server_key: ServerKey, resumed: bool) -> None:
        self._source = source
        self._target = target
        self._server_key = server_key
        self._resumed = resumed
        self._numbering = Numbering(source)
        self._begun: VaultRef | None = None
        self._rows = 0
        self._bytes = 0
        self.sealed_anew = 0

    # --- copying ---

    def copy(self, pairs: Sequence[Pair], *, start: int, report: Report, on_commit: Callable[[int], None]) -> None:
        """Copy vaults from the place `start` on.

        Args:
            pairs: all of them, in order.
            start: how many are there already.
            report: told how many memories are copied, of how many.
            on_commit: told how many vaults are complete and durable, whenever that changed.
        """
        self._target.add_models(self._numbering.models)
        total = self._source.memories()
        copied = sum(self._source.size(pair.source).memories for pair in pairs[:start])
        for done, pair in enumerate(pairs[start:], start):
            if self._begun is not None and (self._begun.shard != pair.target.shard or self._is_large()):
                self._commit()
                on_commit(done)
            copied += self._copy_vault(pair, partial(_report_more, report, copied, total))
        if self._begun is not None:
            self._commit()
        on_commit(len(pairs))
        report(total, total)

    def _copy_vault(self, pair: Pair, report: Callable[[int], None]) -> int:
        """Copy one vault; how many memories that were."""
        memories = 0
        for table in TABLES:
            after = 0
            if table in ("inbox", "damaged_inbox"):
                self._copy_inbox(table, pair)
                continue
            if self._resumed:
                after = self._target.last_id(table, pair.target)
            for rows in self._source.rows(table, pair.source, after=after):
                self._write(
                    table, pair, [self._renumbered(pair, row) for row in rows] if table == "embedding" else rows
                )
                if table == "memory":
                    memories += len(rows)
                    report(memories)
        self._begin(pair)
        self._target.finish_vault(pair.target, self._source.state(pair.source))
        return memories

    def _copy_inbox(self, table: str, pair: Pair) -> None:
        """Copy inbox rows; with new ids behind all others if there is one of another vault with an id of them."""
        if self._resumed:  # their ids need not be those of the source
            self._begin(pair)
            self._target.clear(table, pair.target)
        meets = any(
            self._target.taken_ids(table, pair.target, [row.id for row in rows])
            for rows in self._source.rows(table, pair.source)
        )
        next_id = self._target.free_id(pair.target) if meets else 0
        for rows in self._source.rows(table, pair.source):
            placed = rows
            if meets:
                placed = [
                    self._sealed_anew(pair, table, row, row._replace(id=next_id + place))
                    for place, row in enumerate(rows)
                ]
                next_id += len(rows)
            self._write(table, pair, placed)

    def _renumbered(self, pair: Pair, row: Row) -> Row:
        model = self._numbering.number_of(pair.source.shard, row.extra)
        return row if model == row.extra else self._sealed_anew(pair, "embedding", row, row._replace(extra=model))

    def _sealed_anew(self, pair: Pair, table: str, row: Row, wanted: Row) -> Row:
        """The row under another id or model number; with the body as it is if that does not open."""
        plaintext = self._opened(pair, table, row)
        key = self._key(pair)
        if plaintext is None or key is None:
            return wanted
        self.sealed_anew += 1
        qualifier = wanted.extra if table == "embedding" else 0
        return wanted._replace(body=key.seal(_SEALED_AS[table], wanted.id, plaintext, qualifier=qualifier))

    def _opened(self, pair: Pair, table: str, row: Row) -> bytes | None:
        key = self._key(pair)
        if key is None or table not in _SEALED_AS:
            return None
        damaged: list[int] = []
        qualifier = row.extra if table == "embedding" else 0
        opened = key.unseal_rows(_SEALED_AS[table], [(row.id, row.body)], qualifier=qualifier, damaged=damaged)
        return next((body for _, body in opened), None)

    def _key(self, pair: Pair) -> DataKey | None:
        number = int(pair.source.number)
        row = one_row(self._source.directory, "SELECT wrapped FROM vault_key WHERE vault = ?", (number,))
        try:
            return None if row is None else self._server_key.unwrap_data_key(number, row[0])
        except CorruptRow:
            return None

    def _begin(self, pair: Pair) -> None:
        if self._begun is None:
            self._target.begin(pair.target)
            self._begun = pair.target
            self._rows = self._bytes = 0

    def _write(self, table: str, pair: Pair, rows: Sequence[Row]) -> None:
        if self._is_large():
            self._commit()
        self._begin(pair)
        self._target.write(table, pair.target, rows)
        self._rows += len(rows)
        self._bytes += sum(len(row.body) for row in rows)

    def _is_large(self) -> bool:
        return self._begun is not None and (self._rows >= TRANSACTION_ROWS or self._bytes >= TRANSACTION_BYTES)

    def _commit(self) -> None:
        assert self._begun is not None
        self._target.commit(self._begun)
        self._begun = None

    # --- comparing ---

    def verify(self, pairs: Sequence[Pair], *, report: Report) -> Moved:
        """Compare every row of every vault, and what is counted of it.

        Raises:
            SetupError: something differs.
        """
        total = self._source.memories()
        compared = 0
        counts = dict.fromkeys(TABLES, 0)
        for pair in pairs:
            for table in TABLES:
                rows = self._compare(table, pair)
                counts[table] += rows
                compared += rows if table == "memory" else 0
            if self._source.state(pair.source) != self._target.state(pair.target):
                raise _differs(pair, "state")
            if self._source.size(pair.source) != self._target.size(pair.target):
                raise _differs(pair, "size")
            report(compared, total)
        report(total, total)
        return Moved(vaults=len(pairs), rows=counts, sealed_anew=self.sealed_anew)

    def _compare(self, table: str, pair: Pair) -> int:
        count = 0
        ours, theirs = _flat(self._source.rows(table, pair.source)), _flat(self._target.rows(table, pair.target))
        for row, found in zip_longest(ours, theirs):
            if row is None or found is None or not (row == found or self._mean_the_same(table, pair, row, found)):
                raise _differs(pair, table)
            count += 1
        return count

    def _mean_the_same(self, table: str, pair: Pair, row: Row, found: Row) -> bool:
        """Whether two rows of different ids, model numbers or bodies are one that had to be sealed anew."""
        if table == "embedding":
            model = self._numbering.number_of(pair.source.shard, row.extra)
            if (row.id, model) != (found.id, found.extra) or model == row.extra:
                return False
        elif table == "memory" or row.id == found.id or row.extra != found.extra:
            return False
        plaintext = self._opened(pair, table, row)
        return row.body == found.body if plaintext is None else plaintext == self._opened(pair, table, found)


def _report_more(report: Report, before: int, total: int, rows: int) -> None:
    report(min(before + rows, total), total)


def _flat(batches: Iterator[list[Row]]) -> Iterator[Row]:
    return chain.from_iterable(batches)


def _differs(pair: Pair, what: str) -> SetupError:
    return SetupError(
        f"The copy of vault {pair.source.number} differs from its source ({what}).",
        hint="Was one of the stores in use? Empty the target and begin again.",
    )
