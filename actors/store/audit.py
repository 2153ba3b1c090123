"""The audit log's rows in meta.db: who did what to which account, key, vault or provider key.

Pure of threads and of Trio: every function gets the connection of the transaction that it runs in, which is that of the
change itself, so that there is never the one without the other. Must never get a key, a name that a user chose, or a
text.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from actors.store.database import Connection, all_rows
from models.accounts import Actor, AuditEntry, AuditFilter

_details = msgspec.json.Decoder(dict[str, str | int | None])
_encode = msgspec.json.Encoder().encode


def add_entry(
    connection: Connection,
    action: str,
    target: str,
    *,
    at_ms: int,
    account: int | None,
    by: Actor,
    detail: Mapping[str, str | int | None] | None = None,
) -> None:
    """Append an entry."""
    connection.execute(
        "INSERT INTO audit(at_ms, account, actor, action, target, detail, request_id) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (at_ms, account, by.name, action, target, _encode(dict(detail or {})).decode(), by.request_id),
    )


def list_entries(
    connection: Connection, account: int | None, *, before: int | None, limit: int, only: AuditFilter
) -> list[AuditEntry]:
    """Entries that concern one account, or all, the newest first."""
    conditions: list[str] = []
    bindings: list[int | str] = []
    for condition, value in (
        ("account = ?", account),
        ("number < ?", before),
        ("target = ?", only.target or None),
        ("actor = ?", only.actor or None),
        ("at_ms >= ?", only.since_ms),
        ("at_ms < ?", only.until_ms),
    ):
        if value is not None:
            conditions.append(condition)
            bindings.append(value)
    if only.action:
        conditions.append("substr(action, 1, CAST(? AS integer)) = ?")
        bindings += [len(only.action), only.action]
    where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
    rows = all_rows(
        connection,
        f"SELECT number, at_ms, account, actor, action, target, detail, request_id FROM audit {where}"
        "ORDER BY number DESC LIMIT ?",
        (*bindings, limit),
    )
    return [
        AuditEntry(
            number=number,
            at_ms=at_ms,
            account_number=of_account,
            actor=actor,
            action=action,
            target=target,
            detail=_details.decode(detail),
            request_id=request_id,
        )
        for number, at_ms, of_account, actor, action, target, detail, request_id in rows
    ]


def trim_entries(connection: Connection, *, before_ms: int, limit: int) -> int:
    """Delete those of the oldest entries that are from before a time; how many."""
    deleted = all_rows(
        connection,
        "DELETE FROM audit WHERE at_ms < ? AND number IN (SELECT number FROM audit ORDER BY number LIMIT ?) "
        "RETURNING number",
        (before_ms, limit),
    )
    return len(deleted)
