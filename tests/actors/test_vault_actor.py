"""One vault's actor: it hydrates, takes turns, forgets, and ends."""

from __future__ import annotations

import itertools
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors import slices
from actors.vault_actor import LifeCycle
from models.errors import (
    DeadlineExceeded,
    StorageFull,
    StoreUnavailable,
    VaultUnavailable,
)
from models.ids import VaultRef
from models.memory import Exchange
from models.messages import Applied, Apply, Barrier, Forget, Forgotten, Sift, Stats
from tests.actors.house import (
    NOW_MS,
    POISON,
    Gate,
    WatchedStore,
    exchange,
    message,
    new_vault,
    stored_texts,
)
from tests.actors.stage import Running, commit, inbox, running
from tests.fakes.embedding import HashEmbedding
from tests.fakes.memory_disk import MemoryDisk
from tests.patience import PATIENCE_S


@pytest.fixture
async def store() -> WatchedStore:
    return WatchedStore(MemoryDisk())


@pytest.fixture
async def vault(store: WatchedStore) -> VaultRef:
    return await new_vault(store)


async def test_hydration_reads_memories_and_then_the_rows_that_became_none_yet(
    store: WatchedStore, vault: VaultRef
) -> None:
    await commit(store, vault, exchange("an apple"))
    async with running(store, vault):
        await wait_all_tasks_blocked()
    assert stored_texts(store.disk, vault) == ["an apple"]
    await commit(store, vault, exchange("a pear"), exchange("a plum"))
    async with running(store, vault) as held:
        assert await held.found() == ["a pear", "a plum", "an apple"]
        await wait_all_tasks_blocked()
    assert stored_texts(store.disk, vault) == ["an apple", "a pear", "a plum"]
    assert inbox(store, vault) == 0


async def test_messages_wait_while_the_vault_hydrates(store: WatchedStore, vault: VaultRef) -> None:
    loading = trio.Event()
    store.before["load_vault"] = loading.wait
    await commit(store, vault, exchange("an apple"))
    answers: list[list[str]] = []

    async def note(held: Running) -> None:
        answers.append(await held.found())

    async with running(store, vault) as held, trio.open_nursery() as callers:
        callers.start_soon(note, held)
        await wait_all_tasks_blocked()
        assert held.actor.life_cycle is LifeCycle.HYDRATING
        assert held.actor.busy
        assert answers == []
        loading.set()
    assert answers == [["an apple"]]


async def test_a_row_that_hydration_has_read_is_reported_and_not_taken_twice(
    store: WatchedStore, vault: VaultRef
) -> None:
    """The commit may come between the start of the actor and its reading of the store; the counts must be true."""
    await commit(store, vault, exchange("known"))
    rows = await commit(store, vault, exchange("new", "known"), exchange("newer"))
    async with running(store, vault) as held:
        assert await held.ask(Apply(rows)) == Applied(stored=2, duplicates=1, chunks=2)
        assert (await held.ask(Stats())).memories == 3


async def test_counts_of_what_nobody_took_in_are_not_invented(store: WatchedStore, vault: VaultRef) -> None:
    """As when hydration finds a row damaged: its caller hears that, and the other rows are taken in."""
    rows = await commit(store, vault, exchange("a secret"), exchange("another thing"))
    del store.disk.vault(vault).inbox[rows[0].row_id]
    async with running(store, vault, rows_sent=rows[-1].row_id) as held:
        with pytest.raises(VaultUnavailable):
            await held.ask(Apply(rows))
        assert await held.found() == ["another thing"]


async def test_a_row_that_an_earlier_incarnation_has_written_is_not_taken_again(
    store: WatchedStore, vault: VaultRef
) -> None:
    """Its message may still wait in the mailbox, and what it said may have been forgotten since."""
    rows = await commit(store, vault, exchange("a secret", session_id="s"))
    hydrated: dict[int, Applied | None] = {}
    async with running(store, vault, hydrated=hydrated) as held:
        await wait_all_tasks_blocked()
        assert await held.ask(Forget("s")) == Forgotten(count=1)
    assert inbox(store, vault) == 0
    async with running(store, vault, rows_sent=rows[-1].row_id, hydrated=hydrated) as held:
        assert await held.ask(Apply(rows)) == Applied(stored=1, duplicates=0, chunks=1)
        later = await commit(store, vault, exchange("another thing"))
        assert await held.ask(Apply(later)) == Applied(stored=1, duplicates=0, chunks=1)
        await wait_all_tasks_blocked()
        assert await held.found() == ["another thing"]
    assert stored_texts(store.disk, vault) == ["another thing"]


async def test_a_vault_that_cannot_be_loaded_ends_its_actor(store: WatchedStore, vault: VaultRef) -> None:
    store.refusing["load_vault"] = StoreUnavailable("no")
    async with running(store, vault) as held:
        await held.ended.wait()
    assert isinstance(held.error, StoreUnavailable)


async def test_an_applied_row_is_found_by_its_words_though_nothing_is_embedded(
    store: WatchedStore, vault: VaultRef
) -> None:
    gate = Gate(closed=True)
    async with running(store, vault, gate=gate) as held:
        rows = await commit(store, vault, exchange("the password is swordfish", "my cat is Ada"))
        assert await held.ask(Apply(rows)) == Applied(stored=2, duplicates=0, chunks=2)
        assert "the password is swordfish" in await held.found("swordfish")
        assert await held.pending() == 2
        assert held.actor.busy
    assert inbox(store, vault) == 1  # unembedded rows stay in the log


async def test_embedded_rows_are_written_and_the_actor_has_nothing_left_to_do(
    store: WatchedStore, vault: VaultRef
) -> None:
    async with running(store, vault) as held:
        rows = await commit(store, vault, *(exchange(f"text {number}") for number in range(100)))
        await held.ask(Apply(rows))
        await wait_all_tasks_blocked()
        assert await held.pending() == 0
        assert not held.actor.busy
    assert inbox(store, vault) == 0
    assert stored_texts(store.disk, vault) == [f"text {number}" for number in range(100)]
    assert len(store.disk.vault(vault).vectors) == 100


async def test_reads_do_not_wait_for_the_encoder_nor_for_the_disk(store: WatchedStore, vault: VaultRef) -> None:
    async with running(store, vault) as held:
        rows = await commit(store, vault, exchange("an apple"))
        store.hold_commits()
        await held.ask(Apply(rows))
        await wait_all_tasks_blocked()
        assert await held.pending() == 0
        assert held.actor.busy  # the step is not written
        assert await held.found() == ["an apple"]
        store.release_commits()
        await wait_all_tasks_blocked()
        assert not held.actor.busy
    assert inbox(store, vault) == 0


async def test_a_message_that_nobody_waits_for_any_more_is_not_handled(
    store: WatchedStore, vault: VaultRef, autojump_clock: MockClock
) -> None:
    loading = trio.Event()
    store.before["load_vault"] = loading.wait
    async with running(store, vault) as held:
        with pytest.raises(DeadlineExceeded):
            await held.mailbox.ask(POISON, timeout_s=1)
        loading.set()
        await held.ask(Barrier())
        assert held.error is None


async def test_a_turn_that_crashes_tells_its_caller_and_ends_the_actor(store: WatchedStore, vault: VaultRef) -> None:
    async with running(store, vault) as held:
        with pytest.raises(VaultUnavailable):
            await held.ask(POISON)
        await held.ended.wait()
    assert held.error is not None


async def test_closing_the_mailbox_lets_the_actor_handle_what_waits_and_end(
    store: WatchedStore, vault: VaultRef
) -> None:
    async with running(store, vault) as held:
        rows = await commit(store, vault, exchange("an apple"))
        slot = held.mailbox.reserve_nowait().send(Apply(rows))
        held.mailbox.close()
        assert await slot.wait(timeout_s=PATIENCE_S) == Applied(stored=1, duplicates=0, chunks=1)
        await held.ended.wait()
        assert held.actor.life_cycle is LifeCycle.STOPPED
    assert held.error is None


async def test_a_long_turn_lets_other_tasks_run(
    store: WatchedStore, vault: VaultRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slices are counted over the whole turn: many small rows are as much work as one large row."""
    milliseconds = itertools.count()
    monkeypatch.setattr(slices, "time", SimpleNamespace(perf_counter=lambda: next(milliseconds) / 1000))
    steps = 0

    async def others() -> None:
        nonlocal steps
        while True:
            await trio.lowlevel.checkpoint()
            steps += 1

    async with running(store, vault, gate=Gate(closed=True)) as held:
        await held.ask(Barrier())
        rows = await commit(store, vault, *(exchange(f"text {number}", session_id="s") for number in range(100)))
        async with trio.open_nursery() as neighbours:
            neighbours.start_soon(others)
            for message in (Apply(rows), Forget("s")):
                before = steps
                await held.ask(message)
                assert steps - before >= 10
            neighbours.cancel_scope.cancel()


async def test_a_long_text_is_split_in_a_thread(store: WatchedStore, vault: VaultRef) -> None:
    text = "A sentence about apples. " * 1_000
    async with running(store, vault, gate=Gate(closed=True)) as held:
        rows = await commit(store, vault, exchange(text))
        applied = await held.ask(Apply(rows))
        assert applied.stored == 1
        assert applied.chunks > 10


async def test_the_supervisor_hears_how_large_the_vault_is(store: WatchedStore, vault: VaultRef) -> None:
    async with running(store, vault) as held:
        rows = await commit(store, vault, exchange("x" * 5_000, session_id="s"))
        await held.ask(Apply(rows))
        large = held.sizes[-1]
        assert large > 5_000
        await held.ask(Forget("s"))
        assert held.sizes[-1] <= large - 5_000


class StrangeTokeniser(HashEmbedding):
    """Cannot tokenise one text."""

    def count_tokens(self, text: str) -> int:
        if "strange" in text:
            raise UnicodeError(text)
        return super().count_tokens(text)


async def test_a_text_that_the_tokeniser_cannot_read_is_stored_and_found_by_its_words(
    store: WatchedStore, vault: VaultRef
) -> None:
    """The row is durable: a crash on it would meet it again at every hydration, and the vault would never open."""
    async with running(store, vault, encoder=StrangeTokeniser()) as held:
        rows = await commit(store, vault, exchange("a strange text", "a plain text"))
        assert await held.ask(Apply(rows)) == Applied(stored=2, duplicates=0, chunks=2)
        assert await held.found("strange") == ["a plain text", "a strange text"]
        await wait_all_tasks_blocked()
    assert stored_texts(store.disk, vault) == ["a strange text", "a plain text"]


async def test_a_forgotten_session_never_comes_back(store: WatchedStore, vault: VaultRef) -> None:
    """Not from texts that are being embedded, not from rows that wait in the log, not after another start."""
    gate = Gate(closed=True)
    async with running(store, vault, gate=gate) as held:
        rows = await commit(
            store, vault, exchange("a secret", session_id="s"), exchange("a note"), exchange("two", session_id="s")
        )
        await held.ask(Apply(rows))
        await wait_all_tasks_blocked()
        assert await held.ask(Forget("s")) == Forgotten(count=2)
        assert stored_texts(store.disk, vault) == ["a note"]
        assert inbox(store, vault) == 0
        gate.open()
        await wait_all_tasks_blocked()
        assert await held.found() == ["a note"]
        assert await held.pending() == 0
    assert sorted(store.disk.vault(vault).vectors) == [2]
    async with running(store, vault) as held:
        assert await held.found() == ["a note"]
        assert (await held.ask(Stats())).pending == 0


async def test_forgetting_waits_for_steps_under_way(store: WatchedStore, vault: VaultRef) -> None:
    answers: list[Any] = []

    async def forget(held: Running) -> None:
        answers.append(await held.ask(Forget("s")))

    async with running(store, vault) as held:
        rows = await commit(store, vault, exchange("a secret", session_id="s"))
        store.hold_commits()
        await held.ask(Apply(rows))
        async with trio.open_nursery() as callers:
            callers.start_soon(forget, held)
            await wait_all_tasks_blocked()
            assert answers == []
            store.release_commits()
    assert answers == [Forgotten(count=1)]
    assert stored_texts(store.disk, vault) == []
    assert inbox(store, vault) == 0


async def test_a_session_that_was_forgotten_can_be_told_again(store: WatchedStore, vault: VaultRef) -> None:
    async with running(store, vault) as held:
        await held.ask(Apply(await commit(store, vault, exchange("a secret", session_id="s"))))
        await held.ask(Forget("s"))
        applied = await held.ask(Apply(await commit(store, vault, exchange("a secret", session_id="s"))))
        assert applied.stored == 1
        assert await held.found(session_id="s") == ["a secret"]


async def test_what_the_store_could_not_delete_is_still_there(store: WatchedStore, vault: VaultRef) -> None:
    store.failing["delete_memories"] = deque([StorageFull("full")])
    async with running(store, vault) as held:
        await held.ask(Apply(await commit(store, vault, exchange("a secret", session_id="s"))))
        with pytest.raises(StorageFull):
            await held.ask(Forget("s"))
        assert await held.found() == ["a secret"]
        assert await held.ask(Forget("s")) == Forgotten(count=1)
        assert await held.found() == []


async def test_a_large_session_is_deleted_in_steps_each_of_which_holds(
    store: WatchedStore, vault: VaultRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.forgetting.FORGET_MEMORIES_MAX", 2)
    steps = 0

    async def failing_at_the_third() -> None:
        nonlocal steps
        steps += 1
        if steps == 3:
            raise StorageFull("full")

    store.before["delete_memories"] = failing_at_the_third
    async with running(store, vault) as held:
        secrets = [exchange(f"secret {number}", session_id="s") for number in range(5)]
        await held.ask(Apply(await commit(store, vault, *secrets, exchange("a note"))))
        with pytest.raises(StorageFull):
            await held.ask(Forget("s"))
        assert await held.found() == ["a note", "secret 4"]
        assert await held.ask(Forget("s")) == Forgotten(count=1)
        assert await held.found() == ["a note"]
    assert stored_texts(store.disk, vault) == ["a note"]


async def test_forgetting_on_a_disk_that_takes_nothing_ends_with_an_error(
    store: WatchedStore, vault: VaultRef, autojump_clock: MockClock
) -> None:
    async with running(store, vault) as held:
        store.refusing["materialise"] = StorageFull("full")
        await held.ask(Apply(await commit(store, vault, exchange("a secret", session_id="s"))))
        with pytest.raises(StoreUnavailable):
            await held.ask(Forget("s"))
        del store.refusing["materialise"]
        await trio.sleep(10)
        assert await held.ask(Forget("s")) == Forgotten(count=1)
    assert stored_texts(store.disk, vault) == []


async def test_forgetting_an_unknown_session_forgets_nothing(store: WatchedStore, vault: VaultRef) -> None:
    async with running(store, vault) as held:
        await held.ask(Apply(await commit(store, vault, exchange("a note"))))
        assert await held.ask(Forget("nobody")) == Forgotten(count=0)
        assert await held.found() == ["a note"]


async def test_sifting_says_what_is_unknown_and_changes_nothing(store: WatchedStore, vault: VaultRef) -> None:
    async with running(store, vault) as held:
        await held.ask(Apply(await commit(store, vault, exchange("a note"))))
        question = Sift(Exchange(messages=(message("a note"), message("new")), source="proxy", accepted_ms=NOW_MS))
        for _ in range(2):
            assert (await held.ask(question)).unknown == (1,)
        assert (await held.ask(Stats())).duplicates == 0
