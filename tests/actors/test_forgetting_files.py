"""What a deletion leaves on the disk of a large vault: no vector of what is gone, at whatever step it breaks off."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.embedder import open_embedder
from actors.index_keeper import MEND_AFTER_S, IndexKeeper
from actors.mailbox import Mailbox
from actors.segments import BuildJob, Segment
from actors.store.protocol import Store, VaultStore
from actors.store.sqlite import open_store
from actors.supervisor import Supervisor, open_supervisor
from actors.vault_actor import VaultLimits
from models.errors import VaultUnavailable
from models.ids import VaultNumber, VaultRef
from models.memory import Exchange, Message
from models.messages import (
    ChangeMemory,
    ForgetMatching,
    ForgetMemory,
    ListMemories,
    MemoryChange,
    Mend,
    Page,
    Paged,
    Scope,
    Search,
    Stats,
)
from models.selection import MemoryFilter
from models.settings import VaultSettings
from models.store_settings import StoreSettings
from tests.actors.house import segments_are_saved
from tests.fakes.embedding import HashEmbedding
from tests.patience import PATIENCE_S

ENCODER = HashEmbedding()
LIMITS = VaultLimits(hnsw_threshold=16, imprint_memories_min=10)
TEXTS = [f"word{number} stands alone in note {number}" for number in range(60)]


class Stumbling:
    """A store that breaks down once, before or after it does what it is asked for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.breaks: tuple[str, str] | None = None

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._store, name)
        if self.breaks is None or self.breaks[0] != name:
            return function

        async def broken(*args: Any, **named: Any) -> Any:
            assert self.breaks is not None
            moment, self.breaks = self.breaks[1], None
            if moment == "after":
                await function(*args, **named)
            raise RuntimeError("the power is gone")

        return broken


class House:
    def __init__(self, supervisor: Supervisor, vault: VaultRef, store: Stumbling) -> None:
        self.vault = vault
        self.stumbling = store
        self._supervisor = supervisor

    async def ask(self, message: Any) -> Any:
        return await self._supervisor.ask(self.vault, message, timeout_s=PATIENCE_S)

    async def fill(self) -> None:
        """Store the texts, and wait until they are embedded, sealed and saved."""
        messages = tuple(Message(role="user", content=text) for text in TEXTS)
        exchange = Exchange(messages=messages, source="upload", accepted_ms=1_790_000_000_000)
        with await self._supervisor.pin(self.vault) as pin:
            await pin.submit([exchange]).wait_applied(timeout_s=PATIENCE_S)
        await self.wait_until(lambda stats: not stats.pending and stats.index["sealed"] and not stats.index["building"])

    async def wait_until(self, true: Callable[[Any], Any]) -> None:
        with trio.fail_after(PATIENCE_S):
            while not true(await self.ask(Stats())):
                pass

    async def wait_saved(self, data_dir: Path) -> None:
        """Until the files on the disk are those of the segments, none of them being written."""
        await self.wait_until(
            lambda stats: (
                not stats.index["building"]
                and segments_are_saved(self._supervisor, self.vault)
                and len(segment_files(data_dir)) == stats.index["segments"]
            )
        )

    async def contents(self) -> list[str]:
        listed = await self.ask(ListMemories(MemoryFilter(), limit=1_000, descending=False))
        return [memory.content for memory in listed.memories]

    async def found(self, text: str) -> set[str]:
        """By words and by meaning."""
        vector = ENCODER.encode([f"user: {text}"])[0].astype("<f4").tobytes()
        queries = (
            Search(text=text, vector=b"", scope=Scope(), limit=100, now_ms=0),
            Search(text="", vector=vector, scope=Scope(), limit=100, now_ms=0, model_id=ENCODER.id),
        )
        return {hit.memory.content for query in queries for hit in (await self.ask(query)).hits}

    async def vectors_on_disk(self) -> set[bytes]:
        """Every vector in any segment's file, as the vault's key opens it."""
        loaded = await self.stumbling.load_segments(self.vault, model_id=ENCODER.id, dims=ENCODER.dims)
        return {row.tobytes() for segment in loaded.segments for row in segment.vectors().astype(np.float16)}


@asynccontextmanager
async def open_house(data_dir: Path) -> AsyncIterator[House]:
    async with (
        open_store(data_dir, settings=StoreSettings(shards=1, ballast_bytes=0)) as opened,
        open_embedder(ENCODER) as embedder,
    ):
        store = Stumbling(opened)
        async with open_supervisor(
            cast(Store, store), embedder, VaultSettings(), LIMITS, drain_timeout_s=PATIENCE_S
        ) as supervisor:
            principal = await opened.find_key(b"k" * 32) or await opened.create_account(
                key_hash=b"k" * 32, shown="mk_", created_ms=1
            )
            yield House(supervisor, principal.vault, store)


def segment_files(data_dir: Path) -> list[Path]:
    return [path for path in (data_dir / "snap").rglob("*") if path.is_file() and path.name != "imprint"]


async def vector_of(house: House, number: int) -> bytes:
    """The vector of a memory as the store has it."""
    paged: Paged = await house.ask(Page(after_seq=number - 1, limit=1))
    return paged.vectors[number]


async def test_no_file_has_a_deleted_vector_when_the_deletion_is_answered_nor_afterwards(tmp_path: Path) -> None:
    """Meanwhile the others are found as before; when nothing more is deleted, the segment comes back without it."""
    async with open_house(tmp_path) as house:
        await house.fill()
        await house.wait_saved(tmp_path)
        doomed = await vector_of(house, 3)
        assert doomed in await house.vectors_on_disk(), "the control"
        await house.ask(ForgetMemory(3))
        assert doomed not in await house.vectors_on_disk()
        assert TEXTS[2] not in await house.found(TEXTS[2])
        for text in (TEXTS[0], TEXTS[30]):
            assert text in await house.found(text)
        assert (await house.ask(Stats())).index["building"] == 0, "more may be deleted"
        await house.ask(Mend())
        await house.wait_saved(tmp_path)
        kept = await vector_of(house, 1)
        assert doomed not in await house.vectors_on_disk()
        assert kept in await house.vectors_on_disk()
    async with open_house(tmp_path) as house:
        assert TEXTS[2] not in await house.found(TEXTS[2])
        assert doomed not in await house.vectors_on_disk()


async def test_a_changed_text_leaves_no_vector_of_the_old_one(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.fill()
        await house.wait_saved(tmp_path)
        doomed = await vector_of(house, 3)
        await house.ask(ChangeMemory(3, MemoryChange(content="a parrot flew away"), now_ms=1))
        assert doomed not in await house.vectors_on_disk()
        assert await house.found(TEXTS[2]) & {TEXTS[2]} == set()
        await house.wait_until(lambda stats: not stats.pending)
        assert "a parrot flew away" in await house.found("a parrot flew away")


STEPS = [
    ("remove_imprint", "before"), ("remove_imprint", "after"), ("prune_segments", "before"),
    ("prune_segments", "after"), ("delete_memories", "before"), ("delete_memories", "after"),
]  # fmt: skip


@pytest.mark.parametrize("step", STEPS, ids=" ".join)
async def test_a_deletion_that_breaks_off_leaves_each_memory_whole_or_gone(
    tmp_path: Path, step: tuple[str, str]
) -> None:
    """And asking again deletes what is left."""
    async with open_house(tmp_path) as house:
        await house.fill()
        await house.wait_saved(tmp_path)  # or the step that breaks is one of the keeper's
        house.stumbling.breaks = step
        doomed = set(TEXTS[10:20])
        wanted = MemoryFilter(words="note")
        with pytest.raises(VaultUnavailable):
            await house.ask(ForgetMatching(wanted, after_seq=10, last_seq=20))
        left = set(await house.contents())
        assert left in (set(TEXTS), set(TEXTS) - doomed)
        assert (left == set(TEXTS)) is (step != ("delete_memories", "after"))
        for text in (TEXTS[12], TEXTS[40]):
            assert (text in await house.found(text)) is (text in left)
        await house.ask(ForgetMatching(wanted, after_seq=10, last_seq=20))
        assert set(await house.contents()) == set(TEXTS) - doomed
    async with open_house(tmp_path) as house:
        assert set(await house.contents()) == set(TEXTS) - doomed
        assert await house.found(TEXTS[12]) & doomed == set()


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_change_that_breaks_off_leaves_the_old_or_the_new(tmp_path: Path, moment: str) -> None:
    async with open_house(tmp_path) as house:
        await house.fill()
        await house.wait_saved(tmp_path)
        house.stumbling.breaks = ("rewrite_memory", moment)
        change = ChangeMemory(3, MemoryChange(content="a parrot flew away"), now_ms=1)
        with pytest.raises(VaultUnavailable):
            await house.ask(change)
        contents = set(await house.contents())
        assert len(contents) == len(TEXTS)
        assert ("a parrot flew away" in contents) is (TEXTS[2] not in contents) is (moment == "after")
        await house.ask(change)
        assert set(await house.contents()) == {*TEXTS, "a parrot flew away"} - {TEXTS[2]}


class Files:
    """The store as a keeper of segments sees it: which are on the disk."""

    def __init__(self) -> None:
        self.on_disk: set[int] = set()

    async def save_segment(self, vault: VaultRef, segment: Segment) -> None:
        await trio.lowlevel.checkpoint()
        self.on_disk.add(segment.number)

    async def prune_segments(self, vault: VaultRef, *, keep: list[int]) -> None:
        await trio.lowlevel.checkpoint()
        self.on_disk &= set(keep)


def a_segment(number: int, first: int) -> Segment:
    segment = BuildJob(
        [[np.eye(4, dtype=np.float32)]],
        model_id="m",
        dims=4,
        labels=np.arange(first, first + 4, dtype=np.uint64),
        chunks=np.arange(first, first + 4, dtype=np.int32),
        merged=[],
    ).run()
    assert segment is not None
    segment.number = number
    return segment


async def test_many_deletions_are_mended_once_when_they_have_ended(mock_clock: MockClock) -> None:
    """Each begins the wait anew."""
    mailbox, files = Mailbox(messages_max=8, reserved_max=0), Files()
    vault = VaultRef(number=VaultNumber(1), shard=0)
    store = cast(VaultStore, files)
    keeper = IndexKeeper(vault, store, mailbox, trio.CapacityLimiter(1), model_id="m", dims=4)
    segments = [a_segment(1, 0), a_segment(2, 4)]
    async with keeper.running():
        keeper.keep_nowait(segments)
        await wait_all_tasks_blocked()
        assert files.on_disk == {1, 2}
        for row in range(3):
            async with keeper.forgetting([segments[0]], timeout_s=1):
                assert files.on_disk == {2}
                segments[0].bury(np.array([row]))
            keeper.keep_nowait(segments)
            mock_clock.jump(MEND_AFTER_S - 1)
            await wait_all_tasks_blocked()
            assert mailbox.waiting == 0
            assert files.on_disk == {2}
        mock_clock.jump(1)
        await wait_all_tasks_blocked()
        envelope = mailbox.receive.receive_nowait()
        assert envelope.message == Mend()
        keeper.keep_nowait(segments)
        mock_clock.jump(10 * MEND_AFTER_S)
        await wait_all_tasks_blocked()
        assert mailbox.waiting == 0


async def test_a_deletion_that_failed_has_its_segments_saved_again() -> None:
    """They are clean still, and off the disk."""
    mailbox, files = Mailbox(messages_max=8, reserved_max=0), Files()
    store = cast(VaultStore, files)
    vault = VaultRef(number=VaultNumber(1), shard=0)
    keeper = IndexKeeper(vault, store, mailbox, trio.CapacityLimiter(1), model_id="m", dims=4)
    segments = [a_segment(1, 0)]
    async with keeper.running():
        keeper.keep_nowait(segments)
        await wait_all_tasks_blocked()
        async with keeper.forgetting(segments, timeout_s=1):
            assert files.on_disk == set()
        keeper.keep_nowait(segments)
        await wait_all_tasks_blocked()
        assert files.on_disk == {1}
