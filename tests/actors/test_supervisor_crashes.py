"""Crashes: told, survived, counted, and no concern of any other vault."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from models.errors import (
    NotOwner,
    StoreUnavailable,
    VaultQuarantined,
    VaultUnavailable,
)
from models.memory import Exchange, Message
from models.messages import Applied, Barrier, Page
from tests.actors.house import NOW_MS, crash, exchange, open_house, quarantine

POISONED = Exchange(
    messages=(Message(role="user", content="odd", timestamp_ms=2**63),), source="ingest", accepted_ms=NOW_MS
)
"""A time beyond int64 stands for a bug that nobody foresaw; routes refuse it."""


async def test_a_crash_is_told_loses_nothing_and_touches_no_other_vault(
    autojump_clock: MockClock,
) -> None:
    async with open_house() as house:
        vault, other = await house.new_vault(), await house.new_vault()
        await house.remember(other, "a pear")
        await house.remember(vault, "an apple")
        await crash(house, vault)
        assert await house.found(vault) == ["an apple"]
        assert await house.found(other) == ["a pear"]
        assert house.store.loads == {vault.number: 2, other.number: 1}
        assert house.supervisor.statistics()["crashed"] == 1
        await wait_all_tasks_blocked()
        assert house.stored(vault) == ["an apple"]


async def test_messages_behind_a_crash_are_answered_by_the_next_incarnation(
    autojump_clock: MockClock,
) -> None:
    async with open_house() as house:
        vault = await house.new_vault()
        await house.remember(vault, "an apple")
        loading = trio.Event()
        house.store.before["load_vault"] = loading.wait
        answers: list[Any] = []

        async def note() -> None:
            answers.append(await house.found(vault))

        async with trio.open_nursery() as callers:
            callers.start_soon(crash, house, vault)
            await wait_all_tasks_blocked()
            for _ in range(5):
                callers.start_soon(note)
            await wait_all_tasks_blocked()
            loading.set()
        assert answers == [["an apple"]] * 5


async def test_a_row_that_the_vault_was_told_of_before_a_crash_is_not_taken_twice(autojump_clock: MockClock) -> None:
    """The message waits behind the crash; the next incarnation has the row from the store already."""
    async with open_house() as house:
        vault = await house.new_vault()
        loading = trio.Event()
        house.store.before["load_vault"] = loading.wait
        async with trio.open_nursery() as callers:
            callers.start_soon(crash, house, vault)
            await wait_all_tasks_blocked()
            with await house.supervisor.pin(vault) as pin:
                receipt = pin.submit([exchange("an apple")])
                await receipt.wait_durable()
            loading.set()
        await receipt.wait_applied(timeout_s=5)
        await wait_all_tasks_blocked()
        assert (await house.stats(vault)).memories == 1
        assert (await house.stats(vault)).duplicates == 0
        assert house.stored(vault) == ["an apple"]
        assert house.inbox(vault) == 0


async def test_a_row_that_is_written_while_the_vault_has_yet_to_be_told_of_it_is_not_taken_again(
    autojump_clock: MockClock,
) -> None:
    """A repeat adds nothing, so its row leaves the log at once; then the crash; then its message is taken."""
    async with open_house() as house:
        vault = await house.new_vault()
        await house.remember(vault, "an apple")
        await wait_all_tasks_blocked()
        await crash(house, vault)
        loading = trio.Event()
        house.store.before["load_vault"] = loading.wait
        async with trio.open_nursery() as callers:
            callers.start_soon(crash, house, vault)
            await wait_all_tasks_blocked()
            for _ in range(8):
                callers.start_soon(house.stats, vault)
            await wait_all_tasks_blocked()
            callers.start_soon(crash, house, vault)
            await wait_all_tasks_blocked()
            with await house.supervisor.pin(vault) as pin:
                receipt = pin.submit([exchange("an apple")])
                await receipt.wait_durable()
            loading.set()
        await trio.sleep(100)
        assert house.supervisor.statistics()["crashed"] == 3
        assert (await house.stats(vault)).memories == 1
        assert house.inbox(vault) == 0


async def test_counts_stay_true_when_a_row_is_written_out_before_its_caller_hears_of_it(
    autojump_clock: MockClock,
) -> None:
    """Found by the simulation's seed 147. Hydration takes the row in, an export writes it out, a crash, its message."""
    async with open_house() as house:
        vault = await house.new_vault()
        await house.store.accept_nowait(vault, [exchange("an apple")], lambda _: None).wait_durable()
        loading = trio.Event()
        house.store.before["load_vault"] = loading.wait
        async with trio.open_nursery() as callers:
            callers.start_soon(partial(house.supervisor.ask, vault, Page(after_seq=0, limit=9), timeout_s=60))
            await wait_all_tasks_blocked()
            callers.start_soon(crash, house, vault)
            await wait_all_tasks_blocked()
            with await house.supervisor.pin(vault) as pin:
                receipt = pin.submit([exchange("an apple", "a pear")])
                await receipt.wait_durable()
            loading.set()
            assert await receipt.wait_applied(timeout_s=60) == Applied(stored=1, duplicates=1, chunks=1)
        assert house.supervisor.statistics()["crashed"] == 1
        await wait_all_tasks_blocked()
        assert house.stored(vault) == ["an apple", "a pear"]


async def test_a_caller_is_not_told_that_a_row_that_was_set_aside_is_stored(autojump_clock: MockClock) -> None:
    """It brings down hydration after hydration; then the message that brings it is answered, and not with zeros."""
    async with open_house() as house:
        vault = await house.new_vault()
        loading = trio.Event()
        house.store.before["load_vault"] = loading.wait
        with await house.supervisor.pin(vault) as pin:
            receipt = pin.submit([POISONED])
            await receipt.wait_durable()
        loading.set()
        with pytest.raises(VaultUnavailable, match="could not take in all"):
            await receipt.wait_applied(timeout_s=60)
        assert house.supervisor.statistics()["crashed"] == 2
        assert house.inbox(vault) == 0


async def test_a_crash_with_a_write_under_way_does_not_block_later_writes(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        vault = await house.new_vault()
        await house.remember(vault, "an apple")
        await wait_all_tasks_blocked()
        with await house.supervisor.pin(vault) as pin:
            receipt = pin.submit([exchange("a pear")])
            await receipt.wait_applied(timeout_s=5)
        await crash(house, vault)
        await house.remember(vault, "a plum")
        await trio.sleep(60)
        assert house.stored(vault) == ["an apple", "a pear", "a plum"]
        assert house.inbox(vault) == 0


async def test_after_too_many_crashes_a_vault_rests_and_then_recovers(autojump_clock: MockClock) -> None:
    async with open_house(restarts_max=3, restart_window_s=5.0, quarantine_s=30.0) as house:
        vault, other = await house.new_vault(), await house.new_vault()
        await house.remember(vault, "an apple")
        await quarantine(house, vault)
        for call in (house.stats(vault), house.supervisor.pin(vault)):
            with pytest.raises(VaultQuarantined) as caught:
                await call
            assert caught.value.status == 503
            assert caught.value.retry_after_s is not None
            assert 29 <= caught.value.retry_after_s <= 30
        assert house.supervisor.statistics()["resting"] == 1
        assert (await house.stats(other)).memories == 0
        await trio.sleep(31)
        assert await house.found(vault) == ["an apple"]
        await crash(house, vault)  # counting has begun anew
        assert await house.found(vault) == ["an apple"]
        assert house.supervisor.statistics()["quarantined"] == 1
        assert house.supervisor.statistics()["resting"] == 0


async def test_a_quarantine_shorter_than_the_window_wipes_the_slate_all_the_same(autojump_clock: MockClock) -> None:
    async with open_house(restarts_max=3, restart_window_s=600.0, quarantine_s=1.0) as house:
        vault = await house.new_vault()
        await quarantine(house, vault)
        await trio.sleep(2)
        for _ in range(3):
            await crash(house, vault)
            await wait_all_tasks_blocked()
            assert (await house.stats(vault)).memories == 0


async def test_few_crashes_over_a_long_time_do_not_lead_to_quarantine(autojump_clock: MockClock) -> None:
    async with open_house(restarts_max=1, restart_window_s=5.0) as house:
        vault = await house.new_vault()
        for _ in range(5):
            await crash(house, vault)
            await trio.sleep(6)
        assert (await house.stats(vault)).memories == 0


async def test_a_vault_that_the_store_brought_down_rests_for_a_moment_only(autojump_clock: MockClock) -> None:
    """Nothing is wrong with it: it is there again soon after the store is."""
    async with open_house(restarts_max=1, restart_window_s=600.0, quarantine_s=600.0) as house:
        vault = await house.new_vault()
        house.store.refusing["load_vault"] = StoreUnavailable("no")
        for _ in range(5):
            with pytest.raises(VaultUnavailable):
                await house.supervisor.ask(vault, Barrier(), timeout_s=20)
        del house.store.refusing["load_vault"]
        await trio.sleep(3)
        assert (await house.stats(vault)).memories == 0
        assert house.supervisor.statistics()["quarantined"] == 0


async def test_a_vault_that_nobody_may_write_can_be_read_and_is_written_later(autojump_clock: MockClock) -> None:
    """The lease of its node is over, and no other node has come."""
    async with open_house(restarts_max=0) as house:
        vault = await house.new_vault()
        await house.remember(vault, "an apple")
        house.store.refusing["materialise"] = NotOwner("the lease is over")
        await house.remember(vault, "a pear")
        await trio.sleep(600)
        assert sorted(await house.found(vault)) == ["a pear", "an apple"]
        del house.store.refusing["materialise"]
        await trio.sleep(60)
        assert house.stored(vault) == ["an apple", "a pear"]
        assert house.supervisor.statistics()["crashed"] == 0


async def test_nobody_waits_out_a_quarantine(autojump_clock: MockClock) -> None:
    """Those in the mailbox and those who wait for a place in it are told at once."""
    async with open_house(mailbox_messages_max=2) as house:
        vault = await house.new_vault()
        house.store.refusing["load_vault"] = StoreUnavailable("no")
        house.store.before["load_vault"] = partial(trio.sleep, 0.1)
        told: list[float] = []

        async def caller() -> None:
            with pytest.raises(VaultUnavailable):
                await house.supervisor.ask(vault, Barrier(), timeout_s=20)
            told.append(trio.current_time())

        began_s = trio.current_time()
        async with trio.open_nursery() as callers:
            for _ in range(6):
                callers.start_soon(caller)
        assert len(told) == 6
        assert max(told) - began_s < 1


async def test_an_exchange_handed_over_during_a_quarantine_is_found_afterwards(
    autojump_clock: MockClock,
) -> None:
    async with open_house() as house:
        vault = await house.new_vault()
        with await house.supervisor.pin(vault) as pin:
            await quarantine(house, vault)
            receipt = pin.submit([exchange("an apple")])
            await receipt.wait_durable()
        with pytest.raises(VaultUnavailable):
            await receipt.wait_applied(timeout_s=5)
        await trio.sleep(31)
        assert await house.found(vault) == ["an apple"]
        assert house.nothing_is_held(vault)


async def test_a_vault_that_cannot_be_loaded_leaves_when_nobody_asks_for_it(
    autojump_clock: MockClock,
) -> None:
    async with open_house(idle_timeout_s=60.0) as house:
        vault = await house.new_vault()
        house.store.refusing["load_vault"] = StoreUnavailable("no")
        with pytest.raises(VaultUnavailable):
            await house.stats(vault)
        await trio.sleep(200)
        assert house.supervisor.statistics()["live"] == 0
        del house.store.refusing["load_vault"]
        assert (await house.stats(vault)).memories == 0


async def test_a_row_that_brings_its_vault_down_twice_is_set_aside(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        vault = await house.new_vault()
        await house.remember(vault, "a pear")
        with await house.supervisor.pin(vault) as pin:
            receipt = pin.submit([POISONED])
            with pytest.raises(VaultUnavailable):
                await receipt.wait_applied(timeout_s=5)
        await house.remember(vault, "an apple")
        assert sorted(await house.found(vault)) == ["a pear", "an apple"]
        assert house.supervisor.statistics()["quarantined"] == 0
        await wait_all_tasks_blocked()
        assert sorted(house.stored(vault)) == ["a pear", "an apple"]
