"""Shredding in meta.db, and keeping it and the erasure ledger of one mind.

Pure of threads and of Trio: every function gets the connection of the transaction or the thread that it runs in. The
database is erased first and the ledger written next, both before anyone is told. So what a crash leaves unequal is made
equal at the next start: an erasure that only the database knows goes into the ledger, and one that only the ledger
knows was undone by an older copy of the database, and is done again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import apsw
import msgspec

from actors.store.connections import all_rows, one_row
from actors.store.ledger import ErasedVault, Erasure, Ledger, LedgerFile, RevokedKey, key_id, ledger_of, read_ledger
from actors.store.seal import WRAPPED_KEY_BYTES, ServerKey
from models.ids import VaultNumber, VaultRef

_log = logging.getLogger(__name__)


class Replaced(msgspec.Struct, frozen=True):
    """What became of a shredded vault."""

    old: VaultRef
    new: VaultRef
    key_hashes: tuple[bytes, ...]
    erasure: ErasedVault


def insert_vault(
    connection: apsw.Connection, account: int, *, server_key: ServerKey, shards: Sequence[int], created_ms: int
) -> VaultRef:
    """A new, empty vault with a data key of its own.

    Args:
        connection: of meta.db, in a transaction.
        account: whose it is.
        server_key: wraps its data key.
        shards: those that may take new vaults.
        created_ms: now.
    """
    row = one_row(connection, "SELECT seq FROM sqlite_sequence WHERE name = 'vault'")
    number = 1 + (row[0] if row else 0)
    shard = shards[number % len(shards)]
    connection.execute(
        "INSERT INTO vault(number, account, shard, created_ms) VALUES (?, ?, ?, ?)",
        (number, account, shard, created_ms),
    )
    connection.execute(
        "INSERT INTO vault_key(vault, wrapped) VALUES (?, ?)", (number, server_key.new_wrapped_data_key(number))
    )
    return VaultRef(number=VaultNumber(number), shard=shard)


def shred_vault(
    connection: apsw.Connection, vault: VaultRef, *, server_key: ServerKey, shards: Sequence[int], now_ms: int
) -> Replaced | None:
    """Destroy a live vault's data key and point its keys at a new vault; None when there is no such live vault."""
    row = one_row(
        connection,
        "UPDATE vault SET state = 1 WHERE number = ? AND shard = ? AND state = 0 RETURNING account, created_ms",
        (vault.number, vault.shard),
    )
    if row is None:
        return None
    account, created_ms = row
    connection.execute(  # in place, never NULL and never DELETE: see the schema
        "UPDATE vault_key SET wrapped = zeroblob(?) WHERE vault = ?", (WRAPPED_KEY_BYTES, vault.number)
    )
    connection.execute("INSERT OR REPLACE INTO erasure(vault, erased_ms) VALUES (?, ?)", (vault.number, now_ms))
    new = insert_vault(connection, account, server_key=server_key, shards=shards, created_ms=now_ms)
    hashes = all_rows(connection, "UPDATE key SET vault = ? WHERE vault = ? RETURNING hash", (new.number, vault.number))
    return Replaced(
        old=vault,
        new=new,
        key_hashes=tuple(key_hash for (key_hash,) in hashes),
        erasure=ErasedVault(vault=vault.number, created_ms=created_ms, erased_ms=now_ms),
    )


def erasures_of(connection: apsw.Connection) -> Ledger:
    """What the database itself knows to be erased."""
    vaults: list[Erasure] = [
        ErasedVault(vault=number, created_ms=created_ms, erased_ms=erased_ms)
        for number, created_ms, erased_ms in all_rows(
            connection,
            "SELECT number, created_ms, coalesce(erased_ms, created_ms) FROM vault "
            "LEFT JOIN erasure ON erasure.vault = vault.number WHERE state <> 0",
        )
    ]
    keys: list[Erasure] = [
        RevokedKey(key=key_id(key_hash), revoked_ms=revoked_ms)
        for key_hash, revoked_ms in all_rows(
            connection, "SELECT hash, revoked_ms FROM key WHERE revoked_ms IS NOT NULL"
        )
    ]
    return ledger_of([*vaults, *keys])


class Replayed(msgspec.Struct, frozen=True):
    """What a replay of the ledger erased again."""

    vaults: int = 0
    keys: int = 0


def replay(
    connection: apsw.Connection, ledger: Ledger, *, server_key: ServerKey, shards: Sequence[int], now_ms: int
) -> Replayed:
    """Erase again what the ledger knows to be erased and this database holds live. In a transaction."""
    shredded = revoked = 0
    if ledger.vaults:
        live = all_rows(connection, "SELECT number, created_ms, shard FROM vault WHERE state = 0")
        for number, created_ms, shard in live:
            if (number, created_ms) in ledger.vaults:
                vault = VaultRef(number=VaultNumber(number), shard=shard)
                shred_vault(connection, vault, server_key=server_key, shards=shards, now_ms=now_ms)
                shredded += 1
    if ledger.keys:
        for number, key_hash in all_rows(connection, "SELECT number, hash FROM key WHERE revoked_ms IS NULL"):
            entry = ledger.keys.get(key_id(key_hash))
            if entry is not None:
                connection.execute("UPDATE key SET revoked_ms = ? WHERE number = ?", (entry.revoked_ms, number))
                revoked += 1
    if ledger.vaults:  # a number that was used is never given out again, not even by an older database
        reserve_vault_numbers(connection, max(number for number, _ in ledger.vaults))
    return Replayed(vaults=shredded, keys=revoked)


def reserve_vault_numbers(connection: apsw.Connection, up_to: int) -> None:
    """New vaults get numbers above this one."""
    connection.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'vault' AND seq < ?", (up_to, up_to))
    if one_row(connection, "SELECT 1 FROM sqlite_sequence WHERE name = 'vault'") is None:
        connection.execute("INSERT INTO sqlite_sequence(name, seq) VALUES ('vault', ?)", (up_to,))


def reconcile(
    connection: apsw.Connection, path: Path, *, server_key: ServerKey, shards: Sequence[int], now_ms: int
) -> Replayed:
    """Make meta.db and the ledger equal, at the start. Blocks.

    Raises:
        apsw.Error, OSError: one of them cannot be read or written.
    """
    ledger = read_ledger(path)
    known = erasures_of(connection)
    unwritten = known.missing_from(ledger)
    if unwritten:
        LedgerFile(path).append(unwritten)
    if not ledger.missing_from(known):
        return Replayed()
    connection.execute("BEGIN IMMEDIATE")
    try:
        replayed = replay(connection, ledger, server_key=server_key, shards=shards, now_ms=now_ms)
        connection.execute("COMMIT")
    except apsw.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    if replayed.vaults or replayed.keys:
        _log.critical(
            "meta.db is older than the erasure ledger: %d vaults were shredded and %d keys revoked again",
            replayed.vaults,
            replayed.keys,
        )
    return replayed
