"""Vaults tell a meter which inbox rows became how many new memories, and when a row cannot come again."""

from __future__ import annotations

from collections.abc import Collection

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from models.errors import MemoryRouterError, StoreUnavailable
from models.memory import InboxRow
from tests.actors.house import Gate, crash, open_house
from tests.fakes.memory_disk import MemoryDisk


class Told:
    """A meter that remembers what it is told: rows with their new memories, and rows that are gone."""

    def __init__(self) -> None:
        self.learned_rows: list[tuple[int, int]] = []
        self.gone_rows: set[int] = set()

    def learned(self, shard: int, row: InboxRow, stored: int) -> None:
        self.learned_rows.append((row.row_id, stored))

    def gone(self, shard: int, row_ids: Collection[int]) -> None:
        self.gone_rows.update(row_ids)

    @property
    def rows(self) -> set[int]:
        """The rows that it was told of."""
        return {row for row, _ in self.learned_rows}

    @property
    def stored(self) -> list[int]:
        """How many memories, each time."""
        return [stored for _, stored in self.learned_rows]


async def test_a_row_is_told_with_its_new_memories_and_is_gone_when_they_are_written(
    autojump_clock: MockClock,
) -> None:
    told, gate = Told(), Gate(closed=True)
    async with open_house(meter=told, gate=gate) as house:
        vault = await house.new_vault()
        await house.remember(vault, "an apple", "a pear")
        await house.remember(vault, "an apple", "a plum")
        await wait_all_tasks_blocked()
        assert told.stored == [2, 1]
        assert len(told.rows) == 2
        assert told.gone_rows == set()
        gate.open()
        await wait_all_tasks_blocked()
        assert told.gone_rows == told.rows


async def test_a_row_that_waits_in_the_inbox_is_told_again_after_a_crash(autojump_clock: MockClock) -> None:
    """Its memories were counted already; the meter knows the row."""
    told, gate = Told(), Gate(closed=True)
    async with open_house(meter=told, gate=gate) as house:
        vault = await house.new_vault()
        await house.remember(vault, "an apple", "a pear")
        await crash(house, vault)
        await house.stats(vault)
        assert told.stored == [2, 2]
        assert len(told.rows) == 1
        assert told.gone_rows == set()
        gate.open()


async def test_a_row_of_an_earlier_run_is_told_when_it_is_taken_in(autojump_clock: MockClock) -> None:
    """It was committed, and nobody had the time to count it."""
    disk, told = MemoryDisk(), Told()
    async with open_house(disk, gate=Gate(closed=True), drain_timeout_s=0) as house:
        vault = await house.new_vault()
        await house.remember(vault, "an apple")
    async with open_house(disk, meter=told) as house:
        await house.supervisor.resume()
        await wait_all_tasks_blocked()
    assert told.stored == [1]
    assert told.gone_rows == told.rows != set()


async def test_rows_of_an_erased_vault_are_gone(autojump_clock: MockClock) -> None:
    told, gate = Told(), Gate(closed=True)
    async with open_house(meter=told, gate=gate) as house:
        vault = await house.new_vault()
        await house.remember(vault, "an apple")
        await house.supervisor.erase(vault)
        assert told.gone_rows == told.rows != set()
        gate.open()


async def test_what_was_not_stored_is_not_told(autojump_clock: MockClock) -> None:
    told = Told()
    async with open_house(meter=told) as house:
        vault = await house.new_vault()
        house.store.fail_commit(StoreUnavailable("It fails."))
        with pytest.raises(MemoryRouterError), trio.fail_after(60):
            await house.remember(vault, "an apple")
        assert told.learned_rows == []
