"""Many senders, one vault, crashes and passivations in between: nothing lost, nothing doubled, everybody's order kept.

Each sender hands over numbered exchanges and waits until each is durable, as a client does that sends its next turn
after the last. Meanwhile a disturber poisons turns, closes mailboxes, cancels waiters and lets commits fail. Runs with
many seeds; a failing seed is a parameter of the test, so it can be run again alone.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from random import Random

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from models.errors import Overloaded, StoreUnavailable, VaultUnavailable
from models.ids import VaultRef
from tests.actors.house import POISON, House, exchange, open_house, stored_texts
from tests.fakes.memory_disk import MemoryDisk

SENDERS = 5
EXCHANGES = 8
SEEDS = range(12)


class Client:
    """Somebody at a vault who is never in step with anybody else. Waits on the mocked clock only."""

    def __init__(self, house: House, vault: VaultRef, random: Random, mock_clock: MockClock) -> None:
        self.house = house
        self.vault = vault
        self.random = random
        self.pause = partial(self._pause, mock_clock=mock_clock)

    async def _pause(self, most_s: float, *, mock_clock: MockClock) -> None:
        await trio.sleep(self.random.random() * most_s)

    async def send_all(self, sender: int) -> None:
        """Hand over this sender's exchanges one after the other, each until it is durable."""
        for number in range(EXCHANGES):
            text = f"sender{sender} number{number}"
            while not await self.hand_over(text):
                await self.pause(0.1)
            if self.random.random() < 0.5:
                await self.read_back(text)
            await self.pause(0.05)

    async def hand_over(self, text: str) -> bool:
        try:
            with await self.house.supervisor.pin(self.vault) as pin:
                await pin.submit([exchange(text)]).wait_durable()
        except Overloaded:  # no place, a failed commit, a vault that rests: the client sends it again
            return False
        return True

    async def read_back(self, text: str) -> None:
        """What is durable is found, whatever happens to the vault in between."""
        while True:
            try:
                assert text in await self.house.found(self.vault)
            except VaultUnavailable:
                await self.pause(0.02)
            else:
                return

    async def disturb(self) -> None:
        """Do harm at random until cancelled."""
        while True:
            await self.pause(0.01)
            harm = self.random.choice(["poison", "poison", "passivate", "passivate", "fail", "leave"])
            entry = self.house.supervisor._entries.get(self.vault.number)
            if harm == "poison":
                with pytest.raises(Overloaded):
                    await self.house.supervisor.ask(self.vault, POISON, timeout_s=0.5)
            elif harm == "passivate" and entry is not None and entry.idle:
                entry.close()
            elif harm == "fail":
                self.house.store.fail_commit(StoreUnavailable("for a moment"))
            elif harm == "leave":
                with trio.move_on_after(self.random.random() / 100), suppress(Overloaded):
                    await self.house.found(self.vault)


@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_is_lost_doubled_or_reordered(seed: int, autojump_clock: MockClock) -> None:
    disk = MemoryDisk()
    async with open_house(
        disk, restarts_max=3, restart_window_s=0.05, quarantine_s=0.2, mailbox_messages_max=4, exchanges_max=4
    ) as house:
        vault = await house.new_vault()
        async with trio.open_nursery() as disturbers:
            disturbers.start_soon(Client(house, vault, Random(seed), autojump_clock).disturb)
            async with trio.open_nursery() as senders:
                for sender in range(SENDERS):
                    client = Client(house, vault, Random(f"{seed} {sender}"), autojump_clock)
                    senders.start_soon(client.send_all, sender)
            disturbers.cancel_scope.cancel()
        await trio.sleep(60)  # any quarantine is over, any step that failed was tried again
        assert len(await house.found(vault)) == SENDERS * EXCHANGES
        await wait_all_tasks_blocked()
        assert house.supervisor.statistics()["crashed"] > 0
        assert house.nothing_is_held(vault)
        assert house.inbox(vault) == 0
        assert (await house.stats(vault)).pending == 0
    texts = stored_texts(disk, vault)
    assert len(texts) == len(set(texts)) == SENDERS * EXCHANGES
    for sender in range(SENDERS):
        mine = [text for text in texts if text.startswith(f"sender{sender} ")]
        assert mine == [f"sender{sender} number{number}" for number in range(EXCHANGES)]


async def test_one_task_is_answered_in_the_order_of_its_messages_across_passivation(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        vault = await house.new_vault()
        for number in range(20):
            with await house.supervisor.pin(vault) as pin:
                receipt = pin.submit([exchange(f"text {number}")])
            await receipt.wait_durable()
            if number % 3 == 0:
                house.supervisor._entries[vault.number].close()
            assert (await house.stats(vault)).memories == number + 1
        assert house.supervisor.statistics()["passivated"] == 7
