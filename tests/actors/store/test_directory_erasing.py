"""What the directory erases is in no file afterwards, and no restored backup, older file or crash brings it back."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import apsw
import pytest

from actors.store.committer import Committer
from actors.store.doctor import verify
from actors.store.ledger import LedgerFile, key_id, read_ledger
from actors.store.restore import restore
from actors.store.sqlite import SqliteStore, open_store
from models.accounts import OPERATOR, Actor, KeyChange
from models.errors import NotFound, StoreUnavailable
from models.ids import hash_key
from tests.actors.store.conftest import Clock
from tests.actors.store.harm import SETTINGS, captured, copy_running, query
from tests.actors.store.samples import new_account, new_vault, remembered, stored, texts_of

OWNER = Actor("key:1", account_number=1)
NOW_MS = 1_700_000_000_000
SECRET = "sk-proj-{}-do-not-write-me-down"


async def put(store: SqliteStore, provider: str, number: int = 0, *, account: int = 1) -> None:
    """Store a provider's key."""
    await store.put_provider_key(account, provider, SECRET.format(number), now_ms=NOW_MS, by=OWNER)


async def provider_key(store: SqliteStore, provider: str, *, account: int = 1) -> str | None:
    """What is stored, in the clear."""
    found = await store.find_provider_key(account, provider)
    return None if found is None else found.reveal()


def sealed_keys(data_dir: Path) -> dict[str, bytes]:
    """The sealed key of every provider."""
    rows = query(
        data_dir / "meta.db",
        "SELECT provider, sealed FROM provider_key JOIN provider_secret ON provider_key = number",
    )
    return {str(provider): bytes(sealed) for provider, sealed in rows if isinstance(sealed, bytes)}


def files_with(data_dir: Path, needle: bytes) -> list[str]:
    """Names of files that hold it."""
    return [name for name, content in captured(data_dir).items() if needle in content]


class Everything:
    """A directory with one of each thing that can be erased, and what is erased of it."""

    keys = ("mk_deleted", "mk_with_vault", "mk_rotated", "mk_kept", "mk_vault", "mk_emptied", "mk_cut")

    def __init__(self) -> None:
        self.vaults: dict[str, int] = {}

    async def fill(self, store: SqliteStore) -> None:
        """Two accounts, keys with a memory each, provider keys."""
        await new_account(store)
        for key in self.keys:
            vault = await new_vault(store, key)
            self.vaults[key] = vault.number
            await remembered(store, vault, f"memory of {key}")
        other = await new_account(store, "mk_gone")
        await stored(store, other.vault, "memory of another account")
        for number, provider in enumerate(("deleted", "replaced", "kept")):
            await put(store, provider, number)
        await put(store, "of another account", 7, account=2)

    async def erase(self, store: SqliteStore) -> None:
        """All that has to stay erased."""
        at = NOW_MS
        numbers = {key: found.key_number for key in self.keys if (found := await store.find_key(hash_key(key)))}
        await store.delete_key(1, numbers["mk_deleted"], now_ms=at, with_vault=False, by=OWNER)
        await store.delete_key(1, numbers["mk_with_vault"], now_ms=at, with_vault=True, by=OWNER)
        for key, new in (("mk_rotated", "mk_new"), ("mk_cut", "mk_newer")):
            made = await store.rotate_key(
                1, numbers[key], key_hash=hash_key(new), shown="", now_ms=at, grace_ms=1000, by=OWNER
            )
        await store.change_key(1, made.number, KeyChange(disabled=True), now_ms=at, by=OWNER)
        await store.delete_key(1, numbers["mk_vault"], now_ms=at, with_vault=False, by=OWNER)
        await store.delete_vault(1, self.vaults["mk_vault"], now_ms=at, by=OWNER)
        emptied = await store.find_key(hash_key("mk_emptied"))
        assert emptied is not None
        await store.replace_vault(emptied.vault)
        await store.delete_provider_key(1, "deleted", now_ms=at, by=OWNER)
        await put(store, "replaced", 10)
        await store.delete_account(2, now_ms=at, by=OPERATOR)

    async def check(self, store: SqliteStore, clock: Clock, *, replaced: str | None) -> None:
        """Nothing of it is back."""
        for key in ("mk_deleted", "mk_with_vault", "mk_vault", "mk_gone", "mk_cut"):
            assert await store.find_key(hash_key(key)) is None
        vaults = {record.vault.number: record.vault for record in await store.list_vaults(1)}
        assert {self.vaults[key] for key in ("mk_with_vault", "mk_vault", "mk_emptied")}.isdisjoint(vaults)
        emptied = await store.find_key(hash_key("mk_emptied"))
        assert emptied is not None
        assert await texts_of(store, emptied.vault) == ([], [])
        for key in ("mk_rotated", "mk_kept"):
            found = await store.find_key(hash_key(key))
            assert found is not None
            assert await texts_of(store, found.vault) == ([f"memory of {key}"], [])
        assert await provider_key(store, "deleted") is None
        assert await provider_key(store, "replaced") == replaced
        assert await provider_key(store, "kept") == SECRET.format(2)
        assert await provider_key(store, "of another account", account=2) is None
        assert [record.number for record in await store.list_accounts()] == [1]
        clock.ms += 1000
        assert await store.find_key(hash_key("mk_rotated")) is None, "its grace period has ended"
        clock.ms -= 1000


@pytest.fixture
async def everything(tmp_path: Path, clock: Clock) -> Everything:
    """The directory `data`, its backup `backup` of before the erasures, and a copy of the older meta.db."""
    made = Everything()
    async with open_store(tmp_path / "data", settings=SETTINGS, now_ms=clock) as store:
        await made.fill(store)
        await store.back_up(tmp_path / "backup")
    shutil.copy(tmp_path / "data" / "meta.db", tmp_path / "older.db")
    async with open_store(tmp_path / "data", settings=SETTINGS, now_ms=clock) as store:
        await made.erase(store)
        await made.check(store, clock, replaced=SECRET.format(10))
    return made


async def test_a_restored_backup_brings_nothing_back(tmp_path: Path, clock: Clock, everything: Everything) -> None:
    data_dir = tmp_path / "data"
    ledger = read_ledger(data_dir / "erasure.log")
    restored = restore(tmp_path / "backup", data_dir, now_ms=clock.ms, replace=True)
    assert (restored.vaults_erased, restored.keys_revoked) == (4, 6)
    assert (restored.accounts_deleted, restored.provider_keys_erased) == (1, 3)
    sealed = sealed_keys(data_dir)
    assert [provider for provider in sealed if any(sealed[provider])] == ["kept"]
    for _ in range(2):
        async with open_store(data_dir, settings=SETTINGS, now_ms=clock) as store:
            await everything.check(store, clock, replaced=None)
            assert await store.find_key(hash_key("mk_new")) is None, "the backup did not know it"
        assert read_ledger(data_dir / "erasure.log").erasures == ledger.erasures
    assert verify(data_dir).findings == ()


async def test_an_older_meta_db_brings_nothing_back(
    tmp_path: Path, clock: Clock, everything: Everything, caplog: pytest.LogCaptureFixture
) -> None:
    data_dir = tmp_path / "data"
    shutil.copy(tmp_path / "older.db", data_dir / "meta.db")  # by hand, without `restore`
    (data_dir / "hwm" / "meta").unlink()
    said = " ".join(finding.what for finding in verify(data_dir).findings)
    for what in ("4 erased vaults", "6 revoked keys", "1 deleted accounts", "3 deleted provider keys"):
        assert f"{what} are live: meta.db is older than the ledger." in said
    async with open_store(data_dir, settings=SETTINGS, now_ms=clock) as store:
        await everything.check(store, clock, replaced=None)
        made = await store.create_account(key_hash=b"next", shown="", created_ms=1)
        assert (made.account_number, made.vault.number > max(everything.vaults.values())) == (3, True)
    assert "4 vaults were shredded and 6 keys revoked again; 1 accounts and 3 provider keys" in caplog.text


async def test_what_only_the_database_knows_goes_into_the_ledger_at_the_next_start(
    tmp_path: Path, clock: Clock, everything: Everything
) -> None:
    ledger = tmp_path / "data" / "erasure.log"
    before = read_ledger(ledger)
    ledger.unlink()  # as crashes between the commits and the ledger leave it
    async with open_store(tmp_path / "data", settings=SETTINGS, now_ms=clock):
        pass
    after = read_ledger(ledger)
    assert (after.vaults, after.keys, after.accounts, after.provider_keys) == (
        before.vaults,
        before.keys,
        before.accounts,
        before.provider_keys,
    )
    rotated = after.keys[key_id(hash_key("mk_rotated"))]
    assert (rotated.rotated, rotated.revoked_ms) == (True, NOW_MS + 1000)
    assert not after.keys[key_id(hash_key("mk_cut"))].rotated, "and what cut its grace period short is kept"
    size_bytes = ledger.stat().st_size
    async with open_store(tmp_path / "data", settings=SETTINGS, now_ms=clock):
        pass
    assert ledger.stat().st_size == size_bytes, "and only once"


async def test_numbers_of_keys_and_accounts_are_not_given_out_twice(
    tmp_path: Path, clock: Clock, everything: Everything
) -> None:
    """Usage and audit entries point to them."""
    data_dir = tmp_path / "data"
    async with open_store(data_dir, settings=SETTINGS, now_ms=clock) as store:
        highest = await store.create_account(key_hash=b"last", shown="", created_ms=1)
    restore(tmp_path / "backup", data_dir, now_ms=clock.ms, replace=True)
    async with open_store(data_dir, settings=SETTINGS, now_ms=clock) as store:
        made = await store.create_account(key_hash=b"next", shown="", created_ms=1)
        assert made.account_number > highest.account_number
        assert made.key_number > highest.key_number


def copied_as_a_crash_leaves_it(data_dir: Path, target: Path) -> Path:
    """A copy of a directory in use. Readers keep the WALs from being emptied meanwhile; purges may write on, so the
    counters, which may know of more than what was copied, are left out.
    """
    readers = [apsw.Connection(str(path)) for path in data_dir.glob("*.db")]
    try:
        for reader in readers:
            reader.execute("BEGIN; SELECT count(*) FROM sqlite_schema").fetchall()
        return copy_running(data_dir, target)
    finally:
        for reader in readers:
            reader.close()
        for counter in target.glob("hwm/*"):
            counter.unlink()


ERASURES: dict[str, Callable[[SqliteStore], Awaitable[object]]] = {
    "delete key": lambda store: store.delete_key(1, 2, now_ms=NOW_MS, with_vault=True, by=OWNER),
    "rotate key": lambda store: store.rotate_key(1, 2, key_hash=b"n", shown="", now_ms=NOW_MS, grace_ms=0, by=OWNER),
    "delete provider key": lambda store: store.delete_provider_key(1, "openai", now_ms=NOW_MS, by=OWNER),
    "replace provider key": lambda store: put(store, "openai", 2),
    "delete account": lambda store: store.delete_account(1, now_ms=NOW_MS, by=OPERATOR),
    "delete vault": lambda store: store.delete_vault(1, 3, now_ms=NOW_MS, by=OWNER),
}


async def small(store: SqliteStore) -> None:
    """One of each, in account 1: key 2 with vault 2, and vault 3 without a key."""
    await new_account(store)
    await new_vault(store, "mk_user")
    await new_vault(store, "mk_kept")
    await store.delete_key(1, 3, now_ms=NOW_MS, with_vault=False, by=OWNER)
    await put(store, "openai", 1)


@pytest.mark.parametrize("erasure", ERASURES)
async def test_an_erasure_without_its_ledger_line_is_not_confirmed(tmp_path: Path, erasure: str) -> None:
    async with open_store(tmp_path, settings=SETTINGS) as store:
        await small(store)
        ledger = tmp_path / "erasure.log"
        ledger.rename(tmp_path / "aside")
        ledger.mkdir()
        with pytest.raises(StoreUnavailable, match="ledger could not be written"):
            await ERASURES[erasure](store)
        ledger.rmdir()
        (tmp_path / "aside").rename(ledger)
        lines = ledger.read_bytes().count(b"\n")
        if erasure.startswith("delete"):
            with pytest.raises(NotFound):  # gone it is, and asking again confirms it
                await ERASURES[erasure](store)
        else:
            await store.delete_key(1, 2, now_ms=NOW_MS, with_vault=False, by=OWNER)
        assert store.statistics()["erasures_owed"] == 0
        assert ledger.read_bytes().count(b"\n") > lines


@pytest.mark.parametrize("erasure", ERASURES)
async def test_a_crash_between_the_commit_and_the_rest_loses_no_erasure(
    tmp_path: Path, erasure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed right after the commit: neither the WAL is emptied nor the ledger written. The next start does both."""
    data_dir = tmp_path / "data"
    async with open_store(data_dir, settings=SETTINGS) as store:
        await small(store)
        sealed = sealed_keys(data_dir)["openai"]
        monkeypatch.setattr(Committer, "truncate_wal", lambda _: None)
        monkeypatch.setattr(LedgerFile, "append", lambda _, erasures: None)
        await ERASURES[erasure](store)
        crashed = copied_as_a_crash_leaves_it(data_dir, tmp_path / "crashed")
        monkeypatch.undo()
    known = len(read_ledger(crashed / "erasure.log").erasures)
    async with open_store(crashed, settings=SETTINGS) as store:
        assert len(read_ledger(crashed / "erasure.log").erasures) > known
        for attempt in ("delete key", "delete provider key", "delete vault"):
            if erasure in (attempt, "delete account"):
                with pytest.raises(NotFound):
                    await ERASURES[attempt](store)
        if erasure in ("delete provider key", "replace provider key", "delete account"):
            assert files_with(crashed, sealed) == []
