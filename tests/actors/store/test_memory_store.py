"""The hooks of the in-memory twin: failing, held and lost commits. The conformance suite has its promises."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from models.errors import ShuttingDown, StorageFull, StoreUnavailable
from models.memory import InboxRow
from tests.actors.store.samples import accept, new_account, stored, texts_of
from tests.fakes.memory_disk import MemoryDisk
from tests.fakes.store import open_memory_store


async def test_the_nth_commit_fails_with_the_given_error() -> None:
    async with open_memory_store() as store:
        vault = (await new_account(store)).vault
        store.fail_commit(StorageFull("full"), nth=2)
        told: list[InboxRow] = []
        await stored(store, vault, "a")
        failing = [accept(store, vault, text, on_durable=told.extend) for text in "bc"]
        for commit in failing:
            with pytest.raises(StorageFull):
                await commit.wait_durable()
            assert not commit.durable
        await stored(store, vault, "d")
        assert told == []
        assert await texts_of(store, vault) == ([], ["a", "d"])


async def test_held_commits_wait_for_their_release() -> None:
    async with open_memory_store() as store:
        vault = (await new_account(store)).vault
        store.hold_commits()
        commit = accept(store, vault, "a")
        await trio.testing.wait_all_tasks_blocked()
        assert not commit.durable
        assert store.statistics()["shards"][0]["queue_rows"] == 1
        store.release_commits()
        await commit.wait_durable()
        assert await texts_of(store, vault) == ([], ["a"])


async def test_a_crash_loses_what_waits_and_keeps_what_was_committed() -> None:
    disk = MemoryDisk()
    async with open_memory_store(disk) as store:
        vault = (await new_account(store)).vault
        await stored(store, vault, "a")
        store.hold_commits()
        lost = accept(store, vault, "b")
        store.crash()
        with pytest.raises(ShuttingDown):
            accept(store, vault, "c")
    assert not lost.durable
    async with open_memory_store(disk) as store:
        assert await texts_of(store, vault) == ([], ["a"])


async def test_closing_commits_what_waits() -> None:
    async with open_memory_store() as store:
        vault = (await new_account(store)).vault
        store.hold_commits()
        commit = accept(store, vault, "a")
    assert commit.durable


async def test_a_failed_directory_commit_reaches_its_caller() -> None:
    async with open_memory_store() as store:
        store.fail_commit(StoreUnavailable("no"))
        with pytest.raises(StoreUnavailable):
            await new_account(store)
        assert not await store.has_account()
