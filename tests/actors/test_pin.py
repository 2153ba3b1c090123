"""From a finished exchange to its vault: pins hold what the hand-over needs, receipts tell the truth."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from models.errors import (
    DeadlineExceeded,
    Overloaded,
    ShuttingDown,
    StorageFull,
)
from tests.actors.house import Gate, exchange, open_house


async def test_what_is_durable_is_found_by_any_search_that_starts_afterwards(autojump_clock: MockClock) -> None:
    gate = Gate(closed=True)
    async with open_house(gate=gate) as house:
        vault = await house.new_vault()
        for number in range(20):
            with await house.supervisor.pin(vault) as pin:
                receipt = pin.submit([exchange(f"fact{number} is true")])
                await receipt.wait_durable()
            assert f"fact{number} is true" in await house.found(vault, f"fact{number}")


async def test_a_pin_may_be_closed_right_after_the_hand_over(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        vault = await house.new_vault()
        with await house.supervisor.pin(vault) as pin:
            receipt = pin.submit([exchange("an apple")])
        assert not receipt.durable
        assert (await receipt.wait_applied(timeout_s=5)).stored == 1
        assert receipt.durable
        assert await house.found(vault) == ["an apple"]
        assert house.nothing_is_held(vault)


async def test_an_upload_into_a_vault_that_is_being_loaded_is_counted_truthfully(autojump_clock: MockClock) -> None:
    """Hydration may find the rows in the store before the vault is told of them."""
    async with open_house() as house:
        vault = await house.new_vault()
        loading = trio.Event()
        house.store.before["load_vault"] = loading.wait
        with await house.supervisor.pin(vault) as pin:
            receipt = pin.submit([exchange("a", "b"), exchange("b", "c")])
            await receipt.wait_durable()
            loading.set()
            applied = await receipt.wait_applied(timeout_s=5)
        assert (applied.stored, applied.duplicates) == (3, 1)
        assert house.nothing_is_held(vault)


async def test_handing_over_nothing_stores_nothing(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        vault = await house.new_vault()
        with await house.supervisor.pin(vault) as pin:
            assert (await pin.submit([]).wait_applied(timeout_s=5)).stored == 0
        assert house.nothing_is_held(vault)


async def test_a_failed_commit_is_told_and_gives_back_what_was_held(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        vault = await house.new_vault()
        await house.stats(vault)
        house.store.fail_commit(StorageFull("full"))
        with await house.supervisor.pin(vault) as pin:
            receipt = pin.submit([exchange("an apple")])
            with pytest.raises(StorageFull):
                await receipt.wait_durable()
        with pytest.raises(StorageFull):
            await receipt.wait_applied(timeout_s=5)
        assert not receipt.durable
        assert house.nothing_is_held(vault)
        assert (await house.remember(vault, "an apple")).stored == 1  # it is no duplicate of what failed


async def test_a_store_that_takes_nothing_leaves_the_pin_its_place(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        vault = await house.new_vault()
        await house.stats(vault)
        house.store.crash()
        with await house.supervisor.pin(vault) as pin:
            for _ in range(2):
                with pytest.raises(ShuttingDown):
                    pin.submit([exchange("an apple")])
        assert house.nothing_is_held(vault)


async def test_as_many_exchanges_as_there_are_places_may_be_under_way(autojump_clock: MockClock) -> None:
    async with open_house(exchanges_max=2) as house:
        vault = await house.new_vault()
        one, two = await house.supervisor.pin(vault), await house.supervisor.pin(vault)
        with pytest.raises(Overloaded):
            await house.supervisor.pin(vault)
        one.close()
        one.close()
        await house.remember(vault, "an apple")
        two.close()
        assert house.nothing_is_held(vault)


async def test_a_vault_that_takes_nothing_in_refuses_pins_and_loses_nothing(autojump_clock: MockClock) -> None:
    """What waits in the mailbox keeps its place, so that telling the vault of a commit cannot fail for want of room."""
    async with open_house(exchanges_max=3, mailbox_messages_max=2) as house:
        vault = await house.new_vault()
        loading = trio.Event()
        house.store.before["load_vault"] = loading.wait
        receipts = []
        refused = 0
        for number in range(9):
            try:
                with await house.supervisor.pin(vault) as pin:
                    receipts.append(pin.submit([exchange(f"text {number}")]))
            except Overloaded:
                refused += 1
                continue
            await receipts[-1].wait_durable()
        assert (len(receipts), refused) == (3, 6)
        loading.set()
        for receipt in receipts:
            assert (await receipt.wait_applied(timeout_s=5)).stored == 1
        assert len(await house.found(vault)) == 3
        await wait_all_tasks_blocked()
        assert house.nothing_is_held(vault)


async def test_the_wait_for_a_slow_commit_has_a_deadline(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        vault = await house.new_vault()
        house.store.hold_commits()
        with await house.supervisor.pin(vault) as pin:
            receipt = pin.submit([exchange("an apple")])
            for wait in (receipt.wait_durable, receipt.wait_applied):
                began_s = trio.current_time()
                with pytest.raises(DeadlineExceeded):
                    await wait(timeout_s=2)
                assert trio.current_time() - began_s == 2
        house.store.release_commits()
        await receipt.wait_durable()
        assert await house.found(vault) == ["an apple"]


async def test_the_waits_for_commit_and_vault_share_one_deadline(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        vault = await house.new_vault()
        house.store.before["load_vault"] = partial(trio.sleep, 60)
        house.store.hold_commits()

        async def release_later() -> None:
            await trio.sleep(3)
            house.store.release_commits()

        async with trio.open_nursery() as disks:
            disks.start_soon(release_later)
            with await house.supervisor.pin(vault) as pin:
                receipt = pin.submit([exchange("an apple")])
            began_s = trio.current_time()
            with pytest.raises(DeadlineExceeded):
                await receipt.wait_applied(timeout_s=5)
            assert receipt.durable
            assert trio.current_time() - began_s == 5
