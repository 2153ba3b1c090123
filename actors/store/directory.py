"""Accounts, keys and vaults: the half of the store that lives in meta.db.

Writes are jobs of meta.db's committer. Look-ups of keys are cached; a write drops the entries that it changes
before its caller is told. Must never hold a key: only hashes come in here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

import apsw
import msgspec

from actors.store.cache import RecentlyUsed
from actors.store.committer import Committer
from actors.store.connections import Readers, all_rows, one_row
from actors.store.erasing import Replaced, insert_vault, shred_vault
from actors.store.keyring import KeyRing
from actors.store.ledger import Erasure, LedgerFile, RevokedKey, key_id
from actors.store.protocol import KeyRow
from actors.store.seal import ServerKey
from actors.store.tickets import Batch, Ticket
from models.errors import InvalidRequest, NotFound, ShuttingDown, StoreUnavailable
from models.ids import Principal, VaultNumber, VaultRef

T = TypeVar("T")

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


class SqliteDirectory:
    """Implements `actors.store.protocol.Directory`."""

    __slots__ = (
        "_keyring",
        "_keys_generation",
        "_ledger",
        "_live_keys",
        "_meta",
        "_meta_readers",
        "_now_ms",
        "_server_key",
        "_unknown_keys",
    )

    def __init__(
        self,
        meta: Committer,
        meta_readers: Readers,
        *,
        server_key: ServerKey,
        keyring: KeyRing,
        ledger: LedgerFile,
        key_cache_max: int,
        now_ms: Callable[[], int],
    ) -> None:
        self._meta = meta
        self._meta_readers = meta_readers
        self._server_key = server_key
        self._keyring = keyring
        self._ledger = ledger
        self._now_ms = now_ms
        self._live_keys: RecentlyUsed[bytes, Principal] = RecentlyUsed(key_cache_max)
        self._unknown_keys: RecentlyUsed[bytes, bool] = RecentlyUsed(UNKNOWN_KEYS_MAX)
        self._keys_generation = 0

    async def has_account(self) -> bool:
        """Whether the first start has happened."""
        return await self._read_meta(_has_account)

    async def find_key(self, key_hash: bytes) -> Principal | None:
        """The principal of a live key, else None (unknown or revoked)."""
        principal = self._live_keys.get(key_hash)
        if principal is not None or self._unknown_keys.get(key_hash):
            return principal
        generation = self._keys_generation
        principal = await self._read_meta(partial(_find_key, key_hash))
        if generation == self._keys_generation:  # else a write came between, and this answer may be the older one
            if principal is None:
                self._unknown_keys.put(key_hash, True)
            else:
                self._live_keys.put(key_hash, principal)
        return principal

    async def list_keys(self, account_number: int | None = None) -> list[KeyRow]:
        """Keys of one account, or of all, oldest first."""
        return await self._read_meta(partial(_list_keys, account_number))

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
            vault = insert_vault(
                batch.connection,
                account,
                server_key=self._server_key,
                shards=self._shards_for_new_vaults(),
                created_ms=key.created_ms,
            )
            return _insert_key(batch.connection, key, account=account, vault=vault)

        return await self._run_meta(Ticket(work, grows=True, on_durable=lambda _: self._forget_keys((key.key_hash,))))

    async def revoke_key(self, key_number: int, *, revoked_ms: int) -> bool:
        """Make a key invalid from now on; False when it is unknown or revoked already."""

        def work(batch: Batch) -> tuple[bytes, ...]:
            rows = all_rows(
                batch.connection,
                "UPDATE key SET revoked_ms = ? WHERE number = ? AND revoked_ms IS NULL RETURNING hash",
                (revoked_ms, key_number),
            )
            return tuple(key_hash for (key_hash,) in rows)

        def after_commit(hashes: tuple[bytes, ...]) -> None:
            self._write_ledger(_revocations(hashes, revoked_ms))

        ticket = Ticket(work, after_commit=after_commit, on_durable=self._forget_keys)
        hashes = await self._run_erasure(ticket)
        return bool(hashes)

    async def replace_account_key(self, *, key_hash: bytes, shown: str, created_ms: int) -> Principal:
        """Revoke the first account's keys of kind "account" and give it a new one on the same vault.

        Raises:
            NotFound: there is no account yet.
        """
        key = NewKey(kind="account", name="account", key_hash=key_hash, shown=shown, created_ms=created_ms)

        def work(batch: Batch) -> tuple[Principal, tuple[bytes, ...]]:
            return _replace_account_key(batch.connection, key)

        def after_commit(result: tuple[Principal, tuple[bytes, ...]]) -> None:
            self._write_ledger(_revocations(result[1], created_ms))

        ticket = Ticket(
            work, after_commit=after_commit, on_durable=lambda result: self._forget_keys((key_hash, *result[1]))
        )
        principal, _ = await self._run_erasure(ticket)
        return principal

    async def replace_vault(self, vault: VaultRef) -> VaultRef:
        """Shred a vault and point its keys at a new one; see the protocol.

        Raises:
            NotFound: the vault does not exist (any more).
            StoreUnavailable: nothing was changed, or it was erased but that cannot be confirmed yet.
        """

        def work(batch: Batch) -> Replaced:
            replaced = shred_vault(
                batch.connection,
                vault,
                server_key=self._server_key,
                shards=self._shards_for_new_vaults(),
                now_ms=self._now_ms(),
            )
            if replaced is None:
                raise NotFound(f"Vault {vault.number} does not exist (any more).")
            return replaced

        def after_commit(replaced: Replaced) -> None:
            self._keyring.forget(vault.number)
            self._meta.truncate_wal()
            self._write_ledger((replaced.erasure,))

        def on_durable(replaced: Replaced) -> None:
            self._forget_keys(replaced.key_hashes)
            self._purge_nowait(replaced.old)

        replaced = await self._run_erasure(Ticket(work, after_commit=after_commit, on_durable=on_durable))
        if self._meta.truncate_owed:
            raise StoreUnavailable(
                "The vault was erased, but the write-ahead log of meta.db could not be emptied yet.",
                hint="Ask again until this is confirmed.",
            )
        return replaced.new

    async def _run_meta(self, ticket: Ticket[T]) -> T:
        """Run a job of meta.db.

        Raises:
            ShardDamaged: meta.db must not be served.
        """
        self._check_meta()
        return await self._meta.run(ticket)

    async def _read_meta(self, read: Callable[[apsw.Connection], T]) -> T:
        self._check_meta()
        return await self._meta_readers.run(read)

    def _check_meta(self) -> None:
        if self._meta.damage is not None:
            raise copy.copy(self._meta.damage)

    async def _run_erasure(self, ticket: Ticket[T]) -> T:
        """Run a job of meta.db whose effect belongs into the ledger as well.

        Raises:
            StoreUnavailable: it took effect, but a restored backup would undo it: the ledger cannot be written.
        """
        result = await self._run_meta(ticket)
        if self._ledger.owed:
            raise StoreUnavailable(
                "This was erased, but the erasure ledger could not be written.",
                hint="Look at the server's log, and ask again.",
            )
        return result

    def _write_ledger(self, erasures: Sequence[Erasure]) -> None:
        """In the committer's thread, before anyone is told."""
        with suppress(OSError):  # logged, and owed
            self._ledger.append(erasures)

    def _shards_for_new_vaults(self) -> Sequence[int]:
        """Which shards may take new vaults. The half of the store that has the shards knows."""
        raise AssertionError("a directory alone has no shards")

    def _purge_nowait(self, vault: VaultRef) -> None:
        """Begin to remove the rows of a shredded vault. The half of the store that has the shards does it."""
        raise AssertionError("a directory alone has no rows to purge")

    def _note_purged_nowait(self, vault_number: int) -> None:
        """Record that a shredded vault has no rows left."""

        def work(batch: Batch) -> None:
            batch.connection.execute("UPDATE vault SET state = 2 WHERE number = ? AND state = 1", (vault_number,))

        with suppress(ShuttingDown):  # the next start finds no rows and records it
            self._meta.put_nowait(Ticket(work))

    def _forget_keys(self, key_hashes: tuple[bytes, ...]) -> None:
        self._keys_generation += 1
        for key_hash in key_hashes:
            self._live_keys.drop(key_hash)
            self._unknown_keys.drop(key_hash)


def _revocations(key_hashes: Sequence[bytes], revoked_ms: int) -> list[Erasure]:
    return [RevokedKey(key=key_id(key_hash), revoked_ms=revoked_ms) for key_hash in key_hashes]


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
