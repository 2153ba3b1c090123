"""Accounts and keys of the in-memory store: a model of what the protocol says, written apart from the SQL."""

from __future__ import annotations

import msgspec
import trio
from msgspec.structs import replace

from actors.store.directory_protocol import PAGE_MAX
from models.accounts import SERVER, AccountChange, AccountRecord, Actor, KeyChange, KeyRecord
from models.errors import Conflict, NotFound
from models.ids import Principal, VaultRef
from models.key_limits import NO_OWN_LIMITS, KeyLimits
from tests.fakes.directory_state import DirectoryState, MemoryChanges, StoredAccount


class MemoryKeys(MemoryChanges):
    """A part of `MemoryStore`."""

    async def has_account(self) -> bool:
        await trio.lowlevel.checkpoint()
        return bool(self.state.accounts)

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
        def change(state: DirectoryState) -> Principal:
            if only_first and state.accounts:
                raise Conflict("There is an account already.")
            number = len(state.accounts) + 1
            state.accounts[number] = StoredAccount(number=number, name=name, created_ms=created_ms)
            state.add_entry("account.created", f"account:{number}", at_ms=created_ms, account=number, by=by)
            return self._add_key(
                state, number, key_hash, kind="account", name="account", shown=shown, created_ms=created_ms, by=by
            )

        return await self._change(change)

    async def list_accounts(self, *, after: int = 0, limit: int = PAGE_MAX) -> list[AccountRecord]:
        await trio.lowlevel.checkpoint()
        state = self.state
        live = [number for number, account in state.accounts.items() if number > after and account.deleted_ms is None]
        return [self._account(state, number) for number in live[:limit]]

    async def get_account(self, number: int) -> AccountRecord:
        await trio.lowlevel.checkpoint()
        return self._account(self.state, number)

    def _account(self, state: DirectoryState, number: int) -> AccountRecord:
        account = state.account(number)
        return AccountRecord(
            number=number,
            name=account.name,
            created_ms=account.created_ms,
            disabled_ms=account.disabled_ms,
            retention_days=account.retention_days,
            live_keys=sum(
                key.account_number == number and not key.is_over(self._now_ms()) for key in state.keys.values()
            ),
            vaults=sum(vault.account == number for vault in self.disk.vaults.values()),
        )

    async def change_account(self, number: int, change: AccountChange, *, now_ms: int, by: Actor) -> AccountRecord:
        def work(state: DirectoryState) -> AccountRecord:
            account = state.account(number)
            fields = msgspec.to_builtins(change)
            detail: dict[str, str | int | None] = {"fields": ", ".join(sorted(fields))}
            if "disabled" in fields:
                fields["disabled_ms"] = (account.disabled_ms or now_ms) if fields.pop("disabled") else None
            state.accounts[number] = account = replace(account, **fields)
            if account.disabled_ms is not None:
                detail["state"] = "disabled"
            state.add_entry("account.changed", f"account:{number}", at_ms=now_ms, account=number, by=by, detail=detail)
            return self._account(state, number)

        return await self._change(work)

    async def delete_account(self, number: int, *, now_ms: int, by: Actor) -> None:
        def work(state: DirectoryState) -> None:
            state.accounts[number] = replace(state.account(number), deleted_ms=now_ms, name="")
            mine = [key for key in state.keys.values() if key.account_number == number]
            revoked = [state.revoke(key, now_ms) for key in mine if key.revoked_ms is None]
            for key in mine:
                state.keys[key.number] = replace(state.keys[key.number], name="")
            vaults = [vault.reference for vault in self.disk.vaults.values() if vault.account == number]
            state.doomed += [vault.number for vault in vaults]
            providers = [place for place in state.provider_keys if place[0] == number]
            for place in providers:
                del state.provider_keys[place]
            detail = {"keys": len(revoked), "vaults": len(vaults), "provider_keys": len(providers)}
            state.add_entry("account.deleted", f"account:{number}", at_ms=now_ms, account=number, by=by, detail=detail)

        await self._change(work)

    # Keys.

    async def find_key(self, key_hash: bytes) -> Principal | None:
        await trio.lowlevel.checkpoint()
        return self.find_key_nowait(key_hash)

    def find_key_nowait(self, key_hash: bytes) -> Principal | None:
        state = self.state
        number = state.hashes.get(key_hash)
        if number is None:
            return None
        key = state.keys[number]
        account = state.accounts[key.account_number]
        if key.state(self._now_ms()) != "live" or account.disabled_ms is not None or account.deleted_ms is not None:
            return None
        return _principal(key) if key.vault.number in self.disk.vaults else None

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
        def change(state: DirectoryState) -> Principal:
            state.account(account_number)
            vault = None
            if vault_number is not None:
                vault = self._vault_of(account_number, vault_number).reference
                state.check_keyless(vault_number, created_ms)
            return self._add_key(
                state,
                account_number,
                key_hash,
                kind="user",
                name=name,
                shown=shown,
                created_ms=created_ms,
                by=by,
                vault=vault,
                limits=limits,
                expires_ms=expires_ms,
            )

        return await self._change(change)

    async def add_account_key(
        self, account_number: int, *, name: str, key_hash: bytes, shown: str, created_ms: int, by: Actor
    ) -> Principal:
        def change(state: DirectoryState) -> Principal:
            state.account(account_number)
            return self._add_key(
                state, account_number, key_hash, kind="account", name=name, shown=shown, created_ms=created_ms, by=by
            )

        return await self._change(change)

    async def replace_account_key(
        self, account_number: int, *, key_hash: bytes, shown: str, created_ms: int, by: Actor = SERVER
    ) -> Principal:
        def change(state: DirectoryState) -> Principal:
            state.account(account_number)
            mine = [k for k in state.keys.values() if (k.account_number, k.kind) == (account_number, "account")]
            vaults = [key.vault for key in mine if key.vault.number in self.disk.vaults]
            revoked = [state.revoke(key, created_ms) for key in mine if key.revoked_ms is None]
            new = self._add_key(
                state,
                account_number,
                key_hash,
                kind="account",
                name="account",
                shown=shown,
                created_ms=created_ms,
                by=by,
                vault=vaults[-1] if vaults else None,
            )
            state.add_entry(
                "account.key_replaced",
                f"account:{account_number}",
                at_ms=created_ms,
                account=account_number,
                by=by,
                detail={"key": new.key_number, "keys_revoked": len(revoked)},
            )
            return new

        return await self._change(change)

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
        await trio.lowlevel.checkpoint()
        keys = sorted(self.state.keys.items(), reverse=newest_first)
        found = [
            key
            for number, key in keys
            if (not after or (number < after if newest_first else number > after))
            and account_number in (None, key.account_number)
            and _folded(search) in _folded(key.name)
            and (include_revoked or not key.is_over(self._now_ms()))
        ]
        return found[:limit]

    async def get_key(self, account_number: int, key_number: int) -> KeyRecord:
        await trio.lowlevel.checkpoint()
        return self.state.key(account_number, key_number)

    async def change_key(
        self, account_number: int, key_number: int, change: KeyChange, *, now_ms: int, by: Actor
    ) -> KeyRecord:
        def work(state: DirectoryState) -> KeyRecord:
            before = state.key(account_number, key_number)
            if before.is_over(now_ms):
                raise Conflict(f"Key {key_number} is revoked.")
            fields = {name: getattr(change, name) for name in change.__struct_fields__}
            fields = {name: value for name, value in fields.items() if value is not msgspec.UNSET}
            detail = {"fields": ", ".join(sorted(fields))}
            if "disabled" in fields:
                fields["disabled_ms"] = (before.disabled_ms or now_ms) if fields.pop("disabled") else None
            after = replace(before, **fields)
            longest_ms = before.expires_ms or 0
            if before.rotated_to is not None and (after.expires_ms is None or after.expires_ms > longest_ms):
                raise Conflict(f"Key {key_number} was rotated.")
            if before.state(now_ms) == "live" != after.state(now_ms):
                state.check_leaves_an_account_key(before, now_ms)
            state.keys[key_number] = after
            if after.disabled_ms is not None:
                state.end_grace(key_number, now_ms)
            state.add_key_entry(
                "key.changed", after, at_ms=now_ms, by=by, detail={**detail, "state": after.state(now_ms)}
            )
            return after

        return await self._change(work)

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
        def work(state: DirectoryState) -> KeyRecord:
            old = state.key(account_number, key_number)
            if old.state(now_ms) != "live" or old.rotated_to is not None:
                raise Conflict("Only a live key can be rotated, once.")
            number = state.insert(replace(old, number=0, shown=shown, created_ms=now_ms, last_used_ms=None), key_hash)
            ends_ms = now_ms + grace_ms
            expires_ms = ends_ms if old.expires_ms is None else min(old.expires_ms, ends_ms)
            state.keys[key_number] = replace(old, rotated_to=number, expires_ms=expires_ms)
            detail = {"new_key": number, "grace_ms": grace_ms}
            state.add_key_entry("key.rotated", old, at_ms=now_ms, by=by, detail=detail)
            return state.keys[number]

        return await self._change(work)

    async def delete_key(
        self, account_number: int, key_number: int, *, now_ms: int, with_vault: bool, by: Actor
    ) -> KeyRecord:
        def work(state: DirectoryState) -> KeyRecord:
            key = state.key(account_number, key_number)
            if key.revoked_ms is not None:
                raise NotFound(f"Key {key_number} is revoked already.")
            if key.state(now_ms) == "live":
                state.check_leaves_an_account_key(key, now_ms)
            state.revoke(key, now_ms)
            state.end_grace(key_number, now_ms)
            state.add_key_entry("key.deleted", key, at_ms=now_ms, by=by, detail={"vault": key.vault.number})
            if with_vault:
                state.check_keyless(key.vault.number, now_ms)
                self._shred(state, key.vault.number, account_number, at_ms=now_ms, by=by)
            return state.keys[key_number]

        return await self._change(work)

    def _add_key(
        self,
        state: DirectoryState,
        account: int,
        key_hash: bytes,
        *,
        kind: str,
        name: str,
        shown: str,
        created_ms: int,
        by: Actor,
        vault: VaultRef | None = None,
        limits: KeyLimits = NO_OWN_LIMITS,
        expires_ms: int | None = None,
    ) -> Principal:
        record = KeyRecord(
            number=0,
            account_number=account,
            kind=kind,
            name=name,
            shown=shown,
            vault=vault or self._new_vault(state, account, created_ms=created_ms),
            created_ms=created_ms,
            expires_ms=expires_ms,
            limits=limits,
        )
        key = state.keys[state.insert(record, key_hash)]
        detail: dict[str, str | int | None] = {
            "kind": kind,
            "vault": int(key.vault.number),
            "vault_is_new": int(vault is None),
        }
        state.add_key_entry("key.created", key, at_ms=created_ms, by=by, detail=detail)
        return _principal(key)


def _folded(text: str) -> str:
    """ASCII letters in one case, as SQL's LIKE sees them."""
    return "".join(character.lower() if character.isascii() else character for character in text)


def _principal(key: KeyRecord) -> Principal:
    return Principal(
        key_number=key.number,
        account_number=key.account_number,
        kind=key.kind,
        name=key.name,
        vault=key.vault,
        shown=key.shown,
        limits=key.limits,
    )
