"""Every single write and sync of a scripted life fails once, and the power goes after every one of them.

The script accepts, materialises, deletes, rewrites, shreds, checkpoints and reopens. Whatever breaks: nothing
acknowledged is lost, nothing is there twice, nothing deleted comes back, and the directory opens again. A stride
through all of it in every run; MEMORYROUTER_TEST_LONG=1 leaves nothing out.
"""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from actors.store.sqlite import SqliteStore, open_store
from models.errors import MemoryRouterError, SetupError
from models.ids import VaultRef, hash_key
from models.store_settings import StoreSettings
from tests.actors.store.samples import MODEL, memory, new_account, new_vault, revoke, step, stored, texts_of
from tests.campaigns.moments import LONG
from tests.fakes.disk import Cut, Fate, FaultyDisk, Recording

SETTINGS = StoreSettings(shards=1, ballast_bytes=0, scrub_interval_s=0)
KEPT, DOOMED = "mk_kept", "mk_doomed"
SIDE_FILES = ("hwm/meta", "hwm/shard-00", "erasure.log", "server.key")
STRIDE_OF_CUTS = 1 if LONG else 5
STRIDE_OF_FAULTS = 1 if LONG else 7


class Promises(msgspec.Struct, frozen=True):
    """What was promised so far: texts by the key of their vault."""

    tried: frozenset[tuple[str, str]] = frozenset()
    kept: frozenset[tuple[str, str]] = frozenset()
    deleting: frozenset[tuple[str, str]] = frozenset()
    deleted: frozenset[tuple[str, str]] = frozenset()
    rewritten: frozenset[tuple[str, str, str]] = frozenset()
    revoked: bool = False


class Life:
    """The script, and what it promised. Steps that fail promise nothing, and the next one goes on."""

    def __init__(self) -> None:
        self.promises = Promises()
        self.failures = 0

    def _note(self, **changes: object) -> None:
        self.promises = msgspec.structs.replace(self.promises, **changes)

    async def _try(self, action: Awaitable[object]) -> bool:
        try:
            await action
        except MemoryRouterError:
            self.failures += 1
            return False
        return True

    async def accept(self, store: SqliteStore, key: str, *texts: str) -> None:
        entries = frozenset((key, text) for text in texts)
        vault = await vault_of(store, key)
        self._note(tried=self.promises.tried | entries)
        if await self._try(stored(store, vault, *texts)):
            self._note(kept=self.promises.kept | entries)

    async def materialise(self, store: SqliteStore, key: str) -> None:
        vault = await vault_of(store, key)
        image = await store.load_vault(vault, model_id=MODEL)
        first = image.next_seq
        memories = [memory(first + place, row.exchange.messages[0].content) for place, row in enumerate(image.inbox)]
        rows = tuple(row.row_id for row in image.inbox)
        await self._try(store.materialise(vault, step(rows, *memories, next_seq=first + len(memories))))

    async def delete(self, store: SqliteStore, key: str, text: str) -> None:
        vault = await vault_of(store, key)
        image = await store.load_vault(vault, model_id=MODEL)
        seqs = [found.seq for found in image.memories if found.content == text]
        self._note(deleting=self.promises.deleting | {(key, text)})
        if seqs and await self._try(store.delete_memories(vault, seqs)):
            self._note(deleted=self.promises.deleted | {(key, text)})

    async def rewrite(self, store: SqliteStore, key: str, old: str, new: str) -> None:
        vault = await vault_of(store, key)
        image = await store.load_vault(vault, model_id=MODEL)
        seqs = [found.seq for found in image.memories if found.content == old]
        if not seqs:
            return
        tried, deleting = self.promises.tried | {(key, new)}, self.promises.deleting | {(key, old)}
        self._note(tried=tried, deleting=deleting, rewritten=self.promises.rewritten | {(key, old, new)})
        if await self._try(store.rewrite_memory(vault, seqs[0], memory(image.next_seq, new))):
            self._note(kept=self.promises.kept | {(key, new)}, deleted=self.promises.deleted | {(key, old)})

    async def shred(self, store: SqliteStore, key: str) -> None:
        vault = await vault_of(store, key)
        entries = frozenset(entry for entry in self.promises.tried if entry[0] == key)
        self._note(deleting=self.promises.deleting | entries)
        if await self._try(store.replace_vault(vault)):
            self._note(deleted=self.promises.deleted | entries)

    async def revoke(self, store: SqliteStore, key: str) -> None:
        found = await store.find_key(hash_key(key))
        assert found is not None
        if await self._try(revoke(store, found, now_ms=5)):
            self._note(revoked=True)

    async def live(self, data_dir: Path) -> None:
        """The whole script. An error outside the steps' own promises ends a session; the next one begins."""
        for session in (self._first_session, self._second_session):
            try:
                async with open_store(data_dir, settings=SETTINGS) as store:
                    await session(store)
            except MemoryRouterError:  # loud: a refusal to open, or a read that failed
                self.failures += 1

    async def _first_session(self, store: SqliteStore) -> None:
        await self.accept(store, KEPT, "a1", "a2")
        await self.accept(store, DOOMED, "b1")
        await self.materialise(store, KEPT)
        await self.accept(store, KEPT, "a3")
        await self.delete(store, KEPT, "a1")
        await self.rewrite(store, KEPT, "a2", "a2 changed")
        await self.materialise(store, DOOMED)
        await self.shred(store, DOOMED)
        await self.accept(store, DOOMED, "b2")

    async def _second_session(self, store: SqliteStore) -> None:
        await self.materialise(store, KEPT)
        await self.accept(store, KEPT, "a4")
        await self.revoke(store, "mk_revoked")


async def vault_of(store: SqliteStore, key: str) -> VaultRef:
    """The vault that a key opens."""
    found = await store.find_key(hash_key(key))
    assert found is not None
    return found.vault


async def check(data_dir: Path, promises: Promises, what: str) -> None:
    """Open the directory with a healthy disk, and compare."""
    async with open_store(data_dir, settings=SETTINGS) as store:
        assert store.statistics()["shards_damaged"] == 0, what
        for key in (KEPT, DOOMED):
            vault = await vault_of(store, key)
            image = await store.load_vault(vault, model_id=MODEL)
            assert image.damaged == 0, what
            memories, inbox = await texts_of(store, vault)
            found = memories + inbox
            assert len(found) == len(set(found)), f"{what}: twice: {found}"
            entries = {(key, text) for text in found}
            expected = {entry for entry in promises.kept - promises.deleting if entry[0] == key}
            assert expected <= entries, f"{what}: lost {expected - entries}"
            for owner, old, new in promises.rewritten:
                if owner == key and (key, old) in promises.kept:
                    assert ((key, old) in entries) != ((key, new) in entries), f"{what}: neither, or both"
            assert entries <= promises.tried - promises.deleted, f"{what}: came back: {entries & promises.deleted}"
            await stored(store, vault, "it works again")
        if promises.revoked:
            assert await store.find_key(hash_key("mk_revoked")) is None, what


@pytest.fixture
async def beginning(tmp_path: Path) -> Path:
    """A data directory with three keys and nothing else."""
    data_dir = tmp_path / "beginning"
    async with open_store(data_dir, settings=SETTINGS) as store:
        await new_account(store)
        for key in (KEPT, DOOMED, "mk_revoked"):
            await new_vault(store, key)
    return data_dir


@pytest.fixture
def disk() -> Iterator[FaultyDisk]:
    """The disk that everything in this process is on, from now on and until the test is over."""
    disk = FaultyDisk("enumerated", default=True)
    yield disk
    disk.unregister()


@contextmanager
def a_copy(beginning: Path, name: str) -> Iterator[Path]:
    """A copy of the data directory, for one run."""
    target = beginning.parent / name
    shutil.copytree(beginning, target)
    yield target
    shutil.rmtree(target)


async def operations_of_a_life(beginning: Path, disk: FaultyDisk) -> int:
    """How many operations the script takes on a healthy disk."""
    with a_copy(beginning, "counted") as data_dir:
        life = Life()
        disk.operations = 0
        await life.live(data_dir)
        assert life.failures == 0
        assert len(life.promises.kept) == 7
        assert life.promises.revoked
        operations = disk.operations
        await check(data_dir, life.promises, "healthy")
    return operations


@pytest.mark.parametrize("fate", ["failed", "torn", "full"])
async def test_any_one_operation_may_fail(beginning: Path, disk: FaultyDisk, fate: Fate) -> None:
    total = await operations_of_a_life(beginning, disk)
    assert total > 100
    failures = 0
    first = {"failed": 1, "torn": 5, "full": 9}[fate]
    for number in range(first, total + 1, STRIDE_OF_FAULTS):
        with a_copy(beginning, "run") as data_dir:
            life = Life()
            disk.fail_at(number, fate)
            await life.live(data_dir)
            disk.heal()
            failures += life.failures
            assert not disk.used_after_failure, f"a handle was used after its sync had failed, at {number}"
            await check(data_dir, life.promises, f"{fate} at {number} of {total}")
    assert failures, "no fault was ever noticed: the plan did not work"


async def test_a_disk_may_fail_for_good_at_any_operation(beginning: Path, disk: FaultyDisk) -> None:
    total = await operations_of_a_life(beginning, disk)
    failures = 0
    for number in range(7, total + 1, STRIDE_OF_FAULTS):
        with a_copy(beginning, "run") as data_dir:
            life = Life()
            disk.operations = 0
            disk.plan = lambda operation, number=number: "done" if operation.number < number else "failed"  # type: ignore[misc]  # a default binds the loop's value
            await life.live(data_dir)
            disk.heal()
            failures += life.failures
            assert not disk.used_after_failure
            await check(data_dir, life.promises, f"dead from {number} of {total}")
    assert failures > total / STRIDE_OF_FAULTS / 2, "most of these disks die in the middle of a step"


async def test_the_power_may_go_after_any_operation(beginning: Path, disk: FaultyDisk) -> None:
    with a_copy(beginning, "recorded") as data_dir:
        life = Life()
        sides = [data_dir / name for name in SIDE_FILES]
        disk.recording = recording = Recording(data_dir, promise=lambda: life.promises, side_files=sides)
        await life.live(data_dir)
        disk.recording = None
        assert life.failures == 0
        total = len(recording.moments)
        assert total > 100
        cuts: tuple[Cut, ...] = ("synced", "written", "torn", "shuffled")
        for place, cut in enumerate(cuts):
            for moment in range(place, total, STRIDE_OF_CUTS):
                target = beginning.parent / "after"
                target.mkdir()
                recording.power_cut(moment, cut, target, seed=moment)
                promises = recording.moments[moment]
                assert isinstance(promises, Promises)
                await check(target, promises, f"power cut ({cut}) after {moment} of {total}")
                shutil.rmtree(target)


async def test_the_campaign_would_notice_a_lost_write(beginning: Path, disk: FaultyDisk) -> None:
    """Proof of the checker: a disk that says it synced and did not loses what was acknowledged."""
    with a_copy(beginning, "recorded") as data_dir:
        life = Life()
        disk.recording = recording = Recording(data_dir, promise=lambda: life.promises, side_files=[])
        await life.live(data_dir)
        disk.recording = None
        lying = [operation for operation in recording._operations if operation.kind != "sync"]
        recording._operations, recording._sides = lying, [{} for _ in lying]
        target = beginning.parent / "after"
        target.mkdir()
        shutil.copy(data_dir / "server.key", target)
        recording.power_cut(len(lying) - 1, "synced", target)
        with pytest.raises((AssertionError, SetupError)):
            await check(target, life.promises, "lying disk")
