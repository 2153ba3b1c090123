"""Vaults as their accounts see them, and the providers' keys that accounts store, of a store in SQL.

See `actors.store.directory_protocol` for what each method promises. A provider's key is in the clear only in a bounded
cache in memory; must never log one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec

from actors.store import provider_keys as provider_rows
from actors.store import vault_rows
from actors.store.accounts import check_account
from actors.store.audit import add_entry
from actors.store.database import Connection
from actors.store.directory_protocol import PAGE_MAX
from actors.store.erasing import shred_vault, succeed_vault
from actors.store.keys import check_keyless
from actors.store.meta_jobs import Effects, MetaJobs
from models.accounts import SERVER, AccountSize, Actor, ProviderKeyRecord, Retention, VaultRecord
from models.errors import NotFound
from models.ids import VaultRef
from models.provider_settings import Secret


class SqlVaults(MetaJobs):
    """Implements `actors.store.directory_protocol.VaultDirectory`."""

    __slots__ = ()

    async def list_vaults(
        self, account_number: int, *, after: int = 0, limit: int = PAGE_MAX, without_keys: bool = False
    ) -> list[VaultRecord]:
        """Live vaults of an account; see the protocol."""
        listing = partial(
            vault_rows.list_vaults,
            account=account_number,
            after=after,
            limit=limit,
            without_keys=without_keys,
            now_ms=self._now_ms(),
        )
        return await self._with_sizes(await self._read_meta(listing))

    async def get_vault(self, account_number: int, number: int) -> VaultRecord:
        """One vault; see the protocol."""
        read = partial(vault_rows.get_vault, account=account_number, number=number, now_ms=self._now_ms())
        (record,) = await self._with_sizes([await self._read_meta(read)])
        return record

    async def change_vault(
        self, account_number: int, number: int, *, retention_days: int | None, now_ms: int, by: Actor
    ) -> VaultRecord:
        """Set after how many days its memories are deleted; see the protocol."""

        def work(connection: Connection, _effects: Effects) -> VaultRecord:
            vault_rows.live_vault(connection, account_number, number)
            vault_rows.set_retention(connection, number, retention_days)
            add_entry(
                connection,
                "vault.changed",
                f"vault:{number}",
                at_ms=now_ms,
                account=account_number,
                by=by,
                detail={"retention_days": retention_days},
            )
            return vault_rows.get_vault(connection, account_number, number, now_ms=now_ms)

        (record,) = await self._with_sizes([await self._change(work)])
        return record

    async def delete_vault(self, account_number: int, number: int, *, now_ms: int, by: Actor) -> None:
        """Shred a vault that no key opens any more; see the protocol."""

        def work(connection: Connection, effects: Effects) -> None:
            vault = vault_rows.live_vault(connection, account_number, number)
            check_keyless(connection, number, now_ms=now_ms)
            effects.note_shredded(shred_vault(connection, vault, now_ms=now_ms))
            add_entry(connection, "vault.erased", f"vault:{number}", at_ms=now_ms, account=account_number, by=by)

        await self._erase(work)

    async def replace_vault(self, vault: VaultRef, *, by: Actor = SERVER) -> VaultRef:
        """Shred a vault and point its keys at a new one; see the protocol."""
        now_ms = self._now_ms()

        def work(connection: Connection, effects: Effects) -> VaultRef:
            shredded = shred_vault(connection, vault, now_ms=now_ms)
            new, key_hashes = succeed_vault(
                connection,
                shredded,
                server_key=self._server_key,
                shards=self._shards_for_new_vaults(),
                now_ms=now_ms,
            )
            effects.note_shredded(shredded)
            effects.key_hashes += key_hashes
            add_entry(
                connection,
                "vault.erased",
                f"vault:{vault.number}",
                at_ms=now_ms,
                account=shredded.account,
                by=by,
                detail={"new_vault": new.number},
            )
            return new

        return await self._erase(work)

    async def vault_sizes(self, vaults: Sequence[VaultRef]) -> dict[int, tuple[int, int]]:
        """Memories and bytes by vault number. The half of the store that has the shards knows."""
        raise AssertionError("a directory alone has no shards")

    async def account_size(self, account_number: int) -> AccountSize:
        """What the account's vaults hold together; see the protocol."""
        vaults, memories, content_bytes = 0, 0, 0
        read = partial(vault_rows.numbers_by_shard, account=account_number)
        for shard, count, numbers in await self._read_meta(read):
            held = await self._held_together(shard, numbers)
            vaults, memories, content_bytes = vaults + count, memories + held[0], content_bytes + held[1]
        return AccountSize(vaults=vaults, memories=memories, content_bytes=content_bytes)

    async def _held_together(self, shard: int, numbers: str) -> tuple[int, int]:
        """Memories and bytes of some vaults of one shard. The half of the store that has the shards knows."""
        raise AssertionError("a directory alone has no shards")

    async def _with_sizes(self, records: list[VaultRecord]) -> list[VaultRecord]:
        sizes = await self.vault_sizes([record.vault for record in records])
        filled = []
        for record in records:
            memories, content_bytes = sizes.get(record.vault.number, (0, 0))
            filled.append(msgspec.structs.replace(record, memories=memories, content_bytes=content_bytes))
        return filled

    async def list_retentions(self, *, after: int = 0, limit: int = PAGE_MAX) -> list[Retention]:
        """Live vaults that keep their memories for a time only; see the protocol."""
        return await self._read_meta(partial(vault_rows.list_retentions, after=after, limit=limit))

    async def put_provider_key(
        self, account_number: int, provider: str, secret: str, *, now_ms: int, by: Actor
    ) -> ProviderKeyRecord:
        """Store a provider's key, sealed; see the protocol."""

        def work(connection: Connection, effects: Effects) -> ProviderKeyRecord:
            check_account(connection, account_number)
            record, erased = provider_rows.put_provider_key(
                connection, account_number, provider, secret, server_key=self._server_key, now_ms=now_ms
            )
            effects.note_provider_keys(erased)
            self._audit_provider(
                connection, effects, "provider_key.stored", account_number, provider, at_ms=now_ms, by=by
            )
            return record

        return await self._erase(work, grows=True)

    async def list_provider_keys(self, account_number: int) -> list[ProviderKeyRecord]:
        """What an account has stored."""
        return await self._read_meta(partial(provider_rows.list_provider_keys, account=account_number))

    async def find_provider_key(self, account_number: int, provider: str) -> Secret | None:
        """The provider's key that an account has stored; see the protocol."""
        place = (account_number, provider)
        cached = self._provider_keys.get(place)
        if cached is not None:
            return cached or None  # an empty one stands for "there is none"
        generation = self._generation
        find = partial(
            provider_rows.find_provider_key, account=account_number, provider=provider, server_key=self._server_key
        )
        found = await self._read_meta(find)
        if generation == self._generation:  # else a write came between, and this answer may be the older one
            self._provider_keys.put(place, found or Secret())
        return found

    async def delete_provider_key(self, account_number: int, provider: str, *, now_ms: int, by: Actor) -> None:
        """Shred it; see the protocol."""

        def work(connection: Connection, effects: Effects) -> None:
            erased = provider_rows.erase_provider_keys(connection, account_number, provider, now_ms=now_ms)
            if not erased:
                raise NotFound(f"The account has stored no key for {provider}.")
            effects.note_provider_keys(erased)
            self._audit_provider(
                connection, effects, "provider_key.deleted", account_number, provider, at_ms=now_ms, by=by
            )

        await self._erase(work)

    @staticmethod
    def _audit_provider(
        connection: Connection,
        effects: Effects,
        action: str,
        account: int,
        provider: str,
        *,
        at_ms: int,
        by: Actor,
    ) -> None:
        effects.providers.append((account, provider))
        add_entry(connection, action, f"provider:{provider}", at_ms=at_ms, account=account, by=by)
