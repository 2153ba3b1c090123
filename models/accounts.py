"""Accounts, keys, vaults and what is known of them: what the directory of a server holds, and how it may be changed.

Pure data, msgspec Structs. Times are integer milliseconds since the Unix epoch. Never a key's text: only the part of it
that may be shown, and of a provider's key its last four characters.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from models.ids import VaultRef
from models.key_limits import KeyLimits


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One key as its account may see it.

    Attributes:
        kind: "account" or "user".
        shown: the part of the key that may be shown.
        revoked_ms: when it was revoked, for good: whatever the clock says.
        disabled_ms: since when it is switched off; can be switched on again.
        expires_ms: from when on it is not valid any more; the grace period of a rotated key ends here.
        last_used_ms: coarse, at most a minute behind.
        rotated_to: number of the key that took its place. Its expiry may only come nearer then, and ends it for good.
    """

    number: int
    account_number: int
    kind: str
    name: str
    shown: str
    vault: VaultRef
    created_ms: int
    revoked_ms: int | None = None
    disabled_ms: int | None = None
    expires_ms: int | None = None
    last_used_ms: int | None = None
    limits: KeyLimits = KeyLimits()
    rotated_to: int | None = None

    def state(self, now_ms: int) -> str:
        """`live`, `disabled`, `expired` or `revoked`."""
        if self.revoked_ms is not None:
            return "revoked"
        if self.expires_ms is not None and self.expires_ms <= now_ms:
            return "expired"
        return "live" if self.disabled_ms is None else "disabled"

    def is_over(self, now_ms: int) -> bool:
        """Whether it will never open its vault again: revoked, or rotated and its grace period has ended."""
        return self.revoked_ms is not None or (self.rotated_to is not None and self.state(now_ms) == "expired")


class KeyChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What to change of a key; what is unset stays."""

    name: str | UnsetType = UNSET
    disabled: bool | UnsetType = UNSET
    expires_ms: int | UnsetType | None = UNSET
    limits: KeyLimits | UnsetType = UNSET


class AccountRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One account: a tenant of the server.

    Attributes:
        disabled_ms: since when none of its keys opens anything.
        retention_days: after how many days its vaults' memories are deleted, where a vault does not say otherwise.
        live_keys: keys that are not over; switched-off and expired ones are among them.
        vaults: those that are not erased.
    """

    number: int
    name: str
    created_ms: int
    disabled_ms: int | None = None
    retention_days: int | None = None
    live_keys: int = 0
    vaults: int = 0


class AccountSize(msgspec.Struct, frozen=True, kw_only=True):
    """What all vaults of an account hold together; what still waits in the inbox is not among it."""

    vaults: int
    memories: int
    content_bytes: int


class AccountChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What to change of an account; what is unset stays."""

    name: str | UnsetType = UNSET
    disabled: bool | UnsetType = UNSET
    retention_days: int | UnsetType | None = UNSET


class VaultRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One vault as its account may see it.

    Attributes:
        live_keys: keys of it that are not over; with none, it is kept for a key to come.
        memories: memories that the store holds of it; what still waits in the inbox is not among them.
        content_bytes: their rows' bytes.
    """

    vault: VaultRef
    account_number: int
    created_ms: int
    retention_days: int | None = None
    live_keys: int = 0
    memories: int = 0
    content_bytes: int = 0


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """A vault whose memories are to be deleted after some days, by its own setting or by its account's."""

    vault: VaultRef
    account_number: int
    days: int


class ProviderKeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's key that an account has stored: never the key itself."""

    provider: str
    last_four: str
    created_ms: int


class Actor(msgspec.Struct, frozen=True):
    """Who does something that the audit log keeps.

    Attributes:
        name: `key:12`, `operator` (command line), or `server` (expiry, retention).
        account_number: whose; None for the operator and the server itself.
        request_id: of the request that did it.
    """

    name: str
    account_number: int | None = None
    request_id: str | None = None


OPERATOR = Actor("operator")
SERVER = Actor("server")


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what to which key, vault, account or provider key: never content.

    Attributes:
        number: grows with time; the cursor of the audit log.
        account_number: the account that it concerns.
        action: for example `key.created`, `key.rotated`, `vault.erased`, `memories.deleted`, `provider_key.stored`.
        target: `key:12`, `vault:3`, `account:1`, `provider:openai`.
        detail: numbers and names of ours that tell more, such as counts; never a key or a text.
    """

    number: int
    at_ms: int
    account_number: int | None
    actor: str
    action: str
    target: str
    detail: dict[str, str | int | None] = {}
    request_id: str | None = None


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries of the audit log are asked for; what is empty or None does not matter.

    Attributes:
        action: what the entry's begins with: `key.deleted`, or `key.` for all that is done to keys.
        target: the whole of it: `key:12`.
        actor: the whole of it: `key:1`, `operator`, `server`.
        since_ms: the first moment that counts.
        until_ms: the first moment that does not count any more.
    """

    action: str = ""
    target: str = ""
    actor: str = ""
    since_ms: int | None = None
    until_ms: int | None = None


EVERY_ENTRY = AuditFilter()
