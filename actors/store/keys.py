"""Memory Keys in meta.db: what opens which vault, since when, until when and within which limits.

Pure of threads and of Trio: every function gets the connection of the transaction that it runs in, and checks before it
changes anything. A key row is never deleted: it says who could open what. Must never hold a key: only hashes come in
here.

A look-up compares nothing in constant time, and need not: the caller's key is hashed first, and the index is searched
by that hash. How long the search takes may tell how far two hashes agree, but nobody can choose a key by the beginning
of its SHA-256, nor get from one to the key.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
from msgspec import UNSET

from actors.store.database import CONSTRAINT_ERRORS, Connection, all_rows, one_row
from actors.store.ledger import RevokedKey, key_id
from models.accounts import KeyChange, KeyRecord
from models.errors import Conflict, InvalidRequest, NotFound
from models.ids import Principal, VaultNumber, VaultRef
from models.key_limits import NO_OWN_LIMITS, KeyLimits

NOT_OVER = "key.revoked_ms IS NULL AND (key.rotated_to IS NULL OR key.expires_ms > {now_ms:d})"
"""A key that opens its vault now, or may do so again: a switched-off one can be switched on."""

_COLUMNS = """key.number, key.account, key.kind, key.name, key.shown, vault.number, vault.shard, key.created_ms,
  key.revoked_ms, key.disabled_ms, key.expires_ms, key.last_used_ms, key.limits, key.rotated_to"""
_KEY = f"SELECT {_COLUMNS} FROM key JOIN vault ON vault.number = key.vault WHERE key.account = ? AND key.number = ?"
_LIST = f"SELECT {_COLUMNS} FROM key CROSS JOIN vault WHERE vault.number = key.vault AND key.number"
_NUMBER_MAX = (1 << 63) - 1
_FIND = """SELECT key.number, key.account, key.kind, key.name, key.shown, vault.number, vault.shard, key.limits,
  key.expires_ms
  FROM key JOIN vault ON vault.number = key.vault JOIN account ON account.number = key.account
  WHERE key.hash = ? AND key.revoked_ms IS NULL AND key.disabled_ms IS NULL AND vault.state = 0
  AND account.disabled_ms IS NULL AND account.deleted_ms IS NULL"""
_INSERT = """INSERT INTO key(account, vault, kind, name, shown, hash, created_ms, expires_ms, limits)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING number"""
_OTHER_LIVE_ACCOUNT_KEY = """SELECT 1 FROM key WHERE account = ? AND kind = 'account' AND number <> ?
  AND revoked_ms IS NULL AND rotated_to IS NULL AND disabled_ms IS NULL AND (expires_ms IS NULL OR expires_ms > ?)"""
_END_GRACE = """WITH RECURSIVE before(number) AS (
    SELECT number FROM key WHERE rotated_to = ?1
    UNION SELECT key.number FROM before JOIN key ON key.rotated_to = before.number)
  UPDATE key SET revoked_ms = ?2 WHERE number IN (SELECT number FROM before) AND revoked_ms IS NULL RETURNING hash"""

_encode = msgspec.json.Encoder().encode
_limits = msgspec.json.Decoder(KeyLimits)


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key to be stored."""

    kind: str
    name: str
    key_hash: bytes
    shown: str
    created_ms: int
    expires_ms: int | None = None
    limits: KeyLimits = NO_OWN_LIMITS


class LiveKey(msgspec.Struct, frozen=True):
    """A key that opens its vault, until it expires."""

    principal: Principal
    expires_ms: int | None = None

    def is_live(self, now_ms: int) -> bool:
        """Whether that moment has not come."""
        return self.expires_ms is None or now_ms < self.expires_ms


def insert_key(connection: Connection, key: NewKey, *, account: int, vault: VaultRef) -> Principal:
    """A new key of an account for one of its vaults.

    Raises:
        InvalidRequest: there is such a key.
    """
    limits = _encode(key.limits).decode()
    values = (
        account,
        vault.number,
        key.kind,
        key.name,
        key.shown,
        key.key_hash,
        key.created_ms,
        key.expires_ms,
        limits,
    )
    try:
        (number,) = one_row(connection, _INSERT, values)
    except CONSTRAINT_ERRORS as error:
        raise InvalidRequest("This key exists already.", field="key") from error
    return Principal(
        key_number=number,
        account_number=account,
        kind=key.kind,
        name=key.name,
        vault=vault,
        shown=key.shown,
        limits=key.limits,
    )


def find_key(connection: Connection, key_hash: bytes) -> LiveKey | None:
    """The key of this hash, unless it or its account is switched off. The caller looks at the time."""
    row = one_row(connection, _FIND, (key_hash,))
    if row is None:
        return None
    number, account, kind, name, shown, vault, shard, limits, expires_ms = row
    principal = Principal(
        key_number=number,
        account_number=account,
        kind=kind,
        name=name,
        vault=VaultRef(number=VaultNumber(vault), shard=shard),
        shown=shown,
        limits=_limits.decode(limits),
    )
    return LiveKey(principal, expires_ms)


def get_key(connection: Connection, account: int, number: int) -> KeyRecord:
    """One key of an account, also a revoked one.

    Raises:
        NotFound: it has no such key.
    """
    row = one_row(connection, _KEY, (account, number))
    if row is None:
        raise NotFound(f"There is no key {number}.")
    return _record(row)


def hash_of(connection: Connection, number: int) -> bytes:
    """The hash of a key that exists."""
    (key_hash,) = one_row(connection, "SELECT hash FROM key WHERE number = ?", (number,))
    return bytes(key_hash)


def list_keys(
    connection: Connection,
    account: int | None,
    *,
    after: int,
    limit: int,
    search: str,
    include_revoked: bool,
    newest_first: bool,
    now_ms: int,
) -> list[KeyRecord]:
    """Keys of one account, or of all, behind a number; in the order of their numbers, or backwards."""
    statement, bindings = _list_statement(account, after=after, search=search, newest_first=newest_first)
    if not include_revoked:
        statement += f" AND {NOT_OVER.format(now_ms=now_ms)}"
    order = "DESC" if newest_first else "ASC"
    rows = all_rows(connection, f"{statement} ORDER BY key.number {order} LIMIT ?", (*bindings, limit))
    return [_record(row) for row in rows]


def _list_statement(account: int | None, *, after: int, search: str, newest_first: bool) -> tuple[str, tuple[Any, ...]]:
    """How keys are listed, without their order: along an index, from where the page before ended."""
    statement = f"{_LIST} < ?" if newest_first else f"{_LIST} > ?"
    bindings = [after or _NUMBER_MAX] if newest_first else [after]
    if account is not None:
        statement += " AND key.account = ?"
        bindings.append(account)
    if search:
        statement += " AND key.name LIKE ? ESCAPE '!'"
        escaped = "".join(f"!{character}" if character in "!%_" else character for character in search)
        return statement, (*bindings, f"%{escaped}%")
    return statement, tuple(bindings)


def _record(row: tuple[Any, ...]) -> KeyRecord:
    number, account, kind, name, shown, vault, shard, created_ms, revoked_ms, disabled_ms, *rest = row
    expires_ms, last_used_ms, limits, rotated_to = rest
    return KeyRecord(
        number=number,
        account_number=account,
        kind=kind,
        name=name,
        shown=shown,
        vault=VaultRef(number=VaultNumber(vault), shard=shard),
        created_ms=created_ms,
        revoked_ms=revoked_ms,
        disabled_ms=disabled_ms,
        expires_ms=expires_ms,
        last_used_ms=last_used_ms,
        limits=_limits.decode(limits),
        rotated_to=rotated_to,
    )


def change_key(
    connection: Connection, account: int, number: int, change: KeyChange, *, now_ms: int
) -> tuple[KeyRecord, list[bytes]]:
    """Change what is set in `change`; returns the key, and the hashes of those whose grace period that ended.

    Raises:
        NotFound: there is no such key.
        Conflict: it is over, or would live longer than its grace period; or no live account key would be left.
    """
    before = get_key(connection, account, number)
    if before.is_over(now_ms):
        raise Conflict(f"Key {number} is revoked.")
    changes: dict[str, Any] = {"name": change.name, "expires_ms": change.expires_ms, "limits": change.limits}
    if change.disabled is not UNSET:
        changes["disabled_ms"] = (before.disabled_ms or now_ms) if change.disabled else None
    set_changes = {name: value for name, value in changes.items() if value is not UNSET}
    after = msgspec.structs.replace(before, **set_changes)
    if before.rotated_to is not None and (after.expires_ms or math.inf) > (before.expires_ms or 0):
        raise Conflict(f"Key {number} was rotated: its grace period can only be cut short.")
    if before.state(now_ms) == "live" != after.state(now_ms):
        check_leaves_an_account_key(connection, before, now_ms=now_ms)
    connection.execute(
        "UPDATE key SET name = ?, expires_ms = ?, limits = ?, disabled_ms = ? WHERE number = ?",
        (after.name, after.expires_ms, _encode(after.limits).decode(), after.disabled_ms, number),
    )
    return after, [] if after.disabled_ms is None else end_grace(connection, number, now_ms=now_ms)


def rotate_key(connection: Connection, old: KeyRecord, new: NewKey, *, ends_ms: int) -> tuple[Principal, bytes]:
    """Put a new key in the place of an old one, which is over at `ends_ms`; returns the new one and the old hash.

    Raises:
        InvalidRequest: the new key exists already.
        Conflict: the old one is not live, or was rotated before.
    """
    state = old.state(new.created_ms)
    if state != "live":
        raise Conflict(f"Key {old.number} is {state}; only a live key can be rotated.")
    if old.rotated_to is not None:
        raise Conflict(f"Key {old.number} was rotated before: key {old.rotated_to} has its place.")
    principal = insert_key(connection, new, account=old.account_number, vault=old.vault)
    (key_hash,) = one_row(
        connection,
        "UPDATE key SET rotated_to = ?1, expires_ms = CASE WHEN expires_ms < ?2 THEN expires_ms ELSE ?2 END "
        "WHERE number = ?3 RETURNING hash",
        (principal.key_number, ends_ms, old.number),
    )
    return principal, key_hash


def revoke_key(connection: Connection, key: KeyRecord, *, now_ms: int) -> list[bytes]:
    """Revoke a key, and those whose place it took; their hashes.

    Raises:
        NotFound: it is revoked already.
        Conflict: it is the last live account key.
    """
    if key.revoked_ms is not None:
        raise NotFound(f"Key {key.number} is revoked already.")
    if key.state(now_ms) == "live":
        check_leaves_an_account_key(connection, key, now_ms=now_ms)
    (key_hash,) = one_row(
        connection, "UPDATE key SET revoked_ms = ? WHERE number = ? RETURNING hash", (now_ms, key.number)
    )
    return [key_hash, *end_grace(connection, key.number, now_ms=now_ms)]


def end_grace(connection: Connection, number: int, *, now_ms: int) -> list[bytes]:
    """Revoke the keys whose place this one took; their hashes."""
    return [key_hash for (key_hash,) in all_rows(connection, _END_GRACE, (number, now_ms))]


def check_leaves_an_account_key(connection: Connection, key: KeyRecord, *, now_ms: int) -> None:
    """Whether an account can spare this key.

    Raises:
        Conflict: it cannot: nobody could speak for the account any more.
    """
    if key.kind != "account" or key.rotated_to is not None:
        return
    if one_row(connection, _OTHER_LIVE_ACCOUNT_KEY, (key.account_number, key.number, now_ms)) is None:
        raise Conflict("This is the account's last live account key.", hint="Rotate it, or make another one before.")


def check_keyless(connection: Connection, vault_number: int, *, now_ms: int) -> None:
    """Whether all keys of a vault are over.

    Raises:
        Conflict: one is not.
    """
    not_over = NOT_OVER.format(now_ms=now_ms)
    row = one_row(connection, f"SELECT number FROM key WHERE vault = ? AND {not_over}", (vault_number,))
    if row is not None:
        raise Conflict(f"Key {row[0]} opens this vault.", hint="Delete that key first.")


def revoke_account_keys(connection: Connection, account: int, *, now_ms: int, kind: str | None = None) -> list[bytes]:
    """Revoke all keys of an account, or those of a kind; their hashes."""
    condition = "" if kind is None else "AND kind = ? "
    bindings: tuple[int | str, ...] = (now_ms, account) if kind is None else (now_ms, account, kind)
    statement = f"UPDATE key SET revoked_ms = ? WHERE account = ? {condition}AND revoked_ms IS NULL RETURNING hash"
    rows = all_rows(connection, statement, bindings)
    return [key_hash for (key_hash,) in rows]


def revocations(key_hashes: list[bytes], revoked_ms: int) -> list[RevokedKey]:
    """What the ledger has to know of revoked keys."""
    return [RevokedKey(key=key_id(key_hash), revoked_ms=revoked_ms) for key_hash in key_hashes]


def rotation(key_hash: bytes, ends_ms: int) -> RevokedKey:
    """What the ledger has to know of a key that another one takes the place of."""
    return RevokedKey(key=key_id(key_hash), revoked_ms=ends_ms, rotated=True)
