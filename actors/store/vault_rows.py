"""Vaults in meta.db as their accounts see them: which there are, who opens them, how long their memories are kept.

Pure of threads and of Trio: every function gets the connection that it works on. What shreds a vault is in
`actors.store.erasing`; how large one is, only its shard knows.
"""

from __future__ import annotations

from actors.store.database import Connection, all_rows, one_row
from actors.store.keys import NOT_OVER
from models.accounts import Retention, VaultRecord
from models.errors import NotFound
from models.ids import VaultNumber, VaultRef

_LIST = """SELECT number, account, shard, created_ms, retention_days,
    (SELECT count(*) FROM key WHERE key.vault = vault.number AND {not_over})
  FROM vault WHERE account = ? AND state = 0 AND number > ? {condition} ORDER BY number LIMIT ?"""
_WITHOUT_KEYS = "AND open_keys = 0 AND NOT EXISTS (SELECT 1 FROM key WHERE key.vault = vault.number AND {not_over})"
_NUMBERS = """SELECT shard, count(*), '[' || string_agg(CAST(number AS text), ',') || ']' FROM vault
  WHERE account = ? AND state = 0 GROUP BY shard"""
_RETENTIONS = """SELECT vault.number, shard, account, coalesce(vault.retention_days, account.retention_days)
  FROM vault JOIN account ON account.number = vault.account
  WHERE vault.number > ? AND state = 0 AND coalesce(vault.retention_days, account.retention_days) IS NOT NULL
  ORDER BY vault.number LIMIT ?"""


def list_vaults(
    connection: Connection, account: int, *, after: int, limit: int, without_keys: bool, now_ms: int
) -> list[VaultRecord]:
    """Live vaults of an account behind a number, without their sizes."""
    not_over = NOT_OVER.format(now_ms=now_ms)
    condition = _WITHOUT_KEYS.format(not_over=not_over) if without_keys else ""
    statement = _LIST.format(not_over=not_over, condition=condition)
    return [_record(row) for row in all_rows(connection, statement, (account, after, limit))]


def numbers_by_shard(connection: Connection, account: int) -> list[tuple[int, int, str]]:
    """For each shard with live vaults of an account: its number, how many they are, and their numbers as JSON.

    One text instead of a row each: SQLite makes it without Python's lock, and so does it read it again.
    """
    return [(shard, count, numbers) for shard, count, numbers in all_rows(connection, _NUMBERS, (account,))]


def shredded_vaults(connection: Connection) -> list[VaultRef]:
    """Vaults whose data key is destroyed and whose rows may still be there."""
    rows = all_rows(connection, "SELECT number, shard FROM vault WHERE state = 1")
    return [VaultRef(number=VaultNumber(number), shard=shard) for number, shard in rows]


def count_vaults(connection: Connection) -> int:
    """Live vaults of all accounts."""
    return int(one_row(connection, "SELECT count(*) FROM vault WHERE state = 0")[0])


def get_vault(connection: Connection, account: int, number: int, *, now_ms: int) -> VaultRecord:
    """One live vault, without its size.

    Raises:
        NotFound: the account has no such vault.
    """
    found = list_vaults(connection, account, after=number - 1, limit=1, without_keys=False, now_ms=now_ms)
    if not found or found[0].vault.number != number:
        raise NotFound(f"There is no vault {number}.")
    return found[0]


def _record(row: tuple[int, int, int, int, int | None, int]) -> VaultRecord:
    number, account, shard, created_ms, retention_days, live_keys = row
    return VaultRecord(
        vault=VaultRef(number=VaultNumber(number), shard=shard),
        account_number=account,
        created_ms=created_ms,
        retention_days=retention_days,
        live_keys=live_keys,
    )


def set_retention(connection: Connection, number: int, retention_days: int | None) -> None:
    """After how many days its memories are deleted."""
    connection.execute("UPDATE vault SET retention_days = ? WHERE number = ?", (retention_days, number))


def list_retentions(connection: Connection, *, after: int, limit: int) -> list[Retention]:
    """Live vaults that keep their memories for a time only, behind a number."""
    return [
        Retention(vault=VaultRef(number=VaultNumber(number), shard=shard), account_number=account, days=days)
        for number, shard, account, days in all_rows(connection, _RETENTIONS, (after, limit))
    ]


def live_vault(connection: Connection, account: int, number: int) -> VaultRef:
    """The place of a live vault of an account.

    Raises:
        NotFound: it has no such vault.
    """
    row = one_row(
        connection, "SELECT shard FROM vault WHERE number = ? AND account = ? AND state = 0", (number, account)
    )
    if row is None:
        raise NotFound(f"There is no vault {number}.")
    return VaultRef(number=VaultNumber(number), shard=row[0])
