"""The directory as everyone else sees it: accounts, keys, vaults, provider keys, usage, and the log of who did what.

One protocol, one conformance suite, several implementations, as for the vaults' logs. Memory Keys come in as SHA-256
hashes; the directory never sees one. Every call that changes something says who does it and leaves an audit entry in
the same transaction. A call that names an account sees nothing outside it: what belongs to another one is not found.

All times are integer milliseconds since the Unix epoch. Lists are in the order of their numbers and go on behind
`after`. Every method can raise `StoreUnavailable` (nothing was changed) and `ShardDamaged`; those that store something
new, `StorageFull`. Methods that erase or revoke can also raise `StoreUnavailable` after they took effect, when that
cannot be confirmed yet; asking again is safe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from models.accounts import (
    EVERY_ENTRY,
    SERVER,
    AccountChange,
    AccountRecord,
    AccountSize,
    Actor,
    AuditEntry,
    AuditFilter,
    KeyChange,
    KeyRecord,
    ProviderKeyRecord,
    Retention,
    VaultRecord,
)
from models.ids import Principal, VaultRef
from models.key_limits import NO_OWN_LIMITS, KeyLimits
from models.provider_settings import Secret
from models.usage import UsageCount

PAGE_MAX = 1000
"""Entries of a list, if the caller does not say."""
PROVIDER_KEY_BYTES_MAX = 1022
"""A provider key in UTF-8; every sealed one takes the same room, so that it can be overwritten in place."""


class AccountDirectory(Protocol):
    """Accounts and keys."""

    async def has_account(self) -> bool:
        """Whether the first start has happened."""

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
        """A new account with its account key and that key's own vault.

        Args:
            only_first: only if there never was an account: of several servers that start at once, one makes it.

        Raises:
            Conflict: there is one already, with `only_first`.
            InvalidRequest: this key exists already.
        """

    async def list_accounts(self, *, after: int = 0, limit: int = PAGE_MAX) -> list[AccountRecord]:
        """All accounts that are not deleted."""

    async def get_account(self, number: int) -> AccountRecord:
        """One account.

        Raises:
            NotFound: there is none of this number (any more).
        """

    async def change_account(self, number: int, change: AccountChange, *, now_ms: int, by: Actor) -> AccountRecord:
        """Rename it, switch it off or on, set its retention. A switched-off account's keys open nothing.

        Raises:
            NotFound: there is none of this number.
        """

    async def delete_account(self, number: int, *, now_ms: int, by: Actor) -> None:
        """For good: revoke its keys, shred its vaults and its provider keys. Usage and audit entries stay.

        Raises:
            NotFound: there is none of this number.
        """

    async def find_key(self, key_hash: bytes) -> Principal | None:
        """The principal of a live key, else None: unknown, revoked, expired, switched off, or its account is.

        Cached; a change is seen by the first look-up after it.
        """

    def find_key_nowait(self, key_hash: bytes) -> Principal | None:
        """The same from the cache alone: None also says that it is not there."""

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
        """A new user key with a new, empty vault, or for a vault of the account that no key opens any more.

        Raises:
            InvalidRequest: this key exists already.
            NotFound: no such account; no such vault in it.
            Conflict: the vault has a key that is not over.
        """

    async def add_account_key(
        self, account_number: int, *, name: str, key_hash: bytes, shown: str, created_ms: int, by: Actor
    ) -> Principal:
        """A further account key with a vault of its own.

        Raises:
            InvalidRequest: this key exists already.
            NotFound: no such account.
        """

    async def replace_account_key(
        self, account_number: int, *, key_hash: bytes, shown: str, created_ms: int, by: Actor = SERVER
    ) -> Principal:
        """Revoke all of an account's account keys and give it a new one on the vault of the newest of them.

        Raises:
            InvalidRequest: this key exists already.
            NotFound: no such account.
        """

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
        """Keys of one account, or of all, oldest first unless `newest_first`.

        Args:
            account_number: whose; None: everybody's.
            after: behind which number, in the order that is asked for; 0: from its beginning.
            limit: how many at most.
            search: a part of the name; ASCII letters match in either case.
            include_revoked: also those that are over.
            newest_first: the highest numbers first.
        """

    async def get_key(self, account_number: int, key_number: int) -> KeyRecord:
        """One key, also a revoked one.

        Raises:
            NotFound: the account has no such key.
        """

    async def change_key(
        self, account_number: int, key_number: int, change: KeyChange, *, now_ms: int, by: Actor
    ) -> KeyRecord:
        """Rename a key, switch it off or on, set its expiry or its limits.

        Switching a key off also revokes the keys whose place it took: their grace period ends.

        Raises:
            NotFound: the account has no such key.
            Conflict: it is revoked; or was rotated, and would live longer; or no live account key would be left.
        """

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
        """A new key in the place of a live one: same vault, kind, name, limits and expiry. Returns the new one.

        The old one expires in `grace_ms`, for good: its expiry can be brought nearer, not put off.

        Raises:
            InvalidRequest: the new key exists already.
            NotFound: the account has no such key.
            Conflict: it is not live, or was rotated before.
        """

    async def delete_key(
        self, account_number: int, key_number: int, *, now_ms: int, with_vault: bool, by: Actor
    ) -> KeyRecord:
        """Revoke a key for good, and those whose place it took. Returns it as it is now.

        Args:
            account_number: whose.
            key_number: which.
            now_ms: the time.
            with_vault: whether its vault is shredded as well; else it is kept for a key to come.
            by: who does it.

        Raises:
            NotFound: the account has no such key, or it is revoked already.
            Conflict: it is the account's last live account key; or another key opens the vault that is to be deleted.
        """


class VaultDirectory(Protocol):
    """Vaults as their accounts see them, and the providers' keys that accounts store."""

    async def list_vaults(
        self, account_number: int, *, after: int = 0, limit: int = PAGE_MAX, without_keys: bool = False
    ) -> list[VaultRecord]:
        """Live vaults of an account; `without_keys` leaves only those kept for a key to come."""

    async def get_vault(self, account_number: int, number: int) -> VaultRecord:
        """One vault.

        Raises:
            NotFound: the account has no such vault (any more).
        """

    async def change_vault(
        self, account_number: int, number: int, *, retention_days: int | None, now_ms: int, by: Actor
    ) -> VaultRecord:
        """Set after how many days its memories are deleted; None: as its account says.

        Raises:
            NotFound: the account has no such vault (any more).
        """

    async def delete_vault(self, account_number: int, number: int, *, now_ms: int, by: Actor) -> None:
        """Shred a vault that no key opens any more.

        Raises:
            NotFound: the account has no such vault (any more).
            Conflict: it has a key that is not over.
        """

    async def replace_vault(self, vault: VaultRef, *, by: Actor = SERVER) -> VaultRef:
        """Shred a vault: destroy its data key, point its keys at a new empty vault, then delete its rows.

        Returns once the old data key is gone from the database and its WAL. Rows are unreadable from then on and are
        removed in the background, also after a crash.

        Raises:
            NotFound: the vault does not exist (any more).
        """

    async def vault_sizes(self, vaults: Sequence[VaultRef]) -> dict[int, tuple[int, int]]:
        """By vault number: how many memories the store holds, and the bytes of their rows. Exact, also after a crash.

        A vault whose shard cannot be read is left out.
        """

    async def account_size(self, account_number: int) -> AccountSize:
        """What an account's vaults hold together. Takes longer the more they are: some 0.3 ms for a thousand.

        What a shard that cannot be read holds is left out.
        """

    async def list_retentions(self, *, after: int = 0, limit: int = PAGE_MAX) -> list[Retention]:
        """Live vaults whose memories are to be deleted after some days, by their own setting or their account's."""

    async def put_provider_key(
        self, account_number: int, provider: str, secret: str, *, now_ms: int, by: Actor
    ) -> ProviderKeyRecord:
        """Store a provider's key, sealed, in the place of the one before, which is shredded.

        Raises:
            InvalidRequest: it is empty, or longer than `PROVIDER_KEY_BYTES_MAX`.
            NotFound: no such account.
        """

    async def list_provider_keys(self, account_number: int) -> list[ProviderKeyRecord]:
        """What an account has stored, by the providers' names."""

    async def find_provider_key(self, account_number: int, provider: str) -> Secret | None:
        """The provider's key that an account has stored, or None. Cached; a change is seen by the first look-up after.

        Raises:
            CorruptRow: it fails its checksum. Nobody else's key may be used in its place.
        """

    async def delete_provider_key(self, account_number: int, provider: str, *, now_ms: int, by: Actor) -> None:
        """Shred it.

        Raises:
            NotFound: the account has stored none.
        """


class RecordDirectory(Protocol):
    """What is kept of who did what, and how much."""

    async def audit(
        self,
        *,
        at_ms: int,
        account_number: int | None,
        action: str,
        target: str,
        by: Actor,
        detail: Mapping[str, str | int | None] | None = None,
    ) -> None:
        """Add an entry for something that changes nothing else here, such as memories that were deleted."""

    async def list_audit(
        self,
        account_number: int | None = None,
        *,
        before: int | None = None,
        limit: int = PAGE_MAX,
        only: AuditFilter = EVERY_ENTRY,
    ) -> list[AuditEntry]:
        """Entries that concern one account, or all, the newest first, with numbers below `before`.

        What is asked for of one account is found by an index. Of all together, the log is read backwards.
        """

    async def trim_audit(self, *, before_ms: int, limit: int = PAGE_MAX) -> int:
        """Delete those of the `limit` oldest entries that are from before a time; how many. Numbers are not used again.

        One call is a short job; ask again until it deletes nothing.
        """

    async def fold_usage(
        self, journal: str, number: int, counts: Sequence[UsageCount], last_used: Mapping[int, int]
    ) -> None:
        """Add what a journal file counted, and note that it is folded, in one transaction.

        Args:
            journal: the series of files; each numbers its files upwards, and they are folded in that order.
            number: of the file. One at or below the highest that was folded changes nothing.
            counts: are added to what is there for the same key, day and model.
            last_used: by key number, when it was used last; an earlier time than the known one is ignored.
        """

    async def folded_through(self, journal: str) -> int:
        """The highest number of this journal that was folded; -1 for none."""

    async def load_usage(
        self, account_number: int, *, key_number: int | None = None, first_day: int, last_day: int
    ) -> list[UsageCount]:
        """Counts of an account, or of one of its keys, from one day through another, by day, key and model."""

    async def prune_usage(self, *, before_day: int) -> None:
        """Delete the counts of all days before this one."""


class Directory(AccountDirectory, VaultDirectory, RecordDirectory, Protocol):
    """All of it."""
