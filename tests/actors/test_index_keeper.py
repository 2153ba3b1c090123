"""The index of a large vault: built beside the turns, kept on the disk, rebuilt when the disk lies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import trio

from actors.embedder import open_embedder
from actors.index_keeper import IndexKeeper
from actors.mailbox import Mailbox
from actors.segments import BuildJob, Segment
from actors.store.sqlite import open_store
from actors.supervisor import Supervisor, open_supervisor
from actors.vault_actor import VaultLimits
from models.ids import VaultRef
from models.memory import Exchange, ImportedVectors, Message
from models.messages import Built, Found, Page, Paged, Scope, Search, Stats, VaultStats
from models.settings import VaultSettings
from models.store_settings import StoreSettings
from tests.actors.house import segments_are_saved
from tests.fakes.embedding import HashEmbedding
from tests.patience import PATIENCE_S

ENCODER = HashEmbedding()
LIMITS = VaultLimits(hnsw_threshold=16)
TEXTS = [f"word{number} stands alone in note {number}" for number in range(60)]


class House:
    def __init__(self, supervisor: Supervisor, vault: VaultRef) -> None:
        self._supervisor = supervisor
        self._vault = vault

    async def remember(self, *messages: Message) -> None:
        exchange = Exchange(messages=messages, source="import", accepted_ms=1_790_000_000_000)
        with await self._supervisor.pin(self._vault) as pin:
            await pin.submit([exchange]).wait_applied(timeout_s=PATIENCE_S)

    async def stats(self) -> VaultStats:
        counted: VaultStats = await self._supervisor.ask(self._vault, Stats(), timeout_s=PATIENCE_S)
        return counted

    async def wait_sealed(self) -> VaultStats:
        """Until everything is embedded and nothing is left to build."""
        with trio.fail_after(PATIENCE_S):
            while True:
                counted = await self.stats()
                if not counted.pending and counted.index["sealed"] and not counted.index["building"]:
                    return counted

    async def best(self, text: str) -> str:
        vector = ENCODER.encode([text])[0].astype("<f4").tobytes()
        query = Search(text="", vector=vector, scope=Scope(), limit=1, now_ms=0)
        found: Found = await self._supervisor.ask(self._vault, query, timeout_s=PATIENCE_S)
        return found.hits[0].memory.content

    async def page(self, after_seq: int, limit: int) -> Paged:
        paged: Paged = await self._supervisor.ask(self._vault, Page(after_seq, limit), timeout_s=PATIENCE_S)
        return paged


@asynccontextmanager
async def open_house(data_dir: Path) -> AsyncIterator[House]:
    async with (
        open_store(data_dir, settings=StoreSettings(shards=1, ballast_bytes=0)) as store,
        open_embedder(ENCODER) as embedder,
        open_supervisor(store, embedder, VaultSettings(), LIMITS, drain_timeout_s=PATIENCE_S) as supervisor,
    ):
        key_hash = b"k" * 32
        principal = await store.find_key(key_hash)
        if principal is None:
            principal = await store.create_account(key_hash=key_hash, shown="mk_", created_ms=1)
        yield House(supervisor, principal.vault)


def snapshots(data_dir: Path) -> list[Path]:
    """Files of segments."""
    return [path for path in (data_dir / "snap").rglob("*.*") if path.is_file()]


async def wait_saved(house: House) -> None:
    with trio.fail_after(PATIENCE_S):
        while not segments_are_saved(house._supervisor, house._vault):
            await house.stats()


async def fill(house: House) -> None:
    await house.remember(*(Message(role="user", content=text) for text in TEXTS))
    await house.wait_sealed()


def tasks_of(keeper: IndexKeeper) -> int:
    assert keeper._children is not None
    return len(keeper._children.child_tasks)


def one_job() -> BuildJob:
    return BuildJob(
        [[np.eye(4, dtype=np.float32)]],
        model_id="m",
        dims=4,
        labels=np.arange(4, dtype=np.uint64),
        chunks=np.arange(4, dtype=np.int32),
        merged=[],
    )


@asynccontextmanager
async def a_keeper(data_dir: Path) -> AsyncIterator[tuple[IndexKeeper, Mailbox]]:
    """A keeper that does not run yet, and the mailbox that it posts to."""
    mailbox = Mailbox(messages_max=2, reserved_max=0)
    async with open_store(data_dir, settings=StoreSettings(shards=1, ballast_bytes=0)) as store:
        vault = (await store.create_account(key_hash=b"k", shown="mk_", created_ms=1)).vault
        yield IndexKeeper(vault, store, mailbox, trio.CapacityLimiter(1), model_id="m", dims=4), mailbox


async def next_built(mailbox: Mailbox) -> Segment:
    with trio.fail_after(PATIENCE_S):
        envelope = await mailbox.receive.receive()
    assert isinstance(envelope.message, Built)
    assert isinstance(envelope.message.segment, Segment)
    return envelope.message.segment


async def wait_idle(keeper: IndexKeeper) -> None:
    with trio.fail_after(PATIENCE_S):
        while tasks_of(keeper):
            await trio.lowlevel.checkpoint()


async def test_a_vault_without_segments_has_no_tasks_for_them(tmp_path: Path) -> None:
    """A hundred thousand vaults may be small ones; a task takes 3 kB."""
    async with a_keeper(tmp_path) as (keeper, _), keeper.running():
        keeper.build_nowait(None)
        keeper.keep_nowait(())
        assert tasks_of(keeper) == 0


async def test_tasks_live_as_long_as_there_is_work_and_come_again(tmp_path: Path) -> None:
    async with a_keeper(tmp_path) as (keeper, mailbox), keeper.running():
        segments: list[Segment] = []
        for number in (1, 2):
            keeper.build_nowait(one_job())
            assert tasks_of(keeper) == 1
            segments.append(await next_built(mailbox))
            segments[-1].number = number
            keeper.keep_nowait(segments)
            await wait_idle(keeper)
            assert len(snapshots(tmp_path)) == number


async def test_what_was_asked_for_before_it_ran_is_done_when_it_runs(tmp_path: Path) -> None:
    """Hydration plans builds and changes segments, and the tasks of a vault begin after it."""
    segment = one_job().run()
    assert segment is not None
    segment.number = 1
    async with a_keeper(tmp_path) as (keeper, mailbox):
        keeper.keep_nowait([segment])
        keeper.build_nowait(one_job())
        async with keeper.running():
            await next_built(mailbox)
            await wait_idle(keeper)
            assert len(snapshots(tmp_path)) == 1


async def test_a_segment_that_could_not_be_written_is_written_with_the_next_change(tmp_path: Path) -> None:
    segment = one_job().run()
    assert segment is not None
    segment.number = 1
    async with a_keeper(tmp_path) as (keeper, _), keeper.running():
        folder = tmp_path / "snap"
        moved = folder.rename(tmp_path / "moved") if folder.exists() else None
        folder.write_bytes(b"in the way")
        keeper.keep_nowait([segment])
        await wait_idle(keeper)
        assert not segment.saved
        folder.unlink()
        if moved is not None:
            moved.rename(folder)
        keeper.keep_nowait([segment])
        await wait_idle(keeper)
        assert len(snapshots(tmp_path)) == 1


async def test_a_large_vault_is_sealed_and_answers_the_same(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await fill(house)
        for text in TEXTS[::7]:
            assert await house.best(text) == text


async def test_the_log_says_when_a_build_begins_and_ends_and_how_large_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="actors.index_keeper"):
        async with open_house(tmp_path) as house:
            await fill(house)
    began, ended, *_ = [vars(record) for record in caplog.records if record.message.startswith("index_build_")]
    assert (began["message"], ended["message"]) == ("index_build_started", "index_build_ended")
    assert began["rows"] == ended["rows"] == ended["built"] > 0
    assert ended["seconds"] >= 0


async def test_segments_come_back_from_the_disk(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await fill(house)
        await wait_saved(house)
    async with open_house(tmp_path) as house:
        assert (await house.stats()).index["sealed"] > 0
        assert await house.best(TEXTS[3]) == TEXTS[3]


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
async def test_a_damaged_snapshot_costs_a_rebuild_and_nothing_else(tmp_path: Path, damage: str) -> None:
    async with open_house(tmp_path) as house:
        await fill(house)
        await wait_saved(house)
    for path in snapshots(tmp_path):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes({"flipped": bytes(data), "cut": bytes(data[: len(data) // 2]), "empty": b""}[damage])
    async with open_house(tmp_path) as house:
        assert await house.best(TEXTS[5]) == TEXTS[5]
        assert (await house.wait_sealed()).memories == len(TEXTS)


async def test_imported_vectors_are_used_as_they_are(tmp_path: Path) -> None:
    rows = np.zeros((1, ENCODER.dims), "<f2")
    rows[0, 0] = 1
    embedded = ImportedVectors(model_id=ENCODER.id, spans=((0, 5),), rows=rows.tobytes())
    async with open_house(tmp_path) as house:
        await house.remember(Message(role="user", content="other words", timestamp_ms=5, embedded=embedded))
        assert (await house.stats()).pending == 0
        paged = await house.page(0, 10)
    assert paged.vectors == {1: rows.tobytes()}
    assert paged.memories[0].spans == ((0, 5),)


@pytest.mark.parametrize("spans", [((0, 50),), ((5, 2),), ((0, 3), (2, 5)), ()])
async def test_vectors_that_do_not_fit_are_made_anew(tmp_path: Path, spans: tuple[tuple[int, int], ...]) -> None:
    rows = np.ones((max(1, len(spans)), ENCODER.dims), "<f2").tobytes()
    embedded = ImportedVectors(model_id=ENCODER.id, spans=spans, rows=rows)
    async with open_house(tmp_path) as house:
        await house.remember(Message(role="user", content="other words", timestamp_ms=5, embedded=embedded))
        with trio.fail_after(PATIENCE_S):
            while (await house.stats()).pending:
                pass
        assert (await house.page(0, 10)).memories[0].spans == ((0, 11),)


async def test_pages_cover_a_vault_once(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.remember(*(Message(role="user", content=text) for text in TEXTS))
        seen: list[str] = []
        after_seq = 0
        while (page := await house.page(after_seq, 7)).memories:
            seen += [memory.content for memory in page.memories]
            after_seq = page.memories[-1].seq
    assert seen == TEXTS


async def test_importing_what_is_there_adds_nothing(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.remember(Message(role="user", content="said without a time"))
        (memory,) = (await house.page(0, 1)).memories
        await house.remember(Message(role="user", content=memory.content, timestamp_ms=memory.timestamp_ms))
        assert (await house.stats()).memories == 1
