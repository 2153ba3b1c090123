"""The imprint of a vault in use: written when it is worth it, used when it is right, gone before its words are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.analysis import analyse
from actors.embedder import open_embedder
from actors.hydration import load_memories
from actors.imprint import ImprintSource
from actors.imprint_keeper import REST_S, ImprintKeeper, patience_s
from actors.store.protocol import VaultStore
from actors.store.sqlite import SqliteStore, open_store
from actors.supervisor import Supervisor, open_supervisor
from actors.vault import Vault
from actors.vault_actor import VaultLimits
from models.ids import VaultNumber, VaultRef
from models.memory import Exchange, InboxRow, Message
from models.messages import Forget, Found, Page, Scope, Search
from models.settings import VaultSettings
from models.store_settings import StoreSettings
from tests.actors.house import NOW_MS
from tests.fakes.embedding import HashEmbedding
from tests.fakes.store import open_memory_store

LEAST = 8
LIMITS = VaultLimits(imprint_memories_min=LEAST)
TEXTS = [f"word{number} stands in note {number}" for number in range(2 * LEAST)]


class House:
    def __init__(self, store: SqliteStore, supervisor: Supervisor, vault: VaultRef) -> None:
        self.store = store
        self.supervisor = supervisor
        self.vault = vault

    async def remember(self, *texts: str, session_id: str | None = None) -> None:
        messages = tuple(Message(role="user", content=text, session_id=session_id) for text in texts)
        with await self.supervisor.pin(self.vault) as pin:
            exchange = Exchange(messages=messages, source="upload", accepted_ms=NOW_MS)
            await pin.submit([exchange]).wait_applied(timeout_s=30)

    async def settle(self) -> None:
        """Let all be written from the inbox to the memories; vectors may come later."""
        await self.supervisor.ask(self.vault, Page(after_seq=0, limit=1), timeout_s=30)

    async def found(self, word: str) -> list[str]:
        query = Search(text=word, vector=b"", scope=Scope(), limit=99, now_ms=NOW_MS)
        reply: Found = await self.supervisor.ask(self.vault, query, timeout_s=30)
        return [hit.memory.content for hit in reply.hits if word in hit.memory.content.split()]

    async def covered(self) -> int:
        """How many memories a hydration would take from the imprint."""
        image = await self.store.load_vault(self.vault, model_id="none")
        keeper = ImprintKeeper(self.vault, self.store, memories_min=1)
        vault = Vault(dims=8, repeat_window_ms=1, relevance_min=0.2)
        await load_memories(vault, image, keeper, repeat_window_ms=1)
        assert vault.memories == len(image.memories)
        return keeper.covered


@asynccontextmanager
async def open_house(data_dir: Path) -> AsyncIterator[House]:
    async with (
        open_store(data_dir, settings=StoreSettings(shards=1, ballast_bytes=0)) as store,
        open_embedder(HashEmbedding()) as embedder,
        open_supervisor(store, embedder, VaultSettings(), LIMITS, drain_timeout_s=30) as supervisor,
    ):
        key_hash = b"k" * 32
        principal = await store.find_key(key_hash)
        if principal is None:
            principal = await store.create_account(key_hash=key_hash, shown="mk_", created_ms=1)
        yield House(store, supervisor, principal.vault)


def imprints(data_dir: Path) -> list[Path]:
    return [path for path in (data_dir / "snap").rglob("imprint") if path.is_file()]


async def wait_written(data_dir: Path) -> None:
    with trio.fail_after(60):
        while not imprints(data_dir):
            await trio.lowlevel.checkpoint()


async def test_a_vault_that_leaves_memory_has_an_imprint_and_comes_back_by_it(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.remember(*TEXTS[: LEAST + 1])
        await house.settle()
        assert imprints(tmp_path) == []
    assert len(imprints(tmp_path)) == 1
    async with open_house(tmp_path) as house:
        assert await house.covered() == LEAST + 1
        await house.remember("a newcomer speaks")
        for number in range(LEAST + 1):
            assert await house.found(f"word{number}") == [TEXTS[number]]
        assert await house.found("newcomer") == ["a newcomer speaks"]


async def test_a_small_vault_has_none(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.remember(*TEXTS[: LEAST - 1])
    assert imprints(tmp_path) == []


async def test_a_vault_in_use_is_written_when_much_has_come(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.remember(*TEXTS)
        await wait_written(tmp_path)
        assert await house.found("word3") == [TEXTS[3]]


@pytest.mark.parametrize("harm", ["flipped", "cut", "empty", "gone"])
async def test_a_damaged_imprint_costs_nothing_but_time(tmp_path: Path, harm: str) -> None:
    async with open_house(tmp_path) as house:
        await house.remember(*TEXTS)
        await house.settle()
    (path,) = imprints(tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes({"flipped": bytes(data), "cut": bytes(data[:-9])}.get(harm, b""))
    if harm == "gone":
        path.unlink()
    async with open_house(tmp_path) as house:
        assert await house.covered() == 0
        assert [await house.found(f"word{number}") for number in (0, 15)] == [[TEXTS[0]], [TEXTS[15]]]
    assert len(imprints(tmp_path)) == 1, "and it was made anew"


async def test_a_deleted_session_is_in_no_imprint(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.remember(*TEXTS)
        await house.remember("secretword alone", session_id="s")
        await wait_written(tmp_path)
        await house.supervisor.ask(house.vault, Forget(session_id="s"), timeout_s=30)
        assert await house.found("secretword") == []
    async with open_house(tmp_path) as house:
        data = await house.store.load_imprint(house.vault)
        assert data is not None
        assert b"word3" in data
        assert b"secretword" not in data
        assert await house.found("secretword") == []


async def test_an_imprint_that_knows_what_the_log_has_lost_is_removed_at_hydration(tmp_path: Path) -> None:
    """As after a crash: the rows are gone, and whoever deleted them could do no more."""
    gone, kept = 2, 3
    async with open_house(tmp_path) as house:
        await house.remember(*TEXTS)
        await house.settle()
    async with open_house(tmp_path) as house:
        await house.store.delete_memories(house.vault, [gone + 1])
        assert await house.covered() == 0
        assert imprints(tmp_path) == []
        assert await house.found(f"word{gone}") == []
        assert await house.found(f"word{kept}") == [TEXTS[kept]]


async def test_an_erased_vault_leaves_no_imprint(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.remember(*TEXTS)
        await wait_written(tmp_path)
        await house.supervisor.erase(house.vault)
    async with open_house(tmp_path):
        pass
    assert imprints(tmp_path) == []


def a_vault(memories: int) -> Vault:
    vault = Vault(dims=8, repeat_window_ms=1, relevance_min=0.2)
    exchange = Exchange(
        messages=tuple(Message(role="user", content=text) for text in TEXTS[:memories]), source="upload", accepted_ms=1
    )
    row = InboxRow(1, exchange)
    for message in vault.begin_row(row):
        vault.add(row, message, analyse(message, HashEmbedding(dims=8), 200))
    vault.end_row(row)
    return vault


class SlowStore:
    """A store whose imprints take time: `save_imprint` waits to be let on, and ends when it is cancelled."""

    def __init__(self) -> None:
        self.imprint: bytes | None = None
        self.begun = trio.Event()
        self.go_on = trio.Event()
        self.given_up = 0

    async def load_imprint(self, vault: VaultRef) -> bytearray | None:
        await self.go_on.wait()
        return None if self.imprint is None else bytearray(self.imprint)

    async def save_imprint(self, vault: VaultRef, parts: Sequence[memoryview]) -> None:
        self.begun.set()
        try:
            await self.go_on.wait()
        except trio.Cancelled:
            self.given_up += 1
            raise
        self.imprint = b"".join(parts)

    async def remove_imprint(self, vault: VaultRef) -> None:
        await trio.lowlevel.checkpoint()
        self.imprint = None


class Stand:
    """What the keeper sees of a vault of any size, with an imprint of a few memories."""

    def __init__(self, memories: int) -> None:
        self.memories = self.placed = memories
        self.copies = 0

    def imprint_source(self) -> ImprintSource:
        self.copies += 1
        return a_vault(9).imprint_source()


NOWHERE = VaultRef(number=VaultNumber(1), shard=0)


def a_keeper(store: SlowStore) -> ImprintKeeper:
    return ImprintKeeper(NOWHERE, cast(VaultStore, store), memories_min=1)


async def test_a_removal_ends_the_write_under_way_instead_of_waiting_for_it(mock_clock: MockClock) -> None:
    """And nothing is written for a while: more may be deleted, and each deletion would have it overwritten."""
    store = SlowStore()
    keeper = a_keeper(store)
    async with keeper.running():
        keeper.keep_nowait(Stand(9))
        await store.begun.wait()
        await keeper.remove()
        assert (store.given_up, store.imprint, keeper.covered) == (1, None, 0)
        store.go_on.set()
        resting = Stand(9)
        keeper.keep_nowait(resting)
        assert resting.copies == 0
        mock_clock.jump(REST_S)
        keeper.keep_nowait(Stand(9))
        while keeper.covered != 9:
            await trio.lowlevel.checkpoint()
    assert store.imprint is not None


async def test_a_request_before_the_keeper_runs_is_not_lost() -> None:
    """As at the end of the first hydration of a large vault, after which it may only be read."""
    store = SlowStore()
    store.go_on.set()
    keeper = a_keeper(store)
    vault = Stand(9)
    keeper.keep_nowait(vault)
    keeper.keep_nowait(vault)
    assert vault.copies == 1
    async with keeper.running():
        with trio.fail_after(60):
            while keeper.covered != 9:
                await trio.lowlevel.checkpoint()


async def test_a_request_beside_a_write_is_not_lost() -> None:
    store = SlowStore()
    keeper = a_keeper(store)
    async with keeper.running():
        keeper.keep_nowait(Stand(9))
        await store.begun.wait()
        keeper.keep_nowait(Stand(100))
        store.go_on.set()
        with trio.fail_after(60):
            while keeper.covered != 100:
                await trio.lowlevel.checkpoint()


async def test_a_copy_that_waits_is_not_written_after_a_removal(mock_clock: MockClock) -> None:
    store = SlowStore()
    store.go_on.set()
    keeper = a_keeper(store)
    vault = Stand(9)
    keeper.keep_nowait(vault)
    await keeper.remove()
    async with keeper.running():
        await wait_all_tasks_blocked()
        assert (store.begun.is_set(), keeper.covered) == (False, 0)
        mock_clock.jump(REST_S)
        keeper.keep_nowait(vault)
        await store.begun.wait()


async def test_reading_a_large_imprint_may_take_as_long_as_its_size_needs(mock_clock: MockClock) -> None:
    for memories, waited_s, expected in ((9, 11, None), (1_000_000, 150, bytearray(b"all of it"))):
        store = SlowStore()
        store.imprint = b"all of it"
        keeper = a_keeper(store)
        loaded: list[bytearray | None] = []

        async def load(keeper: ImprintKeeper = keeper, memories: int = memories) -> None:
            loaded.append(await keeper.load(memories))  # noqa: B023

        async with trio.open_nursery() as children:
            children.start_soon(load)
            await wait_all_tasks_blocked()
            mock_clock.jump(waited_s)
            await wait_all_tasks_blocked()
            store.go_on.set()
        assert loaded == [expected]


async def test_a_write_that_takes_too_long_is_given_up_and_asked_for_again_when_the_vault_leaves(
    mock_clock: MockClock,
) -> None:
    store = SlowStore()
    keeper = a_keeper(store)
    vault = Stand(9)
    async with keeper.running():
        keeper.keep_nowait(vault)
        await store.begun.wait()
        mock_clock.jump(patience_s(size_bytes=0) - 1)
        await wait_all_tasks_blocked()
        assert store.given_up == 0
        mock_clock.jump(2)
        await wait_all_tasks_blocked()
        assert (store.given_up, keeper.covered) == (1, 0)
        keeper.keep_nowait(vault)
        assert vault.copies == 1, "not at once again"
    store.go_on.set()
    await keeper.finish(vault)
    assert keeper.covered == 9


def test_patience_grows_with_the_size() -> None:
    assert patience_s() == 10
    assert patience_s(memories=1_000_000) >= 200
    assert patience_s(size_bytes=200_000_000) >= 190


async def test_what_was_copied_before_a_removal_is_not_written_after_it() -> None:
    """A deletion meets a write that is under way."""
    async with open_memory_store() as store:
        vault = (await store.create_account(key_hash=b"k", shown="mk_", created_ms=1)).vault
        keeper = ImprintKeeper(vault, store, memories_min=1)
        async with keeper.running():
            keeper.keep_nowait(a_vault(9))
            await keeper.remove()
            await wait_all_tasks_blocked()
            assert await store.load_imprint(vault) is None
            assert keeper.covered == 0
        await keeper.finish(a_vault(9))
        assert await store.load_imprint(vault) is not None
        assert keeper.covered == 9


async def test_a_store_that_fails_costs_the_vault_nothing() -> None:
    async with open_memory_store() as store:
        keeper = ImprintKeeper(
            VaultRef(number=VaultNumber(99), shard=0), store, memories_min=1
        )  # there is no such vault
        assert await keeper.load(5) is None
        await keeper.finish(a_vault(9))
        await keeper.remove()
