"""Leaving the house: everything accepted is kept, and the end comes within its deadline."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from models.errors import (
    ShuttingDown,
    StoreUnavailable,
    VaultUnavailable,
)
from models.ids import VaultRef
from models.messages import Forget, Forgotten
from tests.actors.house import Gate, House, exchange, open_house, stored_texts
from tests.fakes.memory_disk import MemoryDisk


async def test_a_drain_writes_what_is_embedded_and_keeps_the_rest_in_the_log(
    autojump_clock: MockClock,
) -> None:
    disk = MemoryDisk()
    gate = Gate()
    async with open_house(disk, gate=gate) as house:
        one, other = await house.new_vault(), await house.new_vault()
        await house.remember(one, "an apple")
        await wait_all_tasks_blocked()
        gate.close()
        await house.remember(other, "a pear")
    assert stored_texts(disk, one) == ["an apple"]
    assert (stored_texts(disk, other), len(disk.vault(other).inbox)) == ([], 1)
    async with open_house(disk) as house:
        assert await house.found(other) == ["a pear"]


async def test_what_waits_in_mailboxes_is_handled_before_the_house_is_left(autojump_clock: MockClock) -> None:
    answers: list[Any] = []

    async def note(house: House, vault: VaultRef) -> None:
        answers.append(await house.found(vault))

    async with trio.open_nursery() as callers, open_house() as house:
        vault = await house.new_vault()
        await house.remember(vault, "an apple")
        house.supervisor._entries[vault.number].close()
        house.store.before["load_vault"] = partial(trio.sleep, 1)
        await house.supervisor._entries[vault.number].gone.wait()
        for _ in range(5):
            callers.start_soon(note, house, vault)
        await wait_all_tasks_blocked()
    assert answers == [["an apple"]] * 5


async def test_a_cancelled_house_drains_all_the_same(autojump_clock: MockClock) -> None:
    disk = MemoryDisk()
    receipts = []
    with trio.CancelScope() as outside:
        async with open_house(disk) as house:
            vault = await house.new_vault()
            await house.stats(vault)
            for number in range(5):
                with await house.supervisor.pin(vault) as pin:
                    receipts.append(pin.submit([exchange(f"text {number}")]))
            outside.cancel()
            await trio.sleep_forever()
    assert outside.cancelled_caught
    assert all(receipt.durable for receipt in receipts)
    texts = [row.exchange.messages[0].content for row in await inbox_of(disk, vault)]
    assert stored_texts(disk, vault) + texts == [f"text {number}" for number in range(5)]


async def test_a_turn_under_way_is_finished_when_the_house_is_cancelled(autojump_clock: MockClock) -> None:
    disk = MemoryDisk()
    answers: list[Any] = []

    async def forget(house: House, vault: VaultRef) -> None:
        answers.append(await house.supervisor.ask(vault, Forget("s"), timeout_s=60))

    async with trio.open_nursery() as callers:
        with trio.CancelScope() as outside:
            async with open_house(disk, drain_timeout_s=7) as house:
                vault = await house.new_vault()
                await house.remember(vault, "a secret", session_id="s")
                house.store.before["delete_memories"] = partial(trio.sleep, 3)
                callers.start_soon(forget, house, vault)
                await wait_all_tasks_blocked()
                outside.cancel()
                await trio.sleep_forever()
    assert answers == [Forgotten(count=1)]
    assert stored_texts(disk, vault) == []


async def inbox_of(disk: MemoryDisk, vault: VaultRef) -> list[Any]:
    async with open_house(disk) as house:
        return (await house.store.load_vault(vault, model_id="none")).inbox


@pytest.mark.parametrize("stuck", ["load_vault", "delete_memories"])
async def test_draining_ends_at_its_deadline(autojump_clock: MockClock, stuck: str) -> None:
    async with trio.open_nursery() as callers:
        async with open_house(drain_timeout_s=7) as house:
            vault = await house.new_vault()
            if stuck == "delete_memories":
                await house.remember(vault, "a secret", session_id="s")
            house.store.before[stuck] = trio.sleep_forever

            async def forget() -> None:
                with pytest.raises(VaultUnavailable):
                    await house.supervisor.ask(vault, Forget("s"), timeout_s=60)

            callers.start_soon(forget)
            await wait_all_tasks_blocked()
            began_s = trio.current_time()
        assert trio.current_time() - began_s == 7


async def test_a_drain_neither_waits_for_a_quarantine_nor_tries_a_broken_vault_for_ever(
    autojump_clock: MockClock,
) -> None:
    async with open_house(drain_timeout_s=7, quarantine_s=30.0) as house:
        vaults = [await house.new_vault() for _ in range(2)]
        house.store.refusing["load_vault"] = StoreUnavailable("no")
        with pytest.raises(VaultUnavailable):
            await house.stats(vaults[0])
        (await house.supervisor.pin(vaults[1])).close()
        began_s = trio.current_time()
    assert trio.current_time() == began_s
    assert max(house.store.loads.values()) <= 8


async def test_a_draining_house_takes_nothing_new(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        vault, other = await house.new_vault(), await house.new_vault()
        await house.stats(vault)
        house.supervisor._begin_drain(5)
        for reference in (vault, other):
            with pytest.raises(ShuttingDown):
                await house.stats(reference)
            with pytest.raises(ShuttingDown):
                await house.supervisor.pin(reference)


async def test_an_exchange_handed_over_while_the_house_drains_is_stored(autojump_clock: MockClock) -> None:
    disk = MemoryDisk()
    async with open_house(disk) as house:
        vault = await house.new_vault()
        with await house.supervisor.pin(vault) as pin:
            house.supervisor._begin_drain(5)
            receipt = pin.submit([exchange("an apple")])
            await receipt.wait_durable()
    async with open_house(disk) as house:
        assert await house.found(vault) == ["an apple"]


async def test_an_error_in_the_house_comes_out_after_the_drain(autojump_clock: MockClock) -> None:
    disk = MemoryDisk()
    with pytest.RaisesGroup(pytest.RaisesExc(ZeroDivisionError), flatten_subgroups=True):
        async with open_house(disk) as house:
            vault = await house.new_vault()
            await house.remember(vault, "an apple")
            await wait_all_tasks_blocked()
            raise ZeroDivisionError
    assert stored_texts(disk, vault) == ["an apple"]
