"""Erasing: nothing of the old vault stays readable, and what comes afterwards has a place to go."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors import supervisor as supervisor_module
from models.errors import (
    NotFound,
    NotOwner,
    StorageFull,
    StoreUnavailable,
    VaultUnavailable,
)
from models.ids import VaultRef
from models.messages import (
    ChangeMemory,
    Forget,
    ForgetMatching,
    ForgetMemory,
    Forgotten,
    GetMemory,
    MemoryChange,
    Scope,
)
from models.selection import MemoryFilter
from tests.actors.house import Gate, crash, exchange, open_house
from tests.fakes.memory_disk import MemoryDisk


async def test_an_erased_vault_is_empty_and_goes_on_under_its_key(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        vault, other = await house.new_vault(), await house.new_vault()
        await house.remember(vault, "a secret")
        await house.remember(other, "a pear")
        await house.supervisor.erase(vault)
        assert house.supervisor.statistics()["live"] == 1  # nothing of it is left in memory
        assert house.supervisor.current(vault) != vault
        assert vault.number not in house.store.disk.vaults
        assert await house.found(vault) == []
        assert (await house.remember(vault, "a secret")).stored == 1  # the new vault does not know it
        assert await house.found(house.supervisor.current(vault)) == ["a secret"]
        assert await house.found(other) == ["a pear"]


async def test_a_vault_that_is_not_in_memory_can_be_erased_and_an_erased_one_again(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        vault = await house.new_vault()
        for _ in range(3):
            await house.supervisor.erase(vault)
            await house.remember(vault, "a secret")
        await house.supervisor.erase(vault)
        assert await house.found(vault) == []
        assert len(house.store.disk.vaults) == 2  # the account's own and this one


async def test_a_vault_of_another_process_is_left_to_that(autojump_clock: MockClock) -> None:
    """Also one that took the place of a vault of this one: else two could erase it, each without the other's word."""

    def refuse(part: int) -> None:
        raise NotOwner("another worker has it")

    async with open_house() as house:
        vault = await house.new_vault()
        await house.supervisor.erase(vault)
        successor = house.supervisor.current(vault)
        house.supervisor.check_owned = refuse
        with pytest.raises(NotOwner):
            await house.supervisor.erase(vault)
        assert house.supervisor.current(vault) == successor
        assert successor.number in house.store.disk.vaults


@pytest.mark.parametrize(
    "deletion",
    [
        Forget("s"),
        ForgetMatching(MemoryFilter(words="secret")),
        ForgetMatching(MemoryFilter(words="secret"), last_seq=1),
    ],
    ids=["of a session", "of what matches", "in its second part"],
)
async def test_a_deletion_that_meets_an_erasure_deletes_nothing_of_the_new_vault(
    autojump_clock: MockClock, deletion: Forget | ForgetMatching
) -> None:
    """Whether the store has destroyed the old vault's key already, or the new one is known: all that was is gone."""
    async with open_house() as house:
        vault = await house.new_vault()
        await house.remember(vault, "a secret", session_id="s")
        held, told = trio.Event(), trio.Event()
        replace, answers = house.store.replace_vault, []

        async def replaced(*args: Any, **named: Any) -> VaultRef:
            successor = await replace(*args, **named)
            held.set()
            await told.wait()
            return successor

        async def delete() -> None:
            answers.append(await house.supervisor.ask(vault, deletion, timeout_s=5))

        house.store.replace_vault = replaced  # type: ignore[method-assign]  # as slow as a disk may be
        async with trio.open_nursery() as callers:
            callers.start_soon(house.supervisor.erase, vault)
            await held.wait()
            callers.start_soon(delete)
            await wait_all_tasks_blocked()
            told.set()
        await house.remember(vault, "another secret", session_id="s")
        await delete()
        assert [answer.count for answer in answers] == [0, 0]
        assert await house.found(vault) == ["another secret"]


@pytest.mark.parametrize(
    "message", [GetMemory(1), ForgetMemory(1), ChangeMemory(1, MemoryChange(content="x"), now_ms=1)]
)
async def test_a_number_of_an_erased_vault_means_nothing_in_the_new_one(
    autojump_clock: MockClock, message: GetMemory | ForgetMemory | ChangeMemory
) -> None:
    async with open_house() as house:
        vault = await house.new_vault()
        await house.remember(vault, "a secret")
        await house.supervisor.erase(vault)
        await house.remember(vault, "something else")
        with pytest.raises(NotFound):
            await house.supervisor.ask(vault, message, timeout_s=5)
        assert await house.found(vault) == ["something else"]


async def test_two_may_erase_a_vault_at_once(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        vault = await house.new_vault()
        await house.remember(vault, "a secret", session_id="s")
        async with trio.open_nursery() as callers:
            for _ in range(2):
                callers.start_soon(house.supervisor.erase, vault)
        assert await house.found(vault) == []
        assert (await house.remember(vault, "said afterwards")).stored == 1


async def test_an_exchange_pinned_before_an_erasure_lands_in_the_new_vault(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        vault = await house.new_vault()
        await house.remember(vault, "a secret", session_id="s")
        with await house.supervisor.pin(vault) as pin:
            await house.supervisor.erase(vault)
            receipt = pin.submit([exchange("said afterwards")])
            assert (await receipt.wait_applied(timeout_s=5)).stored == 1
        assert await house.found(vault) == ["said afterwards"]
        assert house.nothing_is_held(house.supervisor.current(vault))


async def test_an_exchange_for_a_new_vault_that_is_just_leaving_memory_is_refused(autojump_clock: MockClock) -> None:
    """Its commit could come after the next incarnation has read the store, and would not be found."""
    async with open_house() as house:
        vault = await house.new_vault()
        with await house.supervisor.pin(vault) as pin:
            await house.supervisor.erase(vault)
            await house.stats(vault)
            house.supervisor._entries[house.supervisor.current(vault).number].close()
            with pytest.raises(VaultUnavailable):
                pin.submit([exchange("said afterwards")])
            assert await house.found(vault) == []
            await pin.submit([exchange("said afterwards")]).wait_applied(timeout_s=5)
        assert await house.found(vault) == ["said afterwards"]
        assert house.nothing_is_held(house.supervisor.current(vault))


async def test_a_pin_from_before_an_erasure_can_be_closed(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        vault = await house.new_vault()
        pin = await house.supervisor.pin(vault)
        await house.supervisor.erase(vault)
        pin.close()
        assert await house.found(vault) == []


async def test_an_exchange_whose_vault_is_erased_before_its_commit_may_come_again(
    autojump_clock: MockClock,
) -> None:
    async with open_house() as house:
        vault = await house.new_vault()
        house.store.hold_commits()
        async with trio.open_nursery() as callers:
            callers.start_soon(house.supervisor.erase, vault)
            await wait_all_tasks_blocked()
            with await house.supervisor.pin(vault) as pin:
                receipt = pin.submit([exchange("an apple")])
            house.store.release_commits()
        with pytest.raises(StoreUnavailable) as caught:
            await receipt.wait_durable()
        assert caught.value.retry_after_s == 1
        assert (await house.remember(vault, "an apple")).stored == 1


async def test_who_asks_during_an_erasure_sees_the_vault_before_or_after_it(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        vault = await house.new_vault()
        await house.remember(vault, "a secret")
        erasing = trio.Event()
        house.store.before["replace_vault"] = erasing.wait
        seen: list[Any] = []

        async def look() -> None:
            for _ in range(20):
                try:
                    seen.append(await house.found(vault))
                except VaultUnavailable:
                    seen.append("retry")
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as callers:
            callers.start_soon(house.supervisor.erase, vault)
            await wait_all_tasks_blocked()
            assert await house.found(vault) == ["a secret"]
            for _ in range(4):
                callers.start_soon(look)
            erasing.set()
        answers = [answer for answer in seen if answer != "retry"]
        assert answers[-1] == []
        assert all(answer in (["a secret"], []) for answer in answers)
        assert await house.found(vault) == []


async def test_those_who_wait_in_the_mailbox_of_an_erased_vault_are_told(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        vault = await house.new_vault()
        house.store.before["load_vault"] = partial(trio.sleep, 3_600)
        async with trio.open_nursery() as callers:
            callers.start_soon(crash, house, vault)  # any message: it is told "unavailable" within its deadline
            await wait_all_tasks_blocked()
            began_s = trio.current_time()
            await house.supervisor.erase(vault)
        assert trio.current_time() == began_s


async def test_an_erasure_that_fails_changes_nothing(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        vault = await house.new_vault()
        await house.remember(vault, "an apple")
        house.store.failing["replace_vault"] = deque([StorageFull("full")])
        with pytest.raises(StorageFull):
            await house.supervisor.erase(vault)
        assert await house.found(vault) == ["an apple"]
        assert house.store.loads == {vault.number: 1}


async def test_an_erasure_goes_on_when_its_caller_leaves(autojump_clock: MockClock) -> None:
    """Half an erasure would leave the old content in memory, and exchanges under way without a vault."""
    async with open_house() as house:
        vault = await house.new_vault()
        await house.remember(vault, "a secret")
        with await house.supervisor.pin(vault) as pin:
            house.store.hold_commits()
            async with trio.open_nursery() as callers:
                callers.start_soon(house.supervisor.erase, vault)
                await wait_all_tasks_blocked()
                callers.cancel_scope.cancel()
                house.store.release_commits()
            assert await house.found(vault) == []
            await pin.submit([exchange("said afterwards")]).wait_applied(timeout_s=5)
        assert await house.found(vault) == ["said afterwards"]


async def test_an_erasure_does_not_wait_for_ever(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        vault = await house.new_vault()
        house.store.before["replace_vault"] = partial(trio.sleep, 3_600)
        with pytest.raises(StoreUnavailable):
            await house.supervisor.erase(vault)
        assert trio.current_time() < 100


async def test_an_erasure_with_a_write_under_way_is_not_a_crash(autojump_clock: MockClock) -> None:
    gate = Gate(closed=True)
    async with open_house(gate=gate) as house:
        vault = await house.new_vault()
        await house.remember(vault, "a late secret")
        house.store.hold_commits()
        async with trio.open_nursery() as callers:
            callers.start_soon(house.supervisor.erase, vault)
            await wait_all_tasks_blocked()
            gate.open()
            await wait_all_tasks_blocked()  # now the write stands behind the erasure
            house.store.release_commits()
        await trio.sleep(60)
        assert house.supervisor.statistics()["crashed"] == 0
        assert await house.found(vault) == []


async def test_only_so_many_erasures_are_remembered(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "FORWARDS_MAX", 2)
    async with open_house() as house:
        vaults = [await house.new_vault() for _ in range(3)]
        for vault in vaults:
            await house.supervisor.erase(vault)
        assert [house.supervisor.current(vault) == vault for vault in vaults] == [True, False, False]


async def test_a_forgotten_session_does_not_come_back_with_the_next_start(autojump_clock: MockClock) -> None:
    disk = MemoryDisk()
    async with open_house(disk, gate=Gate(closed=True)) as house:
        vault = await house.new_vault()
        await house.remember(vault, "a secret", session_id="s")
        await house.remember(vault, "a note")
        forgotten = await house.supervisor.ask(vault, Forget("s"), timeout_s=30)
        assert forgotten == Forgotten(count=1)
        house.store.crash()
    async with open_house(disk) as house:
        assert await house.found(vault) == ["a note"]
        assert await house.found(vault, scope=Scope(session_id="s")) == []
