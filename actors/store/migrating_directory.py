"""The directory's tables, copied from one store to another and compared there.

Owns the list of tables, their columns and their order: a row comes after those that it refers to. Must never delete a
row of the target: wrapped keys that were deleted would stay in gaps of its pages, where no erasure finds them again. So
what is there already is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, zip_longest
from typing import Any, NamedTuple

from actors.store.migrating_ends import End
from models.errors import SetupError


class DirectoryTable(NamedTuple):
    """A table of both ends.

    Attributes:
        order: the columns of its primary key, as they are sorted.
        counted: columns that triggers fill, so that they are compared but not copied.
    """

    name: str
    columns: tuple[str, ...]
    order: str
    counted: tuple[str, ...] = ()


DIRECTORY_TABLES = (
    DirectoryTable(
        "account", ("number", "created_ms", "name", "disabled_ms", "deleted_ms", "retention_days"), "number"
    ),
    DirectoryTable(
        "vault", ("number", "account", "shard", "state", "created_ms", "retention_days"), "number", ("open_keys",)
    ),
    DirectoryTable("vault_key", ("vault", "wrapped"), "vault"),
    DirectoryTable("erasure", ("vault", "erased_ms"), "vault"),
    DirectoryTable(
        "key",
        ("number", "account", "vault", "kind", "name", "shown", "hash", "created_ms", "revoked_ms", "disabled_ms",
         "expires_ms", "last_used_ms", "rotated_to", "limits"),
        "number DESC",  # a key is rotated to a later one
    ),
    DirectoryTable(
        "provider_key", ("number", "account", "provider", "last_four", "mark", "created_ms", "erased_ms"), "number"
    ),
    DirectoryTable("provider_secret", ("provider_key", "sealed"), "provider_key"),
    DirectoryTable("provider_erasure", ("mark", "erased_ms"), "mark"),
    DirectoryTable(
        "audit", ("number", "at_ms", "account", "actor", "action", "target", "detail", "request_id"), "number"
    ),
    DirectoryTable(
        "usage",
        ("account", "day", "key", "model", "requests", "memories_stored", "tokens_retrieved", "tokens_injected",
         "tokens_billed", "input_tokens", "output_tokens", "errors", "latency_ms_sum"),
        "account, day, key, model",
    ),
    DirectoryTable("usage_fold", ("journal", "number"), "journal"),
)  # fmt: skip


def copy_directory(source: End, target: End) -> None:
    """Copy all tables, each batch of rows in one transaction. What is there already stays. Blocks."""
    for table in DIRECTORY_TABLES:
        marks = ", ".join("?" * len(table.columns))
        statement = f"INSERT INTO {table.name}({', '.join(table.columns)}) VALUES ({marks}) ON CONFLICT DO NOTHING"
        for rows in source.in_order(f"SELECT {', '.join(table.columns)} FROM {table.name} ORDER BY {table.order}"):
            target.directory.execute("BEGIN")
            target.directory.executemany(statement, [_placed(table, row, target) for row in rows])
            target.directory.execute("COMMIT")
    target.set_numbers(source.numbers())


def compare_directory(source: End, target: End) -> dict[str, int]:
    """Compare all tables row by row; how many rows each has. Blocks.

    Raises:
        SetupError: something differs.
    """
    counts = {}
    for table in DIRECTORY_TABLES:
        columns = ", ".join((*table.columns, *table.counted))
        statement = f"SELECT {columns} FROM {table.name} ORDER BY {table.order}"
        ours, theirs = _flat(source.in_order(statement)), _flat(target.in_order(statement))
        count = 0
        for row, found in zip_longest(ours, theirs):
            if row is None or found is None or _placed(table, row, target) != tuple(found):
                raise SetupError(
                    f"The copy of the table {table.name} differs from its source.",
                    hint="Was one of the stores in use? Empty the target and begin again.",
                )
            count += 1
        counts[table.name] = count
    found_numbers = target.numbers()
    if any(found_numbers.get(name, 0) < number for name, number in source.numbers().items()):
        raise SetupError("The copy would give numbers out again that its source has given.")
    return counts


def _placed(table: DirectoryTable, row: Sequence[Any], target: End) -> tuple[Any, ...]:
    """A row as it is to be at the target: a vault is in another partition there."""
    if table.name != "vault":
        return tuple(row)
    number, account, _, *rest = row
    return number, account, number % target.partitions, *rest


def _flat(batches: Iterator[list[Any]]) -> Iterator[Any]:
    return chain.from_iterable(batches)
