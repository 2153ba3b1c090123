"""Accounts and keys of a store in SQL: one job of the directory's committer a call, and cached look-ups of keys.

See `actors.store.directory_protocol` for what each method promises. Must never hold a key: only hashes come in here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import msgspec

from actors.store import accounts as account_rows
from actors.store import keys as key_rows
from actors.store.audit import add_entry
from actors.store.database import Connection, one_row
from actors.store.directory_protocol import PAGE_MAX
from actors.store.erasing import delete_account, insert_vault, shred_vault
from actors.store.keys import LiveKey, NewKey
from actors.store.meta_jobs import Effects, MetaJobs
from actors.store.vault_rows import live_vault
from models.accounts import SERVER, AccountChange, AccountRecord, Actor, KeyChange, KeyRecord
from models.errors import Conflict
from models.ids import Principal, VaultNumber, VaultRef
from models.key_limits import NO_OWN_LIMITS, KeyLimits

ACCOUNT_KEY_NAME = "account"

_ACCOUNT_VAULT = """SELECT vault.number, vault.shard FROM key JOIN vault ON vault.number = key.vault
  WHERE key.account = ? AND key.kind = 'account' AND vault.state = 0 ORDER BY key.number DESC LIMIT 1"""


class SqlKeys(MetaJobs):
    """Implements `actors.store.directory_protocol.AccountDirectory`."""

    __slots__ = ()

    async def has_account(self) -> bool:
        """Whether the first start has happened."""
        return await self._read_meta(account_rows.has_account)

    async def create_account(
        self,
        *,
        key_hash: bytes,
        shown: str,
        created_ms: int,
        name: str = "",
        by: Actor = SERVER,
        only_first: bool = False,
    ) -> Principal:
        """A new account with its account key; see the protocol."""
        key = _account_key(key_hash, shown=shown, created_ms=created_ms)

        def work(connection: Connection, effects: Effects) -> Principal:
            if only_first and account_rows.has_account(connection):
                raise Conflict("There is an account already.")
            account = account_rows.insert_account(connection, name=name, created_ms=created_ms)
            audit = partial(add_entry, connection, at_ms=created_ms, account=account, by=by)
            audit("account.created", f"account:{account}")
            return self._insert(connection, effects, key, account=account, by=by)

        return await self._change(work, grows=True)

    async def list_accounts(self, *, after: int = 0, limit: int = PAGE_MAX) -> list[AccountRecord]:
        """All accounts that are not deleted."""
        now_ms = self._now_ms()
        return await self._read_meta(partial(account_rows.list_accounts, after=after, limit=limit, now_ms=now_ms))

    async def get_account(self, number: int) -> AccountRecord:
        """One account; see the protocol."""
        return await self._read_meta(partial(account_rows.get_account, number=number, now_ms=self._now_ms()))

    async def change_account(self, number: int, change: AccountChange, *, now_ms: int, by: Actor) -> AccountRecord:
        """Rename it, switch it off or on, set its retention; see the protocol."""

        def work(connection: Connection, effects: Effects) -> AccountRecord:
            changed = account_rows.change_account(connection, number, change, now_ms=now_ms)
            effects.account = number
            detail = {"fields": ", ".join(sorted(msgspec.to_builtins(change)))}
            if changed.disabled_ms is not None:
                detail["state"] = "disabled"
            add_entry(
                connection, "account.changed", f"account:{number}", at_ms=now_ms, account=number, by=by, detail=detail
            )
            return changed

        return await self._change(work)

    async def delete_account(self, number: int, *, now_ms: int, by: Actor) -> None:
        """For good: its keys, its vaults, its provider keys; see the protocol."""

        def work(connection: Connection, effects: Effects) -> None:
            deleted = delete_account(connection, number, now_ms=now_ms)
            effects.account = number
            effects.key_hashes += deleted.key_hashes
            effects.note_shredded(*deleted.vaults)
            effects.note_provider_keys(deleted.provider_keys)
            effects.erasures = deleted.erasures
            detail = {
                "keys": len(deleted.key_hashes),
                "vaults": len(deleted.vaults),
                "provider_keys": len(deleted.provider_keys),
            }
            add_entry(
                connection, "account.deleted", f"account:{number}", at_ms=now_ms, account=number, by=by, detail=detail
            )

        await self._erase(work)

    async def find_key(self, key_hash: bytes) -> Principal | None:
        """The principal of a live key, else None; see the protocol."""
        key = self._live_keys.get(key_hash)
        if key is None and not self._unknown_keys.get(key_hash):
            generation = self._generation
            key = await self._read_meta(partial(key_rows.find_key, key_hash=key_hash))
            if generation == self._generation:  # else a write came between, and this answer may be the older one
                if key is None:
                    self._unknown_keys.put(key_hash, True)
                else:
                    self._live_keys.put(key_hash, key)
        return _principal_at(key, self._now_ms())

    def find_key_nowait(self, key_hash: bytes) -> Principal | None:
        """The same, if it is remembered; see the protocol."""
        return _principal_at(self._live_keys.get(key_hash), self._now_ms())

    async def create_key(
        self,
        account_number: int,
        *,
        name: str,
        key_hash: bytes,
        shown: str,
        created_ms: int,
        vault_number: int | None = None,
        limits: KeyLimits = NO_OWN_LIMITS,
        expires_ms: int | None = None,
        by: Actor = SERVER,
    ) -> Principal:
        """A new user key with a new vault, or for one that is kept; see the protocol."""
        key = NewKey(
            kind="user",
            name=name,
            key_hash=key_hash,
            shown=shown,
            created_ms=created_ms,
            expires_ms=expires_ms,
            limits=limits,
        )

        def work(connection: Connection, effects: Effects) -> Principal:
            account_rows.check_account(connection, account_number)
            vault = None
            if vault_number is not None:
                vault = live_vault(connection, account_number, vault_number)
                key_rows.check_keyless(connection, vault_number, now_ms=created_ms)
            return self._insert(connection, effects, key, account=account_number, by=by, vault=vault)

        return await self._change(work, grows=True)

    async def add_account_key(
        self, account_number: int, *, name: str, key_hash: bytes, shown: str, created_ms: int, by: Actor
    ) -> Principal:
        """A further account key with a vault of its own; see the protocol."""
        key = NewKey(kind="account", name=name, key_hash=key_hash, shown=shown, created_ms=created_ms)

        def work(connection: Connection, effects: Effects) -> Principal:
            account_rows.check_account(connection, account_number)
            return self._insert(connection, effects, key, account=account_number, by=by)

        return await self._change(work, grows=True)

    async def replace_account_key(
        self, account_number: int, *, key_hash: bytes, shown: str, created_ms: int, by: Actor = SERVER
    ) -> Principal:
        """Revoke all account keys for a new one; see the protocol."""
        key = _account_key(key_hash, shown=shown, created_ms=created_ms)

        def work(connection: Connection, effects: Effects) -> Principal:
            account_rows.check_account(connection, account_number)
            row = one_row(connection, _ACCOUNT_VAULT, (account_number,))
            vault = None if row is None else VaultRef(number=VaultNumber(row[0]), shard=row[1])
            revoked = key_rows.revoke_account_keys(connection, account_number, now_ms=created_ms, kind="account")
            effects.note_revoked(revoked, revoked_ms=created_ms)
            principal = self._insert(connection, effects, key, account=account_number, by=by, vault=vault)
            add_entry(
                connection,
                "account.key_replaced",
                f"account:{account_number}",
                at_ms=created_ms,
                account=account_number,
                by=by,
                detail={"key": principal.key_number, "keys_revoked": len(revoked)},
            )
            return principal

        return await self._erase(work)

    async def list_keys(
        self,
        account_number: int | None = None,
        *,
        after: int = 0,
        limit: int = PAGE_MAX,
        search: str = "",
        include_revoked: bool = False,
        newest_first: bool = False,
    ) -> list[KeyRecord]:
        """Keys of one account, or of all; see the protocol."""
        return await self._read_meta(
            partial(
                key_rows.list_keys,
                account=account_number,
                after=after,
                limit=limit,
                search=search,
                include_revoked=include_revoked,
                newest_first=newest_first,
                now_ms=self._now_ms(),
            )
        )

    async def get_key(self, account_number: int, key_number: int) -> KeyRecord:
        """One key; see the protocol."""
        return await self._read_meta(partial(key_rows.get_key, account=account_number, number=key_number))

    async def change_key(
        self, account_number: int, key_number: int, change: KeyChange, *, now_ms: int, by: Actor
    ) -> KeyRecord:
        """Rename a key, switch it off or on, set its expiry or its limits; see the protocol."""

        def work(connection: Connection, effects: Effects) -> KeyRecord:
            changed, ended = key_rows.change_key(connection, account_number, key_number, change, now_ms=now_ms)
            effects.key_hashes.append(key_rows.hash_of(connection, key_number))
            effects.note_revoked(ended, revoked_ms=now_ms)
            detail = {"fields": ", ".join(sorted(msgspec.to_builtins(change))), "state": changed.state(now_ms)}
            self._audit_key(connection, "key.changed", changed, at_ms=now_ms, by=by, detail=detail)
            return changed

        return await self._erase(work)

    async def rotate_key(
        self,
        account_number: int,
        key_number: int,
        *,
        key_hash: bytes,
        shown: str,
        now_ms: int,
        grace_ms: int,
        by: Actor,
    ) -> KeyRecord:
        """A new key in the place of a live one; see the protocol."""

        def work(connection: Connection, effects: Effects) -> KeyRecord:
            old = key_rows.get_key(connection, account_number, key_number)
            new = NewKey(
                kind=old.kind,
                name=old.name,
                key_hash=key_hash,
                shown=shown,
                created_ms=now_ms,
                expires_ms=old.expires_ms,
                limits=old.limits,
            )
            principal, old_hash = key_rows.rotate_key(connection, old, new, ends_ms=now_ms + grace_ms)
            effects.key_hashes += [key_hash, old_hash]
            effects.erasures.append(key_rows.rotation(old_hash, now_ms + grace_ms))
            detail = {"new_key": principal.key_number, "grace_ms": grace_ms}
            self._audit_key(connection, "key.rotated", old, at_ms=now_ms, by=by, detail=detail)
            return key_rows.get_key(connection, account_number, principal.key_number)

        return await self._erase(work)

    async def delete_key(
        self, account_number: int, key_number: int, *, now_ms: int, with_vault: bool, by: Actor
    ) -> KeyRecord:
        """Revoke a key for good, perhaps with its vault; see the protocol."""

        def work(connection: Connection, effects: Effects) -> KeyRecord:
            key = key_rows.get_key(connection, account_number, key_number)
            revoked = key_rows.revoke_key(connection, key, now_ms=now_ms)
            effects.note_revoked(revoked, revoked_ms=now_ms)
            self._audit_key(connection, "key.deleted", key, at_ms=now_ms, by=by, detail={"vault": key.vault.number})
            if with_vault:
                key_rows.check_keyless(connection, key.vault.number, now_ms=now_ms)
                effects.note_shredded(shred_vault(connection, key.vault, now_ms=now_ms))
                target = f"vault:{key.vault.number}"
                add_entry(connection, "vault.erased", target, at_ms=now_ms, account=account_number, by=by)
            return key_rows.get_key(connection, account_number, key_number)

        return await self._erase(work)

    def _insert(
        self,
        connection: Connection,
        effects: Effects,
        key: NewKey,
        *,
        account: int,
        by: Actor,
        vault: VaultRef | None = None,
    ) -> Principal:
        """A new key, for a new vault without `vault`."""
        opened = vault or insert_vault(
            connection,
            account,
            server_key=self._server_key,
            shards=self._shards_for_new_vaults(),
            created_ms=key.created_ms,
        )
        principal = key_rows.insert_key(connection, key, account=account, vault=opened)
        effects.key_hashes.append(key.key_hash)
        add_entry(
            connection,
            "key.created",
            f"key:{principal.key_number}",
            at_ms=key.created_ms,
            account=account,
            by=by,
            detail={"kind": key.kind, "vault": opened.number, "vault_is_new": int(vault is None)},
        )
        return principal

    @staticmethod
    def _audit_key(
        connection: Connection,
        action: str,
        key: KeyRecord,
        *,
        at_ms: int,
        by: Actor,
        detail: Mapping[str, str | int],
    ) -> None:
        target = f"key:{key.number}"
        add_entry(connection, action, target, at_ms=at_ms, account=key.account_number, by=by, detail=detail)


def _account_key(key_hash: bytes, *, shown: str, created_ms: int) -> NewKey:
    return NewKey(kind="account", name=ACCOUNT_KEY_NAME, key_hash=key_hash, shown=shown, created_ms=created_ms)


def _principal_at(key: LiveKey | None, now_ms: int) -> Principal | None:
    return key.principal if key is not None and key.is_live(now_ms) else None
