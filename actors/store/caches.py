"""What the SQLite store keeps of a vault beside its rows: the segments of its index, and its imprint.

Owns the calls into `actors.store.snapshots` and `actors.store.imprints`: which thread, and with which key. Both are
caches; must never let one of them fail a vault. See `actors.store.protocol` for what each method promises.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import trio

from actors.segments import Segment
from actors.store.imprints import load_imprint, remove_imprint, save_imprint
from actors.store.keyring import KeyRing
from actors.store.snapshots import LoadedSegments, load_segments, prune_segments, remove_snapshots, save_segment
from models.errors import NotFound
from models.ids import VaultRef

CALLS_MAX = 2
"""Threads that read or write these files: each holds a segment of up to 100 MB in memory."""


class VaultCaches:
    """A part of `SqliteStore`, which has the attributes."""

    __slots__ = ()

    _keyring: KeyRing
    _snapshots: Path
    _snapshot_calls: trio.CapacityLimiter

    async def load_segments(self, vault: VaultRef, *, model_id: str, dims: int) -> LoadedSegments:
        """Read the segments of the vault's index; see the protocol."""

        def read() -> LoadedSegments:
            data_key = self._keyring.find(vault).data_key
            return load_segments(self._snapshots, data_key, vault.number, model_id=model_id, dims=dims)

        return await trio.to_thread.run_sync(read, limiter=self._snapshot_calls)

    async def save_segment(self, vault: VaultRef, segment: Segment) -> None:
        """Write a segment of the vault's index; see the protocol."""

        def write() -> None:
            save_segment(self._snapshots, self._keyring.find(vault).data_key, vault.number, segment)

        await trio.to_thread.run_sync(write, limiter=self._snapshot_calls)

    async def prune_segments(self, vault: VaultRef, *, keep: Sequence[int]) -> None:
        """Remove what is outdated of the vault's index; see the protocol."""
        prune = partial(prune_segments, self._snapshots, vault.number, keep=keep)
        await trio.to_thread.run_sync(prune, limiter=self._snapshot_calls)

    async def load_imprint(self, vault: VaultRef) -> bytearray | None:
        """Read the vault's imprint; see the protocol."""

        def read() -> bytearray | None:
            return load_imprint(self._snapshots, self._keyring.find(vault).data_key, vault.number)

        return await trio.to_thread.run_sync(read, limiter=self._snapshot_calls)

    async def save_imprint(self, vault: VaultRef, parts: Sequence[memoryview]) -> None:
        """Replace the vault's imprint; see the protocol."""

        def write() -> None:
            data_key = self._keyring.find(vault).data_key
            save_imprint(self._snapshots, data_key, vault.number, parts, between=trio.from_thread.check_cancelled)
            try:
                self._keyring.find(vault)
            except NotFound:  # erased meanwhile: what was removed then must not come back, unreadable as it is
                remove_snapshots(self._snapshots, vault.number)
                raise

        await trio.to_thread.run_sync(write, limiter=self._snapshot_calls)

    async def remove_imprint(self, vault: VaultRef) -> None:
        """Remove the vault's imprint; see the protocol. Takes no memory, so it does not wait for who loads segments."""
        await trio.to_thread.run_sync(remove_imprint, self._snapshots, vault.number)
