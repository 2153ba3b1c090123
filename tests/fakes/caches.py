"""The caches of the in-memory store: imprints are kept on its disk, segments are not kept at all."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from actors.segments import Segment
from actors.store.snapshots import LoadedSegments
from models.ids import VaultRef
from tests.fakes.memory_disk import MemoryDisk


class MemoryCaches:
    """A part of `MemoryStore`, which has the disk."""

    disk: MemoryDisk

    async def load_segments(self, vault: VaultRef, *, model_id: str, dims: int) -> LoadedSegments:
        await trio.lowlevel.checkpoint()
        return LoadedSegments(segments=(), unusable=())

    async def save_segment(self, vault: VaultRef, segment: Segment) -> None:
        await trio.lowlevel.checkpoint()

    async def prune_segments(self, vault: VaultRef, *, keep: Sequence[int]) -> None:
        await trio.lowlevel.checkpoint()

    async def load_imprint(self, vault: VaultRef) -> bytearray | None:
        await trio.lowlevel.checkpoint()
        imprint = self.disk.vault(vault).imprint
        return None if imprint is None else bytearray(imprint)

    async def save_imprint(self, vault: VaultRef, parts: Sequence[memoryview]) -> None:
        await trio.lowlevel.checkpoint()
        self.disk.vault(vault).imprint = b"".join(parts)

    async def remove_imprint(self, vault: VaultRef) -> None:
        await trio.lowlevel.checkpoint()
        if vault.number in self.disk.vaults:
            self.disk.vault(vault).imprint = None
