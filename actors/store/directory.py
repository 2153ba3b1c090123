"""Accounts, keys and vaults: the half of the store that lives in meta.db.

Writes are jobs of meta.db's committer. Look-ups of keys are cached; a write drops the entries that it changes
before its caller is told. Must never hold a key: only hashes come in here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import apsw
import msgspec

from actors.store.cache import RecentlyUsed
from actors.store.committer import Committer
from actors.store.connections import Readers, all_rows, one_row
from actors.store.keyring import KeyRing
from actors.store.protocol import KeyRow
from actors.store.seal import WRAPPED_KEY_BYTES, ServerKey
from actors.store.tickets import Batch, Ticket
from models.errors import InvalidRequest, NotFound, ShuttingDown
from models.ids import Principal, VaultNumber, VaultRef

UNKNOWN_KEYS_MAX = 1024
"""Cached answers "no such key"; apart from the live keys, so that guessing cannot push those out."""

_FIND_KEY = """SELECT key.number, key.account, key.kind, key.name, key.shown, vault.number, vault.shard
  FROM key JOIN vault ON vault.number = key.vault WHERE key.hash = ? AND key.revoked_ms IS NULL"""
_FIND_ACCOUNT_VAULT = """SELECT key.account, vault.number, vault.shard
  FROM key JOIN vault ON vault.number = key.vault
  WHERE key.kind = 'account' AND key.account = (SELECT min(number) FROM account)
  ORDER BY key.number DESC LIMIT 1"""
_REVOKE_ACCOUNT_KEYS = """UPDATE key SET revoked_ms = ?
  WHERE account = ? AND kind = 'account' AND revoked_ms IS NULL RETURNING hash"""
_INSERT_KEY = """INSERT INTO key(account, vault, kind, name, shown, hash, created_ms)
  VALUES (?, ?, ?, ?, ?, ?, ?)"""


class NewKey(msgspec.Struct, frozen=True):
    """A key to be stored."""

    kind: str
    name: str
    key_hash: bytes
    shown: str
    created_ms: int


class Replaced(msgspec.Struct, frozen=True):
    """What became of a shredded vault."""

    old: VaultRef
    new: VaultRef
    key_hashes: tuple[bytes, ...]


class SqliteDirectory:
    """Implements `actors.store.protocol.Directory`."""

    __slots__ = (
        "_keyring",
        "_keys_generation",
        "_live_keys",
        "_meta",
        "_meta_readers",
        "_now_ms",
        "_server_key",
        "_shards",
        "_unknown_keys",
    )

    def __init__(
        self,
        meta: Committer,
        meta_readers: Readers,
        *,
        server_key: ServerKey,
        keyring: KeyRing,
        shards: int,
        key_cache_max: int,
        now_ms: Callable[[], int],
    ) -> None:
        self._meta = meta
        self._meta_readers = meta_readers
        self._server_key = server_key
        self._keyring = keyring
        self._shards = shards
        self._now_ms = now_ms
        self._live_keys: RecentlyUsed[bytes, Principal] = RecentlyUsed(key_cache_max)
        self._unknown_keys: RecentlyUsed[bytes, bool] = RecentlyUsed(UNKNOWN_KEYS_MAX)
        self._keys_generation = 0

    async def has_account(self) -> bool:
        """Whether the first start has happened."""
        return await self._meta_readers.run(_has_account)

    async def find_key(self, key_hash: bytes) -> Principal | None:
        """The principal of a live key, else None (unknown or revoked)."""
        principal = self._live_keys.get(key_hash)
        if principal is not None or self._unknown_keys.get(key_hash):
            return principal
        generation = self._keys_generation
        principal = await self._meta_readers.run(partial(_find_key, key_hash))
        if generation == self._keys_generation:  # else a write came between, and this answer may be the older one
            if principal is None:
                self._unknown_keys.put(key_hash, True)
            else:
                self._live_keys.put(key_hash, principal)
        return principal

    async def list_keys(self, account_number: int | None = None) -> list[KeyRow]:
        """Keys of one account, or of all, oldest first."""
        return await self._meta_readers.run(partial(_list_keys, account_number))

    async def create_account(self, *, key_hash: bytes, shown: str, created_ms: int) -> Principal:
        """A new account with its account key and that key's own vault."""
        key = NewKey(kind="account", name="account", key_hash=key_hash, shown=shown, created_ms=created_ms)
        return await self._add_key(key, account_number=None)

    async def create_key(
        self, account_number: int, *, name: str, key_hash: bytes, shown: str, created_ms: int
    ) -> Principal:
        """A new user key with a new, empty vault."""
        key = NewKey(kind="user", name=name, key_hash=key_hash, shown=shown, created_ms=created_ms)
        return await self._add_key(key, account_number=account_number)

    async def _add_key(self, key: NewKey, *, account_number: int | None) -> Principal:
        def work(batch: Batch) -> Principal:
            account = _existing_or_new_account(batch.connection, account_number, created_ms=key.created_ms)
            vault = self._insert_vault(batch.connection, account, created_ms=key.created_ms)
            return _insert_key(batch.connection, key, account=account, vault=vault)

        return await self._meta.run(Ticket(work, on_durable=lambda _: self._forget_keys((key.key_hash,))))

    async def revoke_key(self, key_number: int, *, revoked_ms: int) -> bool:
        """Make a key invalid from now on; False when it is unknown or revoked already."""

        def work(batch: Batch) -> tuple[bytes, ...]:
            rows = all_rows(
                batch.connection,
                "UPDATE key SET revoked_ms = ? WHERE number = ? AND revoked_ms IS NULL RETURNING hash",
                (revoked_ms, key_number),
            )
            return tuple(key_hash for (key_hash,) in rows)

        ticket = Ticket(work, on_durable=self._forget_keys)
        hashes = await self._meta.run(ticket)
        return bool(hashes)

    async def replace_account_key(self, *, key_hash: bytes, shown: str, created_ms: int) -> Principal:
        """Revoke the first account's keys of kind "account" and give it a new one on the same vault.

        Raises:
            NotFound: there is no account yet.
        """
        key = NewKey(kind="account", name="account", key_hash=key_hash, shown=shown, created_ms=created_ms)

        def work(batch: Batch) -> tuple[Principal, tuple[bytes, ...]]:
            return _replace_account_key(batch.connection, key)

        ticket = Ticket(work, on_durable=lambda result: self._forget_keys((key_hash, *result[1])))
        principal, _ = await self._meta.run(ticket)
        return principal

    async def replace_vault(self, vault: VaultRef) -> VaultRef:
        """Shred a vault and point its keys at a new one; see the protocol.

        Raises:
            NotFound: the vault does not exist (any more).
        """

        def work(batch: Batch) -> Replaced:
            return self._shred(batch.connection, vault)

        def after_commit(_: Replaced) -> None:
            self._keyring.forget(vault.number)
            self._meta.truncate_wal()

        def on_durable(replaced: Replaced) -> None:
            self._forget_keys(replaced.key_hashes)
            self._purge_nowait(replaced.old)

        replaced = await self._meta.run(Ticket(work, after_commit=after_commit, on_durable=on_durable))
        return replaced.new

    def _purge_nowait(self, vault: VaultRef) -> None:
        """Begin to remove the rows of a shredded vault. The half of the store that has the shards does it."""
        raise AssertionError("a directory alone has no rows to purge")

    def _note_purged_nowait(self, vault_number: int) -> None:
        """Record that a shredded vault has no rows left."""

        def work(batch: Batch) -> None:
            batch.connection.execute("UPDATE vault SET state = 2 WHERE number = ? AND state = 1", (vault_number,))

        with suppress(ShuttingDown):  # the next start finds no rows and records it
            self._meta.put_nowait(Ticket(work))

    def _shred(self, connection: apsw.Connection, vault: VaultRef) -> Replaced:
        row = one_row(
            connection,
            "UPDATE vault SET state = 1 WHERE number = ? AND shard = ? AND state = 0 RETURNING account",
            (vault.number, vault.shard),
        )
        if row is None:
            raise NotFound(f"Vault {vault.number} does not exist (any more).")
        connection.execute(  # in place, never NULL and never DELETE: see the schema
            "UPDATE vault_key SET wrapped = zeroblob(?) WHERE vault = ?", (WRAPPED_KEY_BYTES, vault.number)
        )
        new = self._insert_vault(connection, row[0], created_ms=self._now_ms())
        hashes = all_rows(
            connection, "UPDATE key SET vault = ? WHERE vault = ? RETURNING hash", (new.number, vault.number)
        )
        return Replaced(old=vault, new=new, key_hashes=tuple(key_hash for (key_hash,) in hashes))

    def _insert_vault(self, connection: apsw.Connection, account: int, *, created_ms: int) -> VaultRef:
        row = one_row(connection, "SELECT seq FROM sqlite_sequence WHERE name = 'vault'")
        number = 1 + (row[0] if row else 0)
        shard = number % self._shards
        connection.execute(
            "INSERT INTO vault(number, account, shard, created_ms) VALUES (?, ?, ?, ?)",
            (number, account, shard, created_ms),
        )
        connection.execute(
            "INSERT INTO vault_key(vault, wrapped) VALUES (?, ?)",
            (number, self._server_key.new_wrapped_data_key(number)),
        )
        return VaultRef(number=VaultNumber(number), shard=shard)

    def _forget_keys(self, key_hashes: tuple[bytes, ...]) -> None:
        self._keys_generation += 1
        for key_hash in key_hashes:
            self._live_keys.drop(key_hash)
            self._unknown_keys.drop(key_hash)


def _has_account(connection: apsw.Connection) -> bool:
    return one_row(connection, "SELECT 1 FROM account LIMIT 1") is not None


def _find_key(key_hash: bytes, connection: apsw.Connection) -> Principal | None:
    row = one_row(connection, _FIND_KEY, (key_hash,))
    if row is None:
        return None
    key_number, account, kind, name, shown, vault, shard = row
    return Principal(
        key_number=key_number,
        account_number=account,
        kind=kind,
        name=name,
        vault=VaultRef(number=VaultNumber(vault), shard=shard),
        shown=shown,
    )


def _list_keys(account_number: int | None, connection: apsw.Connection) -> list[KeyRow]:
    rows = all_rows(
        connection,
        "SELECT number, account, kind, name, shown, created_ms, revoked_ms FROM key "
        "WHERE ?1 IS NULL OR account = ?1 ORDER BY number",
        (account_number,),
    )
    return [KeyRow(*row) for row in rows]


def _existing_or_new_account(connection: apsw.Connection, account_number: int | None, *, created_ms: int) -> int:
    if account_number is None:
        connection.execute("INSERT INTO account(created_ms) VALUES (?)", (created_ms,))
        return connection.last_insert_rowid()
    if one_row(connection, "SELECT 1 FROM account WHERE number = ?", (account_number,)) is None:
        raise NotFound(f"Account {account_number} does not exist.")
    return account_number


def _insert_key(connection: apsw.Connection, key: NewKey, *, account: int, vault: VaultRef) -> Principal:
    values = (account, vault.number, key.kind, key.name, key.shown, key.key_hash, key.created_ms)
    try:
        connection.execute(_INSERT_KEY, values)
    except apsw.ConstraintError as error:
        raise InvalidRequest("This key exists already.", field="key") from error
    return Principal(
        key_number=connection.last_insert_rowid(),
        account_number=account,
        kind=key.kind,
        name=key.name,
        vault=vault,
        shown=key.shown,
    )


def _replace_account_key(connection: apsw.Connection, key: NewKey) -> tuple[Principal, tuple[bytes, ...]]:
    row = one_row(connection, _FIND_ACCOUNT_VAULT)
    if row is None:
        raise NotFound("There is no account yet.")
    account, vault_number, shard = row
    revoked = all_rows(connection, _REVOKE_ACCOUNT_KEYS, (key.created_ms, account))
    vault = VaultRef(number=VaultNumber(vault_number), shard=shard)
    principal = _insert_key(connection, key, account=account, vault=vault)
    return principal, tuple(key_hash for (key_hash,) in revoked)
