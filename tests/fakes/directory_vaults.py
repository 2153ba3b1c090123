"""Vaults, provider keys, usage and the audit log of the in-memory store: a model, written apart from the SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import trio
from msgspec.structs import replace

from actors.store.directory_protocol import PAGE_MAX, PROVIDER_KEY_BYTES_MAX
from actors.store.memory_rows import encode_memory
from actors.store.protocol import StoreSize
from actors.store.seal import SEALED_OVERHEAD_BYTES
from models.accounts import (
    EVERY_ENTRY,
    SERVER,
    AccountSize,
    Actor,
    AuditEntry,
    AuditFilter,
    ProviderKeyRecord,
    Retention,
    VaultRecord,
)
from models.errors import InvalidRequest, NotFound
from models.ids import VaultRef
from models.memory import Memory
from models.provider_settings import Secret
from models.usage import UsageCount
from tests.fakes.directory_state import DirectoryState, MemoryChanges, Place
from tests.fakes.memory_disk import StoredVault

_NAMED = ("key_number", "account_number", "day", "model")
_memories = msgspec.msgpack.Decoder(Memory)


class MemoryVaults(MemoryChanges):
    """A part of `MemoryStore`."""

    async def list_vaults(
        self, account_number: int, *, after: int = 0, limit: int = PAGE_MAX, without_keys: bool = False
    ) -> list[VaultRecord]:
        await trio.lowlevel.checkpoint()
        found = [
            self._vault_record(vault)
            for number, vault in sorted(self.disk.vaults.items())
            if number > after and vault.account == account_number
        ]
        return [record for record in found if not (without_keys and record.live_keys)][:limit]

    async def get_vault(self, account_number: int, number: int) -> VaultRecord:
        await trio.lowlevel.checkpoint()
        return self._vault_record(self._vault_of(account_number, number))

    def _vault_record(self, vault: StoredVault) -> VaultRecord:
        memories, content_bytes = _size(vault)
        opening = [key for key in self.state.keys.values() if key.vault == vault.reference]
        return VaultRecord(
            vault=vault.reference,
            account_number=vault.account,
            created_ms=vault.created_ms,
            retention_days=vault.retention_days,
            live_keys=sum(not key.is_over(self._now_ms()) for key in opening),
            memories=memories,
            content_bytes=content_bytes,
        )

    async def change_vault(
        self, account_number: int, number: int, *, retention_days: int | None, now_ms: int, by: Actor
    ) -> VaultRecord:
        def work(state: DirectoryState) -> VaultRecord:
            vault = self._vault_of(account_number, number)
            vault.retention_days = retention_days
            detail = {"retention_days": retention_days}
            target = f"vault:{number}"
            state.add_entry("vault.changed", target, at_ms=now_ms, account=account_number, by=by, detail=detail)
            return self._vault_record(vault)

        return await self._change(work)

    async def delete_vault(self, account_number: int, number: int, *, now_ms: int, by: Actor) -> None:
        def work(state: DirectoryState) -> None:
            self._vault_of(account_number, number)
            state.check_keyless(number, now_ms)
            self._shred(state, number, account_number, at_ms=now_ms, by=by)

        await self._change(work)

    async def replace_vault(self, vault: VaultRef, *, by: Actor = SERVER) -> VaultRef:
        def work(state: DirectoryState) -> VaultRef:
            old = self.disk.vault(vault)
            new = self._new_vault(state, old.account, created_ms=self._now_ms())
            for number, key in state.keys.items():
                if key.vault == vault:
                    state.keys[number] = replace(key, vault=new)
            detail = {"new_vault": int(new.number)}
            self._shred(state, vault.number, old.account, at_ms=self._now_ms(), by=by, detail=detail)
            return new

        return await self._change(work)

    async def vault_sizes(self, vaults: Sequence[VaultRef]) -> dict[int, tuple[int, int]]:
        await trio.lowlevel.checkpoint()
        found = {vault.number: self.disk.vaults.get(vault.number) for vault in vaults}
        return {number: (0, 0) if vault is None else _size(vault) for number, vault in found.items()}

    async def size(self) -> StoreSize:
        await trio.lowlevel.checkpoint()
        sizes = [_size(vault) for vault in self.disk.vaults.values()]
        return StoreSize(len(sizes), sum(memories for memories, _ in sizes), sum(held for _, held in sizes))

    async def account_size(self, account_number: int) -> AccountSize:
        held = await self.list_vaults(account_number, limit=1 << 30)
        return AccountSize(
            vaults=len(held),
            memories=sum(record.memories for record in held),
            content_bytes=sum(record.content_bytes for record in held),
        )

    async def list_retentions(self, *, after: int = 0, limit: int = PAGE_MAX) -> list[Retention]:
        await trio.lowlevel.checkpoint()
        found = []
        for number, vault in sorted(self.disk.vaults.items()):
            own, of_account = vault.retention_days, self.state.accounts[vault.account].retention_days
            days = of_account if own is None else own
            if number > after and days is not None:
                found.append(Retention(vault=vault.reference, account_number=vault.account, days=days))
        return found[:limit]


class MemoryRecords(MemoryChanges):
    """A part of `MemoryStore`."""

    # Provider keys, the audit log, usage.

    async def put_provider_key(
        self, account_number: int, provider: str, secret: str, *, now_ms: int, by: Actor
    ) -> ProviderKeyRecord:
        def work(state: DirectoryState) -> ProviderKeyRecord:
            state.account(account_number)
            if not 1 <= len(secret.encode()) <= PROVIDER_KEY_BYTES_MAX:
                raise InvalidRequest("A provider key has 1 to 1022 bytes.", field="key")
            last_four = secret[-4:] if len(secret) >= 16 else ""
            record = ProviderKeyRecord(provider=provider, last_four=last_four, created_ms=now_ms)
            state.provider_keys[account_number, provider] = (record, Secret(secret))
            target = f"provider:{provider}"
            state.add_entry("provider_key.stored", target, at_ms=now_ms, account=account_number, by=by)
            return record

        return await self._change(work)

    async def list_provider_keys(self, account_number: int) -> list[ProviderKeyRecord]:
        await trio.lowlevel.checkpoint()
        found = sorted(self.state.provider_keys.items())
        return [record for (account, _), (record, _) in found if account == account_number]

    async def find_provider_key(self, account_number: int, provider: str) -> Secret | None:
        await trio.lowlevel.checkpoint()
        found = self.state.provider_keys.get((account_number, provider))
        return None if found is None else found[1]

    async def delete_provider_key(self, account_number: int, provider: str, *, now_ms: int, by: Actor) -> None:
        def work(state: DirectoryState) -> None:
            if state.provider_keys.pop((account_number, provider), None) is None:
                raise NotFound(f"The account has stored no key for {provider}.")
            target = f"provider:{provider}"
            state.add_entry("provider_key.deleted", target, at_ms=now_ms, account=account_number, by=by)

        await self._change(work)

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
        await self._change(
            lambda state: state.add_entry(action, target, at_ms=at_ms, account=account_number, by=by, detail=detail)
        )

    async def list_audit(
        self,
        account_number: int | None = None,
        *,
        before: int | None = None,
        limit: int = PAGE_MAX,
        only: AuditFilter = EVERY_ENTRY,
    ) -> list[AuditEntry]:
        await trio.lowlevel.checkpoint()
        found = [
            entry
            for entry in reversed(self.state.entries)
            if account_number in (None, entry.account_number)
            and (before is None or entry.number < before)
            and _is_asked_for(entry, only)
        ]
        return found[:limit]

    async def trim_audit(self, *, before_ms: int, limit: int = PAGE_MAX) -> int:
        def work(state: DirectoryState) -> int:
            doomed = [entry for entry in state.entries[:limit] if entry.at_ms < before_ms]
            state.entries = [entry for entry in state.entries if entry not in doomed]
            return len(doomed)

        return await self._change(work)

    async def fold_usage(
        self, journal: str, number: int, counts: Sequence[UsageCount], last_used: Mapping[int, int]
    ) -> None:
        def work(state: DirectoryState) -> None:
            if number <= state.folds.get(journal, -1):
                return
            state.folds[journal] = number
            for count in counts:
                place: Place = (count.day, count.key_number, count.account_number, count.model)
                known = state.usage.get(place)
                state.usage[place] = count if known is None else _sum(known, count)
            for key, used_ms in last_used.items():
                if key in state.keys and used_ms > (state.keys[key].last_used_ms or -1):
                    state.keys[key] = replace(state.keys[key], last_used_ms=used_ms)

        await self._change(work)

    async def folded_through(self, journal: str) -> int:
        await trio.lowlevel.checkpoint()
        return self.state.folds.get(journal, -1)

    async def load_usage(
        self, account_number: int, *, key_number: int | None = None, first_day: int, last_day: int
    ) -> list[UsageCount]:
        await trio.lowlevel.checkpoint()
        return [
            count
            for (day, key, account, _), count in sorted(self.state.usage.items(), key=_usage_order)
            if account == account_number and key_number in (None, key) and first_day <= day <= last_day
        ]

    async def prune_usage(self, *, before_day: int) -> None:
        def work(state: DirectoryState) -> None:
            for place in [place for place in state.usage if place[0] < before_day]:
                del state.usage[place]

        await self._change(work)


def _is_asked_for(entry: AuditEntry, only: AuditFilter) -> bool:
    return (
        entry.action.startswith(only.action)
        and only.target in ("", entry.target)
        and only.actor in ("", entry.actor)
        and (only.since_ms is None or only.since_ms <= entry.at_ms)
        and (only.until_ms is None or entry.at_ms < only.until_ms)
    )


def _usage_order(item: tuple[Place, Any]) -> Place:
    return item[0]


def _sum(first: UsageCount, second: UsageCount) -> UsageCount:
    names = [name for name in first.__struct_fields__ if name not in _NAMED]
    return replace(first, **{name: getattr(first, name) + getattr(second, name) for name in names})


def _size(vault: StoredVault) -> tuple[int, int]:
    """As SQLite counts: the sealed rows."""
    bodies = [encode_memory(_memories.decode(body)) for body in vault.memories.values()]
    return len(bodies), sum(map(len, bodies)) + SEALED_OVERHEAD_BYTES * len(bodies)
