"""Accounts in meta.db: the tenants of a server.

Pure of threads and of Trio: every function gets the connection of the transaction that it runs in. An account's row is
never deleted: its number stays taken, and usage and audit entries go on pointing to it.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from actors.store.database import Connection, all_rows, one_row
from actors.store.keys import NOT_OVER
from models.accounts import AccountChange, AccountRecord
from models.errors import NotFound

_COLUMNS = """number, name, created_ms, disabled_ms, retention_days,
  (SELECT count(*) FROM key WHERE key.account = account.number AND {not_over}),
  (SELECT count(*) FROM vault WHERE vault.account = account.number AND vault.state = 0)"""


def has_account(connection: Connection) -> bool:
    """Whether there ever was one."""
    return one_row(connection, "SELECT 1 FROM account LIMIT 1") is not None


def insert_account(connection: Connection, *, name: str, created_ms: int) -> int:
    """A new account; its number."""
    statement = "INSERT INTO account(name, created_ms) VALUES (?, ?) RETURNING number"
    return int(one_row(connection, statement, (name, created_ms))[0])


def check_account(connection: Connection, number: int) -> None:
    """Whether there is such an account.

    Raises:
        NotFound: there is none (any more).
    """
    if one_row(connection, "SELECT 1 FROM account WHERE number = ? AND deleted_ms IS NULL", (number,)) is None:
        raise NotFound(f"Account {number} does not exist.")


def get_account(connection: Connection, number: int, *, now_ms: int) -> AccountRecord:
    """One account.

    Raises:
        NotFound: there is none (any more).
    """
    check_account(connection, number)
    (row,) = all_rows(connection, f"SELECT {_columns(now_ms)} FROM account WHERE number = ?", (number,))
    return _record(row)


def list_accounts(connection: Connection, *, after: int, limit: int, now_ms: int) -> list[AccountRecord]:
    """Accounts that are not deleted, behind a number."""
    rows = all_rows(
        connection,
        f"SELECT {_columns(now_ms)} FROM account WHERE number > ? AND deleted_ms IS NULL ORDER BY number LIMIT ?",
        (after, limit),
    )
    return [_record(row) for row in rows]


def _columns(now_ms: int) -> str:
    return _COLUMNS.format(not_over=NOT_OVER.format(now_ms=now_ms))


def _record(row: tuple[int, str, int, int | None, int | None, int, int]) -> AccountRecord:
    number, name, created_ms, disabled_ms, retention_days, live_keys, vaults = row
    return AccountRecord(
        number=number,
        name=name,
        created_ms=created_ms,
        disabled_ms=disabled_ms,
        retention_days=retention_days,
        live_keys=live_keys,
        vaults=vaults,
    )


def change_account(connection: Connection, number: int, change: AccountChange, *, now_ms: int) -> AccountRecord:
    """Change what is set in `change`.

    Raises:
        NotFound: there is no such account.
    """
    before = get_account(connection, number, now_ms=now_ms)
    disabled_ms = before.disabled_ms
    if change.disabled is not UNSET:
        disabled_ms = (disabled_ms or now_ms) if change.disabled else None
    after = msgspec.structs.replace(
        before,
        name=before.name if change.name is UNSET else change.name,
        disabled_ms=disabled_ms,
        retention_days=before.retention_days if change.retention_days is UNSET else change.retention_days,
    )
    connection.execute(
        "UPDATE account SET name = ?, disabled_ms = ?, retention_days = ? WHERE number = ?",
        (after.name, after.disabled_ms, after.retention_days, number),
    )
    return after


def mark_deleted(connection: Connection, number: int, *, now_ms: int) -> int:
    """Take an account and the names in it out of use; when it was created.

    Raises:
        NotFound: there is none (any more).
    """
    row = one_row(
        connection,
        "UPDATE account SET deleted_ms = ?, name = '' WHERE number = ? AND deleted_ms IS NULL RETURNING created_ms",
        (now_ms, number),
    )
    if row is None:
        raise NotFound(f"Account {number} does not exist.")
    connection.execute("UPDATE key SET name = '' WHERE account = ?", (number,))
    return int(row[0])
