"""What may be done to the keys and vaults of an account, as JSON: one place for the HTTP routes and the command line.

Owns minting: a key's text exists here and in the answer, nowhere else. Must never log one, nor look outside the account
that it is told. Accounts themselves are made and deleted by the operator only.
"""

from __future__ import annotations

import builtins
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msgspec import UNSET

from actors.store.directory_protocol import Directory
from models.accounts import AccountChange, Actor, KeyRecord
from models.errors import Conflict, InvalidRequest
from models.ids import VaultRef, hash_key, mint_key, show_key
from models.key_limits import NO_OWN_LIMITS
from models.times import format_time
from router.key_bodies import (
    KINDS,
    SEARCH_CHARACTERS_MAX,
    account_item,
    audit_item,
    key_item,
    read_account_change,
    read_audit_filter,
    read_expiry,
    read_grace_s,
    read_key_change,
    read_limits,
    read_name,
    read_retention,
    vault_item,
)
from router.paging import page_body, read_newest_first, read_page
from router.public_ids import number_of, public_id

KEY_NAME_DEFAULT = "memory key"

Body = dict[str, Any]
Retire = Callable[[VaultRef], Awaitable[None]]
"""Takes a vault that was shredded out of memory, see `Supervisor.retire`."""


class AccountKeys:
    """The keys and vaults of accounts, over the directory."""

    def __init__(
        self, directory: Directory, *, now_ms: Callable[[], int], retire: Retire, rotation_grace_s: int
    ) -> None:
        """Make one.

        Args:
            directory: the store's.
            now_ms: the wall clock.
            retire: takes a vault that was shredded out of memory.
            rotation_grace_s: how long a rotated key stays valid where nobody says.
        """
        self._directory = directory
        self._now_ms = now_ms
        self._retire = retire
        self._rotation_grace_s = rotation_grace_s

    # Keys.

    async def create(self, account: int, body: Mapping[str, Any], *, by: Actor) -> Body:
        """A new key; its text is in the answer and nowhere else.

        Raises:
            InvalidRequest: a field that cannot be one.
            NotFound: `vault_id` names no vault of the account.
            Conflict: that vault has a key.
        """
        now_ms = self._now_ms()
        name = KEY_NAME_DEFAULT if body.get("name") in (None, "") else read_name(body["name"])
        limits, expires_ms = read_limits(body.get("limits")), read_expiry(body.get("expires_at"), now_ms=now_ms)
        kind, vault_id = body.get("kind") or "user", body.get("vault_id")
        if kind not in KINDS:
            raise InvalidRequest("kind must be user or account.", field="kind")
        if vault_id is not None and not isinstance(vault_id, str):
            raise InvalidRequest("vault_id must be a string like vault_3.", field="vault_id")
        key, stored = new_key()
        named: Body = {"name": name, "created_ms": now_ms, "by": by, **stored}
        if kind == "account":
            _refuse_beside_account(body)
            principal = await self._directory.add_account_key(account, **named)
        else:
            vault_number = None if vault_id is None else number_of(vault_id, "vault")
            principal = await self._directory.create_key(
                account, vault_number=vault_number, limits=limits, expires_ms=expires_ms, **named
            )
        created = await self._directory.get_key(account, principal.key_number)
        return {"key": key, **await self._item(created)}

    async def list(self, account: int | None, query: Mapping[str, str]) -> Body:
        """A page of an account's keys, or of all accounts', oldest first; `order=desc`: newest first.

        Raises:
            InvalidRequest: no such order, or what `read_page` raises.
        """
        page, newest_first = read_page(query), read_newest_first(query)
        keys = await self._directory.list_keys(
            account,
            after=page.cursor or 0,
            limit=page.limit,
            search=query.get("search", "")[:SEARCH_CHARACTERS_MAX],
            include_revoked=query.get("include_revoked", "").lower() in {"true", "1"},
            newest_first=newest_first,
        )
        sizes = await self._directory.vault_sizes([key.vault for key in keys])
        now_ms = self._now_ms()
        items = [key_item(key, now_ms=now_ms, size=sizes.get(key.vault.number)) for key in keys]
        return page_body("keys", items, page, last=keys[-1].number if keys else None)

    async def get(self, account: int, key_id: str) -> Body:
        """One key."""
        return await self._item(await self._directory.get_key(account, number_of(key_id, "key")))

    async def change(self, account: int, key_id: str, body: Mapping[str, Any], *, by: Actor) -> Body:
        """Rename a key, switch it off or on, set its expiry or its limits.

        Raises:
            Conflict: an account key that is to end or to have limits, or what the directory raises.
        """
        now_ms = self._now_ms()
        number, change = number_of(key_id, "key"), read_key_change(body, now_ms=now_ms)
        ends = change.expires_ms is not UNSET and change.expires_ms is not None
        bounded = change.limits is not UNSET and change.limits != NO_OWN_LIMITS
        if (ends or bounded) and (await self._directory.get_key(account, number)).kind == "account":
            # An account must not find itself without a key one day.
            raise Conflict("An account key has no limits and no end.", hint="To end it, rotate or delete it.")
        return await self._item(await self._directory.change_key(account, number, change, now_ms=now_ms, by=by))

    async def rotate(self, account: int, key_id: str, body: Mapping[str, Any], *, by: Actor) -> Body:
        """A new key for the same vault; the old one stays valid for its grace period."""
        now_ms, number = self._now_ms(), number_of(key_id, "key")
        grace_ms = read_grace_s(body, default_s=self._rotation_grace_s) * 1000
        key, stored = new_key()
        created = await self._directory.rotate_key(account, number, now_ms=now_ms, grace_ms=grace_ms, by=by, **stored)
        ends_ms = (await self._directory.get_key(account, number)).expires_ms  # its own expiry may come first
        old = {"id": public_id("key", number), "valid_until": format_time(ends_ms or now_ms)}
        return {"key": key, **await self._item(created), "replaces": old}

    async def delete(self, account: int, key_id: str, *, vault: str, by: Actor) -> Body:
        """Revoke a key for good; `vault` says whether its vault is to "keep" or to "delete".

        Raises:
            InvalidRequest: `vault` is neither.
            NotFound: the account has no such key, or it is revoked already.
            Conflict: it is the last account key, or another key opens the vault that is to be deleted.
        """
        if vault not in {"keep", "delete"}:
            raise InvalidRequest(
                "vault must be keep or delete.",
                field="vault",
                hint="`keep` leaves the memories for a key to come; `delete` shreds them.",
            )
        number = number_of(key_id, "key")
        with_vault = vault == "delete"
        key = await self._directory.delete_key(account, number, now_ms=self._now_ms(), with_vault=with_vault, by=by)
        if with_vault:
            await self._retire(key.vault)
        vault_id = public_id("vault", key.vault.number)
        return {"id": public_id("key", number), "deleted": True, "vault_id": vault_id, "vault_deleted": with_vault}

    async def _item(self, key: KeyRecord) -> Body:
        sizes = await self._directory.vault_sizes([key.vault])
        return key_item(key, now_ms=self._now_ms(), size=sizes.get(key.vault.number))

    # Vaults.

    async def list_vaults(self, account: int, query: Mapping[str, str]) -> Body:
        """A page of an account's vaults, oldest first; `without_keys=true` for those that no key opens."""
        page = read_page(query)
        only_kept = query.get("without_keys", "").lower() in {"true", "1"}
        vaults = await self._directory.list_vaults(
            account, after=page.cursor or 0, limit=page.limit, without_keys=only_kept
        )
        last = vaults[-1].vault.number if vaults else None
        return page_body("vaults", [vault_item(vault) for vault in vaults], page, last=last)

    async def get_vault(self, account: int, vault_id: str) -> Body:
        """One vault."""
        return vault_item(await self._directory.get_vault(account, number_of(vault_id, "vault")))

    async def change_vault(self, account: int, vault_id: str, body: Mapping[str, Any], *, by: Actor) -> Body:
        """Set a vault's retention."""
        number, days = number_of(vault_id, "vault"), read_retention(body)
        vault = await self._directory.change_vault(account, number, retention_days=days, now_ms=self._now_ms(), by=by)
        return vault_item(vault)

    async def delete_vault(self, account: int, vault_id: str, *, by: Actor) -> Body:
        """Shred a vault that no key opens any more."""
        number = number_of(vault_id, "vault")
        vault = await self._directory.get_vault(account, number)
        await self._directory.delete_vault(account, number, now_ms=self._now_ms(), by=by)
        await self._retire(vault.vault)
        return {"id": public_id("vault", number), "deleted": True}

    # The account itself.

    async def account(self, account: int) -> Body:
        """The account, in numbers."""
        return account_item(await self._directory.get_account(account))

    async def change_account(self, account: int, body: Mapping[str, Any], *, by: Actor) -> Body:
        """Rename the account or set its retention."""
        change = read_account_change(body)
        return account_item(await self._directory.change_account(account, change, now_ms=self._now_ms(), by=by))

    async def audit(self, account: int | None, query: Mapping[str, str]) -> Body:
        """A page of the audit log, newest first: of one account, or of all.

        Raises:
            InvalidRequest: what `read_audit_filter` and `read_page` raise.
        """
        page, only = read_page(query), read_audit_filter(query)
        entries = await self._directory.list_audit(account, before=page.cursor, limit=page.limit, only=only)
        items = [audit_item(entry) for entry in entries]
        return page_body("entries", items, page, last=entries[-1].number if entries else None)

    # Accounts, for the operator.

    async def create_account(self, body: Mapping[str, Any], *, by: Actor) -> Body:
        """A new account with its account key, whose text is in the answer and nowhere else."""
        now_ms = self._now_ms()
        key, stored = new_key()
        name = "" if body.get("name") in (None, "") else read_name(body["name"])
        principal = await self._directory.create_account(name=name, created_ms=now_ms, by=by, **stored)
        return {"account_key": key, **await self.account(principal.account_number)}

    async def replace_account_key(self, account: int, *, by: Actor) -> Body:
        """Revoke all account keys of an account; its new one opens the vault of the newest of them."""
        key, stored = new_key()
        await self._directory.replace_account_key(account, created_ms=self._now_ms(), by=by, **stored)
        return {"account_key": key}

    async def list_accounts(self, query: Mapping[str, str]) -> Body:
        """A page of the accounts, oldest first."""
        page = read_page(query)
        accounts = await self._directory.list_accounts(after=page.cursor or 0, limit=page.limit)
        last = accounts[-1].number if accounts else None
        return page_body("accounts", [account_item(account) for account in accounts], page, last=last)

    async def switch_account(self, account: int, *, disabled: bool, by: Actor) -> Body:
        """Switch an account off, so that none of its keys opens anything, or on again."""
        change = AccountChange(disabled=disabled)
        return account_item(await self._directory.change_account(account, change, now_ms=self._now_ms(), by=by))

    async def delete_account(self, account: int, *, by: Actor) -> Body:
        """Revoke an account's keys, shred its vaults and provider keys, and forget what is in memory of them."""
        vaults: builtins.list[VaultRef] = []
        while page := await self._directory.list_vaults(account, after=vaults[-1].number if vaults else 0):
            vaults += [record.vault for record in page]
        await self._directory.delete_account(account, now_ms=self._now_ms(), by=by)
        for vault in vaults:
            await self._retire(vault)
        return {"id": public_id("acct", account), "deleted": True, "vaults_deleted": len(vaults)}


def new_key() -> tuple[str, Body]:
    """A new Memory Key, and what the directory keeps of it."""
    key = mint_key()
    return key, {"key_hash": hash_key(key), "shown": show_key(key)}


def _refuse_beside_account(body: Mapping[str, Any]) -> None:
    for field in ("vault_id", "limits", "expires_at"):
        if body.get(field) is not None:
            raise InvalidRequest(f"An account key takes no {field}.", field=field)


async def nothing_in_memory(vault: VaultRef) -> None:
    """Stands for `retire` where no vault is in memory: no server runs."""
