"""What the in-memory directory holds, and the changes that its parts have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from actors.store.tickets import Batch, Ticket
from models.accounts import Actor, AuditEntry, KeyRecord, ProviderKeyRecord
from models.errors import Conflict, InvalidRequest, NotFound
from models.ids import VaultNumber, VaultRef
from models.provider_settings import Secret
from models.usage import UsageCount
from tests.fakes.memory_disk import MemoryDisk, StoredVault

T = TypeVar("T")
Place = tuple[int, int, int, str]
"""Day, key, account, model."""
Detail = Mapping[str, str | int | None]


class StoredAccount(msgspec.Struct, frozen=True, kw_only=True):
    """An account; a deleted one stays."""

    number: int
    name: str
    created_ms: int
    disabled_ms: int | None = None
    deleted_ms: int | None = None
    retention_days: int | None = None


class DirectoryState(msgspec.Struct):
    """Everything, in plain dicts. Every change works on a copy, which takes its place when the change succeeds.

    Attributes:
        made: vaults that a change has made.
        doomed: numbers of vaults that it has shredded.
    """

    accounts: dict[int, StoredAccount] = {}
    keys: dict[int, KeyRecord] = {}
    hashes: dict[bytes, int] = {}
    provider_keys: dict[tuple[int, str], tuple[ProviderKeyRecord, Secret]] = {}
    entries: list[AuditEntry] = []
    entries_made: int = 0
    usage: dict[Place, UsageCount] = {}
    folds: dict[str, int] = {}
    vaults_made: int = 0
    made: list[StoredVault] = []
    doomed: list[int] = []

    def copied(self) -> DirectoryState:
        """The state that a change works on."""
        return DirectoryState(
            accounts=self.accounts.copy(),
            keys=self.keys.copy(),
            hashes=self.hashes.copy(),
            provider_keys=self.provider_keys.copy(),
            entries=self.entries.copy(),
            entries_made=self.entries_made,
            usage=self.usage.copy(),
            folds=self.folds.copy(),
            vaults_made=self.vaults_made,
        )

    def account(self, number: int) -> StoredAccount:
        """An account that is not deleted."""
        account = self.accounts.get(number)
        if account is None or account.deleted_ms is not None:
            raise NotFound(f"Account {number} does not exist.")
        return account

    def key(self, account: int, number: int) -> KeyRecord:
        """A key of an account."""
        key = self.keys.get(number)
        if key is None or key.account_number != account:
            raise NotFound(f"There is no key {number}.")
        return key

    def insert(self, record: KeyRecord, key_hash: bytes) -> int:
        """Add a key; its number."""
        if key_hash in self.hashes:
            raise InvalidRequest("This key exists already.", field="key")
        number = len(self.keys) + 1
        self.keys[number] = replace(record, number=number)
        self.hashes[key_hash] = number
        return number

    def revoke(self, key: KeyRecord, now_ms: int) -> int:
        """Revoke a key; its number."""
        self.keys[key.number] = replace(self.keys[key.number], revoked_ms=now_ms)
        return key.number

    def end_grace(self, number: int, now_ms: int) -> None:
        """Revoke those whose place this key took."""
        for key in list(self.keys.values()):
            if key.rotated_to == number:
                if key.revoked_ms is None:
                    self.revoke(key, now_ms)
                self.end_grace(key.number, now_ms)

    def check_keyless(self, vault_number: int, now_ms: int) -> None:
        """Refuse a vault that a key opens."""
        if any(key.vault.number == vault_number and not key.is_over(now_ms) for key in self.keys.values()):
            raise Conflict("A key opens this vault.")

    def check_leaves_an_account_key(self, key: KeyRecord, now_ms: int) -> None:
        """Refuse to take an account's last account key."""
        if key.kind != "account" or key.rotated_to is not None:
            return
        for other in self.keys.values():
            same = (other.account_number, other.kind) == (key.account_number, "account")
            if same and other.number != key.number and other.rotated_to is None and other.state(now_ms) == "live":
                return
        raise Conflict("This is the account's last live account key.")

    def add_entry(
        self, action: str, target: str, *, at_ms: int, account: int | None, by: Actor, detail: Detail | None = None
    ) -> None:
        """Append to the audit log."""
        entry = AuditEntry(
            number=self.entries_made + 1,
            at_ms=at_ms,
            account_number=account,
            actor=by.name,
            action=action,
            target=target,
            detail=dict(detail or {}),
            request_id=by.request_id,
        )
        self.entries.append(entry)
        self.entries_made += 1

    def add_key_entry(self, action: str, key: KeyRecord, *, at_ms: int, by: Actor, detail: Detail) -> None:
        """Append to the audit log, about a key."""
        self.add_entry(action, f"key:{key.number}", at_ms=at_ms, account=key.account_number, by=by, detail=detail)


class MemoryChanges:
    """What the parts of the in-memory directory are made of; the store has the attributes, and commits."""

    disk: MemoryDisk
    _now_ms: Callable[[], int]
    _shards: int

    @property
    def state(self) -> DirectoryState:
        """The directory as it was committed last."""
        if self.disk.directory is None:
            self.disk.directory = DirectoryState()
        assert isinstance(self.disk.directory, DirectoryState)
        return self.disk.directory

    def _put(self, ticket: Ticket[T]) -> Ticket[T]:
        raise AssertionError("the store commits")

    async def _change(self, change: Callable[[DirectoryState], T]) -> T:
        """Commit a change as a whole, or nothing of it."""

        def work(_: Batch) -> T:
            state = self.state.copied()
            result = change(state)
            for vault in state.made:
                self.disk.vaults[vault.reference.number] = vault
            for number in state.doomed:
                del self.disk.vaults[number]
            self.disk.directory = state
            return result

        return await self._put(Ticket(work)).wait()

    def _new_vault(self, state: DirectoryState, account: int, *, created_ms: int) -> VaultRef:
        state.vaults_made += 1
        reference = VaultRef(number=VaultNumber(state.vaults_made), shard=state.vaults_made % self._shards)
        state.made.append(StoredVault(reference, account=account, created_ms=created_ms))
        return reference

    def _vault_of(self, account_number: int, number: int) -> StoredVault:
        vault = self.disk.vaults.get(number)
        if vault is None or vault.account != account_number:
            raise NotFound(f"There is no vault {number}.")
        return vault

    def _shred(
        self,
        state: DirectoryState,
        number: int,
        account: int,
        *,
        at_ms: int,
        by: Actor,
        detail: Detail | None = None,
    ) -> None:
        state.doomed.append(number)
        state.add_entry("vault.erased", f"vault:{number}", at_ms=at_ms, account=account, by=by, detail=detail)
