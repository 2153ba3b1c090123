"""Shredding in meta.db, and keeping it and the erasure ledger of one mind.

Pure of threads and of Trio: every function gets the connection of the transaction or the thread that it runs in. The
database is erased first and the ledger written next, both before anyone is told. So what a crash leaves unequal is made
equal at the next start: an erasure that only the database knows goes into the ledger, and one that only the ledger
knows was undone by an older copy of the database, and is done again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import msgspec

from actors.store.accounts import mark_deleted
from actors.store.database import DATABASE_ERRORS, Connection, all_rows, one_row
from actors.store.keys import NOT_OVER, revocations, revoke_account_keys
from actors.store.ledger import (
    DeletedAccount,
    ErasedProviderKey,
    ErasedVault,
    Erasure,
    Ledger,
    LedgerFile,
    RevokedKey,
    key_id,
    ledger_of,
    mark_id,
    read_ledger,
)
from actors.store.provider_keys import erase_provider_keys, shred_provider_keys
from actors.store.seal import WRAPPED_KEY_BYTES, ServerKey
from models.errors import NotFound
from models.ids import VaultNumber, VaultRef

_log = logging.getLogger(__name__)


class Shredded(msgspec.Struct, frozen=True):
    """A vault whose data key is destroyed."""

    vault: VaultRef
    account: int
    erasure: ErasedVault


def insert_vault(
    connection: Connection, account: int, *, server_key: ServerKey, shards: Sequence[int], created_ms: int
) -> VaultRef:
    """A new, empty vault with a data key of its own.

    Args:
        connection: of meta.db, in a transaction.
        account: whose it is.
        server_key: wraps its data key.
        shards: those that may take new vaults.
        created_ms: now.
    """
    (number,) = one_row(
        connection,
        "INSERT INTO vault(account, shard, created_ms) VALUES (?, ?, ?) RETURNING number",
        (account, shards[0], created_ms),
    )
    shard = shards[number % len(shards)]
    if shard != shards[0]:
        connection.execute("UPDATE vault SET shard = ? WHERE number = ?", (shard, number))
    connection.execute(
        "INSERT INTO vault_key(vault, wrapped) VALUES (?, ?)", (number, server_key.new_wrapped_data_key(number))
    )
    return VaultRef(number=VaultNumber(number), shard=shard)


def shred_vault(connection: Connection, vault: VaultRef, *, now_ms: int) -> Shredded:
    """Destroy a live vault's data key.

    Raises:
        NotFound: there is no such live vault.
    """
    shredded = _shred(connection, "number = ? AND shard = ?", (vault.number, vault.shard), now_ms=now_ms)
    if not shredded:
        raise NotFound(f"Vault {vault.number} does not exist (any more).")
    return shredded[0]


def _shred(connection: Connection, condition: str, bindings: tuple[int, ...], *, now_ms: int) -> list[Shredded]:
    """Destroy the data keys of live vaults. Few statements for however many: each costs more than the one before."""
    live = f"SELECT number FROM vault WHERE {condition} AND state = 0"
    connection.execute(  # in place, never NULL and never DELETE: see the schema
        f"UPDATE vault_key SET wrapped = ? WHERE vault IN ({live})", (bytes(WRAPPED_KEY_BYTES), *bindings)
    )
    connection.execute(
        f"INSERT INTO erasure SELECT number, {now_ms:d} FROM vault WHERE {condition} AND state = 0 "
        "ON CONFLICT(vault) DO UPDATE SET erased_ms = excluded.erased_ms",
        bindings,
    )
    rows = all_rows(
        connection,
        f"UPDATE vault SET state = 1 WHERE {condition} AND state = 0 RETURNING number, shard, account, created_ms",
        bindings,
    )
    return [
        Shredded(
            vault=VaultRef(number=VaultNumber(number), shard=shard),
            account=account,
            erasure=ErasedVault(vault=number, created_ms=created_ms, erased_ms=now_ms),
        )
        for number, shard, account, created_ms in rows
    ]


def succeed_vault(
    connection: Connection, shredded: Shredded, *, server_key: ServerKey, shards: Sequence[int], now_ms: int
) -> tuple[VaultRef, list[bytes]]:
    """A new vault for the keys of a shredded one; it, and their hashes."""
    new = insert_vault(connection, shredded.account, server_key=server_key, shards=shards, created_ms=now_ms)
    hashes = all_rows(
        connection, "UPDATE key SET vault = ? WHERE vault = ? RETURNING hash", (new.number, shredded.vault.number)
    )
    return new, [key_hash for (key_hash,) in hashes]


class DeletedWhole(msgspec.Struct, frozen=True):
    """All that went with an account."""

    key_hashes: list[bytes]
    vaults: list[Shredded]
    provider_keys: list[ErasedProviderKey]
    erasures: list[Erasure]


def delete_account(connection: Connection, number: int, *, now_ms: int) -> DeletedWhole:
    """Revoke an account's keys, shred its vaults and its provider keys, and take it out of use.

    Raises:
        NotFound: there is no such account.
    """
    created_ms = mark_deleted(connection, number, now_ms=now_ms)
    key_hashes = revoke_account_keys(connection, number, now_ms=now_ms)
    vaults = _shred(connection, "account = ?", (number,), now_ms=now_ms)
    provider_keys = erase_provider_keys(connection, number, now_ms=now_ms)
    account = DeletedAccount(account=number, created_ms=created_ms, deleted_ms=now_ms)
    erasures: list[Erasure] = [
        account,
        *revocations(key_hashes, now_ms),
        *(shredded.erasure for shredded in vaults),
        *provider_keys,
    ]
    return DeletedWhole(key_hashes=key_hashes, vaults=vaults, provider_keys=provider_keys, erasures=erasures)


def erasures_of(connection: Connection) -> Ledger:
    """What the database itself knows to be erased."""
    erasures: list[Erasure] = [
        ErasedVault(vault=number, created_ms=created_ms, erased_ms=erased_ms)
        for number, created_ms, erased_ms in all_rows(
            connection,
            "SELECT number, created_ms, coalesce(erased_ms, created_ms) FROM vault "
            "LEFT JOIN erasure ON erasure.vault = vault.number WHERE state <> 0",
        )
    ]
    erasures += [
        RevokedKey(key=key_id(key_hash), revoked_ms=ended_ms, rotated=bool(rotated))
        for key_hash, ended_ms, rotated in all_rows(
            connection,
            "SELECT hash, coalesce(revoked_ms, expires_ms), revoked_ms IS NULL FROM key "
            "WHERE revoked_ms IS NOT NULL OR rotated_to IS NOT NULL",
        )
    ]
    erasures += [
        DeletedAccount(account=number, created_ms=created_ms, deleted_ms=deleted_ms)
        for number, created_ms, deleted_ms in all_rows(
            connection, "SELECT number, created_ms, deleted_ms FROM account WHERE deleted_ms IS NOT NULL"
        )
    ]
    erasures += [
        ErasedProviderKey(key=mark_id(mark), erased_ms=erased_ms)
        for mark, erased_ms in all_rows(connection, "SELECT mark, erased_ms FROM provider_erasure")
    ]
    return ledger_of(erasures)


class Undone(msgspec.Struct, frozen=True):
    """What the ledger knows to be erased and a database holds live: the database is older.

    Attributes:
        vaults: live ones.
        keys: numbers of keys, with what the ledger says of each.
        accounts: numbers.
        provider_keys: row numbers and marks.
    """

    vaults: list[VaultRef]
    keys: list[tuple[int, RevokedKey]]
    accounts: list[int]
    provider_keys: list[tuple[int, bytes]]


def undone_in(connection: Connection, ledger: Ledger) -> Undone:
    """What of a ledger is not erased in this database."""
    vaults = all_rows(connection, "SELECT number, created_ms, shard FROM vault WHERE state = 0")
    keys = []
    unrevoked = "SELECT number, hash, expires_ms FROM key WHERE revoked_ms IS NULL"
    for number, key_hash, expires_ms in all_rows(connection, unrevoked) if ledger.keys else ():
        entry = ledger.keys.get(key_id(key_hash))
        if entry is not None and not (entry.rotated and (expires_ms or math.inf) <= entry.revoked_ms):
            keys.append((number, entry))
    accounts = all_rows(connection, "SELECT number, created_ms FROM account WHERE deleted_ms IS NULL")
    provider_keys = all_rows(connection, "SELECT number, mark FROM provider_key WHERE erased_ms IS NULL")
    return Undone(
        vaults=[
            VaultRef(number=VaultNumber(number), shard=shard)
            for number, created_ms, shard in vaults
            if (number, created_ms) in ledger.vaults
        ],
        keys=keys,
        accounts=[number for number, created_ms in accounts if (number, created_ms) in ledger.accounts],
        provider_keys=[(number, mark) for number, mark in provider_keys if mark_id(mark) in ledger.provider_keys],
    )


class Replayed(msgspec.Struct, frozen=True):
    """What a replay of the ledger erased again."""

    vaults: int = 0
    keys: int = 0
    accounts: int = 0
    provider_keys: int = 0


def replay(
    connection: Connection, ledger: Ledger, *, server_key: ServerKey, shards: Sequence[int], now_ms: int
) -> Replayed:
    """Erase again what the ledger knows to be erased and this database holds live. In a transaction."""
    undone = undone_in(connection, ledger)
    for number, revoked in undone.keys:
        column = "expires_ms" if revoked.rotated else "revoked_ms"
        connection.execute(f"UPDATE key SET {column} = ? WHERE number = ?", (revoked.revoked_ms, number))
    shred_provider_keys(connection, undone.provider_keys, now_ms=now_ms)
    not_over = f"SELECT 1 FROM key WHERE vault = ? AND {NOT_OVER.format(now_ms=now_ms)}"
    for vault in undone.vaults:
        shredded = shred_vault(connection, vault, now_ms=now_ms)
        if one_row(connection, not_over, (vault.number,)) is not None:
            succeed_vault(connection, shredded, server_key=server_key, shards=shards, now_ms=now_ms)
    for account in undone.accounts:
        delete_account(connection, account, now_ms=now_ms)
    # A number that was used is never given out again, not even by an older database.
    reserve_numbers(connection, "vault", max((number for number, _ in ledger.vaults), default=0))
    reserve_numbers(connection, "account", max((number for number, _ in ledger.accounts), default=0))
    return Replayed(
        vaults=len(undone.vaults),
        keys=len(undone.keys),
        accounts=len(undone.accounts),
        provider_keys=len(undone.provider_keys),
    )


def reserve_numbers(connection: Connection, table: str, up_to: int) -> None:
    """New rows of this table (`vault`, `key`, `account`) get numbers above this one."""
    connection.execute("UPDATE sqlite_sequence SET seq = ?1 WHERE name = ?2 AND seq < ?1", (up_to, table))
    if one_row(connection, "SELECT 1 FROM sqlite_sequence WHERE name = ?", (table,)) is None:
        connection.execute("INSERT INTO sqlite_sequence(name, seq) VALUES (?, ?)", (table, up_to))


def note_unwritten(connection: Connection, path: Path) -> tuple[Ledger, Ledger]:
    """Add to the ledger what only the database knows to be erased; what it knows, and the ledger as it was. Blocks.

    Harmless beside others who erase: what they are about to add themselves may stand there twice.

    Raises:
        DATABASE_ERRORS, OSError: one of them cannot be read or written.
    """
    ledger = read_ledger(path)
    known = erasures_of(connection)
    unwritten = known.missing_from(ledger)
    if unwritten:
        LedgerFile(path).append(unwritten)
    return known, ledger


def reconcile(
    connection: Connection, path: Path, *, server_key: ServerKey, shards: Sequence[int], now_ms: int
) -> Replayed:
    """Make meta.db and the ledger equal, at the start. Blocks.

    Raises:
        DATABASE_ERRORS, OSError: one of them cannot be read or written.
    """
    known, ledger = note_unwritten(connection, path)
    if not ledger.missing_from(known):
        return Replayed()
    connection.execute("BEGIN IMMEDIATE")
    try:
        replayed = replay(connection, ledger, server_key=server_key, shards=shards, now_ms=now_ms)
        connection.execute("COMMIT")
    except DATABASE_ERRORS:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    if replayed != Replayed():
        _log.critical(
            "meta.db is older than the erasure ledger: %d vaults were shredded and %d keys revoked again; "
            "%d accounts and %d provider keys were deleted again",
            replayed.vaults,
            replayed.keys,
            replayed.accounts,
            replayed.provider_keys,
        )
    return replayed
