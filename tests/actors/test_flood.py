"""Clients that bring more than a vault can embed: they are refused or wait, and nothing grows without a bound."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.inbox_lag import ONE, WAITERS_MAX, Weight, weigh
from models.errors import Overloaded
from models.ids import VaultRef
from tests.actors.house import Gate, House, exchange, open_house
from tests.fakes.memory_disk import MemoryDisk
from tests.patience import wait_until

INBOX_MAX = 50


class Flood:
    """Clients of one vault that all come at once.

    Attributes:
        stored: texts that were acknowledged.
        refused: how often a client was refused.
        held_most: the most messages that the vault was behind at any time.
    """

    def __init__(self, house: House, vault: VaultRef) -> None:
        self._house = house
        self._vault = vault
        self.stored: list[str] = []
        self.refused = 0
        self.held_most = 0

    async def bring(self, *texts: str, wait_room_s: float = 0.0) -> None:
        """Store texts as one exchange, or count the refusal."""
        brought = exchange(*texts)
        try:
            pin = await self._house.supervisor.pin(self._vault, weigh([brought]), wait_room_s=wait_room_s)
        except Overloaded:
            self.refused += 1
            return
        with pin:
            await pin.submit([brought]).wait_durable()
        self.stored += texts
        self.held_most = max(self.held_most, self.held)

    @property
    def held(self) -> int:
        """Messages that the vault is behind now."""
        messages: int = self._house.supervisor.statistics()["inbox_messages"]
        return messages

    def check_bounds(self) -> None:
        """Nothing that waits is longer than it may be."""
        entry = self._house.supervisor._entries[self._vault.number]
        assert self.held <= INBOX_MAX
        assert self._house.inbox(self._vault) <= INBOX_MAX
        assert max(entry.mailbox.waiting, entry.mailbox.reserved) <= INBOX_MAX
        assert entry.lag.waiting <= WAITERS_MAX
        assert self._house.embedder.statistics()["bulk_waiting"] <= 1  # of one vault


async def settled(house: House) -> None:
    """Return once nothing waits for its embedding any more."""
    await wait_until(lambda: not house.supervisor.statistics()["inbox_messages"])


async def test_who_floods_is_refused_until_what_was_taken_is_done(autojump_clock: MockClock) -> None:
    gate = Gate(closed=True)
    async with open_house(gate=gate, inbox_messages_max=INBOX_MAX, exchanges_max=1_000) as house:
        vault = await house.new_vault()
        flood = Flood(house, vault)
        for wave in range(3):
            async with trio.open_nursery() as clients:
                for number in range(200):
                    clients.start_soon(flood.bring, f"fact{wave}x{number}")
            flood.check_bounds()
        assert (len(flood.stored), flood.refused) == (INBOX_MAX, 550)
        assert await house.found(vault) == sorted(flood.stored)
        gate.open()
        await settled(house)
        assert sorted(house.stored(vault)) == sorted(flood.stored)
        await flood.bring("one more")
        assert flood.stored[-1] == "one more"


async def test_a_chat_over_the_bound_is_told_before_it_begins(autojump_clock: MockClock) -> None:
    gate = Gate(closed=True)
    async with open_house(gate=gate, inbox_messages_max=2) as house:
        vault = await house.new_vault()
        with await house.supervisor.pin(vault):  # under way: it counts already
            await house.remember(vault, "an apple")
            with pytest.raises(Overloaded):
                await house.supervisor.pin(vault)
        with await house.supervisor.pin(vault) as pin:
            # What it brings is not refused any more, however much it is.
            await pin.submit([exchange("a", "b", "c")]).wait_applied(timeout_s=30)
        assert house.supervisor.statistics()["inbox_messages"] == 4
        assert house.nothing_is_held(vault)


async def test_uploads_without_end_wait_and_all_get_in(autojump_clock: MockClock) -> None:
    """Also those that are larger than the bound: one at a time."""
    gate = Gate(closed=True)
    async with open_house(gate=gate, inbox_messages_max=INBOX_MAX) as house:
        flood = Flood(house, await house.new_vault())
        sizes = [20, 30, 1, 120, 49, 50, 51, 7]
        async with trio.open_nursery() as uploads:
            for number, size in enumerate(sizes):
                texts = [f"line{number}x{line}" for line in range(size)]
                uploads.start_soon(partial(flood.bring, *texts, wait_room_s=3_600))
                await wait_all_tasks_blocked()
            flood.check_bounds()
            gate.open()
        await settled(house)
    assert (len(flood.stored), flood.refused) == (sum(sizes), 0)
    assert flood.held_most <= 120


async def test_few_uploads_wait_and_the_others_come_again(autojump_clock: MockClock) -> None:
    async with open_house(gate=Gate(closed=True), inbox_messages_max=INBOX_MAX) as house:
        vault = await house.new_vault()
        flood = Flood(house, vault)
        await flood.bring(*(f"line{line}" for line in range(INBOX_MAX)))
        async with trio.open_nursery() as uploads:
            for number in range(40):
                uploads.start_soon(partial(flood.bring, f"more{number}", wait_room_s=60))
            await wait_all_tasks_blocked()
            assert flood.refused == 40 - WAITERS_MAX
            flood.check_bounds()
        assert flood.refused == 40  # nothing was embedded in time
        assert house.nothing_is_held(vault)


async def test_what_an_earlier_run_left_in_the_inbox_counts(autojump_clock: MockClock) -> None:
    disk = MemoryDisk()
    async with open_house(disk, gate=Gate(closed=True), inbox_messages_max=INBOX_MAX) as house:
        vault = await house.new_vault()
        await house.remember(vault, *(f"fact{number}" for number in range(INBOX_MAX)))
    gate = Gate(closed=True)
    async with open_house(disk, gate=gate, inbox_messages_max=INBOX_MAX) as house:
        await house.stats(vault)
        with pytest.raises(Overloaded):
            await house.supervisor.pin(vault, ONE)
        gate.open()
        await settled(house)
        (await house.supervisor.pin(vault, ONE)).close()


async def test_who_waits_for_room_in_a_vault_that_is_erased_goes_to_its_successor(autojump_clock: MockClock) -> None:
    async with open_house(gate=Gate(closed=True), inbox_messages_max=INBOX_MAX) as house:
        vault = await house.new_vault()
        await house.remember(vault, *(f"fact{number}" for number in range(INBOX_MAX)))
        async with trio.open_nursery() as waiting:
            waiting.start_soon(partial(Flood(house, vault).bring, "after the erasure", wait_room_s=60))
            await wait_all_tasks_blocked()
            await house.supervisor.erase(vault)
        assert await house.found(vault) == ["after the erasure"]


async def test_a_commit_that_fails_or_is_refused_gives_its_room_back(autojump_clock: MockClock) -> None:
    async with open_house(inbox_messages_max=INBOX_MAX) as house:
        vault = await house.new_vault()
        await house.stats(vault)
        house.store.fail_commit(Overloaded("full"))
        with await house.supervisor.pin(vault, Weight(10)) as pin, pytest.raises(Overloaded):
            await pin.submit([exchange("lost")]).wait_durable()
        await house.store.close()
        with await house.supervisor.pin(vault, Weight(10)) as pin, pytest.raises(Overloaded):
            pin.submit([exchange("refused")])
        assert house.supervisor.statistics()["inbox_messages"] == 0
