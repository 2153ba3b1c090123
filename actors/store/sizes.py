"""How much the SQLite store holds: read from every shard, also from those that another worker writes.

See `actors.store.protocol` for what each method promises. Must never fail because one shard cannot be read: it counts
as empty then.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from actors.store import shard as sql
from actors.store.databases import Database
from actors.store.meta_jobs import DirectoryReaders
from actors.store.protocol import StoreSize
from actors.store.vault_rows import count_vaults
from models.errors import StoreUnavailable
from models.ids import VaultRef


class VaultSizes:
    """A part of `SqliteStore`, which has the attributes."""

    __slots__ = ()

    _databases: tuple[Database, ...]
    _meta_readers: DirectoryReaders

    async def vault_sizes(self, vaults: Sequence[VaultRef]) -> dict[int, tuple[int, int]]:
        """Memories and bytes by vault number; see the protocol."""
        by_shard: dict[int, list[int]] = {}
        for vault in vaults:
            by_shard.setdefault(vault.shard, []).append(vault.number)
        sizes: dict[int, tuple[int, int]] = {}
        for shard, numbers in by_shard.items():
            if self._databases[shard].damage is not None:
                continue
            with suppress(StoreUnavailable):  # logged; what cannot be read is left out
                sizes |= await self._databases[shard].readers.run(partial(sql.vault_sizes, vault_numbers=numbers))
        return sizes

    async def _held_together(self, shard: int, numbers: str) -> tuple[int, int]:
        """Memories and bytes of these vaults of one shard; none where it cannot be read."""
        if not 0 <= shard < len(self._databases) or self._databases[shard].damage is not None:
            return 0, 0
        try:
            return await self._databases[shard].readers.run(partial(sql.held_together, vault_numbers=numbers))
        except StoreUnavailable:
            return 0, 0

    async def size(self) -> StoreSize:
        """How much there is in all; see the protocol."""
        memories = content_bytes = 0
        for database in self._databases:
            if database.damage is None:
                with suppress(StoreUnavailable):
                    found = await database.readers.run(sql.size)
                    memories, content_bytes = memories + found[0], content_bytes + found[1]
        return StoreSize(await self._meta_readers.run(count_vaults), memories, content_bytes)
