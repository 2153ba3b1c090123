"""The deletion of memories from a vault: in steps, each of which holds whatever becomes of the next.

Owns their order: what is under way to the store first, then the imprint and the segments of the index, which hold words
and vectors of what goes, then the rows, then what the vault has of them. Runs within a turn, so nobody else has the
vault; must never leave in memory what the store has deleted, nor delete in memory what the store may still have.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import trio

from actors.imprint_keeper import MEMORIES_PER_S_MIN, ImprintKeeper
from actors.index_keeper import IndexKeeper
from actors.slices import Pause
from actors.step_writer import StepWriter
from actors.store.protocol import VaultStore
from actors.vault import Vault
from models.errors import StoreUnavailable
from models.ids import VaultRef

FORGET_MEMORIES_MAX = 1_000
"""In one transaction: the other vaults of the shard commit in between."""

FORGET_TIMEOUT_S = 10.0
"""Of one step; the vault's readers wait meanwhile. What a slower store was asked for is still to be read."""

PURGE_MEMORIES_MIN = 64
"""Deleted at once, after which words that nobody holds any more are looked for; else that waits for more of them."""


class Forgetting:
    """Deletes memories of one vault, all of which have been put to the writer before."""

    def __init__(
        self,
        ref: VaultRef,
        vault: Vault,
        store: VaultStore,
        *,
        writer: StepWriter,
        imprints: ImprintKeeper,
        keeper: IndexKeeper,
        reload: Callable[[], None],
    ) -> None:
        """Make one.

        Args:
            reload: has the vault loaded anew after this turn, because what the store holds is not certain.
        """
        self._ref = ref
        self._vault = vault
        self._store = store
        self._writer = writer
        self._imprints = imprints
        self._keeper = keeper
        self._reload = reload

    async def settle(self) -> None:
        """Wait until the store has all that was put to the writer.

        Raises:
            StoreUnavailable: not in time; nothing was changed.
        """
        with self.in_time():
            await self._writer.wait_settled()

    async def delete(self, seqs: Sequence[int]) -> None:
        """Delete memories.

        Raises:
            StoreUnavailable, StorageFull: a step took too long or failed; asking again deletes what is left.
        """
        for start in range(0, len(seqs), FORGET_MEMORIES_MAX):
            await self._delete_part(seqs[start : start + FORGET_MEMORIES_MAX])
        if len(seqs) >= PURGE_MEMORIES_MIN:
            pause = Pause()
            while not self._vault.purge():
                await pause.after_slice()

    async def _delete_part(self, seqs: Sequence[int]) -> None:
        async with self.rows_alone(seqs):
            with self.in_time(uncertain=True):
                await self._store.delete_memories(self._ref, seqs)
            pause = Pause()
            gone = []
            for seq in seqs:
                gone.append(self._vault.forget(seq))
                await pause.after_slice()
            self._vault.know_again(gone)

    @asynccontextmanager
    async def rows_alone(self, seqs: Sequence[int]) -> AsyncIterator[None]:
        """Within the block nothing of these memories is on the disk but their rows, and nothing else comes back there.

        Raises:
            StoreUnavailable: something is still there.
        """
        await self.settle()
        with self.in_time(self._imprints.covered / MEMORIES_PER_S_MIN):  # it is overwritten, once
            await self._imprints.remove()
        async with self._keeper.forgetting(self._vault.indexed_in(seqs), timeout_s=FORGET_TIMEOUT_S):
            yield

    @contextmanager
    def in_time(self, more_s: float = 0.0, *, uncertain: bool = False) -> Iterator[None]:
        """Bound a step.

        Args:
            more_s: seconds beside the usual.
            uncertain: the step may take effect although nobody waits for it any more.

        Raises:
            StoreUnavailable: the step took longer.
        """
        with trio.move_on_after(FORGET_TIMEOUT_S + more_s) as waiting:
            yield
        if waiting.cancelled_caught:
            if uncertain:
                self._reload()
            raise StoreUnavailable("The store did not do this in time; ask again until it is done.")
