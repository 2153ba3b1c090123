"""What earlier owners of partitions have left undone is tried again while the partitions are here."""

from __future__ import annotations

from collections.abc import Collection

import trio
from trio.testing import MockClock

from models.errors import NotOwner, StoreUnavailable
from router.new_parts import NewParts, go_on


class UnreadableStore:
    """A store that cannot be read for a while, and vaults. Implements `PurgingStore` and `ResumingVaults`."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.tried: list[set[int]] = []
        self.resumed: set[int] = set()

    async def resume_purges(self, parts: Collection[int] | None = None) -> None:
        self.tried.append(set(parts or ()))
        if len(self.tried) <= self.failures:
            raise StoreUnavailable("The store cannot be read right now.")

    async def resume(self, parts: Collection[int] | None = None) -> None:
        self.resumed |= set(parts or ())


async def test_parts_that_could_not_be_looked_through_are_tried_again(autojump_clock: MockClock) -> None:
    """Together with those that have come meanwhile."""
    store, new = UnreadableStore(failures=3), NewParts()
    async with trio.open_nursery() as tasks:
        tasks.start_soon(lambda: go_on(store, store, new, check_owned=lambda part: None))
        new.add(3, 1)
        await trio.sleep(0.6)
        new.add(5, 1)
        await trio.sleep(60)
        tasks.cancel_scope.cancel()
    assert store.tried == [{3}, {3}, {3, 5}, {3, 5}]
    assert store.resumed == {3, 5}


async def test_parts_that_have_left_are_not_tried_again(autojump_clock: MockClock) -> None:
    store, new, left = UnreadableStore(failures=1), NewParts(), set[int]()

    def check_owned(part: int) -> None:
        if part in left:
            raise NotOwner("Another node owns this partition.")

    async with trio.open_nursery() as tasks:
        tasks.start_soon(lambda: go_on(store, store, new, check_owned=check_owned))
        new.add(3, 1)
        new.add(4, 1)
        await trio.sleep(0.1)
        left.add(4)
        await trio.sleep(60)
        left.add(3)
        new.add(3, 2)
        await trio.sleep(60)
        tasks.cancel_scope.cancel()
    assert store.tried == [{3, 4}, {3}]
    assert store.resumed == {3}
