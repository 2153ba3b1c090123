"""The calls for a vault's caches: an imprint that nobody wants any more is not written to its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import trio

from actors.store.sqlite import open_store
from models.store_settings import StoreSettings
from tests.actors.store.samples import new_account

PIECE = memoryview(bytes(1 << 20))


class Cancelling(list[memoryview]):
    """Parts of an imprint; whoever has read the second of them finds the call cancelled."""

    def __init__(self, scope: trio.CancelScope, parts: int) -> None:
        super().__init__([PIECE] * parts)
        self.scope = scope
        self.read = -1  # the whole is measured before

    def __iter__(self) -> Iterator[memoryview]:
        self.read += 1
        return self._parts() if self.read else super().__iter__()

    def _parts(self) -> Iterator[memoryview]:
        for number, part in enumerate(super().__iter__(), 1):
            self.read = number
            yield part
            if number == 2:
                trio.from_thread.run_sync(self.scope.cancel)


async def test_a_cancelled_save_of_an_imprint_ends_after_a_piece_and_leaves_the_one_before(tmp_path: Path) -> None:
    async with open_store(tmp_path, settings=StoreSettings(shards=1, ballast_bytes=0)) as store:
        vault = (await new_account(store)).vault
        await store.save_imprint(vault, [memoryview(b"before")])
        with trio.CancelScope() as scope:
            parts = Cancelling(scope, 50)
            await store.save_imprint(vault, parts)
        assert scope.cancelled_caught
        assert parts.read <= 4
        assert await store.load_imprint(vault) == bytearray(b"before")


async def test_an_imprint_is_removed_although_all_who_may_load_segments_are_busy(tmp_path: Path) -> None:
    """Loading those of a million memories takes a minute, which a deletion does not have."""
    async with open_store(tmp_path, settings=StoreSettings(shards=1, ballast_bytes=0)) as store:
        vault = (await new_account(store)).vault
        await store.save_imprint(vault, [memoryview(b"words")])
        busy = store._snapshot_calls
        borrowers = [object() for _ in range(int(busy.total_tokens))]
        for borrower in borrowers:
            await busy.acquire_on_behalf_of(borrower)
        await store.remove_imprint(vault)
        for borrower in borrowers:
            busy.release_on_behalf_of(borrower)
        assert await store.load_imprint(vault) is None
