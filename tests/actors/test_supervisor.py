"""The supervisor: vaults come into memory once, stay while they are needed, leave, and are taken up after a start."""

from __future__ import annotations

from collections import deque
from contextvars import ContextVar
from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors import supervisor as supervisor_module
from models.errors import (
    DeadlineExceeded,
    StoreUnavailable,
)
from models.messages import Barrier
from tests.actors.house import Gate, exchange, open_house
from tests.fakes.memory_disk import MemoryDisk


async def test_a_vault_is_hydrated_once_however_many_callers_wait(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        vault = await house.new_vault()
        loading = trio.Event()
        house.store.before["load_vault"] = loading.wait
        async with trio.open_nursery() as callers:
            for _ in range(50):
                callers.start_soon(house.stats, vault)
            await wait_all_tasks_blocked()
            loading.set()
        assert house.store.loads == {vault.number: 1}
        assert house.supervisor.statistics()["hydrated"] == 1


async def test_vaults_do_not_see_each_other(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        one, other = await house.new_vault(), await house.new_vault()
        await house.remember(one, "an apple")
        await house.remember(other, "a pear")
        assert await house.found(one) == ["an apple"]
        assert await house.found(other) == ["a pear"]


async def test_only_so_many_vaults_are_loaded_at_once(autojump_clock: MockClock) -> None:
    async with open_house(hydrations_max=3) as house:
        vaults = [await house.new_vault() for _ in range(8)]
        loading = trio.Event()
        house.store.before["load_vault"] = loading.wait
        async with trio.open_nursery() as callers:
            for vault in vaults:
                callers.start_soon(house.stats, vault)
            await wait_all_tasks_blocked()
            assert len(house.store.loads) == 3
            loading.set()
        assert len(house.store.loads) == 8


async def test_an_ask_has_a_deadline_while_its_vault_is_loaded(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        vault = await house.new_vault()
        house.store.before["load_vault"] = partial(trio.sleep, 10)
        began_s = trio.current_time()
        with pytest.raises(DeadlineExceeded):
            await house.supervisor.ask(vault, Barrier(), timeout_s=3)
        assert trio.current_time() - began_s == 3


async def test_an_idle_vault_leaves_memory_and_comes_back_with_all_it_held(autojump_clock: MockClock) -> None:
    async with open_house(idle_timeout_s=60.0) as house:
        vault = await house.new_vault()
        await house.remember(vault, "an apple")
        await trio.sleep(62)
        assert house.supervisor.statistics()["live"] == 0
        assert house.supervisor.statistics()["passivated"] == 1
        assert house.supervisor.statistics()["bytes_in_memory"] == 0
        assert await house.found(vault) == ["an apple"]
        assert house.store.loads == {vault.number: 2}


async def test_a_vault_in_use_stays(autojump_clock: MockClock) -> None:
    async with open_house(idle_timeout_s=60.0) as house:
        vault = await house.new_vault()
        for _ in range(5):
            await house.stats(vault)
            await trio.sleep(40)
        assert house.store.loads == {vault.number: 1}


async def test_a_pinned_vault_stays_however_long_the_provider_takes(autojump_clock: MockClock) -> None:
    async with open_house(idle_timeout_s=60.0, residency_min_s=0.0, memory_max_bytes=1) as house:
        vault = await house.new_vault()
        with await house.supervisor.pin(vault) as pin:
            await trio.sleep(1_000)
            await pin.submit([exchange("an apple")]).wait_applied(timeout_s=5)
            assert house.store.loads == {vault.number: 1}
        await trio.sleep(62)
        assert house.supervisor.statistics()["live"] == 0


async def test_a_vault_whose_commit_is_under_way_stays(autojump_clock: MockClock) -> None:
    async with open_house(idle_timeout_s=60.0) as house:
        vault = await house.new_vault()
        house.store.hold_commits()
        with await house.supervisor.pin(vault) as pin:
            receipt = pin.submit([exchange("an apple")])
        await trio.sleep(200)
        house.store.release_commits()
        await receipt.wait_applied(timeout_s=5)
        assert house.store.loads == {vault.number: 1}


async def test_a_vault_with_texts_to_embed_stays_until_they_are(autojump_clock: MockClock) -> None:
    gate = Gate(closed=True)
    async with open_house(gate=gate, idle_timeout_s=60.0) as house:
        vault = await house.new_vault()
        await house.remember(vault, "an apple")
        await trio.sleep(200)
        assert house.supervisor.statistics()["live"] == 1
        gate.open()
        await trio.sleep(2)
        assert house.supervisor.statistics()["live"] == 0
        assert house.stored(vault) == ["an apple"]


async def test_over_the_budget_of_bytes_the_least_recently_used_leave(autojump_clock: MockClock) -> None:
    async with open_house(memory_max_bytes=60_000, residency_min_s=30.0) as house:
        vaults = [await house.new_vault() for _ in range(3)]
        for vault in vaults:
            await house.remember(vault, f"{vault.number} " + "x" * 19_000)
        await house.stats(vaults[0])
        await trio.sleep(20)
        assert house.supervisor.statistics()["live"] == 3  # none has been there for long enough
        await trio.sleep(20)
        assert house.supervisor.statistics()["live"] == 2
        assert house.supervisor.statistics()["bytes_in_memory"] <= 60_000
        for vault in vaults:
            await house.stats(vault)
        assert [house.store.loads[vault.number] for vault in vaults] == [1, 2, 1]


async def test_who_comes_while_a_vault_leaves_finds_it_anew(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        vault = await house.new_vault()
        await house.remember(vault, "an apple")
        await wait_all_tasks_blocked()
        house.supervisor._entries[vault.number].close()
        assert await house.found(vault) == ["an apple"]
        assert house.store.loads == {vault.number: 2}


async def test_a_pin_waits_for_a_vault_that_leaves_until_its_deadline(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "PIN_TIMEOUT_S", 3.0)
    async with open_house() as house:
        vault = await house.new_vault()
        house.store.before["load_vault"] = partial(trio.sleep, 10)
        (await house.supervisor.pin(vault)).close()
        await wait_all_tasks_blocked()
        house.supervisor._entries[vault.number].close()
        with pytest.raises(DeadlineExceeded):
            await house.supervisor.pin(vault)
        await trio.sleep(8)
        assert (await house.remember(vault, "an apple")).stored == 1


async def test_after_a_start_vaults_with_rows_in_the_log_are_taken_up(autojump_clock: MockClock) -> None:
    disk = MemoryDisk()
    async with open_house(disk, gate=Gate(closed=True)) as house:
        vaults = [await house.new_vault() for _ in range(3)]
        for vault in vaults[:2]:
            await house.remember(vault, f"text of {vault.number}")
        house.store.crash()
    async with open_house(disk) as house:
        await house.supervisor.resume()
        await wait_all_tasks_blocked()
        for vault in vaults[:2]:
            assert house.stored(vault) == [f"text of {vault.number}"]
            assert house.inbox(vault) == 0
            assert len(disk.vault(vault).vectors) == 1
        assert vaults[2].number not in house.store.loads


async def test_a_vault_that_cannot_be_taken_up_does_not_stop_the_others(autojump_clock: MockClock) -> None:
    disk = MemoryDisk()
    async with open_house(disk, gate=Gate(closed=True)) as house:
        vaults = [await house.new_vault() for _ in range(2)]
        for vault in vaults:
            await house.remember(vault, "an apple")
        house.store.crash()
    async with open_house(disk) as house:
        house.store.failing["load_vault"] = deque(StoreUnavailable("no") for _ in range(4))
        await house.supervisor.resume()
        await wait_all_tasks_blocked()
        assert sorted(house.inbox(vault) for vault in vaults) == [0, 1]
        await trio.sleep(31)
        assert [house.inbox(vault) for vault in vaults] == [0, 0]


async def test_statistics_tell_what_is_live(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        vault = await house.new_vault()
        assert house.supervisor.statistics()["live"] == 0
        await house.remember(vault, "an apple")
        statistics = house.supervisor.statistics()
        assert statistics["live"] == 1
        assert statistics["bytes_in_memory"] == (await house.stats(vault)).bytes_in_memory > 0
        assert statistics["messages_waiting"] == 0


async def test_vaults_over_the_budget_keep_nobody_out_for_long(autojump_clock: MockClock) -> None:
    """Their residency protects them, so the others are let in after a short wait."""
    async with open_house(memory_max_bytes=60_000, residency_min_s=3_600.0) as house:
        for number in range(4):
            await house.remember(await house.new_vault(), f"{number} " + "x" * 19_000)
        assert house.supervisor.statistics()["bytes_in_memory"] > 60_000
        before_s = trio.current_time()
        assert await house.found(await house.new_vault()) == []
        assert 0 < trio.current_time() - before_s < 2


async def test_a_vault_larger_than_the_budget_stays_and_keeps_nobody_waiting(autojump_clock: MockClock) -> None:
    async with open_house(memory_max_bytes=60_000, residency_min_s=0.0, idle_timeout_s=600.0) as house:
        large, other = await house.new_vault(), await house.new_vault()
        await house.remember(large, *[f"{number} " + "x" * 19_000 for number in range(4)])
        assert house.supervisor.statistics()["bytes_in_memory"] > 60_000
        for _ in range(3):
            await trio.sleep(100)
            before_s = trio.current_time()
            assert await house.found(other) == []
            assert trio.current_time() == before_s
        await house.stats(large)
        assert house.store.loads == {large.number: 1, other.number: 1}
        await trio.sleep(700)
        assert house.supervisor.statistics()["live"] == 0


async def test_a_vault_that_leaves_memory_is_emptied_by_its_actor(autojump_clock: MockClock) -> None:
    """And not by the garbage collector, which would take a second for a million memories, at any time."""
    async with open_house(idle_timeout_s=60.0) as house:
        vault = await house.new_vault()
        await house.remember(vault, "an apple", "a pear", session_id="s")
        await house.stats(vault)
        actor = house.supervisor._entries[vault.number].actor
        assert actor is not None
        assert all(map(len, [actor._vault.holdings()[place] for place in (0, 1, 2)]))
        await trio.sleep(62)
        assert house.supervisor.statistics()["live"] == 0
        assert not any(actor._vault.holdings())
        assert await house.found(vault) == ["a pear", "an apple"]


async def test_a_vault_has_nothing_of_the_request_that_it_is_loaded_for(autojump_clock: MockClock) -> None:
    """It outlives it: what the request's tasks carry, such as its id for the log, is not the vault's."""
    request_id = ContextVar("request_id", default="none")
    seen = []
    async with open_house() as house:
        vault = await house.new_vault()

        async def note() -> None:
            seen.append(request_id.get())

        house.store.before["load_vault"] = note
        request_id.set("req_1")
        await house.stats(vault)
    assert seen == ["none"]


async def test_statistics_show_queues_and_what_is_still_to_be_resumed(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        vault = await house.new_vault()
        await house.remember(vault, "an apple")
        statistics = house.supervisor.statistics()
        assert (statistics["mailbox_longest"], statistics["messages_waiting"], statistics["resuming"]) == (0, 0, 0)
        assert statistics["wait_seconds"].count >= 1
        loading = trio.Event()
        other = await house.new_vault()
        house.store.before["load_vault"] = loading.wait
        async with trio.open_nursery() as callers:
            for _ in range(3):
                callers.start_soon(house.stats, other)
            await wait_all_tasks_blocked()
            statistics = house.supervisor.statistics()
            assert (statistics["mailbox_longest"], statistics["messages_waiting"]) == (3, 3)
            loading.set()


async def test_vaults_that_are_still_to_be_taken_up_are_counted(autojump_clock: MockClock) -> None:
    disk = MemoryDisk()
    async with open_house(disk, gate=Gate(closed=True)) as house:
        for _ in range(2):
            await house.remember(await house.new_vault(), "an apple")
        house.store.crash()
    async with open_house(disk) as house, trio.open_nursery() as resuming:
        loading = trio.Event()
        house.store.before["load_vault"] = loading.wait
        resuming.start_soon(house.supervisor.resume)
        await wait_all_tasks_blocked()
        assert house.supervisor.statistics()["resuming"] == 2
        loading.set()
        await wait_all_tasks_blocked()
        assert house.supervisor.statistics()["resuming"] == 0
