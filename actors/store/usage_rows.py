"""Usage in meta.db: counts by account, day, key and model, and how far each journal of them is folded in.

Pure of threads and of Trio: every function gets the connection that it works on. Counts are only ever added, in the
transaction that notes the journal file that they come from, so that no file counts twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from actors.store.database import Connection, all_rows, one_row
from models.usage import UsageCount

_NAMES = {"account_number": "account", "day": "day", "key_number": "key", "model": "model"}
_SUMS = tuple(name for name in UsageCount.__struct_fields__ if name not in _NAMES)
_FIELDS = (*_NAMES, *_SUMS)
_COLUMNS = ", ".join(f'"{_NAMES.get(name, name)}"' for name in _FIELDS)
_ADDED = ", ".join(f"{name} = usage.{name} + excluded.{name}" for name in _SUMS)
_ADD = (
    f"INSERT INTO usage({_COLUMNS}) VALUES ({', '.join('?' * len(_FIELDS))}) "
    f"ON CONFLICT(account, day, key, model) DO UPDATE SET {_ADDED}"
)


def fold_usage(
    connection: Connection, journal: str, number: int, counts: Sequence[UsageCount], last_used: Mapping[int, int]
) -> None:
    """Add the counts of one journal file, unless they are in already."""
    if number <= folded_through(connection, journal):
        return
    connection.execute(
        "INSERT INTO usage_fold(journal, number) VALUES (?, ?) "
        "ON CONFLICT(journal) DO UPDATE SET number = excluded.number",
        (journal, number),
    )
    connection.executemany(_ADD, [tuple(getattr(count, name) for name in _FIELDS) for count in counts])
    connection.executemany(
        "UPDATE key SET last_used_ms = ?1 WHERE number = ?2 AND coalesce(last_used_ms, -1) < ?1",
        [(used_ms, key) for key, used_ms in last_used.items()],
    )


def folded_through(connection: Connection, journal: str) -> int:
    """The number of the last file of this journal that was folded; -1 before the first."""
    row = one_row(connection, "SELECT number FROM usage_fold WHERE journal = ?", (journal,))
    return -1 if row is None else int(row[0])


def load_usage(
    connection: Connection, account: int, *, key: int | None, first_day: int, last_day: int
) -> list[UsageCount]:
    """Counts of an account, or of one of its keys, from one day through another."""
    condition = "" if key is None else "AND key = ? "
    bindings = (account, first_day, last_day) if key is None else (account, first_day, last_day, key)
    rows = all_rows(
        connection,
        f"SELECT {_COLUMNS} FROM usage WHERE account = ? AND day BETWEEN ? AND ? {condition}ORDER BY day, key, model",
        bindings,
    )
    return [UsageCount(**dict(zip(_FIELDS, row, strict=True))) for row in rows]


def prune_usage(connection: Connection, before_day: int) -> None:
    """Delete the counts of all days before this one."""
    connection.execute("DELETE FROM usage WHERE day < ?", (before_day,))
