"""Who opens what, after any history: the directory in SQL against its model, and SQLite's against its own backups.

A history is a list of steps over a few accounts and keys; each step is done on both stores and must end alike. After
each, every key that ever was opens the same vault, or nothing, in both. Restarts come anywhere. In the second test a
backup is taken somewhere and restored at the end.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.store.postgres.store import PostgresStore, open_postgres_store
from actors.store.protocol import Store
from actors.store.restore import restore
from actors.store.sqlite import SqliteStore, open_store
from models.accounts import AccountChange, Actor, KeyChange, VaultRecord
from models.errors import MemoryRouterError
from models.ids import hash_key
from models.store_settings import StoreSettings
from tests.actors.store.conftest import Clock, on_postgres
from tests.fakes.memory_disk import MemoryDisk
from tests.fakes.store import MemoryStore, open_memory_store
from tests.postgres import emptied

SETTINGS = StoreSettings(shards=2, ballast_bytes=0, scrub_interval_s=0)
BY = Actor("key:1", account_number=1)
GRACE_MS = 50
PROVIDERS = ("openai", "anthropic")
IN_MEMORY = Path("/dev/shm")
"""Where there is such a file system, the histories live there: they have nothing to do with disks."""
EXAMPLES = 12 if settings().max_examples <= 100 else 500


class Moment(msgspec.Struct, frozen=True):
    """What one step may use: a key that never was, and the time."""

    key_hash: bytes
    number: int
    now_ms: int

    def ends_ms(self, lifetime_ms: int | None) -> int | None:
        """When a lifetime that begins now ends."""
        return None if lifetime_ms is None else self.now_ms + lifetime_ms


async def create_account(store: Store, at: Moment) -> object:
    return await store.create_account(key_hash=at.key_hash, shown="", created_ms=at.now_ms, by=BY)


async def create(store: Store, at: Moment, account: int, vault: int | None, lifetime_ms: int | None) -> object:
    return await store.create_key(
        account,
        name="n",
        key_hash=at.key_hash,
        shown="",
        created_ms=at.now_ms,
        vault_number=vault,
        expires_ms=at.ends_ms(lifetime_ms),
        by=BY,
    )


async def add_account_key(store: Store, at: Moment, account: int) -> object:
    return await store.add_account_key(account, name="a", key_hash=at.key_hash, shown="", created_ms=at.now_ms, by=BY)


async def replace_account_key(store: Store, at: Moment, account: int) -> object:
    return await store.replace_account_key(account, key_hash=at.key_hash, shown="", created_ms=at.now_ms, by=BY)


async def rotate(store: Store, at: Moment, account: int, key: int, grace_ms: int) -> object:
    return await store.rotate_key(
        account, key, key_hash=at.key_hash, shown="", now_ms=at.now_ms, grace_ms=grace_ms, by=BY
    )


async def switch(store: Store, at: Moment, account: int, key: int, off: bool) -> object:
    return await store.change_key(account, key, KeyChange(disabled=off), now_ms=at.now_ms, by=BY)


async def expire(store: Store, at: Moment, account: int, key: int, lifetime_ms: int | None) -> object:
    change = KeyChange(expires_ms=at.ends_ms(lifetime_ms))
    return await store.change_key(account, key, change, now_ms=at.now_ms, by=BY)


async def delete(store: Store, at: Moment, account: int, key: int, with_vault: bool) -> object:
    return await store.delete_key(account, key, now_ms=at.now_ms, with_vault=with_vault, by=BY)


async def delete_vault(store: Store, at: Moment, account: int, vault: int) -> None:
    await store.delete_vault(account, vault, now_ms=at.now_ms, by=BY)


async def empty_vault(store: Store, at: Moment, account: int, vault: int) -> object:
    return await store.replace_vault((await store.get_vault(account, vault)).vault, by=BY)


async def switch_account(store: Store, at: Moment, account: int, off: bool) -> object:
    return await store.change_account(account, AccountChange(disabled=off), now_ms=at.now_ms, by=BY)


async def delete_account(store: Store, at: Moment, account: int) -> None:
    await store.delete_account(account, now_ms=at.now_ms, by=BY)


async def put(store: Store, at: Moment, account: int, provider: str) -> object:
    return await store.put_provider_key(account, provider, f"secret {at.number}", now_ms=at.now_ms, by=BY)


async def take(store: Store, at: Moment, account: int, provider: str) -> None:
    await store.delete_provider_key(account, provider, now_ms=at.now_ms, by=BY)


Step = tuple[Any, ...]
"""A function of these with what it gets after store and moment; or `wait` with milliseconds; or `restart`."""

ACCOUNTS = st.integers(1, 3)
KEYS = st.integers(1, 12)
VAULTS = st.integers(1, 12)
LIFETIMES = st.none() | st.integers(0, 100)
STEPS = st.one_of(
    st.tuples(st.just(create_account)),
    st.tuples(st.just(create), ACCOUNTS, st.none(), st.none()),
    st.tuples(st.just(create), ACCOUNTS, st.none() | VAULTS, LIFETIMES),
    st.tuples(st.just(add_account_key), ACCOUNTS),
    st.tuples(st.just(replace_account_key), ACCOUNTS),
    st.tuples(st.just(rotate), ACCOUNTS, KEYS, st.sampled_from((0, GRACE_MS))),
    st.tuples(st.just(rotate), st.just(1), KEYS, st.just(GRACE_MS)),
    st.tuples(st.just(switch), ACCOUNTS, KEYS, st.booleans()),
    st.tuples(st.just(expire), ACCOUNTS, KEYS, LIFETIMES),
    st.tuples(st.just(delete), ACCOUNTS, KEYS, st.booleans()),
    st.tuples(st.just(delete_vault), ACCOUNTS, VAULTS),
    st.tuples(st.just(empty_vault), ACCOUNTS, VAULTS),
    st.tuples(st.just(switch_account), ACCOUNTS, st.booleans()),
    st.tuples(st.just(delete_account), st.integers(2, 3)),
    st.tuples(st.just(put), ACCOUNTS, st.sampled_from(PROVIDERS)),
    st.tuples(st.just(take), ACCOUNTS, st.sampled_from(PROVIDERS)),
    st.tuples(st.just("wait"), st.integers(1, 60)),
    st.tuples(st.just("restart")),
)


class World:
    """The store, its model, and what they were asked to do."""

    def __init__(self, root: Path, database: str | None) -> None:
        self.root = root
        self.database = database
        self.clock = Clock()
        self.disk = MemoryDisk()
        self.hashes: list[bytes] = []
        self._stack = AsyncExitStack()
        self.store: SqliteStore | PostgresStore
        self.model: MemoryStore

    async def open(self) -> None:
        """Begin, or go on after a stop."""
        if self.database is None:
            opened: Any = open_store(self.root / "data", settings=SETTINGS, now_ms=self.clock)
        else:
            settings = on_postgres(self.database, SETTINGS)
            opened = open_postgres_store(self.root / "data", settings=settings, now_ms=self.clock)
        self.store = await self._stack.enter_async_context(opened)
        self.model = await self._stack.enter_async_context(
            open_memory_store(self.disk, settings=SETTINGS, now_ms=self.clock)
        )

    async def close(self) -> None:
        """Stop both."""
        await self._stack.aclose()

    async def do(self, step: Step) -> None:
        """One step on both."""
        action, *arguments = step
        if action == "wait":
            self.clock.ms += arguments[0]
        elif action == "restart":
            await self.close()
            await self.open()
        else:
            number = len(self.hashes)
            self.hashes.append(hash_key(f"mk_{number}"))
            at = Moment(key_hash=self.hashes[-1], number=number, now_ms=self.clock.ms)
            ended = [await outcome(action(store, at, *arguments)) for store in (self.store, self.model)]
            assert ended[0] == ended[1], action.__name__

    async def check_keys(self) -> None:
        """Each key opens the same in both."""
        for key_hash in self.hashes:
            assert await self.store.find_key(key_hash) == await self.model.find_key(key_hash)

    async def check_all(self) -> None:
        """Both say the same of everything, and no key opens a vault of another account."""
        owners = {record.vault: record.account_number for record in await vaults_of(self.store)}
        assert await vaults_of(self.store) == await vaults_of(self.model)
        kept = [record for record in await vaults_of(self.store) if not record.live_keys]
        assert await vaults_of(self.store, without_keys=True) == kept == await vaults_of(self.model, without_keys=True)
        for record in await self.store.list_keys():
            assert owners[record.vault] == record.account_number
        keys = await self.store.list_keys(include_revoked=True)
        assert keys == await self.model.list_keys(include_revoked=True)
        assert await self.store.list_keys() == await self.model.list_keys()
        backwards = await self.store.list_keys(newest_first=True, include_revoked=True)
        assert backwards == keys[::-1] == await self.model.list_keys(newest_first=True, include_revoked=True)
        assert await self.store.list_accounts() == await self.model.list_accounts()
        assert await self.store.list_audit() == await self.model.list_audit()
        assert await provider_keys(self.store) == await provider_keys(self.model)


async def outcome(action: Awaitable[object]) -> object:
    """What it returns, or which error it raises."""
    try:
        return await action
    except MemoryRouterError as error:
        return type(error)


async def vaults_of(store: Store, *, without_keys: bool = False) -> list[VaultRecord]:
    """All live vaults, or those that no key opens."""
    pages = [
        await store.list_vaults(account.number, without_keys=without_keys) for account in await store.list_accounts()
    ]
    return [record for page in pages for record in page]


async def provider_keys(store: Store) -> dict[tuple[int, str], str | None]:
    """All that the first accounts have stored."""
    found = {}
    for account in (1, 2, 3):
        for provider in PROVIDERS:
            secret = await store.find_provider_key(account, provider)
            found[account, provider] = secret.reveal() if secret else None
    return found


@asynccontextmanager
async def open_world(root: Path, database: str | None = None) -> AsyncIterator[World]:
    """A world with two accounts, on PostgreSQL if there is a database."""
    world = World(root, database)
    await world.open()
    try:
        for _ in range(2):
            await world.do((create_account,))
        yield world
    finally:
        await world.close()


async def live_through(root: Path, steps: list[Step], database: str | None = None) -> None:
    """The first test."""
    async with open_world(root, database) as world:
        for step in steps:
            await world.do(step)
            await world.check_keys()
        await world.check_all()
        await world.do(("restart",))
        await world.check_keys()
        await world.check_all()


@settings(max_examples=EXAMPLES)
@given(st.lists(STEPS, min_size=5, max_size=30))
def test_the_model_says_who_opens_what(steps: list[Step]) -> None:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as folder:
        trio.run(live_through, Path(folder), steps)


@settings(max_examples=EXAMPLES)
@given(st.lists(STEPS, min_size=5, max_size=30))
def test_the_model_says_who_opens_what_on_postgres(prepared_database: str, steps: list[Step]) -> None:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as folder:
        trio.run(live_through, Path(folder), steps, emptied(prepared_database))


async def go_back(root: Path, before: list[Step], after: list[Step]) -> None:
    """The second test."""
    async with open_world(root) as world:
        for step in before:
            await world.do(step)
        assert isinstance(world.store, SqliteStore)
        await world.store.back_up(root / "backup")
        at_backup = await provider_keys(world.store)
        for step in after:
            await world.do(step)
        kept = await provider_keys(world.store)
        keys = await world.store.list_keys(include_revoked=True)
        over = {record.number for record in keys if record.is_over(world.clock.ms)}
        live = {record.vault for record in await vaults_of(world.store)}
        accounts = {record.number for record in await world.store.list_accounts()}
    restore(root / "backup", root / "data", now_ms=world.clock.ms, replace=True)
    highest = world.model.state.vaults_made
    for _ in range(2):
        async with open_store(root / "data", settings=SETTINGS, now_ms=world.clock) as store:
            for key_hash in world.hashes:
                found = await store.find_key(key_hash)
                assert found is None or found.key_number not in over
                assert found is None or found.vault in live or found.vault.number > highest, "its own, or an empty one"
            assert {record.number for record in await store.list_accounts()} <= accounts
            for place, secret in (await provider_keys(store)).items():
                assert secret is None or secret == at_backup[place] == kept[place]


@settings(max_examples=EXAMPLES)
@given(st.lists(STEPS, min_size=3, max_size=15), st.lists(STEPS, min_size=3, max_size=15))
def test_a_restored_backup_lets_nobody_in_who_was_put_out(before: list[Step], after: list[Step]) -> None:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as folder:
        trio.run(go_back, Path(folder), before, after)
