"""Providers' keys in meta.db, one row for each account and provider, sealed by the server key.

Pure of threads and of Trio: every function gets the connection of the transaction that it runs in. A sealed key always
takes the same room, and is overwritten in place: by the next one, or by zeros. Each carries a random mark that is part
of what it is sealed for, and that the erasure ledger knows it by. Must never write a key unsealed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec

from actors.store.database import Connection, all_rows, one_row
from actors.store.directory_protocol import PROVIDER_KEY_BYTES_MAX
from actors.store.ledger import ErasedProviderKey, mark_id
from actors.store.seal import SEALED_OVERHEAD_BYTES, ServerKey
from models.accounts import ProviderKeyRecord
from models.errors import CorruptRow, InvalidRequest
from models.provider_settings import Secret

LENGTH_BYTES = 2
SEALED_BYTES = LENGTH_BYTES + PROVIDER_KEY_BYTES_MAX + SEALED_OVERHEAD_BYTES
MARK_BYTES = 16
SHOWN_CHARACTERS = 4
SHOWN_LEAST_CHARACTERS = 16
"""Of a shorter key the last four characters would tell too much."""

_LIVE = "account = ? AND provider = ? AND erased_ms IS NULL"


def seal_provider_key(server_key: ServerKey, account: int, provider: str, mark: bytes, secret: str) -> bytes:
    """A provider's key in `SEALED_BYTES` bytes.

    Raises:
        InvalidRequest: it is empty or too long.
    """
    plaintext = secret.encode()
    if not 1 <= len(plaintext) <= PROVIDER_KEY_BYTES_MAX:
        raise InvalidRequest(f"A provider key must have 1 to {PROVIDER_KEY_BYTES_MAX} bytes.", field="key")
    padded = len(plaintext).to_bytes(LENGTH_BYTES, "big") + plaintext.ljust(PROVIDER_KEY_BYTES_MAX, b"\0")
    return server_key.seal(_context(account, provider, mark), padded)


def _context(account: int, provider: str, mark: bytes) -> bytes:
    return b"provider key" + account.to_bytes(8, "big") + mark + provider.encode()


def put_provider_key(
    connection: Connection, account: int, provider: str, secret: str, *, server_key: ServerKey, now_ms: int
) -> tuple[ProviderKeyRecord, list[ErasedProviderKey]]:
    """Store a provider's key in the place of the one before; returns what the ledger has to know of that one.

    Raises:
        InvalidRequest: it is empty or too long.
    """
    mark = os.urandom(MARK_BYTES)
    sealed = seal_provider_key(server_key, account, provider, mark, secret)
    erased = erase_provider_keys(connection, account, provider, now_ms=now_ms)
    last_four = secret[-SHOWN_CHARACTERS:] if len(secret) >= SHOWN_LEAST_CHARACTERS else ""
    (number,) = one_row(
        connection,
        "INSERT INTO provider_key(account, provider, last_four, mark, created_ms) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT(account, provider) DO UPDATE SET last_four = excluded.last_four, mark = excluded.mark, "
        "created_ms = excluded.created_ms, erased_ms = NULL RETURNING number",
        (account, provider, last_four, mark, now_ms),
    )
    connection.execute(  # of the same length as what is there, so it is overwritten in place: see the schema
        "INSERT INTO provider_secret(provider_key, sealed) VALUES (?, ?) "
        "ON CONFLICT(provider_key) DO UPDATE SET sealed = excluded.sealed",
        (number, sealed),
    )
    return ProviderKeyRecord(provider=provider, last_four=last_four, created_ms=now_ms), erased


def erase_provider_keys(
    connection: Connection, account: int, provider: str | None = None, *, now_ms: int
) -> list[ErasedProviderKey]:
    """Shred what an account has stored for one provider, or for all; what the ledger has to know of it."""
    rows = all_rows(
        connection,
        "SELECT number, mark FROM provider_key WHERE account = ?1 AND (CAST(?2 AS text) IS NULL OR provider = ?2) "
        "AND erased_ms IS NULL",
        (account, provider),
    )
    return shred_provider_keys(connection, rows, now_ms=now_ms)


def shred_provider_keys(
    connection: Connection, rows: Sequence[tuple[int, bytes]], *, now_ms: int
) -> list[ErasedProviderKey]:
    """Shred the provider keys with these numbers and marks."""
    for number, mark in rows:
        connection.execute(
            "UPDATE provider_secret SET sealed = ? WHERE provider_key = ?", (bytes(SEALED_BYTES), number)
        )
        connection.execute("UPDATE provider_key SET last_four = '', erased_ms = ? WHERE number = ?", (now_ms, number))
        connection.execute("INSERT INTO provider_erasure(mark, erased_ms) VALUES (?, ?)", (mark, now_ms))
    return [ErasedProviderKey(key=mark_id(mark), erased_ms=now_ms) for _, mark in rows]


def list_provider_keys(connection: Connection, account: int) -> list[ProviderKeyRecord]:
    """What an account has stored, by the providers' names."""
    rows = all_rows(
        connection,
        "SELECT provider, last_four, created_ms FROM provider_key "
        "WHERE account = ? AND erased_ms IS NULL ORDER BY provider",
        (account,),
    )
    return [
        ProviderKeyRecord(provider=provider, last_four=last_four, created_ms=created_ms)
        for provider, last_four, created_ms in rows
    ]


def find_provider_key(connection: Connection, account: int, provider: str, *, server_key: ServerKey) -> Secret | None:
    """The provider's key that an account has stored, or None.

    Raises:
        CorruptRow: it fails its checksum.
    """
    row = one_row(
        connection,
        f"SELECT mark, sealed FROM provider_key LEFT JOIN provider_secret ON provider_key = number WHERE {_LIVE}",
        (account, provider),
    )
    if row is None:
        return None
    mark, sealed = row
    padded = server_key.unseal(_context(account, provider, mark), sealed or b"")
    size_bytes = int.from_bytes(padded[:LENGTH_BYTES], "big")
    return Secret(padded[LENGTH_BYTES : LENGTH_BYTES + size_bytes].decode())


class Resealed(msgspec.Struct, frozen=True):
    """Provider keys under another server key: how many, and the row numbers of those that did not open."""

    count: int
    damaged: tuple[int, ...]


def reseal_all(connection: Connection, old: ServerKey, new: ServerKey) -> Resealed:
    """Seal every provider key by another server key, in place. In a transaction."""
    resealed: list[tuple[bytes, int]] = []
    damaged: list[int] = []
    for number, context, sealed in _all_sealed(connection):
        try:
            resealed.append((new.seal(context, old.unseal(context, sealed)), number))
        except CorruptRow:
            damaged.append(number)
    connection.executemany("UPDATE provider_secret SET sealed = ? WHERE provider_key = ?", resealed)
    return Resealed(count=len(resealed), damaged=tuple(damaged))


def damaged_provider_keys(connection: Connection, server_key: ServerKey) -> list[str]:
    """Which provider keys do not open: `openai of account 1`."""
    damaged: list[int] = []
    for number, context, sealed in _all_sealed(connection):
        try:
            server_key.unseal(context, sealed)
        except CorruptRow:
            damaged.append(number)
    if not damaged:
        return []
    rows = all_rows(connection, "SELECT number, provider, account FROM provider_key ORDER BY account, provider")
    return [f"{provider} of account {account}" for number, provider, account in rows if number in damaged]


def _all_sealed(connection: Connection) -> list[tuple[int, bytes, bytes]]:
    rows = all_rows(
        connection,
        "SELECT number, account, provider, mark, sealed FROM provider_key "
        "LEFT JOIN provider_secret ON provider_key = number WHERE erased_ms IS NULL",
    )
    return [
        (number, _context(account, provider, mark), sealed or b"") for number, account, provider, mark, sealed in rows
    ]
