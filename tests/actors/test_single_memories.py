"""What a turn does about single memories: bounded, whatever the vault holds, and right while things are under way."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors import single_memories
from models.errors import NotFound, StorageFull, StoreUnavailable
from models.ids import VaultRef
from models.memory import LOCAL_RECALL_MODEL, Exchange, Message
from models.messages import (
    ChangeMemory,
    FindTwin,
    ForgetMatching,
    ForgetMemory,
    ForgottenPart,
    GetMemory,
    Listed,
    ListMemories,
    MemoryChange,
)
from models.selection import MemoryFilter
from tests.actors.house import NOW_MS, Gate, House, message, open_house


async def ask(house: House, vault: VaultRef, question: Any) -> Any:
    return await house.supervisor.ask(vault, question, timeout_s=60)


async def texts(house: House, vault: VaultRef, **wanted: Any) -> list[str]:
    listed: Listed = await ask(house, vault, ListMemories(MemoryFilter(**wanted), limit=1_000, descending=False))
    return [memory.content for memory in listed.memories]


async def test_a_turn_looks_at_a_bounded_number_of_memories_and_says_where_to_go_on(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single_memories, "SCAN_MEMORIES_MAX", 10)
    async with open_house() as house:
        vault = await house.new_vault()
        await house.remember(vault, *(f"text {number}" for number in range(35)), session_id="s")
        pages, after, found = 0, None, 0
        while pages == 0 or after is not None:
            listed: Listed = await ask(house, vault, ListMemories(MemoryFilter(role="assistant"), limit=5, after=after))
            pages, after, found = pages + 1, listed.after, found + len(listed.memories)
        assert (pages, found) == (4, 0)
        part: ForgottenPart = await ask(house, vault, ForgetMatching(MemoryFilter(role="user"), counts_only=True))
        assert (part.count, part.after_seq) == (10, 10)
        assert len(await texts(house, vault)) == 35


async def test_a_page_of_long_texts_ends_early(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(single_memories, "PAGE_CHARACTERS_MAX", 100)
    async with open_house() as house:
        vault = await house.new_vault()
        await house.remember(vault, *(f"{number} " + "long " * 10 for number in range(5)))
        listed: Listed = await ask(house, vault, ListMemories(MemoryFilter(), limit=10))
        assert len(listed.memories) == 1
        assert listed.after is not None
        behind: Listed = await ask(house, vault, ListMemories(MemoryFilter(), limit=10, after=listed.after))
        assert behind.memories[0].number == listed.memories[0].number - 1


async def test_what_comes_meanwhile_is_not_part_of_a_deletion(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single_memories, "FORGET_MEMORIES_MAX", 2)
    async with open_house() as house:
        vault = await house.new_vault()
        await house.remember(vault, "a", "b", "c")
        part: ForgottenPart = await ask(house, vault, ForgetMatching(MemoryFilter(role="user")))
        await house.remember(vault, "later")
        while part.after_seq is not None:
            rest = ForgetMatching(MemoryFilter(role="user"), after_seq=part.after_seq, last_seq=part.last_seq)
            part = await ask(house, vault, rest)
        assert await texts(house, vault) == ["later"]


async def test_a_memory_that_is_not_embedded_and_not_written_yet_is_changed_and_deleted(
    autojump_clock: MockClock,
) -> None:
    """Its vectors, which come later, go nowhere."""
    gate = Gate(closed=True)
    async with open_house(gate=gate) as house:
        vault = await house.new_vault()
        await house.remember(vault, "alpha", "beta", "gamma")
        assert house.inbox(vault) == 1
        listed: Listed = await ask(house, vault, ChangeMemory(1, MemoryChange(content="delta"), now_ms=NOW_MS))
        assert (listed.memories[0].number, listed.pending) == (1, frozenset({listed.memories[0].seq}))
        await ask(house, vault, ForgetMemory(2))
        await ask(house, vault, ChangeMemory(3, MemoryChange(metadata={"k": 1}), now_ms=NOW_MS))
        assert house.inbox(vault) == 0
        assert await texts(house, vault) == ["delta", "gamma"]
        gate.open()
        await wait_all_tasks_blocked()
        assert not (await house.stats(vault)).pending
        assert house.stored(vault) == ["gamma", "delta"]
        assert sorted(house.store.disk.vault(vault).vectors) == [3, 4]
        assert await house.found(vault, "alpha beta") == []


async def test_only_a_changed_text_or_role_is_embedded_again(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        vault = await house.new_vault()
        await house.remember(vault, "alpha")
        await wait_all_tasks_blocked()
        assert not (await house.stats(vault)).pending
        for change, pending in (
            (MemoryChange(metadata={"k": 1}, session_id="s", timestamp_ms=5), 0),
            (MemoryChange(content="alpha"), 0),
            (MemoryChange(role="assistant"), 1),
        ):
            listed: Listed = await ask(house, vault, ChangeMemory(1, change, now_ms=NOW_MS))
            assert len(listed.pending) == pending
            assert listed.memories[0].number == 1


async def test_a_store_that_refuses_changes_nothing(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        vault = await house.new_vault()
        await house.remember(vault, "alpha", "beta")
        house.store.failing["delete_memories"] = deque([StorageFull("full")])
        with pytest.raises(StorageFull):
            await ask(house, vault, ForgetMemory(1))
        assert await texts(house, vault) == ["alpha", "beta"]
        await ask(house, vault, ForgetMemory(1))
        with pytest.raises(NotFound):
            await ask(house, vault, ForgetMemory(1))
        with pytest.raises(NotFound):
            await ask(house, vault, GetMemory(1))


async def test_a_store_that_does_not_answer_has_the_vault_loaded_anew(autojump_clock: MockClock) -> None:
    """It may have deleted all the same: what it holds is what counts."""
    async with open_house() as house:
        vault = await house.new_vault()
        await house.remember(vault, "alpha", "beta")

        async def slow() -> None:
            del house.store.before["delete_memories"]
            await house.store.delete_memories(vault, [1])  # done, but nobody is told in time
            await trio.sleep(60)

        house.store.before["delete_memories"] = slow
        with pytest.raises(StoreUnavailable):
            await ask(house, vault, ForgetMemory(1))
        assert await texts(house, vault) == ["beta"]


async def test_an_answer_that_quotes_memories_is_not_recalled_when_it_is_changed_either(
    autojump_clock: MockClock,
) -> None:
    async with open_house() as house:
        vault = await house.new_vault()
        echo = Message(role="assistant", content="You said alpha.")
        exchange = Exchange(messages=(echo,), source="proxy", accepted_ms=NOW_MS, model=LOCAL_RECALL_MODEL)
        with await house.supervisor.pin(vault) as pin:
            await pin.submit([exchange]).wait_applied(timeout_s=30)
        await ask(house, vault, ChangeMemory(1, MemoryChange(content="You said beta."), now_ms=NOW_MS))
        assert await house.found(vault, "beta.") == []
        assert await texts(house, vault) == ["You said beta."]


async def test_the_twin_of_a_message_is_the_memory_that_makes_it_known(autojump_clock: MockClock) -> None:
    async with open_house() as house:
        vault = await house.new_vault()
        await house.remember(vault, "alpha", "Alpha!")
        await house.remember(vault, "alpha", session_id="s")
        for twin, number in (
            (message("alpha"), 1), (message("Alpha!"), 2), (message("alpha", session_id="s"), 3),
            (message("alpha", timestamp_ms=NOW_MS), 1), (message("alpha", timestamp_ms=5), None),
            (message("ALPHA"), None), (message("alpha", external_id="x"), None),
        ):  # fmt: skip
            listed: Listed = await ask(house, vault, FindTwin(twin, source="ingest", accepted_ms=NOW_MS))
            assert [memory.number for memory in listed.memories] == ([] if number is None else [number])
