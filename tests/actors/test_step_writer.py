"""Steps on their way to the store: tried again while that can help, and never left in doubt."""

from __future__ import annotations

from collections import deque

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.step_writer import WRITE_ATTEMPTS_MAX, WRITE_GRACE_S
from models.errors import (
    StorageFull,
    StoreUnavailable,
    VaultUnavailable,
)
from models.ids import VaultRef
from models.messages import Apply
from tests.actors.house import (
    POISON,
    WatchedStore,
    exchange,
    new_vault,
    stored_texts,
)
from tests.actors.stage import commit, inbox, running
from tests.fakes.memory_disk import MemoryDisk


@pytest.fixture
async def store() -> WatchedStore:
    return WatchedStore(MemoryDisk())


@pytest.fixture
async def vault(store: WatchedStore) -> VaultRef:
    return await new_vault(store)


async def test_a_full_disk_is_tried_again_until_there_is_room(
    store: WatchedStore, vault: VaultRef, autojump_clock: MockClock
) -> None:
    async with running(store, vault) as held:
        await held.ask(Apply(await commit(store, vault, exchange("an apple"))))
        store.refusing["materialise"] = StorageFull("full")
        await trio.sleep(3_600)
        assert await held.found() == ["an apple"]
        assert inbox(store, vault) == 1
        assert held.actor.busy
        del store.refusing["materialise"]
        await trio.sleep(10)
        assert not held.actor.busy
    assert held.error is None
    assert stored_texts(store.disk, vault) == ["an apple"]


async def test_a_store_that_keeps_refusing_a_step_ends_the_actor(
    store: WatchedStore, vault: VaultRef, autojump_clock: MockClock
) -> None:
    """It may have done the step already, as after a commit in doubt; only reading the vault again tells."""
    async with running(store, vault) as held:
        store.refusing["materialise"] = StoreUnavailable("These inbox rows were materialised before.")
        await held.ask(Apply(await commit(store, vault, exchange("an apple"))))
        with trio.fail_after(600):
            await held.ended.wait()
        assert held.error is not None
    del store.refusing["materialise"]
    async with running(store, vault) as held:
        await wait_all_tasks_blocked()
    assert stored_texts(store.disk, vault) == ["an apple"]


async def test_a_store_that_refuses_a_few_times_is_tried_again(
    store: WatchedStore, vault: VaultRef, autojump_clock: MockClock
) -> None:
    store.failing["materialise"] = deque(StoreUnavailable("no") for _ in range(WRITE_ATTEMPTS_MAX - 1))
    async with running(store, vault) as held:
        await held.ask(Apply(await commit(store, vault, exchange("an apple"))))
        await trio.sleep(600)
        assert not held.actor.busy
    assert held.error is None
    assert stored_texts(store.disk, vault) == ["an apple"]


async def test_a_crash_waits_for_the_write_under_way(
    store: WatchedStore, vault: VaultRef, autojump_clock: MockClock
) -> None:
    """Else the next incarnation could read the vault before the write, make the same step again and be refused."""
    async with running(store, vault) as held:
        rows = await commit(store, vault, exchange("an apple"))
        store.hold_commits()
        await held.ask(Apply(rows))
        await wait_all_tasks_blocked()
        with pytest.raises(VaultUnavailable):
            await held.ask(POISON)
        await wait_all_tasks_blocked()
        assert not held.ended.is_set()
        store.release_commits()
        await held.ended.wait()
        assert stored_texts(store.disk, vault) == ["an apple"]


async def test_a_crash_does_not_wait_for_the_disk_for_ever(
    store: WatchedStore, vault: VaultRef, autojump_clock: MockClock
) -> None:
    async with running(store, vault) as held:
        rows = await commit(store, vault, exchange("an apple"))
        store.hold_commits()
        await held.ask(Apply(rows))
        await wait_all_tasks_blocked()
        began_s = trio.current_time()
        with pytest.raises(VaultUnavailable):
            await held.ask(POISON)
        await held.ended.wait()
        assert trio.current_time() - began_s == WRITE_GRACE_S
